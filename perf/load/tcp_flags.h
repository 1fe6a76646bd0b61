// Bits of the TCP header's flags (RFC 9293 3.1), for the two halves of TcpPeer.
#pragma once

#include <cstdint>

namespace millrace::load {

inline constexpr uint8_t kFin = 0x01, kSyn = 0x02, kRst = 0x04, kPsh = 0x08, kAck = 0x10;

}  // namespace millrace::load
