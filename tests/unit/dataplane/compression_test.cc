// The compressor filters in a whole worker: which responses are compressed, what their heads become, and that bodies arrive.
#include "tests/support/decode.h"
#include "tests/unit/dataplane/http2_fixture.h"

namespace millrace::dataplane::test {
namespace {

using compress::Codec;
using stats::CompressorCounter;

table::Compressor filter(table::CompressionCodec codec = table::CompressionCodec::kGzip) {
  table::Compressor c;
  c.codec = codec;
  c.level = codec == table::CompressionCodec::kGzip ? 6 : 3;
  if (codec == table::CompressionCodec::kBrotli) c.window_bits = 18;
  return c;
}
table::Compressor gzip() { return filter(); }
table::Compressor brotli() { return filter(table::CompressionCodec::kBrotli); }
table::Compressor zstd() { return filter(table::CompressionCodec::kZstd); }

Config with(std::vector<table::Compressor> filters) {
  Config c;
  c.compressors = std::move(filters);
  return c;
}

std::string text(size_t bytes) {
  std::string s;
  for (int i = 0; s.size() < bytes; ++i) s += "line " + std::to_string(i) + " of a body that is read twice; ";
  s.resize(bytes);
  return s;
}

std::string answer(std::string_view body, std::string_view fields = "content-type: text/plain\r\n", int status = 200) {
  return "HTTP/1.1 " + std::to_string(status) + " X\r\ncontent-length: " + std::to_string(body.size()) + "\r\n" +
         std::string(fields) + "\r\n" + std::string(body);
}

struct Response {
  std::string head, body;  // body: without chunks
  bool complete = false;
  std::string field(std::string_view name) const {
    const std::string line = "\r\n" + std::string(name) + ": ";
    const size_t at = head.find(line);
    if (at == std::string::npos) return "-";
    return head.substr(at + line.size(), head.find("\r\n", at + line.size()) - at - line.size());
  }
};

// The first response in `bytes`; *rest: what stands behind it.
Response parse(const std::string& bytes, std::string* rest = nullptr) {
  Response r;
  const size_t end = bytes.find("\r\n\r\n");
  if (end == std::string::npos) return r;
  r.head = bytes.substr(0, end + 4);
  size_t at = end + 4;
  if (r.field("transfer-encoding") == "chunked") {
    while (true) {
      const size_t line = bytes.find("\r\n", at);
      if (line == std::string::npos) return r;
      const size_t n = std::strtoul(bytes.c_str() + at, nullptr, 16);
      if (bytes.size() < line + 2 + n + 2) return r;
      r.body += bytes.substr(line + 2, n);
      at = line + 2 + n + 2;
      if (n == 0) break;
    }
  } else {
    const size_t n = std::strtoul(r.field("content-length").c_str(), nullptr, 10);
    if (bytes.size() < at + n) return r;
    r.body = bytes.substr(at, n);
    at += n;
  }
  r.complete = true;
  if (rest != nullptr) *rest = bytes.substr(at);
  return r;
}

Response fetch(World& w, Peer& p, const std::string& request) {
  p.received.clear();
  w.send(p, request);
  EXPECT_TRUE(w.run_until([&] { return parse(p.received).complete; }, 5 * kSecond)) << p.received.substr(0, 300);
  std::string rest;
  Response r = parse(p.received, &rest);
  EXPECT_EQ(rest, "");
  return r;
}

std::string decoded(Codec codec, const std::string& coded) {
  std::string plain;
  bool whole = false;
  EXPECT_TRUE(millrace::test::decode(codec, coded, &plain, &whole));
  EXPECT_TRUE(whole);
  return plain;
}

constexpr std::string_view kAll = "accept-encoding: gzip, br, zstd\r\n";

TEST(Compression, EveryCodecAndSizeOverOneConnection) {
  for (const table::Compressor& f : {gzip(), brotli(), zstd()}) {
    World w(with({f}));
    std::string body;
    w.serve([&](const std::string& request) {
      EXPECT_TRUE(has_line(request, "accept-encoding: gzip, br, zstd"));
      return answer(body);
    });
    Peer& p = w.connect();
    uint64_t plain = 0, coded = 0, requests = 0;
    for (const size_t bytes : {30, 31, 1'000, 16'384, 16'385, 100'000, 1'000'000}) {
      SCOPED_TRACE(bytes);
      body = text(bytes);
      const Response r = fetch(w, p, get("/", kAll));
      EXPECT_EQ(r.field("content-encoding"), compress::content_encoding(static_cast<Codec>(f.codec)));
      EXPECT_EQ(r.field("vary"), "Accept-Encoding");
      EXPECT_EQ(r.field("content-length"), "-");
      EXPECT_EQ(r.field("transfer-encoding"), "chunked");
      EXPECT_TRUE(decoded(static_cast<Codec>(f.codec), r.body) == body);
      EXPECT_LT(r.body.size() * 3, body.size() + 1'000);
      plain += bytes;
      coded += r.body.size();
      ++requests;
      EXPECT_EQ(w.log().back().bytes_sent, r.body.size());
    }
    EXPECT_EQ(w.compressor_count(CompressorCounter::kCompressed), requests);
    EXPECT_EQ(w.compressor_count(CompressorCounter::kUncompressedBytes), plain);
    EXPECT_EQ(w.compressor_count(CompressorCounter::kCompressedBytes), coded);
    EXPECT_EQ(w.compressor_count(CompressorCounter::kHeaderUsed), requests);
    EXPECT_EQ(w.compressor_count(CompressorCounter::kActive), 0u);
    EXPECT_EQ(w.server.peers.size(), 1u);  // the endpoint's connection lives on, too
  }
}

struct Case {
  const char* name;
  const char* request;   // fields
  const char* response;  // fields
  const char* encoding;  // of the response; "-": goes as it is
  const char* vary;
  CompressorCounter counted;
};
const Case kCases[] = {
    {"plain", "accept-encoding: gzip\r\n", "content-type: text/plain\r\n", "gzip", "Accept-Encoding",
     CompressorCounter::kHeaderUsed},
    {"parameters of the type", "accept-encoding: gzip\r\n", "content-type: Text/Plain ; charset=utf-8\r\n", "gzip",
     "Accept-Encoding", CompressorCounter::kCompressed},
    {"no type", "accept-encoding: gzip\r\n", "x: y\r\n", "gzip", "Accept-Encoding", CompressorCounter::kCompressed},
    {"another type", "accept-encoding: gzip\r\n", "content-type: image/png\r\n", "-", "-", CompressorCounter::kNotCompressed},
    {"an empty type", "accept-encoding: gzip\r\n", "content-type:\r\n", "-", "-", CompressorCounter::kNotCompressed},
    {"no accept-encoding", "", "content-type: text/plain\r\n", "-", "Accept-Encoding", CompressorCounter::kNoAcceptHeader},
    {"an empty accept-encoding", "accept-encoding:\r\n", "content-type: text/plain\r\n", "-", "Accept-Encoding",
     CompressorCounter::kHeaderNotValid},
    {"identity", "accept-encoding: identity\r\n", "content-type: text/plain\r\n", "-", "Accept-Encoding",
     CompressorCounter::kHeaderIdentity},
    {"anything", "accept-encoding: *\r\n", "content-type: text/plain\r\n", "gzip", "Accept-Encoding",
     CompressorCounter::kHeaderWildcard},
    {"excluded", "accept-encoding: gzip;q=0, *\r\n", "content-type: text/plain\r\n", "-", "Accept-Encoding",
     CompressorCounter::kHeaderNotValid},
    {"two fields", "accept-encoding: br\r\naccept-encoding: gzip\r\n", "content-type: text/plain\r\n", "gzip", "Accept-Encoding",
     CompressorCounter::kHeaderUsed},
    {"no-transform", "accept-encoding: gzip\r\n", "content-type: text/plain\r\ncache-control: public, No-Transform\r\n", "-", "-",
     CompressorCounter::kNotCompressed},
    {"no-transform in a second field", "accept-encoding: gzip\r\n",
     "content-type: text/plain\r\ncache-control: public\r\ncache-control: no-transform\r\n", "-", "-",
     CompressorCounter::kNotCompressed},
    {"encoded already", "accept-encoding: gzip\r\n", "content-type: text/plain\r\ncontent-encoding: br\r\n", "br", "-",
     CompressorCounter::kNotCompressed},
    {"vary is there", "accept-encoding: gzip\r\n", "content-type: text/plain\r\nvary: Origin, Accept-Encoding\r\n", "gzip",
     "Origin, Accept-Encoding", CompressorCounter::kCompressed},
    {"vary of others", "accept-encoding: gzip\r\n", "content-type: text/plain\r\nvary: Origin\r\n", "gzip",
     "Origin, Accept-Encoding", CompressorCounter::kCompressed},
};

TEST(Compression, WhatIsCompressed) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    World w(with({gzip()}));
    const std::string body = text(500);
    w.serve([&](const std::string&) { return answer(body, c.response); });
    const Response r = fetch(w, w.connect(), get("/", c.request));
    EXPECT_EQ(r.field("content-encoding"), c.encoding);
    EXPECT_EQ(r.field("vary"), c.vary);
    EXPECT_EQ(w.compressor_count(c.counted), 1u);
    if (c.encoding == std::string_view("gzip")) {
      EXPECT_EQ(decoded(Codec::kGzip, r.body), body);
    } else {
      EXPECT_EQ(r.body, body);
      EXPECT_EQ(r.field("content-length"), "500");
      EXPECT_EQ(w.compressor_count(CompressorCounter::kNotCompressed), 1u);
    }
    EXPECT_EQ(w.compressor_count(CompressorCounter::kRequestNotCompressed), 1u);
  }
}

TEST(Compression, EtagsAndLengths) {
  table::Compressor no_etags = gzip();
  no_etags.disable_on_etag = 1;
  struct {
    table::Compressor filter;
    size_t bytes;
    const char *etag, *encoding, *left;
  } const cases[] = {
      {gzip(), 500, "\"strong\"", "gzip", "-"},          {gzip(), 500, "W/\"weak\"", "gzip", "W/\"weak\""},
      {gzip(), 500, "w/\"weak\"", "gzip", "w/\"weak\""}, {no_etags, 500, "\"strong\"", "-", "\"strong\""},
      {no_etags, 500, "W/\"weak\"", "-", "W/\"weak\""},  {gzip(), 29, "\"strong\"", "-", "\"strong\""},
      {gzip(), 30, "\"strong\"", "gzip", "-"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.etag);
    World w(with({c.filter}));
    w.serve([&](const std::string&) {
      return answer(text(c.bytes), "content-type: text/plain\r\netag: " + std::string(c.etag) + "\r\n");
    });
    const Response r = fetch(w, w.connect(), get("/", kAll));
    EXPECT_EQ(r.field("content-encoding"), c.encoding);
    EXPECT_EQ(r.field("etag"), c.left);
    EXPECT_EQ(w.compressor_count(CompressorCounter::kTooSmall), c.bytes < 30 ? 1u : 0u);
    EXPECT_EQ(w.compressor_count(CompressorCounter::kNotCompressedEtag), c.filter.disable_on_etag);
  }
}

TEST(Compression, ResponsesWithoutABody) {
  World w(with({gzip()}));
  int status = 200;
  w.serve([&](const std::string& request) {
    if (request.starts_with("HEAD"))
      return std::string("HTTP/1.1 200 OK\r\ncontent-length: 500\r\ncontent-type: text/plain\r\n\r\n");
    return "HTTP/1.1 " + std::to_string(status) + " X\r\netag: \"s\"\r\n\r\n";
  });
  Peer& p = w.connect();
  w.send(p, "HEAD / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n");
  ASSERT_TRUE(w.wait_for(p, "\r\n\r\n"));
  w.settle();
  EXPECT_TRUE(has_line(p.received, "content-length: 500"));  // of what a GET would bring, as it is
  EXPECT_TRUE(has_line(p.received, "vary: Accept-Encoding"));
  EXPECT_EQ(p.received.find("content-encoding"), std::string::npos);
  for (const int s : {204, 304}) {
    status = s;
    p.received.clear();
    w.send(p, get("/", kAll));
    ASSERT_TRUE(w.wait_for(p, "\r\n\r\n"));
    w.settle();
    EXPECT_TRUE(p.received.ends_with("\r\n\r\n")) << p.received;
    EXPECT_EQ(p.received.find("content-encoding"), std::string::npos);
    EXPECT_TRUE(has_line(p.received, "etag: \"s\""));
  }
  EXPECT_EQ(w.compressor_count(CompressorCounter::kCompressed), 0u);
  EXPECT_EQ(w.compressor_count(CompressorCounter::kNotCompressed), 3u);
}

TEST(Compression, SeveralFilters) {
  struct {
    const char* name;
    std::vector<table::Compressor> filters;
    const char *accept, *encoding;
  } cases[] = {
      {"the client's order", {gzip(), brotli(), zstd()}, "zstd, br, gzip", "zstd"},
      {"q", {gzip(), brotli(), zstd()}, "zstd;q=0.5, br;q=0.9, gzip;q=0.8", "br"},
      {"any: the first", {brotli(), gzip()}, "*", "br"},
      {"choose_first", {gzip(), brotli()}, "gzip, br", "br"},
      {"disabled, and chosen all the same", {gzip(), brotli()}, "br, gzip", "-"},
  };
  cases[3].filters[1].choose_first = 1;
  cases[4].filters[1].enabled = 0;
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name);
    World w(with(c.filters));
    w.serve([](const std::string&) { return answer(text(500)); });
    const Response r = fetch(w, w.connect(), get("/", "accept-encoding: " + std::string(c.accept) + "\r\n"));
    EXPECT_EQ(r.field("content-encoding"), c.encoding);
    EXPECT_EQ(r.field("vary"), "Accept-Encoding");
    EXPECT_EQ(w.compressor_count(CompressorCounter::kCompressed) + w.compressor_count(CompressorCounter::kNotCompressed),
              c.filters.size());
  }
}

