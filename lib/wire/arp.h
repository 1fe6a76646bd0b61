// ARP for IPv4 over Ethernet (RFC 826). Other hardware, protocols and operations are kUnsupported.
#pragma once

#include <cstdint>

#include "lib/base/bytes.h"
#include "lib/wire/ethernet.h"
#include "lib/wire/parse_error.h"

namespace millrace::wire {

enum class ArpOperation : uint16_t { kRequest = 1, kReply = 2 };

inline constexpr uint32_t kArpLength = 28;  // bytes

// The same values in and out, so one type serves both ways. IPv4 addresses in host order.
struct ArpRepr {
  ArpOperation operation = ArpOperation::kRequest;
  MacAddress sender_mac{};
  uint32_t sender_ip = 0;   // 0 in a probe (RFC 5227)
  MacAddress target_mac{};  // means nothing in a request
  uint32_t target_ip = 0;

  // An announcement: sender and target address are equal (RFC 5227 2.3).
  bool is_gratuitous() const { return sender_ip == target_ip; }

  // Writes kArpLength bytes.
  uint32_t emit(uint8_t* out) const;
};

struct ArpView : ArpRepr {
  // `packet`: behind the Ethernet header; padding may follow. kNone; kTruncated; kUnsupported; kBadHeader (a group address as
  // sender).
  static ParseError parse(base::ByteSpan packet, ArpView& out);
};

}  // namespace millrace::wire
