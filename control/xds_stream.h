// One aggregated stream to management servers: a thread that runs XdsEngine over gRPC and hands what comes to an XdsSink.
//
//   grpc ◀─▶ completion queue ─▶ run() ─▶ XdsEngine ─ updates ─▶ XdsSink::apply()
//                  ▲                                └ requests ─▶ grpc
//                  └── alarm: wanted_changed(), stop(), in any thread
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "control/model.h"
#include "control/xds_engine.h"
#include "control/xds_sink.h"
#include "lib/api/envoy.config.core.v3.pb.h"

namespace millrace::control {

struct XdsStreamConfig {
  XdsEngineConfig engine;                                     // `servers` is set from the list
  std::vector<envoy::config::core::v3::GrpcService> servers;  // in order of preference; at least one
  envoy::config::core::v3::Node node;                         // as it is sent
  bool clusters = false, listeners = false;                   // asked for as a whole
};

struct XdsStatus {
  enum class State : uint8_t { kIdle, kConnecting, kConnected, kWaiting };  // kWaiting: until the next attempt
  struct Type {
    bool subscribed = false;
    size_t names = 0;  // asked for; 0: all
    size_t known = 0, outstanding = 0;
    XdsTypeStats stats;
    uint64_t last_response_ns = 0;  // monotonic; 0: never
  };
  // Of one name that is asked for by name; Envoy counts each of them as a subscription of its own.
  struct Name {
    uint64_t update_attempt = 0, update_success = 0, update_rejected = 0, update_failure = 0, init_fetch_timeout = 0;
    std::string version;    // accepted last
    bool given_up = false;  // not answered within the fetch timeout, or does not exist (delta)
  };
  bool streaming = true;  // there is a stream that this is about (or also)
  State state = State::kIdle;
  std::string server;      // connected to, or tried
  std::string identifier;  // DiscoveryResponse.control_plane.identifier of the newest response
  std::string last_error;  // why the newest attempt or stream ended
  uint64_t since_ns = 0;   // monotonic, of `state`
  uint64_t streams = 0, responses = 0, requests = 0;
  std::array<Type, kXdsTypes> types;
  std::map<std::pair<XdsType, std::string>, Name> names;
};
std::string_view to_string(XdsStatus::State state);  // "connected", ...

class XdsStream {
 public:
  struct Sources {
    std::function<std::shared_ptr<const Model>()> model;  // for servers that are clusters: with addresses
    std::function<void(const std::string&)> say;          // one line for the log
  };
  // `sink` outlives it.
  XdsStream(XdsStreamConfig config, XdsSink& sink, Sources sources);
  ~XdsStream();  // stops
  XdsStream(const XdsStream&) = delete;
  XdsStream& operator=(const XdsStream&) = delete;

  void start();
  // Ends the stream; returns when the thread has ended, which an apply() under way may hold up.
  void stop();
  // The sink's wanted() may answer otherwise. Any thread, until stop() is called.
  void wanted_changed();
  XdsStatus status() const;
  const XdsStreamConfig& config() const { return config_; }

 private:
  struct Attempt;
  struct Queue;
  void run();
  void act();
  void connect(size_t server);
  void on_event(void* tag, bool ok);
  void on_channel(Attempt& a);
  void on_message(Attempt& a);
  void end(Attempt& a);  // what is under way has to finish first
  void lost(const std::string& why);
  void send_next(Attempt& a);
  void take_wanted();
  void keep_names(XdsType type, const std::set<std::string>& names);
  void count_names(const XdsUpdate& update, const std::vector<std::string>& came, const std::set<std::string>& bad);
  void note();  // status
  void wake();

  const XdsStreamConfig config_;
  XdsSink& sink_;
  const Sources sources_;
  XdsEngine engine_;
  std::unique_ptr<Queue> queue_;
  std::unique_ptr<Attempt> attempt_;
  std::optional<uint64_t> wanted_generation_;
  std::array<size_t, kXdsTypes> names_{};
  std::array<std::string, kXdsTypes> errors_said_;
  std::string last_said_;     // a server that stays away is said once
  mutable std::mutex mutex_;  // guards status_
  XdsStatus status_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace millrace::control
