// Envoy's access log formats: text with operators ("%REQ(:PATH)%") or a JSON object of them, compiled once, then applied to
// binary records. Operators and their meaning: Envoy docs, configuration/observability/access_log/usage. "-" stands for what a
// request does not have (null in JSON).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/status.h"
#include "lib/stats/events.h"

namespace millrace::control {

// Envoy's default text format.
extern const std::string_view kDefaultAccessLogFormat;

class AccessLogFormat {
 public:
  // Text; `format` empty: the default one. Error: the operator that is not understood or not supported, and where it stands.
  static base::Result<AccessLogFormat> text(std::string_view format);
  // `object`: a JSON object (as text) whose values are formats, objects or arrays of such; one line a record, keys in the order
  // written.
  static base::Result<AccessLogFormat> json(std::string_view object);

  // Appends one line (with its '\n' where the format has one; JSON always) to `out`.
  void append(const stats::AccessLogView& record, std::string& out) const;

 private:
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
  static base::Result<std::vector<Part>> parse(std::string_view format);
  // False: the record does not have it ("-", null).
  static bool value(const Part& p, const stats::AccessLogView& r, std::string& out);
  static bool is_number(Op op);
  static void append_node(const Node& n, const stats::AccessLogView& r, std::string& out);
  struct Parser;

  std::vector<Part> parts_;
  Node root_;
  bool json_ = false;
};

}  // namespace millrace::control
