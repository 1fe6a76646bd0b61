// HTTP/2 as templates speak it: frames with literal fields (HPACK without a dynamic table), so that no codec is needed and every
// stream's bytes are the same but for its id.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace millrace::bench::http2 {

enum FrameType : uint8_t { kData = 0, kHeaders = 1, kReset = 3, kSettings = 4, kGoAway = 7 };
inline constexpr uint8_t kEndStream = 1, kEndHeaders = 4;
inline constexpr size_t kFrameHeader = 9;

inline void put_frame(std::string& out, uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
  const size_t n = payload.size();
  for (const size_t v : {n >> 16, n >> 8, n, size_t{type}, size_t{flags}, size_t{stream >> 24}, size_t{stream >> 16},
                         size_t{stream >> 8}, size_t{stream}})
    out += static_cast<char>(v);
  out += payload;
}
// Literal without indexing; name and value below 127 bytes.
inline void put_field(std::string& block, std::string_view name, std::string_view value) {
  block += '\0';
  block += static_cast<char>(name.size());
  block += name;
  block += static_cast<char>(value.size());
  block += value;
}
// The field block of a request written as one of HTTP/1.1.
inline std::string request_block(std::string_view head) {
  std::string block;
  const auto word = [&head](char end) {
    const std::string_view w = head.substr(0, head.find(end));
    head.remove_prefix(w.size() + 1);
    return w;
  };
  put_field(block, ":method", word(' '));
  put_field(block, ":scheme", "http");
  put_field(block, ":path", word(' '));
  word('\n');
  while (!head.starts_with("\r\n")) {
    std::string name(word(':'));
    for (char& c : name)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
    head.remove_prefix(1);
    const std::string_view value = word('\r');
    head.remove_prefix(1);
    if (name == "connection") continue;
    put_field(block, name == "host" ? ":authority" : name, value);
  }
  return block;
}
// What the preface of a client is followed by: no settings, and a connection's window that lasts.
inline std::string client_hello() {
  std::string out = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  put_frame(out, kSettings, 0, 0, {});
  put_frame(out, 8, 0, 0, std::string_view("\x3f\xff\xff\xff", 4));
  return out;
}

// Takes frames off the front of what was received: calls f(type, flags, stream, payload) for each that is whole.
template <class F>
void for_frames(std::string& buffer, F&& f) {
  const auto at = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(buffer[i])); };
  size_t done = 0;
  while (buffer.size() - done >= kFrameHeader) {
    const size_t n = at(done) << 16 | at(done + 1) << 8 | at(done + 2);
    if (buffer.size() - done < kFrameHeader + n) break;
    f(static_cast<uint8_t>(at(done + 3)), static_cast<uint8_t>(at(done + 4)),
      at(done + 5) << 24 | at(done + 6) << 16 | at(done + 7) << 8 | at(done + 8),
      std::string_view(buffer).substr(done + kFrameHeader, n));
    done += kFrameHeader + n;
  }
  buffer.erase(0, done);
}

}  // namespace millrace::bench::http2
