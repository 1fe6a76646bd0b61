#include "control/xds_channel.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <map>
#include <sstream>

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <grpcpp/support/channel_arguments.h>

#include "lib/api/envoy.config.grpc_credential.v3.pb.h"

namespace millrace::control {

namespace {

namespace core = envoy::config::core::v3;
namespace tls = envoy::extensions::transport_sockets::tls::v3;
using base::Error;
using base::Result;
using envoy::type::matcher::v3::StringMatcher;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

Result<std::string> read(const core::DataSource& source) {
  if (source.specifier_case() == core::DataSource::kInlineString) return source.inline_string();
  if (source.specifier_case() == core::DataSource::kInlineBytes) return source.inline_bytes();
  std::ifstream in(source.filename(), std::ios::binary);
  std::stringstream text;
  if (in) text << in.rdbuf();
  if (!in.is_open() || in.bad()) return Error{source.filename() + ": cannot be read"};
  return text.str();
}

// A server's certificate must have one of these names (match_typed_subject_alt_names).
class NameVerifier final : public grpc::experimental::ExternalCertificateVerifier {
 public:
  explicit NameVerifier(std::vector<tls::SubjectAltNameMatcher> matchers) : matchers_(std::move(matchers)) {}
  bool Verify(grpc::experimental::TlsCustomVerificationCheckRequest* request, std::function<void(grpc::Status)>,
              grpc::Status* status) override {
    for (const tls::SubjectAltNameMatcher& m : matchers_)
      for (const grpc::string_ref& name : names(*request, m.san_type()))
        if (holds(m, std::string(name.data(), name.size()))) {
          *status = grpc::Status::OK;
          return true;
        }
    *status = grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "no subjectAltName of the server's certificate is expected");
    return true;
  }
  void Cancel(grpc::experimental::TlsCustomVerificationCheckRequest*) override {}

  static bool supported(const StringMatcher& m) {
    return m.match_pattern_case() == StringMatcher::kExact || m.match_pattern_case() == StringMatcher::kPrefix ||
           m.match_pattern_case() == StringMatcher::kSuffix || m.match_pattern_case() == StringMatcher::kContains;
  }

 private:
  using Type = tls::SubjectAltNameMatcher;
  static std::vector<grpc::string_ref> names(const grpc::experimental::TlsCustomVerificationCheckRequest& r, Type::SanType type) {
    switch (type) {
      case Type::EMAIL:
        return r.email_names();
      case Type::DNS:
        return r.dns_names();
      case Type::URI:
        return r.uri_names();
      case Type::IP_ADDRESS:
        return r.ip_names();
      default:
        return {};
    }
  }
  static bool holds(const Type& m, std::string name) {
    const StringMatcher& s = m.matcher();
    const bool fold = s.ignore_case() || m.san_type() == Type::DNS;
    const auto folded = [&](const std::string& t) { return fold ? lower(t) : t; };
    name = folded(name);
    switch (s.match_pattern_case()) {
      case StringMatcher::kExact: {
        const std::string want = folded(s.exact());
        if (name == want) return true;
        // A wildcard of a certificate stands for one label (RFC 6125 6.4.3).
        const size_t dot = want.find('.');
        return m.san_type() == Type::DNS && name.starts_with("*.") && dot != std::string::npos && dot > 0 &&
               name.substr(1) == want.substr(dot);
      }
      case StringMatcher::kPrefix:
        return name.starts_with(folded(s.prefix()));
      case StringMatcher::kSuffix:
        return name.ends_with(folded(s.suffix()));
      case StringMatcher::kContains:
        return name.find(folded(s.contains())) != std::string::npos;
      default:
        return false;
    }
  }

