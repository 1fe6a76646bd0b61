// Rules of TLS contexts and of what they name. Each complains to the sink and returns whether it had nothing to complain about.
#pragma once

#include "control/model.h"
#include "control/validate_rules.h"

namespace millrace::control::rules {

namespace tls_api = envoy::extensions::transport_sockets::tls::v3;

bool downstream_tls(const api::DownstreamTlsContext& t, const Path& at, ErrorSink& e);
bool upstream_tls(const api::UpstreamTlsContext& t, const Path& at, ErrorSink& e);
// Both PEM texts are there and belong together.
bool certificate(const tls_api::TlsCertificate& c, const Path& at, ErrorSink& e);
bool ticket_keys(const tls_api::TlsSessionTicketKeys& t, const Path& at, ErrorSink& e);
// `alone`: nothing else adds a trusted_ca to it.
bool validation_context(const tls_api::CertificateValidationContext& v, bool alone, const Path& at, ErrorSink& e);

}  // namespace millrace::control::rules
