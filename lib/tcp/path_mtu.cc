// Black holes: a router that drops what is too big for its next hop and says nothing, or whose ICMP message a firewall ate. The
// only sign is that full-sized segments time out again and again (RFC 4821 7.7, RFC 2923 2.1). Segments get smaller then, and
// later larger ones are tried again, of new data and with more behind them, so that the loss of one costs a round trip and no
// reduction: first what was right before the black hole, then halves of what is left, until it is not worth another probe; ten
// minutes later all over. Without SACK, and when the connection falls idle, it stays as it is.
#include <algorithm>
#include <iterator>
#include <utility>

#include "lib/tcp/tcb_ops.h"

namespace millrace::tcp {
namespace {

// What paths carry, in bytes of IP packet: Ethernet, below every tunnel (and the least of IPv6), RFC 4821's base, the least of
// IPv4.
constexpr uint16_t kPlateaus[] = {1500, kMinPathMtuV6, 1024, kMinPathMtuV4};

}  // namespace

void suspect_black_hole(Tcb& t) {
  if (t.timeouts < kBlackHoleTimeouts || t.snd_max - t.snd_una < payload_mss(t)) return;
  const bool v4 = t.tuple.remote.is_v4();
  const uint16_t headers = v4 ? 40 : 60, least = v4 ? kMinPathMtuV4 : kMinPathMtuV6;
  const uint32_t mtu = uint32_t{t.snd_mss} + headers;
  const auto* next = std::find_if(std::begin(kPlateaus), std::end(kPlateaus), [mtu](uint16_t plateau) { return plateau < mtu; });
  if (next == std::end(kPlateaus) || *next < least) return;
  const uint16_t before = t.snd_mss;
  t.snd_mss = static_cast<uint16_t>(*next - headers);
  if (!has(t, kFlagSack) || need_repair(t) == nullptr) return;
  PathSearch& p = t.repair->path;
  p.most = std::max(p.most, before);
  p.failed = p.most + 1;  // bad luck looks like a black hole: the first probe is what was right before
  p.size = 0;
  p.repeating = false;
  p.again_at = 0;
}

uint16_t path_probe_size(Tcb& t, TimeNs now) {
  PathSearch& p = t.repair->path;
  if (p.size != 0 || p.repeating || now < p.again_at) return 0;
  if (t.snd_mss >= p.most) {
    p = {};
    return 0;
  }
  if (p.failed > p.most) return p.most;
  if (p.failed <= t.snd_mss + kPathSearchGrain) {
    p.failed = p.most + 1;
    p.again_at = base::time_add(now, kPathSearchAgain);
    return 0;
  }
  return static_cast<uint16_t>((uint32_t{t.snd_mss} + p.failed) / 2);
}

void path_probe_answered(Tcb& t, TimeNs now) {
  PathSearch& p = t.repair->path;
  const bool reported = seq_lt(t.snd_una, p.right) && seq_ge(p.left, t.snd_una) &&
                        t.repair->scoreboard.bytes_in(p.left, p.right) == p.right - p.left;
  if (p.size == 0 || (seq_lt(t.snd_una, p.right) && !reported)) return;
  t.snd_mss = std::max(t.snd_mss, std::exchange(p.size, uint16_t{0}));
  t.congestion.cwnd = std::max(t.congestion.cwnd, payload_mss(t));
  tally(t, &RecoveryCounts::larger_segments);
  if (t.snd_mss >= p.most) p = {};
}

bool path_probe_lost(Tcb& t) {
  PathSearch& p = t.repair->path;
  if (p.size == 0 && !p.repeating) return false;
  const Scoreboard::Range lost = t.repair->scoreboard.first_lost();
  if (seq_lt(lost.left, p.left) || seq_gt(lost.right, p.right) || t.repair->scoreboard.lost() != lost.bytes()) {
    p.repeating = false;
    return false;
  }
  if (p.size != 0) {
    p.failed = std::exchange(p.size, uint16_t{0});
    p.repeating = true;
    tally(t, &RecoveryCounts::larger_lost);
  }
  return true;
}

void forget_path_probe(Tcb& t) {
  PathSearch& p = t.repair->path;
  if (p.size != 0) p.failed = std::exchange(p.size, uint16_t{0});
  p.repeating = false;
}

}  // namespace millrace::tcp
