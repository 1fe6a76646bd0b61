// At most so many answers a second, with a burst of a tenth of that: a token bucket for RST and ICMP (RFC 1812 4.3.2.8, RFC 5961
// 10).
#pragma once

#include <algorithm>
#include <cstdint>

#include "lib/base/time.h"

namespace millrace::dataplane {

class RateLimit {
 public:
  // `per_second` 0: never.
  RateLimit(uint32_t per_second, base::TimeNs now)
      : per_second_(per_second),
        burst_ns_(per_second == 0 ? 0 : std::max<uint64_t>(base::kSecond / 10, cost())),
        from_(now > burst_ns_ ? now - burst_ns_ : 0) {}

  bool take(base::TimeNs now) {
    if (per_second_ == 0) return false;
    if (now > burst_ns_ && from_ < now - burst_ns_) from_ = now - burst_ns_;
    if (from_ + cost() > now) return false;
    from_ += cost();
    return true;
  }

 private:
  uint64_t cost() const { return base::kSecond / per_second_; }
  uint32_t per_second_;
  uint64_t burst_ns_;
  base::TimeNs from_;  // tokens up to here are spent
};

}  // namespace millrace::dataplane
