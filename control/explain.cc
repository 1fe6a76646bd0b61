#include "control/explain.h"

#include <algorithm>

#include "control/json_text.h"
#include "lib/base/ip_address.h"
#include "lib/route/balancer/plan.h"
#include "lib/route/compiler.h"
#include "lib/route/explain.h"
#include "lib/route/matcher.h"
#include "lib/route/rewrite.h"
#include "lib/route/runtime.h"

namespace millrace::control {

namespace {

using table::view;

std::string quoted(std::string_view s) { return "\"" + std::string(s) + "\""; }
std::string lower(std::string_view s) {
  std::string out;
  for (char c : s) out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return out;
}
std::string endpoint_text(const base::IpAddress& a, uint16_t port) {
  return (a.is_v4() ? a.to_string() : "[" + a.to_string() + "]") + ":" + std::to_string(port);
}

class Explainer {
 public:
  Explainer(const Model& model, const Compiler& compiled, const ExplainRequest& request)
      : model_(model), compiled_(compiled), request_(request) {}

  Explanation run() {
    const table::Listener* l = listener();
    if (l == nullptr) return std::move(out_);
    const table::FilterChain* chain = filter_chain(*l);
    if (chain == nullptr) return std::move(out_);
    if (chain->filter == table::NetworkFilterKind::kTcpProxy) {
      clusters(chain->tcp.clusters.begin(l), chain->tcp.clusters.count, chain->tcp.total_weight, l, 0);
      return std::move(out_);
    }
    http(std::string(view(l, chain->hcm.route_table_name)));
    return std::move(out_);
  }

 private:
  void step(std::string what, std::string_view name, bool chosen, std::string why) {
    out_.steps.push_back({std::move(what), std::string(name), chosen, std::move(why)});
  }
  void answer(uint16_t status, std::string flag, std::string why) {
    out_.status = status;
    out_.response_flag = std::move(flag);
    step("answer", status == 0 ? "connection closed" : std::to_string(status), true, std::move(why));
  }
  template <class T>
  const T* object(table::Kind kind, const std::string& name) const {
    const TableObject* o = compiled_.find(kind, name);
    return o == nullptr ? nullptr : reinterpret_cast<const T*>(o->bytes());
  }

  // By name, or by destination: the exact address before the unspecified one of its family.
  const table::Listener* listener() {
    const table::Listener* best = nullptr;
    const auto wanted = base::IpAddress::parse(request_.address);
    for (const auto& [name, l] : model_.listeners()) {
      const auto* o = object<table::Listener>(table::Kind::kListener, name);
      if (o == nullptr) continue;
      if (!request_.listener.empty()) {
        if (name == request_.listener) best = o;
        continue;
      }
      if (request_.port != 0 && o->port != request_.port) continue;
      const bool exact = wanted && o->address == *wanted;
      const bool any = !wanted || (o->address.is_unspecified() && o->address.is_v4() == wanted->is_v4());
      if (exact || (any && best == nullptr)) best = o;
    }
    if (best == nullptr) {
      step("listener", request_.listener, false,
           request_.listener.empty() ? "no listener for " + request_.address + ":" + std::to_string(request_.port)
                                     : "there is no such listener");
      answer(0, "", "the SYN is answered with a reset");
      return nullptr;
    }
    step("listener", view(best, best->name), true, "listens on " + endpoint_text(best->address, best->port));
    return best;
  }

