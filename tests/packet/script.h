// Packet scripts: who sends what when, in packetdrill's notation, as plain data. README.md describes the language. The parser
// accepts any bytes and refuses with a line and a reason; it knows nothing of a TCP.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/time.h"

namespace millrace::packet {

using base::TimeNs;

// When an event happens, or may happen.
struct When {
  enum class Base : uint8_t { kStart, kPrevious, kAnyTime };  // counted from the start of the script; from the event before; `*`
  Base base = Base::kPrevious;
  TimeNs from = 0, to = 0;  // equal but for a range (A~B)
};

// One TCP option. Numbers are the script's: sequence numbers relative, timestamps in milliseconds of script time.
struct Option {
  enum class Kind : uint8_t { kMss, kSackPermitted, kTimestamps, kNop, kEnd, kWindowScale, kSack, kFastOpen, kHex };
  Kind kind = Kind::kNop;
  uint32_t value = 0;           // mss, shift, TSval
  uint32_t echo = 0;            // TSecr
  bool echo_last = false;       // TSecr is the last TSval that came; the fast open cookie the last one that came
  std::vector<uint32_t> edges;  // of SACK blocks, left and right in turn
  std::string bytes;  // of a fast open cookie, or of an option that the language has no name for, kind and length included
};

struct Segment {
  uint8_t flags = 0;  // wire::TcpFlag bits
  uint32_t seq = 0, length = 0;
  std::optional<uint32_t> ack;
  std::optional<uint16_t> window, urgent;
  std::optional<uint8_t> ecn;  // the two bits of the IP header
  std::vector<Option> options;
  bool any_options = false;  // <...>
};

// `tcpi NAME OP VALUE`
struct Assertion {
  enum class Op : uint8_t { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual };
  std::string name;
  Op op = Op::kEqual;
  std::string value;
};

struct Event {
  enum class Kind : uint8_t {
    kReceive,  // < segment
    kExpect,   // > segment
    kIcmp,     // < icmp too_big mtu N seq N, < icmp unreachable CODE seq N
    kQuiet,    // nothing was sent up to now
    kListen,
    kConnect,
    kHandshake,  // all of it at once
    kWrite,
    kRead,
    kEof,       // nothing is left to read, and the peer has sent its FIN
    kShutdown,  // FIN after what is queued; goes on reading
    kClose,     // and nobody reads any more
    kAbort,
    kPressure,  // packet memory is short: on or off
    kPool,      // at most so many packets more may be had; -: no limit
    kEvents,    // exactly these since the last look
    kDrop,      // why the last segment was not used
    kTcpi,
  };
  uint32_t line = 0;
  When when;
  Kind kind = Kind::kQuiet;
  Segment segment;                   // kReceive, kExpect; kHandshake: the peer's SYN
  uint64_t number = 0;               // bytes, backlog, MTU, packets
  std::optional<uint64_t> accepted;  // kWrite: `write N = M`
  uint32_t code = 0;                 // kIcmp: 0 too big, else 1 + the code of "unreachable"
  bool active = false;               // kHandshake
  TimeNs rtt = 0;                    // kHandshake
  std::vector<std::string> words;    // kEvents, kDrop
  std::vector<Assertion> assertions;
};

struct Script {
  std::string shows;  // clause and sentence: the first line that is not a comment
  std::vector<std::pair<std::string, std::string>> config;
  std::vector<Event> events;
};

struct ScriptError {
  uint32_t line = 0;  // from 1
  std::string why;
};

// True, and `out` filled; or false, and `error` filled.
bool parse_script(std::string_view text, Script& out, ScriptError& error);

// "P.", "SEW", "-" for none: as the language writes them.
std::string format_flags(uint8_t flags);
// "P. 1:1001(1000) ack 1 win 65535 <nop,nop,TS val 5 ecr 6>"
std::string format_segment(const Segment&);
std::string format_time(TimeNs since_start);  // "0.200", "1.000001"

}  // namespace millrace::packet