TEST(Compression, AcceptEncodingIsRemoved) {
  table::Compressor removes = gzip();
  removes.remove_accept_encoding = 1;
  for (const bool in_front : {false, true}) {
    World w(with(in_front ? std::vector{removes, brotli()} : std::vector{brotli(), removes}));
    w.serve([](const std::string& request) {
      EXPECT_EQ(request.find("accept-encoding"), std::string::npos);
      return answer(text(500));
    });
    // The filter behind the one that removes it does not see it, as in Envoy.
    const Response r = fetch(w, w.connect(), get("/", "accept-encoding: br\r\n"));
    EXPECT_EQ(r.field("content-encoding"), in_front ? "-" : "br");
    EXPECT_EQ(w.compressor_count(CompressorCounter::kNoAcceptHeader), in_front ? 1u : 0u);
  }
}

TEST(Compression, ChunkedAndUntilClose) {
  World w(with({brotli()}));
  const std::string body = text(70'000);
  bool close = false;
  w.serve([&](const std::string&) {
    std::string r = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n";
    if (close) return r + "\r\n" + body;
    r += "transfer-encoding: chunked\r\n\r\n";
    for (size_t at = 0; at < body.size(); at += 7'000) r += "1b58\r\n" + body.substr(at, 7'000) + "\r\n";
    return r + "0\r\n\r\n";
  });
  Peer& p = w.connect();
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(decoded(Codec::kBrotli, fetch(w, p, get("/", kAll)).body) == body);
  close = true;
  Peer& q = w.connect();
  w.send(q, get("/", kAll));
  ASSERT_TRUE(w.run_until([&] { return !w.server.peers.empty() && q.received.size() > 1'000; }, kSecond));
  w.close(w.server.peers.front());
  ASSERT_TRUE(w.run_until([&] { return parse(q.received).complete; }, kSecond));
  EXPECT_TRUE(decoded(Codec::kBrotli, parse(q.received).body) == body);
}

// Somebody waits for each event: what has come goes out at once, and can be read.
TEST(Compression, StreamsAreNotHeldBack) {
  for (const table::Compressor& f : {gzip(), brotli(), zstd()}) {
    World w(with({f}));
    Peer& p = w.connect();
    w.send(p, get("/events", kAll));
    Peer& u = w.upstream();
    ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
    w.send(u, "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n");
    std::string sent;
    for (int i = 0; i < 20; ++i) {
      const std::string event = "data: " + std::to_string(i) + "\n\n";
      char size[8];
      std::snprintf(size, sizeof size, "%zx\r\n", event.size());
      w.send(u, size + event + "\r\n");
      sent += event;
      w.settle();
      std::string plain;
      bool whole;
      ASSERT_TRUE(millrace::test::decode(static_cast<Codec>(f.codec), parse(p.received).body, &plain, &whole));
      EXPECT_EQ(plain, sent);
      EXPECT_FALSE(whole);
    }
    w.send(u, "0\r\n\r\n");
    ASSERT_TRUE(w.run_until([&] { return parse(p.received).complete; }, kSecond));
    EXPECT_EQ(decoded(static_cast<Codec>(f.codec), parse(p.received).body), sent);
  }
}

// A body that has come as a whole takes several turns, and others are served in between.
TEST(Compression, OneBodyDoesNotHoldTheLoop) {
  World w(with({gzip()}));
  const std::string body = text(200'000);
  w.serve([&](const std::string& request) {
    return request.starts_with("GET /large") ? answer(body) : answer(text(100), "x: y\r\n");
  });
  Peer& p = w.connect();
  Peer& q = w.connect();
  w.settle();
  w.send(p, get("/large", kAll));
  uint64_t most = 0, last = 0;
  while (!parse(p.received).complete) {
    w.turn();
    w.now += kMicrosecond;
    const uint64_t now = w.compressor_count(CompressorCounter::kUncompressedBytes);
    most = std::max(most, now - last);
    last = now;
  }
  EXPECT_LE(most, uint64_t{kEncodedPerTurn} + 2'048);
  EXPECT_TRUE(decoded(Codec::kGzip, parse(p.received).body) == body);
  EXPECT_EQ(fetch(w, q, get("/small")).body, text(100));
}

TEST(Compression, ASlowReaderHoldsTheEndpointBack) {
  World w(with({gzip()}));
  std::string body;
  base::Prng random(5);
  for (int i = 0; i < 3'000'000; ++i) body += static_cast<char>(random.next());
  w.serve([&](const std::string&) { return answer(body); });
  Peer& p = w.connect();
  w.settle();
  p.reading = false;
  w.send(p, get("/", kAll));
  w.run(2 * kSecond);
  const uint64_t taken = w.compressor_count(CompressorCounter::kUncompressedBytes);
  EXPECT_GT(taken, 0u);
  EXPECT_LT(taken, 1'500'000u);
  w.resume(p);
  ASSERT_TRUE(w.run_until([&] { return parse(p.received).complete; }, 60 * kSecond));
  EXPECT_TRUE(decoded(Codec::kGzip, parse(p.received).body) == body);
}

TEST(Compression, Http10EndsWithTheConnection) {
  Config config = with({gzip()});
  config.hcm = [](table::HttpConnectionManager& h) { h.accept_http_10 = 1; };
  World w(config);
  const std::string body = text(5'000);
  w.serve([&](const std::string&) { return answer(body); });
  Peer& p = w.connect();
  w.send(p, "GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\naccept-encoding: gzip\r\n\r\n");
  ASSERT_TRUE(w.run_until([&] { return p.fin; }, 5 * kSecond));
  const size_t end = p.received.find("\r\n\r\n");
  const std::string head = p.received.substr(0, end + 4);
  EXPECT_TRUE(has_line(head, "content-encoding: gzip"));
  EXPECT_EQ(head.find("content-length"), std::string::npos);
  EXPECT_EQ(head.find("transfer-encoding"), std::string::npos);
  EXPECT_EQ(decoded(Codec::kGzip, p.received.substr(end + 4)), body);
}

// A response of HTTP/1.0 that is cut must not look whole.
TEST(Compression, ACutBodyIsNoWholeBody) {
  Config config = with({gzip()});
  config.hcm = [](table::HttpConnectionManager& h) { h.accept_http_10 = 1; };
  World w(config);
  Peer& p = w.connect();
  Peer& old = w.connect();
  w.send(p, get("/", kAll));
  w.send(old, "GET / HTTP/1.0\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n");
  for (size_t i = 0; i < 2; ++i) {
    Peer& u = w.upstream(i);
    ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
    w.send(u, answer(text(50'000)).substr(0, 30'000));
    w.run(kMillisecond * 10);
    w.abort(u);
  }
  w.run(5 * kSecond);
  EXPECT_FALSE(parse(p.received).complete);
  EXPECT_FALSE(p.open());
  EXPECT_TRUE(old.reset);
}

TEST(Compression, Http2BothSides) {
  World w(with({zstd()}));
  const std::string body = text(300'000);
  w.serve([&](const std::string&) { return answer(body); });
  Http2Client c(w);
  ClientStream& s = c.request("GET", "/", {{"accept-encoding", "gzip, zstd"}});
  ClientStream& plain = c.request("GET", "/");
  ASSERT_TRUE(c.finished(s));
  ASSERT_TRUE(c.finished(plain));
  EXPECT_EQ(s.header("content-encoding"), "zstd");
  EXPECT_EQ(s.header("content-length"), "-");
  EXPECT_TRUE(decoded(Codec::kZstd, s.body) == body);
  EXPECT_EQ(plain.header("content-encoding"), "-");
  EXPECT_TRUE(plain.body == body);
}

TEST(Compression, AnswersOfOurOwn) {
  Config config = with({gzip()});
  route::RouteSpec direct;
  direct.path = "/";
  direct.action = table::ActionKind::kDirectResponse;
  direct.direct_status = 200;
  direct.direct_body = text(2'000);
  config.routes = {direct};
  World w(config);
  Peer& p = w.connect();
  Response r = fetch(w, p, get("/", kAll));
  EXPECT_EQ(r.field("content-encoding"), "gzip");
  EXPECT_EQ(decoded(Codec::kGzip, r.body), text(2'000));
  EXPECT_EQ(w.log().back().bytes_sent, r.body.size());
  r = fetch(w, p, get("/"));
  EXPECT_EQ(r.body, text(2'000));
  Http2Client c(w);
  ClientStream& s = c.request("GET", "/", {{"accept-encoding", "gzip"}});
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(decoded(Codec::kGzip, s.body), text(2'000));
}

// No encoder is left: the response goes as it is, and is counted.
TEST(Compression, WithoutMemoryItGoesAsItIs) {
  WorldOptions o;
  o.limits.compression_bytes = 64 * 1024;
  World w(with({gzip()}), o);
  Peer& p = w.connect();
  Peer& q = w.connect();
  w.send(p, get("/", kAll));
  Peer& u = w.upstream(0);
  ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
  w.send(u, answer(text(500)).substr(0, 300));
  w.settle();
  EXPECT_EQ(w.worker->encoders_in_use(), 1u);
  w.send(q, get("/", kAll));
  Peer& v = w.upstream(1);
  ASSERT_TRUE(w.wait_for(v, "\r\n\r\n"));
  w.send(v, answer(text(500)));
  ASSERT_TRUE(w.run_until([&] { return parse(q.received).complete; }, kSecond));
  EXPECT_EQ(parse(q.received).field("content-encoding"), "-");
  EXPECT_EQ(parse(q.received).field("vary"), "Accept-Encoding");
  EXPECT_EQ(parse(q.received).body, text(500));
  EXPECT_EQ(w.compressor_count(CompressorCounter::kNoMemory), 1u);
  w.abort(p);  // its encoder goes back in the middle of the body
  w.settle();
  EXPECT_EQ(w.worker->encoders_in_use(), 0u);
}

TEST(Compression, AnEditHoldsForResponsesThatBeginAfterIt) {
  World w(with({gzip()}));
  Peer& p = w.connect();
  Peer& q = w.connect();
  w.send(p, get("/", kAll));
  w.send(q, get("/", kAll));
  Peer &u = w.upstream(0), &v = w.upstream(1);
  ASSERT_TRUE(w.wait_for(u, "\r\n\r\n") && w.wait_for(v, "\r\n\r\n"));
  w.send(u, answer(text(500)).substr(0, 300));
  w.settle();
  w.publish(with({brotli()}));
  w.send(u, answer(text(500)).substr(300));
  w.send(v, answer(text(500)));
  ASSERT_TRUE(w.run_until([&] { return parse(p.received).complete && parse(q.received).complete; }, kSecond));
  EXPECT_EQ(decoded(Codec::kGzip, parse(p.received).body), text(500));
  EXPECT_EQ(decoded(Codec::kBrotli, parse(q.received).body), text(500));
  Config none;
  w.publish(none);
  w.serve([](const std::string&) { return answer(text(500)); });
  EXPECT_EQ(fetch(w, w.connect(), get("/", kAll)).field("content-encoding"), "-");
}

}  // namespace
}  // namespace millrace::dataplane::test
