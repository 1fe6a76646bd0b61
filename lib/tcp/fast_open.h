// Fast open cookies (RFC 7413 4.1.2): a MAC of both addresses, that says "whoever sends this was heard at its address before". A
// peer asks for one in an ordinary handshake and sends it with the data of later SYNs.
//
//   SYN, cookie? ──▶                                  SYN, cookie, data ──▶ good: the data is received, answers go out at once
//        ◀── SYN-ACK, cookie                                            ──▶ else: an ordinary handshake, and a good cookie with
//        it
//
// SipHash-2-4 with a secret of the epoch, derived from the process's key, so that workers need not tell each other anything and
// secrets rotate by themselves. A cookie is good in its own epoch and the next one, in which it is replaced.
#pragma once

#include <cstdint>

#include "lib/base/hash.h"
#include "lib/tcp/tcp.h"

namespace millrace::tcp {

class FastOpenCookies {
 public:
  static constexpr TimeNs kEpochNs = 4 * 3'600 * base::kSecond;  // RFC 7413 4.1.2: short enough that a stolen one ages
  static constexpr uint8_t kLength = 8;                          // bytes, as Linux's

  explicit FastOpenCookies(const base::HashKey& key) : key_(key) {}

  // The cookie that the peer of this tuple gets now. Ports do not matter.
  wire::TcpCookie make(const FourTuple&, TimeNs now) const;
  enum class Verdict : uint8_t { kBad, kGood, kOld };  // kOld: good, of the epoch before
  Verdict check(const FourTuple&, const wire::TcpCookie&, TimeNs now) const;

 private:
  wire::TcpCookie of_epoch(const FourTuple&, uint64_t epoch) const;
  base::HashKey key_;
};

}  // namespace millrace::tcp
