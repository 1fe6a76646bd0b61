// One object of each kind with every kind of reference in it, for the tests of writer, validator and fuzz corpus.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/hash.h"
#include "lib/table/object_writer.h"
#include "lib/table/objects.h"

namespace millrace::table::sample {

inline std::vector<uint8_t> must(base::Result<std::vector<uint8_t>> r) { return r.ok() ? std::move(*r) : std::vector<uint8_t>(); }

inline std::vector<uint8_t> cluster(const std::string& name, uint32_t connect_timeout_ms = 5000, bool checked = true) {
  ObjectWriter w(Kind::kCluster, name);
  Cluster c{};
  c.name = w.string(name);
  c.endpoint_set = object_id(Kind::kEndpointSet, name);
  c.connect_timeout_ms = connect_timeout_ms;
  if (!checked) return must(w.finish(c));
  HealthCheck& h = c.health_check;
  h.kind = HealthCheckKind::kHttp;
  h.host = w.string("healthy.example");
  h.front = w.blob(base::as_bytes(std::string_view("GET / HTTP/1.1\r\nhost: ")));
  h.back = w.blob(base::as_bytes(std::string_view("\r\n\r\n")));
  std::vector<HealthPayload> receive(2);
  receive[0].bytes = w.blob(base::as_bytes(std::string_view("ok")));
  receive[1].bytes = w.blob(base::as_bytes(std::string_view("ready")));
  h.receive = w.array(receive);
  h.expected = w.array(std::vector<StatusRange>{{200, 300}});
  h.retriable = w.array(std::vector<StatusRange>{{500, 501}, {503, 504}});
  return must(w.finish(c));
}

inline std::vector<uint8_t> endpoint_set(const std::string& name, uint32_t endpoints, uint16_t first_port = 8000) {
  ObjectWriter w(Kind::kEndpointSet, name);
  EndpointSet s{};
  s.name = w.string(name);
  std::vector<Endpoint> list;
  for (uint32_t i = 0; i < endpoints; ++i) {
    Endpoint e{};
    e.address = base::IpAddress::v4(0x0a000001 + i);
    e.port = static_cast<uint16_t>(first_port + i);
    e.hostname = w.string("endpoint-" + std::to_string(i) + "." + name);
    e.state = i % 3 == 2 ? EndpointState::kDraining : EndpointState::kHealthy;
    e.weight = 1 + i % 4;
    if (i == 1) e.health_host = w.string("other.example"), e.health_port = 81;
    if (e.state == EndpointState::kHealthy) {
      s.total_weight += e.weight;
      ++s.healthy;
    }
    list.push_back(e);
  }
  s.endpoints = w.array(list);
  return must(w.finish(s));
}

inline std::vector<uint8_t> secret(const std::string& name, const std::string& chain = "chain", const std::string& key = "key") {
  ObjectWriter w(Kind::kSecret, name);
  Secret s{};
  s.name = w.string(name);
  s.certificate_chain_pem = w.blob(base::as_bytes(chain));
  s.private_key_pem = w.blob(base::as_bytes(key));
  return must(w.finish(s));
}

inline HeaderMutations mutations(ObjectWriter& w) {
  HeaderMutations m;
  std::vector<HeaderOption> add(2);
  add[0].name = w.string("x-one");
  add[0].value = w.string("1");
  add[1].name = w.string("x-two");
  add[1].append = HeaderAppend::kOverwriteIfExists;
  m.request_add = w.array(add);
  m.response_add = w.array(std::span(add).first(1));
  const std::vector<Str> remove{w.string("x-gone"), w.string("x-gone-too")};
  m.request_remove = w.array(remove);
  m.response_remove = w.array(remove);
  return m;
}

inline std::vector<uint8_t> virtual_host(const std::string& name, uint32_t routes = 4) {
  ObjectWriter w(Kind::kVirtualHost, name);
  VirtualHost v{};
  v.name = w.string(name);
  const std::vector<Str> domains{w.string("example.com"), w.string("*.example.com")};
  v.domains = w.array(domains);
  std::vector<Route> list;
  for (uint32_t i = 0; i < routes; ++i) {
    Route r{};
    r.name = w.string("route-" + std::to_string(i));
    r.path = w.string("/path/" + std::to_string(i));
    std::vector<ValueMatch> headers(2);
    headers[0].name = w.string("x-env");
    headers[0].value = w.string("prod");
    headers[0].kind = StringMatchKind::kExact;
    headers[1].name = w.string("x-user");
    headers[1].kind = StringMatchKind::kRegex;
    headers[1].regex = 1;
    r.headers = w.array(headers);
    r.query = w.array(std::span(headers).first(1));
    switch (i % 4) {
      case 0: {
        std::vector<WeightedCluster> one(1);
        one[0].name = w.string("cluster-a");
        one[0].cluster = object_id(Kind::kCluster, "cluster-a");
        r.clusters = w.array(one);
        break;
      }
      case 1: {
        r.action = ActionKind::kWeightedClusters;
        std::vector<WeightedCluster> two(2);
        two[0].name = w.string("cluster-a");
        two[0].weight = 30;
        two[0].headers = mutations(w);
        two[1].name = w.string("cluster-b");
        two[1].weight = 70;
        r.total_weight = 100;
        r.clusters = w.array(two);
        break;
      }
      case 2:
        r.action = ActionKind::kRedirect;
        r.redirect.host = w.string("other.example.com");
        r.redirect.scheme = w.string("https");
        r.path_kind = PathKind::kRegex;
        r.path = w.string("/v[0-9]+/.*");
        r.path_regex = 0;
        break;
      case 3:
        r.action = ActionKind::kDirectResponse;
        r.direct_status = 418;
        r.direct_body = w.string("short and stout");
        break;
    }
    r.headers_mut = mutations(w);
    list.push_back(r);
  }
  std::vector<Regex> regexes(2);
  const std::vector<uint32_t> ranks{std::min(2u, routes - 1)};
  regexes[0].expression = w.string("/v[0-9]+/.*");
  regexes[0].ranks = w.array(ranks);
  regexes[1].expression = w.string("[a-z]+");
  regexes[1].db = 1;
  std::vector<RegexDb> dbs(2);
  const std::vector<uint32_t> zero{0}, one_and_none{1, UINT32_MAX};
  const std::vector<uint8_t> fake(100, 0xdb);
  dbs[0].serialized = w.blob(fake);
  dbs[0].ids = w.array(zero);
  dbs[0].literal_prefix = w.string("/v");
  dbs[1].serialized = w.blob(fake);
  dbs[1].ids = w.array(one_and_none);
  dbs[1].name = w.string("x-user");
  dbs[1].input = RegexInput::kHeader;
  v.routes = w.array(list);
  v.regexes = w.array(regexes);
  v.regex_dbs = w.array(dbs);
  v.index = w.blob(std::vector<uint8_t>(64, 1));
  v.headers_mut = mutations(w);
  return must(w.finish(v));
}

// A hash table of index+1 as the readers expect it.
inline std::vector<uint32_t> slots_of(const std::vector<DomainEntry>& entries) {
  size_t n = 1;
  while (n < entries.size() * 2) n *= 2;
  std::vector<uint32_t> slots(n);
  for (size_t i = 0; i < entries.size(); ++i) {
    size_t at = entries[i].hash & (n - 1);
    while (slots[at] != 0) at = (at + 1) & (n - 1);
    slots[at] = static_cast<uint32_t>(i + 1);
  }
  return slots;
}

inline std::vector<uint8_t> route_table(const std::string& name, const std::vector<std::string>& virtual_hosts) {
  ObjectWriter w(Kind::kRouteTable, name);
  RouteTable t{};
  t.name = w.string(name);
  std::vector<ObjectId> ids;
  std::vector<DomainEntry> exact;
  for (const std::string& v : virtual_hosts) {
    DomainEntry d{};
    d.text = w.string(v + ".example.com");
    d.hash = base::hash64(v + ".example.com");
    d.virtual_host = static_cast<uint32_t>(ids.size());
    exact.push_back(d);
    ids.push_back(object_id(Kind::kVirtualHost, v));
  }
  std::sort(exact.begin(), exact.end(), [](const DomainEntry& a, const DomainEntry& b) { return a.hash < b.hash; });
  t.virtual_hosts = w.array(ids);
  t.exact = w.array(exact);
  t.exact_slots = w.array(slots_of(exact));
  if (!ids.empty()) t.default_virtual_host = 0;
  return must(w.finish(t));
}

struct ListenerOptions {
  uint16_t port = 10000;
  std::string route_table = "routes";
  std::vector<std::string> secrets;  // non-empty: the chain terminates TLS
  std::string access_log_format;
  std::string stat_prefix = "ingress";
};
inline std::vector<uint8_t> listener(const std::string& name, const ListenerOptions& o = {}) {
  ObjectWriter w(Kind::kListener, name);
  Listener l{};
  l.name = w.string(name);
  l.address = base::IpAddress::v4(0x0a000001);
  l.port = o.port;
  std::vector<FilterChain> chains(2);
  std::vector<AccessLog> logs(1);
  logs[0].path = w.string("/dev/stdout");
  std::vector<LogFilter> filter(3);
  filter[0].kind = LogFilterKind::kAnd;
  filter[0].nodes = 3;
  filter[1].kind = LogFilterKind::kStatus;
  filter[2].kind = LogFilterKind::kHeader;
  filter[2].header.name = w.string("x-log");
  logs[0].filter = w.array(filter);
  logs[0].format = w.string(o.access_log_format);
  const std::vector<Str> names{w.string("www.example.com"), w.string("*.example.com")};
  chains[0].name = w.string("chain-0");
  chains[0].server_names = w.array(names);
  chains[0].hcm.stat_prefix = w.string(o.stat_prefix);
  chains[0].hcm.route_table = object_id(Kind::kRouteTable, o.route_table);
  chains[0].hcm.route_table_name = w.string(o.route_table);
  chains[0].hcm.access_logs = w.array(logs);
  chains[0].hcm.server_name = w.string("envoy");
  if (!o.secrets.empty()) {
    chains[0].has_tls = 1;
    std::vector<ObjectId> ids;
    for (const std::string& s : o.secrets) ids.push_back(object_id(Kind::kSecret, s));
    chains[0].tls.secrets = w.array(ids);
    const std::vector<Str> alpn{w.string("http/1.1")};
    chains[0].tls.alpn = w.array(alpn);
  }
  chains[1].name = w.string("chain-1");
  chains[1].filter = NetworkFilterKind::kTcpProxy;
  std::vector<WeightedCluster> clusters(1);
  clusters[0].name = w.string("cluster-a");
  clusters[0].cluster = object_id(Kind::kCluster, "cluster-a");
  chains[1].tcp.stat_prefix = w.string("passthrough");
  chains[1].tcp.clusters = w.array(clusters);
  const std::vector<uint32_t> zero{0}, one{1};
  std::vector<ServerNameEntry> exact(1), wildcard(1);
  exact[0].text = w.string("www.example.com");
  exact[0].hash = base::hash64("www.example.com");
  exact[0].chains = w.array(zero);
  wildcard[0].text = w.string(".example.com");
  wildcard[0].hash = base::hash64(".example.com");
  wildcard[0].chains = w.array(zero);
  l.filter_chains = w.array(chains);
  l.exact_names = w.array(exact);
  l.wildcard_names = w.array(wildcard);
  l.any_name_chains = w.array(one);
  l.default_filter_chain = 1;
  l.access_logs = w.array(logs);
  return must(w.finish(l));
}

// One of each kind.
inline std::vector<std::vector<uint8_t>> all() {
  return {listener("listener-a", {.secrets = {"secret-a"}}),
          route_table("routes", {"host-a", "host-b", "host-c"}),
          virtual_host("host-a"),
          cluster("cluster-a"),
          endpoint_set("cluster-a", 5),
          secret("secret-a")};
}

}  // namespace millrace::table::sample
