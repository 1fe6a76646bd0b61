#include "control/warming.h"

#include <algorithm>
#include <utility>

#include "control/cluster_references.h"
#include "lib/base/ip_address.h"

namespace millrace::control {

using base::TimeNs;

namespace {

constexpr TimeNs kInVain = 0;  // of missing_: was waited for, and did not come

size_t at(XdsType type) { return static_cast<size_t>(type); }

template <class T>
std::shared_ptr<const T> get(const Model::Table<T>& table, std::string_view name) {
  const auto it = table.find(name);
  return it == table.end() ? nullptr : it->second;
}

bool names_cluster(const RouteObject& r, const std::string& cluster) {
  bool found = false;
  for (const auto& host : r.virtual_hosts) {
    for_each_cluster(*host, [&](const std::string& name) { found = found || name == cluster; });
    if (found) return true;
  }
  return false;
}

bool same_address(const ListenerObject& a, const ListenerObject& b) {
  const auto &x = a.config->address().socket_address(), &y = b.config->address().socket_address();
  return x.port_value() == y.port_value() && base::IpAddress::parse(x.address()) == base::IpAddress::parse(y.address());
}

// What an object asks for by name, and of which file, if of one.
using Asked = std::map<std::string, ResourceFile>;
void ask_secrets(const TlsSecrets& secrets, Asked* out) {
  for (const std::string& name : secrets.discovered) {
    const auto file = secrets.files.find(name);
    out->emplace(name, file == secrets.files.end() ? ResourceFile{} : file->second);
  }
}
Asked asked_secrets(const ClusterObject* c) {
  Asked out;
  if (c != nullptr) ask_secrets(c->secrets, &out);
  return out;
}
Asked asked_secrets(const ListenerObject* l) {
  Asked out;
  if (l == nullptr) return out;
  for (const ChainObject& c : l->chains) ask_secrets(c.secrets, &out);
  return out;
}
Asked asked_routes(const ListenerObject* l) {
  Asked out;
  if (l == nullptr) return out;
  for (const ChainObject& c : l->chains)
    if (c.rds) out.emplace(c.route, c.rds_file);
  return out;
}
Asked asked_endpoints(const ClusterObject* c) {
  return c == nullptr || c->eds_service.empty() ? Asked{} : Asked{{c->eds_service, c->eds_file}};
}

}  // namespace

// ---- who asks for what ------------------------------------------------------------------------------------------------------

void Warming::ask(XdsType type, const std::string& name, const ResourceFile& file, const ConfigKey& who) {
  const auto [it, fresh] = asks_[at(type)].try_emplace(name);
  it->second.insert(who);
  if (fresh) ++generation_, unwanted_[at(type)].erase(name);
  auto& files = files_[at(type)];
  const auto was = files.find(name);
  if (file == (was == files.end() ? ResourceFile{} : was->second)) return;
  if (file.there()) files[name] = file;
  else files.erase(was);
  ++generation_;
}

void Warming::ask_no_more(XdsType type, const std::string& name, const ConfigKey& who) {
  Users& users = asks_[at(type)];
  const auto it = users.find(name);
  if (it == users.end()) return;
  it->second.erase(who);
  if (!it->second.empty()) return;
  users.erase(it);
  files_[at(type)].erase(name);
  given_up_[at(type)].erase(name);
  unwanted_[at(type)].insert(name);
  ++generation_;
}

void Warming::reindex(const Model& model) {
  const auto ask_all = [&](XdsType type, const Asked& before, const Asked& after, const ConfigKey& who) {
    for (const auto& [n, file] : after) ask(type, n, file, who);
    for (const auto& [n, file] : before)
      if (!after.contains(n)) ask_no_more(type, n, who);
  };
  Model::Table<SecretObject>::differences(written_.secrets_, model.secrets_,
                                          [&](const std::string& name, const auto&, const auto& s) {
                                            todo_.insert({ConfigKind::kSecret, name});
                                            if (s != nullptr) given_up_[at(XdsType::kSecret)].erase(name);
                                          });
  Model::Table<ClusterObject>::differences(
      written_.clusters_, model.clusters_, [&](const std::string& name, const auto& before, const auto& after) {
        const ConfigKey key{ConfigKind::kCluster, name};
        ask_all(XdsType::kEndpoints, asked_endpoints(before.get()), asked_endpoints(after.get()), key);
        ask_all(XdsType::kSecret, asked_secrets(before.get()), asked_secrets(after.get()), key);
        todo_.insert(key);
      });
  Model::Table<EndpointsObject>::differences(written_.endpoints_, model.endpoints_,
                                             [&](const std::string& name, const auto&, const auto&) {
                                               todo_.insert({ConfigKind::kCluster, name});
                                             });
  Model::Table<EndpointsObject>::differences(written_.assignments_, model.assignments_,
                                             [&](const std::string& name, const auto&, const auto& a) {
                                               if (a != nullptr) given_up_[at(XdsType::kEndpoints)].erase(name);
                                               const Users& users = asks_[at(XdsType::kEndpoints)];
                                               if (const auto it = users.find(name); it != users.end())
                                                 todo_.insert(it->second.begin(), it->second.end());
                                             });
  Model::Table<RouteObject>::differences(written_.routes_, model.routes_,
                                         [&](const std::string& name, const auto&, const auto& r) {
                                           todo_.insert({ConfigKind::kRoute, name});
                                           if (r != nullptr && r->listener.empty()) given_up_[at(XdsType::kRoute)].erase(name);
                                         });
  Model::Table<ListenerObject>::differences(
      written_.listeners_, model.listeners_, [&](const std::string& name, const auto& before, const auto& after) {
        const ConfigKey key{ConfigKind::kListener, name};
        ask_all(XdsType::kRoute, asked_routes(before.get()), asked_routes(after.get()), key);
        ask_all(XdsType::kSecret, asked_secrets(before.get()), asked_secrets(after.get()), key);
        todo_.insert(key);
      });
}

std::set<std::string> Warming::wanted(XdsType type) const {
  std::set<std::string> out;
  const auto& files = files_[at(type)];
  for (const auto& [name, users] : asks_[at(type)])
    if (files.empty() || !files.contains(name)) out.insert(out.end(), name);
  return out;
}

std::vector<XdsFileWant> Warming::wanted_files() const {
  std::vector<XdsFileWant> out;
  for (size_t i = 0; i < kXdsTypes; ++i)
    for (const auto& [name, file] : files_[i]) out.push_back({static_cast<XdsType>(i), name, file});
  return out;
}

std::set<std::string> Warming::take_unwanted(XdsType type) { return std::exchange(unwanted_[at(type)], {}); }

void Warming::given_up(XdsType type, std::string_view name) {
  const Users& users = asks_[at(type)];
  const auto it = users.find(name);
  if (it == users.end()) return;
  given_up_[at(type)].emplace(name);
  todo_.insert(it->second.begin(), it->second.end());
}

bool Warming::gave_up(XdsType type, std::string_view name) const { return given_up_[at(type)].contains(name); }

// ---- an update --------------------------------------------------------------------------------------------------------------

const Model& Warming::update(const Model& model, TimeNs now) {
  reindex(model);
  written_ = model;
  now_.clusters_may_come_ = model.clusters_may_come_;
  now_.assignments_ = model.assignments_;
  for (const auto& [name, until] : leaving_)
    if (until <= now) todo_.insert({ConfigKind::kCluster, name});
  for (auto& [name, until] : missing_) {
    if (until == kInVain || until > now) continue;
    until = kInVain;
    wake(name, cluster_waiters_);
    cluster_waiters_.erase(name);
  }
  while (!todo_.empty()) {
    const ConfigKey key = *todo_.begin();
    todo_.erase(todo_.begin());
    look_at(key, now);
  }
  return now_;
}

TimeNs Warming::next_deadline() const {
  TimeNs next = base::kNever;
  for (const auto& [name, until] : leaving_) next = std::min(next, until);
  for (const auto& [name, until] : missing_)
    if (until != kInVain) next = std::min(next, until);
  return next;
}

void Warming::look_at(const ConfigKey& key, TimeNs now) {
  waiting_.erase(key);
  switch (key.kind) {
    case ConfigKind::kSecret:
      return set_secret(key.name);
    case ConfigKind::kEndpoints:
    case ConfigKind::kCluster:
      return set_cluster(key.name, now);
    case ConfigKind::kRoute:
      return set_route(key.name, now);
    case ConfigKind::kListener:
      return set_listener(key.name, now);
    case ConfigKind::kManifest:
      return;  // what is made of it is in force or not
  }
}

// Who waits is looked at again.
void Warming::wake(const std::string& name, const Users& users) {
  const auto it = users.find(name);
  if (it == users.end()) return;
  for (const ConfigKey& who : it->second)
    if (waiting_.contains(who)) todo_.insert(who);
}

// ---- what is in use ---------------------------------------------------------------------------------------------------------

void Warming::count(Counts& counts, const std::string& name, int n, ConfigKind kind) {
  uint32_t& uses = counts[name];
  uses += static_cast<uint32_t>(n);
  if (uses != 0) return;
  counts.erase(name);
  const ConfigKey key{kind, name};
  if (waiting_.contains(key)) todo_.insert(key);  // perhaps it waited to be gone
  if (kind != ConfigKind::kCluster) return;
  if (const auto it = missing_.find(name); it != missing_.end() && it->second == kInVain) missing_.erase(it);
}

void Warming::count_secrets(const TlsSecrets& secrets, int n) {
  for (const std::string& s : secrets.all()) count(secret_uses_, s, n, ConfigKind::kSecret);
}

void Warming::count_listener(const ListenerObject& l, int n) {
  for (const ChainObject& c : l.chains) {
    if (!c.route.empty()) count(route_uses_, c.route, n, ConfigKind::kRoute);
    for_each_cluster(c, [&](const std::string& name) { count(cluster_uses_, name, n, ConfigKind::kCluster); });
    count_secrets(c.secrets, n);
  }
}

// Virtual hosts that both have at the same place are not looked at.
void Warming::count_clusters(const RouteObject* before, const RouteObject* after) {
  const auto count_hosts = [&](const RouteObject* of, const RouteObject* other, int n) {
    for (size_t i = 0; of != nullptr && i < of->virtual_hosts.size(); ++i) {
      const auto& host = of->virtual_hosts[i];
      if (other != nullptr && i < other->virtual_hosts.size() && other->virtual_hosts[i] == host) continue;
      for_each_cluster(*host, [&](const std::string& name) { count(cluster_uses_, name, n, ConfigKind::kCluster); });
    }
  };
  count_hosts(after, before, 1);
  count_hosts(before, after, -1);
}

// ---- one object -------------------------------------------------------------------------------------------------------------

bool Warming::secrets_ready(const TlsSecrets& secrets) const {
  return std::all_of(secrets.discovered.begin(), secrets.discovered.end(),
                     [&](const std::string& s) { return now_.secrets_.contains(s) || gave_up(XdsType::kSecret, s); });
}

// Certificates that are written in the object go into force with it.
void Warming::owned_secrets(const TlsSecrets& secrets) {
  for (const std::string& s : secrets.all())
    if (const auto w = get(written_.secrets_, s); w != nullptr && w->derived) now_.secrets_[s] = w;
}

void Warming::set_secret(const std::string& name) {
  const auto w = get(written_.secrets_, name), f = get(now_.secrets_, name);
  if (w == f) return;
  if (w == nullptr) {
    if (secret_uses_.contains(name)) wait({ConfigKind::kSecret, name});
    else now_.secrets_.erase(name);
    return;
  }
  if (w->derived) {  // with its owner, who may be in force already
    const bool there = w->owner.kind == ConfigKind::kListener
                           ? get(now_.listeners_, w->owner.name) == get(written_.listeners_, w->owner.name)
                           : get(now_.clusters_, w->owner.name) == get(written_.clusters_, w->owner.name);
    if (!there) return;
  }
  now_.secrets_[name] = w;
  wake(name, asks_[at(XdsType::kSecret)]);
}

void Warming::remove_cluster(const std::string& name, TimeNs now) {
  const auto f = get(now_.clusters_, name);
  if (f == nullptr) return;
  if (f->dynamic && cluster_uses_.contains(name)) {
    const TimeNs until = leaving_.try_emplace(name, base::time_add(now, kClusterWait)).first->second;
    if (until > now) return wait({ConfigKind::kCluster, name});
  }
  leaving_.erase(name);
  now_.clusters_.erase(name);
  now_.endpoints_.erase(name);
  count_secrets(f->secrets, -1);
}

void Warming::set_cluster(const std::string& name, TimeNs now) {
  const auto w = get(written_.clusters_, name), f = get(now_.clusters_, name);
  if (w == nullptr) return remove_cluster(name, now);
  leaving_.erase(name);
  const bool eds_ready =
      w->eds_service.empty() || written_.assignments_.contains(w->eds_service) || gave_up(XdsType::kEndpoints, w->eds_service);
  const bool live = f == w || (eds_ready && secrets_ready(w->secrets));
  if (!live) wait({ConfigKind::kCluster, name});
  if (!live && f == nullptr) return;
  if (live && f != w) {
    now_.clusters_[name] = w;
    owned_secrets(w->secrets);
    count_secrets(w->secrets, 1);
    if (f != nullptr) count_secrets(f->secrets, -1);
    missing_.erase(name);
    wake(name, cluster_waiters_);
    cluster_waiters_.erase(name);
  }
  const ClusterObject& c = live ? *w : *f;
  const auto old = get(now_.endpoints_, name);
  if (c.eds_service.empty()) {
    if (!live) return;  // what came meanwhile is of the cluster that waits
    if (const auto e = get(written_.endpoints_, name); e != nullptr && e != old) now_.endpoints_[name] = e;
    return;
  }
  const auto a = get(written_.assignments_, c.eds_service);
  std::shared_ptr<const api::ClusterLoadAssignment> config;
  if (a != nullptr) {
    config = a->config;
  } else {
    if (old != nullptr && f != nullptr && f->eds_service == c.eds_service) return;  // the last that were known
    auto none = std::make_shared<api::ClusterLoadAssignment>();
    none->set_cluster_name(c.eds_service);
    config = std::move(none);
  }
  if (old != nullptr && old->config == config) return;
  now_.endpoints_[name] = std::make_shared<const EndpointsObject>(EndpointsObject{name, std::move(config), nullptr, true});
}

// Is there nothing to wait for? Not when it is in force, when it was in vain, or when `named_before`: then requests fail already.
template <class Before>
bool Warming::cluster_ready(const std::string& name, const ConfigKey& who, TimeNs now, Before&& named_before) {
  if (now_.clusters_.contains(name)) return true;
  if (cluster_uses_.contains(name) && named_before()) return true;
  if (!written_.clusters_.contains(name)) {
    if (!written_.clusters_may_come_) return true;
    const TimeNs until = missing_.try_emplace(name, base::time_add(now, kClusterWait)).first->second;
    if (until == kInVain || until <= now) return true;
  }
  cluster_waiters_[name].insert(who);
  return false;
}

// Are the clusters in force that `after` names and `before`, which it takes the place of, does not? If not, `who` waits for them.
bool Warming::clusters_ready(const RouteObject* before, const RouteObject& after, const ConfigKey& who, TimeNs now) {
  bool ready = true;
  for (size_t i = 0; i < after.virtual_hosts.size(); ++i) {
    const auto& host = after.virtual_hosts[i];
    if (before != nullptr && i < before->virtual_hosts.size() && before->virtual_hosts[i] == host) continue;
    for_each_cluster(*host, [&](const std::string& name) {
      ready = cluster_ready(name, who, now, [&] { return before != nullptr && names_cluster(*before, name); }) && ready;
    });
  }
  return ready;
}

void Warming::put_route(const std::string& name, std::shared_ptr<const RouteObject> r) {
  const auto before = get(now_.routes_, name);
  if (before == r) return;
  count_clusters(before.get(), r.get());
  if (r != nullptr) now_.routes_[name] = std::move(r);
  else now_.routes_.erase(name);
}

void Warming::set_route(const std::string& name, TimeNs now) {
  const ConfigKey key{ConfigKind::kRoute, name};
  const auto w = get(written_.routes_, name), f = get(now_.routes_, name);
  if (w == f) return;
  if (w == nullptr) {
    if (route_uses_.contains(name)) wait(key);
    else put_route(name, nullptr);
    return;
  }
  // What is written in a listener goes into force with it.
  if (!w->listener.empty() && get(now_.listeners_, w->listener) != get(written_.listeners_, w->listener)) return wait(key);
  // A listener that is about to ask for it has one of the same name written in itself.
  if (w->listener.empty() && f != nullptr && !f->listener.empty() && route_uses_.contains(name)) {
    wake(name, asks_[at(XdsType::kRoute)]);  // it goes into force with that listener
    return wait(key);
  }
  if (!clusters_ready(f.get(), *w, key, now)) return wait(key);
  put_route(name, w);
  wake(name, asks_[at(XdsType::kRoute)]);
}

// May the listener go into force? Fills *with_it with the route configurations that go with it.
bool Warming::listener_ready(const ListenerObject& w, TimeNs now, std::vector<std::string>* with_it) {
  const ConfigKey key{ConfigKind::kListener, w.name};
  const auto f = get(now_.listeners_, w.name);
  bool ready = true;
  for (const ChainObject& c : w.chains) {
    ready = secrets_ready(c.secrets) && ready;
    for_each_cluster(c, [&](const std::string& cluster) {
      const auto before = [&] {
        bool found = false;
        for (size_t i = 0; f != nullptr && i < f->chains.size(); ++i)
          for_each_cluster(f->chains[i], [&](const std::string& n) { found = found || n == cluster; });
        return found;
      };
      ready = cluster_ready(cluster, key, now, before) && ready;
    });
    if (c.route.empty()) continue;
    const auto route = get(written_.routes_, c.route), in_force = get(now_.routes_, c.route);
    const bool own = in_force != nullptr && in_force->listener == w.name;  // written in the listener as it was
    if (c.rds && !own) {
      // One of this name that is written in another listener is not what was asked for.
      ready = ready && (in_force != nullptr ? in_force->listener.empty() : gave_up(XdsType::kRoute, c.route));
    } else if (route == nullptr) {
      ready = ready && gave_up(XdsType::kRoute, c.route);
    } else {
      ready = clusters_ready(in_force.get(), *route, key, now) && ready;
      with_it->push_back(c.route);
    }
  }
  return ready;
}

// Has another listener in force the address, that goes on having it?
bool Warming::address_taken(const ListenerObject& w, TimeNs now) {
  for (const auto& [name, other] : now_.listeners_) {
    if (name == w.name || !same_address(*other, w)) continue;
    const auto next = get(written_.listeners_, name);
    if (next == nullptr) continue;
    std::vector<std::string> with_it;
    if (same_address(*next, w) || !listener_ready(*next, now, &with_it)) return true;
  }
  return false;
}

void Warming::set_listener(const std::string& name, TimeNs now) {
  const ConfigKey key{ConfigKind::kListener, name};
  const auto w = get(written_.listeners_, name), f = get(now_.listeners_, name);
  if (w == f) return;
  std::vector<std::string> with_it;
  if (w != nullptr && (!listener_ready(*w, now, &with_it) || address_taken(*w, now))) return wait(key);
  // Others may wait for the address.
  for (const ConfigKey& other : waiting_)
    if (f != nullptr && other.kind == ConfigKind::kListener) todo_.insert(other);
  if (w == nullptr) {
    now_.listeners_.erase(name);
    return count_listener(*f, -1);
  }
  now_.listeners_[name] = w;
  for (const std::string& route : with_it) {
    waiting_.erase({ConfigKind::kRoute, route});
    put_route(route, get(written_.routes_, route));
  }
  for (const ChainObject& c : w->chains) owned_secrets(c.secrets);
  count_listener(*w, 1);
  if (f != nullptr) count_listener(*f, -1);
}

}  // namespace millrace::control
