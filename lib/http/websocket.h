// The two values of the WebSocket handshake (RFC 6455 4): a key that the client makes up, and the answer to it by which it knows
// that the server understood. Over extended CONNECT there is neither (RFC 8441 5), so a gateway between the two makes them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace millrace::http {

inline constexpr size_t kWebSocketKeyBytes = 24;     // base64 of 16 bytes
inline constexpr size_t kWebSocketAcceptBytes = 28;  // base64 of 20 bytes

// Sec-WebSocket-Key of those 128 bits.
void write_websocket_key(const uint64_t random[2], char out[kWebSocketKeyBytes]);
// Sec-WebSocket-Accept that answers `key` (at most 64 bytes; longer ones are none, and get an answer nobody expects).
void write_websocket_accept(std::string_view key, char out[kWebSocketAcceptBytes]);

}  // namespace millrace::http
