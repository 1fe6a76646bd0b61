// What the parts of translate() share. Internal to control/manifests.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "control/manifests/translate.h"
#include "control/model.h"

namespace millrace::control::manifests {

// Which of two routes of one host is looked at first: the Gateway API's order ("Matches define conditions…", HTTPRouteRule), and
// Kubernetes's for Ingress, which agrees with it.
struct Precedence {
  bool last = false;  // an Ingress's default backend
  int path = 0;       // 0 exact, 1 regular expression, 2 prefix
  int length = 0;     // of the path; longer first. Of a gRPC service
  int method = 0;     // 1: has one (of gRPC: its length); more first
  int headers = 0, query = 0;
  std::string created, name;  // of the object: "" is younger than every time
  int rule = 0, match = 0;

  friend bool operator<(const Precedence& a, const Precedence& b) {
    const auto order = [](const Precedence& p) {
      using Text = const std::string&;
      return std::tuple<bool, int, int, int, int, int, bool, Text, Text, int, int>(
          p.last, p.path, -p.length, -p.method, -p.headers, -p.query, p.created.empty(), p.created, p.name, p.rule, p.match);
    };
    return order(a) < order(b);
  }
};
struct Entry {
  Precedence order;
  std::vector<api::Route> routes;  // one after another
  bool invalid_backend = false;    // names a cluster that is not there, on purpose
};

struct Certificate {
  std::string chain_pem, key_pem;
};

// A Gateway's listener, or one that Ingresses need.
struct PortListener {
  std::shared_ptr<const Object> gateway;  // null: of Ingresses
  std::string name, hostname;             // hostname: "" any
  std::string protocol;                   // HTTP, HTTPS
  int port = 0;
  std::vector<std::string> addresses;
  std::vector<std::string> kinds;  // of routes
  std::set<std::string> namespaces;
  bool all_namespaces = false;
  bool good = true;  // to be served
  std::vector<Certificate> certificates;
  size_t status = 0;  // index in Builder::status
  std::set<std::string> attached;
  std::map<std::string, std::vector<Entry>> hosts;           // by hostname; "*": any
  std::map<std::string, std::string> host_kind, host_owner;  // of the routes of a hostname: which kind, and whose
};

// What became of a reference to another object; reason "": found.
struct Found {
  std::string reason, message;
  bool ok() const { return reason.empty(); }
};

class Builder {
 public:
  Builder(const Objects& objects, int64_t now) : objects_(objects), now_(now) {}
  Translation run();

 private:
  // gateways.cc
  void classes();
  void gateways();
  void gateway(const std::shared_ptr<const Object>& g);
  void listener(const std::shared_ptr<const Object>& g, const Value& spec, const std::vector<std::string>& addresses);
  void conflicts();
  void finish_gateways();
  Found certificate(const Value& ref, const Object& from, Certificate* out) const;
  Found secret(const std::string& ns, const std::string& name, Certificate* out) const;
  bool ours(const std::string& class_kind, const std::string& class_name, const char* field, std::string* why) const;
  std::set<std::string> selected(const Value& selector) const;
  // routes.cc
  void routes();
  void route(const std::shared_ptr<const Object>& r);
  std::vector<Entry> entries_of(const Object& r, const PortListener& l, std::string* unsupported, Found* refs);
  std::vector<PortListener*> parents(const Object& r, const Value& ref, Condition* accepted);
  void attach(const Object& r, PortListener& l, const std::vector<std::string>& hosts, const std::vector<Entry>& entries);
  // ingress.cc
  void ingresses();
  void ingress(const std::shared_ptr<const Object>& i);
  Entry ingress_entry(const Object& i, const std::string& host, const Value* path, const Value& backend, int rule, int index,
                      std::string* why, Found* refs);
  PortListener* ingress_listener(const std::string& protocol, int port, const std::string& hostname, std::string* why);
  // backends.cc
  Found backend(const Value& ref, const Object& from, bool grpc, std::string* cluster);
  Found service(const std::string& ns, const std::string& name, const std::string& port_name, int64_t port, bool grpc,
                std::string* cluster);
  bool granted(const Object& from, const std::string& group, const std::string& kind, const std::string& ns,
               const std::string& name) const;
  void fill_endpoints(const Object& service, const Value& port, api::ClusterLoadAssignment* out) const;
  void service_status();
  // output.cc
  void output();
  api::Listener port_listener(const std::string& address, int port, const std::vector<const PortListener*>& of) const;

  std::shared_ptr<const Object> find(const std::string& kind, const std::string& ns, const std::string& name) const;
  // In order of their names.
  std::vector<std::shared_ptr<const Object>> all(const std::string& kind) const;
  size_t add_status(const std::string& key, std::string about = "") {
    out_.status.push_back({key, std::move(about), {}});
    return out_.status.size() - 1;
  }
  void condition(size_t status, std::string type, bool holds, std::string reason, std::string message = "") {
    out_.status[status].conditions.push_back({std::move(type), holds ? "True" : "False", std::move(reason), std::move(message)});
  }

  const Objects& objects_;
  const int64_t now_;
  std::vector<std::unique_ptr<PortListener>> listeners_;
  std::map<std::string, std::string> gateway_problem_;  // by key: why it is not served
  std::map<std::string, api::Cluster> clusters_;
  Translation out_;
};

inline constexpr const char* kInvalidBackend = "k8s/invalid-backend";

// Of two hostnames ("" any, "*.example.com", exact) what both match; nullopt: nothing.
std::optional<std::string> intersection(const std::string& a, const std::string& b);

// http_filters.cc
// Where requests of a rule go: a cluster with its share; cluster "" is a backend that is not there.
struct Share {
  std::string cluster;
  uint32_t weight = 1;
  Value filters;
};
struct Action {
  Value filters;
  Value timeouts;
  std::vector<Share> shares;
  bool grpc = false;
  int listener_port = 0;
  bool listener_tls = false;
};
// `match` (a route's) with the action: one route, or two where a prefix is taken away. `prefix`: the path prefix of the match
// without its last slash, nullopt when it matches otherwise; `exact`: it is an exact path. *why: not "" when something is not
// supported.
std::vector<api::Route> make_routes(const api::RouteMatch& match, const std::optional<std::string>& prefix, bool exact,
                                    const Action& action, std::string* why);
// Gateway API durations (GEP-2257): "10s", "1h30m", "500ms". nullopt: not one.
std::optional<int64_t> duration_ms(const std::string& text);
// "spec.x (line 12), spec.y (line 13)"; "" for none.
std::string unsupported_text(const Object& object);

}  // namespace millrace::control::manifests
