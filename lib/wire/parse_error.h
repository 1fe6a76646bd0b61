// Why a header was refused. lib/wire knows nothing of lib/stats: the caller, who knows the protocol it asked for, maps this to a
// named drop reason (kTcpTruncated, kArpMalformed, ...).
#pragma once

#include <cstdint>

namespace millrace::wire {

enum class [[nodiscard]] ParseError : uint8_t{
    kNone = 0,
    kTruncated,    // a header, an option or a length field runs past the bytes that are there
    kBadHeader,    // a field holds a value that the standard forbids
    kBadFlags,     // TCP only: flags no connection can have
    kBadChecksum,  // the header's own checksum is wrong (IPv4, ICMP); L4 checksums are a separate question, see checksum.h
    kFragment,     // IP only: a fragment, which the gateway does not reassemble
    kUnsupported,  // well formed, but of a kind that we do not speak (ARP for another hardware, ICMP of another type)
};

// "truncated", "bad_header", ...: for tests and traces.
const char* to_string(ParseError e);

}  // namespace millrace::wire
