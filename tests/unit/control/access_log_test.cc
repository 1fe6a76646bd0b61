// Lines of access logs: one record, many formats; files that are full, gone, rotated.
#include "control/access_log.h"

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <unistd.h>

#include <gtest/gtest.h>

#include "control/access_log_format.h"
#include "lib/stats/events.h"
#include "lib/table/object_writer.h"

namespace millrace::control {
namespace {

using stats::AccessLogRecord;
using stats::StringId;

AccessLogRecord some_record() {
  AccessLogRecord r;
  r.start_wall_ns = 1'767'225'599'012'345'678;
  r.duration_ns = 12'345'678;
  r.request_rx_last_ns = 1'100'000;
  r.upstream_tx_first_ns = 2'200'000;
  r.upstream_tx_last_ns = 2'300'000;
  r.upstream_rx_first_ns = 8'400'000;
  r.upstream_rx_last_ns = 12'300'000;
  r.downstream_tx_first_ns = 8'500'000;
  r.upstream_ready_ns = 2'100'000;
  r.bytes_received = 5;
  r.bytes_sent = 123'456'789'012;
  r.request_headers_bytes = 77;
  r.connection_id = 42;
  r.listener = 1;
  r.filter_chain = 0;
  r.downstream_remote = r.downstream_direct_remote = *base::IpAddress::parse("192.168.100.7");
  r.downstream_remote_port = r.downstream_direct_remote_port = 50123;
  r.downstream_local = *base::IpAddress::parse("fd00::1");
  r.downstream_local_port = 443;
  r.upstream_remote = *base::IpAddress::parse("10.0.0.9");
  r.upstream_remote_port = 8080;
  r.response_code = 503;
  r.flags = uint64_t{1} << static_cast<unsigned>(stats::ResponseFlag::kUpstreamConnectionFailure) |
            uint64_t{1} << static_cast<unsigned>(stats::ResponseFlag::kUpstreamRetryLimitExceeded);
  r.protocol = stats::Protocol::kHttp2;
  r.grpc_status = 14;
  r.tls_version = stats::kWireTls13;
  r.tls_cipher = 0x1301;
  r.tcp_retransmits = 3;
  r.tcp_rtt_us = 250;
  return r;
}

const stats::LogString kStrings[] = {
    {StringId::kMethod, "GET"},
    {StringId::kPath, "/new?a=1&b=%20x&flag"},
    {StringId::kOriginalPath, "/old?a=0"},
    {StringId::kAuthority, "shop.example:8443"},
    {StringId::kUserAgent, "a\"b\\c\t\xc3\xa9\xff"},
    {StringId::kRequestId, "11111111-2222-4333-8444-555555555555"},
    {StringId::kServerName, "sni.example"},
    {StringId::kRouteName, "r"},
    {StringId::kExtraRequestHeader, "one", "x-one"},
    {StringId::kExtraResponseHeader, "two", "x-two"},
    {StringId::kExtraResponseTrailer, "three", "x-three"},
};

std::vector<uint8_t> bytes_of(const AccessLogRecord& r) {
  const stats::AccessLogBuilder builder(r, kStrings);
  std::vector<uint8_t> out(builder.size());
  builder.write(out);
  return out;
}

std::string line(base::Result<AccessLogFormat> format, const AccessLogRecord& r = some_record()) {
  if (!format.ok()) return format.error();
  const std::vector<uint8_t> bytes = bytes_of(r);
  stats::AccessLogView view;
  EXPECT_EQ(view.parse(bytes), stats::RecordError::kNone);
  LineBuffer out;
  format->append(view, out);
  return std::string(out.view());
}

TEST(AccessLogFormat, Commands) {
  struct Case {
    std::string format, want;
  };
  for (const Case& c : {
           Case{"plain %% text", "plain % text"},
           Case{"%REQ(:METHOD)% %REQ(:path):4% %REQ(X-ONE)% %REQ(x-none)% %REQ(X-NONE?x-one):2%", "GET /new one - on"},
           Case{"%REQUEST_HEADER(:authority)% %RESPONSE_HEADER(x-two)% %RESPONSE_TRAILER(x-three)%",
                "shop.example:8443 two three"},
           Case{"%RESP(X-TWO)% %RESP(:STATUS)% %RESP(x?X-Two)% %TRAILER(x-three)% %TRAILER(x-two)%", "two 503 two three -"},
           Case{"%PATH% %PATH(WQ)% %PATH(NQ)% %PATH(NQ:PATH)% %PATH(WQ:ORIG)%", "/old?a=0 /old?a=0 /old /new /old?a=0"},
           Case{"%QUERY_PARAM(a)% %QUERY_PARAM(none)% %QUERY_PARAMS%", "0 - a=0"},
           Case{"%START_TIME%", "2025-12-31T23:59:59.012Z"},
           Case{"%START_TIME(%s.%6f)% %EMIT_TIME(%s.%3f)%", "1767225599.012345 1767225599.024"},
           Case{"%DURATION% %REQUEST_DURATION% %REQUEST_TX_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%", "12 1 2 8 3"},
           Case{"%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ns)% %COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)% "
                "%COMMON_DURATION(US_RX_BEG:DS_RX_END)%",
                "12345678 6200 -"},
           Case{"%COMMON_DURATION(US_CX_BEG:US_CX_END)% %UPSTREAM_CONNECTION_POOL_READY_DURATION%", "- 2"},
           Case{"%PROTOCOL% %UPSTREAM_PROTOCOL% %RESPONSE_CODE%", "HTTP/2 - 503"},
           Case{"%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%", "URX,UF UpstreamRetryLimitExceeded,UpstreamConnectionFailure"},
           Case{"%BYTES_RECEIVED% %BYTES_SENT% %REQUEST_HEADERS_BYTES%", "5 123456789012 77"},
           Case{"%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%",
                "Unavailable UNAVAILABLE 14 14"},
           Case{"%UPSTREAM_HOST% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT% %UPSTREAM_LOCAL_ADDRESS%",
                "10.0.0.9:8080 10.0.0.9 8080 -"},
           Case{"%UPSTREAM_HOST_NAME% %UPSTREAM_HOST_NAME_WITHOUT_PORT% %UPSTREAM_CLUSTER%", "10.0.0.9:8080 10.0.0.9 -"},
           Case{"%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
                "192.168.100.7:50123 [fd00::1]:443 fd00::1"},
           Case{"%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER%", "TLSv1.3 TLS_AES_128_GCM_SHA256"},
           Case{"%REQUESTED_SERVER_NAME% %REQUESTED_SERVER_NAME(HOST_FIRST)% %REQUESTED_SERVER_NAME(SNI_FIRST)%",
                "sni.example shop.example sni.example"},
           Case{"%ROUTE_NAME% %VIRTUAL_HOST_NAME% %VIRTUAL_CLUSTER_NAME% %CONNECTION_ID%", "r - - 42"},
           Case{"%STREAM_ID%", "11111111-2222-4333-8444-555555555555"},
           Case{"%ACCESS_LOG_TYPE% %ENVIRONMENT(MILLRACE_TEST_VALUE)% %ENVIRONMENT(MILLRACE_TEST_NONE)%",
                "DownstreamEnd from-outside -"},
           Case{"%MILLRACE_TCP_RETRANSMITS% %MILLRACE_TCP_RTT_US% %MILLRACE_TCP_HANDSHAKE_RTT_US%", "3 250 -"},
           Case{"%MILLRACE_STAGE_READ_US% %MILLRACE_STAGE_CONNECT_US% %MILLRACE_STAGE_WAIT_US% %MILLRACE_STAGE_RESPOND_US%",
                "1100 2200 6200 3945"},
           // What is wrong with a format is one sentence.
           Case{"%PATH(XX)%", "operator %PATH%: \"XX\" is neither WQ nor NQ"},
           Case{"%START_TIME(%Q)%", "operator %START_TIME%: \"%Q\" is no conversion of times that Millrace knows"},
           Case{"%COMMON_DURATION(A:B)%",
                "operator %COMMON_DURATION%: \"A\" is none of the moments DS_RX_BEG, DS_RX_END, US_CX_BEG, US_CX_END, US_TX_BEG, "
                "US_TX_END, US_RX_BEG, US_RX_END, DS_TX_BEG or DS_TX_END"},
           Case{"%GRPC_STATUS(X)%", "operator %GRPC_STATUS%: \"X\" is none of CAMEL_STRING, SNAKE_STRING or NUMBER"},
           Case{"%QUERY_PARAM%", "operator %QUERY_PARAM%: needs a name in parentheses"},
       }) {
    setenv("MILLRACE_TEST_VALUE", "from-outside", 1);
    EXPECT_EQ(line(AccessLogFormat::text(c.format)), c.want) << c.format;
  }
}

TEST(AccessLogFormat, TheSameSecondAndTheNext) {
  auto format = AccessLogFormat::text("%START_TIME%");
  ASSERT_TRUE(format.ok());
  const auto at = [&](uint64_t wall_ns) {
    AccessLogRecord r = some_record();
    r.start_wall_ns = wall_ns;
    const std::vector<uint8_t> bytes = bytes_of(r);
    stats::AccessLogView view;
    EXPECT_EQ(view.parse(bytes), stats::RecordError::kNone);
    LineBuffer out;
    format->append(view, out);
    return std::string(out.view());
  };
  EXPECT_EQ(at(1'767'225'599'999'000'000), "2025-12-31T23:59:59.999Z");
  EXPECT_EQ(at(1'767'225'599'001'000'000), "2025-12-31T23:59:59.001Z");
  EXPECT_EQ(at(1'767'225'600'000'000'000), "2026-01-01T00:00:00.000Z");
}

TEST(AccessLogFormat, MissingValues) {
  EXPECT_EQ(line(AccessLogFormat::text("[%REQ(x-none)%|%REQ(x-none):0%|%UPSTREAM_CLUSTER%]", true)), "[||]");
  EXPECT_EQ(line(AccessLogFormat::text("[%REQ(x-none)%|%RESPONSE_FLAGS%]")), "[-|URX,UF]");
  EXPECT_EQ(line(AccessLogFormat::json(R"({"a": "%REQ(x-none)%", "b": "x%REQ(x-none)%", "c": "%BYTES_SENT%"})")),
            "{\"a\":null,\"b\":\"x-\",\"c\":123456789012}\n");
  EXPECT_EQ(line(AccessLogFormat::json(R"({"b": "x%REQ(x-none)%"})", true)), "{\"b\":\"x\"}\n");
  // With omit_empty_values a value takes its key along, and an object in which nothing is left goes; arrays stay.
  EXPECT_EQ(
      line(AccessLogFormat::json(
          R"({"a": "%REQ(x-none)%", "b": {"c": "%REQ(x-none)%", "d": {"e": "%REQ(x-none)%"}}, "f": ["%REQ(x-none)%", "%REQ(:METHOD)%",
                  {"g": "%REQ(x-none)%"}, ["%REQ(x-none)%"], 1, null], "h": ["%REQ(x-none)%"], "i": "%REQ(x-none)%%REQ(x-none)%", "k": {},
                  "l": [], "m": null, "n": false, "o": {"p": "%RESPONSE_CODE%", "q": "%REQ(x-none)%", "r": "%REQ(x-one)%"}})",
          true)),
      "{\"f\":[\"GET\",[],1],\"h\":[],\"i\":\"\",\"l\":[],\"n\":false,\"o\":{\"p\":503,\"r\":\"one\"}}\n");
  EXPECT_EQ(line(AccessLogFormat::json(R"({"a": {"b": {"c": "%REQ(x-none)%"}}})", true)), "{}\n");
}

