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
#include "lib/wire/proxy_protocol.h"

namespace millrace::dataplane {

using stats::ClusterCounter;

static_assert(table::kMostAddedTlvBytes + wire::kMostProxyV2Bytes <= wire::kMostTlvBytes, "whatever passes fits");

// The pool of that endpoint for the requests of one client's connection alone. Null: the table of endpoints is full.
EndpointPool* Upstreams::client_pool(const EndpointPool& shared, DownstreamSession& d) {
  EndpointBucket& bucket = client_bucket(shared, d.connection_id);
  for (EndpointPool& e : bucket)
    if (e.client_id == d.connection_id && e.cluster == shared.cluster && e.port == shared.port && e.codec == shared.codec &&
        e.address == shared.address)
      return &e;
  EndpointPool* e = endpoints_.alloc();
  if (e == nullptr) return nullptr;
  prepare(*e, *shared.cluster, shared.address, shared.port, shared.codec);
  e->key = kOneClient;
  e->client_id = d.connection_id;
  e->client = &d;
  e->slot = shared.slot;
  e->retired = false;
  downstreams_->more(d).pools.push_back(*e);
  bucket.push_front(*e);
  return e;
}

Upstreams::EndpointBucket& Upstreams::client_bucket(const EndpointPool& e, uint64_t client_id) {
  return endpoint_bucket(*e.cluster, e.address, static_cast<uint16_t>(e.port ^ client_id ^ client_id >> 16));
}

bool Upstreams::submit_for_client(Exchange& ex, EndpointPool& shared, UpstreamFailure* failure) {
  EndpointPool* own = client_pool(shared, *ex.downstream);
  if (own == nullptr) {
    count(shared, ClusterCounter::kRqPendingOverflow);
    *failure = UpstreamFailure::kOverflow;
    return false;
  }
  release_if_unused(shared);
  return submit(ex, *own, failure);
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
