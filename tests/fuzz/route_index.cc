// A damaged index blob: validate_index() refuses it, or the matcher walks it without harm.
//   first byte even: the rest is patches of the good blob (offset low, offset high, value)      odd: the rest replaces the blob's
//   beginning
#include <cstring>
#include <memory>
#include <vector>

#include "lib/http/message.h"
#include "lib/route/compiler.h"
#include "lib/route/runtime.h"
#include "tests/fuzz/require.h"

using namespace millrace;

namespace {

struct Good {
  route::CompiledObject object;
  route::PatternDbCache cache;
  std::unique_ptr<route::LoadedVirtualHost> host;
  route::MatchScratch scratch;

  Good() {
    route::VirtualHostSpec spec;
    spec.name = "h";
    spec.domains = {"*"};
    const struct {
      table::PathKind kind;
      const char* path;
      bool case_sensitive;
    } routes[] = {{table::PathKind::kExact, "/a", true},        {table::PathKind::kExact, "/B/c", false},
                  {table::PathKind::kPrefix, "/p", true},       {table::PathKind::kPrefix, "/p/q", true},
                  {table::PathKind::kPrefix, "/Pre", false},    {table::PathKind::kSeparatedPrefix, "/s", true},
                  {table::PathKind::kRegex, "/r/[0-9]+", true}, {table::PathKind::kRegex, ".*x", true},
                  {table::PathKind::kPrefix, "/", true}};
    for (const auto& r : routes) {
      route::RouteSpec out;
      out.path_kind = r.kind;
      out.path = r.path;
      out.case_sensitive = r.case_sensitive;
      out.clusters.push_back({"c", 0, {}});
      out.headers.resize(r.kind == table::PathKind::kPrefix ? 1 : 0);
      for (auto& m : out.headers) m.name = "user-agent";
      spec.routes.push_back(out);
    }
    route::RouteCompiler compiler;
    object = compiler.compile_virtual_host(spec, "t/h");
    FUZZ_REQUIRE(object.ok());
    route::PatternScratch prototype;
    auto loaded = route::LoadedVirtualHost::load(object.as<table::VirtualHost>(), cache, prototype, nullptr);
    FUZZ_REQUIRE(loaded.ok());
    host = std::move(loaded.value());
    auto clone = prototype.clone();
    FUZZ_REQUIRE(clone.ok());
    scratch.patterns = std::move(clone.value());
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Good good;
  if (size < 1) return 0;
  std::vector<uint64_t> words = *good.object.words;  // on the heap, so that a wild read is seen
  auto& object = *reinterpret_cast<table::VirtualHost*>(words.data());
  uint8_t* blob = reinterpret_cast<uint8_t*>(words.data()) + object.index.offset;
  if ((data[0] & 1) == 0) {
    for (size_t i = 1; i + 3 <= size; i += 3) blob[(data[i] | data[i + 1] << 8) % object.index.count] = data[i + 2];
  } else {
    std::memcpy(blob, data + 1, std::min<size_t>(size - 1, object.index.count));
  }
  if (!route::validate_index(object).ok()) return 0;
  http::Header storage[1];
  for (const char* path : {"/", "/a", "/b/C", "/p/q/r", "/prefix", "/s/1", "/s", "/r/12", "/yx", "*", ""}) {
    http::RequestHead head;
    head.method = "GET";
    head.path = path;
    head.headers = http::HeaderTable(storage, 1);
    head.headers.push({"user-agent", "u", http::HeaderId::kUserAgent});
    const auto result = route::match_route({&object, good.host->runtime().dbs}, head, {0, false, &good.scratch});
    FUZZ_REQUIRE(result.outcome != route::MatchOutcome::kRoute || result.route < object.routes.count);
  }
  return 0;
}