TEST(AccessLogFormat, Json) {
  EXPECT_EQ(line(AccessLogFormat::json(
                R"({"ua": "%REQ(USER-AGENT)%", "in": "<%REQ(USER-AGENT)%>", "list": ["%PROTOCOL%", 1, true, null],
              "deep": {"code": "%RESPONSE_CODE%", "text": "%RESPONSE_CODE%!", "grpc": "%GRPC_STATUS_NUMBER%", "q\"": "a\"b"}})")),
            "{\"ua\":\"a\\\"b\\\\c\\t\xc3\xa9\\ufffd\",\"in\":\"<a\\\"b\\\\c\\t\xc3\xa9\\ufffd>\",\"list\":[\"HTTP/"
            "2\",1,true,null],"
            "\"deep\":{\"code\":503,\"text\":\"503!\",\"grpc\":14,\"q\\\"\":\"a\\\"b\"}}\n");
}

// ---- files -----------------------------------------------------------------------------------------------------------------

std::string content(const std::string& path) {
  std::ifstream in(path);
  std::stringstream all;
  all << in.rdbuf();
  return all.str();
}

struct Folder {
  std::string path = ::testing::TempDir() + "/access_log_" + std::to_string(getpid());
  Folder() { std::system(("mkdir -p " + path).c_str()); }
  ~Folder() { std::system(("rm -rf " + path).c_str()); }
};

