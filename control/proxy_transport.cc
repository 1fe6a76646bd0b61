#include "control/proxy_transport.h"

#include "control/validate_rules.h"
#include "control/validate_tls.h"
#include "lib/api/envoy.extensions.transport_sockets.proxy_protocol.v3.pb.h"
#include "lib/api/envoy.extensions.transport_sockets.raw_buffer.v3.pb.h"

namespace millrace::control {

namespace {

using namespace rules;
namespace core = envoy::config::core::v3;
using ProxyTransport = envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
using RawBuffer = envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;

constexpr uint32_t kMostTlvType = 255;

bool complain(const Path& at, ErrorSink& e, std::string message) {
  e.add(at, std::move(message));
  return false;
}

// The innermost: TLS, or bytes as they are.
bool inner_socket(const core::TransportSocket& t, bool wrapped, const Path& at, ErrorSink& e) {
  const Path config(at, "typed_config");
  const bool ok = not_empty(t.name(), Path(at, "name"), e);
  api::UpstreamTlsContext context;
  RawBuffer raw;
  if (!t.has_typed_config()) return complain(config, e, "is required");
  if (t.typed_config().UnpackTo(&raw)) return known_fields_only(raw, config, e) && ok;
  if (t.typed_config().UnpackTo(&context)) return known_fields_only(context, config, e) && upstream_tls(context, config, e) && ok;
  return complain(config, e,
                  wrapped ? "must be an UpstreamTlsContext or a RawBuffer"
                          : "must be an UpstreamTlsContext, a RawBuffer or a ProxyProtocolUpstreamTransport");
}

bool proxy_config(const ProxyProtocolConfig& c, const Path& at, ErrorSink& e) {
  bool ok = !c.has_pass_through_tlvs() || validate_pass_through(c.pass_through_tlvs(), Path(at, "pass_through_tlvs"), e);
  const Path added(at, "added_tlvs");
  const bool v1 = c.version() == ProxyProtocolConfig::V1;
  if (v1 && c.has_pass_through_tlvs()) ok = complain(Path(at, "pass_through_tlvs"), e, "a header of version V1 has no TLVs");
  if (v1 && !c.added_tlvs().empty()) ok = complain(added, e, "a header of version V1 has no TLVs");
  size_t bytes = 0;
  for (int i = 0; i < c.added_tlvs_size(); ++i) {
    const core::TlvEntry& t = c.added_tlvs(i);
    const Path here(at, "added_tlvs", i);
    if (t.type() > kMostTlvType) ok = complain(Path(here, "type"), e, "must be at most 255");
    if (t.value().empty()) ok = complain(Path(here, "value"), e, "must not be empty");
    bytes += table::kTlvHeadBytes + t.value().size();
  }
  if (bytes > table::kMostAddedTlvBytes)
    ok = complain(added, e,
                  "take " + std::to_string(bytes) + " bytes, more than " + std::to_string(table::kMostAddedTlvBytes) +
                      ", which leaves room for those that pass");
  return ok;
}

}  // namespace

UpstreamTransport unwrap(const core::TransportSocket& t) {
  UpstreamTransport out;
  ProxyTransport wrapper;
  out.proxied = t.typed_config().UnpackTo(&wrapper);
  if (out.proxied) {
    out.proxy = wrapper.config();
    out.tls_path = "transport_socket.typed_config.transport_socket.typed_config";
  }
  out.tls = (out.proxied ? wrapper.transport_socket() : t).typed_config().UnpackTo(&out.context);
  return out;
}

bool validate_transport_socket(const core::TransportSocket& t, const Path& at, ErrorSink& e) {
  ProxyTransport wrapper;
  if (!t.has_typed_config() || !t.typed_config().UnpackTo(&wrapper)) return inner_socket(t, false, at, e);
  const Path config(at, "typed_config"), inner(config, "transport_socket");
  bool ok = not_empty(t.name(), Path(at, "name"), e);
  ok = known_fields_only(wrapper, config, e) && ok;
  ok = proxy_config(wrapper.config(), Path(config, "config"), e) && ok;
  if (!wrapper.has_transport_socket()) return complain(inner, e, "is required: what follows the header");
  return inner_socket(wrapper.transport_socket(), true, inner, e) && ok;
}

bool validate_pass_through(const PassThroughTlvs& p, const Path& at, ErrorSink& e) {
  bool ok = true;
  for (int i = 0; i < p.tlv_type_size(); ++i)
    if (p.tlv_type(i) > kMostTlvType) ok = complain(Path(at, "tlv_type", i), e, "must be at most 255");
  return ok;
}

bool validate_version_only(const ProxyProtocolConfig& c, const Path& at, ErrorSink& e) {
  bool ok = true;
  if (c.has_pass_through_tlvs())
    ok = complain(Path(at, "pass_through_tlvs"), e, "not supported here: an endpoint of CONNECT is told addresses alone");
  if (!c.added_tlvs().empty())
    ok = complain(Path(at, "added_tlvs"), e, "not supported here: an endpoint of CONNECT is told addresses alone");
  return ok;
}

table::TlvTypes compile_pass_through(bool given, const PassThroughTlvs& p) {
  table::TlvTypes out{};
  if (!given) return out;
  if (p.match_type() == PassThroughTlvs::INCLUDE_ALL)
    for (uint32_t t = 0; t <= kMostTlvType; ++t) out.set(static_cast<uint8_t>(t));
  else
    for (const uint32_t t : p.tlv_type()) out.set(static_cast<uint8_t>(t));
  return out;
}

table::ProxyHeaderOut compile_proxy(const ProxyProtocolConfig& c, table::ObjectWriter& w) {
  table::ProxyHeaderOut out{};
  out.version = c.version() == ProxyProtocolConfig::V2 ? 2 : 1;
  out.passed = compile_pass_through(c.has_pass_through_tlvs(), c.pass_through_tlvs());
  std::vector<uint8_t> added;
  for (const core::TlvEntry& t : c.added_tlvs()) {
    added.push_back(static_cast<uint8_t>(t.type()));
    added.push_back(static_cast<uint8_t>(t.value().size() >> 8));
    added.push_back(static_cast<uint8_t>(t.value().size()));
    added.insert(added.end(), t.value().begin(), t.value().end());
  }
  out.added = w.blob(added);
  return out;
}

}  // namespace millrace::control