  // Envoy's order: server name (exact, then ever shorter wildcards, then any), transport protocol, ALPN; each step keeps only the
  // most specific, and nothing backtracks. Source: FilterChainMatch.
  const table::FilterChain* filter_chain(const table::Listener& l) {
    std::vector<uint32_t> set;
    std::string why = "no chain names the server name" + (request_.sni.empty() ? std::string() : " " + quoted(request_.sni));
    const std::string sni = lower(request_.sni);
    const auto take = [&](const table::Array<table::ServerNameEntry>& names, std::string_view text) {
      for (uint32_t i = 0; set.empty() && i < names.count; ++i)
        if (view(&l, names.at(&l, i).text) == text) set.assign(names.at(&l, i).chains.begin(&l), names.at(&l, i).chains.end(&l));
      return !set.empty();
    };
    if (!sni.empty() && request_.tls) {
      if (take(l.exact_names, sni)) why = "server name " + quoted(sni);
      for (size_t dot = sni.find('.'); set.empty() && dot != std::string::npos; dot = sni.find('.', dot + 1))
        if (take(l.wildcard_names, std::string_view(sni).substr(dot)))
          why = "server name " + quoted(sni) + " matches *" + sni.substr(dot);
    }
    if (set.empty()) {
      set.assign(l.any_name_chains.begin(&l), l.any_name_chains.end(&l));
      if (!set.empty()) why = "it takes any server name";
    }
    const auto transport =
        request_.tls && l.tls_inspector ? table::TransportProtocol::kTls : table::TransportProtocol::kRawBuffer;
    const auto chain = [&](uint32_t i) -> const table::FilterChain& { return l.filter_chains.at(&l, i); };
    const auto keep = [&](auto named, auto open, const std::string& reason) {
      std::vector<uint32_t> exact, any;
      for (uint32_t i : set) {
        if (named(chain(i))) exact.push_back(i);
        else if (open(chain(i))) any.push_back(i);
      }
      if (!exact.empty() && !reason.empty()) why += ", " + reason;
      set = exact.empty() ? any : exact;
    };
    keep([&](const table::FilterChain& c) { return c.transport_protocol == transport; },
         [](const table::FilterChain& c) { return c.transport_protocol == table::TransportProtocol::kAny; },
         transport == table::TransportProtocol::kTls ? "transport protocol tls" : "transport protocol raw_buffer");
    const auto speaks = [&](const table::FilterChain& c) {
      for (uint32_t i = 0; i < c.application_protocols.count; ++i)
        for (const std::string& a : request_.alpn)
          if (view(&l, c.application_protocols.at(&l, i)) == a) return true;
      return false;
    };
    keep(
        speaks, [](const table::FilterChain& c) { return c.application_protocols.count == 0; },
        "an application protocol that it names");
    uint32_t index = set.empty() ? l.default_filter_chain : set.front();
    if (index == UINT32_MAX) {
      step("filter chain", "", false, why + "; no default_filter_chain");
      answer(0, "NR", "no filter chain matches: the connection is closed");
      return nullptr;
    }
    step("filter chain", view(&l, chain(index).name), true, set.empty() ? "the default: " + why : why);
    return &chain(index);
  }

  void http(const std::string& name) {
    const auto* rt = object<table::RouteTable>(table::Kind::kRouteTable, name);
    if (rt == nullptr) return answer(404, "NR", "route table " + quoted(name) + " is not there");
    step("route table", name, true,
         std::to_string(rt->virtual_hosts.count) + (rt->virtual_hosts.count == 1 ? " virtual host" : " virtual hosts"));
    const route::HostResult host = route::find_virtual_host(*rt, request_.authority);
    if (host.index == route::kNoVirtualHost) {
      step("virtual host", "", false, "no domain matches " + quoted(request_.authority));
      return answer(404, "NR", "no virtual host");
    }
    const RouteObject& config = *model_.routes().at(name);
    const table::ObjectId id = rt->virtual_hosts.at(rt, host.index);
    const table::VirtualHost* vh = nullptr;
    for (const auto& h : config.virtual_hosts) {
      const std::string object_name = route::virtual_host_object_name(name, h->name());
      if (table::object_id(table::Kind::kVirtualHost, object_name) == id)
        vh = object<table::VirtualHost>(table::Kind::kVirtualHost, object_name);
    }
    if (vh == nullptr) return answer(404, "NR", "the virtual host is not compiled");
    static constexpr const char* kHow[] = {"", "is a domain of it", "matches the suffix wildcard of a domain of it",
                                           "matches the prefix wildcard of a domain of it",
                                           "matches no other, and it has the domain \"*\""};
    step("virtual host", view(vh, vh->name), true, quoted(request_.authority) + " " + kHow[static_cast<size_t>(host.how)]);
    routes(*vh);
  }

