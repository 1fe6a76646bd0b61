#include "lib/http/local_reply.h"

#include <string>

#include <gtest/gtest.h>

#include "lib/http/forward.h"
#include "lib/http/h1_writer.h"

namespace millrace::http {
namespace {

struct Row {
  const char* name;
  LocalReply reply;
  bool grpc, is_head;
  const char* bytes;  // as Envoy 1.40 sent them, but for the date
  const char* detail;
};
const Row kRows[] = {
    {"no healthy upstream", LocalReply::kNoHealthyUpstream, false, false,
     "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 19\r\ncontent-type: text/plain\r\ndate: D\r\nserver: envoy\r\n\r\nno "
     "healthy upstream",
     "no_healthy_upstream"},
    {"no healthy upstream, HEAD", LocalReply::kNoHealthyUpstream, false, true,
     "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 19\r\ncontent-type: text/plain\r\ndate: D\r\nserver: envoy\r\n\r\n",
     "no_healthy_upstream"},
    {"no healthy upstream, gRPC", LocalReply::kNoHealthyUpstream, true, false,
     "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 14\r\ngrpc-message: no healthy upstream\r\ndate: "
     "D\r\nserver: envoy\r\ncontent-length: 0\r\n\r\n",
     "no_healthy_upstream"},
    {"no cluster, gRPC", LocalReply::kClusterNotFound, true, false,
     "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 14\r\ndate: D\r\nserver: envoy\r\ncontent-length: "
     "0\r\n\r\n",
     "cluster_not_found"},
    {"no cluster", LocalReply::kClusterNotFound, false, false,
     "HTTP/1.1 503 Service Unavailable\r\ndate: D\r\nserver: envoy\r\ncontent-length: 0\r\n\r\n", "cluster_not_found"},
    {"no route", LocalReply::kRouteNotFound, false, false,
     "HTTP/1.1 404 Not Found\r\ndate: D\r\nserver: envoy\r\ncontent-length: 0\r\n\r\n", "route_not_found"},
    {"no host", LocalReply::kMissingHost, false, false,
     "HTTP/1.1 400 Bad Request\r\ndate: D\r\nserver: envoy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
     "missing_host_header"},
    {"fragment", LocalReply::kPathNormalizationFailed, false, false,
     "HTTP/1.1 400 Bad Request\r\ndate: D\r\nserver: envoy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
     "path_normalization_failed"},
    {"timeout", LocalReply::kResponseTimeout, false, false,
     "HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 24\r\ncontent-type: text/plain\r\ndate: D\r\nserver: envoy\r\n\r\nupstream "
     "request timeout",
     "response_timeout"},
    {"header timeout", LocalReply::kRequestHeadersTimeout, false, false,
     "HTTP/1.1 408 Request Timeout\r\ncontent-length: 22\r\ncontent-type: text/plain\r\ndate: D\r\nserver: envoy\r\nconnection: "
     "close\r\n\r\nrequest header timeout",
     "request_header_timeout"},
    {"request timeout", LocalReply::kRequestTimeout, false, false,
     "HTTP/1.1 408 Request Timeout\r\ncontent-length: 15\r\ncontent-type: text/plain\r\ndate: D\r\nserver: envoy\r\nconnection: "
     "close\r\n\r\nrequest timeout",
     "request_overall_timeout"},
    {"idle", LocalReply::kStreamIdleTimeoutAfterRequest, false, false,
     "HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 14\r\ncontent-type: text/plain\r\ndate: D\r\nserver: envoy\r\n\r\nstream "
     "timeout",
     "stream_idle_timeout"},
    {"refused", LocalReply::kUpstreamConnectRefused, false, false,
     "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 98\r\ncontent-type: text/plain\r\ndate: D\r\nserver: "
     "envoy\r\n\r\nupstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
     "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"},
    {"connect timeout", LocalReply::kUpstreamConnectTimeout, false, false,
     "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 91\r\ncontent-type: text/plain\r\ndate: D\r\nserver: "
     "envoy\r\n\r\nupstream connect error or disconnect/reset before headers. reset reason: connection timeout",
     "upstream_reset_before_response_started{connection_timeout}"},
    {"closed", LocalReply::kUpstreamClosed, false, false,
     "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 95\r\ncontent-type: text/plain\r\ndate: D\r\nserver: "
     "envoy\r\n\r\nupstream connect error or disconnect/reset before headers. reset reason: connection termination",
     "upstream_reset_before_response_started{connection_termination}"},
    {"protocol error", LocalReply::kUpstreamProtocolError, false, false,
     "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 87\r\ncontent-type: text/plain\r\ndate: D\r\nserver: envoy\r\n\r\nupstream "
     "connect error or disconnect/reset before headers. reset reason: protocol error",
     "upstream_reset_before_response_started{protocol_error}"},
    {"low version", LocalReply::kLowVersion, false, false,
     "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 16\r\ncontent-type: text/plain\r\ndate: D\r\nserver: envoy\r\nconnection: "
     "close\r\n\r\nUpgrade Required",
     "low_version"},
    {"asterisk", LocalReply::kAbsolutePathRejected, false, false,
     "HTTP/1.1 404 Not Found\r\ndate: D\r\nserver: envoy\r\ncontent-length: 0\r\n\r\n", "absolute_path_rejected"},
    {"upgrade refused", LocalReply::kUpgradeRefused, false, false,
     "HTTP/1.1 403 Forbidden\r\ndate: D\r\nserver: envoy\r\ncontent-length: 0\r\n\r\n", "upgrade_failed"},
};

std::string reply_bytes(uint16_t status, std::string_view body, bool close, bool grpc, bool is_head) {
  Header storage[8];
  char memory[256];
  Scratch scratch(memory);
  ResponseHead head;
  head.headers = HeaderTable(storage, 8);
  std::string_view text;
  EXPECT_TRUE(fill_local_reply(&head, status, body, grpc, scratch, &text));
  ResponseFacts facts;
  facts.date = "D";
  EXPECT_TRUE(mutate_response(&head, ForwardOptions{}, facts, scratch));
  char out[1024];
  const BodyFraming framing = text.empty() ? BodyFraming{} : BodyFraming{Framing::kContentLength, text.size()};
  const size_t n = write_response_head(head, {framing, Version::kHttp11, close, is_head}, out);
  return std::string(out, n) + (is_head ? "" : std::string(text));
}

TEST(LocalReply, BytesAndDetails) {
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.name);
    const LocalReplyInfo& i = info(row.reply);
    EXPECT_EQ(reply_bytes(i.status, i.body, i.closes, row.grpc, row.is_head), row.bytes);
    EXPECT_EQ(response_detail(i.detail), row.detail);
  }
}

