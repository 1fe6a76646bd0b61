#include "control/access_log_template.h"

#include <algorithm>

#include <yaml-cpp/yaml.h>

#include "control/json_text.h"

namespace millrace::control {

using base::Error;
using base::Result;

const std::string_view kDefaultAccessLogFormat =
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% "
    "%BYTES_RECEIVED% "
    "%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" "
    "\"%REQ(X-REQUEST-ID)%\" "
    "\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

namespace {

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return out;
}

}  // namespace

Result<std::vector<AccessLogTemplate::Part>> AccessLogTemplate::parse(std::string_view format) {
  struct Simple {
    std::string_view name;
    Op op;
  };
  static constexpr Simple kSimple[] = {
      {"DURATION", Op::kDuration},
      {"REQUEST_DURATION", Op::kRequestDuration},
      {"RESPONSE_DURATION", Op::kResponseDuration},
      {"RESPONSE_TX_DURATION", Op::kResponseTxDuration},
      {"PROTOCOL", Op::kProtocol},
      {"UPSTREAM_PROTOCOL", Op::kUpstreamProtocol},
      {"RESPONSE_CODE", Op::kResponseCode},
      {"RESPONSE_CODE_DETAILS", Op::kResponseCodeDetails},
      {"RESPONSE_FLAGS", Op::kResponseFlags},
      {"RESPONSE_FLAGS_LONG", Op::kResponseFlagsLong},
      {"BYTES_RECEIVED", Op::kBytesReceived},
      {"BYTES_SENT", Op::kBytesSent},
      {"UPSTREAM_HOST", Op::kUpstreamHost},
      {"UPSTREAM_REMOTE_ADDRESS", Op::kUpstreamHost},
      {"UPSTREAM_LOCAL_ADDRESS", Op::kUpstreamLocalAddress},
      {"UPSTREAM_CLUSTER", Op::kUpstreamCluster},
      {"UPSTREAM_CLUSTER_RAW", Op::kUpstreamCluster},
      {"ROUTE_NAME", Op::kRouteName},
      {"VIRTUAL_CLUSTER_NAME", Op::kVirtualHost},
      {"DOWNSTREAM_REMOTE_ADDRESS", Op::kDownstreamRemote},
      {"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Op::kDownstreamRemoteNoPort},
      {"DOWNSTREAM_REMOTE_PORT", Op::kDownstreamRemotePort},
      {"DOWNSTREAM_LOCAL_ADDRESS", Op::kDownstreamLocal},
      {"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Op::kDownstreamLocalNoPort},
      {"DOWNSTREAM_LOCAL_PORT", Op::kDownstreamLocalPort},
      {"DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Op::kDownstreamDirect},
      {"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", Op::kDownstreamDirectNoPort},
      {"DOWNSTREAM_DIRECT_REMOTE_PORT", Op::kDownstreamDirectPort},
      {"REQUESTED_SERVER_NAME", Op::kRequestedServerName},
      {"DOWNSTREAM_TLS_VERSION", Op::kTlsVersion},
      {"DOWNSTREAM_TLS_CIPHER", Op::kTlsCipher},
      {"CONNECTION_ID", Op::kConnectionId},
      {"HOSTNAME", Op::kHostname},
      {"UPSTREAM_REQUEST_ATTEMPT_COUNT", Op::kAttemptCount},
      {"FILTER_CHAIN_NAME", Op::kFilterChainName},
      {"UPSTREAM_TRANSPORT_FAILURE_REASON", Op::kUpstreamTransportFailure},
  };
  std::vector<Part> out;
  const auto literal = [&](char c) {
    if (out.empty() || out.back().op != Op::kLiteral) out.push_back({});
    out.back().text += c;
  };
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      literal(format[i]);
      continue;
    }
    if (i + 1 < format.size() && format[i + 1] == '%') {
      literal('%');
      ++i;
      continue;
    }
    // NAME, NAME(argument), NAME(argument):length; the argument may itself contain '%' (START_TIME).
    size_t at = i + 1;
    while (at < format.size() &&
           ((format[at] >= 'A' && format[at] <= 'Z') || (format[at] >= '0' && format[at] <= '9') || format[at] == '_'))
      ++at;
    const std::string name(format.substr(i + 1, at - i - 1));
    if (name.empty())
      return Error{"access log format: no operator follows the '%' at offset " + std::to_string(i) +
                   "; a literal percent sign is written %%"};
    const std::string where = "access log operator %" + name + "%";
    std::string_view argument;
    bool has_argument = false;
    if (at < format.size() && format[at] == '(') {
      const size_t end = format.find(')', at);
      if (end == std::string_view::npos) return Error{where + ": its '(' is not closed by ')'"};
      argument = format.substr(at + 1, end - at - 1);
      has_argument = true;
      at = end + 1;
    }
    size_t max_length = 0;
    if (at < format.size() && format[at] == ':') {
      size_t end = ++at;
      while (end < format.size() && format[end] >= '0' && format[end] <= '9') ++end;
      if (end == at || end - at > 6) return Error{where + ": a length follows ':', as in %REQ(USER-AGENT):100%"};
      max_length = std::stoul(std::string(format.substr(at, end - at)));
      at = end;
    }
    if (at >= format.size() || format[at] != '%')
      return Error{where + ": not closed by '%'; a literal percent sign is written %%"};
    Part p;
    p.max_length = max_length;
    if (name == "START_TIME") {
      p.op = Op::kStartTime;
      p.text = argument;
    } else if (name == "REQ" || name == "RESP" || name == "TRAILER") {
      if (argument.empty()) return Error{where + ": names no header, as in %REQ(USER-AGENT)%"};
      p.op = name == "REQ" ? Op::kReq : name == "RESP" ? Op::kResp : Op::kTrailer;
      const size_t question = argument.find('?');
      p.text = lower(argument.substr(0, question));
      if (question != std::string_view::npos) p.other = lower(argument.substr(question + 1));
    } else {
      const auto* known = std::find_if(std::begin(kSimple), std::end(kSimple), [&](const Simple& s) { return s.name == name; });
      if (known == std::end(kSimple)) {
        std::vector<std::string> names{"REQ", "RESP", "TRAILER", "START_TIME"};
        for (const Simple& s : kSimple) names.emplace_back(s.name);
        const std::string near = nearest(name, names);
        return Error{where + " is not supported by Millrace" + (near.empty() ? "" : "; did you mean %" + near + "%?") +
                     (near.empty() ? "; supported are " : " Supported are ") + list_of(names, " and ")};
      }
      if (has_argument) return Error{where + " takes no argument"};
      p.op = known->op;
    }
    out.push_back(std::move(p));
    i = at;
  }
  return out;
}

Result<AccessLogTemplate> AccessLogTemplate::text(std::string_view format) {
  auto parts = parse(format.empty() ? kDefaultAccessLogFormat : format);
  if (!parts.ok()) return Error{parts.error()};
  AccessLogTemplate f;
  f.parts_ = std::move(parts).value();
  return f;
}

// JSON is YAML, and yaml-cpp keeps the keys in order.
struct AccessLogTemplate::Parser {
  static Result<Node> node(const YAML::Node& y, int depth) {
    Node n;
    if (depth > kMaxDepth) return Error{"access log json_format: nested deeper than " + std::to_string(kMaxDepth) + " levels"};
    if (y.IsMap() || y.IsSequence()) {
      n.kind = y.IsMap() ? Node::Kind::kObject : Node::Kind::kArray;
      for (auto it = y.begin(); it != y.end(); ++it) {
        auto child = node(y.IsMap() ? YAML::Node(it->second) : YAML::Node(*it), depth + 1);
        if (!child.ok()) return child;
        n.members.emplace_back(y.IsMap() ? it->first.Scalar() : std::string(), std::move(child).value());
      }
      return n;
    }
    if (y.IsNull()) {
      n.kind = Node::Kind::kRaw;
      n.raw = "null";
      return n;
    }
    if (y.Tag() == "?" || y.Tag().empty()) {  // a plain scalar: number or boolean
      n.kind = Node::Kind::kRaw;
      n.raw = y.Scalar();
      return n;
    }
    auto parts = parse(y.Scalar());
    if (!parts.ok()) return Error{parts.error()};
    n.parts = std::move(parts).value();
    return n;
  }
};

Result<AccessLogTemplate> AccessLogTemplate::json(std::string_view object) {
  AccessLogTemplate f;
  f.json_ = true;
  try {
    const YAML::Node y = YAML::Load(std::string(object));
    if (!y.IsMap()) return Error{"access log json_format: must be an object"};
    auto root = Parser::node(y, 0);
    if (!root.ok()) return Error{root.error()};
    f.root_ = std::move(root).value();
  } catch (const YAML::Exception& e) {
    return Error{std::string("access log json_format: ") + e.what()};
  }
  return f;
}

}  // namespace millrace::control