  void routes(const table::VirtualHost& vh) {
    route::PatternDbCache cache;
    route::PatternScratch prototype;
    auto loaded = route::LoadedVirtualHost::load(vh, cache, prototype, nullptr);
    if (!loaded.ok()) return answer(500, "", "the virtual host does not load: " + loaded.error());
    route::MatchScratch scratch;
    scratch.patterns = std::move(prototype);

    std::vector<std::string> names;
    for (const auto& [n, v] : request_.headers) names.push_back(lower(n));
    std::vector<http::Header> storage(request_.headers.size() + 1);
    http::RequestHead head;
    head.method = request_.method;
    head.path = request_.path;
    head.authority = request_.authority;
    head.headers = http::HeaderTable(storage.data(), static_cast<uint32_t>(storage.size()));
    for (size_t i = 0; i < names.size(); ++i)
      head.headers.push({names[i], request_.headers[i].second, http::header_id(names[i])});
    route::MatchContext context;
    context.is_tls = request_.tls;
    context.scratch = &scratch;
    const route::RouteExplanation e = route::explain_route((*loaded)->runtime(), head, context);
    const auto name_of = [&](uint32_t r) {
      const std::string_view n = view(&vh, vh.routes.at(&vh, r).name);
      return n.empty() ? "#" + std::to_string(r) : std::string(n);
    };
    if (e.left_out > 0) step("route", "...", false, std::to_string(e.left_out) + " earlier routes do not match either");
    for (const route::ConsideredRoute& c : e.considered) step("route", name_of(c.route), c.matched, c.why);
    switch (e.result.outcome) {
      case route::MatchOutcome::kRoute:
        return action(vh, vh.routes.at(&vh, e.result.route), head, context);
      case route::MatchOutcome::kNoRoute:
        return answer(404, "NR", "no route matches");
      case route::MatchOutcome::kTlsRequired: {
        std::string target(request_.authority.size() + request_.path.size() + 16, '\0');
        return answer(301, "",
                      "the virtual host requires TLS: to " + std::string(route::tls_redirect_target(head, std::span(target))));
      }
      default:
        return answer(500, "", std::string("matching failed: ") + route::to_string(e.result.outcome));
    }
  }

  void action(const table::VirtualHost& vh, const table::Route& r, const http::RequestHead& head,
              const route::MatchContext& context) {
    switch (r.action) {
      case table::ActionKind::kRedirect: {
        std::string target(route::redirect_target_bound(vh, r, head), '\0');
        return answer(r.redirect.status, "",
                      "redirect to " + std::string(route::redirect_target(vh, r, head, {context.is_tls}, std::span(target))));
      }
      case table::ActionKind::kDirectResponse:
        return answer(r.direct_status, "", "direct response with a body of " + std::to_string(r.direct_body.count) + " bytes");
      default:
        break;
    }
    if (r.has_prefix_rewrite || r.prefix_rewrite.count > 0) {
      std::string path(head.path.size() + r.prefix_rewrite.count + 1, '\0');
      step("rewrite", "path", true, quoted(head.path) + " becomes " + quoted(route::rewrite_path(vh, r, head, std::span(path))));
    }
    if (r.has_host_rewrite) step("rewrite", "host", true, "becomes " + quoted(view(&vh, r.host_rewrite)));
    clusters(r.clusters.begin(&vh), r.clusters.count, r.total_weight, &vh, r.cluster_not_found_status);
  }

  // `not_found`: status when a cluster is not there; 0 for TCP.
  void clusters(const table::WeightedCluster* all, uint32_t count, uint32_t total, const void* base, uint16_t not_found) {
    for (uint32_t i = 0; i < count; ++i) {
      const std::string name(view(base, all[i].name));
      const auto* c = object<table::Cluster>(table::Kind::kCluster, name);
      std::string why =
          count == 1 ? "the only cluster" : "weight " + std::to_string(all[i].weight) + " of " + std::to_string(total);
      if (count > 1 && all[i].weight == 0) {
        step("cluster", name, false, why);
        continue;
      }
      if (c == nullptr) {
        step("cluster", name, false, "there is no such cluster");
        if (count == 1) answer(not_found, "NC", "cluster not found");
        continue;
      }
      static constexpr const char* kPolicies[] = {"round robin", "least request", "random", "ring hash", "Maglev"};
      step("cluster", name, true, why + ", " + kPolicies[static_cast<size_t>(c->lb_policy)]);
      out_.cluster += (out_.cluster.empty() ? "" : ", ") + name;
      endpoints(name, *c, count == 1, not_found);
    }
  }

