#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "lib/http/h1_parser.h"
#include "tests/support/seed.h"
#include "tests/unit/http/chars.h"

namespace millrace::http {
namespace {

using namespace std::string_view_literals;

// A parsed head as one string: method|path|authority|scheme|version|name=value|name=value...
std::string text_of(const RequestHead& h) {
  std::string s(h.method);
  for (std::string_view part : {h.path, h.authority, h.scheme, h.version == Version::kHttp11 ? "1.1"sv : "1.0"sv}) {
    s += '|';
    s += part;
  }
  for (const Header& f : h.headers) {
    s += '|';
    s += f.name;
    s += '=';
    s += f.value;
    EXPECT_EQ(f.id, header_id(f.name));
    EXPECT_TRUE(h.headers.has(f.id));
  }
  return s;
}

struct Good {
  const char* name;
  std::string_view bytes;  // a head, and nothing behind it
  const char* parsed;
};
const Good kGood[] = {
    {"minimal", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET|/|a||1.1"},
    {"lower case names, values as sent", "GET /P?Q HTTP/1.1\r\nHOST: Ab\r\nX-Foo: Bar\r\n\r\n", "GET|/P?Q|Ab||1.1|x-foo=Bar"},
    {"blanks around values", "GET / HTTP/1.1\r\nHost:\ta \r\nX:\t a b\t\r\nY:\r\nZ:   \r\n\r\n", "GET|/|a||1.1|x=a b|y=|z="},
    {"empty lines in front", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET|/|a||1.1"},
    {"LF as line end", "GET / HTTP/1.1\nHost: a\nX: y\n\n", "GET|/|a||1.1|x=y"},
    {"mixed line ends", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\n", "GET|/|a||1.1|x=y"},
    {"blanks in the request line", "GET \t/  HTTP/1.1 \t\r\nHost: a\r\n\r\n", "GET|/|a||1.1"},
    {"absolute form", "GET http://h:8080/p?q HTTP/1.1\r\nHost: other\r\n\r\n", "GET|/p?q|h:8080|http|1.1"},
    {"absolute form without path", "GET HTTPS://H HTTP/1.1\r\nHost: x\r\n\r\n", "GET|/|H|https|1.1"},
    {"absolute form, userinfo dropped", "GET http://u:p@h/ HTTP/1.1\r\nHost: x\r\n\r\n", "GET|/|h|http|1.1"},
    {"authority form", "CONNECT h:443 HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT||h:443||1.1"},
    {"authority form, IPv6", "CONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\n", "CONNECT||[2001:db8::1]:443||1.1"},
    {"authority form, content-length 0 goes", "CONNECT h:1 HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "CONNECT||h:1||1.1"},
    {"asterisk form", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS|*|a||1.1"},
    {"empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET|/|||1.1"},
    {"names are not what they resemble", "GET / HTTP/1.1\r\nHost: a\r\nHosts: b\r\nXhost: c\r\n\r\n",
     "GET|/|a||1.1|hosts=b|xhost=c"},
    {"obs-text in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \x80\xff\r\n\r\n", "GET|/|a||1.1|x=\x80\xff"},
    {"nominated field goes", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Close, X-Foo\r\nX-Foo: 1\r\nX-Bar: 2\r\n\r\n",
     "GET|/|a||1.1|connection=Close, X-Foo|x-bar=2"},
    {"nominated te with trailers stays", "GET / HTTP/1.1\r\nHost: a\r\nConnection: te\r\nTE: trailers\r\n\r\n",
     "GET|/|a||1.1|connection=te|te=trailers"},
    {"nominated te without trailers goes", "GET / HTTP/1.1\r\nHost: a\r\nConnection: te\r\nTE: gzip\r\n\r\n",
     "GET|/|a||1.1|connection=te"},
    {"two connection fields",
     "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a\r\nX-A: 1\r\nConnection: x-b\r\nX-B: 2\r\nX-C: 3\r\n\r\n",
     "GET|/|a||1.1|connection=x-a|connection=x-b|x-c=3"},
    {"h2c upgrade goes",
     "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n",
     "GET|/|a||1.1|connection=Upgrade, HTTP2-Settings"},
    {"upgrade keeps nominated fields",
     "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, X-Foo\r\nUpgrade: websocket\r\nX-Foo: 1\r\n\r\n",
     "GET|/|a||1.1|connection=Upgrade, X-Foo|upgrade=websocket|x-foo=1"},
    {"a browser",
     "GET /images/logo.png?v=12 HTTP/1.1\r\nHost: www.example.com\r\nConnection: keep-alive\r\nUser-Agent: Mozilla/5.0 (X11; "
     "Linux x86_64) "
     "AppleWebKit/537.36\r\nAccept: image/avif,image/webp,*/*;q=0.8\r\nReferer: https://www.example.com/\r\nAccept-Encoding: "
     "gzip, deflate, "
     "br\r\nAccept-Language: en-US,en;q=0.9\r\nCookie: session=0123456789abcdef; theme=dark\r\n\r\n",
     "GET|/images/logo.png?v=12|www.example.com||1.1|connection=keep-alive|user-agent=Mozilla/5.0 (X11; Linux x86_64) "
     "AppleWebKit/537.36|"
     "accept=image/avif,image/webp,*/*;q=0.8|referer=https://www.example.com/|accept-encoding=gzip, deflate, "
     "br|accept-language=en-US,en;q=0.9|"
     "cookie=session=0123456789abcdef; theme=dark"},
};

struct Parsed {
  HeadResult result;
  std::string text;
};
Parsed parse(std::span<char> bytes, size_t already_scanned = 0, const H1Limits& limits = {}) {
  static Header storage[1100];
  RequestHead head;
  head.headers = HeaderTable(storage, 1100);
  Parsed p;
  p.result = parse_request_head(bytes, already_scanned, limits, &head);
  if (p.result.status == ParseStatus::kDone) p.text = text_of(head);
  return p;
}

TEST(H1Request, GoodHeads) {
  GuardPage page(4096);
  for (const Good& g : kGood) {
    SCOPED_TRACE(g.name);
    const Parsed p = parse(place(page, g.bytes));
    EXPECT_EQ(p.result.status, ParseStatus::kDone) << info(p.result.error).name;
    EXPECT_EQ(p.result.consumed, g.bytes.size());
    EXPECT_EQ(p.text, g.parsed);
  }
}

TEST(H1Request, WhatFollowsIsLeftAlone) {
  GuardPage page(4096);
  for (const Good& g : kGood) {
    SCOPED_TRACE(g.name);
    std::string two(g.bytes);
    two += "GET /Next HTTP/1.1\r\nHOST: B\r\n\r\n";
    const std::span<char> bytes = place(page, two);
    const Parsed p = parse(bytes);
    EXPECT_EQ(p.result.consumed, g.bytes.size());
    EXPECT_EQ(p.text, g.parsed);
    EXPECT_EQ(std::string_view(bytes.data() + g.bytes.size(), bytes.size() - g.bytes.size()),
              "GET /Next HTTP/1.1\r\nHOST: B\r\n\r\n");
  }
}

TEST(H1Request, EveryPrefixIsPartial) {
  GuardPage page(4096);
  for (const Good& g : kGood) {
    SCOPED_TRACE(g.name);
    for (size_t n = 0; n < g.bytes.size(); ++n) {
      const Parsed p = parse(place(page, g.bytes.substr(0, n)));
      EXPECT_EQ(p.result.status, ParseStatus::kPartial) << n << " " << info(p.result.error).name;
    }
  }
}

TEST(H1Request, EverySplitInTwoParsesTheSame) {
  GuardPage page(4096);
  for (const Good& g : kGood) {
    SCOPED_TRACE(g.name);
    for (size_t n = 0; n < g.bytes.size(); ++n) {
      std::string buffer(g.bytes.substr(0, n));
      EXPECT_EQ(parse({buffer.data(), n}).result.status, ParseStatus::kPartial);
      buffer += g.bytes.substr(n);  // what the first call lowered stays lowered
      const Parsed p = parse(place(page, buffer), n);
      EXPECT_EQ(p.result.status, ParseStatus::kDone) << n << " " << info(p.result.error).name;
      EXPECT_EQ(p.result.consumed, g.bytes.size());
      EXPECT_EQ(p.text, g.parsed);
    }
  }
}

TEST(H1Request, ByteByByteParsesTheSame) {
  for (const Good& g : kGood) {
    SCOPED_TRACE(g.name);
    std::string buffer;
    Parsed p;
    for (size_t n = 1; n <= g.bytes.size(); ++n) {
      buffer += g.bytes[n - 1];
      p = parse({buffer.data(), n}, n - 1);
      ASSERT_EQ(p.result.status, n < g.bytes.size() ? ParseStatus::kPartial : ParseStatus::kDone) << n;
    }
    EXPECT_EQ(p.text, g.parsed);
  }
}

TEST(H1Request, ParsingAgainGivesTheSame) {
  for (const Good& g : kGood) {
    std::string buffer(g.bytes);
    parse({buffer.data(), buffer.size()});
    EXPECT_EQ(parse({buffer.data(), buffer.size()}).text, g.parsed) << g.name;
  }
}

struct Bad {
  const char* name;
  std::string_view bytes;
  H1Error error;
};
// Each of these is refused as soon as the last byte given here is there, whatever follows.
const Bad kBad[] = {
    {"TLS record", "\x16\x03\x01"sv, H1Error::kBadMethod},
    {"NUL", "\0"sv, H1Error::kBadMethod},
    {"blank first", " "sv, H1Error::kBadMethod},
    {"unknown method", "FETCH "sv, H1Error::kBadMethod},
    {"lower case method", "get "sv, H1Error::kBadMethod},
    {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"sv, H1Error::kBadMethod},
    {"method with colon", "Host: a\r\n"sv, H1Error::kBadMethod},
    {"only a method", "GET\r\n"sv, H1Error::kBadStartLine},
    {"no target", "GET \r\n"sv, H1Error::kBadStartLine},
    {"relative target", "GET a HTTP/1.1\r\n"sv, H1Error::kBadTarget},
    {"target with obs-text", "GET /\xc3\xa9 HTTP/1.1\r\n"sv, H1Error::kBadTarget},
    {"target with DEL", "GET /\x7f HTTP/1.1\r\n"sv, H1Error::kControlInTarget},
    {"target with NUL", "GET /\0 HTTP/1.1\r\n"sv, H1Error::kControlInTarget},
    {"CR in the request line", "GET / HTTP/1.1\rX"sv, H1Error::kBareCr},
    {"four parts", "GET /a b HTTP/1.1\r\n"sv, H1Error::kBadVersion},
    {"version 1.10", "GET / HTTP/1.10\r\n"sv, H1Error::kBadVersion},
    {"version lower case", "GET / http/1.1\r\n"sv, H1Error::kBadVersion},
    {"HTTP/1.0", "GET / HTTP/1.0\r\n"sv, H1Error::kHttp10Refused},
    {"HTTP/0.9", "GET /\r\n"sv, H1Error::kHttp10Refused},
    {"HTTP/2.0", "GET / HTTP/2.0\r\n"sv, H1Error::kHttp10Refused},
    {"asterisk with GET", "GET * HTTP/1.1\r\n"sv, H1Error::kInvalidUrl},
    {"scheme ftp", "GET ftp://h/ HTTP/1.1\r\n"sv, H1Error::kInvalidScheme},
    {"CONNECT without port", "CONNECT h HTTP/1.1\r\n"sv, H1Error::kInvalidUrl},
    {"obs-fold", "GET / HTTP/1.1\r\nHost: a\r\n b"sv, H1Error::kObsFold},
    {"obs-fold of the request line", "GET / HTTP/1.1\r\n Host: a"sv, H1Error::kObsFold},
    {"blank before colon", "GET / HTTP/1.1\r\nHost : a"sv, H1Error::kBadName},
    {"no colon", "GET / HTTP/1.1\r\nHost\r\n"sv, H1Error::kMissingColon},
    {"empty name", "GET / HTTP/1.1\r\n: a"sv, H1Error::kEmptyName},
    {"NUL in a name", "GET / HTTP/1.1\r\nHo\0st: a"sv, H1Error::kControlInName},
    {"slash in a name", "GET / HTTP/1.1\r\nHo/st: a"sv, H1Error::kBadName},
    {"obs-text in a name", "GET / HTTP/1.1\r\nHo\xe9st: a"sv, H1Error::kBadName},
    {"NUL in a value", "GET / HTTP/1.1\r\nHost: a\0b\r\n"sv, H1Error::kBadValue},
    {"NUL far in a value", "GET / HTTP/1.1\r\nX: 0123456789012345678901234567890123456789012345678901234567890123456789\0b\r\n"sv,
     H1Error::kBadValue},
    {"CR in a value", "GET / HTTP/1.1\r\nHost: a\rb\r\n"sv, H1Error::kBareCr},
    {"CR CR LF", "GET / HTTP/1.1\r\nHost: a\r\r\n"sv, H1Error::kBareCr},
    {"CR where the empty line should be", "GET / HTTP/1.1\r\nHost: a\r\n\rX"sv, H1Error::kBareCr},
};

TEST(H1Request, RefusedAtOnce) {
  GuardPage page(4096);
  for (const Bad& b : kBad) {
    SCOPED_TRACE(b.name);
    const Parsed p = parse(place(page, b.bytes));
    EXPECT_EQ(p.result.status, ParseStatus::kBad);
    EXPECT_STREQ(info(p.result.error).name, info(b.error).name);
    std::string with_rest(b.bytes);
    with_rest += "Host: x\r\n\r\n";
    EXPECT_STREQ(info(parse(place(page, with_rest)).result.error).name, info(b.error).name);
  }
}

TEST(H1Request, ABadStartLineIsRefusedAtOnceInLaterCallsToo) {
  std::string line = "GET /\x7f HTTP/1.1\r";
  EXPECT_EQ(parse({line.data(), 5}).result.status, ParseStatus::kPartial);
  EXPECT_EQ(parse({line.data(), line.size()}, 5).result.status, ParseStatus::kPartial);  // not complete: judged at the LF
  line += '\n';
  EXPECT_EQ(parse({line.data(), line.size()}, line.size() - 1).result.error, H1Error::kControlInTarget);
}

// Judged when the head is complete: smuggling shapes and Host.
const Bad kBadWhenComplete[] = {
    {"no host", "GET / HTTP/1.1\r\n\r\n"sv, H1Error::kMissingHost},
    {"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"sv, H1Error::kRepeatedHost},
    {"host nominated", "GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n"sv, H1Error::kMissingHost},
    {"host with slash", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"sv, H1Error::kBadHost},
    {"bad host beside absolute form", "GET http://h/ HTTP/1.1\r\nHost: a b\r\n\r\n"sv, H1Error::kBadHost},
    {"length and chunked", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"sv,
     H1Error::kLengthAndChunked},
    {"chunked and length", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"sv,
     H1Error::kLengthAndChunked},
    {"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"sv,
     H1Error::kRepeatedContentLength},
    {"two equal lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"sv,
     H1Error::kRepeatedContentLength},
    {"length +5", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n"sv, H1Error::kBadContentLength},
    {"length list", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n"sv, H1Error::kBadContentLength},
    {"length empty", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n"sv, H1Error::kBadContentLength},
    {"length 2^63", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n"sv, H1Error::kBadContentLength},
    {"chunked not last", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"sv,
     H1Error::kBadTransferEncoding},
    {"gzip, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"sv, H1Error::kBadTransferEncoding},
    {"two transfer-encodings", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"sv,
     H1Error::kBadTransferEncoding},
    {"identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"sv, H1Error::kBadTransferEncoding},
    {"CONNECT with length", "CONNECT h:1 HTTP/1.1\r\nContent-Length: 1\r\n\r\n"sv, H1Error::kContentLengthConnect},
    {"CONNECT chunked", "CONNECT h:1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"sv, H1Error::kTransferEncodingConnect},
    {"x-forwarded-for nominated", "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For\r\n\r\n"sv,
     H1Error::kConnectionNominated},
    {"pseudo header nominated", "GET / HTTP/1.1\r\nHost: a\r\nConnection: :path\r\n\r\n"sv, H1Error::kConnectionNominated},
    {"ten nominated", "GET / HTTP/1.1\r\nHost: a\r\nConnection: a,b,c,d,e,f,g,h,i,j\r\n\r\n"sv, H1Error::kConnectionNominated},
    {"QUERY without content-type", "QUERY / HTTP/1.1\r\nHost: a\r\n\r\n"sv, H1Error::kQueryContentType},
};

TEST(H1Request, RefusedWhenComplete) {
  GuardPage page(4096);
  for (const Bad& b : kBadWhenComplete) {
    SCOPED_TRACE(b.name);
    for (size_t n = 0; n < b.bytes.size(); ++n)
      EXPECT_EQ(parse(place(page, b.bytes.substr(0, n))).result.status, ParseStatus::kPartial) << n;
    for (size_t n = 0; n < b.bytes.size(); ++n)  // whole, and resumed from every place
      EXPECT_STREQ(info(parse(place(page, b.bytes), n).result.error).name, info(b.error).name) << n;
  }
}

TEST(H1Request, Http10) {
  H1Limits limits;
  limits.accept_http_10 = true;
  std::string host = "GET / HTTP/1.0\r\nHost: a\r\n\r\n", none = "GET / HTTP/1.0\r\n\r\n", nine = "GET /\r\n",
              later = "GET / HTTP/3.7\r\nHost: a\r\n\r\n";
  EXPECT_EQ(parse(host, 0, limits).text, "GET|/|a||1.0");
  EXPECT_EQ(parse(later, 0, limits).text, "GET|/|a||1.0");  // as Envoy
  EXPECT_EQ(parse(nine, 0, limits).result.error, H1Error::kUnsupportedVersion);
  EXPECT_EQ(parse(none, 0, limits).result.error, H1Error::kMissingHost);
  limits.default_host_for_http_10 = "d.example";
  EXPECT_EQ(parse(none, 0, limits).text, "GET|/|d.example||1.0");
}

TEST(H1Request, Options) {
  H1Limits limits;
  limits.allow_custom_methods = true;
  std::string custom = "m!x / HTTP/1.1\r\nHost: a\r\n\r\n",
              both = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
              absolute = "GET http://h/ HTTP/1.1\r\nHost: a\r\n\r\n";
  EXPECT_EQ(parse(custom, 0, limits).text, "m!x|/|a||1.1");
  limits.allow_chunked_length = true;
  EXPECT_EQ(parse(both, 0, limits).text, "POST|/|a||1.1|transfer-encoding=chunked");
  limits.allow_absolute_url = false;
  EXPECT_EQ(parse(absolute, 0, limits).text, "GET|http://h/|a||1.1");
}

TEST(H1Request, SizeLimit) {
  const std::string front = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
  for (const uint32_t limit : {64u, 4096u, 60u * 1024}) {
    H1Limits limits;
    limits.max_head_bytes = limit;
    for (int over = -2; over <= 2; ++over) {
      std::string head = front + std::string(limit + static_cast<size_t>(over + 2) - 2 - front.size() - 4, 'y') + "\r\n\r\n";
      ASSERT_EQ(head.size(), limit + static_cast<uint32_t>(over));
      for (const size_t from : {size_t{0}, size_t{1}, head.size() / 2, head.size() - 1}) {
        const Parsed p = parse(head, from, limits);
        EXPECT_EQ(p.result.status, over <= 0 ? ParseStatus::kDone : ParseStatus::kBad);
        EXPECT_EQ(p.result.error, over <= 0 ? H1Error::kNone : H1Error::kHeadTooLarge);
      }
      // All but the last byte: more may come, or never can.
      const Parsed part = parse({head.data(), head.size() - 1}, 0, limits);
      EXPECT_EQ(part.result.status, over <= 0 ? ParseStatus::kPartial : ParseStatus::kBad);
    }
    std::string endless(limit, 'a');
    endless.replace(0, 5, "GET /");
    EXPECT_EQ(parse(endless, 0, limits).result.error, H1Error::kHeadTooLarge);
  }
}

TEST(H1Request, CountLimit) {
  for (const uint32_t count : {1u, 100u, 1000u}) {
    std::string head = "GET / HTTP/1.1\r\nHost: a\r\n";
    for (uint32_t i = 1; i < count; ++i) head += "x" + std::to_string(i) + ": 1\r\n";
    std::string more = head + "y: 1\r\n\r\n";
    head += "\r\n";
    H1Limits limits;
    limits.max_header_count = count;
    EXPECT_EQ(parse(head, 0, limits).result.status, ParseStatus::kDone);
    EXPECT_EQ(parse(more, 0, limits).result.error, H1Error::kTooManyHeaders);
  }
  Header two[2];
  RequestHead head;
  head.headers = HeaderTable(two, 2);
  std::string three = "GET / HTTP/1.1\r\nHost: a\r\nx: 1\r\ny: 2\r\nz: 3\r\n\r\n";
  EXPECT_EQ(parse_request_head(three, 0, {}, &head).error, H1Error::kTooManyHeaders);
}

TEST(H1Request, LeadingNewlinesAreBounded) {
  std::string head = std::string(kMaxLeadingNewlineBytes + 1, '\n') + "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  EXPECT_EQ(parse(head).result.status, ParseStatus::kBad);
  EXPECT_EQ(parse({head.data() + 1, head.size() - 1}).result.status, ParseStatus::kDone);
}

// The vector paths and the byte-wise path agree wherever a byte lies: every byte value at every offset of names, values and
// targets.
TEST(H1Request, EveryByteAtEveryOffset) {
  GuardPage page(4096);
  for (int c = 0; c < 256; ++c) {
    for (size_t at = 0; at < 70; at += c % 5 + 1) {
      std::string word(72, 'A');
      word[at] = static_cast<char>(c);
      const bool name_good = is_token(word), value_good = c == '\t' || (c >= 0x20 && c != 0x7f),
                 target_good = c > 0x20 && c < 0x7f;
      const Parsed name = parse(place(page, "GET / HTTP/1.1\r\nHost: a\r\n" + word + ": v\r\n\r\n"));
      if (name_good) {
        std::string lower = word;
        for (char& x : lower) x = x >= 'A' && x <= 'Z' ? static_cast<char>(x | 0x20) : x;
        EXPECT_EQ(name.text, "GET|/|a||1.1|" + lower + "=v");
      } else if ((c != ':' && c != '\n') || at != 0) {
        EXPECT_EQ(name.result.status, c == ':' ? ParseStatus::kDone : ParseStatus::kBad) << c << " at " << at;
      }
      const Parsed value = parse(place(page, "GET / HTTP/1.1\r\nHost: a\r\nx: A" + word + "A\r\n\r\n"));
      EXPECT_EQ(value.result.status == ParseStatus::kDone, value_good) << c << " at " << at;
      if (value_good) {
        EXPECT_EQ(value.text, "GET|/|a||1.1|x=A" + word + "A");
      }
      const Parsed target = parse(place(page, "GET /" + word + " HTTP/1.1\r\nHost: a\r\n\r\n"));
      EXPECT_EQ(target.result.status == ParseStatus::kDone, target_good) << c << " at " << at;
    }
  }
}

TEST(H1Request, FindHeadEndAgreesWithTheParser) {
  for (const Good& g : kGood) {
    SCOPED_TRACE(g.name);
    for (size_t n = 0; n <= g.bytes.size(); ++n)
      for (size_t from = 0; from <= n; ++from)
        EXPECT_EQ(find_head_end({g.bytes.data(), n}, from < n || n < g.bytes.size() ? from : n - 1),
                  n == g.bytes.size() ? n : kNotFound)
            << n << " " << from;
  }
}

// Random edits of good heads: whatever comes, split or whole gives the same verdict, and nothing is read outside.
TEST(H1Request, RandomEdits) {
  const uint64_t seed = support::run_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  GuardPage page(8192);
  constexpr std::string_view kBytes = "\r\n\t :,/aZ0\0\x7f\xff"sv;
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes(kGood[random() % std::size(kGood)].bytes);
    for (uint64_t edits = random() % 4; edits != 0; --edits) {
      const size_t at = random() % (bytes.size() + 1);
      const char c = kBytes[random() % kBytes.size()];
      switch (random() % 3) {
        case 0:
          bytes.insert(at, 1, c);
          break;
        case 1:
          bytes.erase(at, random() % 5);
          break;
        default:
          if (at < bytes.size()) bytes[at] = c;
      }
    }
    const Parsed whole = parse(place(page, bytes));
    EXPECT_LE(whole.result.consumed, bytes.size());
    const size_t split = random() % (bytes.size() + 1);
    const Parsed first = parse(place(page, std::string_view(bytes).substr(0, split)));
    if (first.result.status == ParseStatus::kPartial) {
      const Parsed second = parse(place(page, bytes), split);
      if (whole.result.status == ParseStatus::kBad && second.result.status == ParseStatus::kPartial)
        continue;  // judged at its end
      EXPECT_EQ(second.result.status, whole.result.status) << split << " of " << bytes;
      EXPECT_EQ(second.result.error, whole.result.error);
      EXPECT_EQ(second.text, whole.text);
    } else {
      EXPECT_EQ(first.result.status, whole.result.status) << split << " of " << bytes;
      EXPECT_EQ(first.text, whole.text);
    }
  }
}

TEST(H1Errors, EveryErrorSaysEnough) {
  for (uint32_t i = 1; i < kH1ErrorCount; ++i) {
    const H1ErrorInfo& e = info(static_cast<H1Error>(i));
    EXPECT_NE(e.name[0], 0);
    EXPECT_GE(e.status, 400);
    EXPECT_NE(e.details[0], 0);
    EXPECT_NE(e.text[0], 0);
  }
}

}  // namespace
}  // namespace millrace::http
