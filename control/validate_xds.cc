// Where resources come from: ConfigSource and what it is made of, Bootstrap.dynamic_resources.
#include <algorithm>

#include "control/proto_values.h"
#include "control/validate.h"
#include "control/validate_rules.h"
#include "lib/api/envoy.config.grpc_credential.v3.pb.h"

namespace millrace::control {

using namespace rules;

namespace {

using core::ApiConfigSource;
using core::ConfigSource;
using core::GrpcService;

constexpr std::string_view kFileCredentials = "envoy.grpc_credentials.file_based_metadata";
constexpr std::string_view kDefaultCredentials = "envoy.grpc_credentials.default";

bool ssl_credentials(const GrpcService::GoogleGrpc::SslCredentials& ssl, const Path& at, ErrorSink& e) {
  bool ok = true;
  if (ssl.has_root_certs()) ok = data_source(ssl.root_certs(), Path(at, "root_certs"), e);
  if (ssl.has_private_key()) ok = data_source(ssl.private_key(), Path(at, "private_key"), e) && ok;
  if (ssl.has_cert_chain()) ok = data_source(ssl.cert_chain(), Path(at, "cert_chain"), e) && ok;
  if (ssl.has_private_key() == ssl.has_cert_chain()) return ok;
  e.add(at, "private_key and cert_chain come together");
  return false;
}

bool call_credentials(const GrpcService::GoogleGrpc& g, const Path& at, ErrorSink& e) {
  bool ok = true;
  for (int i = 0; i < g.call_credentials_size(); ++i) {
    const auto& c = g.call_credentials(i);
    const Path here(at, "call_credentials", i), plugin(here, "from_plugin"), typed(plugin, "typed_config");
    if (!c.access_token().empty()) {
      ok = header_value(c.access_token(), Path(here, "access_token"), e) && ok;
    } else if (c.has_from_plugin()) {
      envoy::config::grpc_credential::v3::FileBasedMetadataConfig file;
      if (c.from_plugin().name() != kFileCredentials) {
        e.add(Path(plugin, "name"), "\"" + c.from_plugin().name() + "\" is not supported by Millrace yet; the only choice is \"" +
                                        std::string(kFileCredentials) + "\"");
        ok = false;
      } else if (!c.from_plugin().typed_config().UnpackTo(&file)) {
        e.add(typed, "must be an envoy.config.grpc_credential.v3.FileBasedMetadataConfig");
        ok = false;
      } else {
        ok = known_fields_only(file, typed, e) && ok;
        ok = data_source(file.secret_data(), Path(typed, "secret_data"), e) && ok;
        if (!file.header_key().empty()) ok = header_name(file.header_key(), Path(typed, "header_key"), e) && ok;
        ok = header_value(file.header_prefix(), Path(typed, "header_prefix"), e) && ok;
      }
      if (g.credentials_factory_name() != kFileCredentials) {
        e.add(Path(at, "credentials_factory_name"), "must be \"" + std::string(kFileCredentials) + "\" with from_plugin");
        ok = false;
      }
    } else {
      e.add(here, "needs access_token or from_plugin");
      ok = false;
    }
  }
  // A token in clear text is everybody's.
  if (g.call_credentials_size() > 0 && !g.has_channel_credentials()) {
    e.add(Path(at, "channel_credentials"), "is required with call_credentials: tokens are not sent without encryption");
    ok = false;
  }
  return ok;
}

bool google_grpc(const GrpcService::GoogleGrpc& g, const Path& at, ErrorSink& e) {
  bool ok = not_empty(g.target_uri(), Path(at, "target_uri"), e);
  ok = not_empty(g.stat_prefix(), Path(at, "stat_prefix"), e) && ok;
  if (g.has_channel_credentials()) {
    const auto& c = g.channel_credentials();
    const Path credentials(at, "channel_credentials");
    if (c.has_ssl_credentials()) {
      ok = ssl_credentials(c.ssl_credentials(), Path(credentials, "ssl_credentials"), e) && ok;
    } else if (!c.has_local_credentials()) {
      e.add(credentials, "needs ssl_credentials or local_credentials");
      ok = false;
    }
  }
  const std::string& factory = g.credentials_factory_name();
  if (!factory.empty() && factory != kDefaultCredentials && factory != kFileCredentials) {
    e.add(Path(at, "credentials_factory_name"), "\"" + factory + "\" is not supported by Millrace yet; supported are \"" +
                                                    std::string(kDefaultCredentials) + "\" and \"" +
                                                    std::string(kFileCredentials) + "\"");
    ok = false;
  }
  return call_credentials(g, at, e) && ok;
}

bool grpc_service(const GrpcService& s, const Path& at, ErrorSink& e) {
  bool ok = true;
  if (s.has_envoy_grpc()) {
    const Path grpc(at, "envoy_grpc");
    ok = not_empty(s.envoy_grpc().cluster_name(), Path(grpc, "cluster_name"), e);
    ok = header_value(s.envoy_grpc().authority(), Path(grpc, "authority"), e) && ok;
  } else if (s.has_google_grpc()) {
    ok = google_grpc(s.google_grpc(), Path(at, "google_grpc"), e);
  } else {
    e.add(at, "needs envoy_grpc or google_grpc");
    ok = false;
  }
  for (int i = 0; i < s.initial_metadata_size(); ++i) {
    const Path here(at, "initial_metadata", i), key(here, "key"), value(here, "value");
    ok = header_name(s.initial_metadata(i).key(), key, e) && ok;
    ok = header_value(s.initial_metadata(i).value(), value, e) && ok;
    if (s.initial_metadata(i).value().find('%') != std::string::npos) {
      e.add(value, "commands (%...%) are not supported here by Millrace yet");
      ok = false;
    }
  }
  return ok;
}

}  // namespace

bool rules::api_config_source(const ApiConfigSource& s, const Path& at, ErrorSink& e) {
  bool ok = true;
  if (s.api_type() != ApiConfigSource::GRPC && s.api_type() != ApiConfigSource::DELTA_GRPC) {
    e.add(Path(at, "api_type"), "must be GRPC or DELTA_GRPC");
    ok = false;
  }
  if (s.grpc_services().empty()) {
    e.add(Path(at, "grpc_services"), "must name at least one server");
    ok = false;
  }
  for (int i = 0; i < s.grpc_services_size(); ++i) ok = grpc_service(s.grpc_services(i), Path(at, "grpc_services", i), e) && ok;
  return ok;
}

bool rules::config_source(const ConfigSource& s, const Path& at, ErrorSink& e) {
  bool ok = true;
  switch (s.config_source_specifier_case()) {
    case ConfigSource::kApiConfigSource:
      ok = api_config_source(s.api_config_source(), Path(at, "api_config_source"), e);
      break;
    case ConfigSource::kPathConfigSource: {
      const Path file(at, "path_config_source"), directory(file, "watched_directory");
      ok = not_empty(s.path_config_source().path(), Path(file, "path"), e);
      if (s.path_config_source().has_watched_directory())
        ok = not_empty(s.path_config_source().watched_directory().path(), Path(directory, "path"), e) && ok;
      break;
    }
    case ConfigSource::kPath:
      ok = not_empty(s.path(), Path(at, "path"), e);
      break;
    case ConfigSource::kAds:
      break;
    case ConfigSource::kSelf:
      e.add(Path(at, "self"), "says nothing here: there is no source that this is written in");
      ok = false;
      break;
    case ConfigSource::CONFIG_SOURCE_SPECIFIER_NOT_SET:
      e.add(at, "needs ads, api_config_source or path_config_source");
      ok = false;
  }
  if (s.has_initial_fetch_timeout()) ok = duration(s.initial_fetch_timeout(), Path(at, "initial_fetch_timeout"), e) && ok;
  return ok;
}

bool read_dynamic_resources(const envoy::config::bootstrap::v3::Bootstrap::DynamicResources& d, ErrorSink& e, XdsConfig* out) {
  const Path root, lds(root, "lds_config"), cds(root, "cds_config"), ads(root, "ads_config");
  bool ok = true;
  if (d.has_ads_config()) {
    ok = api_config_source(d.ads_config(), ads, e);
    out->ads = d.ads_config();
  }
  const auto take = [&](bool has, const ConfigSource& source, const Path& at, std::optional<ConfigSource>* to) {
    if (!has) return;
    ok = config_source(source, at, e) && ok;
    if (source.has_ads() && !d.has_ads_config()) {
      e.add(at, "`ads` names the stream of dynamic_resources.ads_config, which is not there");
      ok = false;
    }
    if (source.has_api_config_source()) {
      e.add(at, "only ads and path_config_source are supported here by Millrace yet");
      ok = false;
    }
    *to = source;
  };
  take(d.has_lds_config(), d.lds_config(), lds, &out->lds);
  take(d.has_cds_config(), d.cds_config(), cds, &out->cds);
  return ok;
}

}  // namespace millrace::control
