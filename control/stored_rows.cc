#include "control/stored_rows.h"

#include <map>
#include <set>

namespace millrace::control {

namespace {

using HostList = std::vector<std::shared_ptr<const api::VirtualHost>>;
using RoutesByPlace = std::map<std::string, std::shared_ptr<const RouteObject>>;

std::string chain_place(const ListenerObject& l, size_t chain) {
  return l.chains[chain].is_default ? "default_filter_chain" : "filter_chains[" + std::to_string(chain) + "]";
}

// The route configurations that an object holds, by their place in it.
RoutesByPlace routes_of(const Model& m, const ConfigKey& key) {
  RoutesByPlace out;
  if (key.kind == ConfigKind::kRoute) {
    if (const auto r = m.routes().find(key.name); r != m.routes().end()) out[""] = r->second;
  } else if (key.kind == ConfigKind::kListener) {
    const auto l = m.listeners().find(key.name);
    if (l == m.listeners().end()) return out;
    for (size_t i = 0; i < l->second->chains.size(); ++i) {
      const std::string& route = l->second->chains[i].route;
      const auto r = m.routes().find(route);
      if (!route.empty() && r != m.routes().end() && r->second->listener == key.name) out[chain_place(*l->second, i)] = r->second;
    }
  }
  return out;
}

const HostList& hosts_at(const RoutesByPlace& routes, const std::string& place) {
  static const HostList none;
  const auto r = routes.find(place);
  return r == routes.end() ? none : r->second->virtual_hosts;
}

StoredRow host_row(const ConfigKey& key, const std::string& place, const api::VirtualHost& host, size_t position) {
  return {{key, place + "/" + host.name()}, static_cast<uint32_t>(position), to_json(host, false, false)};
}

void host_changes(const ConfigKey& key, const std::string& place, const HostList& before, const HostList& after,
                  RowChanges* out) {
  std::set<std::string_view> names;  // of hosts that are not what, or where, they were
  for (size_t i = 0; i < after.size(); ++i) {
    if (i < before.size() && before[i] == after[i]) continue;
    out->put.push_back(host_row(key, place, *after[i], i));
    names.insert(after[i]->name());
  }
  for (size_t i = 0; i < before.size(); ++i)
    if ((i >= after.size() || before[i] != after[i]) && !names.contains(before[i]->name()))
      out->removed.push_back({key, place + "/" + before[i]->name()});
}

using HostsByPlace = std::map<std::string, std::vector<api::VirtualHost>>;

void fill_chain(api::FilterChain* chain, const std::string& place, HostsByPlace& hosts) {
  const auto mine = hosts.find(place);
  api::HttpConnectionManager hcm;
  if (mine == hosts.end() || chain->filters_size() == 0 || !chain->filters(0).typed_config().UnpackTo(&hcm)) return;
  for (api::VirtualHost& h : mine->second) *hcm.mutable_route_config()->add_virtual_hosts() = std::move(h);
  chain->mutable_filters(0)->mutable_typed_config()->PackFrom(hcm);
}

void fill_hosts(ConfigKind kind, google::protobuf::Message* object, HostsByPlace& hosts) {
  if (kind == ConfigKind::kRoute) {
    for (api::VirtualHost& h : hosts[""]) *static_cast<api::RouteConfiguration*>(object)->add_virtual_hosts() = std::move(h);
  } else if (kind == ConfigKind::kListener && !hosts.empty()) {
    auto* listener = static_cast<api::Listener*>(object);
    for (int c = 0; c < listener->filter_chains_size(); ++c)
      fill_chain(listener->mutable_filter_chains(c), "filter_chains[" + std::to_string(c) + "]", hosts);
    if (listener->has_default_filter_chain()) fill_chain(listener->mutable_default_filter_chain(), "default_filter_chain", hosts);
  }
}

}  // namespace

std::vector<StoredRow> all_rows(const Model& model) {
  std::vector<StoredRow> out;
  for (const ConfigKey& key : model.stored_keys()) {
    out.push_back({{key, ""}, 0, to_json(*model.message(key, false), true, false)});
    for (const auto& [place, r] : routes_of(model, key))
      for (size_t i = 0; i < r->virtual_hosts.size(); ++i) out.push_back(host_row(key, place, *r->virtual_hosts[i], i));
  }
  return out;
}

RowChanges row_changes(const Model& before, const Model& after, const std::vector<ConfigKey>& keys) {
  RowChanges out;
  for (const ConfigKey& key : keys) {
    const auto was = before.message(key, false), is = after.message(key, false);
    if (is == nullptr && was != nullptr) out.removed.push_back({key, ""});
    if (is != nullptr) {
      std::string json = to_json(*is, true, false);
      if (was == nullptr || to_json(*was, true, false) != json) out.put.push_back({{key, ""}, 0, std::move(json)});
    }
    const RoutesByPlace old_routes = routes_of(before, key), new_routes = routes_of(after, key);
    std::set<std::string> places;
    for (const auto& [place, r] : old_routes) places.insert(place);
    for (const auto& [place, r] : new_routes) places.insert(place);
    for (const std::string& place : places)
      host_changes(key, place, hosts_at(old_routes, place), hosts_at(new_routes, place), &out);
  }
  return out;
}

Document to_document(const std::vector<StoredRow>& rows, const std::string& file) {
  Document document;
  document.file = file;
  document.shape = DocumentShape::kResources;
  for (size_t i = 0; i < rows.size();) {
    const ConfigKey key = rows[i].key.key;
    const std::string name = file + "(" + std::string(to_string(key.kind)) + " " + key.name + ")";
    Document one = load_document(rows[i].json, name);
    document.errors.insert(document.errors.end(), one.errors.begin(), one.errors.end());
    HostsByPlace hosts;
    for (++i; i < rows.size() && rows[i].key.key == key; ++i) {
      api::VirtualHost host;
      const ConfigErrors bad = load_message(rows[i].json, name, &host);
      document.errors.insert(document.errors.end(), bad.begin(), bad.end());
      hosts[rows[i].key.part.substr(0, rows[i].key.part.find('/'))].push_back(std::move(host));
    }
    if (one.objects.empty()) continue;
    LoadedObject& object = one.objects.front();
    fill_hosts(key.kind, object.message.get(), hosts);
    document.objects.push_back(std::move(object));
  }
  return document;
}

}  // namespace millrace::control
