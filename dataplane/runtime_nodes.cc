#include "dataplane/runtime_nodes.h"

#include <algorithm>

#include "dataplane/table_loader.h"
#include "lib/base/hash.h"

namespace millrace::dataplane {

using base::Error;
using base::Result;
using base::Status;

// ---- statistics slots -------------------------------------------------------------------------------------------------------

SlotLeases::Lease SlotLeases::take(stats::ScopeKind kind, uint64_t key, std::string_view name, stats::ScopeSlot parent) {
  const stats::ScopeSlot slot = directory_.acquire(kind, key, name, parent);
  if (slot == stats::kOverflowScope) return {};
  ++users_[slot];
  return {this, slot};
}

void SlotLeases::give_back(stats::ScopeSlot slot) {
  const auto it = users_.find(slot);
  MILLRACE_ASSERT(it != users_.end() && it->second > 0, "a lease is given back once");
  if (--it->second != 0) return;
  users_.erase(it);
  directory_.release(slot, now_);
}

void SlotLeases::sweep(base::TimeNs now) {
  // A lease ends with the last snapshot that shows it, and a snapshot is freed when every worker has passed it.
  directory_.sweep(now, base::kNever);
}

// ---- nodes ------------------------------------------------------------------------------------------------------------------

namespace {

template <class T>
std::vector<std::string> strings(const void* object, const table::Array<T>& list) {
  std::vector<std::string> out;
  for (const T& s : std::span(list.begin(object), list.count)) out.emplace_back(table::view(object, s));
  return out;
}

void collect_fields(const void* object, const table::Array<table::AccessLog>& logs, AccessLogFields& out) {
  for (uint32_t i = 0; i < logs.count; ++i) out.filters |= logs.at(object, i).filter.count != 0;
  for (uint32_t i = 0; i < logs.count; ++i) collect_access_log_fields(table::view(object, logs.at(object, i).format), out);
}

std::string endpoint_name(const table::Endpoint& e) {
  const std::string address = e.address.to_string();
  return e.address.is_v4() ? address + ":" + std::to_string(e.port) : "[" + address + "]:" + std::to_string(e.port);
}

uint64_t endpoint_key(table::ObjectId cluster, const table::Endpoint& e) {
  return base::hash64(e.address.bytes.data(), e.address.bytes.size(), base::hash64(cluster ^ e.port));
}

// Of what checks of the cluster's endpoints are made of, wherever it lies in the object.
uint64_t hash_of(const table::Cluster& object) {
  table::HealthCheck flat = object.health_check;
  flat.host = {};
  flat.front = flat.back = {};
  flat.receive = {};
  flat.expected = flat.retriable = {};
  uint64_t h = base::hash64(reinterpret_cast<const uint8_t*>(&flat), sizeof flat, object.has_tls);
  const auto add = [&](const auto& array) {
    h = base::hash64(reinterpret_cast<const uint8_t*>(array.begin(&object)), array.count * sizeof *array.begin(&object),
                     h + array.count);
  };
  const table::HealthCheck& c = object.health_check;
  h = base::hash64(table::view(&object, c.host), h);
  add(c.front);
  add(c.back);
  add(c.expected);
  add(c.retriable);
  for (uint32_t i = 0; i < c.receive.count; ++i) add(c.receive.at(&object, i).bytes);
  return h;
}

}  // namespace

template <class Tls>
bool NodeBuilder::collect_secrets(const void* object, const Tls& from, const ObjectFinder& finder, SecretVersions* versions,
                                  std::vector<tls::CertificatePem>* certificates, tls::ValidationConfig* validation) {
  bool complete = true;
  const auto secret = [&](table::ObjectId id, table::SecretKind kind) -> const table::Secret* {
    const FoundObject found = finder.find(table::Kind::kSecret, id);
    versions->emplace_back(id, found.version);
    const auto* s = reinterpret_cast<const table::Secret*>(found.object);
    if (s != nullptr && s->kind == kind) return s;
    complete = false;
    return nullptr;
  };
  for (uint32_t i = 0; i < from.secrets.count; ++i) {
    const table::Secret* s = secret(from.secrets.at(object, i), table::SecretKind::kCertificate);
    if (s == nullptr) continue;
    const auto text = [&](const table::Blob& b) { return std::string(reinterpret_cast<const char*>(b.begin(s)), b.count); };
    certificates->push_back({text(s->certificate_chain_pem), text(s->private_key_pem), text(s->ocsp_staple)});
  }
  for (const table::ObjectId id : {from.validation, from.validation_more}) {
    if (id == table::kNoObject) continue;
    if (const table::Secret* s = secret(id, table::SecretKind::kValidation)) add_validation(*s, validation);
  }
  return complete;
}

Status NodeBuilder::build_cluster_tls(const table::Cluster& object, const ObjectFinder& finder, ClusterNode& node) {
  tls::ClientConfig config;
  std::vector<tls::CertificatePem> certificates;
  const std::string where = "cluster '" + std::string(table::view(&object, object.name)) + "'";
  if (!collect_secrets(&object, object.tls, finder, &node.secrets, &certificates, &config.validation)) {
    node.notes.push_back(where + ": a secret is missing; connections to its endpoints fail until it is there");
    return {};
  }
  if (!tls_.enabled()) return {};
  if (!certificates.empty()) config.certificate = std::move(certificates[0]);
  config.validation.match_sni = object.tls.auto_sni_san_validation != 0;
  config.validation.sni_of_request = config.validation.match_sni && object.tls.auto_sni != 0;
  config.alpn = strings(&object, object.tls.alpn);
  config.cipher_suites = strings(&object, object.tls.cipher_suites);
  config.curves = strings(&object, object.tls.curves);
  config.min_version = static_cast<tls::Version>(object.tls.min_version);
  config.max_version = static_cast<tls::Version>(object.tls.max_version);
  config.tickets = object.tls.max_session_keys != 0;
  config.max_sessions = std::max<uint32_t>(object.tls.max_session_keys, 1);
  auto set = tls_.get(
      config, where + (object.tls.auto_host_sni != 0 ? " host " : " ") + std::string(table::view(&object, object.tls.sni)));
  if (!set.ok()) return Error{where + ": " + set.error()};
  node.runtime.tls = (*set)->pointers;
  node.tls = std::move(*set);
  return {};
}

Status NodeBuilder::build_chain(const table::Listener& object, uint32_t index, const ObjectFinder& finder, ListenerNode& node) {
  const table::FilterChain& chain = object.filter_chains.at(&object, index);
  FilterChainRuntime runtime;
  runtime.chain = &chain;
  const bool http = chain.filter == table::NetworkFilterKind::kHttpConnectionManager;
  const std::string_view prefix = table::view(&object, http ? chain.hcm.stat_prefix : chain.tcp.stat_prefix);
  node.leases.push_back(leases_.take(stats::ScopeKind::kHcm, base::hash64(prefix, http ? 1 : 2), prefix));
  runtime.slot = node.leases.back().slot();
  for (uint32_t i = 0; http && i < chain.hcm.compressors.count; ++i) {
    const table::Compressor& c = chain.hcm.compressors.at(&object, i);
    constexpr const char* kCodecs[] = {".gzip.", ".brotli.", ".zstd."};  // Envoy's prefixes
    const std::string name = std::string(table::view(&object, c.name)) + kCodecs[static_cast<uint32_t>(c.codec)];
    const uint64_t key = stats::compressor_key(base::hash64(name, base::hash64(prefix, 3)), c.response_config == 0);
    node.leases.push_back(leases_.take(stats::ScopeKind::kCompressor, key, name, runtime.slot));
    runtime.compressors.push_back(node.leases.back().slot());
  }
  node.log_fields.push_back(std::make_unique<AccessLogFields>());
  collect_fields(&object, http ? chain.hcm.access_logs : chain.tcp.access_logs, *node.log_fields.back());
  runtime.log_fields = node.log_fields.back().get();

  if (chain.has_tls != 0) {
    tls::ServerConfig config;
    bool complete = collect_secrets(&object, chain.tls, finder, &node.secrets, &config.certificates, &config.validation);
    if (chain.tls.ticket_keys != table::kNoObject) {
      const FoundObject found = finder.find(table::Kind::kSecret, chain.tls.ticket_keys);
      node.secrets.emplace_back(chain.tls.ticket_keys, found.version);
      const auto* keys = reinterpret_cast<const table::Secret*>(found.object);
      complete = complete && keys != nullptr && keys->kind == table::SecretKind::kTicketKeys;
      static_assert(table::kTicketKeyBytes == tls::kTicketKeyBytes);
      for (uint32_t at = 0; complete && at < keys->ticket_keys.count; at += table::kTicketKeyBytes) {
        const uint8_t* from = keys->ticket_keys.begin(keys) + at;
        std::copy(from, from + tls::kTicketKeyBytes, config.ticket_keys.emplace_back().begin());
      }
    }
    const std::string where = "listener '" + std::string(table::view(&object, object.name)) + "', filter chain '" +
                              std::string(table::view(&object, chain.name)) + "'";
    if (!complete || config.certificates.empty()) {
      node.notes.push_back(where + ": a secret is missing; TLS connections to it are refused until it is there");
    } else if (tls_.enabled()) {
      config.alpn = strings(&object, chain.tls.alpn);
      config.cipher_suites = strings(&object, chain.tls.cipher_suites);
      config.curves = strings(&object, chain.tls.curves);
      config.min_version = static_cast<tls::Version>(chain.tls.min_version);
      config.max_version = static_cast<tls::Version>(chain.tls.max_version);
      config.prefer_client_ciphers = chain.tls.prefer_client_ciphers != 0;
      config.disable_tickets = chain.tls.disable_tickets != 0;
      config.require_client_certificate = chain.tls.require_client_certificate != 0;
      config.full_scan_on_sni_mismatch = chain.tls.full_scan_certs != 0;
      config.ocsp_policy = static_cast<tls::OcspPolicy>(chain.tls.ocsp_policy);
      config.session_timeout_s = chain.tls.session_timeout_s;
      auto set = tls_.get(config);
      if (!set.ok()) return Error{where + ": " + set.error()};
      runtime.tls = (*set)->pointers;
      node.tls.push_back(std::move(*set));
    }
  }
  node.runtime.chains.push_back(runtime);
  return {};
}

Result<std::shared_ptr<const ListenerNode>> NodeBuilder::listener(const table::Listener& object, const ObjectFinder& finder) {
  auto node = std::make_shared<ListenerNode>();
  node->runtime.id = object.header.id;
  node->runtime.object = &object;
  node->leases.push_back(leases_.take(stats::ScopeKind::kListener, object.header.id, table::view(&object, object.name)));
  node->runtime.slot = node->leases.back().slot();
  node->log_fields.push_back(std::make_unique<AccessLogFields>());
  collect_fields(&object, object.access_logs, *node->log_fields.back());
  node->runtime.log_fields = node->log_fields.back().get();
  for (uint32_t i = 0; i < object.filter_chains.count; ++i) {
    if (Status s = build_chain(object, i, finder, *node); !s.ok()) return Error{s.error()};
  }
  return std::shared_ptr<const ListenerNode>(std::move(node));
}

Result<std::shared_ptr<const VirtualHostNode>> NodeBuilder::virtual_host(const table::VirtualHost& object, std::string_view owner,
                                                                         bool* scratch_grew) {
  auto loaded = route::LoadedVirtualHost::load(object, databases_, prototype_, scratch_grew);
  if (!loaded.ok()) return Error{loaded.error()};
  auto node = std::make_shared<VirtualHostNode>();
  std::string name(owner);
  if (!name.empty()) name += '/';
  name += table::view(&object, object.name);
  node->lease = leases_.take(stats::ScopeKind::kVirtualHost, object.header.id, name);
  node->loaded = std::move(*loaded);
  node->entry.id = object.header.id;
  node->entry.runtime = node->loaded->runtime();
  node->entry.slot = node->lease.slot();
  return std::shared_ptr<const VirtualHostNode>(std::move(node));
}

// Where the directory of statistics is full there is no word for an endpoint's health: nobody is checked then, and the operator
// told.
void NodeBuilder::set_health_checks(const table::Cluster& object, ClusterNode& node) {
  ClusterRuntime& r = node.runtime;
  if (object.health_check.kind != table::HealthCheckKind::kNone) {
    const bool full = r.slot == stats::kOverflowScope || std::find(r.endpoint_slots.begin(), r.endpoint_slots.end(),
                                                                   stats::kOverflowScope) != r.endpoint_slots.end();
    if (!full) {
      node.leases.push_back(leases_.take(stats::ScopeKind::kClusterCheck, r.id, table::view(&object, object.name), r.slot));
      r.check_slot = node.leases.back().slot();
    }
    r.checks = r.check_slot != stats::kOverflowScope;
    r.check_hash = hash_of(object);
    if (!r.checks)
      node.notes.push_back("cluster '" + std::string(table::view(&object, object.name)) +
                           "': no place in the statistics is left for its health checks: its endpoints count as healthy");
  }
  r.watched = r.detects || r.checks;
  r.state_mask = (r.detects ? stats::kHealthEjected : 0u) | (r.checks ? stats::kHealthCheckPassed : 0u);
  r.good_state = r.checks ? stats::kHealthCheckPassed : 0u;
}

Result<std::shared_ptr<const ClusterNode>> NodeBuilder::cluster(const table::Cluster& object, const ObjectFinder& finder) {
  auto node = std::make_shared<ClusterNode>();
  ClusterRuntime& r = node->runtime;
  r.id = object.header.id;
  r.object = &object;
  node->leases.push_back(leases_.take(stats::ScopeKind::kCluster, r.id, table::view(&object, object.name)));
  r.slot = node->leases.back().slot();
  // The overflow scope is nobody's own.
  if (object.outlier.present != 0 && r.slot != stats::kOverflowScope) {
    node->leases.push_back(leases_.take(stats::ScopeKind::kClusterHealth, r.id, table::view(&object, object.name), r.slot));
    r.health_slot = node->leases.back().slot();
    r.detects = r.health_slot != stats::kOverflowScope;
  }
  const FoundObject found = finder.find(table::Kind::kEndpointSet, object.endpoint_set);
  node->endpoint_set_version = found.version;
  if (found.object != nullptr) {
    r.endpoints = reinterpret_cast<const table::EndpointSet*>(found.object);
    for (const table::Endpoint& e : r.endpoint_list()) {
      node->leases.push_back(leases_.take(stats::ScopeKind::kEndpoint, endpoint_key(r.id, e), endpoint_name(e), r.slot));
      r.endpoint_slots.push_back(node->leases.back().slot());
    }
    const auto plan = hashes_.plan(*r.endpoints, object);
    if (!plan.ok()) return Error{plan.error()};
    r.balancers.resize(workers_);
    for (route::balancer::Balancer& b : r.balancers) b.build(*plan, (r.id ^ ++balancers_built_) * 0x9e37'79b9'7f4a'7c15ull);
  }
  set_health_checks(object, *node);
  if (object.has_tls != 0) {
    if (Status s = build_cluster_tls(object, finder, *node); !s.ok()) return Error{s.error()};
  }
  return std::shared_ptr<const ClusterNode>(std::move(node));
}

static bool same_secrets(const SecretVersions& secrets, const ObjectFinder& finder) {
  return std::all_of(secrets.begin(), secrets.end(),
                     [&](const auto& s) { return finder.find(table::Kind::kSecret, s.first).version == s.second; });
}
bool NodeBuilder::still_good(const ListenerNode& node, const ObjectFinder& finder) { return same_secrets(node.secrets, finder); }
bool NodeBuilder::still_good(const ClusterNode& node, const ObjectFinder& finder) {
  return finder.find(table::Kind::kEndpointSet, node.runtime.object->endpoint_set).version == node.endpoint_set_version &&
         same_secrets(node.secrets, finder);
}

void NodeBuilder::sweep(base::TimeNs now) {
  leases_.sweep(now);
  tls_.sweep();
  databases_.sweep();
}

}  // namespace millrace::dataplane
