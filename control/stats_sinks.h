// Statistics sent to somebody: Bootstrap.stats_sinks. Sinks are read at start from the configuration file, as in Envoy; control
// sends over the host's own network, not over the data plane's ports.
//
// Every flush sends, of each metric of control/metrics.h (endpoints left out), what was added since the last one (counters), what
// is (gauges), and a line for each used bucket of a time, "12.5|ms|@0.01" for a hundred that took about 12.5 ms. What was never
// used is not sent. While a TCP sink cannot be reached counters wait, nothing is lost; what was handed to a connection that then
// broke is lost, and counted. A UDP sink is told nothing by its peer.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "control/metrics.h"
#include "control/stats_sinks_config.h"
#include "lib/stats/region.h"

namespace millrace::control {

// What was sent of each metric, and the lines for what has come since. One a sink. Not thread-safe.
class StatsdEncoder {
 public:
  explicit StatsdEncoder(const StatsSinkConfig& config) : config_(config) {}
  // The lines of one flush, each with its newline. Nothing counts as sent before commit().
  std::vector<std::string> lines(const stats::RegionView& view, const Model& model);
  void commit();

 private:
  struct Sent {
    std::vector<uint64_t> values;
    std::vector<uint64_t> pending;
    uint64_t flush = 0;  // in which it was last seen
  };
  void group(const MetricGroup& g, std::span<const MetricValue> values, std::vector<std::string>& out);
  void histogram(std::string_view name, const stats::HistogramSnapshot& now, std::vector<std::string>& out);

  const StatsSinkConfig config_;
  uint64_t incarnation_ = 0;  // of the data plane the values are of
  uint64_t flush_ = 0;
  std::map<std::string, Sent, std::less<>> sent_;
  std::map<std::string, stats::HistogramSnapshot, std::less<>> times_, pending_times_;
};

class StatsSinks {
 public:
  struct Sources {
    std::function<bool(const std::function<void(const stats::RegionView&)>&)> with_stats;
    std::function<std::shared_ptr<const Model>()> model;
    std::function<void(const std::string&)> say;  // one line for the log
  };
  StatsSinks(StatsSinksConfig config, Sources sources);
  ~StatsSinks();  // stops; what has not been flushed is flushed once more
  StatsSinks(const StatsSinks&) = delete;
  StatsSinks& operator=(const StatsSinks&) = delete;

  void start();  // flushes at the interval, in a thread of its own
  void stop();
  void flush();  // now (tests, the end)

  const StatsSinksConfig& config() const { return config_; }
  struct Counters {
    uint64_t flushes = 0, lines = 0, lost_lines = 0, failures = 0;
  };
  Counters counters() const;

 private:
  class Peer;
  void run();

  const StatsSinksConfig config_;
  const Sources sources_;
  std::vector<std::unique_ptr<Peer>> peers_;
  mutable std::mutex mutex_;  // guards peers_ and counters_: one flush at a time
  Counters counters_;
  std::mutex stop_mutex_;
  std::condition_variable stop_signal_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace millrace::control
