// The gRPC-Web filter in a whole worker: requests as gRPC to endpoints of HTTP/2 and 1.1, responses with their trailers as a
// frame.
#include "tests/support/decode.h"
#include "tests/unit/dataplane/http2_fixture.h"

namespace millrace::dataplane::test {
namespace {

using stats::ClusterCounter;

Config web_config(bool http2 = true, std::vector<table::Compressor> compressors = {}) {
  Config c;
  c.compressors = std::move(compressors);
  c.content_types = {"application/grpc-web-text+proto", "text/plain"};
  c.hcm = [n = c.compressors.size()](table::HttpConnectionManager& h) { h.grpc_web = static_cast<uint8_t>(n + 1); };
  c.clusters[0].edit = [http2](table::Cluster& t) {
    if (http2) t.http = table::UpstreamHttp::kHttp2;
    t.enable_trailers = 1;
  };
  return c;
}

std::string frame(std::string_view message, char flags = 0) {
  const size_t n = message.size();
  return std::string{flags, static_cast<char>(n >> 24), static_cast<char>(n >> 16), static_cast<char>(n >> 8),
                     static_cast<char>(n)} +
         std::string(message);
}
std::string base64(std::string_view bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t v = 0;
    for (size_t k = 0; k < 3; ++k) v = v << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k) out += i + k > bytes.size() ? '=' : kDigits[v >> (18 - 6 * k) & 63];
  }
  return out;
}
std::string post(std::string_view type, std::string_view fields, std::string_view body) {
  return "POST /test.T/M HTTP/1.1\r\nhost: a\r\ncontent-type: " + std::string(type) +
         "\r\ncontent-length: " + std::to_string(body.size()) + "\r\n" + std::string(fields) + "\r\n" + std::string(body);
}
// The body of a chunked response.
std::string unchunked(const std::string& response) {
  std::string body;
  size_t at = response.find("\r\n\r\n") + 4;
  while (true) {
    const size_t n = std::strtoul(response.c_str() + at, nullptr, 16);
    if (n == 0) return body;
    at = response.find("\r\n", at) + 2;
    body += response.substr(at, n);
    at += n + 2;
  }
}

const std::string kTrailers = frame("grpc-status:5\r\ngrpc-message:no\r\n", '\x80');

TEST(GrpcWeb, BinaryAndTextOverHttp1) {
  World w(web_config());
  Http2Endpoint e(w);
  std::string messages = frame("first");
  while (messages.size() < 300'000) messages += frame(pattern(messages.size() % 5'000));
  e.news = [&](ServerStream& s) {
    if (!s.rx_end || s.tx_end) return;
    EXPECT_EQ(s.header("content-type"), "application/grpc");
    EXPECT_EQ(s.header("te"), "trailers");
    EXPECT_EQ(s.header("grpc-accept-encoding"), "identity");
    EXPECT_EQ(s.header("content-length"), "-");
    EXPECT_TRUE(s.body == messages);
    e.respond(s, 200, {{"content-type", "application/grpc", HeaderId::kContentType}}, messages, true,
              {{"grpc-status", "5", HeaderId::kGrpcStatus}, {"grpc-message", "no", HeaderId::kOther}});
  };
  Peer& p = w.connect();
  w.send(p, post("application/grpc-web", "", messages));
  ASSERT_TRUE(w.wait_for(p, "\r\n0\r\n\r\n", 10 * kSecond));
  EXPECT_TRUE(has_line(p.received, "content-type: application/grpc-web+proto")) << p.received.substr(0, 300);
  EXPECT_TRUE(unchunked(p.received) == messages + kTrailers);
  EXPECT_EQ(w.log().back().bytes_sent, messages.size() + kTrailers.size());

  p.received.clear();
  w.send(p, post("application/grpc-web-text", "accept: application/grpc-web-text\r\n", base64(messages)));
  ASSERT_TRUE(w.wait_for(p, "\r\n0\r\n\r\n", 10 * kSecond));
  EXPECT_TRUE(has_line(p.received, "content-type: application/grpc-web-text+proto"));
  std::string text;
  for (size_t at = 0; at < messages.size();) {
    const size_t n = 5 + base::load_be32(messages.data() + at + 1);
    text += base64(messages.substr(at, n));
    at += n;
  }
  text += base64(kTrailers);
  EXPECT_TRUE(unchunked(p.received) == text);
  EXPECT_EQ(w.log().back().bytes_sent, text.size());
  EXPECT_EQ(w.log().back().bytes_received, base64(messages).size());
  EXPECT_EQ(w.server.peers.size(), 1u);
  EXPECT_EQ(w.cluster_count(ClusterCounter::kGrpcWebTotal), 2u);
  EXPECT_EQ(w.cluster_count(ClusterCounter::kGrpcWebFailure), 2u);
  EXPECT_EQ(w.cluster_count(ClusterCounter::kGrpcWebSuccess), 0u);
}