  void endpoints(const std::string& cluster, const table::Cluster& c, bool only, uint16_t status) {
    const auto* set = object<table::EndpointSet>(table::Kind::kEndpointSet, cluster);
    const uint32_t n = set == nullptr ? 0 : set->endpoints.count;
    std::vector<route::balancer::HealthCount> counts(1);
    for (uint32_t i = 0; i < n; ++i) {
      counts.resize(std::max<size_t>(counts.size(), set->priority(i) + 1));
      route::balancer::HealthCount& of = counts[set->priority(i)];
      const auto health = route::balancer::configured_health(set->endpoints.at(set, i));
      ++of.total;
      of.healthy += health == route::balancer::Health::kHealthy;
      of.degraded += health == route::balancer::Health::kDegraded;
    }
    std::vector<route::balancer::PriorityLoad> loads(counts.size());
    route::balancer::spread_load(counts, n == 0 ? 0 : set->overprovisioning_factor, c.panic_threshold, loads);
    bool any = false;
    for (uint32_t i = 0; i < n; ++i) {
      const table::Endpoint& e = set->endpoints.at(set, i);
      const auto& load = loads[set->priority(i)];
      const std::string where = counts.size() == 1 ? "" : ", priority " + std::to_string(set->priority(i));
      const bool panic = load.panic && c.fail_on_panic == 0;
      const bool in = load.panic ? panic : e.state == table::EndpointState::kHealthy;
      any = any || in || (e.state == table::EndpointState::kDegraded && !load.panic);
      const std::string why = in ? "weight " + std::to_string(e.weight) + " of " + std::to_string(set->total_weight)
                              : e.state == table::EndpointState::kDraining ? "draining: no new requests"
                              : e.state == table::EndpointState::kDegraded ? "degraded: what the healthy ones cannot take"
                              : e.state == table::EndpointState::kHealthy  ? "refused in panic"
                                                                           : "unhealthy";
      step("endpoint", endpoint_text(e.address, e.port), in, why + where + (panic ? ", panic: health does not count" : ""));
    }
    if (!any && only) answer(status == 0 ? 0 : 503, "UH", "cluster " + cluster + " has no endpoint that takes requests");
  }

  const Model& model_;
  const Compiler& compiled_;
  const ExplainRequest& request_;
  Explanation out_;
};

}  // namespace

std::string Explanation::to_text() const {
  size_t what = 0, name = 0;
  for (const ExplainStep& s : steps) {
    what = std::max(what, s.what.size());
    name = std::max(name, std::min<size_t>(s.name.size(), 40));
  }
  std::string out;
  for (const ExplainStep& s : steps) {
    out += (s.chosen ? "* " : "  ") + s.what + std::string(what - s.what.size() + 2, ' ') + s.name;
    out += std::string(name > s.name.size() ? name - s.name.size() + 2 : 2, ' ') + s.why + "\n";
  }
  return out;
}

std::string Explanation::to_json() const {
  std::string out = "{\"cluster\": " + json_quote(cluster) + ", \"status\": " + std::to_string(status) +
                    ", \"response_flag\": " + json_quote(response_flag) + ", \"steps\": [";
  for (size_t i = 0; i < steps.size(); ++i) {
    const ExplainStep& s = steps[i];
    out += std::string(i > 0 ? ", " : "") + "{\"what\": " + json_quote(s.what) + ", \"name\": " + json_quote(s.name) +
           ", \"chosen\": " + (s.chosen ? "true" : "false") + ", \"why\": " + json_quote(s.why) + "}";
  }
  return out + "]}";
}

Explanation explain(const Model& model, const Compiler& compiled, const ExplainRequest& request) {
  return Explainer(model, compiled, request).run();
}

}  // namespace millrace::control
