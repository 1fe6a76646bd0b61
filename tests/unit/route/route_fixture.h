// Short ways to write tables and requests in tests.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "lib/http/message.h"
#include "lib/route/compiler.h"
#include "lib/route/index_format.h"
#include "lib/route/matcher.h"
#include "lib/route/runtime.h"
#include "lib/table/validate.h"

namespace millrace::test {

// A request that owns its bytes.
class Request {
 public:
  Request(std::string path, std::vector<std::pair<std::string, std::string>> headers = {}, std::string method = "GET",
          std::string authority = "example.com")
      : path_(std::move(path)),
        method_(std::move(method)),
        authority_(std::move(authority)),
        headers_(std::move(headers)),
        storage_(headers_.size() + 1) {
    head_.method = method_;
    head_.path = path_;
    head_.authority = authority_;
    head_.headers = http::HeaderTable(storage_.data(), static_cast<uint32_t>(storage_.size()));
    for (const auto& [name, value] : headers_) head_.headers.push({name, value, http::header_id(name)});
  }
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;
  http::RequestHead& head() { return head_; }
  const http::RequestHead& head() const { return head_; }

 private:
  std::string path_, method_, authority_;
  std::vector<std::pair<std::string, std::string>> headers_;
  std::vector<http::Header> storage_;
  http::RequestHead head_;
};

inline route::RouteSpec to_cluster(table::PathKind kind, std::string path, std::string cluster = "c") {
  route::RouteSpec r;
  r.path_kind = kind;
  r.path = std::move(path);
  r.clusters.push_back({std::move(cluster), 0, {}});
  return r;
}
inline route::RouteSpec prefix(std::string p) { return to_cluster(table::PathKind::kPrefix, std::move(p)); }
inline route::RouteSpec exact(std::string p) { return to_cluster(table::PathKind::kExact, std::move(p)); }
inline route::RouteSpec separated(std::string p) { return to_cluster(table::PathKind::kSeparatedPrefix, std::move(p)); }
inline route::RouteSpec regex(std::string p) { return to_cluster(table::PathKind::kRegex, std::move(p)); }
inline route::RouteSpec folded(route::RouteSpec r) {
  r.case_sensitive = false;
  return r;
}
inline route::MatcherSpec matcher(std::string name, table::StringMatchKind kind, std::string value = "") {
  route::MatcherSpec m;
  m.name = std::move(name);
  m.kind = kind;
  m.value = std::move(value);
  return m;
}
inline route::RouteSpec with_header(route::RouteSpec r, route::MatcherSpec m) {
  r.headers.push_back(std::move(m));
  return r;
}
inline route::RouteSpec with_query(route::RouteSpec r, route::MatcherSpec m) {
  r.query.push_back(std::move(m));
  return r;
}
inline route::VirtualHostSpec host_of(std::vector<route::RouteSpec> routes) {
  route::VirtualHostSpec h;
  h.name = "h";
  h.domains = {"*"};
  h.routes = std::move(routes);
  return h;
}

// A compiled and loaded virtual host with a worker's scratch: compiler, both validators, loader, matcher.
class Loaded {
 public:
  explicit Loaded(const route::VirtualHostSpec& spec, route::RouteCompiler* compiler = nullptr) {
    route::RouteCompiler own;
    object_ = (compiler != nullptr ? *compiler : own).compile_virtual_host(spec, "t/" + spec.name);
    for (const auto& e : object_.errors) ADD_FAILURE() << e.path << ": " << e.message;
    if (object_.ok()) load();
  }
  void load() {
    const base::Status valid = table::validate_object({object_.bytes(), object_.size_bytes});
    if (!valid.ok()) ADD_FAILURE() << valid.error();
    route::PatternScratch prototype;
    auto loaded = route::LoadedVirtualHost::load(object_.as<table::VirtualHost>(), cache_, prototype, nullptr);
    if (!loaded.ok()) {
      ADD_FAILURE() << loaded.error();
      return;
    }
    host_ = std::move(loaded.value());
    auto clone = prototype.clone();
    if (clone.ok()) scratch_.patterns = std::move(clone.value());
  }
  bool ok() const { return host_ != nullptr; }
  const table::VirtualHost& object() const { return object_.as<table::VirtualHost>(); }
  const route::VirtualHostRuntime& runtime() const { return host_->runtime(); }
  route::MatchScratch& scratch() { return scratch_; }
  const route::CompiledObject& compiled() const { return object_; }
  route::MatchContext context(uint64_t random = 0, bool tls = false) { return {random, tls, &scratch_}; }

  route::MatchResult match(const http::RequestHead& head, uint64_t random = 0, bool tls = false) {
    const route::MatchResult m = route::match_route(host_->runtime(), head, context(random, tls));
    // With what was done ahead the answer is the same.
    route::MatchAhead ahead;
    ahead.fetch_slots(host_->runtime(), head.path);
    ahead.fetch_nodes();
    const route::MatchResult same = route::match_route(host_->runtime(), head, context(random, tls), &ahead);
    EXPECT_EQ(m.outcome, same.outcome) << head.path;
    EXPECT_EQ(m.route, same.route) << head.path;
    EXPECT_EQ(m.action, same.action) << head.path;
    if (m.action != nullptr) {
      EXPECT_TRUE(says_the_same(*m.action, object().routes.at(&object(), m.route))) << head.path;
    }
    return m;
  }
  bool says_the_same(const route::RouteAction& a, const table::Route& r) const {
    const table::WeightedCluster& c = r.clusters.at(&object(), 0);
    return r.action == table::ActionKind::kCluster && a.cluster == c.cluster && a.timeout_ms == r.timeout_ms &&
           a.idle_timeout_ms == r.idle_timeout_ms && a.cluster_not_found_status == r.cluster_not_found_status;
  }
  // The index of the route, -1 for none, -2 for TLS required, -3 for anything else.
  int operator()(const Request& r, uint64_t random = 0, bool tls = false) {
    const route::MatchResult m = match(r.head(), random, tls);
    switch (m.outcome) {
      case route::MatchOutcome::kRoute:
        return static_cast<int>(m.route);
      case route::MatchOutcome::kNoRoute:
        return -1;
      case route::MatchOutcome::kTlsRequired:
        return -2;
      default:
        return -3;
    }
  }

 private:
  route::CompiledObject object_;
  route::PatternDbCache cache_;
  std::unique_ptr<route::LoadedVirtualHost> host_;
  route::MatchScratch scratch_;
};

}  // namespace millrace::test