TEST(GrpcWeb, MessagesAreNotHeldBack) {
  World w(web_config());
  Http2Endpoint e(w);
  Peer& p = w.connect();
  w.send(p, post("application/grpc-web-text", "accept: application/grpc-web-text\r\n", base64(frame("x"))));
  ServerStream& s = e.request();
  e.respond(s, 200, {{"content-type", "application/grpc", HeaderId::kContentType}}, frame("one"), false);
  ASSERT_TRUE(w.wait_for(p, base64(frame("one")), kSecond));
  e.send(s, frame("two").substr(0, 6), false);  // inside a frame, too: what makes groups
  ASSERT_TRUE(w.wait_for(p, base64(frame("two").substr(0, 6)), kSecond));
  e.send(s, frame("two").substr(6), true, {{"grpc-status", "0", HeaderId::kGrpcStatus}});
  ASSERT_TRUE(w.wait_for(p, "\r\n0\r\n\r\n", kSecond));
  EXPECT_EQ(w.cluster_count(ClusterCounter::kGrpcWebSuccess), 1u);
}

TEST(GrpcWeb, ClientsOfHttp2AndEndpointsOfHttp1) {
  World w(web_config(false));
  Http2Client c(w);
  w.server_script = [&] {
    for (Peer& p : w.server.peers) {
      if (p.received.find("0\r\n\r\n") == std::string::npos) continue;
      EXPECT_TRUE(has_line(p.received, "transfer-encoding: chunked")) << p.received;
      EXPECT_TRUE(has_line(p.received, "content-type: application/grpc"));
      EXPECT_EQ(unchunked(p.received), frame("question"));
      p.received.clear();
      w.server.send(p,
                    "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\na\r\n" +
                        frame("hello") + "\r\n0\r\ngrpc-status: 0\r\n\r\n",
                    w.now);
    }
  };
  ClientStream& s = c.request(
      "POST", "/test.T/M",
      {{"content-type", "application/grpc-web-text", HeaderId::kContentType}, {"content-length", "20", HeaderId::kContentLength}},
      false);
  const std::string text = base64(frame("question"));
  for (const char& ch : text) c.body(s, std::string_view(&ch, 1), &ch == &text.back());
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(s.body, frame("hello") + frame("grpc-status:0\r\n", '\x80'));
  EXPECT_FALSE(s.trailers_complete);
}

