// Host names of clusters (type STRICT_DNS, LOGICAL_DNS): which questions a model asks, when each is asked again, and the model
// with the answers put in the names' place. Sans-I/O: time and answers in, questions out; one thread at a time.
//
//   model ─ follow() ─▶ questions ─ due(now) ─▶ (resolver) ─ answered() ─▶ answers ─ resolved(model) ─▶ model of addresses ─▶
//   compiler
//
// Semantics are Envoy's: a failure keeps what is there and is tried again after dns_failure_refresh_rate; an answer without
// addresses empties a STRICT_DNS cluster and leaves a LOGICAL_DNS one as it is; STRICT_DNS takes every address once, LOGICAL_DNS
// the first.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "control/model.h"
#include "lib/api/envoy.extensions.network.dns_resolver.cares.v3.pb.h"
#include "lib/base/ip_address.h"
#include "lib/base/prng.h"
#include "lib/base/time.h"

namespace millrace::control {

using DnsFamily = envoy::config::cluster::v3::Cluster::DnsLookupFamily;
using DnsResolverConfig = envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;

bool is_dns(const api::Cluster& cluster);
// typed_dns_resolver_config, or what the two older fields say, as one message. Of a validated cluster.
DnsResolverConfig dns_resolver_config(const api::Cluster& cluster);
// What may stand where an endpoint's address is: a name that a resolver can be asked for (RFC 1123 2.1, and '_').
bool is_host_name(std::string_view text);

struct DnsQuestion {
  std::string name;
  DnsFamily family = envoy::config::cluster::v3::Cluster::AUTO;
  std::string resolver;  // a serialized DnsResolverConfig

  friend auto operator<=>(const DnsQuestion&, const DnsQuestion&) = default;
};
struct DnsAnswer {
  bool ok = false;                         // false: `error` says why, and nothing is known
  std::string error;                       // of c-ares
  std::vector<base::IpAddress> addresses;  // in the server's order; may be empty
  uint32_t ttl = 0;                        // s: the least of all records; 0: none given
};

class DnsNames {
 public:
  explicit DnsNames(uint64_t seed) : random_(seed) {}

  // From here on the names of `model` are kept fresh, and only those.
  void follow(const Model& model, base::TimeNs now);
  // Names of a model that is not in force yet are asked for too, until follow().
  void expect(const Model& model, base::TimeNs now);
  // Questions whose time has come; each is under way until answered().
  std::vector<DnsQuestion> due(base::TimeNs now);
  // kNever: nothing to ask.
  base::TimeNs next_due() const;
  struct Turn {
    bool changed = false;        // the addresses are others than before
    bool began_to_fail = false;  // the first failure after a good answer, or of all
    bool works_again = false;
  };
  Turn answered(const DnsQuestion& question, const DnsAnswer& answer, base::TimeNs now);
  // Every name of the model has been answered, or has failed, once; clusters with wait_for_warm_on_init false do not count.
  bool warm(const Model& model) const;

  // The model whose endpoints are addresses: endpoints of a name get the name's weight, health and metadata each, and its name as
  // hostname unless they have one. An object whose parts did not change keeps its pointer.
  Model resolved(const Model& model);

  // For people and programs.
  struct Status {
    DnsQuestion question;
    bool known = false;  // answered once
    std::vector<base::IpAddress> addresses;
    std::string error;  // of the last answer; "": it was good
    uint64_t attempts = 0, successes = 0, failures = 0, empty = 0, unchanged = 0;
    base::TimeNs next = base::kNever;
  };
  std::vector<Status> status(std::string_view cluster) const;  // of a followed cluster; in the order of its endpoints

 private:
  // How often a question is asked: the eagerest of those who ask it.
  struct Pace {
    base::TimeNs refresh = 0, failure_base = 0, failure_max = 0;  // failure_base 0: as `refresh`
    bool respect_ttl = false;
  };
  struct State {
    Pace pace;
    std::vector<base::IpAddress> addresses, last;  // `last`: when there were any
    std::string error;
    uint64_t version = 0;  // of `addresses`
    uint64_t attempts = 0, successes = 0, failures = 0, empty = 0, unchanged = 0;
    base::TimeNs next = 0, failure_wait = 0;
    bool tried = false, known = false, under_way = false;
    bool wanted = false;  // while follow() sorts out
  };
  struct Asked {
    DnsQuestion question;
    Pace pace;
  };
  struct Resolved {
    std::shared_ptr<const ClusterObject> cluster;
    std::shared_ptr<const EndpointsObject> written, made;
    std::vector<uint64_t> versions;
  };
  static std::vector<Asked> questions(const ClusterObject& cluster, const EndpointsObject& endpoints);
  // Calls f(cluster, endpoints) for every DNS cluster of `model`.
  template <class F>
  void for_each(const Model& model, F&& f) const;
  State& ask(const Asked& asked, base::TimeNs now);
  std::shared_ptr<const EndpointsObject> resolve(const ClusterObject& cluster, const EndpointsObject& endpoints) const;

  base::Prng random_;
  Model followed_;
  std::vector<std::string> clusters_;  // of followed_, that have names
  std::map<DnsQuestion, State> states_;
  std::map<std::string, Resolved, std::less<>> resolved_;
  uint64_t versions_ = 0;
};

}  // namespace millrace::control
