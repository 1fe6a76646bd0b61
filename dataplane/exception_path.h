// The worker's end of the way to the host: frames that are not ours, out and in by copy through byte rings. What is behind the
// rings makes system calls (host_bridge.h); nothing here does.
//
//   IpLayer ─▶ offer(): token bucket, ring ─▶ ...      ... ─▶ ring, take(): token bucket ─▶ IpLayer ─▶ port   (worker 0 only)
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "dataplane/counters.h"
#include "dataplane/rate_limit.h"
#include "lib/base/time.h"
#include "lib/io/packet.h"
#include "lib/shm/spsc_ring.h"

namespace millrace::dataplane {

// A record of either ring: this, then the frame.
struct HostFrame {
  uint8_t device = 0;     // index of the port
  uint8_t sums_good = 0;  // to the host: checksums need not be looked at
  uint16_t reserved = 0;
};

// Traffic to an address of ours that the host gets, when no listener and no connection of ours takes it.
struct HostRule {
  uint8_t protocol = 0;
  uint16_t first = 0, last = UINT16_MAX;  // port of either end: a daemon may open connections, too
};

class ExceptionPath {
 public:
  static constexpr uint32_t kFramesPerTurn = 32;  // taken from the host in one turn of the loop

  // `to_host`, `from_host`: attached, outlive the path; from_host null: this worker takes nothing. `rate`: frames a second, for
  // each way.
  ExceptionPath(shm::RingProducer& to_host, shm::RingConsumer* from_host, uint32_t rate, std::vector<HostRule> rules,
                base::TimeNs now)
      : to_host_(to_host), from_host_(from_host), out_(rate, now), in_(rate, now), rules_(std::move(rules)) {}

  // Copies the frame (a chain as one piece) for the host. Counts it, or why it did not go.
  void offer(uint16_t device, const rte_mbuf* frame, bool sums_good, const StackCounters& counters, base::TimeNs now);
  // The next frame of the host for a port; `frame` is empty when there is none. pop() before the next take().
  struct Taken {
    uint16_t device = 0;
    base::ByteSpan frame;
  };
  Taken take(const StackCounters& counters, base::TimeNs now);
  void pop() { from_host_->pop(); }
  bool takes() const { return from_host_ != nullptr; }

  // True when a rule gives a datagram or segment with these ports to the host.
  bool wants(uint8_t protocol, uint16_t a, uint16_t b) const {
    for (const HostRule& r : rules_)
      if (r.protocol == protocol && ((a >= r.first && a <= r.last) || (b >= r.first && b <= r.last))) return true;
    return false;
  }

 private:
  shm::RingProducer& to_host_;
  shm::RingConsumer* from_host_;
  RateLimit out_, in_;
  std::vector<HostRule> rules_;
};

}  // namespace millrace::dataplane
