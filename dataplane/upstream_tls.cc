// TLS towards endpoints: from the established TCP connection to one that takes requests.
#include <algorithm>
#include <cstring>

#include "dataplane/upstreams.h"

namespace millrace::dataplane {

using stats::ClusterCounter;
using tls::TlsError;

void Upstreams::set_tls_failure(std::string_view text) {
  tls_failure_size_ = std::min(text.size(), kTlsFailureBytes);
  std::memcpy(tls_failure_, text.data(), tls_failure_size_);
}

// As Envoy counts: failed verifications by their kind, a connection that just ended not at all, all else as connection_error.
void Upstreams::count_tls_failure(EndpointPool& e, TlsError error) {
  switch (error) {
    case TlsError::kPeerCertificateName:
      return count(e, ClusterCounter::kSslFailVerifySan);
    case TlsError::kPeerCertificateHash:
      return count(e, ClusterCounter::kSslFailVerifyHash);
    case TlsError::kPeerCertificateUntrusted:
    case TlsError::kPeerCertificateExpired:
    case TlsError::kPeerCertificateRevoked:
    case TlsError::kPeerCertificateBad:
      return count(e, ClusterCounter::kSslFailVerify);
    case TlsError::kHandshakeEof:
    case TlsError::kEofWithoutCloseNotify:
      return;
    default:
      return count(e, ClusterCounter::kSslConnectionError);
  }
}

// False: no context (a secret is missing) or no memory; tls_failure() says which.
bool Upstreams::start_tls(Session& s, EndpointPool& e, std::string_view alpn) {
  const ClusterRuntime* runtime = ctx_.tables->cluster(e.cluster->id);
  tls::ClientContext* context = runtime == nullptr ? nullptr : runtime->tls_context(ctx_.worker);
  if (context == nullptr) {
    set_tls_failure("TLS error: Secret is not supplied by SDS");
    return false;
  }
  const table::UpstreamTls& config = runtime->object->tls;
  std::string_view sni = table::view(runtime->object, config.sni);
  if (config.auto_host_sni != 0) {
    for (const table::Endpoint& p : runtime->endpoint_list()) {
      if (p.port != e.port || p.address != e.address) continue;
      if (p.hostname.count != 0) sni = table::view(runtime->endpoints, p.hostname);
      break;
    }
  }
  if (e.name != nullptr) {
    sni = e.name->text.view();
  } else if (config.auto_sni != 0 && config.auto_sni_san_validation != 0 && e.key == kApart) {
    set_tls_failure("TLS error: the request's host is no name that a certificate could be compared with");
    return false;
  }
  if (ctx_.transports.start_tls_client(s, *context, sni, config.alpn.count == 0 ? alpn : std::string_view())) return true;
  set_tls_failure("TLS error: out of memory");
  return false;
}

Upstreams::Setup Upstreams::establish(Session& s, EndpointPool& e, std::string_view alpn, const DownstreamSession* client,
                                      uint32_t* events, UpstreamFailure* failure) {
  if (*events & (tcp::kEventReset | tcp::kEventTimedOut)) {
    *failure = (*events & tcp::kEventTimedOut) != 0 ? UpstreamFailure::kTimeout
               : s.tls == nullptr                   ? UpstreamFailure::kRefused
                                                    : UpstreamFailure::kTls;
    tls_failure_size_ = 0;
    return Setup::kFailed;
  }
  if (s.tls == nullptr) {
    if ((*events & tcp::kEventConnected) == 0) return Setup::kWait;
    *events &= ~uint32_t{tcp::kEventConnected};
    if (e.cluster->proxy_version != 0 && !announce(s, e, client)) {
      *failure = UpstreamFailure::kLocal;
      return Setup::kFailed;
    }
    if (!e.cluster->has_tls) return Setup::kReady;
    if (!start_tls(s, e, alpn)) {
      *failure = UpstreamFailure::kTls;
      return Setup::kFailed;
    }
  }
  const TransportEvents t = ctx_.transports.pull(s, *events, ctx_.now);
  if (t.failed) {
    count_tls_failure(e, t.error);
    tls_failure_size_ = tls::failure_reason(t.error, s.tls->session->verify_detail(), tls_failure_);
    *failure = UpstreamFailure::kTls;
    return Setup::kFailed;
  }
  if (!t.handshake_done) return Setup::kWait;
  const tls::Negotiated n = s.tls->session->negotiated();
  count(e, ClusterCounter::kSslHandshake);
  if (n.resumed) count(e, ClusterCounter::kSslSessionReused);
  if (!n.peer_certificate) count(e, ClusterCounter::kSslNoCertificate);
  // What came behind the handshake has been decrypted already.
  *events &= ~uint32_t{tcp::kEventReadable};
  if (!ctx_.transports.rx(s).empty() || s.peer_closed) *events |= tcp::kEventReadable;
  return Setup::kReady;
}

}  // namespace millrace::dataplane
