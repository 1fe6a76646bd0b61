// Black holes: a router that drops what is too big for its next hop and says nothing, or whose ICMP message a firewall ate. The
// only sign is that full-sized segments time out again and again (RFC 4821 7.7, RFC 2923 2.1).
#include <algorithm>
#include <iterator>

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
  t.snd_mss = static_cast<uint16_t>(*next - headers);
}

}  // namespace millrace::tcp