AccessLogSinks to(const std::vector<std::string>& paths, std::string_view format = "%CONNECTION_ID%\n") {
  AccessLogSinks sinks;
  auto& chain = sinks[1].chains.emplace_back();
  for (const std::string& path : paths)
    chain.push_back({path, std::make_shared<AccessLogFormat>(AccessLogFormat::text(format).value())});
  return sinks;
}

void log(AccessLogger& logger, uint64_t connection, uint32_t sinks = UINT32_MAX, uint64_t listener = 1) {
  AccessLogRecord r = some_record();
  r.connection_id = connection;
  r.sinks = sinks;
  r.listener = listener;
  logger.on_event(0, bytes_of(r));
}

TEST(AccessLogger, FiltersHaveDecided) {
  const Folder folder;
  AccessLogger logger;
  logger.set_sinks(to({folder.path + "/a", folder.path + "/b"}));
  log(logger, 1, 0b01);
  log(logger, 2, 0b10);
  log(logger, 3, 0b11);
  log(logger, 4, 0);
  log(logger, 5, UINT32_MAX, 9);
  logger.flush();
  EXPECT_EQ(content(folder.path + "/a"), "1\n3\n");
  EXPECT_EQ(content(folder.path + "/b"), "2\n3\n");
  EXPECT_EQ(logger.counters().lines, 4u);
  EXPECT_EQ(logger.counters().unknown, 1u) << "a listener that nobody knows";
}

