// What management servers say, made part of the configuration: between the streams (xds_stream.h), which deliver, and the control
// plane, which compiles and publishes. Any thread.
//
//   stream ─ apply() ─▶ DynamicResources: unpacked, checked ─▶ model ─ Warming ─▶ in force ─▶ compile ▸ publish
//     ▲   ◀─ rejections ─┘                                       │
//     └── wanted(): names that listeners and clusters ask for ◀──┘       edits by hand ─▶ the same model
//
// The control plane has one always (ControlPlane::dynamic_config()); ControlConfig::dynamic says what the bootstrap has of
// servers.
//
// Nothing of it is stored. A control that starts with management servers publishes nothing at first: the data plane goes on with
// the tables it has until the servers have said everything that was asked for, or were given up (initial_fetch_timeout). A data
// plane that has no tables is kept waiting likewise, as Envoy opens no listener before its first fetch, but for no longer than
// initial_fetch_timeout in all; one that has some keeps them for as long as no server was reached.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "control/control_plane.h"
#include "control/dynamic_resources.h"
#include "control/xds_sink.h"

namespace millrace::control {

class DynamicConfig final : public XdsSink {
 public:
  // `plane` outlives it.
  DynamicConfig(ControlPlane& plane, const DynamicOptions& options);
  ~DynamicConfig() override;
  DynamicConfig(const DynamicConfig&) = delete;
  DynamicConfig& operator=(const DynamicConfig&) = delete;

  // What is refused and what expires is for the stream to say.
  std::vector<XdsRejection> apply(const XdsUpdate& update) override;
  void expired(XdsType type, std::string_view name) override;
  std::set<std::string> wanted(XdsType type) override;
  std::vector<XdsFileWant> wanted_files() override;
  uint64_t wanted_generation() override { return plane_.wanted_generation(); }
  // Called when wanted() or wanted_files() may answer otherwise, also from within apply() and expired(), with no lock held that
  // they take; in any thread. An empty function ends it: none runs once this has returned.
  void on_wanted_changed(std::function<void()> call);

  // For /config_dump and people.
  DynamicResources::Infos infos() const;
  std::string version(XdsType type) const;  // of the newest response

 private:
  void settle();  // the first publication, when it is time
  void heard();
  // When the first publication waits no longer.
  std::optional<std::chrono::steady_clock::time_point> limit() const;
  void keep_time();
  void edited();
  void wanted_may_differ();

  ControlPlane& plane_;
  const DynamicOptions options_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  mutable std::mutex mutex_;  // within the plane's edits; guards resources_
  DynamicResources resources_;
  std::array<std::atomic<bool>, kXdsTypes> answered_{};         // or given up, as a whole
  std::atomic<std::chrono::steady_clock::time_point> heard_{};  // of a server first; zero: not at all
  std::atomic<uint64_t> generation_told_{0};
  std::mutex hook_mutex_;
  std::function<void()> wanted_changed_;
  std::mutex timer_mutex_;
  std::condition_variable timer_;
  bool news_ = false, stopping_ = false;
  std::thread timer_thread_;
};

}  // namespace millrace::control
