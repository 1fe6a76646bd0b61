#include "control/dns_names.h"

#include <algorithm>
#include <set>

#include "control/proto_values.h"

namespace millrace::control {

namespace {

constexpr base::TimeNs kDefaultRefresh = 5 * base::kSecond;  // Envoy's
constexpr uint32_t kFailureMaxFactor = 10;                   // likewise: max_interval, where it is not given

base::TimeNs to_ns(const google::protobuf::Duration& d) { return static_cast<base::TimeNs>(to_ms(d)) * base::kMillisecond; }

}  // namespace

bool is_dns(const api::Cluster& c) { return c.type() == api::Cluster::STRICT_DNS || c.type() == api::Cluster::LOGICAL_DNS; }

DnsResolverConfig dns_resolver_config(const api::Cluster& c) {
  DnsResolverConfig out;
  if (c.has_typed_dns_resolver_config()) {
    c.typed_dns_resolver_config().typed_config().UnpackTo(&out);
  } else if (c.has_dns_resolution_config()) {
    *out.mutable_resolvers() = c.dns_resolution_config().resolvers();
    *out.mutable_dns_resolver_options() = c.dns_resolution_config().dns_resolver_options();
  } else {
    *out.mutable_resolvers() = c.dns_resolvers();
    if (c.use_tcp_for_dns_lookups()) out.mutable_dns_resolver_options()->set_use_tcp_for_dns_lookups(true);
  }
  return out;
}

bool is_host_name(std::string_view s) {
  if (!s.empty() && s.back() == '.') s.remove_suffix(1);
  constexpr size_t kMostName = 253, kMostLabel = 63;
  if (s.empty() || s.size() > kMostName) return false;
  size_t label = 0;
  for (size_t i = 0; i <= s.size(); ++i) {
    if (i == s.size() || s[i] == '.') {
      if (label == 0 || label > kMostLabel || s[i - 1] == '-' || s[i - label] == '-') return false;
      label = 0;
      continue;
    }
    const char c = s[i];
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_')) return false;
    ++label;
  }
  return true;
}

std::vector<DnsNames::Asked> DnsNames::questions(const ClusterObject& cluster, const EndpointsObject& endpoints) {
  std::vector<Asked> out;
  const api::Cluster& c = *cluster.config;
  Asked a;
  a.question.family = c.dns_lookup_family();
  a.question.resolver = dns_resolver_config(c).SerializeAsString();
  a.pace.refresh = c.has_dns_refresh_rate() ? std::max(to_ns(c.dns_refresh_rate()), base::kMillisecond) : kDefaultRefresh;
  a.pace.respect_ttl = c.respect_dns_ttl();
  if (c.has_dns_failure_refresh_rate()) {
    const auto& r = c.dns_failure_refresh_rate();
    a.pace.failure_base = std::max(to_ns(r.base_interval()), base::kMillisecond);
    a.pace.failure_max = r.has_max_interval() ? to_ns(r.max_interval()) : a.pace.failure_base * kFailureMaxFactor;
  }
  for (const auto& locality : endpoints.config->endpoints())
    for (const auto& e : locality.lb_endpoints()) {
      a.question.name = e.endpoint().address().socket_address().address();
      if (!base::IpAddress::parse(a.question.name)) out.push_back(a);
    }
  return out;
}

template <class F>
void DnsNames::for_each(const Model& model, F&& f) const {
  const auto call = [&](std::string_view name) {
    const auto c = model.clusters().find(name);
    const auto e = model.endpoints().find(name);
    if (c != model.clusters().end() && e != model.endpoints().end() && is_dns(*c->second->config)) f(c->second, e->second);
  };
  // Nobody looks at ten thousand clusters because one route changed: only at those that have names, and at those that differ.
  std::set<std::string, std::less<>> names(clusters_.begin(), clusters_.end());
  Model::Table<ClusterObject>::differences(followed_.clusters(), model.clusters(),
                                           [&](const std::string& name, const auto&, const auto&) { names.insert(name); });
  for (const std::string& name : names) call(name);
}

DnsNames::State& DnsNames::ask(const Asked& asked, base::TimeNs now) {
  const auto [it, fresh] = states_.try_emplace(asked.question);
  State& s = it->second;
  if (fresh) s.next = now;
  if (!s.wanted) {
    s.pace = asked.pace;
    s.wanted = true;
  } else {
    s.pace.refresh = std::min(s.pace.refresh, asked.pace.refresh);
    s.pace.respect_ttl = s.pace.respect_ttl || asked.pace.respect_ttl;
    if (asked.pace.failure_base != 0 && (s.pace.failure_base == 0 || asked.pace.failure_base < s.pace.failure_base)) {
      s.pace.failure_base = asked.pace.failure_base;
      s.pace.failure_max = asked.pace.failure_max;
    }
  }
  return s;
}

void DnsNames::follow(const Model& model, base::TimeNs now) {
  for (auto& [question, state] : states_) state.wanted = false;
  std::vector<std::string> clusters;
  for_each(model, [&](const auto& cluster, const auto& endpoints) {
    clusters.push_back(cluster->name);
    for (const Asked& a : questions(*cluster, *endpoints)) ask(a, now);
  });
  std::erase_if(states_, [](const auto& s) { return !s.second.wanted; });
  std::erase_if(resolved_, [&](const auto& r) { return !std::binary_search(clusters.begin(), clusters.end(), r.first); });
  clusters_ = std::move(clusters);
  followed_ = model;
}

void DnsNames::expect(const Model& model, base::TimeNs now) {
  for_each(model, [&](const auto& cluster, const auto& endpoints) {
    for (const Asked& a : questions(*cluster, *endpoints)) ask(a, now);
  });
}

std::vector<DnsQuestion> DnsNames::due(base::TimeNs now) {
  std::vector<DnsQuestion> out;
  for (auto& [question, s] : states_) {
    if (s.under_way || s.next > now) continue;
    s.under_way = true;
    ++s.attempts;
    out.push_back(question);
  }
  return out;
}

base::TimeNs DnsNames::next_due() const {
  base::TimeNs out = base::kNever;
  for (const auto& [question, s] : states_)
    if (!s.under_way) out = std::min(out, s.next);
  return out;
}

DnsNames::Turn DnsNames::answered(const DnsQuestion& question, const DnsAnswer& answer, base::TimeNs now) {
  const auto it = states_.find(question);
  if (it == states_.end()) return {};  // nobody asks any more
  State& s = it->second;
  s.under_way = false;
  Turn turn;
  turn.began_to_fail = !answer.ok && s.error.empty();
  turn.works_again = answer.ok && !s.error.empty();
  s.tried = true;
  s.error = answer.ok ? "" : answer.error;
  if (!answer.ok) {
    ++s.failures;
    base::TimeNs wait = s.pace.refresh;
    if (s.pace.failure_base != 0) {  // Envoy's jittered exponential back-off
      s.failure_wait = s.failure_wait == 0 ? s.pace.failure_base : std::min(s.failure_wait * 2, s.pace.failure_max);
      wait = std::max(random_.below(s.failure_wait), base::kMillisecond);
    }
    s.next = base::time_add(now, wait);
    return turn;
  }
  ++s.successes;
  s.failure_wait = 0;
  if (answer.addresses.empty()) ++s.empty;
  s.next = base::time_add(now, s.pace.respect_ttl && answer.ttl != 0 ? answer.ttl * base::kSecond : s.pace.refresh);
  if (s.known && s.addresses == answer.addresses) {
    ++s.unchanged;
    return turn;
  }
  s.known = true;
  s.addresses = answer.addresses;
  if (!s.addresses.empty()) s.last = s.addresses;
  s.version = ++versions_;
  turn.changed = true;
  return turn;
}

bool DnsNames::warm(const Model& model) const {
  bool all = true;
  for_each(model, [&](const auto& cluster, const auto& endpoints) {
    const api::Cluster& c = *cluster->config;
    if (c.has_wait_for_warm_on_init() && !c.wait_for_warm_on_init().value()) return;
    for (const Asked& a : questions(*cluster, *endpoints)) {
      const auto s = states_.find(a.question);
      all = all && s != states_.end() && s->second.tried;
    }
  });
  return all;
}

std::shared_ptr<const EndpointsObject> DnsNames::resolve(const ClusterObject& cluster, const EndpointsObject& endpoints) const {
  const bool logical = cluster.config->type() == api::Cluster::LOGICAL_DNS;
  const std::vector<Asked> asked = questions(cluster, endpoints);
  auto config = std::make_shared<api::ClusterLoadAssignment>(*endpoints.config);
  std::set<std::pair<base::IpAddress, uint32_t>> seen;  // an address that two names have counts once, as in Envoy
  size_t at = 0;
  for (auto& locality : *config->mutable_endpoints()) {
    google::protobuf::RepeatedPtrField<api::LbEndpoint> made;
    for (const api::LbEndpoint& written : locality.lb_endpoints()) {
      const auto& socket = written.endpoint().address().socket_address();
      std::vector<base::IpAddress> addresses;
      const auto ip = base::IpAddress::parse(socket.address());
      if (ip) {
        addresses.push_back(*ip);
      } else if (const auto s = states_.find(asked[at++].question); s != states_.end()) {
        addresses = logical ? s->second.last : s->second.addresses;
        if (logical && addresses.size() > 1) addresses.resize(1);
      }
      for (const base::IpAddress& a : addresses) {
        if (!seen.emplace(a, socket.port_value()).second) continue;
        api::LbEndpoint& e = *made.Add();
        e = written;
        if (!ip && e.endpoint().hostname().empty()) e.mutable_endpoint()->set_hostname(socket.address());
        e.mutable_endpoint()->mutable_address()->mutable_socket_address()->set_address(a.to_string());
      }
    }
    *locality.mutable_lb_endpoints() = std::move(made);
  }
  return std::make_shared<const EndpointsObject>(
      EndpointsObject{endpoints.name, std::move(config), endpoints.source, endpoints.dynamic});
}

Model DnsNames::resolved(const Model& model) {
  std::vector<std::pair<std::string, std::shared_ptr<const EndpointsObject>>> made;
  for_each(model, [&](const auto& cluster, const auto& endpoints) {
    const std::vector<Asked> asked = questions(*cluster, *endpoints);
    std::vector<uint64_t> versions;
    for (const Asked& a : asked) {
      const auto s = states_.find(a.question);
      versions.push_back(s == states_.end() ? 0 : s->second.version);
    }
    Resolved& r = resolved_[cluster->name];
    if (r.made == nullptr || r.cluster != cluster || r.written != endpoints || r.versions != versions)
      r = {cluster, endpoints, resolve(*cluster, *endpoints), std::move(versions)};
    made.emplace_back(cluster->name, r.made);
  });
  return made.empty() ? model : model.with_endpoints(made);
}

std::vector<DnsNames::Status> DnsNames::status(std::string_view cluster) const {
  std::vector<Status> out;
  const auto c = followed_.clusters().find(cluster);
  const auto e = followed_.endpoints().find(cluster);
  if (c == followed_.clusters().end() || e == followed_.endpoints().end() || !is_dns(*c->second->config)) return out;
  for (const Asked& a : questions(*c->second, *e->second)) {
    const auto it = states_.find(a.question);
    if (it == states_.end()) continue;
    const State& s = it->second;
    out.push_back({a.question, s.known, s.addresses, s.error, s.attempts, s.successes, s.failures, s.empty, s.unchanged, s.next});
  }
  return out;
}

}  // namespace millrace::control
