// A capture on one worker (`millctl capture`): frames of its ports that a filter takes are copied into the inspection ring, with
// a time, a direction and a bound. Off, it costs a test of one byte a burst. What the ring has no room for is counted, never
// waited for.
#pragma once

#include <cstdint>

#include "lib/base/time.h"
#include "lib/io/tx_buffer.h"
#include "lib/shm/spsc_ring.h"
#include "lib/table/inspect.h"

struct rte_mbuf;

namespace millrace::dataplane {

using base::TimeNs;

class Capture : public io::FrameTap {
 public:
  // `ring`: the worker's inspection ring; may be null (tests): then no capture starts.
  Capture(uint32_t worker, shm::RingProducer* ring) : ring_(ring), worker_(worker) { show = &Capture::on_frames; }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  // `on` of the base: whether frames are wanted, asked once a burst.
  bool wants_tls_keys() const { return on && command_.tls_keys == 1; }
  // A burst that came in or is about to go out on `port`; still the caller's.
  void frames(uint16_t port, table::FrameDirection direction, rte_mbuf* const* frames, uint32_t n);
  // A line of OpenSSL's key log.
  void tls_key(const char* line, size_t size);

  // From the Inspector. One capture at a time: a second one is answered with CaptureDone{refused}.
  void start(const table::StartCapture& command, TimeNs now);
  void stop(uint64_t id);  // 0: whichever runs
  // Once a turn while something is active: ends a capture whose time is up, says CaptureDone. True while there is more to do.
  bool step(TimeNs now);
  // Unix time of this turn, for what is captured in it.
  void set_wall(uint64_t wall_ns) { wall_ns_ = wall_ns; }

 private:
  static void on_frames(io::FrameTap& self, uint16_t port, bool outbound, rte_mbuf* const* frames, uint32_t n) {
    static_cast<Capture&>(self).frames(port, outbound ? table::FrameDirection::kOutbound : table::FrameDirection::kInbound,
                                       frames, n);
  }
  void end() {
    on = false;
    done_due_ = true;
  }
  bool say_done(const table::CaptureDone& done);
  void packet(uint16_t port, table::FrameDirection direction, const rte_mbuf* m);

  shm::RingProducer* ring_;
  const uint32_t worker_;
  bool done_due_ = false;
  uint64_t wall_ns_ = 0;
  TimeNs ends_at_ = base::kNever;
  uint64_t packets_ = 0, bytes_ = 0;
  table::StartCapture command_;
  table::CaptureDone done_;
};

}  // namespace millrace::dataplane
