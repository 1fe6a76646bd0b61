// SYN cookies (RFC 4987 3.6): a SYN answered without keeping anything. The sequence number of our SYN-ACK is
//
//    31  30..28   27 ........................ 0
//   +---+-------+------------------------------+
//   | e |  mss  |  MAC of (tuple, peer's ISN,   |     e: lowest bit of the epoch (64 s)
//   |   | index |  mss index, epoch)            |
//   +---+-------+------------------------------+
//
// and comes back as ACK - 1. A cookie is good in its own epoch and the next one: 64 to 128 s. The MAC is SipHash-2-4 with a
// secret of the epoch, derived from the process's key, so that workers need not tell each other anything and secrets rotate by
// themselves. 28 bits of MAC where Linux has 24: the index is kept in the clear and authenticated, instead of being added to the
// hash.
//
// Window scale and SACK live in the lowest six bits of the timestamp that we send with the SYN-ACK (if the peer does timestamps)
// and come back in TSecr, as Linux does it: bits 0..3 the peer's shift (15: none), bit 4 SACK permitted, bit 5 ECN.
#pragma once

#include <cstdint>
#include <optional>

#include "lib/base/hash.h"
#include "lib/tcp/tcp.h"

namespace millrace::tcp {

class SynCookies {
 public:
  static constexpr TimeNs kEpochNs = 64 * base::kSecond;
  // Largest MSS at most the peer's is taken. IPv4 without options, PPPoE and tunnels, Ethernet, jumbo.
  static constexpr uint16_t kMssTable[8] = {216, 536, 1220, 1360, 1440, 1460, 4312, 8960};

  explicit SynCookies(const base::HashKey& key) : key_(key) {}

  // The sequence number for the SYN-ACK that answers `syn`.
  uint32_t make(const FourTuple&, const wire::TcpView& syn, TimeNs now) const;
  // The TSval for that SYN-ACK, made of the clock's value `ts_now` (milliseconds plus offset, tcp.h) and what the peer offered;
  // at most ts_now.
  static uint32_t encode_timestamp(const wire::TcpView& syn, const Config&, uint32_t ts_now);

  // The options of the SYN if `ack` completes a handshake that make() began; nullopt if it does not. `config` as in
  // encode_timestamp().
  std::optional<CookieOptions> check(const FourTuple&, const wire::TcpView& ack, const Config&, TimeNs now) const;

 private:
  uint32_t mac(const FourTuple&, uint32_t peer_isn, uint32_t mss_index, uint64_t epoch) const;
  base::HashKey key_;
};

}  // namespace millrace::tcp
