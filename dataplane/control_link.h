// The data plane's end of the link to control: listens on <run-dir>/dataplane.sock, lets one control process in at a time, hands
// out the statistics region and the event rings, takes the arena and the command ring, and then only watches the socket for the
// peer's death. Runs in the table loader's thread, together with it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "dataplane/table_loader.h"
#include "lib/base/status.h"
#include "lib/base/time.h"
#include "lib/shm/fd_channel.h"
#include "lib/shm/segment.h"
#include "lib/shm/spsc_ring.h"
#include "lib/stats/events.h"
#include "lib/stats/region.h"
#include "lib/table/link.h"

namespace millrace::dataplane {

// Bytes of a worker's event ring: about 8,000 access log records of 500 bytes. Full (control slow or gone): records are lost and
// counted (LoopCounter::kEventsLost); nothing waits.
inline constexpr uint64_t kDefaultEventRing = 4ull << 20;
inline constexpr uint64_t kLoaderEventRing = 256 * 1024;
static_assert(stats::kMaxAccessLogRecord <= kDefaultEventRing / 2);

// What the data plane shares with control; made once at start, alive until exit.
struct SharedSegments {
  shm::Segment stats;
  std::vector<shm::Segment> worker_events;  // one ring each
  std::vector<shm::Segment> inspection;     // likewise (table/inspect.h)
  shm::Segment loader_events;
  // Makes all of them; `event_ring_bytes` (power of two) is the capacity of each worker's ring.
  static base::Result<SharedSegments> create(const stats::RegionConfig& region, uint64_t event_ring_bytes = kDefaultEventRing);
};

struct ControlLinkConfig {
  std::string socket_path;  // <run-dir>/dataplane.sock
  uint32_t socket_mode = 0660;
  table::LinkVersions versions;  // link_versions(engine, platform)
  uint64_t incarnation = 0;      // of the region
};
// This program's versions; `regex_platform` is route::platform().
table::LinkVersions link_versions(const std::string& regex_platform);

class ControlLink {
 public:
  // Binds the socket. `segments`, `loader` and the region outlive the link.
  static base::Result<std::unique_ptr<ControlLink>> create(const ControlLinkConfig& config, const SharedSegments& segments,
                                                           stats::Region region, TableLoader& loader);
  ~ControlLink();
  ControlLink(const ControlLink&) = delete;
  ControlLink& operator=(const ControlLink&) = delete;

  // One step of link and loader, without waiting; `now` monotonic. True when something happened.
  bool step(base::TimeNs now);
  // Steps in a thread of its own until stop() (or the destructor): sleeps in poll(2) on the sockets, at most kPollMs at a time.
  void start();
  void stop();

  bool connected() const { return connected_.load(std::memory_order_relaxed); }  // any thread
  uint32_t control_pid() const { return control_pid_.load(std::memory_order_relaxed); }

 private:
  static constexpr int kPollMs = 1;                                // how late a published snapshot may be noticed
  static constexpr int kIdlePollMs = 20;                           // without a control process: stop() and freeing old snapshots
  static constexpr base::TimeNs kHandshakeNs = 2 * base::kSecond;  // a peer that does not finish its handshake is dropped
  enum class Phase : uint8_t { kIdle, kAwaitHello, kAwaitAttach, kConnected };

  ControlLink(const ControlLinkConfig& config, const SharedSegments& segments, stats::Region region, TableLoader& loader);
  bool accept_peers(base::TimeNs now);
  bool serve_peer(base::TimeNs now);
  void handle(shm::Message& message);
  void on_hello(const shm::Message& message);
  void on_attach(shm::Message& message);
  void refuse(shm::FdChannel& channel, const std::string& reason);
  void drop(const char* why);

  ControlLinkConfig config_;
  const SharedSegments& segments_;
  stats::Region region_;
  TableLoader& loader_;
  shm::FdListener listener_;
  shm::FdChannel peer_;
  Phase phase_ = Phase::kIdle;
  base::TimeNs handshake_deadline_ = base::kNever;
  uint64_t peer_incarnation_ = 0;
  std::atomic<bool> connected_{false};
  std::atomic<uint32_t> control_pid_{0};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace millrace::dataplane
