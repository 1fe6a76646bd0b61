// What a script plays against: a TCP with an application above it and a wire below, in virtual time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/time.h"
#include "lib/stats/drop_reason.h"
#include "lib/tcp/tcp.h"

namespace millrace::packet {

using base::TimeNs;
using Bytes = std::vector<uint8_t>;

inline constexpr uint32_t kMostPayload = 10'240;  // bytes of a segment that is delivered

// Byte i of either stream.
inline uint8_t pattern(uint64_t i) { return static_cast<uint8_t>(i * 167 + (i >> 8) * 13 + 5); }

struct Reaction {
  uint32_t events = 0;  // tcp::Event bits
  stats::DropReason drop = stats::DropReason::kNone;
};

// Functions that return a string: why it was not possible, empty if it was.
class Subject {
 public:
  virtual ~Subject() = default;

  // `config NAME=VALUE`, before anything else.
  virtual std::string configure(const std::string& name, const std::string& value) = 0;
  virtual void start(TimeNs now) = 0;

  virtual std::string listen(uint32_t backlog) = 0;
  virtual std::string connect(TimeNs now) = 0;
  virtual uint16_t our_port() const = 0;
  virtual uint16_t peer_port() const = 0;

  // A segment, header and payload, checksum 0: its sender completes it.
  virtual Reaction deliver(const Bytes& segment, uint8_t ecn, TimeNs now) = 0;
  // An ICMP error about the segment at `seq`: `code` 0 too big with `mtu`, else destination unreachable with code - 1.
  virtual std::string icmp(uint32_t code, uint16_t mtu, uint32_t seq, TimeNs now, uint32_t& events) = 0;
  // The next segment that is due, header and payload.
  virtual bool transmit(TimeNs now, Bytes& segment, uint8_t& ecn) = 0;
  virtual TimeNs next_deadline() = 0;
  virtual uint32_t on_deadline(TimeNs now) = 0;  // Event bits

  virtual uint64_t write(uint64_t n, TimeNs now) = 0;  // bytes taken
  virtual std::string read(uint64_t n, TimeNs now) = 0;
  virtual std::string eof() = 0;
  virtual void shutdown(TimeNs now) = 0;
  virtual void close(TimeNs now) = 0;
  virtual void abort(TimeNs now) = 0;
  virtual void pressure(bool on) = 0;
  virtual void limit_pool(uint32_t more) = 0;

  // The connection; null when there is none.
  virtual const tcp::Tcb* tcb() const = 0;
  // Of `tcpi NAME`, what a TCB does not know. nullopt: no such name.
  virtual std::optional<uint64_t> query(const std::string& name) const = 0;

  // Everything is let go: what was lent must be back.
  virtual std::string finish() = 0;
};

std::unique_ptr<Subject> make_tcp_subject();           // lib/tcp alone
std::unique_ptr<Subject> make_stack_subject(bool v6);  // the whole TcpStack, frame by frame

// Shared by the subjects: one value of tcp::Config (names as there, times in _ms). False: no such name, or no such value.
bool configure_tcp(tcp::Config&, const std::string& name, const std::string& value);
bool parse_number(const std::string& text, uint64_t& out);

}  // namespace millrace::packet
