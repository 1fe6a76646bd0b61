// The model: the set of valid configuration objects, as a value. Every edit makes a new Model that shares all unchanged parts
// with the old one (virtual hosts are shared one by one, tables in chunks), so an edit costs what it changes and the old model
// stays for diff and rollback. Not thread-safe to edit, free to read from any thread: everything reachable is const.
//
// What a user writes nested is kept apart here, because it is edited and compiled apart:
//   Listener --inline route_config--> RouteObject        Cluster --load_assignment--> EndpointsObject
//   Listener, Cluster --tls_certificates, validation_context--> SecretObject (derived, read-only: edit its owner)
// and put together again by message(), so what comes out can go back in.
//
// Names. A route configuration keeps its own name; without one it is called after its listener ("LISTENER", or "LISTENER/CHAIN"
// when the listener has several chains). Envoy allows two listeners to hold different route configurations of the same name: here
// the second is called "NAME@LISTENER" ("NAME@LISTENER/CHAIN"), and goes out under that name, so that a stored model comes back
// with the same names in any order. A listener without a name is called "ADDRESS:PORT"; a filter chain without one "chain-INDEX"
// ("default" for default_filter_chain). An inline certificate is "LISTENER/CHAIN/tls_certificates[INDEX]", of a cluster "cluster
// NAME/tls_certificates[0]"; an inline validation context likewise ".../validation_context".
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "control/config_kind.h"
#include "control/config_loader.h"
#include "control/shared_table.h"
#include "control/source_map.h"
#include "lib/api/envoy.config.cluster.v3.pb.h"
#include "lib/api/envoy.config.endpoint.v3.pb.h"
#include "lib/api/envoy.config.listener.v3.pb.h"
#include "lib/api/envoy.config.route.v3.pb.h"
#include "lib/api/envoy.extensions.filters.network.http_connection_manager.v3.pb.h"
#include "lib/api/envoy.extensions.filters.network.tcp_proxy.v3.pb.h"
#include "lib/api/envoy.extensions.transport_sockets.tls.v3.pb.h"
#include "lib/api/millrace.manifest.v1.pb.h"

namespace millrace::control {

namespace manifests {
struct Object;
}

namespace api {
using envoy::config::cluster::v3::Cluster;
using envoy::config::endpoint::v3::ClusterLoadAssignment;
using envoy::config::endpoint::v3::LbEndpoint;
using envoy::config::listener::v3::FilterChain;
using envoy::config::listener::v3::Listener;
using envoy::config::route::v3::Route;
using envoy::config::route::v3::RouteConfiguration;
using envoy::config::route::v3::RouteMatch;
using envoy::config::route::v3::VirtualHost;
using envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
using envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
using envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
using envoy::extensions::transport_sockets::tls::v3::Secret;
using envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
}  // namespace api

// What the files that a secret names held when they were read.
struct SecretFiles {
  std::string certificate_chain_pem, private_key_pem;  // tls_certificate
  std::string trusted_ca_pem, crl_pem;                 // validation_context
  std::string ocsp_staple;                             // tls_certificate
  std::string ticket_keys;                             // session_ticket_keys, one behind the other
  friend bool operator==(const SecretFiles&, const SecretFiles&) = default;
};
struct SecretObject : SecretFiles {
  std::string name;
  std::shared_ptr<const api::Secret> config;  // as written (may name files); for a derived one made up from the TLS context
  ConfigKey owner;                            // derived: the listener or cluster that it is written in
  bool derived = false;
  bool dynamic = false;  // a management server's (control/dynamic_resources.h); never stored, not to be edited here
};

// Which secrets a TLS context uses: model names.
struct TlsSecrets {
  std::vector<std::string> certificates;  // in the order of tls_certificates, then of the SDS names
  std::string validation;                 // validation_context, or the default of combined_validation_context (derived); "": none
  std::string validation_more;            // of the SDS name; "": none
  std::string ticket_keys;                // "": none
  std::vector<std::string> discovered;    // of those, with an sds_config: asked for by name
  std::map<std::string, ResourceFile> files;  // of those, asked of files
  std::vector<std::string> all() const;
};

// One filter chain with its Any fields unpacked, so that nobody parses them twice.
struct ChainObject {
  std::string name;
  bool is_default = false;  // Listener.default_filter_chain
  bool has_tls = false;
  api::DownstreamTlsContext tls;
  TlsSecrets secrets;
  std::variant<std::monostate, api::HttpConnectionManager, api::TcpProxy> filter;  // HCM: without its route_config
  std::string route;                                                               // HCM: model name of its route configuration
  bool rds = false;                                                                // HCM: `route` is asked for by name
  ResourceFile rds_file;                                                           // of this file, if of one
  std::string route_written_name;                                                  // HCM: route_config.name as the user wrote it
};
struct ListenerObject {
  std::string name;
  std::shared_ptr<const api::Listener>
      config;                       // as written, but for inline route configurations (their virtual hosts are elsewhere)
  std::vector<ChainObject> chains;  // filter_chains in order, then default_filter_chain
  std::shared_ptr<const SourceMap> source;
  bool dynamic = false;
};
struct RouteObject {
  std::string name;
  std::shared_ptr<const api::RouteConfiguration> config;  // without virtual_hosts
  std::vector<std::shared_ptr<const api::VirtualHost>> virtual_hosts;
  std::string listener, chain;              // that hold it inline; "" when it stands alone
  std::shared_ptr<const SourceMap> source;  // of the object it was written in (may be the listener's); null after an edit by hand
  std::string source_path;                  // where it stands in that object; "" for the object itself
  bool dynamic = false;                     // by RDS, or in a dynamic listener

