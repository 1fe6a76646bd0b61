#include "control/validate_rules.h"

#include <ctime>

#include <google/protobuf/unknown_field_set.h>

#include "control/access_log_template.h"
#include "control/dns_names.h"
#include "control/proto_values.h"
#include "control/proto_writer.h"
#include "control/route_spec.h"
#include "lib/api/envoy.extensions.access_loggers.file.v3.pb.h"
#include "lib/api/envoy.extensions.access_loggers.stream.v3.pb.h"
#include "lib/base/ip_address.h"

namespace millrace::control::rules {

namespace {

bool complain(const Path& at, ErrorSink& e, std::string message) {
  e.add(at, std::move(message));
  return false;
}

bool token_char(char c) {  // RFC 9110 5.6.2
  return isalnum(static_cast<unsigned char>(c)) || std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

}  // namespace

bool not_empty(std::string_view value, const Path& at, ErrorSink& e) {
  return !value.empty() || complain(at, e, "must not be empty");
}

bool header_value(std::string_view value, const Path& at, ErrorSink& e) {
  for (const char c : value)
    if (c == '\0' || c == '\r' || c == '\n') return complain(at, e, "must not contain NUL, carriage return or line feed");
  return true;
}

bool header_name(std::string_view name, const Path& at, ErrorSink& e) {
  if (name.empty()) return complain(at, e, "must not be empty");
  for (const char c : name)
    if (!token_char(c))
      return complain(at, e, "\"" + std::string(name) + "\" is no header name: letters, digits and !#$%&'*+-.^_`|~ only");
  return true;
}

bool upgrade_type(std::string_view type, const Path& at, ErrorSink& e) {
  if (type.empty()) return complain(at, e, "must not be empty");
  const size_t slash = type.find('/');
  const bool versioned = slash != std::string_view::npos;
  const auto is_token = [](std::string_view s) {
    return !s.empty() && std::all_of(s.begin(), s.end(), [](char c) { return token_char(c); });
  };
  if (is_token(type.substr(0, slash)) && (!versioned || is_token(type.substr(slash + 1)))) return true;
  return complain(at, e, "\"" + std::string(type) + "\" names no protocol: a token, or two with a slash between them");
}

bool duration(const google::protobuf::Duration& d, const Path& at, ErrorSink& e, int64_t least_ms) {
  if (d.seconds() < 0 || d.nanos() < 0) return complain(at, e, "must not be negative");
  if (d.seconds() > kMaxDurationMs / 1000 - 1)
    return complain(at, e, "must be at most " + std::to_string(kMaxDurationMs / 1000 - 1) + "s");
  if (to_ms(d) < least_ms) return complain(at, e, "must be at least " + std::to_string(least_ms) + " ms");
  return true;
}

bool at_least(uint64_t value, uint64_t least, const Path& at, ErrorSink& e) {
  return value >= least || complain(at, e, "must be at least " + std::to_string(least) + ", not " + std::to_string(value));
}

constexpr std::string_view kNamesElsewhere = " (host names are resolved in clusters of type STRICT_DNS and LOGICAL_DNS only)";

bool address(bool has, const core::Address& a, const Path& at, ErrorSink& e, bool udp, bool names) {
  if (!has) return complain(at, e, "is required");
  const Path socket(at, "socket_address");
  if (!a.has_socket_address()) return complain(socket, e, "is required");
  const core::SocketAddress& s = a.socket_address();
  const Path protocol(socket, "protocol"), ip(socket, "address"), port(socket, "port_value");
  bool ok = true;
  if (s.protocol() == core::SocketAddress::UDP && !udp)
    ok = complain(protocol, e, "\"UDP\" is not supported by Millrace yet; the only choice is TCP");
  if (s.address().empty()) {
    ok = complain(ip, e, "must not be empty");
  } else if (!base::IpAddress::parse(s.address())) {
    if (!names) ok = complain(ip, e, "\"" + s.address() + "\" is no IP address" + (udp ? "" : std::string(kNamesElsewhere)));
    else if (!is_host_name(s.address())) ok = complain(ip, e, "\"" + s.address() + "\" is neither an IP address nor a host name");
  }
  if (s.port_specifier_case() != core::SocketAddress::kPortValue) ok = complain(port, e, "is required");
  else if (s.port_value() == 0 || s.port_value() > 65535)
    ok = complain(port, e, "must be a port from 1 to 65535, not " + std::to_string(s.port_value()));
  return ok;
}

bool data_source(const core::DataSource& d, const Path& at, ErrorSink& e) {
  const Path file(at, "filename");
  if (d.specifier_case() == core::DataSource::kFilename && d.filename().empty()) return complain(file, e, "must not be empty");
  if (const auto bytes = read_data_source(d); !bytes.ok())
    return complain(d.specifier_case() == core::DataSource::kFilename ? file : at, e, bytes.error());
  return true;
}

bool header_options(const google::protobuf::RepeatedPtrField<core::HeaderValueOption>& options, std::string_view field,
                    const Path& at, ErrorSink& e) {
  constexpr int kMost = 1000;  // Envoy's limit
  if (options.size() > kMost) return complain(Path(at, field), e, "has more than " + std::to_string(kMost) + " elements");
  bool ok = true;
  for (int i = 0; i < options.size(); ++i) {
    const core::HeaderValueOption& o = options[i];
    const Path here(at, field, i), header(here, "header"), key(header, "key"), value(header, "value");
    if (!o.has_header()) {
      ok = complain(header, e, "is required");
      continue;
    }
    const std::string& name = o.header().key();
    if (name.starts_with(':') || strcasecmp(name.c_str(), "host") == 0)
      ok = complain(key, e, ":-prefixed or host headers may not be modified");
    else ok = header_name(name, key, e) && ok;
    ok = header_value(o.header().value(), value, e) && ok;
    if (const auto parts = AccessLogTemplate::parse(o.header().value(), table::FormatWhere::kAnywhere); !parts.ok())
      ok = complain(value, e, parts.error());
    if (o.has_append() && o.append_action() != core::HeaderValueOption::APPEND_IF_EXISTS_OR_ADD)
      ok = complain(Path(here, "append_action"), e, "cannot be combined with append");
  }
  return ok;
}

bool headers_to_remove(const google::protobuf::RepeatedPtrField<std::string>& names, std::string_view field, const Path& at,
                       ErrorSink& e) {
  bool ok = true;
  for (int i = 0; i < names.size(); ++i) {
    const Path here(at, field, i);
    if (names[i].starts_with(':') || strcasecmp(names[i].c_str(), "host") == 0)
      ok = complain(here, e, ":-prefixed or host headers may not be removed");
    else ok = header_name(names[i], here, e) && ok;
  }
  return ok;
}

bool http2_options(const core::Http2ProtocolOptions& o, const Path& at, ErrorSink& e) {
  constexpr uint32_t kSmallestWindow = 65'535, kLargest = 2'147'483'647;
  bool ok = true;
  const auto within = [&](bool has, uint32_t value, uint32_t least, const char* field) {
    if (has && (value < least || value > kLargest))
      ok = complain(Path(at, field), e, "must be from " + std::to_string(least) + " to " + std::to_string(kLargest));
  };
  within(o.has_max_concurrent_streams(), o.max_concurrent_streams().value(), 1, "max_concurrent_streams");
  within(o.has_initial_stream_window_size(), o.initial_stream_window_size().value(), kSmallestWindow,
         "initial_stream_window_size");
  within(o.has_initial_connection_window_size(), o.initial_connection_window_size().value(), kSmallestWindow,
         "initial_connection_window_size");
  within(o.has_max_outbound_frames(), o.max_outbound_frames().value(), 1, "max_outbound_frames");
  within(o.has_max_outbound_control_frames(), o.max_outbound_control_frames().value(), 1, "max_outbound_control_frames");
  within(o.has_max_inbound_window_update_frames_per_data_frame_sent(),
         o.max_inbound_window_update_frames_per_data_frame_sent().value(), 1,
         "max_inbound_window_update_frames_per_data_frame_sent");
  if (!o.has_connection_keepalive()) return ok;
  const core::KeepaliveSettings& k = o.connection_keepalive();
  const Path keepalive(at, "connection_keepalive");
  if (!k.has_timeout()) ok = complain(Path(keepalive, "timeout"), e, "is required");
  else ok = duration(k.timeout(), Path(keepalive, "timeout"), e, 1) && ok;
  if (k.has_interval()) ok = duration(k.interval(), Path(keepalive, "interval"), e, 1) && ok;
  if (k.has_connection_idle_interval())
    ok = duration(k.connection_idle_interval(), Path(keepalive, "connection_idle_interval"), e, 1) && ok;
  const double jitter = k.interval_jitter().value();
  const Path percent(keepalive, "interval_jitter");
  if (!(jitter >= 0 && jitter <= 100)) ok = complain(Path(percent, "value"), e, "must be from 0 to 100");
  return ok;
}

static bool log_text(std::string_view format, const Path& at, ErrorSink& e, table::FormatWhere where) {
  const auto parts = AccessLogTemplate::parse(format, where);
  return parts.ok() || complain(at, e, parts.error());
}

static bool log_value(const google::protobuf::Value& v, const Path& at, ErrorSink& e, int depth, table::FormatWhere where);
static bool log_object(const google::protobuf::Struct& object, const Path& at, ErrorSink& e, int depth,
                       table::FormatWhere where) {
  bool ok = true;
  for (const auto& [key, value] : object.fields()) ok = log_value(value, Path(at, key), e, depth + 1, where) && ok;
  return ok;
}
static bool log_value(const google::protobuf::Value& v, const Path& at, ErrorSink& e, int depth, table::FormatWhere where) {
  if (depth > AccessLogTemplate::kMaxDepth)
    return complain(at, e, "is nested deeper than " + std::to_string(AccessLogTemplate::kMaxDepth) + " levels");
  bool ok = true;
  switch (v.kind_case()) {
    case google::protobuf::Value::kStringValue:
      return log_text(v.string_value(), at, e, where);
    case google::protobuf::Value::kStructValue:
      return log_object(v.struct_value(), at, e, depth, where);
    case google::protobuf::Value::kListValue:
      for (const auto& element : v.list_value().values()) ok = log_value(element, at, e, depth + 1, where) && ok;
      return ok;
    default:
      return true;  // numbers, booleans and null are written as they are
  }
}

bool substitution_format(const core::SubstitutionFormatString& f, const Path& at, ErrorSink& e, table::FormatWhere where) {
  const Path source(at, "text_format_source"), text(at, "text_format"), json(at, "json_format");
  if (!header_value(f.content_type(), Path(at, "content_type"), e)) return false;
  switch (f.format_case()) {
    case core::SubstitutionFormatString::kTextFormat:
      return not_empty(f.text_format(), text, e) && log_text(f.text_format(), text, e, where);
    case core::SubstitutionFormatString::kTextFormatSource: {
      if (!data_source(f.text_format_source(), source, e)) return false;
      const auto read = read_data_source(f.text_format_source());
      if (!read.ok()) return complain(source, e, read.error());
      const bool in_line = f.text_format_source().has_inline_string();
      const Path inner(source, in_line                                     ? "inline_string"
                               : f.text_format_source().has_inline_bytes() ? "inline_bytes"
                                                                           : "filename");
      return log_text(*read, inner, e, where);
    }
    case core::SubstitutionFormatString::kJsonFormat:
      return log_object(f.json_format(), json, e, 0, where);
    case core::SubstitutionFormatString::FORMAT_NOT_SET:
      break;
  }
  return complain(at, e, "needs text_format_source or json_format");
}

bool access_logs(const google::protobuf::RepeatedPtrField<envoy::config::accesslog::v3::AccessLog>& logs, const Path& at,
                 ErrorSink& e) {
  namespace loggers = envoy::extensions::access_loggers;
  bool ok = true;
  for (int i = 0; i < logs.size(); ++i) {
    const Path here(at, "access_log", i), config(here, "typed_config"), format(config, "log_format");
    loggers::file::v3::FileAccessLog file;
    loggers::stream::v3::StdoutAccessLog out;
    loggers::stream::v3::StderrAccessLog err;
    if (logs[i].has_filter()) ok = access_log_filter(logs[i].filter(), Path(here, "filter"), e) && ok;
    if (!logs[i].has_typed_config()) {
      ok = complain(config, e, "is required");
    } else if (logs[i].typed_config().UnpackTo(&file)) {
      ok = not_empty(file.path(), Path(config, "path"), e) && ok;
      if (file.has_log_format()) ok = substitution_format(file.log_format(), format, e, table::FormatWhere::kLog) && ok;
      else ok = log_text(file.format(), Path(config, "format"), e, table::FormatWhere::kLog) && ok;
    } else if (logs[i].typed_config().UnpackTo(&out)) {
      if (out.has_log_format()) ok = substitution_format(out.log_format(), format, e, table::FormatWhere::kLog) && ok;
    } else if (logs[i].typed_config().UnpackTo(&err)) {
      if (err.has_log_format()) ok = substitution_format(err.log_format(), format, e, table::FormatWhere::kLog) && ok;
    } else {
      ok = complain(config, e, logs[i].typed_config().type_url() + " is not supported by Millrace");
    }
  }
  return ok;
}

bool resource_source(bool has, const core::ConfigSource& s, const Path& at, ErrorSink& e) {
  if (!has) return complain(at, e, "is required");
  bool ok = true;
  switch (s.config_source_specifier_case()) {
    case core::ConfigSource::kAds:
    case core::ConfigSource::kSelf:
      break;
    case core::ConfigSource::kPath:
    case core::ConfigSource::kPathConfigSource:
      return config_source(s, at, e);
    case core::ConfigSource::CONFIG_SOURCE_SPECIFIER_NOT_SET:
      ok = complain(at, e, "needs ads, self or path_config_source");
      break;
    default:
      ok = complain(at, e, "only ads, self and path_config_source are supported here by Millrace yet");
  }
  if (s.has_initial_fetch_timeout()) ok = duration(s.initial_fetch_timeout(), Path(at, "initial_fetch_timeout"), e) && ok;
  return ok;
}

bool known_fields_only(const google::protobuf::Message& m, const Path& at, ErrorSink& e) {
  const google::protobuf::Reflection* r = m.GetReflection();
  bool ok = true;
  const google::protobuf::UnknownFieldSet& unknown = r->GetUnknownFields(m);
  for (int i = 0; i < unknown.field_count(); ++i)
    ok = complain(at, e,
                  "field number " + std::to_string(unknown.field(i).number()) + " of " + m.GetDescriptor()->name() +
                      " is not supported by Millrace yet");
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  r->ListFields(m, &fields);
  for (const auto* f : fields) {
    const int n = f->is_repeated() ? r->FieldSize(m, f) : 1;
    for (int i = 0; i < n; ++i) {
      const Path here(at, f->name(), f->is_repeated() ? i : -1);
      if (f->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
        ok = known_fields_only(f->is_repeated() ? r->GetRepeatedMessage(m, f, i) : r->GetMessage(m, f), here, e) && ok;
      } else if (f->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_ENUM) {
        const int v = f->is_repeated() ? r->GetRepeatedEnumValue(m, f, i) : r->GetEnumValue(m, f);
        if (f->enum_type()->FindValueByNumber(v) == nullptr)
          ok = complain(here, e,
                        "value " + std::to_string(v) + " of " + f->enum_type()->name() + " is not supported by Millrace yet");
      }
    }
  }
  return ok;
}

}  // namespace millrace::control::rules
