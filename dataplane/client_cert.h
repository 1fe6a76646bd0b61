// x-forwarded-client-cert: what upstreams are told of the client's certificate (HttpConnectionManager.forward_client_cert_details
// and set_current_client_cert_details), as Envoy writes it.
#pragma once

#include <cstdint>
#include <span>

#include "lib/http/message.h"
#include "lib/http/scratch.h"
#include "lib/table/objects.h"
#include "lib/tls/session.h"

namespace millrace::dataplane {

// `mode`: not kSanitize (the field is then removed with others that clients may not send). `details`: bits of
// table::ClientCertDetail. `tls`: the client's connection; null: it does not speak TLS. What the certificate says is put together
// once, in `work`, and kept with the TLS session, which the request does not outlive; what else it takes lies in `scratch`.
// False: no room, or no memory.
bool set_forwarded_client_cert(http::HeaderTable& headers, table::ForwardClientCert mode, uint8_t details, tls::Session* tls,
                               http::Scratch& scratch, std::span<char> work);

}  // namespace millrace::dataplane
