// The commands of format strings as numbers (format_ops.def has the list). Control compiles a format to a run of FormatPart
// (objects.h) or, for access logs, to its own; both mean the same.
#pragma once

#include <cstdint>
#include <string_view>

namespace millrace::table {

enum class FormatOp : uint8_t {
  kLiteral = 0,
  kReq,
  kResp,
  kTrailer,
  kPath,
  kQueryParam,
  kQueryParams,
  kStartTime,
  kStartTimeLocal,
  kEmitTime,
  kEmitTimeLocal,
  kDuration,
  kRequestDuration,
  kRequestTxDuration,
  kResponseDuration,
  kResponseTxDuration,
  kHandshakeDuration,
  kPoolReadyDuration,
  kCommonDuration,
  kProtocol,
  kUpstreamProtocol,
  kResponseCode,
  kResponseCodeDetails,
  kConnectionTermination,
  kResponseFlags,
  kResponseFlagsLong,
  kGrpcStatus,
  kGrpcStatusNumber,
  kLocalReplyBody,
  kBytesReceived,
  kBytesSent,
  kRequestHeadersBytes,
  kResponseHeadersBytes,
  kResponseTrailersBytes,
  kUpstreamHost,
  kUpstreamRemote,
  kUpstreamRemoteNoPort,
  kUpstreamPort,
  kUpstreamHostName,
  kUpstreamHostNameNoPort,
  kUpstreamLocal,
  kUpstreamLocalNoPort,
  kUpstreamLocalPort,
  kUpstreamCluster,
  kUpstreamTransportFailure,
  kAttemptCount,
  kDownstreamRemote,
  kDownstreamRemoteNoPort,
  kDownstreamRemotePort,
  kDownstreamDirect,
  kDownstreamDirectNoPort,
  kDownstreamDirectPort,
  kDownstreamLocal,
  kDownstreamLocalNoPort,
  kDownstreamLocalPort,
  kRequestedServerName,
  kTlsVersion,
  kTlsCipher,
  kJa3,
  kJa4,
  kRouteName,
  kVirtualHostName,
  kVirtualClusterName,
  kFilterChainName,
  kConnectionId,
  kStreamId,
  kUniqueId,
  kHostname,
  kEnvironment,
  kAccessLogType,
  kTcpHandshakeRtt,
  kTcpRtt,
  kTcpRetransmits,
  kStageRead,
  kStageConnect,
  kStageWait,
  kStageRespond,
  kWorker,
};
inline constexpr FormatOp kLastFormatOp = FormatOp::kWorker;

enum class FormatArgument : uint8_t { kNone, kHeader, kName, kTime, kWords };
enum class FormatType : uint8_t { kText, kNumber };
enum class FormatWhere : uint8_t { kAnywhere, kLog };

struct FormatCommand {
  FormatOp op;
  std::string_view name;
  FormatArgument argument;
  FormatType type;
  FormatWhere where;
};
inline constexpr FormatCommand kFormatCommands[] = {
#define FORMAT_OP(symbol, name, argument, type, where) \
  {FormatOp::symbol, name, FormatArgument::argument, FormatType::type, FormatWhere::where},
#include "lib/table/format_ops.def"
#undef FORMAT_OP
};

// Of a value in a JSON text: escaped inside a string; a string of its own (null when absent); a number (ditto). Of a literal
// where absent values leave nothing behind (lib/format/json_shape.h): the key of the value that follows; a bracket with its key;
// its end.
enum class FormatQuote : uint8_t { kNone, kJsonPiece, kJsonString, kJsonNumber, kJsonKey, kJsonOpen, kJsonClose };
inline constexpr FormatQuote kLastFormatQuote = FormatQuote::kJsonClose;

// How a command's words were understood: FormatPart::variant.
inline constexpr uint8_t kPathWithQuery = 1, kPathOriginal = 2, kPathCurrent = 4;  // PATH(NQ|WQ:ORIG|PATH); neither: ORIG_OR_PATH
inline constexpr uint8_t kGrpcCamel = 0, kGrpcSnake = 1, kGrpcNumber = 2;  // GRPC_STATUS(CAMEL_STRING|SNAKE_STRING|NUMBER)
inline constexpr uint8_t kAllowWhitespace = 1;                             // RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)
inline constexpr uint8_t kServerNameSni = 0, kServerNameSniFirst = 1, kServerNameHost = 2,
                         kServerNameHostFirst = 3;  // REQUESTED_SERVER_NAME(SNI_ONLY|SNI_FIRST|HOST_ONLY|HOST_FIRST)

// COMMON_DURATION(START:END:PRECISION): FormatPart::variant is the precision, `from` and `to` are moments.
enum class FormatMoment : uint8_t {
  kRequestFirst,     // DS_RX_BEG
  kRequestLast,      // DS_RX_END
  kConnectStart,     // US_CX_BEG
  kConnectEnd,       // US_CX_END
  kUpstreamTxFirst,  // US_TX_BEG
  kUpstreamTxLast,   // US_TX_END
  kUpstreamRxFirst,  // US_RX_BEG
  kUpstreamRxLast,   // US_RX_END
  kResponseFirst,    // DS_TX_BEG
  kResponseLast,     // DS_TX_END
};
struct FormatMomentName {
  std::string_view name;
  FormatMoment moment;
};
inline constexpr FormatMomentName kFormatMoments[] = {
    {"DS_RX_BEG", FormatMoment::kRequestFirst},    {"DS_RX_END", FormatMoment::kRequestLast},
    {"US_CX_BEG", FormatMoment::kConnectStart},    {"US_CX_END", FormatMoment::kConnectEnd},
    {"US_TX_BEG", FormatMoment::kUpstreamTxFirst}, {"US_TX_END", FormatMoment::kUpstreamTxLast},
    {"US_RX_BEG", FormatMoment::kUpstreamRxFirst}, {"US_RX_END", FormatMoment::kUpstreamRxLast},
    {"DS_TX_BEG", FormatMoment::kResponseFirst},   {"DS_TX_END", FormatMoment::kResponseLast},
};
inline constexpr uint64_t kPrecisionNs[] = {1'000'000, 1'000, 1};  // ms, us, ns

}  // namespace millrace::table
