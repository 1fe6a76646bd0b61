// The rules of a proxy against what a running Envoy 1.40 sent on.
#include "lib/http/forward.h"

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "lib/http/h1_parser.h"
#include "tests/support/seed.h"

namespace millrace::http {
namespace {

struct PathRow {
  const char* path;
  const char *normalized, *merged, *forwarded, *rejected, *redirected;
};
const PathRow kPaths[] = {
#include "tests/unit/http/envoy_path_cases.inc"
};

std::string path_result(std::string_view path, const ForwardOptions& options) {
  std::vector<char> memory(4 * path.size() + 64);
  Scratch scratch(memory);
  RequestHead head;
  head.path = path;
  switch (normalize_path(&head, options, scratch)) {
    case PathVerdict::kContinue:
      return std::string(head.path);
    case PathVerdict::kReject:
      return "400";
    case PathVerdict::kRedirect:
      return "307 " + std::string(head.path);
    case PathVerdict::kNotRelative:
      return "404";
  }
  return "?";
}

TEST(NormalizePath, AsEnvoy) {
  for (const PathRow& row : kPaths) {
    SCOPED_TRACE(row.path);
    ForwardOptions o;
    EXPECT_EQ(path_result(row.path, o), row.path);
    o.merge_slashes = true;
    EXPECT_EQ(path_result(row.path, o), row.merged);
    o.merge_slashes = false;
    o.normalize_path = true;
    EXPECT_EQ(path_result(row.path, o), row.normalized);
    o.escaped_slashes = EscapedSlashesAction::kReject;
    EXPECT_EQ(path_result(row.path, o), row.rejected);
    o.escaped_slashes = EscapedSlashesAction::kUnescapeAndRedirect;
    EXPECT_EQ(path_result(row.path, o), row.redirected);
    o.escaped_slashes = EscapedSlashesAction::kUnescapeAndForward;
    o.merge_slashes = true;
    EXPECT_EQ(path_result(row.path, o), row.forwarded);
  }
  EXPECT_GE(std::size(kPaths), 60u);
}

TEST(NormalizePath, WithoutOptionsToo) {
  EXPECT_EQ(path_result("/a#b", {}), "400");
  EXPECT_EQ(path_result("/a?b#c", {}), "400");
  EXPECT_EQ(path_result("*", {}), "404");
  EXPECT_EQ(path_result("?q", {}), "404");
  EXPECT_EQ(path_result("", {}), "");
}

// Normalising twice is normalising once, for whatever path; and it never leaves a dot segment.
TEST(NormalizePath, Random) {
  const uint64_t seed = support::run_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  constexpr std::string_view kBytes = "//..%%25eEfF cC\\ab?&";
  for (int round = 0; round < 20'000; ++round) {
    std::string path = "/";
    for (uint64_t n = random() % 24; n != 0; --n) path += kBytes[random() % kBytes.size()];
    ForwardOptions o;
    o.normalize_path = true;
    o.merge_slashes = random() % 2 != 0;
    o.escaped_slashes = static_cast<EscapedSlashesAction>(random() % 4);
    const std::string once = path_result(path, o);
    if (once == "400" || once.starts_with("307")) continue;
    ASSERT_EQ(once[0], '/') << path;
    const std::string only_path = once.substr(0, once.find('?'));
    EXPECT_EQ((only_path + "/").find("/../"), std::string::npos) << path << " -> " << once;
    EXPECT_EQ((only_path + "/").find("/./"), std::string::npos) << path << " -> " << once;
    EXPECT_EQ(path.find('?') == std::string::npos, once.find('?') == std::string::npos);
  }
}

TEST(NormalizePath, NoScratchIsARefusal) {
  char memory[4];
  Scratch scratch(memory);
  RequestHead head;
  head.path = "/a/../b";
  ForwardOptions o;
  o.normalize_path = true;
  EXPECT_EQ(normalize_path(&head, o, scratch), PathVerdict::kReject);
  EXPECT_TRUE(scratch.overflowed());
}

constexpr uint64_t kRandom[2] = {0x0123456789abcdef, 0xfedcba9876543210};
constexpr const char* kUuid = "01234567-89ab-4def-bedc-ba9876543210";

struct Fixture {
  Header storage[64];
  char memory[2048];
  Scratch scratch{memory};
  RequestHead head;
  RequestOrigin origin;
  std::string text;