  int find_virtual_host(std::string_view name) const;  // index or -1
};
struct ClusterObject {
  std::string name;
  std::shared_ptr<const api::Cluster> config;  // without load_assignment
  std::shared_ptr<const SourceMap> source;
  bool has_tls = false;
  api::UpstreamTlsContext tls;  // unpacked
  std::string tls_path;         // of `tls` in `config`
  bool has_proxy = false;
  envoy::config::core::v3::ProxyProtocolConfig proxy;  // unpacked
  TlsSecrets secrets;
  std::string eds_service;  // type EDS: the assignment that is asked for; "": another type
  ResourceFile eds_file;    // of this file, if of one
  bool dynamic = false;
};
struct EndpointsObject {
  std::string name;                                          // of the cluster; of an assignment of EDS: its own
  std::shared_ptr<const api::ClusterLoadAssignment> config;  // cluster_name is `name`, or that of the assignment (type EDS)
  std::shared_ptr<const SourceMap> source;
  bool dynamic = false;
};
// A Kubernetes object as it was applied. What it leads to are objects of the other kinds (control/manifests/apply.h).
struct ManifestObject {
  std::string name;
  std::shared_ptr<const manifest::v1::Manifest> config;
  std::shared_ptr<const manifests::Object> object;  // of config->json()
  bool dynamic = false;
};

// Where `route add` puts a route in its virtual host.
struct RoutePlace {
  enum class Kind : uint8_t { kLast, kFirst, kIndex, kBefore, kAfter };
  Kind kind = Kind::kLast;
  uint32_t index = 0;  // kIndex: the new route's index, 0..size
  std::string route;   // kBefore, kAfter: an existing route, by name or "#INDEX"
};

// An endpoint named by its address as people write it: "10.0.0.1:80", "[fd00::1]:80".
struct EndpointSpec {
  std::string address;
  uint16_t port = 0;
  uint32_t weight = 1;  // load_balancing_weight, from 1
};
base::Result<EndpointSpec> parse_endpoint(std::string_view text);

// One difference between two models.
struct FieldChange {
  std::string path;           // "virtual_hosts[0].routes[3].route.timeout"
  std::string before, after;  // as JSON text; "" when absent
};
struct ObjectChange {
  enum class Kind : uint8_t { kAdded, kRemoved, kChanged };
  ConfigKey key;
  Kind change = Kind::kChanged;
  std::vector<FieldChange> fields;  // kChanged only; at most kMaxFieldChanges
};
inline constexpr size_t kMaxFieldChanges = 1000;

struct ModelEdit;

class Model {
 public:
  template <class T>
  using Table = SharedTable<T>;

  const Table<ListenerObject>& listeners() const { return listeners_; }
  const Table<RouteObject>& routes() const { return routes_; }
  const Table<ClusterObject>& clusters() const { return clusters_; }
  const Table<EndpointsObject>& endpoints() const { return endpoints_; }
  const Table<SecretObject>& secrets() const { return secrets_; }
  const Table<ManifestObject>& manifests() const { return manifests_; }
  // What EDS has brought, by cluster_name. Several clusters may use one (control/warming.h); endpoints() of a cluster of type EDS
  // are empty here.
  const Table<EndpointsObject>& assignments() const { return assignments_; }
  // The endpoints of a cluster, wherever they come from; null when none are known.
  std::shared_ptr<const EndpointsObject> endpoints_of(std::string_view cluster) const;
  // Of a management server, not to be edited here. False for what is not there.
  bool is_dynamic(const ConfigKey& key) const;
  // Has a management server ever brought anything?
  bool has_dynamic() const { return has_dynamic_; }
  // Management servers may bring clusters: references to others than those of now are no mistake where Envoy does not check them.
  bool clusters_may_come() const { return clusters_may_come_; }
  void let_clusters_come() { clusters_may_come_ = true; }
  // There is a stream to ask for routes, endpoints and secrets by name; else objects that would are refused.
  bool servers_answer() const { return servers_answer_; }
  void let_servers_answer() { servers_answer_ = true; }
  // Some object asks, or has asked, for something out of a file.
  bool asks_files() const { return asks_files_; }

