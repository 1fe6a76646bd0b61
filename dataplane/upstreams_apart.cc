// The PROXY protocol towards endpoints (envoy.transport_sockets.upstream_proxy_protocol): a connection says once whose it is, so
// it serves that one client's connection and ends with it. Envoy keys its pools by the client's addresses, which is the same but
// for a client that comes again from the same port.
//
//   exchange ─ submit() ─▶ nobody's pool of the endpoint ─ cluster has a header? ─▶ the client's own pool ─▶ connection: header,
//   TLS, requests
#include <algorithm>
#include <cstring>

#include "dataplane/downstream.h"
#include "dataplane/upstreams.h"
#include "lib/base/ascii.h"
#include "lib/base/hash.h"
#include "lib/wire/proxy_protocol.h"

namespace millrace::dataplane {

using stats::ClusterCounter;

static_assert(table::kMostAddedTlvBytes + wire::kMostProxyV2Bytes <= wire::kMostTlvBytes, "whatever passes fits");

// The host that TLS names to the endpoint (auto_sni), a view of the request; empty: it has none that TLS could name.
std::string_view Upstreams::request_name(const ClusterState& cluster, const Exchange& ex) const {
  std::string_view host = ex.request.authority;
  const ClusterRuntime* runtime = ctx_.tables->cluster(cluster.id);
  if (runtime != nullptr && runtime->object->tls.auto_sni_header.count != 0) {
    const http::Header* h = ex.request.headers.find(table::view(runtime->object, runtime->object->tls.auto_sni_header));
    if (h != nullptr && !h->value.empty()) host = h->value;
  }
  if (host.starts_with('[')) return {};  // an address of IPv6
  host = host.substr(0, host.rfind(':'));
  return host.size() > 255 || base::IpAddress::parse(host).has_value() ? std::string_view() : host;
}

Upstreams::EndpointBucket& Upstreams::apart_bucket(const EndpointPool& shared, uint64_t client_id, std::string_view name) {
  char lower[255];  // names differ without regard to case (RFC 6066 3), and so do Envoy's pools
  for (size_t i = 0; i < name.size(); ++i) lower[i] = base::to_lower(name[i]);
  const uint64_t hash = client_id * 0x9e3779b97f4a7c15ull ^ base::hash64(std::string_view(lower, name.size()));
  return endpoint_bucket(*shared.cluster, shared.address, static_cast<uint16_t>(shared.port ^ hash >> 48));
}

// The pool of that endpoint for the requests of this client, or for this host, alone. Null: the table of endpoints is full.
EndpointPool* Upstreams::pool_apart(const EndpointPool& shared, const Exchange& ex) {
  const ClusterState& cluster = *shared.cluster;
  DownstreamSession& d = *ex.downstream;
  const uint64_t client_id = cluster.proxy_version != 0 ? d.connection_id : 0;
  const std::string_view name = cluster.auto_sni ? request_name(cluster, ex) : std::string_view();
  EndpointBucket& bucket = apart_bucket(shared, client_id, name);
  for (EndpointPool& e : bucket)
    if (e.key == kApart && e.client_id == client_id && e.cluster == &cluster && e.port == shared.port &&
        e.codec == shared.codec && e.address == shared.address &&
        (e.name == nullptr ? name.empty() : base::iequals(e.name->text.view(), name)))
      return &e;
  EndpointPool* e = endpoints_.alloc();
  if (e == nullptr && evict_apart()) e = endpoints_.alloc();
  if (e == nullptr) return nullptr;
  prepare(*e, *shared.cluster, shared.address, shared.port, shared.codec);
  e->key = kApart;
  e->slot = shared.slot;
  e->retired = false;
  if (client_id != 0) {
    e->client_id = client_id;
    e->client = &d;
    downstreams_->more(d).pools.push_back(*e);
  }
  if (!name.empty()) {
    e->name = names_.alloc();
    e->name->text.assign(name);
  }
  bucket.push_front(*e);
  return e;
}

EndpointPool* Upstreams::move_apart(const Exchange& ex, EndpointPool& shared, UpstreamFailure* failure) {
  EndpointPool* own = pool_apart(shared, ex);
  if (own != nullptr) {
    release_if_unused(shared);
    return own;
  }
  count(shared, ClusterCounter::kRqPendingOverflow);
  *failure = UpstreamFailure::kOverflow;
  return nullptr;
}

// Clients choose names, and may choose many: connections that nobody uses make room. True: a place is free.
bool Upstreams::evict_apart() {
  constexpr uint32_t kMostLooks = 64;
  for (uint32_t i = 0; i < kMostLooks; ++i) {
    evict_at_ = evict_at_ + 1 < endpoints_.capacity() ? evict_at_ + 1 : 0;
    if (!endpoints_.lent(evict_at_)) continue;
    EndpointPool& e = endpoints_[evict_at_];
    if (e.key != kApart || e.active != 0 || e.waiting != 0 || e.connecting != 0) continue;
    for (UpstreamSession& u : e.multiplexed) http2_.drain(u);  // soon
    if (!e.multiplexed.empty() || e.idle.empty()) continue;
    ++e.active;  // keeps it while its idle connections go
    while (UpstreamSession* u = e.idle.front()) close_session(*u, false);
    --e.active;
    const bool free = e.connections == 0;
    release_if_unused(e);
    if (free) return true;
  }
  return false;
}

// The connections that were the client's serve nobody else. Those under way end when they are there (on_ready).
void Upstreams::forget_client(ConnectionMore& more) {
  while (ClientPool* p = more.pools.pop_front()) {
    EndpointPool& e = *static_cast<EndpointPool*>(p);
    e.client = nullptr;
    e.retired = true;
    ++e.active;  // keeps it while its idle connections go
    while (UpstreamSession* u = e.idle.front()) close_session(*u, false);
    for (UpstreamSession& u : e.multiplexed) http2_.drain(u);
    --e.active;
    release_if_unused(e);
  }
}

// Says whose connection it is, before anything else goes. False: the client or our memory is gone.
bool Upstreams::announce(Session& s, const EndpointPool& e, const DownstreamSession* client) {
  const ClusterRuntime* runtime = ctx_.tables->cluster(e.cluster->id);
  if (runtime == nullptr || client == nullptr) return false;
  const table::ProxyHeaderOut& config = runtime->object->proxy;
  if (config.version == 0) return true;  // it was taken out of the configuration meanwhile
  const tcp::FourTuple& tuple = client->tuple();
  wire::ProxyHeader header;
  header.version = config.version;
  header.local = false;
  header.source = tuple.remote;
  header.source_port = tuple.remote_port;
  header.destination = tuple.local;
  header.destination_port = tuple.local_port;
  uint8_t* tlvs = proxy_scratch_.get() + wire::kMostProxyHeaderBytes;
  size_t bytes = 0;
  const auto add = [&](base::ByteSpan one) {
    std::memcpy(tlvs + bytes, one.data(), one.size());
    bytes += one.size();
  };
  if (config.version == 2) {
    // Envoy: those of the configuration first; one of the client's of the same type is left out.
    table::TlvTypes taken{};
    base::ByteSpan added{config.added.begin(runtime->object), config.added.count};
    add(added);
    wire::ProxyTlv tlv;
    while (wire::next_proxy_tlv(&added, &tlv)) taken.set(tlv.type);
    const io::PacketQueue* kept = client->tlvs();
    if (kept != nullptr && config.passed.any()) {
      uint8_t said[wire::kMostProxyV2Bytes];
      base::ByteSpan rest{said, kept->peek(0, said, sizeof said)};
      for (base::ByteSpan at = rest; wire::next_proxy_tlv(&rest, &tlv); at = rest)
        if (config.passed.has(tlv.type) && !taken.has(tlv.type)) add(at.first(at.size() - rest.size()));
    }
    header.tlvs = {tlvs, bytes};
  }
  const size_t n = wire::write_proxy_header(header, {proxy_scratch_.get(), wire::kMostProxyHeaderBytes + bytes});
  MILLRACE_ASSERT(n != 0, "the scratch has room for every header");
  return ctx_.transports.write_copy(s, base::ByteSpan{proxy_scratch_.get(), n}, ctx_.now) == n;
}

}  // namespace millrace::dataplane
