// Control's end of the link: connects to <run-dir>/dataplane.sock, tries again for ever (steps of at most 100 ms), shakes hands,
// maps what it is given, feeds the publisher, and drains the event rings. The socket then only tells whether the data plane
// lives.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "control/publisher.h"
#include "lib/base/status.h"
#include "lib/base/time.h"
#include "lib/shm/fd_channel.h"
#include "lib/shm/segment.h"
#include "lib/shm/spsc_ring.h"
#include "lib/stats/region.h"
#include "lib/table/link.h"

namespace millrace::control {

struct DataplaneLinkConfig {
  std::string socket_path;       // <run-dir>/dataplane.sock
  table::LinkVersions versions;  // link_versions(route::platform())
  uint64_t incarnation = 0;      // of this control process (the publisher's)
};
// This program's versions; `regex_platform` is route::platform(), or "" where regexes are not used.
table::LinkVersions link_versions(const std::string& regex_platform);

// What is known of the data plane; a copy.
struct DataplaneInfo {
  bool connected = false;
  uint64_t incarnation = 0;
  uint32_t pid = 0, workers = 0;
  uint64_t events_read = 0;
  std::string state;  // one sentence for a person: "connected", "waiting for …", "refused: …"
};

class DataplaneLink {
 public:
  // A record of a worker's event ring (stats::RecordHeader first); valid during the call. Called from the link's thread; a slow
  // handler delays acknowledgements, and then records are lost in the data plane.
  using EventHandler = std::function<void(uint32_t worker, std::span<const uint8_t> record)>;
  // A record of a worker's inspection ring (table/inspect.h); valid during the call. Called from the link's thread. Null record:
  // the data plane is gone, nothing more will come.
  using InspectHandler = std::function<void(uint32_t worker, std::span<const uint8_t> record)>;
  // One line for the log: connected, lost, refused, rejected snapshot. Called from the link's thread.
  using LogHandler = std::function<void(const std::string& line)>;

  DataplaneLink(const DataplaneLinkConfig& config, Publisher& publisher, EventHandler on_event, LogHandler log = {},
                InspectHandler on_inspect = {});
  ~DataplaneLink();
  DataplaneLink(const DataplaneLink&) = delete;
  DataplaneLink& operator=(const DataplaneLink&) = delete;

  // One step without waiting (tests; `now` decides when to try again). True when something happened.
  bool step(base::TimeNs now);
  // Steps in a thread of its own until stop() or the destructor.
  void start();
  void stop();

  DataplaneInfo info() const;  // any thread
  // Runs `f` with the statistics of the connected data plane while they cannot go away; false when none is connected. Any thread.
  bool with_stats(const std::function<void(const stats::RegionView&)>& f) const;

 private:
  static constexpr base::TimeNs kRetryFirstNs = 10 * base::kMillisecond, kRetryMaxNs = 100 * base::kMillisecond;
  static constexpr base::TimeNs kHandshakeNs = 2 * base::kSecond;
  static constexpr base::TimeNs kEventPollNs = base::kMillisecond;
  static constexpr uint32_t kInspectionsPerStep = 16'384;  // of each worker; a capture at full rate has many
  static constexpr uint32_t kEventsPerStep = 4096;         // bounds one step, so that a flood of records does not delay the rest
  enum class Phase : uint8_t { kDown, kAwaitWelcome, kAwaitReady, kUp };

  bool try_connect(base::TimeNs now);
  bool serve(base::TimeNs now);
  base::Status on_welcome(shm::Message& message);
  void lose(base::TimeNs now, const std::string& why);
  bool drain_events();
  bool drain_inspection();
  void say(const std::string& line);

  const DataplaneLinkConfig config_;
  Publisher& publisher_;
  EventHandler on_event_;
  LogHandler log_;
  InspectHandler on_inspect_;

  Phase phase_ = Phase::kDown;
  base::TimeNs next_try_ = 0, retry_step_ = kRetryFirstNs, deadline_ = base::kNever;
  shm::FdChannel channel_;
  std::string last_line_;
  table::LinkWelcome welcome_;
  std::vector<shm::Segment> rings_;  // workers', then the loader's
  std::vector<shm::RingConsumer> consumers_;
  std::vector<shm::RingConsumer> inspection_;  // of the workers; their memory is in rings_ too

  mutable std::mutex mutex_;  // guards what follows
  shm::Segment stats_;
  std::optional<stats::RegionView> view_;
  DataplaneInfo info_;

  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace millrace::control
