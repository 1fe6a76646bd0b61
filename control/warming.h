// What of the model is in force. Objects that wait for others, as Envoy's warm, are left out, or are in force as they were
// before, until what they wait for has come, or nobody waits for it any more. Sans-I/O; one thread at a time.
//
//   model: everything that was accepted ─ update() ─▶ in force ─▶ (control/dns_names.h) ─▶ compiler
//     │ changed objects                      ▲
//     └─▶ secrets ▸ clusters ▸ routes ▸ listeners, each looked at once, then what waited for it
//
// * A cluster of type EDS waits for its assignment, and clusters and listeners for the secrets that they ask for. What is new is
//   not there until then; what is changed goes on as it was.
// * A route configuration becomes live with the clusters that it newly names: until they are in force it is what it was. A
//   cluster that is not known at all is waited for only where servers bring clusters, and for kClusterWait; after that, and for
//   names that have been in vain before, requests get 503 (NC), as in Envoy.
// * A listener waits for the route configurations that it asks for, and for an address that another one still has, and goes into
//   force together with the routes that are written in it.
// * What is gone stays while something in force uses it: a cluster for kClusterWait at most, then requests get 503 (NC).
// * given_up(): nobody answers for a name; who waits for it goes on without: a cluster without endpoints, a listener whose
//   requests get 404, TLS that is refused.
//
// The work of an update is that of what differs, not that of the model: objects that wait are found by what they wait for.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "control/model.h"
#include "control/xds_engine.h"
#include "control/xds_sink.h"
#include "lib/base/time.h"

namespace millrace::control {

class Warming {
 public:
  // As long as Envoy Gateway, istiod and go-control-plane take at most between clusters and the routes that name them.
  static constexpr base::TimeNs kClusterWait = 5 * base::kSecond;

  // The objects in force once `model` is what was accepted; unchanged objects keep their pointers.
  const Model& update(const Model& model, base::TimeNs now);
  const Model& in_force() const { return now_; }
  // No answer will come for a name: nobody waits for it any more. update() follows.
  void given_up(XdsType type, std::string_view name);
  // Waits end by themselves: update() is to be called then with the same model; kNever.
  base::TimeNs next_deadline() const;

  // Names that objects ask servers for: endpoints, routes, secrets. `generation` counts their changes, and those of files.
  std::set<std::string> wanted(XdsType type) const;
  uint64_t generation() const { return generation_; }
  // Of those, what files are asked for.
  std::vector<XdsFileWant> wanted_files() const;
  // Names that nobody asks for any more, since the last call: what was brought for them can go.
  std::set<std::string> take_unwanted(XdsType type);

  // Is the object in force as it was accepted?
  bool waits(const ConfigKey& key) const { return waiting_.contains(key); }
  const std::set<ConfigKey>& waiting() const { return waiting_; }

 private:
  using Users = std::map<std::string, std::set<ConfigKey>, std::less<>>;
  using Counts = std::unordered_map<std::string, uint32_t>;

  void reindex(const Model& model);
  void ask(XdsType type, const std::string& name, const ResourceFile& file, const ConfigKey& who);
  void ask_no_more(XdsType type, const std::string& name, const ConfigKey& who);
  void look_at(const ConfigKey& key, base::TimeNs now);
  void wait(const ConfigKey& key) { waiting_.insert(key); }
  void set_secret(const std::string& name);
  void set_cluster(const std::string& name, base::TimeNs now);
  void set_route(const std::string& name, base::TimeNs now);
  void set_listener(const std::string& name, base::TimeNs now);
  bool listener_ready(const ListenerObject& w, base::TimeNs now, std::vector<std::string>* with_it);
  bool address_taken(const ListenerObject& w, base::TimeNs now);
  void remove_cluster(const std::string& name, base::TimeNs now);
  bool secrets_ready(const TlsSecrets& secrets) const;
  template <class Before>
  bool cluster_ready(const std::string& name, const ConfigKey& who, base::TimeNs now, Before&& named_before);
  bool clusters_ready(const RouteObject* before, const RouteObject& after, const ConfigKey& who, base::TimeNs now);
  // What an object in force refers to, counted: `n` is 1 or -1.
  void count_clusters(const RouteObject* before, const RouteObject* after);
  void count_listener(const ListenerObject& l, int n);
  void count(Counts& counts, const std::string& name, int n, ConfigKind kind);
  void count_secrets(const TlsSecrets& secrets, int n);
  void owned_secrets(const TlsSecrets& secrets);
  void put_route(const std::string& name, std::shared_ptr<const RouteObject> r);
  void wake(const std::string& name, const Users& users);
  bool gave_up(XdsType type, std::string_view name) const;

  Model written_, now_;
  std::set<ConfigKey> todo_;                                           // of the update that runs
  std::set<ConfigKey> waiting_;                                        // in force otherwise than accepted
  Users asks_[kXdsTypes];                                              // by name: who asks for it
  std::map<std::string, ResourceFile, std::less<>> files_[kXdsTypes];  // of those, what a file is asked for
  std::set<std::string, std::less<>> given_up_[kXdsTypes];
  std::set<std::string> unwanted_[kXdsTypes];
  Users cluster_waiters_;  // by cluster: what waits for it
  // By cluster: until when it is waited for; kept when that was in vain, so that nobody waits twice.
  std::map<std::string, base::TimeNs, std::less<>> missing_;
  std::map<std::string, base::TimeNs, std::less<>> leaving_;  // clusters that are gone, but used
  Counts cluster_uses_, secret_uses_, route_uses_;            // by what is in force
  uint64_t generation_ = 0;
};

}  // namespace millrace::control
