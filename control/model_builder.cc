#include "control/model_builder.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "control/manifests/object.h"
#include "control/proto_values.h"
#include "control/proxy_transport.h"
#include "control/validate.h"
#include "lib/base/ip_address.h"

namespace millrace::control {

std::string deterministic_bytes(const google::protobuf::Message& m) {
  std::string out;
  {
    google::protobuf::io::StringOutputStream stream(&out);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    m.SerializeToCodedStream(&coded);
  }
  return out;
}

bool same_bytes(const google::protobuf::Message& a, const google::protobuf::Message& b) {
  return &a == &b || deterministic_bytes(a) == deterministic_bytes(b);
}

static std::string socket_text(const envoy::config::core::v3::SocketAddress& s) {
  const bool v6 = s.address().find(':') != std::string::npos;
  return (v6 ? "[" + s.address() + "]" : s.address()) + ":" + std::to_string(s.port_value());
}

std::string listener_name(const api::Listener& l) {
  return l.name().empty() ? socket_text(l.address().socket_address()) : l.name();
}

namespace {

// An object's name as the document has it, also when the object is bad.
std::string written_name(const LoadedObject& o) {
  const google::protobuf::Message& m = *o.message;
  if (o.kind == ConfigKind::kListener) return listener_name(static_cast<const api::Listener&>(m));
  const auto* f = m.GetDescriptor()->FindFieldByName(o.kind == ConfigKind::kEndpoints ? "cluster_name" : "name");
  return m.GetReflection()->GetString(m, f);
}

std::string fallback(ConfigKind kind, const std::string& name) { return std::string(to_string(kind)) + " " + name; }

}  // namespace

std::string managed_elsewhere(const ConfigKey& key) {
  return std::string(to_string(key.kind)) + " '" + key.name + "' is managed by xDS: change it at its server";
}

bool ModelBuilder::claim(const ConfigKey& key, const LoadedObject& o, std::string_view name_field) {
  if (before_.has(key) && before_.is_dynamic(key) != o.dynamic) {
    ErrorSink sink(o.source.get(), fallback(key.kind, key.name), &errors_);
    const Path root, at(root, name_field);
    sink.add(at, o.dynamic ? "a static " + std::string(to_string(key.kind)) + " has the name '" + key.name + "'"
                           : managed_elsewhere(key));
    return false;
  }
  if (put_.emplace(key, static_cast<int>(put_.size())).second) return true;
  ErrorSink sink(o.source.get(), fallback(key.kind, key.name), &errors_);
  const Path root, at(root, name_field);
  sink.add(at, "a second " + std::string(to_string(key.kind)) + " \"" + key.name + "\" in one document");
  return false;
}

// Does a complaint of validation only repeat what the loader has said of the same place?
bool ModelBuilder::follows_from_errors(const ConfigError& error) const {
  bool missing = false;
  for (std::string_view start :
       {"is required", "needs ", "must not be empty", "must have", "must end with", "no certificate", "no filter chains"})
    missing = missing || error.message.starts_with(start);
  const std::string_view parent = std::string_view(error.path).substr(0, error.path.rfind('.'));
  for (const ConfigError& e : errors_) {
    const auto below = [&](std::string_view p) {
      return e.path.starts_with(p) && (e.path.size() == p.size() || e.path[p.size()] == '.' || e.path[p.size()] == '[');
    };
    if (e.file == error.file && (below(error.path) || (missing && below(parent)))) return true;
  }
  return false;
}

void ModelBuilder::blame(const ConfigKey& key, size_t since) {
  if (errors_.size() == since) return;
  ConfigErrors& list = blamed_[key];
  list.insert(list.end(), errors_.begin() + static_cast<std::ptrdiff_t>(since), errors_.end());
}

void ModelBuilder::put(const std::vector<LoadedObject>& objects) {
  for (const LoadedObject& o : objects) {
    const size_t errors_before = errors_.size();
    putting_dynamic_ = o.dynamic;
    now_.has_dynamic_ = now_.has_dynamic_ || o.dynamic;
    ConfigErrors found;
    ErrorSink sink(o.source.get(), fallback(o.kind, written_name(o)), &found);
    bool ok = false;
    const Path root;
    const google::protobuf::Message& m = *o.message;
    switch (o.kind) {
      case ConfigKind::kSecret:
        ok = validate_secret(static_cast<const api::Secret&>(m), sink);
        break;
      case ConfigKind::kEndpoints:
        ok = validate_load_assignment(static_cast<const api::ClusterLoadAssignment&>(m), root, sink, true);
        break;
      case ConfigKind::kCluster:
        ok = validate_cluster(static_cast<const api::Cluster&>(m), sink);
        break;
      case ConfigKind::kRoute: {
        const auto& config = static_cast<const api::RouteConfiguration&>(m);
        ok = validate_route_configuration(config, root, sink);
        const Path name(root, "name");
        if (config.name().empty()) sink.add(name, "must not be empty"), ok = false;
        break;
      }
      case ConfigKind::kListener:
        ok = validate_listener(static_cast<const api::Listener&>(m), sink);
        break;
      case ConfigKind::kManifest:
        ok = true;  // put_manifest reads it
        break;
    }
    // All errors of a file come at once: an object that the loader complained about is validated too, but what it could not read
    // is not reported a second time as missing.
    for (ConfigError& error : found)
      if (!o.bad || !follows_from_errors(error)) errors_.push_back(std::move(error));
    if (!ok || o.bad) {
      bad_.insert({o.kind, written_name(o)});
      blame({o.kind, written_name(o)}, errors_before);
      continue;
    }
    switch (o.kind) {
      case ConfigKind::kSecret:
        put_secret(o);
        break;
      case ConfigKind::kEndpoints:
        put_endpoints(o);
        break;
      case ConfigKind::kCluster:
        put_cluster(o);
        break;
      case ConfigKind::kRoute:
        put_route(o);
        break;
      case ConfigKind::kListener:
        put_listener(o);
        break;
      case ConfigKind::kManifest:
        put_manifest(o);
        break;
    }
    blame({o.kind, written_name(o)}, errors_before);
  }
  // A cluster that came without its endpoints keeps what it has, or has none.
  std::vector<std::string> clusters;
  for (auto it = put_.lower_bound({ConfigKind::kCluster, ""}); it != put_.end() && it->first.kind == ConfigKind::kCluster; ++it)
    clusters.push_back(it->first.name);
  for (const std::string& name : clusters) {
    if (!now_.endpoints_.contains(name)) {
      auto none = std::make_shared<api::ClusterLoadAssignment>();
      none->set_cluster_name(name);
      now_.endpoints_[name] = std::make_shared<const EndpointsObject>(EndpointsObject{name, none, nullptr, false});
    }
    put_.emplace(ConfigKey{ConfigKind::kEndpoints, name}, static_cast<int>(put_.size()));
  }
}

// ---- one kind after the other ---------------------------------------------------------------------------------------------
// An object that is what it was keeps its old pointer: the compiler and diff() then skip it.

void ModelBuilder::put_endpoints(const LoadedObject& o) {
  auto e = std::make_shared<EndpointsObject>();
  e->config =
      std::static_pointer_cast<const api::ClusterLoadAssignment>(std::shared_ptr<const google::protobuf::Message>(o.message));
  e->name = e->config->cluster_name();
  e->source = o.source;
  if (!claim({ConfigKind::kEndpoints, e->name}, o, "cluster_name")) return;
  const std::string name = e->name;
  const auto old = before_.endpoints_.find(name);
  now_.endpoints_[name] =
      old != before_.endpoints_.end() && same_bytes(*old->second->config, *e->config) ? old->second : std::move(e);
}

static std::string eds_service(const api::Cluster& c) {
  if (c.type() != api::Cluster::EDS) return "";
  return c.eds_cluster_config().service_name().empty() ? c.name() : c.eds_cluster_config().service_name();
}

void ModelBuilder::put_manifest(const LoadedObject& o) {
  auto m = std::make_shared<ManifestObject>();
  m->config = std::static_pointer_cast<const manifest::v1::Manifest>(o.message);
  m->name = m->config->name();
  if (!claim({ConfigKind::kManifest, m->name}, o, "name")) return;
  if (const auto old = before_.manifests_.find(m->name);
      old != before_.manifests_.end() && old->second->config->json() == m->config->json()) {
    now_.manifests_[m->name] = old->second;
    return;
  }
  manifests::Parsed parsed = manifests::parse(m->config->json(), fallback(ConfigKind::kManifest, m->name));
  if (parsed.errors.empty() && (parsed.objects.size() != 1 || parsed.objects.front()->key() != m->name))
    parsed.errors.push_back({"", 0, 0, fallback(ConfigKind::kManifest, m->name), "its json is another object's"});
  errors_.insert(errors_.end(), parsed.errors.begin(), parsed.errors.end());
  if (!parsed.errors.empty()) return bad_.insert({ConfigKind::kManifest, m->name}), void();
  m->object = parsed.objects.front();
  const std::string name = m->name;
  now_.manifests_[name] = std::move(m);
}

void ModelBuilder::put_cluster(const LoadedObject& o) {
  const auto& written = static_cast<const api::Cluster&>(*o.message);
  const std::string& name = written.name();
  if (!claim({ConfigKind::kCluster, name}, o, "name")) return;
  auto config = std::make_shared<api::Cluster>(written);
  config->clear_load_assignment();
  ClusterObject cluster{.name = name,
                        .config = config,
                        .source = o.source,
                        .tls = {},
                        .tls_path = {},
                        .proxy = {},
                        .secrets = {},
                        .eds_service = eds_service(written),
                        .eds_file = {},
                        .dynamic = o.dynamic};
  if (!cluster.eds_service.empty()) cluster.eds_file = file_of(written.eds_cluster_config().eds_config());
  now_.asks_files_ = now_.asks_files_ || cluster.eds_file.there();
  if (const auto c = now_.clusters_.find(name); c != now_.clusters_.end()) forget_derived(c->second->secrets);
  if (written.has_transport_socket()) {
    UpstreamTransport transport = unwrap(written.transport_socket());
    cluster.has_tls = transport.tls;
    cluster.tls = std::move(transport.context);
    cluster.tls_path = transport.tls_path;
    cluster.has_proxy = transport.proxied;
    cluster.proxy = std::move(transport.proxy);
    if (const std::string bad =
            derive_secrets(cluster.tls.common_tls_context(), {ConfigKind::kCluster, name}, "cluster " + name, &cluster.secrets);
        !bad.empty())
      return complain("cluster " + name + ": " + bad);
  }
  const auto old = before_.clusters_.find(name);
  if (old != before_.clusters_.end() && same_bytes(*old->second->config, *config) && old->second->dynamic == o.dynamic)
    now_.clusters_[name] = old->second;
  else now_.clusters_[name] = std::make_shared<const ClusterObject>(std::move(cluster));

  if (!written.has_load_assignment()) return;
  const auto old_endpoints = now_.endpoints_.find(name);
  auto endpoints = std::make_shared<api::ClusterLoadAssignment>(written.load_assignment());
  endpoints->set_cluster_name(name);  // Envoy lets them differ and uses the cluster's
  if (!claim({ConfigKind::kEndpoints, name}, o, "load_assignment")) return;
  if (old_endpoints != now_.endpoints_.end() && same_bytes(*old_endpoints->second->config, *endpoints)) return;
  now_.endpoints_[name] = std::make_shared<const EndpointsObject>(EndpointsObject{name, endpoints, nullptr, o.dynamic});
}

void ModelBuilder::store_route(std::shared_ptr<RouteObject> r) {
  const auto old = before_.routes_.find(r->name);
  if (old != before_.routes_.end()) {
    const RouteObject& o = *old->second;
    bool same = r->virtual_hosts.size() == o.virtual_hosts.size() && o.listener == r->listener && o.chain == r->chain &&
                o.dynamic == r->dynamic;
    if (same_bytes(*o.config, *r->config)) r->config = o.config;
    else same = false;
    for (size_t i = 0; i < r->virtual_hosts.size(); ++i) {
      const int at = o.find_virtual_host(r->virtual_hosts[i]->name());
      if (at >= 0 && same_bytes(*o.virtual_hosts[static_cast<size_t>(at)], *r->virtual_hosts[i]))
        r->virtual_hosts[i] = o.virtual_hosts[static_cast<size_t>(at)];
      same = same && r->virtual_hosts[i] == o.virtual_hosts[i];
    }
    if (same) {
      now_.routes_[r->name] = old->second;
      return;
    }
  }
  const std::string name = r->name;
  now_.routes_[name] = std::move(r);
}

static void split_virtual_hosts(const api::RouteConfiguration& from, RouteObject* to) {
  // Copied without the virtual hosts, of which there may be 100,000 routes.
  auto config = std::make_shared<api::RouteConfiguration>(from);
  auto* hosts = config->mutable_virtual_hosts();
  for (auto& h : *hosts) {
    auto host = std::make_shared<api::VirtualHost>();
    host->Swap(&h);
    to->virtual_hosts.push_back(std::move(host));
  }
  config->clear_virtual_hosts();
  config->set_name(to->name);
  to->config = std::move(config);
}

void ModelBuilder::put_route(const LoadedObject& o) {
  const auto& written = static_cast<const api::RouteConfiguration&>(*o.message);
  if (!claim({ConfigKind::kRoute, written.name()}, o, "name")) return;
  auto r = std::make_shared<RouteObject>();
  r->name = written.name();
  r->source = o.source;
  r->dynamic = o.dynamic;
  if (const auto old = now_.routes_.find(r->name); old != now_.routes_.end()) {
    if (o.dynamic && !old->second->listener.empty())
      return complain("route " + r->name + ": listener " + old->second->listener + " holds a route configuration of this name");
    r->listener = old->second->listener;  // who holds it inline goes on holding it
    r->chain = old->second->chain;
  }
  split_virtual_hosts(written, r.get());
  store_route(std::move(r));
}

std::string ModelBuilder::route_key(const ListenerObject& l, const ChainObject& chain, bool single) const {
  const std::string base = !chain.route_written_name.empty() ? chain.route_written_name
                           : single                          ? l.name
                                                             : l.name + "/" + chain.name;
  // What this chain held before under the same written name, it keeps.
  if (const auto old = before_.listeners_.find(l.name); old != before_.listeners_.end())
    for (const ChainObject& c : old->second->chains)
      if (c.name == chain.name && !c.route.empty() && c.route_written_name == chain.route_written_name &&
          !put_.contains({ConfigKind::kRoute, c.route}))
        return c.route;
  const auto free = [&](const std::string& key) {
    if (put_.contains({ConfigKind::kRoute, key})) return false;
    const auto r = now_.routes_.find(key);
    return r == now_.routes_.end() || (r->second->listener == l.name && r->second->chain == chain.name);
  };
  for (const std::string& key : {base, base + "@" + l.name, base + "@" + l.name + "/" + chain.name})
    if (free(key)) return key;
  std::string key;
  for (int i = 2; key.empty() || !free(key); ++i) key = base + "@" + l.name + "/" + chain.name + "#" + std::to_string(i);
  return key;
}

void ModelBuilder::set_inline_route(const std::string& key, const ListenerObject& l, const ChainObject& chain,
                                    const api::RouteConfiguration& config, const std::string& path) {
  auto r = std::make_shared<RouteObject>();
  r->name = key;
  r->listener = l.name;
  r->chain = chain.name;
  r->source = l.source;
  r->dynamic = l.dynamic;
  r->source_path = path;
  split_virtual_hosts(config, r.get());
  put_.emplace(ConfigKey{ConfigKind::kRoute, key}, static_cast<int>(put_.size()));
  store_route(std::move(r));
}

void ModelBuilder::put_listener(const LoadedObject& o) {
  auto config = std::make_shared<api::Listener>(static_cast<const api::Listener&>(*o.message));
  auto l = std::make_shared<ListenerObject>();
  l->name = listener_name(*config);
  l->source = o.source;
  l->dynamic = o.dynamic;
  if (!claim({ConfigKind::kListener, l->name}, o, "name")) return;
  // Derived objects of the listener as it was go; those that stay come back below.
  if (const auto old = now_.listeners_.find(l->name); old != now_.listeners_.end()) {
    for (const ChainObject& c : old->second->chains) {
      forget_derived(c.secrets);
      if (!c.route.empty() && !c.rds && !put_.contains({ConfigKind::kRoute, c.route})) now_.routes_.erase(c.route);
    }
  }
  const int chains = config->filter_chains_size() + (config->has_default_filter_chain() ? 1 : 0);
  for (int i = 0; i < chains; ++i) {
    const bool is_default = i == config->filter_chains_size();
    api::FilterChain& written = is_default ? *config->mutable_default_filter_chain() : *config->mutable_filter_chains(i);
    const std::string path = is_default ? "default_filter_chain" : "filter_chains[" + std::to_string(i) + "]";
    ChainObject chain;
    chain.is_default = is_default;
    chain.name = !written.name().empty() ? written.name() : is_default ? "default" : "chain-" + std::to_string(i);
    chain.has_tls = written.has_transport_socket();
    if (chain.has_tls) written.transport_socket().typed_config().UnpackTo(&chain.tls);
    const ConfigKey owner{ConfigKind::kListener, l->name};
    const std::string place = l->name + "/" + chain.name;
    std::string bad = derive_secrets(chain.tls.common_tls_context(), owner, place, &chain.secrets);
    if (bad.empty()) bad = derive_ticket_keys(chain.tls, owner, place, &chain.secrets);
    if (!bad.empty()) return complain("listener " + l->name + ": " + bad);
    google::protobuf::Any* any = written.mutable_filters(0)->mutable_typed_config();
    if (api::HttpConnectionManager hcm; any->UnpackTo(&hcm) && hcm.has_rds()) {
      chain.rds = true;
      chain.route = hcm.rds().route_config_name();
      chain.rds_file = file_of(hcm.rds().config_source());
      now_.asks_files_ = now_.asks_files_ || chain.rds_file.there();
      chain.filter = std::move(hcm);
    } else if (any->UnpackTo(&hcm)) {
      chain.route_written_name = hcm.route_config().name();
      chain.route = route_key(*l, chain, chains == 1);
      set_inline_route(chain.route, *l, chain, hcm.route_config(), path + ".filters[0].typed_config.route_config");
      hcm.clear_route_config();
      any->PackFrom(hcm);
      chain.filter = std::move(hcm);
    } else if (api::TcpProxy tcp; any->UnpackTo(&tcp)) {
      chain.filter = std::move(tcp);
    }
    l->chains.push_back(std::move(chain));
  }
  l->config = std::move(config);
  const auto old = before_.listeners_.find(l->name);
  const auto routes = [](const ListenerObject& x) {
    std::vector<std::string> out;
    for (const ChainObject& c : x.chains) out.push_back(c.route);
    return out;
  };
  const bool same = old != before_.listeners_.end() && old->second->dynamic == l->dynamic &&
                    same_bytes(*old->second->config, *l->config) && routes(*old->second) == routes(*l);
  const std::string name = l->name;
  now_.listeners_[name] = same ? old->second : std::move(l);
}

// ---- references -----------------------------------------------------------------------------------------------------------

bool ModelBuilder::cluster_known(const std::string& name, bool dynamic, ErrorSink& errors, const std::string& path) const {
  if (const auto c = now_.clusters_.find(name); c != now_.clusters_.end()) {
    if (dynamic || !c->second->dynamic) return true;
    errors.add(path, "cluster '" + name +
                         "' is a management server's, and not there when control starts: a route that may name "
                         "it is of a route configuration with validate_clusters false");
    return false;
  }
  if (!bad_.contains({ConfigKind::kCluster, name})) {
    std::vector<std::string> known;
    for (const auto& [n, c] : now_.clusters_) {
      if (known.size() == 10) {
        known.push_back("...");
        break;
      }
      known.push_back(n);
    }
    std::string list;
    for (const std::string& k : known) list += (list.empty() ? "" : ", ") + k;
    errors.add(path, "unknown cluster '" + name + "'; there " + (known.empty() ? "are no clusters" : "is " + list));
  }
  return false;
}

bool ModelBuilder::route_references(const api::Route& route, const std::string& path, ErrorSink& errors, bool dynamic) const {
  if (!route.has_route()) return true;
  const std::string action = path + (path.empty() ? "" : ".") + "route";
  if (route.route().has_cluster()) return cluster_known(route.route().cluster(), dynamic, errors, action + ".cluster");
  bool ok = true;
  const auto& clusters = route.route().weighted_clusters().clusters();
  for (int i = 0; i < clusters.size(); ++i)
    ok = cluster_known(clusters[i].name(), dynamic, errors,
                       action + ".weighted_clusters.clusters[" + std::to_string(i) + "].name") &&
         ok;
  return ok;
}

bool ModelBuilder::check_route(const RouteObject& r) {
  const bool by_rds = r.dynamic && r.listener.empty();
  if (r.config->has_validate_clusters() ? !r.config->validate_clusters().value() : by_rds) return true;
  const auto old = before_.routes_.find(r.name);
  ErrorSink sink(r.source.get(),
                 r.listener.empty() ? fallback(ConfigKind::kRoute, r.name) : fallback(ConfigKind::kListener, r.listener),
                 &errors_);
  bool ok = true;
  for (size_t h = 0; h < r.virtual_hosts.size(); ++h) {
    const api::VirtualHost& host = *r.virtual_hosts[h];
    if (!check_all_ &&
        old != before_.routes_
                   .end()) {  // a virtual host that did not change is not looked at again: clusters do not go away by themselves
      const auto& hosts = old->second->virtual_hosts;
      if (h < hosts.size() && hosts[h] == r.virtual_hosts[h]) continue;
      const int at = old->second->find_virtual_host(host.name());
      if (at >= 0 && hosts[static_cast<size_t>(at)] == r.virtual_hosts[h]) continue;
    }
    const std::string base = (r.source_path.empty() ? "" : r.source_path + ".") + "virtual_hosts[" + std::to_string(h) + "]";
    for (int i = 0; i < host.routes_size(); ++i)
      ok = route_references(host.routes(i), base + ".routes[" + std::to_string(i) + "]", sink, r.dynamic) && ok;
  }
  return ok;
}

void ModelBuilder::find_sources() const {
  const auto add = [&](ConfigKind kind, const std::string& name, const ResourceFile& file) {
    sources_[{kind, name}].insert(file);
  };
  const auto secrets = [&](const TlsSecrets& s) {
    for (const std::string& name : s.discovered) {
      const auto file = s.files.find(name);
      add(ConfigKind::kSecret, name, file == s.files.end() ? ResourceFile{} : file->second);
    }
  };
  for (const auto& [name, c] : now_.clusters_) {
    if (!c->eds_service.empty()) add(ConfigKind::kEndpoints, c->eds_service, c->eds_file);
    secrets(c->secrets);
  }
  for (const auto& [name, l] : now_.listeners_) {
    for (const ChainObject& c : l->chains) {
      if (c.rds) add(ConfigKind::kRoute, c.route, c.rds_file);
      secrets(c.secrets);
    }
  }
}

bool ModelBuilder::may_ask(const ConfigKey& what, const envoy::config::core::v3::ConfigSource& source, ErrorSink& errors,
                           const std::string& path) const {
  const ResourceFile file = file_of(source);
  if (!file.there() && !now_.servers_answer()) {
    errors.add(path, "asks the stream of dynamic_resources.ads_config, which is not there");
    return false;
  }
  if (!now_.asks_files()) return true;
  if (sources_.empty()) find_sources();
  const std::set<ResourceFile>& all = sources_[what];
  const auto other = std::find_if(all.begin(), all.end(), [&](const ResourceFile& f) { return f != file; });
  if (other == all.end()) return true;
  const auto words = [](const ResourceFile& f) {
    return !f.there() ? "a management server"
                      : f.path + (f.watched_directory.empty() ? "" : " (watched: " + f.watched_directory + ")");
  };
  errors.add(path, "asks " + words(file) + " for \"" + what.name + "\", which is asked of " + words(*other) +
                       " elsewhere; what has one name has one source");
  return false;
}

bool ModelBuilder::check_cluster(const ClusterObject& c) {
  ErrorSink sink(c.source.get(), fallback(ConfigKind::kCluster, c.name), &errors_);
  const bool ok =
      c.eds_service.empty() || may_ask({ConfigKind::kEndpoints, c.eds_service}, c.config->eds_cluster_config().eds_config(), sink,
                                       "eds_cluster_config.eds_config");
  return secrets_known(c.tls.common_tls_context(), c.tls_path + ".common_tls_context", sink) && ok;
}

bool ModelBuilder::check_listener(const ListenerObject& l) {
  ErrorSink sink(l.source.get(), fallback(ConfigKind::kListener, l.name), &errors_);
  bool ok = true;
  for (size_t i = 0; i < l.chains.size(); ++i) {
    const ChainObject& c = l.chains[i];
    const std::string path = c.is_default ? "default_filter_chain" : "filter_chains[" + std::to_string(i) + "]";
    ok = secrets_known(c.tls.common_tls_context(), path + ".transport_socket.typed_config.common_tls_context", sink) && ok;
    if (c.rds)
      ok = may_ask({ConfigKind::kRoute, c.route}, std::get<api::HttpConnectionManager>(c.filter).rds().config_source(), sink,
                   path + ".filters[0].typed_config.rds.config_source") &&
           ok;
    const auto& tickets = c.tls.session_ticket_keys_sds_secret_config();
    if (tickets.has_sds_config())
      ok = may_ask({ConfigKind::kSecret, tickets.name()}, tickets.sds_config(), sink,
                   path + ".transport_socket.typed_config.session_ticket_keys_sds_secret_config.sds_config") &&
           ok;
    else if (c.tls.has_session_ticket_keys_sds_secret_config())
      ok = secret_known(c.tls.session_ticket_keys_sds_secret_config().name(), api::Secret::kSessionTicketKeys,
                        path + ".transport_socket.typed_config.session_ticket_keys_sds_secret_config", sink) &&
           ok;
    // Envoy does not look whether the clusters of a TcpProxy exist; here that is a mistake where nobody could bring them.
    if (const auto* tcp = std::get_if<api::TcpProxy>(&c.filter); tcp != nullptr && !l.dynamic && !now_.clusters_may_come()) {
      const std::string at = path + ".filters[0].typed_config.";
      if (tcp->has_cluster()) ok = cluster_known(tcp->cluster(), l.dynamic, sink, at + "cluster") && ok;
      for (int k = 0; k < tcp->weighted_clusters().clusters_size(); ++k)
        ok = cluster_known(tcp->weighted_clusters().clusters(k).name(), l.dynamic, sink,
                           at + "weighted_clusters.clusters[" + std::to_string(k) + "].name") &&
             ok;
    }
    if (!c.route.empty() && !c.rds && !now_.routes_.contains(c.route))
      ok = false;  // its route configuration was refused, and said so
  }
  // Of two listeners with one address, the one that this document named later (or at all) is wrong.
  const auto& mine = l.config->address().socket_address();
  const auto order = [&](const std::string& name) {
    const auto it = put_.find({ConfigKind::kListener, name});
    return it == put_.end() ? -1 : it->second;
  };
  for (const auto& [name, other] : now_.listeners_) {
    const auto& theirs = other->config->address().socket_address();
    if (name == l.name || theirs.port_value() != mine.port_value() ||
        base::IpAddress::parse(theirs.address()) != base::IpAddress::parse(mine.address()))
      continue;
    if (order(name) > order(l.name)) continue;
    sink.add("address.socket_address",
             "'" + l.name + "' has duplicate address '" + socket_text(mine) + "' as existing listener '" + name + "'");
    ok = false;
  }
  return ok;
}

void ModelBuilder::restore(const ConfigKey& key) {
  put_.erase(key);
  bad_.insert(key);
  switch (key.kind) {
    case ConfigKind::kSecret:
      return restore_in(now_.secrets_, before_.secrets_, key.name);
    case ConfigKind::kEndpoints:
      return restore_in(now_.endpoints_, before_.endpoints_, key.name);
    case ConfigKind::kCluster:
      for (const Model* m : {static_cast<const Model*>(&now_), &before_})
        if (const auto c = m->clusters_.find(key.name); c != m->clusters_.end()) {
          const std::shared_ptr<const ClusterObject> object = c->second;
          restore_derived(object->secrets);
        }
      return restore_in(now_.clusters_, before_.clusters_, key.name);
    case ConfigKind::kRoute:
      return restore_in(now_.routes_, before_.routes_, key.name);
    case ConfigKind::kManifest:
      return restore_in(now_.manifests_, before_.manifests_, key.name);
    case ConfigKind::kListener:
      break;
  }
  // With a listener go its derived objects, back to those of the listener as it was.
  for (const Model* m : {static_cast<const Model*>(&now_), &before_}) {
    const auto l = m->listeners_.find(key.name);
    if (l == m->listeners_.end()) continue;
    const std::shared_ptr<const ListenerObject> object = l->second;
    for (const ChainObject& c : object->chains) {
      if (!c.route.empty() && !c.rds)
        restore_in(now_.routes_, before_.routes_, c.route), put_.erase({ConfigKind::kRoute, c.route});
      restore_derived(c.secrets);
    }
  }
  restore_in(now_.listeners_, before_.listeners_, key.name);
}

bool ModelBuilder::check(const ConfigKey& key, std::vector<ConfigKey>* failed) {
  switch (key.kind) {
    case ConfigKind::kEndpoints: {
      const auto e = now_.endpoints_.find(key.name);
      const auto c = now_.clusters_.find(key.name);
      if (c == now_.clusters_.end()) {
        if (e != now_.endpoints_.end() && !bad_.contains({ConfigKind::kCluster, key.name})) {
          ErrorSink sink(e->second->source.get(), fallback(key.kind, key.name), &errors_);
          sink.add("cluster_name", "there is no cluster '" + key.name + "'");
        }
        return false;
      }
      if (e == now_.endpoints_.end()) return true;
      ErrorSink sink(e->second->source.get(), fallback(key.kind, key.name), &errors_);
      const bool ok = validate_discovery(*c->second->config, *e->second->config, Path(), sink);
      if (!ok && put_.contains({ConfigKind::kCluster, key.name})) failed->push_back({ConfigKind::kCluster, key.name});
      return ok;
    }
    case ConfigKind::kRoute: {
      if (!now_.routes_.contains(key.name)) return true;
      const std::shared_ptr<const RouteObject> r = now_.routes_.at(key.name);
      const bool ok = check_route(*r);
      if (!ok && !r->listener.empty() && put_.contains({ConfigKind::kListener, r->listener}))
        failed->push_back({ConfigKind::kListener, r->listener});
      return ok;
    }
    case ConfigKind::kCluster:
      return !now_.clusters_.contains(key.name) || check_cluster(*now_.clusters_.at(key.name));
    case ConfigKind::kListener:
      return !now_.listeners_.contains(key.name) || check_listener(*now_.listeners_.at(key.name));
    case ConfigKind::kSecret:
    case ConfigKind::kManifest:
      break;
  }
  return true;
}

void ModelBuilder::check_references() {
  for (bool again = true; again;) {
    again = false;
    std::vector<ConfigKey> failed;
    for (const auto& [key, order] : put_) {
      const size_t errors_before = errors_.size();
      if (!check(key, &failed)) failed.push_back(key);
      blame(now_.owner(key), errors_before);
    }
    for (const ConfigKey& key : failed) restore(key), again = true;
  }
}

void ModelBuilder::drop_untouched() {
  check_all_ = true;
  const auto drop = [&](auto& table, ConfigKind kind) {
    erase_if(table, [&](const auto& e) { return !put_.contains({kind, e.first}) && !now_.is_dynamic({kind, e.first}); });
  };
  drop(now_.listeners_, ConfigKind::kListener);
  drop(now_.routes_, ConfigKind::kRoute);
  drop(now_.clusters_, ConfigKind::kCluster);
  drop(now_.endpoints_, ConfigKind::kEndpoints);
  drop(now_.secrets_, ConfigKind::kSecret);
  drop(now_.manifests_, ConfigKind::kManifest);
}

void ModelBuilder::erase(const ConfigKey& key) {
  switch (key.kind) {
    case ConfigKind::kSecret:
      now_.secrets_.erase(key.name);
      break;
    case ConfigKind::kManifest:
      now_.manifests_.erase(key.name);
      break;
    case ConfigKind::kRoute:
      now_.routes_.erase(key.name);
      break;
    case ConfigKind::kEndpoints:
    case ConfigKind::kCluster:
      if (const auto c = now_.clusters_.find(key.name); c != now_.clusters_.end()) forget_derived(c->second->secrets);
      now_.clusters_.erase(key.name);
      now_.endpoints_.erase(key.name);
      break;
    case ConfigKind::kListener: {
      const auto l = now_.listeners_.find(key.name);
      if (l == now_.listeners_.end()) break;
      for (const ChainObject& c : l->second->chains) {
        if (!c.rds) now_.routes_.erase(c.route);
        forget_derived(c.secrets);
      }
      now_.listeners_.erase(l);
      break;
    }
  }
}

ModelEdit ModelBuilder::finish() {
  sort_errors(errors_);
  return {std::move(now_), std::move(errors_)};
}

}  // namespace millrace::control
