// Resources of management servers into the model: unpacked, checked alone and together, object by object. What is good is taken,
// what is not stays as it was and is answered with every reason. Sans-I/O; one thread at a time.
//
// As in Envoy:
// * Static objects win: a cluster or listener of a static one's name is passed over without a complaint.
// * Route configurations, assignments and secrets come by name, so only their users can be rid of them: that one is removed
//   (delta) says that nobody waits for it any longer, and leaves what is there.
// * Route configurations of RDS may name clusters that are not there (validate_clusters is false unless given), those that are
//   written in a listener may not.
// * An endpoint that an assignment has twice counts once.
// * Filters that are known to change no request pass (control/foreign_filters.h).
//
// A route configuration comes whole, however little of it has changed. Virtual hosts whose bytes are those of last time are not
// even parsed, so that one route in 100,000 costs little more than its virtual host.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "control/model.h"
#include "control/xds_config.h"
#include "control/xds_engine.h"

namespace millrace::control {

// What a bootstrap says of servers.
struct DynamicOptions {
  bool servers = false;                             // there is a stream (dynamic_resources.ads_config)
  bool clusters = false, listeners = false;         // what comes as a whole: dynamic_resources.cds_config, lds_config
  std::chrono::milliseconds fetch_timeout{15'000};  // until the first publication, at most; 0: no limit
};

DynamicOptions dynamic_options(const XdsConfig& config);

class DynamicResources {
 public:
  struct Outcome {
    Model model;
    std::vector<XdsRejection> rejections;
    std::vector<std::string> passed_over;  // static objects have these names
    std::vector<std::string> gone;         // by name, of types that come by name: nobody need wait for them (Warming::given_up)
  };
  // `now_ms`: since the epoch, UTC.
  Outcome apply(const Model& model, const XdsUpdate& update, int64_t now_ms);
  // Names that nobody asks for any more.
  Model forget(const Model& model, XdsType type, const std::set<std::string>& names);
  // An object that could not be compiled.
  void reject(XdsType type, const std::string& name, std::string reason, int64_t now_ms);

  // For /config_dump and people.
  struct Info {
    std::string version;     // of what was accepted last; "": nothing was
    int64_t updated_ms = 0;  // when
    std::string error;       // why the newest was refused; "": it was not
    std::string error_version;
    int64_t error_ms = 0;
    std::string server;  // that sent the newest, accepted or refused
  };
  using Infos = std::map<std::pair<XdsType, std::string>, Info>;
  const Infos& infos() const { return infos_; }
  const std::string& version(XdsType type) const { return versions_[static_cast<size_t>(type)]; }  // of the newest response

 private:
  class Batch;
  // A route configuration as it came, and what was made of it.
  struct RouteBody {
    std::string bytes;
    std::shared_ptr<const RouteObject> object;
  };
  std::map<std::string, RouteBody> route_bodies_;
  Infos infos_;
  std::string versions_[kXdsTypes];
};

}  // namespace millrace::control
