// Secrets, and the TLS contexts that use them: files are read here, what is written inline becomes a secret of its own.
#include "control/model_builder.h"
#include "control/proto_values.h"
#include "control/tls_values.h"

namespace millrace::control {

namespace {

namespace tls_api = envoy::extensions::transport_sockets::tls::v3;

// Reads every file that the secret names; "" or why not.
std::string read_files(SecretObject* s) {
  const auto read = [](bool there, const envoy::config::core::v3::DataSource& source, std::string* out) -> std::string {
    if (!there) return "";
    auto text = read_data_source(source);
    if (!text.ok()) return text.error();
    *out = *std::move(text);
    return "";
  };
  const auto& c = s->config->tls_certificate();
  const auto& v = s->config->validation_context();
  for (std::string bad : {read(c.has_certificate_chain(), c.certificate_chain(), &s->certificate_chain_pem),
                          read(c.has_private_key(), c.private_key(), &s->private_key_pem),
                          read(c.has_ocsp_staple(), c.ocsp_staple(), &s->ocsp_staple),
                          read(v.has_trusted_ca(), v.trusted_ca(), &s->trusted_ca_pem), read(v.has_crl(), v.crl(), &s->crl_pem)})
    if (!bad.empty()) return bad;
  if (v.has_system_root_certs() && !v.has_trusted_ca()) {
    auto roots = system_roots();
    if (!roots.ok()) return roots.error();
    s->trusted_ca_pem = *std::move(roots);
  }
  for (const auto& key : s->config->session_ticket_keys().keys()) {
    std::string text;
    if (std::string bad = read(true, key, &text); !bad.empty()) return bad;
    s->ticket_keys += text;
  }
  return "";
}

}  // namespace

std::vector<std::string> TlsSecrets::all() const {
  std::vector<std::string> out = certificates;
  for (const std::string& name : {validation, validation_more, ticket_keys})
    if (!name.empty()) out.push_back(name);
  return out;
}

void ModelBuilder::add_or_keep_secret(SecretObject secret) {
  const auto old = before_.secrets_.find(secret.name);
  if (old != before_.secrets_.end() && static_cast<const SecretFiles&>(*old->second) == secret &&
      same_bytes(*old->second->config, *secret.config) && old->second->derived == secret.derived &&
      old->second->dynamic == secret.dynamic) {
    now_.secrets_[secret.name] = old->second;
    return;
  }
  const std::string name = secret.name;
  now_.secrets_[name] = std::make_shared<const SecretObject>(std::move(secret));
}

void ModelBuilder::put_secret(const LoadedObject& o) {
  SecretObject s;
  s.config = std::static_pointer_cast<const api::Secret>(std::shared_ptr<const google::protobuf::Message>(o.message));
  s.name = s.config->name();
  s.dynamic = o.dynamic;
  if (!claim({ConfigKind::kSecret, s.name}, o, "name")) return;
  if (const std::string bad = read_files(&s); !bad.empty()) return complain("secret " + s.name + ": " + bad);
  add_or_keep_secret(std::move(s));
}

template <class Fill>
std::string ModelBuilder::derive_secret(const std::string& name, const ConfigKey& owner, Fill&& fill, std::string* bad) {
  SecretObject s;
  s.name = name;
  s.owner = owner;
  s.derived = true;
  s.dynamic = putting_dynamic_;
  auto config = std::make_shared<api::Secret>();
  config->set_name(name);
  fill(*config);
  s.config = std::move(config);
  if (bad->empty()) *bad = read_files(&s);
  put_.emplace(ConfigKey{ConfigKind::kSecret, name}, static_cast<int>(put_.size()));
  add_or_keep_secret(std::move(s));
  return name;
}

void ModelBuilder::ask_secret(const tls_api::SdsSecretConfig& sds, TlsSecrets* out) {
  if (!sds.has_sds_config()) return;
  out->discovered.push_back(sds.name());
  const ResourceFile file = file_of(sds.sds_config());
  if (!file.there()) return;
  out->files.emplace(sds.name(), file);
  now_.asks_files_ = true;
}

std::string ModelBuilder::derive_ticket_keys(const api::DownstreamTlsContext& tls, const ConfigKey& owner,
                                             const std::string& place, TlsSecrets* out) {
  std::string bad;
  if (tls.has_session_ticket_keys())
    out->ticket_keys = derive_secret(
        place + "/session_ticket_keys", owner,
        [&](api::Secret& s) { *s.mutable_session_ticket_keys() = tls.session_ticket_keys(); }, &bad);
  if (tls.has_session_ticket_keys_sds_secret_config()) {
    out->ticket_keys = tls.session_ticket_keys_sds_secret_config().name();
    ask_secret(tls.session_ticket_keys_sds_secret_config(), out);
  }
  return bad;
}

std::string ModelBuilder::derive_secrets(const CommonTlsContext& common, const ConfigKey& owner, const std::string& place,
                                         TlsSecrets* out) {
  std::string bad;
  const auto derive = [&](const std::string& name, auto&& fill) { return derive_secret(place + "/" + name, owner, fill, &bad); };
  for (int i = 0; i < common.tls_certificates_size(); ++i)
    out->certificates.push_back(derive("tls_certificates[" + std::to_string(i) + "]",
                                       [&](api::Secret& s) { *s.mutable_tls_certificate() = common.tls_certificates(i); }));
  for (const auto& sds : common.tls_certificate_sds_secret_configs()) {
    out->certificates.push_back(sds.name());
    ask_secret(sds, out);
  }
  const auto context = [&](const tls_api::CertificateValidationContext& v) {
    out->validation = derive("validation_context", [&](api::Secret& s) { *s.mutable_validation_context() = v; });
  };
  if (common.has_validation_context()) context(common.validation_context());
  const auto more = [&](const tls_api::SdsSecretConfig& sds) {
    out->validation_more = sds.name();
    ask_secret(sds, out);
  };
  if (common.has_combined_validation_context()) {
    context(common.combined_validation_context().default_validation_context());
    more(common.combined_validation_context().validation_context_sds_secret_config());
  }
  if (common.has_validation_context_sds_secret_config()) more(common.validation_context_sds_secret_config());
  return bad;
}

void ModelBuilder::forget_derived(const TlsSecrets& secrets) {
  for (const std::string& s : secrets.all())
    if (const auto it = now_.secrets_.find(s); it != now_.secrets_.end() && it->second->derived) now_.secrets_.erase(it);
}

void ModelBuilder::restore_derived(const TlsSecrets& secrets) {
  for (const std::string& s : secrets.all()) {
    const auto now = now_.secrets_.find(s);
    const auto before = before_.secrets_.find(s);
    const bool derived = (now != now_.secrets_.end() && now->second->derived) ||
                         (now == now_.secrets_.end() && before != before_.secrets_.end() && before->second->derived);
    if (derived) restore_in(now_.secrets_, before_.secrets_, s);
  }
}

bool ModelBuilder::secret_known(const std::string& name, api::Secret::TypeCase type, const std::string& path,
                                ErrorSink& errors) const {
  const auto s = now_.secrets_.find(name);
  const bool there = s != now_.secrets_.end() && !s->second->derived;
  if (there && s->second->config->type_case() == type) return true;
  if (bad_.contains({ConfigKind::kSecret, name})) return false;
  const char* kind = type == api::Secret::kTlsCertificate      ? "tls_certificate"
                     : type == api::Secret::kValidationContext ? "validation_context"
                                                               : "session_ticket_keys";
  errors.add(path + ".name", there ? "secret '" + name + "' holds no " + kind : "unknown secret '" + name + "'");
  return false;
}

bool ModelBuilder::secrets_known(const CommonTlsContext& common, const std::string& path, ErrorSink& errors) const {
  bool ok = true;
  const auto known = [&](const tls_api::SdsSecretConfig& sds, api::Secret::TypeCase type, const std::string& at) {
    ok = (sds.has_sds_config()
              ? may_ask({ConfigKind::kSecret, sds.name()}, sds.sds_config(), errors, path + "." + at + ".sds_config")
              : secret_known(sds.name(), type, path + "." + at, errors)) &&
         ok;
  };
  for (int i = 0; i < common.tls_certificate_sds_secret_configs_size(); ++i)
    known(common.tls_certificate_sds_secret_configs(i), api::Secret::kTlsCertificate,
          "tls_certificate_sds_secret_configs[" + std::to_string(i) + "]");
  if (common.has_validation_context_sds_secret_config())
    known(common.validation_context_sds_secret_config(), api::Secret::kValidationContext, "validation_context_sds_secret_config");
  if (common.has_combined_validation_context())
    known(common.combined_validation_context().validation_context_sds_secret_config(), api::Secret::kValidationContext,
          "combined_validation_context.validation_context_sds_secret_config");
  return ok;
}

}  // namespace millrace::control
