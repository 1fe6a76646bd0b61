#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "lib/http/h1_body.h"
#include "lib/http/h1_parser.h"
#include "tests/unit/http/chars.h"

namespace millrace::http {
namespace {

using namespace std::string_view_literals;

std::string text_of(const ResponseHead& h) {
  std::string s = std::to_string(h.status) + "|" + std::string(h.reason) + (h.version == Version::kHttp11 ? "|1.1" : "|1.0");
  for (const Header& f : h.headers) s += "|" + std::string(f.name) + "=" + std::string(f.value);
  return s;
}

struct Row {
  const char* name;
  std::string_view bytes;
  H1Error error;
  const char* parsed;
};
// Verdicts are those of Envoy 1.40 towards an upstream (bad: 502, upstream_reset_before_response_started{protocol_error}) unless
// the name says "stricter".
const Row kRows[] = {
    {"ok", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", H1Error::kNone, "200|OK|1.1|content-length=2"},
    {"no reason", "HTTP/1.1 200\r\n\r\n", H1Error::kNone, "200||1.1"},
    {"no reason, blank", "HTTP/1.1 200 \r\n\r\n", H1Error::kNone, "200||1.1"},
    {"odd reason", "HTTP/1.1 404 My \xc3\xa9 Reason\r\n\r\n", H1Error::kNone, "404|My \xc3\xa9 Reason|1.1"},
    {"two blanks", "HTTP/1.1  200  OK\r\n\r\n", H1Error::kNone, "200|OK|1.1"},
    {"HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\n", H1Error::kNone, "200|OK|1.0"},
    {"HTTP/2.0 is treated as 1.0", "HTTP/2.0 200 OK\r\n\r\n", H1Error::kNone, "200|OK|1.0"},
    {"status 999", "HTTP/1.1 999 X\r\n\r\n", H1Error::kNone, "999|X|1.1"},
    {"status 600", "HTTP/1.1 600 X\r\n\r\n", H1Error::kNone, "600|X|1.1"},
    {"interim", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", H1Error::kNone, "103|Early Hints|1.1|link=x"},
    {"switching", "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", H1Error::kNone,
     "101|S|1.1|connection=Upgrade|upgrade=websocket"},
    {"204 length 0 goes", "HTTP/1.1 204 N\r\nContent-Length: 0\r\n\r\n", H1Error::kNone, "204|N|1.1"},
    {"304 length stays", "HTTP/1.1 304 N\r\nContent-Length: 5\r\n\r\n", H1Error::kNone, "304|N|1.1|content-length=5"},
    {"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", H1Error::kNone, "200|OK|1.1|transfer-encoding=Chunked"},
    {"LF line ends", "HTTP/1.1 200 OK\nX: y\n\n", H1Error::kNone, "200|OK|1.1|x=y"},
    {"connection fields stay for the session", "HTTP/1.1 200 OK\r\nConnection: close, X-A\r\nX-A: 1\r\n\r\n", H1Error::kNone,
     "200|OK|1.1|connection=close, X-A|x-a=1"},
    {"host is an ordinary field", "HTTP/1.1 200 OK\r\nHost: a\r\nHost: b\r\n\r\n", H1Error::kNone, "200|OK|1.1|host=a|host=b"},
    {"status 099", "HTTP/1.1 099 X\r\n\r\n", H1Error::kBadStatus, ""},
    {"status 20", "HTTP/1.1 20 X\r\n\r\n", H1Error::kBadStatus, ""},
    {"status 1000, stricter", "HTTP/1.1 1000 X\r\n\r\n", H1Error::kBadStatus, ""},
    {"status 0200, stricter", "HTTP/1.1 0200 X\r\n\r\n", H1Error::kBadStatus, ""},
    {"status +200, stricter", "HTTP/1.1 +200 X\r\n\r\n", H1Error::kBadStatus, ""},
    {"status 2e2", "HTTP/1.1 2e2 X\r\n\r\n", H1Error::kBadStatus, ""},
    {"status missing", "HTTP/1.1 OK\r\n\r\n", H1Error::kBadStatus, ""},
    {"status missing, no blank", "HTTP/1.1\r\n\r\n", H1Error::kBadVersion, ""},
    {"reason with control", "HTTP/1.1 200 a\1b\r\n\r\n", H1Error::kControlInTarget, ""},
    {"reason with CR, stricter", "HTTP/1.1 200 a\rb\r\n\r\n", H1Error::kBareCr, ""},
    {"lower case version", "http/1.1 200 OK\r\n\r\n", H1Error::kBadVersion, ""},
    {"ICY", "ICY 200 OK\r\n\r\n", H1Error::kBadVersion, ""},
    {"version 1.1x", "HTTP/1.1x 200 OK\r\n\r\n", H1Error::kBadVersion, ""},
    {"empty line in front", "\r\nHTTP/1.1 200 OK\r\n\r\n", H1Error::kBadVersion, ""},
    {"garbage", "hello\r\n\r\n", H1Error::kBadVersion, ""},
    {"204 with length", "HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\n", H1Error::kContentLengthNoBody, ""},
    {"204 chunked", "HTTP/1.1 204 N\r\nTransfer-Encoding: chunked\r\n\r\n", H1Error::kTransferEncodingNoBody, ""},
    {"100 with length", "HTTP/1.1 100 C\r\nContent-Length: 1\r\n\r\n", H1Error::kContentLengthNoBody, ""},
    {"length and chunked", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
     H1Error::kLengthAndChunked, ""},
    {"gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", H1Error::kBadTransferEncoding, ""},
    {"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n", H1Error::kRepeatedContentLength, ""},
    {"length x", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", H1Error::kBadContentLength, ""},
    {"1.0 chunked, stricter", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", H1Error::kTransferEncodingHttp10, ""},
    {"blank before colon", "HTTP/1.1 200 OK\r\nX : y\r\n\r\n", H1Error::kBadName, ""},
    {"NUL", "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n"sv, H1Error::kBadValue, ""},
    {"obs-fold, stricter", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", H1Error::kObsFold, ""},
};

HeadResult parse(std::span<char> bytes, size_t already_scanned, std::string* text, const H1Limits& limits = {}) {
  Header storage[128];
  ResponseHead head;
  head.headers = HeaderTable(storage, 128);
  const HeadResult r = parse_response_head(bytes, already_scanned, limits, &head);
  if (r.status == ParseStatus::kDone) *text = text_of(head);
  return r;
}

TEST(H1Response, Table) {
  GuardPage page(4096);
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.name);
    std::string text;
    const HeadResult r = parse(place(page, row.bytes), 0, &text);
    EXPECT_STREQ(info(r.error).name, info(row.error).name);
    EXPECT_EQ(r.status, row.error == H1Error::kNone ? ParseStatus::kDone : ParseStatus::kBad);
    EXPECT_EQ(text, row.parsed);
    if (row.error == H1Error::kNone) {
      EXPECT_EQ(r.consumed, row.bytes.size());
    }
  }
}

TEST(H1Response, EveryPrefixIsPartialAndEverySplitTheSame) {
  GuardPage page(4096);
  for (const Row& row : kRows) {
    if (row.error != H1Error::kNone) continue;
    SCOPED_TRACE(row.name);
    for (size_t n = 0; n < row.bytes.size(); ++n) {
      std::string text;
      EXPECT_EQ(parse(place(page, row.bytes.substr(0, n)), 0, &text).status, ParseStatus::kPartial) << n;
      EXPECT_EQ(parse(place(page, row.bytes), n, &text).status, ParseStatus::kDone) << n;
      EXPECT_EQ(text, row.parsed);
    }
  }
}

TEST(H1Response, Limits) {
  std::string head = "HTTP/1.1 200 OK\r\nX: " + std::string(200, 'y') + "\r\n\r\n", text;
  H1Limits limits;
  limits.max_head_bytes = static_cast<uint32_t>(head.size());
  EXPECT_EQ(parse(head, 0, &text, limits).status, ParseStatus::kDone);
  --limits.max_head_bytes;
  EXPECT_EQ(parse(head, 0, &text, limits).error, H1Error::kHeadTooLarge);
  limits = {};
  limits.max_header_count = 0;
  EXPECT_EQ(parse(head, 0, &text, limits).error, H1Error::kTooManyHeaders);
}

struct FramingRow {
  const char* request;  // method, or "UPGRADE" for a GET that asked for one
  std::string_view response;
  Framing kind;
  uint64_t length;
};
// RFC 9112 6.3.
const FramingRow kFraming[] = {
    {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Framing::kContentLength, 5},
    {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n", Framing::kContentLength, INT64_MAX},
    {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Framing::kContentLength, 0},
    {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Framing::kChunked, 0},
    {"GET", "HTTP/1.1 200 OK\r\n\r\n", Framing::kUntilClose, 0},
    {"GET", "HTTP/1.0 200 OK\r\n\r\n", Framing::kUntilClose, 0},
    {"POST", "HTTP/1.1 500 X\r\n\r\n", Framing::kUntilClose, 0},
    {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Framing::kNone, 0},
    {"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Framing::kNone, 0},
    {"GET", "HTTP/1.1 204 N\r\n\r\n", Framing::kNone, 0},
    {"GET", "HTTP/1.1 304 N\r\nContent-Length: 5\r\n\r\n", Framing::kNone, 0},
    {"GET", "HTTP/1.1 304 N\r\nTransfer-Encoding: chunked\r\n\r\n", Framing::kNone, 0},
    {"GET", "HTTP/1.1 100 C\r\n\r\n", Framing::kNone, 0},
    {"GET", "HTTP/1.1 101 S\r\n\r\n", Framing::kNone, 0},
    {"UPGRADE", "HTTP/1.1 101 S\r\n\r\n", Framing::kTunnel, 0},
    {"UPGRADE", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Framing::kContentLength, 5},
    {"CONNECT", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Framing::kTunnel, 0},
    {"CONNECT", "HTTP/1.1 299 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Framing::kTunnel, 0},
    {"CONNECT", "HTTP/1.1 407 P\r\nContent-Length: 5\r\n\r\n", Framing::kContentLength, 5},
};

TEST(H1Response, Framing) {
  for (const FramingRow& row : kFraming) {
    SCOPED_TRACE(std::string(row.request) + " " + std::string(row.response));
    std::string bytes(row.response);
    Header storage[16];
    ResponseHead head;
    head.headers = HeaderTable(storage, 16);
    ASSERT_EQ(parse_response_head(bytes, 0, {}, &head).status, ParseStatus::kDone);
    const bool upgrade = row.request == "UPGRADE"sv;
    const BodyFraming f = response_framing(head, upgrade ? "GET"sv : row.request, upgrade);
    EXPECT_EQ(f.kind, row.kind);
    EXPECT_EQ(f.length, row.length);
  }
}

TEST(H1Request, Framing) {
  const FramingRow rows[] = {
      {"", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::kNone, 0},
      {"", "POST / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::kNone, 0},
      {"", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 017\r\n\r\n", Framing::kContentLength, 17},
      {"", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Framing::kChunked, 0},
      {"", "CONNECT h:1 HTTP/1.1\r\n\r\n", Framing::kTunnel, 0},
      {"", "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", Framing::kTunnel, 0},
      {"", "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\n",
       Framing::kContentLength, 3},
      {"", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", Framing::kNone, 0},
  };
  for (const FramingRow& row : rows) {
    SCOPED_TRACE(row.response);
    std::string bytes(row.response);
    Header storage[16];
    RequestHead head;
    head.headers = HeaderTable(storage, 16);
    ASSERT_EQ(parse_request_head(bytes, 0, {}, &head).status, ParseStatus::kDone);
    const BodyFraming f = request_framing(head);
    EXPECT_EQ(f.kind, row.kind);
    EXPECT_EQ(f.length, row.length);
  }
}

}  // namespace
}  // namespace millrace::http
