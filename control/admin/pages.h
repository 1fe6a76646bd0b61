// Envoy's admin interface as a function: a request in, a reply out. Who listens, and where, is server.h's.
//
//   /, /help          the pages, for people                  /ready        200 once the data plane serves tables of this control
//   /stats            counters, gauges and times as text     /server_info  version, state, uptime
//   /stats/prometheus for Prometheus (prometheus.h)          /certs        certificates in use, and until when
//   /clusters         clusters and their endpoints           /memory       this process, and the tables
//   /listeners        listeners and addresses                /config_dump  the configuration in force
//   /init_dump        what waits for others                  /runtime      no layers
//   /hot_restart_version   /contention   /heap_dump   /peak_heap_dump: what Envoy says that has none
//   by POST:
//   /logging          levels of control's loggers            /reopen_logs  files anew
//   /reset_counters   counters from here on (baseline.h)     /quitquitquit ends control; the data plane serves on
//   /healthcheck/fail, /healthcheck/ok                       /drain_listeners (?graceful: over kDrainTimeS)
//   /runtime_modify, /cpuprofiler, /heapprofiler, /allocprofiler: refused, with the reason
//
// Names and shapes are Envoy's (admin.v3); what Millrace has beyond them is named so. A page that changes something is asked for
// with POST, or answered with 405. Everything is read from shared memory and the model: a scrape costs the poll cores nothing.
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "control/admin/baseline.h"
#include "control/dynamic_resources.h"
#include "control/model.h"
#include "control/xds_stream.h"
#include "lib/stats/region.h"

namespace millrace::control::admin {

struct Request {
  std::string method = "GET";
  std::string path = "/";
  std::map<std::string, std::string> query;  // decoded; a parameter without a value is ""
};
inline constexpr const char* kPlain = "text/plain; charset=UTF-8";
struct Reply {
  int status = 200;
  std::string type = kPlain;
  std::string body;
};

// What /ready and /server_info say (admin.v3.ServerInfo.State).
enum class ServerState : uint8_t { kLive, kPreInitializing, kInitializing, kDraining };
std::string_view to_string(ServerState s);  // "LIVE", "PRE_INITIALIZING", "INITIALIZING", "DRAINING"

// What is known of management servers' resources.
struct DynamicView {
  DynamicResources::Infos infos;
  std::array<std::string, kXdsTypes> versions;  // of the newest responses
  std::set<ConfigKey> waiting;                  // not in force as they were accepted
  std::shared_ptr<const Model> in_force;
};

class Pages {
 public:
  static constexpr uint32_t kDrainTimeS = 600;  // of a graceful drain, as Envoy's --drain-time-s

  struct Sources {
    std::function<bool(const std::function<void(const stats::RegionView&)>&)> with_stats;  // as DataplaneLink::with_stats
    std::function<std::shared_ptr<const Model>()> model;                                   // everything that was accepted
    std::function<std::shared_ptr<const Model>()> resolved;  // in force, with addresses for host names
    std::function<DynamicView()> dynamic;                    // may be empty: nothing is dynamic
    std::function<std::optional<XdsStatus>()> discovery;     // may be empty; nullopt: no management server
    std::function<ServerState()> state;
    // Of the gateway: its health failed or not, or that it drains over so many seconds. False: no data plane is there to do it.
    std::function<bool(bool failed)> set_health;
    std::function<bool(uint32_t time_s)> drain;
    std::function<void()> quit;             // ends this process, soon
    std::function<void()> reopen_logs;      // access logs and control's own
    std::function<uint64_t()> arena_bytes;  // tables in shared memory
    std::string version, node_id, node_cluster, config_file;
    std::chrono::steady_clock::time_point started;
    std::function<int64_t()> unix_time;  // seconds
  };
  explicit Pages(Sources sources) : s_(std::move(sources)) {}

  // Any thread. Never throws but std::bad_alloc.
  Reply answer(const Request& request) const;

 private:
  Reply stats(const Request& r) const;
  Reply prometheus(const Request& r) const;
  Reply clusters(const Request& r) const;
  Reply listeners(const Request& r) const;
  Reply server_info() const;
  Reply certs() const;
  Reply memory() const;
  Reply config_dump(const Request& r) const;
  Reply set_health(bool failed) const;
  Reply drain_listeners(const Request& r) const;
  Reply reset_counters() const;
  Reply logging(const Request& r) const;
  Reply profiler(const Request& r) const;
  Reply init_dump(const Request& r) const;
  Reply runtime_modify(const Request& r) const;
  // Since the last /reset_counters; null: there was none, or not with the data plane of `view`.
  std::shared_ptr<const Baseline> baseline(const stats::RegionView& view) const;
  Reply front_page() const;
  Reply help() const;

  struct Page;
  static const Page kPages[];
  Sources s_;
  mutable std::mutex baseline_mutex_;  // guards the pointer only
  mutable std::shared_ptr<const Baseline> baseline_;
};

// Bad parameters are answered with 400 and the reason.
Reply bad_request(const std::string& why);

}  // namespace millrace::control::admin