TEST(AccessLogger, RotatedAndReopened) {
  const Folder folder;
  const std::string path = folder.path + "/log", old = path + ".1";
  AccessLogger logger;
  logger.set_sinks(to({path}));
  log(logger, 1);
  logger.flush();
  ASSERT_EQ(rename(path.c_str(), old.c_str()), 0);
  log(logger, 2);
  logger.flush();
  EXPECT_EQ(content(old), "1\n2\n") << "until it is told, it goes on where it was";
  EXPECT_NE(access(path.c_str(), F_OK), 0);
  log(logger, 3);
  logger.reopen();
  log(logger, 4);
  logger.flush();
  EXPECT_EQ(content(old), "1\n2\n3\n");
  EXPECT_EQ(content(path), "4\n");
}

TEST(AccessLogger, AFileThatCannotBeWrittenKeepsItsLinesAndIsTriedAgain) {
  const Folder folder;
  AccessLogger logger;
  logger.set_sinks(to({folder.path + "/not/there", folder.path + "/fine"}));
  log(logger, 1);
  logger.flush();
  EXPECT_EQ(content(folder.path + "/fine"), "1\n");
  ASSERT_EQ(std::system(("mkdir " + folder.path + "/not").c_str()), 0);
  log(logger, 2);
  logger.flush();
  logger.flush();
  EXPECT_EQ(content(folder.path + "/not/there"), "1\n2\n");
  EXPECT_EQ(content(folder.path + "/fine"), "1\n2\n");
  EXPECT_EQ(logger.counters().lost, 0u);
}

TEST(AccessLogger, MoreThanItMayKeepIsLostAndCounted) {
  const Folder folder;
  AccessLogger logger;
  logger.set_sinks(to({folder.path + "/not/there"}, std::string(64 * 1024, 'x') + "\n"));
  constexpr uint64_t kRecords = 2 * (AccessLogger::kMaxBuffered / (64 * 1024)) + 100;
  for (uint64_t i = 0; i < kRecords; ++i) log(logger, i);
  const AccessLogger::Counters c = logger.counters();
  EXPECT_GT(c.lost, 0u);
  EXPECT_EQ(c.lost + c.lines, kRecords);
}

TEST(AccessLogger, RecordsOfAnEarlierConfigurationStillFindTheirFormat) {
  const Folder folder;
  AccessLogger logger;
  logger.set_sinks(to({folder.path + "/old"}));
  log(logger, 1);
  AccessLogSinks next;
  next[2];
  logger.set_sinks(std::move(next));
  log(logger, 2);
  logger.flush();
  EXPECT_EQ(content(folder.path + "/old"), "1\n2\n");
}

}  // namespace
}  // namespace millrace::control