  const std::vector<tls::SubjectAltNameMatcher> matchers_;
};

using Credentials = std::shared_ptr<grpc::ChannelCredentials>;

Result<Credentials> cluster_credentials(const ClusterObject& cluster, const Model& model) {
  if (!cluster.has_tls) return grpc::InsecureChannelCredentials();
  const auto refuse = [&](const std::string& what) {
    return Error{"cluster " + cluster.name + ": " + what + " is not supported towards management servers by Millrace yet"};
  };
  const tls::CommonTlsContext& common = cluster.tls.common_tls_context();
  if (common.has_tls_params()) return refuse("common_tls_context.tls_params");
  if (common.has_combined_validation_context()) return refuse("common_tls_context.combined_validation_context");
  if (cluster.tls.auto_host_sni() || cluster.tls.auto_sni_san_validation()) return refuse("auto_host_sni");
  std::string roots;
  std::vector<grpc::experimental::IdentityKeyCertPair> identity;
  std::vector<tls::SubjectAltNameMatcher> matchers;
  const std::string validation =
      cluster.secrets.validation.empty() ? cluster.secrets.validation_more : cluster.secrets.validation;
  if (!validation.empty()) {
    const auto secret = model.secrets().find(validation);
    if (secret == model.secrets().end()) return Error{"cluster " + cluster.name + ": secret " + validation + " is not there"};
    roots = secret->second->trusted_ca_pem;
    const tls::CertificateValidationContext& v = secret->second->config->validation_context();
    if (v.verify_certificate_hash_size() > 0 || v.verify_certificate_spki_size() > 0) return refuse("verify_certificate_hash");
    if (v.has_crl() || v.allow_expired_certificate() || v.has_system_root_certs() || v.has_max_verify_depth() ||
        v.trust_chain_verification() != tls::CertificateValidationContext::VERIFY_TRUST_CHAIN)
      return refuse("more of a validation context than trusted_ca and match_typed_subject_alt_names");
    for (const tls::SubjectAltNameMatcher& m : v.match_typed_subject_alt_names()) {
      if (!NameVerifier::supported(m.matcher())) return refuse("match_typed_subject_alt_names with a regular expression");
      matchers.push_back(m);
    }
  }
  for (const std::string& name : cluster.secrets.certificates) {
    const auto secret = model.secrets().find(name);
    if (secret == model.secrets().end()) return Error{"cluster " + cluster.name + ": secret " + name + " is not there"};
    identity.push_back({secret->second->private_key_pem, secret->second->certificate_chain_pem});
  }
  // As Envoy: without trusted_ca the server's certificate is not verified, and its name is what matchers say, not the target's.
  grpc::experimental::TlsChannelCredentialsOptions options;
  if (!roots.empty() || !identity.empty())
    options.set_certificate_provider(std::make_shared<grpc::experimental::StaticDataCertificateProvider>(roots, identity));
  if (!roots.empty()) options.watch_root_certs();
  if (!identity.empty()) options.watch_identity_key_cert_pairs();
  options.set_verify_server_certs(!roots.empty());
  options.set_check_call_host(false);
  if (matchers.empty()) options.set_certificate_verifier(std::make_shared<grpc::experimental::NoOpCertificateVerifier>());
  else options.set_certificate_verifier(grpc::experimental::ExternalCertificateVerifier::Create<NameVerifier>(matchers));
  Credentials out = grpc::experimental::TlsCredentials(options);
  if (out == nullptr) return Error{"cluster " + cluster.name + ": its certificates cannot be used"};
  return out;
}

// Endpoints in order, those of the first one's family: gRPC tries the addresses of a target one after another.
Result<std::string> cluster_target(const std::string& name, const Model& model) {
  const auto endpoints = model.endpoints().find(name);
  std::multimap<uint32_t, std::string> v4, v6;  // by priority
  bool first_is_v6 = false, any = false;
  if (endpoints != model.endpoints().end())
    for (const auto& group : endpoints->second->config->endpoints())
      for (const auto& e : group.lb_endpoints()) {
        const auto& a = e.endpoint().address().socket_address();
        const bool is_v6 = a.address().find(':') != std::string::npos;
        if (!any) first_is_v6 = is_v6;
        any = true;
        if (is_v6) v6.emplace(group.priority(), "[" + a.address() + "]:" + std::to_string(a.port_value()));
        else v4.emplace(group.priority(), a.address() + ":" + std::to_string(a.port_value()));
      }
  if (!any) return Error{"cluster " + name + " has no endpoint"};
  std::string out;
  for (const auto& [priority, address] : first_is_v6 ? v6 : v4) out += (out.empty() ? "" : ",") + address;
  return (first_is_v6 ? "ipv6:" : "ipv4:") + out;
}

Result<XdsChannel> open_cluster(const core::GrpcService::EnvoyGrpc& grpc_service, const Model& model,
                                grpc::ChannelArguments& args) {
  const std::string& name = grpc_service.cluster_name();
  const auto cluster = model.clusters().find(name);
  if (cluster == model.clusters().end()) return Error{"cluster " + name + " is not there"};
  const Result<std::string> target = cluster_target(name, model);
  if (!target.ok()) return Error{target.error()};
  const Result<Credentials> credentials = cluster_credentials(*cluster->second, model);
  if (!credentials.ok()) return Error{credentials.error()};
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (grpc_service.has_max_receive_message_length()) {
    const uint32_t most = grpc_service.max_receive_message_length().value();
    args.SetMaxReceiveMessageSize(static_cast<int>(std::min<uint32_t>(most, kMaxResponseBytes)));
  }
  const std::string& sni = cluster->second->tls.sni();
  if (cluster->second->has_tls && !sni.empty()) args.SetSslTargetNameOverride(sni);
  return XdsChannel{grpc::CreateCustomChannel(*target, *credentials, args),
                    {},
                    grpc_service.authority().empty() ? name : grpc_service.authority()};
}

Result<XdsChannel> open_google(const core::GrpcService::GoogleGrpc& g, grpc::ChannelArguments& args) {
  Credentials credentials = grpc::InsecureChannelCredentials();
  if (g.channel_credentials().has_local_credentials()) {
    credentials = grpc::experimental::LocalCredentials(LOCAL_TCP);
  } else if (g.channel_credentials().has_ssl_credentials()) {
    const auto& ssl = g.channel_credentials().ssl_credentials();
    grpc::SslCredentialsOptions options;
    const auto take = [](bool has, const core::DataSource& from, std::string* to) -> base::Status {
      if (!has) return {};
      Result<std::string> text = read(from);
      if (!text.ok()) return Error{text.error()};
      *to = std::move(text).value();
      return {};
    };
    for (const base::Status& s : {take(ssl.has_root_certs(), ssl.root_certs(), &options.pem_root_certs),
                                  take(ssl.has_private_key(), ssl.private_key(), &options.pem_private_key),
                                  take(ssl.has_cert_chain(), ssl.cert_chain(), &options.pem_cert_chain)})
      if (!s.ok()) return Error{s.error()};
    credentials = grpc::SslCredentials(options);
    if (credentials == nullptr) return Error{g.target_uri() + ": its ssl_credentials cannot be used"};
  }
  for (const auto& [key, value] : g.channel_args().args()) {
    if (value.value_specifier_case() == core::GrpcService::GoogleGrpc::ChannelArgs::Value::kIntValue)
      args.SetInt(key, static_cast<int>(value.int_value()));
    else args.SetString(key, value.string_value());
  }
  XdsChannel out;
  for (const auto& c : g.call_credentials()) {
    if (!c.access_token().empty()) {
      out.metadata.emplace_back("authorization", "Bearer " + c.access_token());
      continue;
    }
    envoy::config::grpc_credential::v3::FileBasedMetadataConfig file;
    if (!c.from_plugin().typed_config().UnpackTo(&file)) return Error{g.target_uri() + ": no FileBasedMetadataConfig"};
    Result<std::string> token = read(file.secret_data());
    if (!token.ok()) return Error{token.error()};
    while (token->ends_with('\n') || token->ends_with('\r')) token->pop_back();
    out.metadata.emplace_back(file.header_key().empty() ? "authorization" : lower(file.header_key()),
                              file.header_prefix() + *token);
  }
  out.channel = grpc::CreateCustomChannel(g.target_uri(), credentials, args);
  return out;
}

}  // namespace

std::string server_name(const core::GrpcService& service) {
  if (service.has_envoy_grpc()) return "cluster " + service.envoy_grpc().cluster_name();
  return service.google_grpc().target_uri();
}

Result<XdsChannel> open_channel(const core::GrpcService& service, const Model& model) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // an attempt is not held up by the back-off of one before it
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  args.SetMaxReceiveMessageSize(kMaxResponseBytes);
  Result<XdsChannel> out =
      service.has_envoy_grpc() ? open_cluster(service.envoy_grpc(), model, args) : open_google(service.google_grpc(), args);
  if (!out.ok()) return out;
  for (const core::HeaderValue& h : service.initial_metadata()) out->metadata.emplace_back(lower(h.key()), h.value());
  return out;
}

}  // namespace millrace::control
