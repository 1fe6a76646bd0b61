// The text of an access log format, understood: literals and operators ("%REQ(:PATH)%"), or a JSON object of them. What a record
// makes of it is access_log_format.h's business; this half knows no records, so that configuration can be checked with it.
// Operators and their meaning: Envoy docs, configuration/observability/access_log/usage.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/status.h"

namespace millrace::control {

// Envoy's default text format.
extern const std::string_view kDefaultAccessLogFormat;

class AccessLogTemplate {
 public:
  enum class Op : uint8_t {
    kLiteral,
    kStartTime,
    kDuration,
    kRequestDuration,
    kResponseDuration,
    kResponseTxDuration,
    kReq,
    kResp,
    kTrailer,
    kProtocol,
    kUpstreamProtocol,
    kResponseCode,
    kResponseCodeDetails,
    kResponseFlags,
    kResponseFlagsLong,
    kBytesReceived,
    kBytesSent,
    kUpstreamHost,
    kUpstreamLocalAddress,
    kUpstreamCluster,
    kRouteName,
    kVirtualHost,
    kDownstreamRemote,
    kDownstreamRemoteNoPort,
    kDownstreamRemotePort,
    kDownstreamLocal,
    kDownstreamLocalNoPort,
    kDownstreamLocalPort,
    kDownstreamDirect,
    kDownstreamDirectNoPort,
    kDownstreamDirectPort,
    kRequestedServerName,
    kTlsVersion,
    kTlsCipher,
    kConnectionId,
    kHostname,
    kAttemptCount,
    kFilterChainName,
    kUpstreamTransportFailure,
  };
  struct Part {
    Op op = Op::kLiteral;
    std::string text;       // literal; header name; time format
    std::string other;      // REQ(X?Y): Y
    size_t max_length = 0;  // 0: unlimited
  };
  // A JSON template: an object, an array, a format of several parts, or one operator that keeps its type.
  struct Node {
    enum class Kind : uint8_t { kParts, kObject, kArray, kRaw } kind = Kind::kParts;
    std::vector<Part> parts;
    std::string raw;  // kRaw: JSON text (numbers, booleans, null)
    std::vector<std::pair<std::string, Node>> members;
  };
  static constexpr int kMaxDepth = 32;  // of a JSON template

  // The parts of one text. Error: one sentence that names the operator that is not understood or not supported, and what is.
  static base::Result<std::vector<Part>> parse(std::string_view format);
  // Text; `format` empty: the default one.
  static base::Result<AccessLogTemplate> text(std::string_view format);
  // `object`: a JSON object (as text) whose values are formats, objects or arrays of such; keys stay in the order written.
  static base::Result<AccessLogTemplate> json(std::string_view object);

  bool is_json() const { return json_; }
  const std::vector<Part>& parts() const { return parts_; }  // of a text
  const Node& root() const { return root_; }                 // of JSON

 private:
  struct Parser;

  std::vector<Part> parts_;
  Node root_;
  bool json_ = false;
};

}  // namespace millrace::control