TEST(LocalReply, CodecErrorsAreAnsweredWithTheReasonPhrase) {
  const H1ErrorInfo& e = info(H1Error::kTooManyHeaders);
  EXPECT_TRUE(e.by_codec);
  EXPECT_EQ(reply_bytes(e.status, reason_phrase(e.status), true, false, false),
            "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 31\r\ncontent-type: text/plain\r\ndate: "
            "D\r\nserver: envoy\r\n"
            "connection: close\r\n\r\nRequest Header Fields Too Large");
  EXPECT_FALSE(info(H1Error::kMissingHost).by_codec);
  for (uint32_t i = 1; i < kH1ErrorCount; ++i) {
    const H1Error error = static_cast<H1Error>(i);
    EXPECT_EQ(response_detail(response_detail_of(error)), info(error).details);
  }
}

TEST(LocalReply, GrpcMessagesArePercentEncoded) {
  EXPECT_NE(reply_bytes(404, "50% \xc3\xa9\n", false, true, false).find("grpc-message: 50%25 %C3%A9%0A\r\n"), std::string::npos);
  const std::pair<uint16_t, uint32_t> rows[] = {{400, 13}, {401, 16}, {403, 7},  {404, 12}, {429, 14},
                                                {502, 14}, {503, 14}, {504, 14}, {500, 2},  {418, 2}};
  for (const auto& [http, grpc] : rows) EXPECT_EQ(grpc_status_of(http), grpc) << http;
}

TEST(LocalReply, NoRoomIsSaid) {
  Header storage[1];
  char memory[64];
  Scratch scratch(memory);
  ResponseHead head;
  head.headers = HeaderTable(storage, 1);
  std::string_view text;
  EXPECT_FALSE(fill_local_reply(&head, 503, "body", false, scratch, &text));
}

}  // namespace
}  // namespace millrace::http
