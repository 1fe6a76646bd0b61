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

// ---- TLS contexts -----------------------------------------------------------------------------------------------------------

TlsContextCache::TlsContextCache(std::vector<tls::LibraryContext*> libraries) : libraries_(std::move(libraries)) {
  if (enabled()) ticket_keys_ = tls::TicketKeys::random();
}

TlsContextCache::~TlsContextCache() { sweep(); }

namespace {

void append(std::string& key, std::string_view text) {
  key += std::to_string(text.size());
  key += ':';
  key += text;
}
// Equal text, equal configuration.
std::string content_of(const tls::ServerConfig& c) {
  std::string key;
  for (const tls::CertificatePem& pem : c.certificates) {
    append(key, pem.chain);
    append(key, pem.key);
  }
  for (const auto* list : {&c.alpn, &c.cipher_suites, &c.curves}) {
    key += '|';
    for (const std::string& s : *list) append(key, s);
  }
  key += '|';
  key += static_cast<char>('0' + static_cast<int>(c.min_version));
  key += static_cast<char>('0' + static_cast<int>(c.max_version));
  key += c.disable_tickets ? 'd' : 'e';
  key += c.full_scan_on_sni_mismatch ? 'f' : 'g';
  key += c.require_client_certificate ? 'r' : 's';
  append(key, c.client_ca_pem);
  return key;
}

}  // namespace

void TlsContextCache::retire(TlsContextSet* set) { retired_.emplace_back(set); }

Result<std::shared_ptr<TlsContextSet>> TlsContextCache::get(const tls::ServerConfig& config) {
  std::string key = content_of(config);
  if (const auto it = by_content_.find(key); it != by_content_.end()) {
    if (auto set = it->second.lock()) return set;
  }
  auto fresh = std::make_unique<TlsContextSet>();
  for (tls::LibraryContext* library : libraries_) {
    auto context = tls::ServerContext::create(*library, config);
    if (!context.ok()) return Error{context.error()};
    if (!config.disable_tickets) (*context)->set_ticket_keys(ticket_keys_);
    fresh->pointers.push_back(context->get());
    fresh->contexts.push_back(std::move(*context));
  }
  alive_ += fresh->contexts.size();
  // Sessions outlive the tables that made them: contexts wait in retired_ until theirs are gone.
  std::shared_ptr<TlsContextSet> set(fresh.release(), [this](TlsContextSet* s) { retire(s); });
  by_content_[std::move(key)] = set;
  return set;
}

size_t TlsContextCache::sweep() {
  std::erase_if(by_content_, [](const auto& entry) { return entry.second.expired(); });
  for (auto& set : retired_) {
    for (auto& context : set->contexts) {
      if (context == nullptr || context->sessions() != 0) continue;
      context.reset();
      --alive_;
    }
  }
  std::erase_if(retired_, [](const auto& set) {
    return std::all_of(set->contexts.begin(), set->contexts.end(), [](const auto& c) { return c == nullptr; });
  });
  return alive_;
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
  for (uint32_t i = 0; i < logs.count; ++i) collect_access_log_fields(table::view(object, logs.at(object, i).format), out);
}

std::string endpoint_name(const table::Endpoint& e) {
  const std::string address = e.address.to_string();
  return e.address.is_v4() ? address + ":" + std::to_string(e.port) : "[" + address + "]:" + std::to_string(e.port);
}

uint64_t endpoint_key(table::ObjectId cluster, const table::Endpoint& e) {
  return base::hash64(e.address.bytes.data(), e.address.bytes.size(), base::hash64(cluster ^ e.port));
}

}  // namespace