  explicit Fixture(std::string fields, const char* request_line = "GET / HTTP/1.1") {
    text = std::string(request_line) + "\r\nHost: a\r\n" + fields + "\r\n";
    head.headers = HeaderTable(storage, 64);
    const HeadResult r = parse_request_head(text, 0, {}, &head);
    EXPECT_EQ(r.status, ParseStatus::kDone) << info(r.error).name;
  }
  bool mutate(const ForwardOptions& o, const char* peer = "203.0.113.9", bool tls = false) {
    Downstream d;
    d.remote = *base::IpAddress::parse(peer);
    d.local = *base::IpAddress::parse("192.0.2.2");
    d.remote_port = 4711;
    d.tls = tls;
    return mutate_request(&head, o, d, kRandom, scratch, &origin);
  }
  std::string fields() const {
    std::string s;
    for (const Header& h : head.headers) {
      EXPECT_EQ(h.id, header_id(h.name));
      s += std::string(h.name) + ": " + std::string(h.value) + "\n";
    }
    return s;
  }
};

ForwardOptions options(bool use_remote_address, uint32_t hops = 0) {
  ForwardOptions o;
  o.use_remote_address = use_remote_address;
  o.xff_num_trusted_hops = hops;
  return o;
}

const std::string kId = std::string("x-request-id: ") + kUuid + "\n";

struct MutateRow {
  const char* name;
  ForwardOptions options;
  const char* fields;
  std::string out;
  const char* client;
  const char* peer = "203.0.113.9";
};

std::vector<MutateRow> mutate_rows() {
  ForwardOptions via = options(true, 1), skip = options(true), keep_id = options(true), no_id = options(false),
                 internal = options(true);
  via.via = "mr";
  skip.skip_xff_append = true;
  keep_id.preserve_external_request_id = true;
  no_id.generate_request_id = false;
  internal.internal_ranges = kPrivateRanges.data();
  internal.internal_range_count = kPrivateRanges.size();
  ForwardOptions internal_xff = options(false);
  internal_xff.internal_ranges = kPrivateRanges.data();
  internal_xff.internal_range_count = kPrivateRanges.size();
  const std::string external = "x-envoy-external-address: ";
  return {
      {"nothing", options(false), "", "x-forwarded-proto: http\n" + kId, "203.0.113.9"},
      {"edge", options(true), "", "x-forwarded-for: 203.0.113.9\nx-forwarded-proto: http\n" + external + "203.0.113.9\n" + kId,
       "203.0.113.9"},
      {"edge, loopback peer", options(true), "",
       "x-forwarded-for: 192.0.2.2\nx-forwarded-proto: http\n" + external + "127.0.0.1\n" + kId, "127.0.0.1", "127.0.0.1"},
      {"edge, IPv6", options(true), "",
       "x-forwarded-for: 2001:db8::9\nx-forwarded-proto: http\n" + external + "2001:db8::9\n" + kId, "2001:db8::9",
       "2001:db8::9"},
      {"edge, private peer is external by default", options(true), "",
       "x-forwarded-for: 10.1.2.3\nx-forwarded-proto: http\n" + external + "10.1.2.3\n" + kId, "10.1.2.3", "10.1.2.3"},
      {"xff appended", options(true), "X-Forwarded-For: 1.2.3.4\r\n",
       "x-forwarded-for: 1.2.3.4,203.0.113.9\nx-forwarded-proto: http\n" + external + "203.0.113.9\n" + kId, "203.0.113.9"},
      {"two xff fields are joined", options(true), "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n",
       "x-forwarded-for: 1.1.1.1,2.2.2.2,203.0.113.9\nx-forwarded-proto: http\n" + external + "203.0.113.9\n" + kId,
       "203.0.113.9"},
      {"empty xff", options(true), "X-Forwarded-For:\r\n",
       "x-forwarded-for: 203.0.113.9\nx-forwarded-proto: http\n" + external + "203.0.113.9\n" + kId, "203.0.113.9"},
      {"xff skipped", skip, "X-Forwarded-For: 1.2.3.4\r\n",
       "x-forwarded-for: 1.2.3.4\nx-forwarded-proto: http\n" + external + "203.0.113.9\n" + kId, "203.0.113.9"},
      {"one trusted hop", via, "X-Forwarded-For: 1.1.1.1, 10.0.0.1\r\n",
       "x-forwarded-for: 1.1.1.1, 10.0.0.1,203.0.113.9\nx-forwarded-proto: http\nvia: mr\n" + external + "10.0.0.1\n" + kId,
       "10.0.0.1"},
      {"one trusted hop, xff is none", via, "X-Forwarded-For: bogus\r\n",
       "x-forwarded-for: bogus,203.0.113.9\nx-forwarded-proto: http\nvia: mr\n" + external + "203.0.113.9\n" + kId,
       "203.0.113.9"},
      {"not edge: last of xff", options(false), "X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\n",
       "x-forwarded-for: 1.1.1.1, 2.2.2.2\nx-forwarded-proto: http\n" + kId, "2.2.2.2"},
      {"not edge, one hop", options(false, 1), "X-Forwarded-For: 1.1.1.1 , 2.2.2.2\r\n",
       "x-forwarded-for: 1.1.1.1 , 2.2.2.2\nx-forwarded-proto: http\n" + kId, "1.1.1.1"},
      {"not edge, too few hops", options(false, 1), "X-Forwarded-For: 1.1.1.1\r\n",
       "x-forwarded-for: 1.1.1.1\nx-forwarded-proto: http\n" + kId, "203.0.113.9"},
      {"xff with port is none", options(false), "X-Forwarded-For: 1.2.3.4:80\r\n",
       "x-forwarded-for: 1.2.3.4:80\nx-forwarded-proto: http\n" + kId, "203.0.113.9"},
      {"xff IPv6", options(false), "X-Forwarded-For: 2001:db8::1\r\n",
       "x-forwarded-for: 2001:db8::1\nx-forwarded-proto: http\n" + kId, "2001:db8::1"},
      {"proto of a client is not believed", options(true), "X-Forwarded-Proto: https\r\n",
       "x-forwarded-proto: http\nx-forwarded-for: 203.0.113.9\n" + external + "203.0.113.9\n" + kId, "203.0.113.9"},
      {"proto of a proxy is", options(false), "X-Forwarded-Proto: https\r\n", "x-forwarded-proto: https\n" + kId, "203.0.113.9"},
      {"proto of a trusted hop is", options(true, 1), "X-Forwarded-Proto: https\r\n",
       "x-forwarded-proto: https\nx-forwarded-for: 203.0.113.9\n" + external + "203.0.113.9\n" + kId, "203.0.113.9"},
      {"via appended", via, "Via: 1.0 b\r\n",
       "via: 1.0 b, mr\nx-forwarded-for: 203.0.113.9\nx-forwarded-proto: http\n" + external + "203.0.113.9\n" + kId,
       "203.0.113.9"},
      {"id of a client is replaced at the edge", options(true), "X-Request-Id: mine\r\n",
       kId + "x-forwarded-for: 203.0.113.9\nx-forwarded-proto: http\n" + external + "203.0.113.9\n", "203.0.113.9"},
      {"id kept inside", options(false), "X-Request-Id: 12345678-1234-9234-1234-123456789012\r\n",
       "x-request-id: 12345678-1234-9234-1234-123456789012\nx-forwarded-proto: http\n", "203.0.113.9"},
      {"id preserved at the edge cannot force a trace", keep_id, "X-Request-Id: 12345678-1234-9234-1234-123456789012\r\n",
       "x-request-id: 12345678-1234-4234-1234-123456789012\nx-forwarded-for: 203.0.113.9\nx-forwarded-proto: http\n" + external +
           "203.0.113.9\n",
       "203.0.113.9"},
      {"id preserved, no UUID", keep_id, "X-Request-Id: mine\r\n",
       "x-request-id: mine\nx-forwarded-for: 203.0.113.9\nx-forwarded-proto: http\n" + external + "203.0.113.9\n", "203.0.113.9"},
      {"empty id", options(false), "X-Request-Id:\r\n", kId + "x-forwarded-proto: http\n", "203.0.113.9"},
      {"no id wanted", no_id, "", "x-forwarded-proto: http\n", "203.0.113.9"},
      {"hop-by-hop", options(false),
       "Connection: keep-alive\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: y\r\nTE: gzip\r\nTransfer-Encoding: "
       "chunked\r\nTrailer: t\r\nX: 1\r\n",
       "trailer: t\nx: 1\nx-forwarded-proto: http\n" + kId, "203.0.113.9"},
      {"te", options(false), "TE: gzip, trailers\r\n", "te: trailers\nx-forwarded-proto: http\n" + kId, "203.0.113.9"},
      {"te with parameter", options(false), "TE: trailers;q=1\r\n", "x-forwarded-proto: http\n" + kId, "203.0.113.9"},
      {"expect", options(false), "Expect: 100-Continue\r\n", "x-forwarded-proto: http\n" + kId, "203.0.113.9"},
      {"another expect", options(false), "Expect: other\r\n", "expect: other\nx-forwarded-proto: http\n" + kId, "203.0.113.9"},
      {"upgrade", options(false), "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nKeep-Alive: 1\r\n",
       "connection: keep-alive, Upgrade\nupgrade: websocket\nx-forwarded-proto: http\n" + kId, "203.0.113.9"},
      {"internal peer", internal, "X-Envoy-Retry-On: 5xx\r\nX-Envoy-Internal: no\r\n",
       "x-envoy-retry-on: 5xx\nx-forwarded-for: 10.1.2.3\nx-forwarded-proto: http\nx-envoy-internal: true\n" + kId, "10.1.2.3",
       "10.1.2.3"},
      {"internal peer, but xff", internal, "X-Forwarded-For: 10.0.0.1\r\n",
       "x-forwarded-for: 10.0.0.1,10.1.2.3\nx-forwarded-proto: http\n" + external + "10.1.2.3\n" + kId, "10.1.2.3", "10.1.2.3"},
      {"internal by xff", internal_xff, "X-Forwarded-For: 10.0.0.1\r\n",
       "x-forwarded-for: 10.0.0.1\nx-forwarded-proto: http\nx-envoy-internal: true\n" + kId, "10.0.0.1"},
      {"internal needs a single xff", internal_xff, "X-Forwarded-For: 10.0.0.2, 10.0.0.1\r\n",
       "x-forwarded-for: 10.0.0.2, 10.0.0.1\nx-forwarded-proto: http\n" + kId, "10.0.0.1"},
      {"internal peer without xff is external", internal_xff, "", "x-forwarded-proto: http\n" + kId, "10.1.2.3", "10.1.2.3"},
  };
}

TEST(MutateRequest, Table) {
  for (const MutateRow& row : mutate_rows()) {
    SCOPED_TRACE(row.name);
    Fixture f(row.fields);
    EXPECT_TRUE(f.mutate(row.options, row.peer));
    EXPECT_EQ(f.fields(), row.out);
    EXPECT_EQ(f.origin.client.to_string(), row.client);
    EXPECT_EQ(f.origin.client_port, std::string_view(row.client) == row.peer ? 4711 : 0);
  }
}

const char* const kEnvoyFields =
    "X-Forwarded-For: 1.2.3.4\r\nX-Envoy-Internal: true\r\nX-Envoy-External-Address: 9.9.9.9\r\nX-Envoy-Upstream-Rq-Timeout-Ms: "
    "100\r\n"
    "X-Envoy-Retry-On: 5xx\r\nX-Envoy-Expected-Rq-Timeout-Ms: 1\r\nX-Envoy-Decorator-Operation: "
    "op\r\nX-Envoy-Downstream-Service-Cluster: c\r\n"
    "X-Envoy-Downstream-Service-Node: n\r\nX-Envoy-Force-Trace: 1\r\nX-Envoy-Original-Path: /o\r\nX-Envoy-Original-Host: oh\r\n"
    "X-Envoy-Attempt-Count: 3\r\nX-Envoy-Foo: 1\r\nX-Forwarded-Client-Cert: xfcc\r\nX-Envoy-Ip-Tags: t\r\nX-Envoy-Original-Url: "
    "u\r\n"
    "X-Forwarded-Port: 44\r\nForwarded: for=1\r\n";

TEST(MutateRequest, EnvoyFieldsOfStrangersGo) {
  Fixture inside(kEnvoyFields);
  EXPECT_TRUE(inside.mutate(options(false)));
  EXPECT_EQ(inside.fields(),
            "x-forwarded-for: 1.2.3.4\nx-envoy-external-address: 9.9.9.9\nx-envoy-decorator-operation: op\n"
            "x-envoy-downstream-service-cluster: c\nx-envoy-downstream-service-node: n\nx-envoy-original-path: "
            "/o\nx-envoy-original-host: oh\n"
            "x-envoy-attempt-count: 3\nx-envoy-foo: 1\nx-forwarded-port: 44\nforwarded: for=1\nx-forwarded-proto: http\n" +
                kId);
  Fixture edge(kEnvoyFields);
  EXPECT_TRUE(edge.mutate(options(true)));
  EXPECT_EQ(
      edge.fields(),
      "x-forwarded-for: 1.2.3.4,203.0.113.9\nx-envoy-external-address: 203.0.113.9\nx-envoy-attempt-count: 3\nx-envoy-foo: 1\n"
      "x-forwarded-port: 44\nforwarded: for=1\nx-forwarded-proto: http\n" +
          kId);
}

TEST(MutateRequest, Scheme) {
  struct {
    const char *line, *fields;
    bool tls;
    const char* scheme;
  } const rows[] = {
      {"GET / HTTP/1.1", "", false, "http"},
      {"GET / HTTP/1.1", "", true, "https"},
      {"GET / HTTP/1.1", "X-Forwarded-Proto: HTTPS\r\n", false, "https"},
      {"GET / HTTP/1.1", "X-Forwarded-Proto: ws\r\n", true, "https"},
      {"GET https://h/ HTTP/1.1", "", false, "https"},
  };
  for (const auto& row : rows) {
    Fixture f(row.fields, row.line);
    EXPECT_TRUE(f.mutate(options(false), "203.0.113.9", row.tls));
    EXPECT_EQ(f.head.scheme, row.scheme) << row.line << " " << row.fields;
  }
}

TEST(MutateRequest, NoRoomIsSaid) {
  for (uint32_t room = 0; room < 4; ++room) {
    Fixture f("");
    f.head.headers = HeaderTable(f.storage, room);
    EXPECT_FALSE(f.mutate(options(true)));
  }
  for (size_t bytes = 0; bytes < 36 + 22; ++bytes) {
    Fixture f("");
    f.scratch = Scratch({f.memory, bytes});
    EXPECT_FALSE(f.mutate(options(true))) << bytes;
  }
}

TEST(MutateRequest, NeverMoreThanTheReserve) {
  ForwardOptions o = options(true);
  o.via = "mr";
  Fixture f("");
  EXPECT_TRUE(f.mutate(o));
  EXPECT_TRUE(mutate_upstream_request(&f.head, o, UINT32_MAX, f.scratch));
  EXPECT_TRUE(rewrite_host(&f.head, "h", true, f.scratch));
  EXPECT_TRUE(rewrite_path(&f.head, 0, "/", o, f.scratch));
  EXPECT_LE(f.head.headers.size(), kForwardedHeaders);
  EXPECT_LE(sizeof f.memory - f.scratch.left(), kForwardScratchBytes);
}

TEST(Rewrite, AsEnvoyOrdersIt) {
  Fixture f("", "GET /rw/x?y=1 HTTP/1.1");
  ForwardOptions o;
  EXPECT_TRUE(f.mutate(o));
  EXPECT_TRUE(mutate_upstream_request(&f.head, o, 15000, f.scratch));
  EXPECT_TRUE(rewrite_host(&f.head, "rewritten.example", true, f.scratch));
  EXPECT_TRUE(rewrite_path(&f.head, 4, "/new/", o, f.scratch));
  EXPECT_EQ(f.head.path, "/new/x?y=1");
  EXPECT_EQ(f.head.authority, "rewritten.example");
  EXPECT_EQ(f.fields(), "x-forwarded-proto: http\n" + kId +
                            "x-envoy-expected-rq-timeout-ms: 15000\nx-envoy-original-host: a\nx-forwarded-host: "
                            "a\nx-envoy-original-path: /rw/x?y=1\n");
}

TEST(Rewrite, ForwardedHostGrowsOnce) {
  Fixture f("X-Forwarded-Host: z\r\n");
  EXPECT_TRUE(rewrite_host(&f.head, "b", true, f.scratch, false));
  EXPECT_EQ(f.fields(), "x-forwarded-host: z,a\n");
  f.head.authority = "a";
  EXPECT_TRUE(rewrite_host(&f.head, "c", true, f.scratch, false));
  EXPECT_EQ(f.fields(), "x-forwarded-host: z,a\n");
}

TEST(Rewrite, Suppressed) {
  Fixture f("");
  ForwardOptions o;
  o.suppress_envoy_headers = true;
  EXPECT_TRUE(rewrite_path(&f.head, 1, "/x", o, f.scratch));
  EXPECT_TRUE(mutate_upstream_request(&f.head, o, 15000, f.scratch));
  EXPECT_EQ(f.head.path, "/x");
  EXPECT_EQ(f.fields(), "");
}

struct ResponseRow {
  const char* name;
  ForwardOptions options;
  const char* response;
  const char* out;
};

// RFC 9110 7.6.2.
TEST(MaxForwards, CountedDown) {
  const struct {
    std::string_view method, value, left;  // left "-": this gateway answers
  } cases[] = {{"OPTIONS", "2", "1"}, {"TRACE", "1", "0"},
               {"OPTIONS", "0", "-"}, {"TRACE", "00", "-"},
               {"GET", "0", "0"},     {"OPTIONS", "", ""},
               {"OPTIONS", "x", "x"}, {"OPTIONS", "-1", "-1"},
               {"TRACE", "10", "9"},  {"TRACE", "1000000000", "1000000000"}};
  for (const auto& c : cases) {
    char memory[64];
    Scratch scratch{std::span<char>(memory)};
    Header storage[2];
    RequestHead head;
    head.method = c.method;
    head.headers = HeaderTable(storage, 2);
    head.headers.push({"x", "y"});
    head.headers.push({"max-forwards", c.value});
    const bool goes_on = count_down_forwards(&head, scratch);
    EXPECT_EQ(goes_on, c.left != "-") << c.method << " " << c.value;
    if (goes_on) {
      EXPECT_EQ(head.headers[1].value, c.left) << c.method << " " << c.value;
    }
  }
}

TEST(MutateResponse, Table) {
  ForwardOptions hop, pass, absent;
  hop.via = "mr";
  hop.always_set_request_id_in_response = true;
  hop.server_header = ServerHeaderMode::kAppendIfAbsent;
  hop.server_name = "srv";
  pass.server_header = ServerHeaderMode::kPassThrough;
  pass.suppress_envoy_headers = true;
  const ResponseRow rows[] = {
      {"plain",
       {},
       "Content-Type: t\r\nContent-Length: 2\r\n",
       "content-type: t\ncontent-length: 2\nx-envoy-upstream-service-time: 7\ndate: D\nserver: envoy\n"},
      {"in place",
       {},
       "Server: nginx\r\nDate: yesterday\r\nX-Envoy-Upstream-Service-Time: 99\r\nVia: 1.1 x\r\n",
       "server: envoy\ndate: yesterday\nx-envoy-upstream-service-time: 7\nvia: 1.1 x\n"},
      {"hop-by-hop",
       {},
       "Connection: keep-alive, X-Foo\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: z\r\nX-Foo: 1\r\nTE: a\r\nTrailer: "
       "b\r\nTransfer-Encoding: chunked\r\n",
       "x-foo: 1\nte: a\ntrailer: b\nx-envoy-upstream-service-time: 7\ndate: D\nserver: envoy\n"},
      {"appended when absent", hop, "", "x-envoy-upstream-service-time: 7\ndate: D\nserver: srv\nx-request-id: id\nvia: mr\n"},
      {"kept when there", hop, "Server: nginx\r\nDate: y\r\nVia: 1.1 x\r\nX-Request-Id: up\r\n",
       "server: nginx\ndate: y\nvia: 1.1 x, mr\nx-request-id: id\nx-envoy-upstream-service-time: 7\n"},
      {"passed through", pass, "", "date: D\n"},
      {"passed through, there", pass, "Server: nginx\r\n", "server: nginx\ndate: D\n"},
  };
  for (const ResponseRow& row : rows) {
    SCOPED_TRACE(row.name);
    std::string text = std::string("HTTP/1.1 200 OK\r\n") + row.response + "\r\n";
    Header storage[32];
    char memory[256];
    Scratch scratch(memory);
    ResponseHead head;
    head.headers = HeaderTable(storage, 32);
    ASSERT_EQ(parse_response_head(text, 0, {}, &head).status, ParseStatus::kDone);
    EXPECT_TRUE(mutate_upstream_response(&head, row.options, 7, scratch));
    EXPECT_TRUE(mutate_response(&head, row.options, {"D", "id", false}, scratch));
    std::string out;
    for (const Header& h : head.headers) out += std::string(h.name) + ": " + std::string(h.value) + "\n";
    EXPECT_EQ(out, row.out);
  }
}

TEST(MutateResponse, UpgradeKeepsItsFields) {
  for (const bool asked : {false, true}) {
    std::string text = "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: y\r\n\r\n";
    Header storage[32];
    char memory[256];
    Scratch scratch(memory);
    ResponseHead head;
    head.headers = HeaderTable(storage, 32);
    ASSERT_EQ(parse_response_head(text, 0, {}, &head).status, ParseStatus::kDone);
    EXPECT_TRUE(mutate_upstream_response(&head, {}, kRequestNotSent, scratch));
    EXPECT_TRUE(mutate_response(&head, {}, {"D", "", asked}, scratch));
    EXPECT_EQ(head.headers.size(), asked ? 5u : 3u);
    EXPECT_EQ(head.headers.has(HeaderId::kUpgrade), asked);
    EXPECT_FALSE(head.headers.has(HeaderId::kXEnvoyUpstreamServiceTime));
  }
}

TEST(Underscores, Actions) {
  Fixture f("X_y: z\r\nX-k: 1\r\n");
  EXPECT_TRUE(check_underscores(f.head.headers, UnderscoreAction::kAllow));
  EXPECT_FALSE(check_underscores(f.head.headers, UnderscoreAction::kReject));
  EXPECT_TRUE(check_underscores(f.head.headers, UnderscoreAction::kDrop));
  EXPECT_EQ(f.fields(), "x-k: 1\n");
  EXPECT_TRUE(check_underscores(f.head.headers, UnderscoreAction::kReject));
}

TEST(Addresses, Internal) {
  const std::pair<const char*, bool> rows[] = {{"10.0.0.1", true},    {"11.0.0.1", false},      {"172.15.255.255", false},
                                               {"172.16.0.0", true},  {"172.31.255.255", true}, {"172.32.0.0", false},
                                               {"192.168.0.1", true}, {"192.169.0.1", false},   {"127.0.0.1", true},
                                               {"127.0.0.2", false},  {"169.254.1.1", false},   {"8.8.8.8", false},
                                               {"::1", true},         {"::2", false},           {"fc00::1", true},
                                               {"fdff::1", true},     {"fe80::1", false},       {"2001:db8::1", false}};
  ForwardOptions configured;
  configured.internal_ranges = kPrivateRanges.data();
  configured.internal_range_count = kPrivateRanges.size();
  for (const auto& [text, internal] : rows) {
    EXPECT_EQ(is_internal_address(*base::IpAddress::parse(text), configured), internal) << text;
    EXPECT_FALSE(is_internal_address(*base::IpAddress::parse(text), {})) << "nobody is, without a configuration";
  }
  for (const char* text : {"127.0.0.1", "127.9.9.9", "::1"}) EXPECT_TRUE(is_loopback(*base::IpAddress::parse(text)));
  for (const char* text : {"128.0.0.1", "::", "::101"}) EXPECT_FALSE(is_loopback(*base::IpAddress::parse(text)));
}

TEST(Host, PortAndDotAreStripped) {
  struct Row {
    std::string_view host, matching, any, dot, both;  // of a listener on port 8080; dot: strip_trailing_host_dot alone
  };
  for (const Row& row : {
           Row{"a.test", "a.test", "a.test", "a.test", "a.test"},
           Row{"a.test:8080", "a.test", "a.test", "a.test:8080", "a.test"},
           Row{"a.test:80", "a.test:80", "a.test", "a.test:80", "a.test"},
           Row{"a.test.", "a.test.", "a.test.", "a.test", "a.test"},
           Row{"a.test.:8080", "a.test.", "a.test.", "a.test:8080", "a.test"},
           Row{"a.test.:80", "a.test.:80", "a.test.", "a.test:80", "a.test"},
           Row{"[::1]:8080", "[::1]", "[::1]", "[::1]:8080", "[::1]"},
           Row{"[::1]", "[::1]", "[::1]", "[::1]", "[::1]"},
           Row{"a.test:", "a.test:", "a.test:", "a.test:", "a.test:"},
           Row{"a.test:x", "a.test:x", "a.test:x", "a.test:x", "a.test:x"},
           Row{"", "", "", "", ""},
       }) {
    const auto stripped = [&](StripPortMode mode, bool dot) {
      char memory[64];
      Scratch scratch(memory);
      ForwardOptions o;
      o.strip_port = mode;
      o.strip_trailing_host_dot = dot;
      RequestHead head;
      head.method = "GET";
      head.authority = row.host;
      std::string_view with_port;
      EXPECT_EQ(o.strips_host(), dot || mode != StripPortMode::kNo);
      EXPECT_TRUE(strip_host(&head, o, 8080, scratch, &with_port));
      EXPECT_EQ(with_port, dot ? row.dot : row.host) << "what CONNECT goes on with";
      return std::string(head.authority);
    };
    EXPECT_EQ(stripped(StripPortMode::kNo, false), row.host);
    EXPECT_EQ(stripped(StripPortMode::kMatching, false), row.matching) << row.host;
    EXPECT_EQ(stripped(StripPortMode::kAny, false), row.any) << row.host;
    EXPECT_EQ(stripped(StripPortMode::kNo, true), row.dot) << row.host;
    EXPECT_EQ(stripped(StripPortMode::kAny, true), row.both) << row.host;
  }
}

TEST(Uuid, VersionAndVariant) {
  const uint64_t ones[2] = {UINT64_MAX, UINT64_MAX}, zeros[2] = {0, 0};
  char out[kUuidBytes];
  format_uuid(ones, out);
  EXPECT_EQ(std::string_view(out, kUuidBytes), "ffffffff-ffff-4fff-bfff-ffffffffffff");
  format_uuid(zeros, out);
  EXPECT_EQ(std::string_view(out, kUuidBytes), "00000000-0000-4000-8000-000000000000");
  format_uuid(kRandom, out);
  EXPECT_EQ(std::string_view(out, kUuidBytes), kUuid);
}

}  // namespace
}  // namespace millrace::http
