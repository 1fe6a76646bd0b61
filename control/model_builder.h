// How edits make a new Model out of an old one. Internal to the model's source files.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "control/model.h"

namespace millrace::control {

class ModelBuilder {
 public:
  using CommonTlsContext = envoy::extensions::transport_sockets::tls::v3::CommonTlsContext;

  explicit ModelBuilder(const Model& before) : before_(before), now_(before) {}

  // Validates each object alone and takes the good ones.
  void put(const std::vector<LoadedObject>& objects);
  // Forgets everything that was not put (Model::replace).
  void drop_untouched();
  // References and addresses of what was put. An object that fails goes back to what it was; repeated until nothing fails any
  // more.
  void check_references();

  ModelEdit finish();
  // The errors so far by the object that they are about, of those that were put.
  const std::map<ConfigKey, ConfigErrors>& blamed() const { return blamed_; }
  // EDS: an assignment, by its own name.
  void set_assignment(std::shared_ptr<const EndpointsObject> e) {
    now_.has_dynamic_ = true;
    now_.assignments_[e->name] = std::move(e);
  }
  void erase_assignment(const std::string& name) { now_.assignments_.erase(name); }
  void complain(std::string message) { errors_.push_back({"", 0, 0, "", std::move(message)}); }
  ConfigErrors& errors() { return errors_; }
  Model& model() { return now_; }

  // For edits of one object by hand.
  void set_route(std::shared_ptr<const RouteObject> r) { now_.routes_[r->name] = std::move(r); }
  void set_endpoints(std::shared_ptr<const EndpointsObject> e) { now_.endpoints_[e->name] = std::move(e); }
  void erase(const ConfigKey& key);
  // Complains about clusters that do not exist; `path` is where the route stands below its route configuration.
  bool route_references(const api::Route& route, const std::string& path, ErrorSink& errors, bool dynamic = false) const;

 private:
  bool follows_from_errors(const ConfigError& error) const;
  void put_listener(const LoadedObject& o);
  void put_route(const LoadedObject& o);
  void put_cluster(const LoadedObject& o);
  void put_endpoints(const LoadedObject& o);
  void put_secret(const LoadedObject& o);
  void put_manifest(const LoadedObject& o);

  // False, with a complaint, when the document has the object already.
  bool claim(const ConfigKey& key, const LoadedObject& o, std::string_view name_field);
  void set_inline_route(const std::string& key, const ListenerObject& l, const ChainObject& chain,
                        const api::RouteConfiguration& config, const std::string& path);
  std::string route_key(const ListenerObject& l, const ChainObject& chain, bool single) const;
  // Makes secrets of what a TLS context holds inline, under names that begin with `place`; fills *out. "" or why a file cannot be
  // read.
  std::string derive_secrets(const CommonTlsContext& common, const ConfigKey& owner, const std::string& place, TlsSecrets* out);
  std::string derive_ticket_keys(const api::DownstreamTlsContext& tls, const ConfigKey& owner, const std::string& place,
                                 TlsSecrets* out);
  template <class Fill>
  std::string derive_secret(const std::string& name, const ConfigKey& owner, Fill&& fill, std::string* bad);
  bool secret_known(const std::string& name, api::Secret::TypeCase type, const std::string& path, ErrorSink& errors) const;
  void forget_derived(const TlsSecrets& secrets);
  void restore_derived(const TlsSecrets& secrets);
  // Complains where nobody is there to be asked for `what`, or another one is asked elsewhere; `path` is that of the source.
  bool may_ask(const ConfigKey& what, const envoy::config::core::v3::ConfigSource& source, ErrorSink& errors,
               const std::string& path) const;
  void find_sources() const;
  void ask_secret(const envoy::extensions::transport_sockets::tls::v3::SdsSecretConfig& sds, TlsSecrets* out);
  // Complains about secrets that do not exist, or are of another kind; `path` is where the context stands.
  bool secrets_known(const CommonTlsContext& common, const std::string& path, ErrorSink& errors) const;
  void add_or_keep_secret(SecretObject secret);
  void store_route(std::shared_ptr<RouteObject> r);

  bool check(const ConfigKey& key, std::vector<ConfigKey>* failed);
  void blame(const ConfigKey& key, size_t since);
  bool check_cluster(const ClusterObject& c);
  bool check_listener(const ListenerObject& l);
  bool check_route(const RouteObject& r);
  // `dynamic`: of who refers to it.
  bool cluster_known(const std::string& name, bool dynamic, ErrorSink& errors, const std::string& path) const;
  void restore(const ConfigKey& key);
  template <class T>
  void restore_in(Model::Table<T>& table, const Model::Table<T>& old, const std::string& name) {
    const auto it = old.find(name);
    if (it == old.end()) table.erase(name);
    else table[name] = it->second;
  }

  const Model& before_;
  Model now_;
  ConfigErrors errors_;
  bool putting_dynamic_ = false;  // what is taken apart is a management server's
  bool check_all_ = false;        // unchanged virtual hosts too: clusters may have gone
  std::map<ConfigKey, int> put_;  // what this document gave, by order
  std::set<ConfigKey> bad_;       // what it gave with errors: no second complaint about a missing reference
  std::map<ConfigKey, ConfigErrors> blamed_;
  // What is asked for by name, and of which files (without one: of servers). Made when it is needed.
  mutable std::map<ConfigKey, std::set<ResourceFile>> sources_;
};

bool same_bytes(const google::protobuf::Message& a, const google::protobuf::Message& b);
std::string deterministic_bytes(const google::protobuf::Message& m);
// "address:port" of a listener that has no name.
std::string listener_name(const api::Listener& l);
// "cluster 'api' is managed by xDS: change it at its server"
std::string managed_elsewhere(const ConfigKey& key);

}  // namespace millrace::control
