// Writes a pcapng file (draft-ietf-opsawg-pcapng): one section, one interface a port, packets, secrets, statistics. Little
// endian, whatever the host; times in nanoseconds since 1970.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace millrace::control {

// The blocks, one after another, in a buffer that the caller empties as he likes.
class PcapngWriter {
 public:
  struct Interface {
    std::string name, description, filter;
    uint32_t snap = 0;  // 0: not bounded
  };
  enum class Direction : uint8_t { kUnknown = 0, kInbound = 1, kOutbound = 2 };

  // The section header, first; `application` is what made the file.
  void section(std::string_view application);
  // Interfaces are numbered from 0 in the order of these calls; all of them before the first packet.
  void interface(const Interface& i);
  // `data` is what was kept of `length` bytes of an Ethernet frame. `comment`: "" for none.
  void packet(uint32_t interface, uint64_t time_ns, std::span<const uint8_t> data, uint32_t length, Direction direction,
              std::string_view comment = {});
  // Lines of the NSS key log format (Decryption Secrets Block); in front of the packets that they open.
  void tls_keys(std::string_view lines);
  // Interface Statistics Block: frames seen, let pass by the filter, and lost for want of room.
  void statistics(uint32_t interface, uint64_t start_ns, uint64_t end_ns, uint64_t seen, uint64_t taken, uint64_t dropped);

  std::string& buffer() { return out_; }

 private:
  size_t begin(uint32_t type);
  void end(size_t block);
  void u16(uint16_t v);
  void u32(uint32_t v);
  void time(uint64_t ns);             // as two words, the higher first
  void bytes(std::string_view data);  // padded to 32 bits
  void option(uint16_t code, std::string_view value);
  void option_u64(uint16_t code, uint64_t v);
  void option_end() { u32(0); }

  std::string out_;
};

}  // namespace millrace::control
