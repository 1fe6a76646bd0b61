#include "lib/http/h1_writer.h"

#include <ctime>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "lib/http/h1_parser.h"
#include "tests/support/seed.h"

namespace millrace::http {
namespace {

using namespace std::string_view_literals;

template <class Write>
std::string written(Write&& write) {
  std::vector<char> out(8192);
  const size_t n = write(std::span<char>(out));
  // The size is the same however much room there is, and nothing is written outside.
  for (size_t room = 0; room <= n; room += room < 8 ? 1 : 13) {
    std::vector<char> small(room + 8, '~');
    EXPECT_EQ(write(std::span<char>(small.data(), room)), n);
    EXPECT_EQ(std::string(small.data() + room, 8), "~~~~~~~~");
  }
  std::vector<char> exact(n);
  EXPECT_EQ(write(std::span<char>(exact)), n);
  EXPECT_EQ(std::string(exact.data(), n), std::string(out.data(), n));
  return {out.data(), n};
}

Header field(std::string_view name, std::string_view value) { return {name, value, header_id(name)}; }

struct RequestRow {
  const char* name;
  const char* method;
  const char* path;
  std::vector<Header> fields;
  BodyFraming framing;
  const char* bytes;
};
// As Envoy 1.40 writes them to an upstream.
const RequestRow kRequests[] = {
    {"get", "GET", "/a?b", {field("x-a", "1"), field("x-b", "")}, {}, "GET /a?b HTTP/1.1\r\nhost: h\r\nx-a: 1\r\nx-b: \r\n\r\n"},
    {"delete without body", "DELETE", "/", {}, {}, "DELETE / HTTP/1.1\r\nhost: h\r\n\r\n"},
    {"trace without body", "TRACE", "/", {}, {}, "TRACE / HTTP/1.1\r\nhost: h\r\n\r\n"},
    {"post without body", "POST", "/", {}, {}, "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"},
    {"options without body", "OPTIONS", "*", {}, {}, "OPTIONS * HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"},
    {"length kept as sent",
     "POST",
     "/",
     {field("content-length", "005"), field("x", "y")},
     {Framing::kContentLength, 5},
     "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 005\r\nx: y\r\n\r\n"},
    {"length 0 kept",
     "GET",
     "/",
     {field("content-length", "0")},
     {Framing::kContentLength, 0},
     "GET / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"},
    {"length made",
     "PUT",
     "/",
     {},
     {Framing::kContentLength, 18446744073709551615u},
     "PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 18446744073709551615\r\n\r\n"},
    {"chunked",
     "POST",
     "/",
     {field("te", "trailers")},
     {Framing::kChunked, 0},
     "POST / HTTP/1.1\r\nhost: h\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n"},
    {"connect", "CONNECT", "", {}, {Framing::kTunnel, 0}, "CONNECT h HTTP/1.1\r\nhost: h\r\n\r\n"},
    {"upgrade",
     "GET",
     "/",
     {field("connection", "Upgrade"), field("upgrade", "websocket")},
     {Framing::kTunnel, 0},
     "GET / HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"},
};

TEST(H1Writer, Requests) {
  for (const RequestRow& row : kRequests) {
    SCOPED_TRACE(row.name);
    std::vector<Header> fields = row.fields;
    fields.resize(fields.size() + 1);
    RequestHead head;
    head.method = row.method;
    head.path = row.path;
    head.authority = "h";
    head.headers = HeaderTable(fields.data(), static_cast<uint32_t>(fields.size()));
    for (const Header& h : row.fields) head.headers.push(h);
    EXPECT_EQ(written([&](std::span<char> out) { return write_request_head(head, row.framing, out); }), row.bytes);
  }
}

struct ResponseRow {
  const char* name;
  uint16_t status;
  std::vector<Header> fields;
  ResponseWrite options;
  const char* bytes;
};
constexpr Version k10 = Version::kHttp10, k11 = Version::kHttp11;
// As Envoy 1.40 writes them to a client.
const ResponseRow kResponses[] = {
    {"length kept",
     200,
     {field("content-length", "5"), field("server", "envoy")},
     {{Framing::kContentLength, 5}, k11, false, false},
     "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nserver: envoy\r\n\r\n"},
    {"chunked",
     200,
     {field("x", "y")},
     {{Framing::kChunked, 0}, k11, false, false},
     "HTTP/1.1 200 OK\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n"},
    {"close",
     200,
     {field("x", "y")},
     {{Framing::kChunked, 0}, k11, true, false},
     "HTTP/1.1 200 OK\r\nx: y\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"},
    {"no body", 404, {}, {{}, k11, false, false}, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"},
    {"no body, close",
     400,
     {field("server", "envoy")},
     {{}, k11, true, false},
     "HTTP/1.1 400 Bad Request\r\nserver: envoy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"},
    {"204", 204, {}, {{}, k11, false, false}, "HTTP/1.1 204 No Content\r\n\r\n"},
    {"304", 304, {}, {{}, k11, false, false}, "HTTP/1.1 304 Not Modified\r\n\r\n"},
    {"304 with length",
     304,
     {field("content-length", "5")},
     {{}, k11, false, false},
     "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"},
    {"answer to HEAD with length",
     200,
     {field("content-length", "5")},
     {{}, k11, false, true},
     "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"},
    {"answer to HEAD without", 200, {}, {{}, k11, false, true}, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"},
    {"switching",
     101,
     {field("connection", "Upgrade"), field("upgrade", "websocket")},
     {{Framing::kTunnel, 0}, k11, false, false},
     "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"},
    {"tunnel", 200, {}, {{Framing::kTunnel, 0}, k11, false, false}, "HTTP/1.1 200 OK\r\n\r\n"},
    {"1.0 keep-alive",
     200,
     {field("content-length", "5")},
     {{Framing::kContentLength, 5}, k10, false, false},
     "HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\n"},
    {"1.0 until close", 200, {}, {{Framing::kUntilClose, 0}, k10, true, false}, "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n"},
    {"unknown code", 799, {}, {{}, k11, false, false}, "HTTP/1.1 799 Unknown\r\ncontent-length: 0\r\n\r\n"},
};

TEST(H1Writer, Responses) {
  for (const ResponseRow& row : kResponses) {
    SCOPED_TRACE(row.name);
    std::vector<Header> fields = row.fields;
    fields.resize(fields.size() + 1);
    ResponseHead head;
    head.status = row.status;
    head.reason = "ignored";
    head.headers = HeaderTable(fields.data(), static_cast<uint32_t>(fields.size()));
    for (const Header& h : row.fields) head.headers.push(h);
    EXPECT_EQ(written([&](std::span<char> out) { return write_response_head(head, row.options, out); }), row.bytes);
  }
}

TEST(H1Writer, OutgoingFraming) {
  EXPECT_EQ(outgoing_framing({Framing::kContentLength, 5}, k10).length, 5u);
  EXPECT_EQ(outgoing_framing({Framing::kChunked, 0}, k11).kind, Framing::kChunked);
  EXPECT_EQ(outgoing_framing({Framing::kUntilClose, 0}, k11).kind, Framing::kChunked);
  EXPECT_EQ(outgoing_framing({Framing::kChunked, 0}, k10).kind, Framing::kUntilClose);
  EXPECT_EQ(outgoing_framing({Framing::kTunnel, 0}, k11).kind, Framing::kTunnel);
  EXPECT_EQ(outgoing_framing({}, k10).kind, Framing::kNone);
}

TEST(H1Writer, ChunkHeaders) {
  const std::pair<uint64_t, const char*> rows[] = {{0, "0\r\n"},    {1, "1\r\n"},       {10, "a\r\n"},
                                                   {255, "ff\r\n"}, {4096, "1000\r\n"}, {UINT64_MAX, "ffffffffffffffff\r\n"}};
  for (const auto& [n, text] : rows) EXPECT_EQ(written([&](std::span<char> out) { return write_chunk_header(n, out); }), text);
  char longest[kMaxChunkHeaderBytes];
  EXPECT_EQ(write_chunk_header(UINT64_MAX, longest), sizeof longest);
}

TEST(H1Writer, Dates) {
  const std::pair<uint64_t, const char*> rows[] = {
      {784111777, "Sun, 06 Nov 1994 08:49:37 GMT"},  // RFC 9110 5.6.7
      {0, "Thu, 01 Jan 1970 00:00:00 GMT"},         {951782399, "Mon, 28 Feb 2000 23:59:59 GMT"},
      {951782400, "Tue, 29 Feb 2000 00:00:00 GMT"}, {4107542400, "Mon, 01 Mar 2100 00:00:00 GMT"},
  };
  for (const auto& [seconds, text] : rows) {
    char out[kDateBytes];
    format_date(seconds, out);
    EXPECT_EQ(std::string_view(out, kDateBytes), text);
  }
  for (uint64_t t = 0; t < 5'000'000'000; t += 86'399 * 7) {
    const time_t seconds = static_cast<time_t>(t);
    tm parts;
    gmtime_r(&seconds, &parts);
    char expected[64], out[kDateBytes];
    strftime(expected, sizeof expected, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    format_date(t, out);
    ASSERT_EQ(std::string_view(out, kDateBytes), expected);
  }
}

// What the writer writes, the parser reads back.
TEST(H1Writer, RandomRoundTrip) {
  const uint64_t seed = support::run_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto text = [&](std::string_view alphabet, size_t least, size_t most) {
    std::string s(least + random() % (most - least + 1), ' ');
    for (char& c : s) c = alphabet[random() % alphabet.size()];
    return s;
  };
  constexpr std::string_view kNameBytes = "abcdefghijklmnopqrstuvwxyz0123456789-_!#$%&'*+.^`|~";
  std::string visible;
  for (int c = 0x21; c < 0x7f; ++c) visible += static_cast<char>(c);
  std::string value_bytes = visible + "\x80\xff";
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> memory;
    std::vector<Header> fields(40), read(40);
    RequestHead head;
    const std::string path = "/" + text(visible, 0, 100), host = text("abcdefgh.-0123456789", 1, 40);
    head.method = round % 2 ? "GET" : "POST";
    head.path = path;
    head.authority = host;
    head.headers = HeaderTable(fields.data(), 40);
    memory.reserve(80);
    for (uint64_t n = random() % 30; n != 0; --n) {
      memory.push_back("x" + text(kNameBytes, 0, 50));
      memory.push_back(text(value_bytes, 0, 90));
      head.headers.push({memory[memory.size() - 2], memory.back(), HeaderId::kOther});
    }
    const BodyFraming framing =
        random() % 2 ? BodyFraming{Framing::kChunked, 0} : BodyFraming{Framing::kContentLength, random() >> 1};
    std::vector<char> out(65536);
    const size_t n = write_request_head(head, framing, out);
    RequestHead again;
    again.headers = HeaderTable(read.data(), 40);
    const HeadResult r = parse_request_head({out.data(), n}, 0, {}, &again);
    ASSERT_EQ(r.status, ParseStatus::kDone) << info(r.error).name << "\n" << std::string(out.data(), n);
    EXPECT_EQ(r.consumed, n);
    EXPECT_EQ(again.method, head.method);
    EXPECT_EQ(again.path, path);
    EXPECT_EQ(again.authority, host);
    ASSERT_EQ(again.headers.size(), head.headers.size() + 1);
    for (uint32_t i = 0; i < head.headers.size(); ++i) {
      EXPECT_EQ(again.headers[i].name, head.headers[i].name);
      EXPECT_EQ(again.headers[i].value, head.headers[i].value);
    }
    EXPECT_EQ(request_framing(again).kind, framing.kind);
    EXPECT_EQ(request_framing(again).length, framing.length);
  }
}

}  // namespace
}  // namespace millrace::http