TEST(GrpcWeb, WhatIsNoGrpcBecomesAMessage) {
  World w(web_config(false));
  std::string answer;
  w.server_script = [&] {
    for (Peer& p : w.server.peers) {
      if (p.received.find("0\r\n\r\n") == std::string::npos) continue;
      p.received.clear();
      w.server.send(p, answer, w.now);
    }
  };
  const std::string long_text = pattern(40'000);
  const struct {
    std::string body, message, status;
    int http;
  } kCases[] = {
      {"not here: 100 %\n", "not here: 100 %25%0A", "12", 404},
      {long_text, long_text.substr(0, 16 * 1024), "14", 503},
      {std::string(20'000, '%'),
       [] {
         std::string s;
         for (int i = 0; i < 16 * 1024; ++i) s += "%25";
         return s;
       }(),
       "2", 200},
  };
  Peer& p = w.connect();
  for (const auto& c : kCases) {
    answer = "HTTP/1.1 " + std::to_string(c.http) +
             " X\r\ncontent-type: text/html\r\ncontent-length: " + std::to_string(c.body.size()) + "\r\n\r\n" + c.body;
    p.received.clear();
    w.send(p, post("application/grpc-web", "", frame("x")));
    ASSERT_TRUE(w.wait_for(p, "\r\n\r\n", 5 * kSecond)) << c.http;
    w.settle();
    EXPECT_TRUE(p.received.starts_with("HTTP/1.1 " + std::to_string(c.http)));
    EXPECT_TRUE(has_line(p.received, "grpc-message: " + c.message)) << c.http;
    EXPECT_TRUE(has_line(p.received, "grpc-status: " + c.status));
    EXPECT_TRUE(has_line(p.received, "content-type: application/grpc-web+proto"));
    EXPECT_TRUE(has_line(p.received, "content-length: 0"));
    EXPECT_TRUE(p.received.ends_with("\r\n\r\n"));
  }
  EXPECT_EQ(w.client.peers.size(), 1u);
  // It ends in the middle: an answer of our own.
  answer = "HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\nabc";
  p.received.clear();
  w.send(p, post("application/grpc-web", "", frame("x")));
  ASSERT_TRUE(w.run_until([&] { return !w.server.peers.empty() && w.log().size() == 3; }, kSecond));
  w.settle();
  w.close(w.server.peers.back());
  ASSERT_TRUE(w.wait_for(p, "reset reason: protocol error", kSecond)) << p.received;
  EXPECT_TRUE(p.received.starts_with("HTTP/1.1 502 "));
  EXPECT_EQ(w.last(), "502 UPE");
}

TEST(GrpcWeb, BadBase64IsRefused) {
  World w(web_config());
  Http2Endpoint e(w);
  const struct {
    const char *body, *details;
  } kCases[] = {{"!!!!", "grpc_base_64_decode_failed"},
                {"AAAAA", "grpc_base_64_decode_failed_bad_size"},
                {"AB==", "grpc_base_64_decode_failed"}};
  Peer& p = w.connect();
  for (const auto& c : kCases) {
    p.received.clear();
    w.send(p, post("application/grpc-web-text", "", c.body));
    ASSERT_TRUE(w.wait_for(p, "\r\n\r\n", kSecond)) << c.body;
    EXPECT_TRUE(p.received.starts_with("HTTP/1.1 400 "));
    EXPECT_TRUE(has_line(p.received, "grpc-message: Bad gRPC-web request, invalid base64 data."));
    EXPECT_TRUE(has_line(p.received, "grpc-status: 13"));
    EXPECT_EQ(w.log().back().details, c.details);
    if (!p.open()) break;
  }
}

TEST(GrpcWeb, OthersPassAsTheyAre) {
  World w(web_config(false));
  w.serve([](const std::string& request) {
    EXPECT_TRUE(has_line(request, "content-type: application/grpc-web+json"));
    EXPECT_FALSE(has_line(request, "te: trailers"));
    return ok();
  });
  Peer& p = w.connect();
  w.send(p, post("application/grpc-web+json", "", "{}"));
  ASSERT_TRUE(w.wait_for(p, "hello"));
  EXPECT_TRUE(has_line(p.received, "content-length: 5"));
}

TEST(GrpcWeb, ThroughACompressor) {
  table::Compressor gzip;
  World w(web_config(true, {gzip}));
  Http2Endpoint e(w);
  const std::string message = std::string(5'000, 'a');
  e.news = [&](ServerStream& s) {
    if (s.rx_end && !s.tx_end)
      e.respond(s, 200, {{"content-type", "application/grpc", HeaderId::kContentType}}, frame(message), true,
                {{"grpc-status", "0", HeaderId::kGrpcStatus}});
  };
  Peer& p = w.connect();
  w.send(p,
         post("application/grpc-web-text", "accept: application/grpc-web-text\r\naccept-encoding: gzip\r\n", base64(frame("x"))));
  ASSERT_TRUE(w.wait_for(p, "\r\n0\r\n\r\n", kSecond));
  EXPECT_TRUE(has_line(p.received, "content-encoding: gzip")) << p.received.substr(0, 400);
  std::string plain;
  bool whole = false;
  EXPECT_TRUE(millrace::test::decode(compress::Codec::kGzip, unchunked(p.received), &plain, &whole));
  EXPECT_TRUE(plain == base64(frame(message)) + base64(frame("grpc-status:0\r\n", '\x80')));
}

}  // namespace
}  // namespace millrace::dataplane::test
