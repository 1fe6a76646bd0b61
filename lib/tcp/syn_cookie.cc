#include "lib/tcp/syn_cookie.h"

#include <cstring>

#include "lib/tcp/tcb_ops.h"

namespace millrace::tcp {
namespace {

constexpr uint32_t kMacBits = 28, kMacMask = (1u << kMacBits) - 1;
constexpr uint32_t kTimestampBits = 6, kTimestampMask = (1u << kTimestampBits) - 1;
constexpr uint32_t kNoScale = 15, kScaleMask = 15, kSackBit = 16, kEcnBit = 32;

}  // namespace

uint32_t SynCookies::mac(const FourTuple& t, uint32_t peer_isn, uint32_t mss_index, uint64_t epoch) const {
  uint8_t bytes[48];
  base::store_be64(bytes, epoch);
  const base::HashKey secret{base::siphash24(key_, bytes, 8), base::siphash24({key_.k1, key_.k0}, bytes, 8)};
  std::memcpy(bytes, t.local.bytes.data(), 16);
  std::memcpy(bytes + 16, t.remote.bytes.data(), 16);
  base::store_be16(bytes + 32, t.local_port);
  base::store_be16(bytes + 34, t.remote_port);
  base::store_be32(bytes + 36, peer_isn);
  base::store_be64(bytes + 40, mss_index);
  return static_cast<uint32_t>(base::siphash24(secret, bytes, sizeof bytes)) & kMacMask;
}

uint32_t SynCookies::make(const FourTuple& t, const wire::TcpView& syn, TimeNs now) const {
  const uint16_t offered = syn.mss.value_or(t.remote.is_v4() ? 536 : 1220);
  uint32_t index = 0;
  while (index + 1 < std::size(kMssTable) && kMssTable[index + 1] <= offered) ++index;
  const uint64_t epoch = now / kEpochNs;
  return static_cast<uint32_t>(epoch & 1) << 31 | index << kMacBits | mac(t, syn.seq, index, epoch);
}

uint32_t SynCookies::encode_timestamp(const wire::TcpView& syn, const Config& config, uint32_t ts_now) {
  uint32_t bits = config.window_scaling && syn.wscale ? *syn.wscale : kNoScale;
  if (config.sack && syn.sack_permitted) bits |= kSackBit;
  if (accepts_ecn(config, syn)) bits |= kEcnBit;
  uint32_t ts = (ts_now & ~kTimestampMask) | bits;
  if (static_cast<int32_t>(ts - ts_now) > 0) ts -= 1u << kTimestampBits;  // never from the future
  return ts;
}

std::optional<CookieOptions> SynCookies::check(const FourTuple& t, const wire::TcpView& ack, const Config& config,
                                               TimeNs now) const {
  const uint32_t cookie = ack.ack - 1, peer_isn = ack.seq - 1;
  uint64_t epoch = now / kEpochNs;
  if ((epoch & 1) != cookie >> 31) {
    if (epoch == 0) return std::nullopt;
    --epoch;
  }
  const uint32_t index = cookie >> kMacBits & 7;
  if (mac(t, peer_isn, index, epoch) != (cookie & kMacMask)) return std::nullopt;

  CookieOptions o{
      .mss = kMssTable[index], .snd_wscale = 0, .window_scaling = false, .sack = false, .timestamps = false, .ecn = false};
  if (config.timestamps && ack.timestamps) {
    o.timestamps = true;
    const uint32_t bits = ack.timestamps->ecr & kTimestampMask;
    if ((bits & kScaleMask) != kNoScale) {
      o.window_scaling = config.window_scaling;
      o.snd_wscale = static_cast<uint8_t>(bits & kScaleMask);
    }
    o.sack = config.sack && (bits & kSackBit) != 0;
    o.ecn = may_use_ecn(config) && (bits & kEcnBit) != 0;
  }
  return o;
}

}  // namespace millrace::tcp
