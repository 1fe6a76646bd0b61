#include "lib/tcp/fast_open.h"

#include <cstring>

#include "lib/base/bytes.h"

namespace millrace::tcp {

wire::TcpCookie FastOpenCookies::of_epoch(const FourTuple& t, uint64_t epoch) const {
  uint8_t bytes[40];
  base::store_be64(bytes, epoch);
  const base::HashKey secret{base::siphash24(key_, bytes, 8), base::siphash24({key_.k1, key_.k0}, bytes, 8)};
  std::memcpy(bytes + 8, t.local.bytes.data(), 16);
  std::memcpy(bytes + 24, t.remote.bytes.data(), 16);
  wire::TcpCookie cookie{.length = kLength};
  base::store_be64(cookie.bytes, base::siphash24(secret, bytes, sizeof bytes));
  return cookie;
}

wire::TcpCookie FastOpenCookies::make(const FourTuple& t, TimeNs now) const { return of_epoch(t, now / kEpochNs); }

FastOpenCookies::Verdict FastOpenCookies::check(const FourTuple& t, const wire::TcpCookie& cookie, TimeNs now) const {
  const uint64_t epoch = now / kEpochNs;
  if (cookie == of_epoch(t, epoch)) return Verdict::kGood;
  if (epoch > 0 && cookie == of_epoch(t, epoch - 1)) return Verdict::kOld;
  return Verdict::kBad;
}

}  // namespace millrace::tcp
