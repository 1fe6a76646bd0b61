// What one run of a simulator is about: who says what to whom over which network, and what goes wrong when. All of it comes from
// one seed; all of it is data, so that a failing scenario can be made smaller.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/tcp/tcp.h"
#include "tests/sim/path.h"

namespace millrace::sim {

// What one application does on its connection. It sends byte i as pattern(stream, i), so that the other side can check each byte.
struct Plan {
  uint64_t send_bytes = 0;
  uint32_t write_size = 16'384;     // most bytes of one write
  uint32_t read_size = UINT32_MAX;  // most bytes of one read
  TimeNs read_interval = 0;         // 0: reads at once; else every so often (a slow reader)
  TimeNs write_interval = 0;        // 0: whenever there is space
  Interval stalled;                 // the process reads nothing meanwhile, however long that is
  bool close_when_sent = true;      // half close after the last byte; else close when the peer has closed
  TimeNs abort_at = base::kNever;
  bool mini_time_wait = false;  // moves to a TimeWaitEntry
};

struct ConnectionPlan {
  static constexpr size_t kNone = SIZE_MAX;
  bool used = true;  // false: left out, by whoever makes a scenario smaller
  TimeNs start = 0;  // from the scenario's start, or from the end of the client's side of `after`
  // The four-tuple of this earlier connection again, as soon as the client is done with it: the server may be in TIME-WAIT, or
  // still believe in the old one.
  size_t after = kNone;
  uint16_t client_port = 0;
  bool v6 = false;
  bool simultaneous = false;       // both sides open actively
  uint32_t near_wrap[2] = {0, 0};  // the side's first sequence number lies so far below 2^32; 0: as it comes
  Plan client, server;
  tcp::Config client_config, server_config;
};

// What befalls a host.
struct HostFault {
  enum class Kind : uint8_t {
    kPause,      // nothing runs for `lasts`; frames wait in a small ring
    kClockStep,  // its clock jumps forward by `lasts`
    kDeath,      // forgets everything; is back after `lasts`
    kNoPackets,  // its packet pool is empty but for a few for `lasts`
    kNoRepairs,  // its pool of Repairs is empty for `lasts`
  };
  Kind kind = Kind::kPause;
  int side = 0;
  TimeNs at = 0, lasts = 0;
};
const char* to_string(HostFault::Kind k);

struct Scenario {
  uint64_t seed = 0;
  Link link[2];                   // [0]: client to server
  std::vector<HostFault> faults;  // all end before heal_at
  TimeNs heal_at = base::kNever;  // from here on no faults
  TimeNs end_at = 0;              // everything must be over by then
  uint32_t backlog = 16;
  uint32_t repairs = 64;  // tcp::RepairPool of each host
  bool chain = false;     // stack simulator: ports take chained frames
  std::vector<ConnectionPlan> connections;
};

// A scenario with everything drawn from `seed`. `stack`: for the simulator of whole hosts, which chooses ports itself.
Scenario random_scenario(uint64_t seed, bool stack = false);

// What is left of it, in a few lines.
std::string describe(const Scenario& s);

// Leaves out connections and faults one after the other as long as `fails` still says true of what remains; at most `tries` runs.
Scenario reduce(const Scenario& scenario, const std::function<bool(const Scenario&)>& fails, int tries = 200);

// Byte i of a stream.
inline uint8_t pattern(uint64_t stream, uint64_t i) {
  uint64_t x = (stream * 0x9e3779b97f4a7c15) ^ (i >> 3);
  x *= 0xbf58476d1ce4e5b9;
  x ^= x >> 31;
  return static_cast<uint8_t>(x >> (8 * (i & 7)));
}
inline uint64_t stream_of(const Scenario& s, size_t connection, int side) {
  return s.seed * 1000 + connection * 2 + static_cast<uint64_t>(side);
}

// Counts what a run did into one number: equal for equal runs.
class TraceHash {
 public:
  void add(uint64_t x) { h_ = (h_ ^ x) * 0x9e3779b97f4a7c15, h_ ^= h_ >> 29; }
  void add(const uint8_t* bytes, size_t n) {
    for (; n >= 8; bytes += 8, n -= 8) add(word(bytes, 8));
    if (n > 0) add(word(bytes, n));
  }
  uint64_t value() const { return h_; }

 private:
  static uint64_t word(const uint8_t* bytes, size_t n) {
    uint64_t x = n;
    for (size_t i = 0; i < n; ++i) x = x << 8 | bytes[i];
    return x;
  }
  uint64_t h_ = 1;
};

}  // namespace millrace::sim
