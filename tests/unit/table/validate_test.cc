#include "lib/table/validate.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/hash.h"
#include "lib/base/prng.h"
#include "tests/support/guard_page.h"
#include "tests/unit/table/sample_objects.h"

namespace millrace::table {
namespace {

std::string verdict(std::span<const uint8_t> bytes) {
  const base::Status s = validate_object(bytes);
  return s.ok() ? "ok" : s.error();
}
void reseal(std::vector<uint8_t>& blob) {
  ObjectHeader h;
  std::memcpy(&h, blob.data(), sizeof h);
  h.checksum = base::crc32c({blob.data() + sizeof h, blob.size() - sizeof h});
  std::memcpy(blob.data(), &h, sizeof h);
}
template <class Root>
Root& root(std::vector<uint8_t>& blob) {
  return *reinterpret_cast<Root*>(blob.data());
}
// A mutable element of an array of an object.
template <class T>
T& at(std::vector<uint8_t>& blob, const Array<T>& a, uint32_t i) {
  return const_cast<T&>(a.at(blob.data(), i));
}

TEST(ObjectWriter, WhatItWritesIsValidAndReadsBack) {
  for (auto& blob : sample::all()) {
    ASSERT_FALSE(blob.empty());
    EXPECT_EQ(verdict(blob), "ok");
    EXPECT_EQ(blob.size() % 8, 0u);
  }
  auto blob = sample::virtual_host("host-a");
  const VirtualHost& v = root<VirtualHost>(blob);
  EXPECT_EQ(v.header.id, object_id(Kind::kVirtualHost, "host-a"));
  EXPECT_EQ(view(&v, v.name), "host-a");
  ASSERT_EQ(v.routes.count, 4u);
  EXPECT_EQ(view(&v, v.routes.at(&v, 3).direct_body), "short and stout");
  EXPECT_EQ(view(&v, v.domains.at(&v, 1)), "*.example.com");
  EXPECT_EQ(view(&v, v.routes.at(&v, 1).clusters.at(&v, 0).headers.request_remove.at(&v, 1)), "x-gone-too");
  EXPECT_EQ(view(&v, v.headers_mut.request_add.at(&v, 1).value), "");
}

TEST(ObjectWriter, EqualContentGivesEqualBytes) {
  EXPECT_EQ(sample::virtual_host("a"), sample::virtual_host("a"));
  EXPECT_NE(sample::virtual_host("a"), sample::virtual_host("b"));
}

TEST(ObjectWriter, EqualStringsAreStoredOnce) {
  ObjectWriter w(Kind::kCluster, "c");
  const Str a = w.string("some string"), b = w.string("some string"), c = w.string("another"), none = w.string("");
  EXPECT_EQ(a.offset, b.offset);
  EXPECT_NE(a.offset, c.offset);
  EXPECT_EQ(none.offset, 0u);
  EXPECT_EQ(none.count, 0u);
}

TEST(ObjectWriter, Refuses) {
  const auto error = [](base::Result<std::vector<uint8_t>> r) { return r.ok() ? std::string("ok") : r.error(); };
  EXPECT_EQ(error(ObjectWriter(Kind::kCluster, "").finish(Cluster{})), "a cluster without a name cannot be published");
  EXPECT_EQ(error(ObjectWriter(Kind::kCluster, std::string(5000, 'x')).finish(Cluster{})).substr(0, 9), "cluster '");
  // 4 GiB by arithmetic, not by memory: a span that alone is too large is never read.
  ObjectWriter w(Kind::kSecret, "big");
  const std::vector<uint8_t> chunk(1 << 20);
  Secret s{};
  for (int i = 0; i < 3; ++i) s.private_key_pem = w.blob(chunk);
  EXPECT_GT(w.size(), 3u << 20);
  EXPECT_EQ(error(w.finish(s)), "ok");
  const std::span<const uint64_t> impossible(reinterpret_cast<const uint64_t*>(chunk.data()), size_t{1} << 33);
  const Array<uint64_t> a = w.array(impossible);
  EXPECT_EQ(a.count, 0u);
  EXPECT_EQ(error(w.finish(Secret{})), "secret 'big': larger than 4 GiB");
  EXPECT_EQ(error(w.finish(Secret{})), "ok") << "a writer can be used again";
}

TEST(ObjectId, DependsOnKindAndNameAndIsNeverZero) {
  EXPECT_NE(object_id(Kind::kCluster, "a"), object_id(Kind::kEndpointSet, "a"));
  EXPECT_NE(object_id(Kind::kCluster, "a"), object_id(Kind::kCluster, "b"));
  EXPECT_EQ(object_id(Kind::kCluster, "a"), object_id(Kind::kCluster, "a"));
  for (int i = 0; i < 1000; ++i) EXPECT_NE(object_id(Kind::kListener, std::to_string(i)), kNoObject);
  EXPECT_STREQ(to_string(Kind::kEndpointSet), "endpoint_set");
  EXPECT_STREQ(to_string(static_cast<Kind>(99)), "unknown");
}

TEST(Validate, HeaderTable) {
  struct Case {
    const char* what;
    std::function<void(std::vector<uint8_t>&)> change;
    std::string want;
  };
  const Case cases[] = {
      {"magic", [](auto& b) { b[0] ^= 1; }, "not a table object (magic)"},
      {"version", [](auto& b) { root<Cluster>(b).header.layout_version = 77; },
       "object of layout version 77, this program knows " + std::to_string(kLayoutVersion)},
      {"kind", [](auto& b) { root<Cluster>(b).header.kind = static_cast<Kind>(9); }, "object of unknown kind 9"},
      {"kind 0", [](auto& b) { root<Cluster>(b).header.kind = static_cast<Kind>(0); }, "object of unknown kind 0"},
      {"size", [](auto& b) { root<Cluster>(b).header.size += 8; }, "cluster: size field disagrees with the bytes there are"},
      {"cut", [](auto& b) { b.resize(b.size() - 8); }, "cluster: size field disagrees with the bytes there are"},
      {"cut to the root",
       [](auto& b) {
         b.resize(64);
         root<Cluster>(b).header.size = 64;
       },
       "cluster: shorter than its root"},
      {"cut inside the header", [](auto& b) { b.resize(16); }, "object is shorter than its header"},
      {"id", [](auto& b) { root<Cluster>(b).header.id = 0; }, "cluster: id is 0"},
      {"a byte of the content", [](auto& b) { b.back() ^= 1; }, "cluster: checksum is wrong"},
      {"a byte of the checksum", [](auto& b) { root<Cluster>(b).header.checksum ^= 1; }, "cluster: checksum is wrong"},
      {"the version stamp", [](auto& b) { root<Cluster>(b).header.version = 12345; }, "ok"},
  };
  for (const Case& c : cases) {
    auto blob = sample::cluster("cluster-name");
    c.change(blob);
    EXPECT_EQ(verdict(blob), c.want) << c.what;
  }
  EXPECT_EQ(verdict({}), "object is shorter than its header");
  auto blob = sample::cluster("x");
  std::vector<uint8_t> shifted(blob.size() + 4);
  std::memcpy(shifted.data() + 4, blob.data(), blob.size());
  EXPECT_EQ(verdict({shifted.data() + 4, blob.size()}), "object is not aligned");
}

TEST(Validate, FieldTable) {
  struct Case {
    const char* what;
    std::vector<uint8_t> blob;
    std::function<void(std::vector<uint8_t>&)> change;
    const char* want;
  };
  const auto host = sample::virtual_host("host");
  const auto listener = sample::listener("listener", {.secrets = {"s"}});
  const auto table = sample::route_table("routes", {"a", "b", "c"});
  const auto endpoints = sample::endpoint_set("c", 5);
  const auto cluster = sample::cluster("c");
  const auto route = [](std::vector<uint8_t>& b, uint32_t i) -> Route& { return at(b, root<VirtualHost>(b).routes, i); };
  const auto chain = [](std::vector<uint8_t>& b, uint32_t i) -> FilterChain& {
    return at(b, root<Listener>(b).filter_chains, i);
  };
  const Case cases[] = {
      // references
      {"past the end", host, [](auto& b) { root<VirtualHost>(b).name.offset = 0xfffffff0; },
       "virtual_host: name reaches past the end of the object"},
      {"too long", host, [](auto& b) { root<VirtualHost>(b).name.count = 0xffffffff; },
       "virtual_host: name reaches past the end of the object"},
      {"empty but elsewhere", host,
       [](auto& b) {
         root<VirtualHost>(b).name = {0xfffffff0, 0};
       },
       "virtual_host: name points past the end of the object"},
      {"into the header", host, [](auto& b) { root<VirtualHost>(b).name.offset = 8; },
       "virtual_host: name points into the object's header"},
      {"unaligned", host, [](auto& b) { root<VirtualHost>(b).routes.offset += 1; }, "virtual_host: routes is not aligned"},
      {"count times size overflows 32 bits", host, [](auto& b) { root<VirtualHost>(b).routes.count = 0x20000000; },
       "virtual_host: routes reaches past the end of the object"},
      {"nested", host, [&](auto& b) { at(b, route(b, 1).headers, 1).name.offset = 0xfffffff0; },
       "virtual_host: routes[1].headers[1].name reaches past the end of the object"},
      {"nested twice", host, [&](auto& b) { at(b, at(b, route(b, 1).clusters, 0).headers.request_add, 0).value.count = 1 << 30; },
       "virtual_host: routes[1].clusters[0].headers.request_add[0].value reaches past the end of the object"},
      {"a string of an array", host, [](auto& b) { at(b, root<VirtualHost>(b).domains, 1).offset = 1; },
       "virtual_host: domains[1] points into the object's header"},
      {"of a nested struct", host, [&](auto& b) { route(b, 2).redirect.host.offset = 0xfffffff0; },
       "virtual_host: routes[2].redirect.host reaches past the end of the object"},
      // enums and flags
      {"path kind", host, [&](auto& b) { route(b, 0).path_kind = static_cast<PathKind>(5); },
       "virtual_host: routes[0].path_kind is not one of its values"},
      {"allow_connect", listener, [&](auto& b) { chain(b, 0).hcm.http2.allow_connect = 2; },
       "listener: filter_chains[0].hcm.http2.allow_connect is neither 0 nor 1"},
      {"allow_chunked_length", listener, [&](auto& b) { chain(b, 0).hcm.allow_chunked_length = 2; },
       "listener: filter_chains[0].hcm.allow_chunked_length is neither 0 nor 1"},
      {"action", host, [&](auto& b) { route(b, 3).action = static_cast<ActionKind>(4); },
       "virtual_host: routes[3].action is not one of its values"},
      {"flag", host, [&](auto& b) { route(b, 0).case_sensitive = 2; },
       "virtual_host: routes[0].case_sensitive is neither 0 nor 1"},
      {"match kind", host, [&](auto& b) { at(b, route(b, 0).query, 0).kind = static_cast<StringMatchKind>(7); },
       "virtual_host: routes[0].query[0].kind is not one of its values"},
      {"header id", host, [&](auto& b) { at(b, route(b, 0).headers, 0).header = 64; },
       "virtual_host: routes[0].headers[0].header is not a known header"},
      {"require tls", host, [](auto& b) { root<VirtualHost>(b).require_tls = static_cast<RequireTls>(3); },
       "virtual_host: require_tls is not one of its values"},
      {"regex input", host, [](auto& b) { at(b, root<VirtualHost>(b).regex_dbs, 0).input = static_cast<RegexInput>(3); },
       "virtual_host: regex_dbs[0].input is not one of its values"},
      {"append", host,
       [](auto& b) { at(b, root<VirtualHost>(b).headers_mut.response_add, 0).append = static_cast<HeaderAppend>(4); },
       "virtual_host: headers_mut.response_add[0].append is not one of its values"},
      // indices
      {"path regex", host, [&](auto& b) { route(b, 2).path_regex = 2; },
       "virtual_host: routes[2].path_regex is an index out of range"},
      {"header regex", host, [&](auto& b) { at(b, route(b, 1).headers, 1).regex = 2; },
       "virtual_host: routes[1].headers[1].regex is an index out of range"},
      {"rank", host, [](auto& b) { at(b, at(b, root<VirtualHost>(b).regexes, 0).ranks, 0) = 4; },
       "virtual_host: regexes[0].ranks holds an index out of range"},
      {"database", host, [](auto& b) { at(b, root<VirtualHost>(b).regexes, 1).db = 2; },
       "virtual_host: regexes[1].db is an index out of range"},
      {"position", host, [](auto& b) { at(b, root<VirtualHost>(b).regexes, 1).position = 2; },
       "virtual_host: regexes holds a position beyond its database"},
      {"database id", host, [](auto& b) { at(b, at(b, root<VirtualHost>(b).regex_dbs, 1).ids, 0) = 2; },
       "virtual_host: regex_dbs[1].ids holds an index out of range"},
      {"best rank", host, [](auto& b) { at(b, root<VirtualHost>(b).regex_dbs, 0).best_rank = 4; },
       "virtual_host: regex_dbs[0].best_rank is an index out of range"},
      // content of routes
      {"no cluster", host, [&](auto& b) { route(b, 0).clusters = {}; },
       "virtual_host: routes[0].clusters does not hold exactly one cluster"},
      {"weights", host, [&](auto& b) { route(b, 1).total_weight = 99; },
       "virtual_host: routes[1].total_weight is not the sum of the clusters' weights"},
      {"no weight", host,
       [&](auto& b) {
         Route& r = route(b, 1);
         r.total_weight = 0;
         at(b, r.clusters, 0).weight = at(b, r.clusters, 1).weight = 0;
       },
       "virtual_host: routes[1].total_weight is 0: no cluster could be chosen"},
      {"redirect status", host, [&](auto& b) { route(b, 2).redirect.status = 200; },
       "virtual_host: routes[2].redirect.status is not a redirect"},
      {"direct status", host, [&](auto& b) { route(b, 3).direct_status = 600; },
       "virtual_host: routes[3].direct_status is not an HTTP status"},
      {"fraction", host, [&](auto& b) { route(b, 3).fraction_denominator = 0; },
       "virtual_host: routes[3].fraction_denominator is 0"},
      // route table
      {"virtual host index", table, [](auto& b) { at(b, root<RouteTable>(b).exact, 1).virtual_host = 3; },
       "route_table: exact[1].virtual_host is an index out of range"},
      {"default", table, [](auto& b) { root<RouteTable>(b).default_virtual_host = 3; },
       "route_table: default_virtual_host is an index out of range"},
      {"hash", table, [](auto& b) { at(b, root<RouteTable>(b).exact, 0).hash ^= 1; },
       "route_table: exact[0].hash is not that of the text"},
      {"slot", table,
       [](auto& b) {
         auto& t = root<RouteTable>(b);
         for (uint32_t i = 0; i < t.exact_slots.count; ++i)
           if (at(b, t.exact_slots, i) == 0) {
             at(b, t.exact_slots, i) = 4;
             break;
           }
       },
       "route_table: exact_slots holds an index out of range"},
      {"slots full", table,
       [](auto& b) {
         auto& t = root<RouteTable>(b);
         for (uint32_t i = 0; i < t.exact_slots.count; ++i) at(b, t.exact_slots, i) = 1;
       },
       "route_table: exact_slots is more than half full"},
      {"slots no power of two", table, [](auto& b) { root<RouteTable>(b).exact_slots.count = 7; },
       "route_table: exact_slots is no power of two"},
      {"slots missing", table, [](auto& b) { root<RouteTable>(b).exact_slots = {}; }, "route_table: exact_slots is missing"},
      // listener
      {"default chain", listener, [](auto& b) { root<Listener>(b).default_filter_chain = 2; },
       "listener: default_filter_chain is an index out of range"},
      {"chain of a name", listener, [](auto& b) { at(b, at(b, root<Listener>(b).exact_names, 0).chains, 0) = 2; },
       "listener: exact_names[0].chains holds an index out of range"},
      {"any chain", listener, [](auto& b) { at(b, root<Listener>(b).any_name_chains, 0) = 2; },
       "listener: any_name_chains holds an index out of range"},
      {"filter", listener, [&](auto& b) { chain(b, 0).filter = static_cast<NetworkFilterKind>(2); },
       "listener: filter_chains[0].filter is not one of its values"},
      {"versions", listener,
       [&](auto& b) {
         chain(b, 0).tls.min_version = TlsVersion::kTls13;
         chain(b, 0).tls.max_version = TlsVersion::kTls12;
       },
       "listener: filter_chains[0].tls.min_version is above tls.max_version"},
      {"tcp without cluster", listener, [&](auto& b) { chain(b, 1).tcp.clusters = {}; },
       "listener: filter_chains[1].tcp.clusters is empty"},
      {"port", listener, [](auto& b) { root<Listener>(b).port = 0; }, "listener: port is 0"},
      {"name hash", listener, [](auto& b) { at(b, root<Listener>(b).wildcard_names, 0).hash ^= 1; },
       "listener: wildcard_names[0].hash is not that of the text"},
      {"hcm flag", listener, [&](auto& b) { chain(b, 0).hcm.merge_slashes = 7; },
       "listener: filter_chains[0].hcm.merge_slashes is neither 0 nor 1"},
      {"hcm string", listener,
       [&](auto& b) {
         chain(b, 0).hcm.via.count = 1 << 20;
         chain(b, 0).hcm.via.offset = 64;
       },
       "listener: filter_chains[0].hcm.via reaches past the end of the object"},
      {"filter that is no tree", listener, [&](auto& b) { at(b, at(b, chain(b, 0).hcm.access_logs, 0).filter, 0).nodes = 2; },
       "listener: filter_chains[0].hcm.access_logs[0].filter is no tree of filters"},
      {"filter of no nodes", listener, [&](auto& b) { at(b, at(b, chain(b, 0).hcm.access_logs, 0).filter, 1).nodes = 0; },
       "listener: filter_chains[0].hcm.access_logs[0].filter is no tree of filters"},
      {"filter with children that may have none", listener,
       [&](auto& b) { at(b, at(b, chain(b, 0).hcm.access_logs, 0).filter, 0).kind = LogFilterKind::kStatus; },
       "listener: filter_chains[0].hcm.access_logs[0].filter is no tree of filters"},
      {"filter of a part of nothing", listener,
       [&](auto& b) { at(b, at(b, chain(b, 0).hcm.access_logs, 0).filter, 1).kind = LogFilterKind::kRuntime; },
       "listener: filter_chains[0].hcm.access_logs[0].filter[1].denominator is 0"},
      {"filter by a regular expression", listener,
       [&](auto& b) { at(b, at(b, chain(b, 0).hcm.access_logs, 0).filter, 2).header.kind = StringMatchKind::kRegex; },
       "listener: filter_chains[0].hcm.access_logs[0].filter[2].header.kind is not one of its values here"},
      {"access log", listener, [&](auto& b) { at(b, chain(b, 0).hcm.access_logs, 0).json = 2; },
       "listener: filter_chains[0].hcm.access_logs[0].json is neither 0 nor 1"},
      // cluster, endpoints
      {"policy", cluster, [](auto& b) { root<Cluster>(b).lb_policy = static_cast<LbPolicy>(5); },
       "cluster: lb_policy is not one of its values"},
      {"http", cluster, [](auto& b) { root<Cluster>(b).http = static_cast<UpstreamHttp>(4); },
       "cluster: http is not one of its values"},
      {"http2 window", cluster, [](auto& b) { root<Cluster>(b).http2.initial_stream_window_size = 0x80000000; },
       "cluster: http2 has a window above 2147483647"},
      {"http2 streams", cluster, [](auto& b) { root<Cluster>(b).http2.max_concurrent_streams = 0; },
       "cluster: http2 allows no stream"},
      {"http2 jitter", cluster, [](auto& b) { root<Cluster>(b).http2.keepalive_jitter_percent = 101; },
       "cluster: http2 has a jitter above 100 %"},
      {"congestion", cluster, [](auto& b) { root<Cluster>(b).tcp.congestion = static_cast<TcpCongestion>(4); },
       "cluster: tcp.congestion is not one of its values"},
      {"keepalive", listener, [](auto& b) { root<Listener>(b).tcp.keepalive = static_cast<TcpKeepalive>(3); },
       "listener: tcp.keepalive is not one of its values"},
      {"segment", listener, [](auto& b) { root<Listener>(b).tcp.max_segment = 87; }, "listener: tcp.max_segment is too small"},
      {"fast open", cluster, [](auto& b) { root<Cluster>(b).tcp.fast_open_queue = 1; },
       "cluster: tcp.fast_open_queue is a listener's"},
      {"kind of checks", cluster, [](auto& b) { root<Cluster>(b).health_check.kind = static_cast<HealthCheckKind>(4); },
       "cluster: health_check.kind is not one of its values"},
      {"no timeout", cluster, [](auto& b) { root<Cluster>(b).health_check.timeout_ms = 0; },
       "cluster: health_check.timeout_ms is 0"},
      {"no interval", cluster, [](auto& b) { root<Cluster>(b).health_check.unhealthy_edge_interval_ms = 0; },
       "cluster: health_check.interval_ms is 0 (or one of the other intervals is)"},
      {"expected status", cluster, [](auto& b) { at(b, root<Cluster>(b).health_check.expected, 0).to = 200; },
       "cluster: health_check.expected holds a range that is none of statuses"},
      {"retriable status", cluster, [](auto& b) { at(b, root<Cluster>(b).health_check.retriable, 1).to = 601; },
       "cluster: health_check.retriable holds a range that is none of statuses"},
      {"payload", cluster, [](auto& b) { at(b, root<Cluster>(b).health_check.receive, 1).bytes.count = 0; },
       "cluster: health_check.receive[1].bytes is empty or longer than its limit"},
      {"health port", endpoints, [](auto& b) { at(b, root<EndpointSet>(b).endpoints, 0).health_port = 65536; },
       "endpoint_set: endpoints[0].health_port is no port"},
      {"health check off", endpoints, [](auto& b) { at(b, root<EndpointSet>(b).endpoints, 0).no_health_check = 2; },
       "endpoint_set: endpoints[0].no_health_check is neither 0 nor 1"},
      {"state", endpoints, [](auto& b) { at(b, root<EndpointSet>(b).endpoints, 4).state = static_cast<EndpointState>(4); },
       "endpoint_set: endpoints[4].state is not one of its values"},
      {"endpoint port", endpoints, [](auto& b) { at(b, root<EndpointSet>(b).endpoints, 0).port = 0; },
       "endpoint_set: endpoints[0].port is 0"},
      {"endpoint weight", endpoints, [](auto& b) { at(b, root<EndpointSet>(b).endpoints, 0).weight = 0; },
       "endpoint_set: endpoints[0].weight is 0"},
      {"healthy", endpoints, [](auto& b) { root<EndpointSet>(b).healthy = 5; },
       "endpoint_set: healthy is not the number of healthy endpoints"},
      {"total", endpoints, [](auto& b) { root<EndpointSet>(b).total_weight += 1; },
       "endpoint_set: total_weight is not the sum of the healthy endpoints' weights"},
  };
  for (const Case& c : cases) {
    auto blob = c.blob;
    ASSERT_EQ(verdict(blob), "ok") << c.what;
    c.change(blob);
    reseal(blob);
    EXPECT_EQ(verdict(blob), c.want) << c.what;
  }
}

// Arrays that overlap make an object cheap to write and dear to read: refused, and quickly.
TEST(Validate, OverlappingArraysDoNotMultiply) {
  ObjectWriter w(Kind::kVirtualHost, "overlap");
  VirtualHost o{};
  o.name = w.string("overlap");
  std::vector<Str> empties(20'000);
  const Array<Str> shared = w.array(empties);
  std::vector<Route> routes(2000);
  for (Route& r : routes) {
    r.action = ActionKind::kDirectResponse;
    r.direct_status = 200;
    r.headers_mut.request_remove = shared;
  }
  o.routes = w.array(routes);
  auto made = w.finish(o);
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(verdict(*made).find("virtual_host: routes["), 0u);
  EXPECT_NE(verdict(*made).find("makes the object larger to read than its size allows"), std::string::npos) << verdict(*made);
}

// Every single byte of every object changed, with a right checksum: nothing outside is read (a guard page behind), whatever the
// verdict.
TEST(Validate, EveryByteChangedStaysInside) {
  for (const auto& original : sample::all()) {
    support::GuardPage guard(original.size());
    uint64_t refused = 0;
    for (size_t i = sizeof(ObjectHeader); i < original.size(); ++i) {
      for (const uint8_t value : {uint8_t{0xff}, uint8_t(original[i] ^ 0x80), uint8_t(original[i] + 1)}) {
        auto blob = original;
        blob[i] = value;
        const auto placed = guard.place(blob);
        refused += !validate_object(placed, /*verify_checksum=*/false).ok();
        EXPECT_EQ(validate_object(placed).ok(), blob == original) << "the checksum misses a change at " << i;
      }
    }
    EXPECT_GT(refused, 10u);
  }
}

TEST(Validate, RandomDamage) {
  const uint64_t seed = std::getenv("SEED") != nullptr ? std::strtoull(std::getenv("SEED"), nullptr, 10) : 0x7ab1e;
  SCOPED_TRACE("SEED=" + std::to_string(seed));
  base::Prng random(seed);
  const auto samples = sample::all();
  for (int round = 0; round < 50'000; ++round) {
    auto blob = samples[random.below(samples.size())];
    for (uint64_t n = 1 + random.below(8); n > 0; --n) {
      const size_t at = sizeof(ObjectHeader) + random.below((blob.size() - sizeof(ObjectHeader)) / 4) * 4;
      const uint32_t words[] = {static_cast<uint32_t>(random.next()),
                                0,
                                1,
                                0xffffffff,
                                static_cast<uint32_t>(blob.size()),
                                static_cast<uint32_t>(random.below(blob.size()))};
      std::memcpy(blob.data() + at, &words[random.below(6)], 4);
    }
    support::GuardPage guard(blob.size());
    (void)validate_object(guard.place(blob), false);
  }
}

// ---- snapshots ----------------------------------------------------------------------------------------------------------------

std::vector<ObjectRef> some_refs() {
  std::vector<ObjectRef> refs;
  for (int i = 0; i < 4; ++i) {
    ObjectRef r{};
    r.kind = i % 2 == 0 ? Kind::kListener : Kind::kCluster;
    r.id = 100 - static_cast<uint64_t>(i);
    r.arena_offset = 4096u + 8192u * static_cast<uint64_t>(i);
    r.size = 4096;
    r.version = 1;
    refs.push_back(r);
  }
  return refs;
}

TEST(Snapshot, WrittenSortedAndValid) {
  const auto bytes = write_snapshot(7, 0x1234, some_refs());
  EXPECT_EQ(bytes.size(), snapshot_size(4));
  EXPECT_TRUE(validate_snapshot(bytes, 1 << 20).ok());
  const auto* refs = reinterpret_cast<const ObjectRef*>(bytes.data() + sizeof(SnapshotHeader));
  EXPECT_EQ(refs[0].id, 98u);
  EXPECT_EQ(refs[1].id, 100u);
  EXPECT_EQ(refs[2].kind, Kind::kCluster);
  EXPECT_TRUE(validate_snapshot(write_snapshot(1, 1, {}), 1 << 20).ok());
}

TEST(Snapshot, RefusalTable) {
  struct Case {
    const char* what;
    std::function<void(SnapshotHeader&, ObjectRef*)> change;
    bool reseal;
    std::string want;
  };
  const Case cases[] = {
      {"magic", [](auto& h, auto*) { h.magic ^= 1; }, true, "not a snapshot root (magic)"},
      {"version", [](auto& h, auto*) { h.layout_version = 77; }, true,
       "snapshot of layout version 77, this program knows " + std::to_string(kLayoutVersion)},
      {"count", [](auto& h, auto*) { h.count = 5; }, true, "snapshot root reaches past the end of the arena"},
      {"huge count", [](auto& h, auto*) { h.count = UINT32_MAX; }, false, "snapshot root reaches past the end of the arena"},
      {"checksum", [](auto&, auto* r) { r[0].version ^= 1; }, false, "snapshot root: checksum is wrong"},
      {"epoch", [](auto& h, auto*) { h.epoch = 0; }, true, "snapshot root: epoch is 0"},
      {"kind", [](auto&, auto* r) { r[0].kind = static_cast<Kind>(7); }, true, "snapshot reference 0: unknown kind"},
      {"id", [](auto&, auto* r) { r[0].id = 0; }, true, "snapshot reference 0: id is 0"},
      {"size", [](auto&, auto* r) { r[1].size = 8; }, true, "snapshot reference 1: impossible size"},
      {"odd size", [](auto&, auto* r) { r[1].size += 4; }, true, "snapshot reference 1: impossible size"},
      {"offset 0", [](auto&, auto* r) { r[2].arena_offset = 0; }, true, "snapshot reference 2: offset is 0 or not aligned"},
      {"unaligned", [](auto&, auto* r) { r[2].arena_offset += 4; }, true, "snapshot reference 2: offset is 0 or not aligned"},
      {"past the end", [](auto&, auto* r) { r[2].arena_offset = (1 << 20) - 2048; }, true,
       "snapshot reference 2: reaches past the end of the arena"},
      {"far past the end", [](auto&, auto* r) { r[2].arena_offset = UINT64_MAX - 7; }, true,
       "snapshot reference 2: reaches past the end of the arena"},
      {"twice", [](auto&, auto* r) { r[1] = r[0]; }, true, "snapshot reference 1: not in ascending order"},
      {"order", [](auto&, auto* r) { std::swap(r[0], r[1]); }, true, "snapshot reference 1: not in ascending order"},
  };
  for (const Case& c : cases) {
    auto bytes = write_snapshot(7, 1, some_refs());
    auto& h = *reinterpret_cast<SnapshotHeader*>(bytes.data());
    auto* refs = reinterpret_cast<ObjectRef*>(bytes.data() + sizeof h);
    c.change(h, refs);
    if (c.reseal) h.checksum = base::crc32c({bytes.data() + sizeof h, bytes.size() - sizeof h});
    const auto s = validate_snapshot(bytes, 1 << 20);
    EXPECT_EQ(s.ok() ? "ok" : s.error(), c.want) << c.what;
  }
  EXPECT_FALSE(validate_snapshot({}, 1 << 20).ok());
}

// MILLRACE_WRITE_CORPUS=folder writes the seed corpus of tests/fuzz/table_object.
TEST(Corpus, Write) {
  const char* folder = std::getenv("MILLRACE_WRITE_CORPUS");
  if (folder == nullptr) GTEST_SKIP() << "MILLRACE_WRITE_CORPUS is not set";
  int i = 0;
  const auto write = [&](const std::string& name, const std::vector<uint8_t>& blob) {
    std::ofstream(std::string(folder) + "/" + name, std::ios::binary)
        .write(reinterpret_cast<const char*>(blob.data()), static_cast<std::streamsize>(blob.size()));
  };
  for (const auto& blob : sample::all()) write("sample-" + std::to_string(i++), blob);
  write("empty-endpoint-set", sample::endpoint_set("e", 0));
  write("one-route", sample::virtual_host("h", 1));
  write("empty-route-table", sample::route_table("t", {}));
  write("snapshot", write_snapshot(7, 1, some_refs()));
}

}  // namespace
}  // namespace millrace::table
