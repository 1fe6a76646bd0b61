// TLS contexts of both directions, and what secrets hold.
#include "control/validate_tls.h"

#include "control/proto_values.h"
#include "control/proto_writer.h"
#include "control/tls_values.h"
#include "lib/tls/certificate.h"

namespace millrace::control::rules {

namespace {

using envoy::type::matcher::v3::StringMatcher;

bool complain(const Path& at, ErrorSink& e, std::string message) {
  e.add(at, std::move(message));
  return false;
}

bool parameters(const tls_api::TlsParameters& p, bool server, const Path& at, ErrorSink& e) {
  bool ok = true;
  const auto low = p.tls_minimum_protocol_version(), high = p.tls_maximum_protocol_version();
  if (low == tls_api::TlsParameters::TLSv1_3 &&
      (high == tls_api::TlsParameters::TLSv1_2 || (!server && high == tls_api::TlsParameters::TLS_AUTO)))
    ok = complain(Path(at, "tls_minimum_protocol_version"), e,
                  high == tls_api::TlsParameters::TLSv1_2 ? "TLSv1_3 is above the maximum, TLSv1_2"
                                                          : "TLSv1_3 is above the maximum, which is TLSv1_2 towards upstreams "
                                                            "unless tls_maximum_protocol_version says TLSv1_3");
  if (const auto s = tls::check_cipher_suites({p.cipher_suites().begin(), p.cipher_suites().end()}); !s.ok())
    ok = complain(Path(at, "cipher_suites"), e, s.error());
  if (const auto s = tls::check_curves({p.ecdh_curves().begin(), p.ecdh_curves().end()}); !s.ok())
    ok = complain(Path(at, "ecdh_curves"), e, s.error());
  return ok;
}

// A text that is read now, and must please `check`.
template <class Check>
bool readable(const core::DataSource& source, const Path& at, ErrorSink& e, Check&& check) {
  if (!data_source(source, at, e)) return false;
  const auto text = read_data_source(source);
  if (!text.ok()) return complain(at, e, text.error());
  const auto checked = check(*text);
  return checked.ok() || complain(at, e, checked.error());
}

bool name_matcher(const tls_api::SubjectAltNameMatcher& m, const Path& at, ErrorSink& e) {
  const Path type(at, "san_type"), matcher(at, "matcher");
  bool ok = true;
  if (m.san_type() == tls_api::SubjectAltNameMatcher::SAN_TYPE_UNSPECIFIED) ok = complain(type, e, "is required");
  if (!m.has_matcher() || m.matcher().match_pattern_case() == StringMatcher::MATCH_PATTERN_NOT_SET)
    return complain(matcher, e, "is required");
  const auto at_least_one = [&](const std::string& value, const char* field) {
    if (value.empty()) ok = complain(Path(matcher, field), e, "must not be empty");
  };
  if (m.matcher().has_prefix()) at_least_one(m.matcher().prefix(), "prefix");
  if (m.matcher().has_suffix()) at_least_one(m.matcher().suffix(), "suffix");
  if (m.matcher().has_contains()) at_least_one(m.matcher().contains(), "contains");
  if (m.matcher().has_safe_regex())
    ok = complain(Path(matcher, "safe_regex"), e, "not supported by Millrace for names of certificates yet");
  return ok;
}

// Without sds_config: a secret of static_resources.
bool sds_secret(const tls_api::SdsSecretConfig& s, const Path& at, ErrorSink& e) {
  bool ok = not_empty(s.name(), Path(at, "name"), e);
  if (s.has_sds_config()) ok = resource_source(true, s.sds_config(), Path(at, "sds_config"), e) && ok;
  return ok;
}

bool common_context(const tls_api::CommonTlsContext& c, bool server, const Path& at, ErrorSink& e) {
  constexpr size_t kMostAlpnBytes = 255;  // RFC 7301 3.1
  bool ok = parameters(c.tls_params(), server, Path(at, "tls_params"), e);
  const Path certificates(at, "tls_certificates"), sds(at, "tls_certificate_sds_secret_configs");
  const int given = c.tls_certificates_size() + c.tls_certificate_sds_secret_configs_size();
  if (server && given == 0)
    ok = complain(certificates, e,
                  "no certificate: needs tls_certificates, or tls_certificate_sds_secret_configs that name secrets");
  if (!c.tls_certificates().empty() && !c.tls_certificate_sds_secret_configs().empty())
    ok = complain(sds, e, "cannot be combined with tls_certificates");
  else if (!server && given > 1)
    ok = complain(c.tls_certificates().empty() ? sds : certificates, e, "a client has one certificate at most");
  for (int i = 0; i < c.tls_certificates_size(); ++i) {
    const Path here(at, "tls_certificates", i);
    ok = certificate(c.tls_certificates(i), here, e) && ok;
    if (!server && c.tls_certificates(i).has_ocsp_staple())
      ok = complain(Path(here, "ocsp_staple"), e, "is for listeners: a client staples nothing");
  }
  for (int i = 0; i < c.tls_certificate_sds_secret_configs_size(); ++i) {
    const Path here(at, "tls_certificate_sds_secret_configs", i);
    ok = sds_secret(c.tls_certificate_sds_secret_configs(i), here, e) && ok;
  }
  for (int i = 0; i < c.alpn_protocols_size(); ++i) {
    const std::string& p = c.alpn_protocols(i);
    const Path here(at, "alpn_protocols", i);
    if (p.empty() || p.size() > kMostAlpnBytes) ok = complain(here, e, "must have 1 to 255 bytes");
  }
  if (c.has_validation_context()) ok = validation_context(c.validation_context(), true, Path(at, "validation_context"), e) && ok;
  const Path sds_context(at, "validation_context_sds_secret_config"), combined(at, "combined_validation_context");
  if (c.has_validation_context_sds_secret_config())
    ok = sds_secret(c.validation_context_sds_secret_config(), sds_context, e) && ok;
  if (c.has_combined_validation_context()) {
    const auto& both = c.combined_validation_context();
    const Path one(combined, "default_validation_context"), other(combined, "validation_context_sds_secret_config");
    if (!both.has_default_validation_context()) ok = complain(one, e, "is required");
    else ok = validation_context(both.default_validation_context(), false, one, e) && ok;
    if (!both.has_validation_context_sds_secret_config()) ok = complain(other, e, "is required");
    else ok = sds_secret(both.validation_context_sds_secret_config(), other, e) && ok;
  }
  return ok;
}

// Whether a certificate is judged at all; what a secret says is not known here.
bool may_judge(const tls_api::CommonTlsContext& c) {
  if (!c.has_validation_context()) return c.has_validation_context_sds_secret_config() || c.has_combined_validation_context();
  const auto& v = c.validation_context();
  return v.has_trusted_ca() || v.has_system_root_certs() || v.verify_certificate_hash_size() > 0 ||
         v.verify_certificate_spki_size() > 0;
}

}  // namespace

bool certificate(const tls_api::TlsCertificate& c, const Path& at, ErrorSink& e) {
  const Path chain(at, "certificate_chain"), key(at, "private_key");
  bool ok = true;
  if (!c.has_certificate_chain()) ok = complain(chain, e, "is required");
  else ok = data_source(c.certificate_chain(), chain, e);
  if (!c.has_private_key()) ok = complain(key, e, "is required");
  else if (c.private_key().inline_string() == kRedacted || c.private_key().inline_bytes() == kRedacted)
    ok = complain(Path(key, c.private_key().has_inline_bytes() ? "inline_bytes" : "inline_string"), e,
                  "is \"[redacted]\": what is shown of an object has no private keys; put the key in its place, or name its file "
                  "with `filename`");
  else ok = data_source(c.private_key(), key, e) && ok;
  if (!ok) return false;
  const auto chain_pem = read_data_source(c.certificate_chain()), key_pem = read_data_source(c.private_key());
  if (!chain_pem.ok() || !key_pem.ok()) return complain(at, e, "changed while it was read");
  const auto info = tls::check_certificate(*chain_pem, *key_pem, std::time(nullptr));
  if (!info.ok()) return complain(at, e, info.error());
  return !c.has_ocsp_staple() || readable(c.ocsp_staple(), Path(at, "ocsp_staple"), e,
                                          [&](const std::string& der) { return tls::check_ocsp_staple(der, *chain_pem); });
}

bool ticket_keys(const tls_api::TlsSessionTicketKeys& t, const Path& at, ErrorSink& e) {
  constexpr size_t kKeyBytes = 80;
  constexpr int kMostKeys = 16;
  if (t.keys().empty()) return complain(Path(at, "keys"), e, "must have at least one key");
  if (t.keys_size() > kMostKeys) return complain(Path(at, "keys"), e, "must have at most 16 keys");
  bool ok = true;
  for (int i = 0; i < t.keys_size(); ++i) {
    const Path here(at, "keys", i);
    if (t.keys(i).inline_string() == kRedacted || t.keys(i).inline_bytes() == kRedacted) {
      ok = complain(here, e, "is \"[redacted]\": put the key in its place, or name its file with `filename`");
      continue;
    }
    ok = readable(t.keys(i), here, e,
                  [](const std::string& key) -> base::Status {
                    if (key.size() == kKeyBytes) return {};
                    return base::Error{"must have 80 bytes, this has " + std::to_string(key.size())};
                  }) &&
         ok;
  }
  return ok;
}

bool validation_context(const tls_api::CertificateValidationContext& v, bool alone, const Path& at, ErrorSink& e) {
  constexpr uint32_t kMostVerifyDepth = 100;
  bool ok = true;
  if (v.has_trusted_ca())
    ok = readable(v.trusted_ca(), Path(at, "trusted_ca"), e, [](const std::string& s) { return tls::check_ca_bundle(s); });
  if (v.has_crl()) ok = readable(v.crl(), Path(at, "crl"), e, [](const std::string& s) { return tls::check_crls(s); }) && ok;
  if (v.has_system_root_certs() && !v.has_trusted_ca()) {
    const auto roots = system_roots();
    if (!roots.ok()) ok = complain(Path(at, "system_root_certs"), e, roots.error());
    else if (const auto checked = tls::check_ca_bundle(*roots); !checked.ok())
      ok = complain(Path(at, "system_root_certs"), e, checked.error());
  }
  if (alone && !v.has_trusted_ca() && !v.has_system_root_certs()) {
    if (v.has_crl()) ok = complain(Path(at, "crl"), e, "needs a trusted_ca");
    if (v.match_typed_subject_alt_names_size() > 0)
      ok = complain(Path(at, "match_typed_subject_alt_names"), e,
                    "needs a trusted_ca: anybody can write any name into a certificate that nobody verifies");
  }
  Sha256 digest;
  for (int i = 0; i < v.verify_certificate_hash_size(); ++i)
    if (!parse_certificate_hash(v.verify_certificate_hash(i), &digest))
      ok = complain(Path(at, "verify_certificate_hash", i), e,
                    "must be a SHA-256 in hex: 64 digits, or 32 pairs joined by colons");
  for (int i = 0; i < v.verify_certificate_spki_size(); ++i)
    if (!parse_spki_hash(v.verify_certificate_spki(i), &digest))
      ok = complain(Path(at, "verify_certificate_spki", i), e, "must be a SHA-256 in base64: 44 characters");
  for (int i = 0; i < v.match_typed_subject_alt_names_size(); ++i)
    ok = name_matcher(v.match_typed_subject_alt_names(i), Path(at, "match_typed_subject_alt_names", i), e) && ok;
  if (v.has_max_verify_depth() && v.max_verify_depth().value() > kMostVerifyDepth)
    ok = complain(Path(at, "max_verify_depth"), e, "must be at most 100");
  return ok;
}

bool downstream_tls(const api::DownstreamTlsContext& t, const Path& at, ErrorSink& e) {
  const Path common(at, "common_tls_context");
  if (!t.has_common_tls_context()) return complain(common, e, "is required");
  bool ok = common_context(t.common_tls_context(), true, common, e);
  if (t.require_client_certificate().value() && !may_judge(t.common_tls_context()))
    ok = complain(Path(at, "require_client_certificate"), e,
                  "needs a validation_context with a trusted_ca or hashes: a certificate that nobody verifies proves nothing");
  if (t.has_session_ticket_keys()) ok = ticket_keys(t.session_ticket_keys(), Path(at, "session_ticket_keys"), e) && ok;
  const Path sds(at, "session_ticket_keys_sds_secret_config");
  if (t.has_session_ticket_keys_sds_secret_config()) ok = sds_secret(t.session_ticket_keys_sds_secret_config(), sds, e) && ok;
  constexpr int64_t kMostSeconds = UINT32_MAX;
  if (t.has_session_timeout() && (t.session_timeout().seconds() < 0 || t.session_timeout().seconds() > kMostSeconds))
    ok = complain(Path(at, "session_timeout"), e, "must be from 0s to 4294967295s");
  const auto missing_staple = [&](int i) {
    const Path one(common, "tls_certificates", i);
    return complain(Path(one, "ocsp_staple"), e, "is required by ocsp_staple_policy MUST_STAPLE");
  };
  if (t.ocsp_staple_policy() == api::DownstreamTlsContext::MUST_STAPLE)
    for (int i = 0; i < t.common_tls_context().tls_certificates_size(); ++i)
      if (!t.common_tls_context().tls_certificates(i).has_ocsp_staple()) ok = missing_staple(i);
  return ok;
}

bool upstream_tls(const api::UpstreamTlsContext& t, const Path& at, ErrorSink& e) {
  constexpr size_t kMostSniBytes = 255;
  constexpr uint32_t kMostSessionKeys = 1024;  // of each worker
  const Path common(at, "common_tls_context");
  bool ok = common_context(t.common_tls_context(), false, common, e);
  if (t.sni().size() > kMostSniBytes) ok = complain(Path(at, "sni"), e, "must have at most 255 bytes");
  if (t.sni().find('\0') != std::string::npos) ok = complain(Path(at, "sni"), e, "must not hold a NUL");
  if (t.max_session_keys().value() > kMostSessionKeys)
    ok = complain(Path(at, "max_session_keys"), e, "must be at most " + std::to_string(kMostSessionKeys));
  const tls_api::CommonTlsContext& c = t.common_tls_context();
  const bool elsewhere = c.has_validation_context_sds_secret_config() || c.has_combined_validation_context();
  if (t.auto_sni_san_validation() && !elsewhere && !c.validation_context().has_trusted_ca() &&
      !c.validation_context().has_system_root_certs())
    ok = complain(Path(at, "auto_sni_san_validation"), e, "needs a validation_context with a trusted_ca");
  return ok;
}

}  // namespace millrace::control::rules
