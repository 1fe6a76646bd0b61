// Bytes become a small route table and a request; the compiled matcher and the linear reference give the same answer.
#include <string>
#include <vector>

#include "lib/http/message.h"
#include "lib/route/compiler.h"
#include "lib/route/runtime.h"
#include "lib/table/validate.h"
#include "tests/fuzz/require.h"
#include "tests/support/linear_matcher.h"

using namespace millrace;

namespace {

// Reads the input as a program; at its end everything is zero.
class Reader {
 public:
  Reader(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint8_t byte() { return at_ < size_ ? data_[at_++] : 0; }
  uint8_t below(uint8_t n) { return static_cast<uint8_t>(byte() % n); }
  bool flag() { return (byte() & 1) != 0; }
  // Up to 15 bytes, without the characters that no head holds.
  std::string text() {
    std::string s(byte() & 15, '\0');
    for (char& c : s) {
      c = static_cast<char>(byte());
      if (c == '\n' || c == '\r' || c == '\0') c = '/';
    }
    return s;
  }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

// Expressions from a fixed list: compiling arbitrary ones is Hyperscan's subject, not ours, and slow.
const char* const kPathExpressions[] = {"/a/[^/]+", ".*x", "/(?i)a.*", "/[a-z]{2}(/.*)?"};
const char* const kValueExpressions[] = {"a+", "[^,]*,?b"};
const char* const kHeaderNames[] = {"x-a", "user-agent", ":method", ":path", "host", "cookie", ":scheme", "x-b"};

route::MatcherSpec read_matcher(Reader& in, bool query) {
  route::MatcherSpec m;
  m.name = query ? std::string(1, static_cast<char>('a' + in.below(3))) : kHeaderNames[in.below(8)];
  m.kind = static_cast<table::StringMatchKind>(in.below(query ? 6 : 7));
  const uint8_t flags = in.byte();
  m.value = m.kind == table::StringMatchKind::kRegex ? kValueExpressions[in.below(2)] : in.text();
  m.range_start = in.byte() - 128;
  m.range_end = m.range_start + in.byte();
  m.invert = (flags & 1) != 0 && (!query || m.kind == table::StringMatchKind::kPresent);
  m.ignore_case = (flags & 2) != 0;
  m.treat_missing_as_empty = (flags & 4) != 0 && !query;
  return m;
}

route::RouteSpec read_route(Reader& in, unsigned* expressions) {
  route::RouteSpec r;
  r.clusters.push_back({"c", 0, {}});
  r.path_kind = static_cast<table::PathKind>(in.below(4));
  const uint8_t flags = in.byte();
  r.case_sensitive = (flags & 1) == 0;
  r.grpc_only = (flags & 14) == 14;
  if ((flags & 0x30) == 0x30) {
    r.fraction_denominator = 100;
    r.fraction_numerator = in.below(101);
  }
  if (r.path_kind == table::PathKind::kRegex) {
    const uint8_t which = in.below(4);
    *expressions |= 1u << which;
    r.path = kPathExpressions[which];
  } else {
    r.path = "/" + in.text();
    if (r.path_kind == table::PathKind::kPrefix && (flags & 0x40)) r.path.clear();
  }
  if (r.path_kind == table::PathKind::kSeparatedPrefix) {
    if (const size_t i = r.path.find_first_of("?#"); i != std::string::npos) r.path.resize(i);
    while (!r.path.empty() && r.path.back() == '/') r.path.pop_back();
    if (r.path.empty()) r.path = "/a";
  }
  for (uint8_t n = in.below(3); n > 0; --n) r.headers.push_back(read_matcher(in, false));
  for (uint8_t n = in.below(3); n > 0; --n) r.query.push_back(read_matcher(in, true));
  return r;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static route::RouteCompiler compiler;
  static support::LinearMatcher reference;
  static route::PatternDbCache cache;
  static route::PatternScratch prototype;
  static route::MatchScratch scratch;

  Reader in(data, size);
  route::VirtualHostSpec spec;
  spec.name = "h";
  spec.domains = {"*"};
  spec.require_tls = static_cast<table::RequireTls>(in.below(16) == 15 ? 1 + in.below(2) : 0);
  unsigned expressions = 0;
  for (uint8_t n = 1 + in.below(6); n > 0; --n) spec.routes.push_back(read_route(in, &expressions));
  // One object name for each set of expressions: its databases stay in the compiler's cache, and no input waits for a child
  // process twice.
  const auto object = compiler.compile_virtual_host(spec, "t/" + std::to_string(expressions));
  FUZZ_REQUIRE(object.ok());
  FUZZ_REQUIRE(table::validate_object({object.bytes(), object.size_bytes}).ok());
  bool grew = false;
  auto host = route::LoadedVirtualHost::load(object.as<table::VirtualHost>(), cache, prototype, &grew);
  FUZZ_REQUIRE(host.ok());
  if (grew || scratch.patterns.empty()) {
    auto clone = prototype.clone();
    FUZZ_REQUIRE(clone.ok());
    scratch.patterns = std::move(clone.value());
  }
  const route::LoadedVirtualHost& loaded = **host;

  for (int requests = 0; requests < 4; ++requests) {
    const std::string path = in.flag() ? "/" + in.text() + in.text() : in.text();
    const std::string authority = in.text();
    std::vector<std::pair<std::string, std::string>> fields;
    for (uint8_t n = in.below(4); n > 0; --n) {
      const std::string name = in.flag() ? "x-a" : in.flag() ? "x-b" : in.flag() ? "cookie" : "content-type";
      fields.emplace_back(name, name == "content-type" ? "application/grpc" : in.text());
    }
    std::vector<http::Header> storage(fields.size());
    http::RequestHead head;
    head.method = in.flag() ? "GET" : "POST";
    head.path = path;
    head.authority = authority;
    head.headers = http::HeaderTable(storage.data(), static_cast<uint32_t>(storage.size()));
    for (const auto& [name, value] : fields) head.headers.push({name, value, http::header_id(name)});
    const uint64_t random = in.byte();
    const bool tls = in.flag();

    route::MatchAhead ahead;
    ahead.fetch_slots(loaded.runtime(), path);
    if (in.flag()) ahead.fetch_nodes();
    const route::MatchResult got = route::match_route(loaded.runtime(), head, {random, tls, &scratch}, &ahead);
    const int want = reference.match(spec, head, random, tls);
    switch (got.outcome) {
      case route::MatchOutcome::kRoute:
        FUZZ_REQUIRE(want == static_cast<int>(got.route));
        break;
      case route::MatchOutcome::kNoRoute:
        FUZZ_REQUIRE(want == support::LinearMatcher::kNoRoute);
        break;
      case route::MatchOutcome::kTlsRequired:
        FUZZ_REQUIRE(want == support::LinearMatcher::kTlsRequired);
        break;
      default:
        FUZZ_REQUIRE(false);
    }
  }
  return 0;
}
