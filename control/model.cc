#include "control/model.h"

#include "control/model_builder.h"

namespace millrace::control {

int RouteObject::find_virtual_host(std::string_view host) const {
  for (size_t i = 0; i < virtual_hosts.size(); ++i)
    if (virtual_hosts[i]->name() == host) return static_cast<int>(i);
  return -1;
}

Model Model::with_endpoints(const std::vector<std::pair<std::string, std::shared_ptr<const EndpointsObject>>>& endpoints) const {
  Model out = *this;
  for (const auto& [name, object] : endpoints) out.endpoints_[name] = object;
  return out;
}

size_t Model::size(ConfigKind kind) const {
  switch (kind) {
    case ConfigKind::kSecret:
      return secrets_.size();
    case ConfigKind::kEndpoints:
      return endpoints_.size();
    case ConfigKind::kCluster:
      return clusters_.size();
    case ConfigKind::kRoute:
      return routes_.size();
    case ConfigKind::kListener:
      return listeners_.size();
    case ConfigKind::kManifest:
      return manifests_.size();
  }
  return 0;
}

template <class Table>
static std::vector<std::string> keys_of(const Table& table) {
  std::vector<std::string> out;
  for (const auto& [name, object] : table) out.push_back(name);
  return out;
}

std::vector<std::string> Model::names(ConfigKind kind) const {
  switch (kind) {
    case ConfigKind::kSecret:
      return keys_of(secrets_);
    case ConfigKind::kEndpoints:
      return keys_of(endpoints_);
    case ConfigKind::kCluster:
      return keys_of(clusters_);
    case ConfigKind::kRoute:
      return keys_of(routes_);
    case ConfigKind::kListener:
      return keys_of(listeners_);
    case ConfigKind::kManifest:
      return keys_of(manifests_);
  }
  return {};
}

bool Model::has(const ConfigKey& key) const {
  switch (key.kind) {
    case ConfigKind::kSecret:
      return secrets_.contains(key.name);
    case ConfigKind::kEndpoints:
      return endpoints_.contains(key.name);
    case ConfigKind::kCluster:
      return clusters_.contains(key.name);
    case ConfigKind::kRoute:
      return routes_.contains(key.name);
    case ConfigKind::kListener:
      return listeners_.contains(key.name);
    case ConfigKind::kManifest:
      return manifests_.contains(key.name);
  }
  return false;
}

std::shared_ptr<const EndpointsObject> Model::endpoints_of(std::string_view cluster) const {
  const auto find = [](const Table<EndpointsObject>& table, std::string_view name) -> std::shared_ptr<const EndpointsObject> {
    const auto it = table.find(name);
    return it == table.end() ? nullptr : it->second;
  };
  const auto c = clusters_.find(cluster);
  if (c != clusters_.end() && !c->second->eds_service.empty()) return find(assignments_, c->second->eds_service);
  return find(endpoints_, cluster);
}

bool Model::is_dynamic(const ConfigKey& key) const {
  const auto dynamic = [&](const auto& table) {
    const auto it = table.find(key.name);
    return it != table.end() && it->second->dynamic;
  };
  switch (key.kind) {
    case ConfigKind::kSecret:
      return dynamic(secrets_);
    case ConfigKind::kEndpoints:
    case ConfigKind::kCluster:
      return dynamic(clusters_);
    case ConfigKind::kRoute:
      return dynamic(routes_);
    case ConfigKind::kListener:
      return dynamic(listeners_);
    case ConfigKind::kManifest:
      break;
  }
  return false;
}

static void put_together(const RouteObject& r, bool with_hosts, api::RouteConfiguration* out) {
  *out = *r.config;
  if (!with_hosts) return;
  for (const auto& h : r.virtual_hosts) *out->add_virtual_hosts() = *h;
}

std::unique_ptr<google::protobuf::Message> Model::message(const ConfigKey& key, bool with_hosts) const {
  if (!has(key)) return nullptr;
  switch (key.kind) {
    case ConfigKind::kSecret:
      return std::make_unique<api::Secret>(*secrets_.at(key.name)->config);
    case ConfigKind::kEndpoints: {
      const auto known = endpoints_of(key.name);
      return std::make_unique<api::ClusterLoadAssignment>(known != nullptr ? *known->config : *endpoints_.at(key.name)->config);
    }
    case ConfigKind::kCluster: {
      auto c = std::make_unique<api::Cluster>(*clusters_.at(key.name)->config);
      if (clusters_.at(key.name)->eds_service.empty()) *c->mutable_load_assignment() = *endpoints_.at(key.name)->config;
      return c;
    }
    case ConfigKind::kRoute: {
      auto r = std::make_unique<api::RouteConfiguration>();
      put_together(*routes_.at(key.name), with_hosts, r.get());
      return r;
    }
    case ConfigKind::kManifest:
      return std::make_unique<manifest::v1::Manifest>(*manifests_.at(key.name)->config);
    case ConfigKind::kListener:
      break;
  }
  const ListenerObject& object = *listeners_.at(key.name);
  auto l = std::make_unique<api::Listener>(*object.config);
  for (size_t i = 0; i < object.chains.size(); ++i) {
    const ChainObject& c = object.chains[i];
    const auto* hcm = std::get_if<api::HttpConnectionManager>(&c.filter);
    if (hcm == nullptr || c.rds) continue;
    api::HttpConnectionManager whole = *hcm;
    put_together(*routes_.at(c.route), with_hosts, whole.mutable_route_config());
    api::FilterChain* chain = c.is_default ? l->mutable_default_filter_chain() : l->mutable_filter_chains(static_cast<int>(i));
    chain->mutable_filters(0)->mutable_typed_config()->PackFrom(whole);
  }
  return l;
}

ConfigKey Model::owner(const ConfigKey& key) const {
  if (key.kind == ConfigKind::kRoute) {
    const auto it = routes_.find(key.name);
    if (it != routes_.end() && !it->second->listener.empty()) return {ConfigKind::kListener, it->second->listener};
  }
  if (key.kind == ConfigKind::kEndpoints && clusters_.contains(key.name)) return {ConfigKind::kCluster, key.name};
  if (key.kind == ConfigKind::kSecret) {
    const auto it = secrets_.find(key.name);
    if (it != secrets_.end() && it->second->derived) return it->second->owner;
  }
  return key;
}

std::vector<ConfigKey> Model::stored_keys() const {
  std::vector<ConfigKey> out;
  for (const ConfigKind kind : {ConfigKind::kSecret, ConfigKind::kEndpoints, ConfigKind::kCluster, ConfigKind::kRoute,
                                ConfigKind::kListener, ConfigKind::kManifest})
    for (std::string& name : names(kind)) {
      ConfigKey key{kind, std::move(name)};
      if (owner(key) == key && !is_dynamic(key)) out.push_back(std::move(key));
    }
  return out;
}

std::vector<std::string> Model::referrers(const ConfigKey& key) const {
  std::vector<std::string> out;
  if (key.kind == ConfigKind::kEndpoints && clusters_.contains(key.name)) out.push_back("cluster " + key.name);
  if (key.kind == ConfigKind::kRoute && has(key) && !routes_.at(key.name)->listener.empty())
    out.push_back("listener " + routes_.at(key.name)->listener);
  if (key.kind == ConfigKind::kRoute && has(key) && routes_.at(key.name)->listener.empty())
    for (const auto& [name, l] : listeners_)
      for (const ChainObject& c : l->chains)
        if (c.rds && c.route == key.name) out.push_back("listener " + name + " (filter chain " + c.name + ")");
  if (key.kind == ConfigKind::kSecret) {
    for (const auto& [name, l] : listeners_)
      for (const ChainObject& c : l->chains)
        for (const std::string& s : c.secrets.all())
          if (s == key.name) out.push_back("listener " + name + " (filter chain " + c.name + ")");
    for (const auto& [name, c] : clusters_)
      for (const std::string& s : c->secrets.all())
        if (s == key.name) out.push_back("cluster " + name);
  }
  if (key.kind != ConfigKind::kCluster) return out;
  for (const auto& [name, r] : routes_) {
    for (const auto& h : r->virtual_hosts) {
      for (int i = 0; i < h->routes_size(); ++i) {
        const api::Route& route = h->routes(i);
        bool uses = route.route().cluster() == key.name;
        for (const auto& w : route.route().weighted_clusters().clusters()) uses = uses || w.name() == key.name;
        if (uses)
          out.push_back("route " + name + " (virtual host " + h->name() + ", route " +
                        (route.name().empty() ? "#" + std::to_string(i) : route.name()) + ")");
      }
    }
  }
  for (const auto& [name, l] : listeners_) {
    for (const ChainObject& c : l->chains) {
      const auto* tcp = std::get_if<api::TcpProxy>(&c.filter);
      bool uses = tcp != nullptr && tcp->cluster() == key.name;
      if (tcp != nullptr)
        for (const auto& w : tcp->weighted_clusters().clusters()) uses = uses || w.name() == key.name;
      if (uses) out.push_back("listener " + name + " (filter chain " + c.name + ")");
    }
  }
  return out;
}

ModelEdit Model::apply(const std::vector<LoadedObject>& objects) const {
  ModelBuilder b(*this);
  b.put(objects);
  b.check_references();
  return b.finish();
}

ModelEdit Model::apply(const Document& document) const {
  ModelBuilder b(*this);
  b.errors() = document.errors;
  b.put(document.objects);
  b.check_references();
  return b.finish();
}

ModelEdit Model::replace(const Document& document) const {
  ModelBuilder b(*this);
  b.errors() = document.errors;
  b.put(document.objects);
  b.drop_untouched();
  b.check_references();
  return b.finish();
}

}  // namespace millrace::control