  // With these endpoints in the place of the clusters' own: for compilation only (control/dns_names.h).
  Model with_endpoints(const std::vector<std::pair<std::string, std::shared_ptr<const EndpointsObject>>>& endpoints) const;

  size_t size(ConfigKind kind) const;
  std::vector<std::string> names(ConfigKind kind) const;  // sorted
  bool has(const ConfigKey& key) const;
  // The object in Envoy's vocabulary, whole (inline parts put back); null when there is none.
  // `with_hosts` false: without virtual hosts, of which there may be very many.
  std::unique_ptr<google::protobuf::Message> message(const ConfigKey& key, bool with_hosts = true) const;
  // The object that an object is written in and stored with: inline route configurations and certificates belong to their
  // listener, load assignments to their cluster; others to themselves.
  ConfigKey owner(const ConfigKey& key) const;
  // Every object that is its own owner, in make-before-break order: what makes the whole model again.
  std::vector<ConfigKey> stored_keys() const;
  // Who refers to an object, as "listener edge", "route edge (virtual host a, route b)"; for messages to people.
  std::vector<std::string> referrers(const ConfigKey& key) const;

  // ---- edits: each returns the new model and every error. With errors, the returned model lacks what was bad (see ModelEdit).
  // ----

  // Adds or replaces the good objects of a document; validates each alone and then together with what is there.
  [[nodiscard]] ModelEdit apply(const Document& document) const;
  [[nodiscard]] ModelEdit apply(const std::vector<LoadedObject>& objects) const;
  // Replaces everything by the document (start-up, reload): objects that it does not name are gone.
  [[nodiscard]] ModelEdit replace(const Document& document) const;
  // Refused while something refers to it, naming by whom. A derived object is refused too: edit its owner.
  [[nodiscard]] ModelEdit erase(const ConfigKey& key) const;

  // A virtual host may be "" when the route configuration has only one. A route is named by its name, or by "#INDEX" (from 0).
  [[nodiscard]] ModelEdit add_route(std::string_view route_config, std::string_view virtual_host, const api::Route& route,
                                    const RoutePlace& place, const SourceMap* source = nullptr) const;
  [[nodiscard]] ModelEdit remove_route(std::string_view route_config, std::string_view virtual_host,
                                       std::string_view route) const;
  // Sets the weights of a route with weighted_clusters; clusters that are not named keep theirs.
  [[nodiscard]] ModelEdit set_weights(std::string_view route_config, std::string_view virtual_host, std::string_view route,
                                      const std::vector<std::pair<std::string, uint32_t>>& weights) const;
  [[nodiscard]] ModelEdit add_endpoint(std::string_view cluster, const EndpointSpec& endpoint) const;
  [[nodiscard]] ModelEdit remove_endpoint(std::string_view cluster, const EndpointSpec& endpoint) const;
  // health_status DRAINING (no new requests, the rest finishes), or back to UNKNOWN (in rotation).
  [[nodiscard]] ModelEdit drain_endpoint(std::string_view cluster, const EndpointSpec& endpoint, bool drain = true) const;

  // What leads from `before` to `after`, in order of kind and name. Parts that are shared are not even looked at.
  static std::vector<ObjectChange> diff(const Model& before, const Model& after);

 private:
  friend class ModelBuilder;
  friend class Warming;
  Table<ListenerObject> listeners_;
  Table<RouteObject> routes_;
  Table<ClusterObject> clusters_;
  Table<EndpointsObject> endpoints_;
  Table<SecretObject> secrets_;
  Table<EndpointsObject> assignments_;
  Table<ManifestObject> manifests_;
  bool clusters_may_come_ = false, servers_answer_ = false, asks_files_ = false, has_dynamic_ = false;
};

// The outcome of an edit. "One bad object never blocks the good ones": `model` holds the objects that were good, and for each bad
// one what was there before. Whether to take such a partial result is the caller's choice: the CLI and start-up take all or
// nothing (errors.empty()), xDS takes what is good.
struct ModelEdit {
  Model model;
  ConfigErrors errors;
  ConfigErrors warnings;  // what is allowed, and hardly meant
  bool ok() const { return errors.empty(); }
};

std::string to_text(const std::vector<ObjectChange>& changes);  // "~ cluster api: connect_timeout: 5s -> 1s", one a line
std::string to_json(const std::vector<ObjectChange>& changes);

}  // namespace millrace::control