Status NodeBuilder::build_chain(const table::Listener& object, uint32_t index, const ObjectFinder& finder, ListenerNode& node) {
  const table::FilterChain& chain = object.filter_chains.at(&object, index);
  FilterChainRuntime runtime;
  runtime.chain = &chain;
  const bool http = chain.filter == table::NetworkFilterKind::kHttpConnectionManager;
  const std::string_view prefix = table::view(&object, http ? chain.hcm.stat_prefix : chain.tcp.stat_prefix);
  node.leases.push_back(leases_.take(stats::ScopeKind::kHcm, base::hash64(prefix, http ? 1 : 2), prefix));
  runtime.slot = node.leases.back().slot();
  node.log_fields.push_back(std::make_unique<AccessLogFields>());
  collect_fields(&object, http ? chain.hcm.access_logs : chain.tcp.access_logs, *node.log_fields.back());
  runtime.log_fields = node.log_fields.back().get();

  if (chain.has_tls != 0) {
    tls::ServerConfig config;
    bool complete = true;
    for (uint32_t i = 0; i < chain.tls.secrets.count; ++i) {
      const table::ObjectId id = chain.tls.secrets.at(&object, i);
      const FoundObject found = finder.find(table::Kind::kSecret, id);
      node.secrets.emplace_back(id, found.version);
      if (found.object == nullptr) {
        complete = false;
        continue;
      }
      const auto& secret = *reinterpret_cast<const table::Secret*>(found.object);
      const auto text = [&](const table::Blob& b) {
        return std::string(reinterpret_cast<const char*>(b.begin(&secret)), b.count);
      };
      config.certificates.push_back({text(secret.certificate_chain_pem), text(secret.private_key_pem)});
    }
    const std::string where = "listener '" + std::string(table::view(&object, object.name)) + "', filter chain '" +
                              std::string(table::view(&object, chain.name)) + "'";
    if (!complete || config.certificates.empty()) {
      node.notes.push_back(where + ": a certificate is missing; TLS connections to it are refused until it is there");
    } else if (tls_.enabled()) {
      config.alpn = strings(&object, chain.tls.alpn);
      config.cipher_suites = strings(&object, chain.tls.cipher_suites);
      config.curves = strings(&object, chain.tls.curves);
      config.min_version = static_cast<tls::Version>(chain.tls.min_version);
      config.max_version = static_cast<tls::Version>(chain.tls.max_version);
      config.disable_tickets = chain.tls.disable_tickets != 0;
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

Result<std::shared_ptr<const ClusterNode>> NodeBuilder::cluster(const table::Cluster& object, const ObjectFinder& finder) {
  auto node = std::make_shared<ClusterNode>();
  ClusterRuntime& r = node->runtime;
  r.id = object.header.id;
  r.object = &object;
  node->leases.push_back(leases_.take(stats::ScopeKind::kCluster, r.id, table::view(&object, object.name)));
  r.slot = node->leases.back().slot();
  const FoundObject found = finder.find(table::Kind::kEndpointSet, object.endpoint_set);
  node->endpoint_set_version = found.version;
  if (found.object != nullptr) {
    r.endpoints = reinterpret_cast<const table::EndpointSet*>(found.object);
    for (const table::Endpoint& e : r.endpoint_list()) {
      node->leases.push_back(leases_.take(stats::ScopeKind::kEndpoint, endpoint_key(r.id, e), endpoint_name(e), r.slot));
      r.endpoint_slots.push_back(node->leases.back().slot());
    }
    r.balancers.resize(workers_);
    for (route::balancer::Balancer& b : r.balancers)
      b.build(*r.endpoints, object.lb_policy, object.least_request_choice_count,
              (r.id ^ ++balancers_built_) * 0x9e37'79b9'7f4a'7c15ull);
  }
  return std::shared_ptr<const ClusterNode>(std::move(node));
}

bool NodeBuilder::still_good(const ListenerNode& node, const ObjectFinder& finder) {
  return std::all_of(node.secrets.begin(), node.secrets.end(),
                     [&](const auto& s) { return finder.find(table::Kind::kSecret, s.first).version == s.second; });
}
bool NodeBuilder::still_good(const ClusterNode& node, const ObjectFinder& finder) {
  return finder.find(table::Kind::kEndpointSet, node.runtime.object->endpoint_set).version == node.endpoint_set_version;
}

void NodeBuilder::sweep(base::TimeNs now) {
  leases_.sweep(now);
  tls_.sweep();
  databases_.sweep();
}

}  // namespace millrace::dataplane
