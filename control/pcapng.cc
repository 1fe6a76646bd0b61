#include "control/pcapng.h"

#include <cstring>

namespace millrace::control {
namespace {

// draft-ietf-opsawg-pcapng, sections 4.1 to 4.7.
constexpr uint32_t kSection = 0x0a0d0d0a, kInterface = 1, kStatistics = 5, kEnhancedPacket = 6, kSecrets = 10;
constexpr uint32_t kByteOrderMagic = 0x1a2b3c4d, kTlsKeyLog = 0x544c534b;
constexpr uint16_t kLinkEthernet = 1;
constexpr uint16_t kComment = 1;
constexpr uint16_t kShbOs = 3, kShbApplication = 4;
constexpr uint16_t kIfName = 2, kIfDescription = 3, kIfResolution = 9, kIfFilter = 11;
constexpr uint16_t kPacketFlags = 2;
constexpr uint16_t kIsbStart = 2, kIsbEnd = 3, kIsbReceived = 4, kIsbDropped = 5, kIsbAccepted = 6;
constexpr size_t kMaxOption = 65'535;

}  // namespace

void PcapngWriter::u16(uint16_t v) {
  out_ += static_cast<char>(v & 0xff);
  out_ += static_cast<char>(v >> 8);
}
void PcapngWriter::u32(uint32_t v) {
  u16(static_cast<uint16_t>(v & 0xffff));
  u16(static_cast<uint16_t>(v >> 16));
}
void PcapngWriter::time(uint64_t ns) {
  u32(static_cast<uint32_t>(ns >> 32));
  u32(static_cast<uint32_t>(ns));
}
void PcapngWriter::bytes(std::string_view data) {
  out_ += data;
  out_.append((4 - data.size() % 4) % 4, '\0');
}
void PcapngWriter::option(uint16_t code, std::string_view value) {
  value = value.substr(0, kMaxOption);
  u16(code);
  u16(static_cast<uint16_t>(value.size()));
  bytes(value);
}
void PcapngWriter::option_u64(uint16_t code, uint64_t v) {
  u16(code);
  u16(8);
  u32(static_cast<uint32_t>(v));
  u32(static_cast<uint32_t>(v >> 32));
}

size_t PcapngWriter::begin(uint32_t type) {
  const size_t at = out_.size();
  u32(type);
  u32(0);  // its length, once known
  return at;
}
void PcapngWriter::end(size_t block) {
  const auto length = static_cast<uint32_t>(out_.size() - block + 4);
  u32(length);
  for (int i = 0; i < 4; ++i) out_[block + 4 + i] = static_cast<char>(length >> 8 * i);
}

void PcapngWriter::section(std::string_view application) {
  const size_t b = begin(kSection);
  u32(kByteOrderMagic);
  u16(1);
  u16(0);
  u32(0xffffffff);  // the section's length is not known
  u32(0xffffffff);
  option(kShbOs, "Linux");
  option(kShbApplication, application);
  option_end();
  end(b);
}

void PcapngWriter::interface(const Interface& i) {
  const size_t b = begin(kInterface);
  u16(kLinkEthernet);
  u16(0);
  u32(i.snap);
  option(kIfName, i.name);
  if (!i.description.empty()) option(kIfDescription, i.description);
  option(kIfResolution, std::string_view("\x09", 1));  // 10^-9 s
  if (!i.filter.empty()) option(kIfFilter, std::string(1, '\0') + i.filter);
  option_end();
  end(b);
}

void PcapngWriter::packet(uint32_t interface, uint64_t time_ns, std::span<const uint8_t> data, uint32_t length,
                          Direction direction, std::string_view comment) {
  const size_t b = begin(kEnhancedPacket);
  u32(interface);
  time(time_ns);
  u32(static_cast<uint32_t>(data.size()));
  u32(length);
  bytes({reinterpret_cast<const char*>(data.data()), data.size()});
  if (!comment.empty()) option(kComment, comment);
  if (direction != Direction::kUnknown) {
    u16(kPacketFlags);
    u16(4);
    u32(static_cast<uint32_t>(direction));
  }
  option_end();
  end(b);
}

void PcapngWriter::tls_keys(std::string_view lines) {
  const size_t b = begin(kSecrets);
  u32(kTlsKeyLog);
  u32(static_cast<uint32_t>(lines.size()));
  bytes(lines);
  end(b);
}

void PcapngWriter::statistics(uint32_t interface, uint64_t start_ns, uint64_t end_ns, uint64_t seen, uint64_t taken,
                              uint64_t dropped) {
  const size_t b = begin(kStatistics);
  u32(interface);
  time(end_ns);
  const auto option_time = [this](uint16_t code, uint64_t ns) {
    u16(code);
    u16(8);
    time(ns);
  };
  option_time(kIsbStart, start_ns);
  option_time(kIsbEnd, end_ns);
  option_u64(kIsbReceived, seen);
  option_u64(kIsbDropped, dropped);
  option_u64(kIsbAccepted, taken);
  option_end();
  end(b);
}

}  // namespace millrace::control
