// The index blob: what the loader's check refuses, and that what it accepts cannot hurt the matcher, whatever the bytes.
#include <cstring>

#include <gtest/gtest.h>

#include "lib/base/hash.h"
#include "lib/base/prng.h"
#include "lib/route/index_builder.h"
#include "lib/route/index_format.h"
#include "tests/unit/route/route_fixture.h"

namespace millrace::test {
namespace {

using table::StringMatchKind;

route::VirtualHostSpec rich_spec() {
  auto weighted = prefix("/w");
  weighted.action = table::ActionKind::kWeightedClusters;
  weighted.clusters = {{"a", 1, {}}, {"b", 2, {}}};
  return host_of({exact("/a"), exact("/b/c"), folded(exact("/FOLD")), prefix("/p"), prefix("/p/q/r"), folded(prefix("/Pre")),
                  separated("/s"), regex("/r/[0-9]+"), regex(".*x"),
                  with_header(prefix("/h"), matcher("x-a", StringMatchKind::kRegex, "a+")),
                  with_query(prefix("/h"), matcher("q", StringMatchKind::kRegex, "b+")), weighted, prefix("/"),
                  exact("/exact/" + std::string(60, 'e')), prefix("/prefix/" + std::string(60, 'p'))});
}

class Corrupted {
 public:
  Corrupted() : host_(rich_spec()), copy_(*host_.compiled().words) {}
  table::VirtualHost& object() { return *reinterpret_cast<table::VirtualHost*>(copy_.data()); }
  uint8_t* blob() { return reinterpret_cast<uint8_t*>(copy_.data()) + object().index.offset; }
  route::IndexHeader& header() { return *reinterpret_cast<route::IndexHeader*>(blob()); }
  template <class T>
  T* section(const route::Section<T>& s) {
    return reinterpret_cast<T*>(blob() + s.offset);
  }
  void reset() { copy_ = *host_.compiled().words; }
  bool accepted() { return route::validate_index(object()).ok(); }
  Loaded& host() { return host_; }
  // The matcher on the damaged copy, with the good one's databases.
  void match(const char* path) {
    const Request r(path, {{"x-a", "aa"}});
    const route::VirtualHostRuntime runtime{&object(), host_.runtime().dbs};
    route::MatchAhead ahead;
    ahead.fetch_slots(runtime, r.head().path);
    ahead.fetch_nodes();
    const auto m = route::match_route(runtime, r.head(), host_.context(), &ahead);
    if (m.outcome == route::MatchOutcome::kRoute) {
      ASSERT_LT(m.route, object().routes.count);
    }
  }

 private:
  Loaded host_;
  std::vector<uint64_t> copy_;
};

TEST(IndexCheck, EveryRuleRefuses) {
  Corrupted c;
  ASSERT_TRUE(c.accepted());
  const auto refused = [&](const char* what, auto&& damage) {
    c.reset();
    damage();
    EXPECT_FALSE(c.accepted()) << what;
  };
  refused("magic", [&] { c.header().magic ^= 1; });
  refused("version", [&] { c.header().version ^= 1; });
  refused("size", [&] { c.header().size -= 8; });
  refused("header ids", [&] { c.header().header_ids ^= 1; });
  refused("meta count", [&] { c.header().meta.count -= 1; });
  refused("numbers out of the blob", [&] { c.header().numbers.count = UINT32_MAX; });
  refused("text offset", [&] { c.header().text.offset = UINT32_MAX; });
  refused("misaligned", [&] { c.header().numbers.offset += 1; });
  refused("longest folded", [&] { c.header().longest_folded = UINT32_MAX; });
  refused("folded literal longer than said", [&] { c.header().longest_folded = 1; });
  refused("rank too high", [&] { c.section(c.header().exact[0].nodes)->ranks.first = 1000; });
  refused("rank in a run too high", [&] { c.section(c.header().numbers)[0] = 1000; });
  refused("ranks run out", [&] { c.section(c.header().exact[0].nodes)->ranks.count = UINT32_MAX; });
  refused("slot beyond nodes", [&] { c.section(c.header().exact[0].slots)->node = 1000; });
  refused("no free slot", [&] {
    for (uint32_t i = 0; i < c.header().prefix[0].slots.count; ++i) c.section(c.header().prefix[0].slots)[i].node = 1;
  });
  refused("slots no power of two", [&] { c.header().exact[0].slots.count -= 1; });
  refused("slots without nodes", [&] { c.header().exact[0].nodes.count = 0; });
  refused("parent beyond nodes", [&] { c.section(c.header().prefix[0].nodes)->parent = 1000; });
  refused("parent is itself", [&] { c.section(c.header().prefix[0].nodes)->parent = 1; });
  refused("an action of another route", [&] { c.section(c.header().actions)->cluster ^= 1; });
  refused("another timeout than the route's", [&] { c.section(c.header().actions)->timeout_ms ^= 1; });
  refused("an action that is not there", [&] { c.section(c.header().meta)[0].action = 1000; });
  refused("an action where the route edits more", [&] { c.section(c.header().meta)[11].action = 1; });
  refused("an action that the route edits away", [&] {
    auto* all = reinterpret_cast<table::Route*>(reinterpret_cast<uint8_t*>(&c.object()) + c.object().routes.offset);
    all[0].has_host_rewrite = 1;
  });
  refused("a node that does otherwise than its route", [&] { c.section(c.header().exact[0].nodes)->action = 0; });
  refused("more beyond what there is", [&] { c.section(c.header().prefix[0].nodes)->more = 1000; });
  refused("rest of a text beyond the texts", [&] {
    auto* nodes = c.section(c.header().exact[0].nodes);
    for (uint32_t i = 0; i < c.header().exact[0].nodes.count; ++i) nodes[i].rest = c.header().text.count;
  });
  refused("lengths out of order", [&] { c.section(c.header().prefix[0].lengths)[0] = 16'000; });
  refused("regex database of another input", [&] {
    auto* dbs = reinterpret_cast<table::RegexDb*>(reinterpret_cast<uint8_t*>(&c.object()) + c.object().regex_dbs.offset);
    for (uint32_t i = 0; i < c.object().regex_dbs.count; ++i) dbs[i].input = table::RegexInput::kHeader;
  });
  auto* routes = [&] {
    return reinterpret_cast<table::Route*>(reinterpret_cast<uint8_t*>(&c.object()) + c.object().routes.offset);
  }();
  refused("fraction of zero", [&] { routes[0].fraction_denominator = 0; });
  refused("weights", [&] { routes[11].total_weight = 7; });
  refused("no cluster", [&] { routes[0].clusters.count = 0; });
  refused("path regex", [&] { routes[7].path_regex = 77; });
  refused("index gone", [&] { c.object().index.count = 8; });
}

TEST(IndexCheck, NoAcceptedCorruptionHurtsTheMatcher) {
  const uint64_t seed = 20240607;
  base::Prng random(seed);
  Corrupted c;
  int accepted = 0;
  for (int i = 0; i < 40'000; ++i) {
    c.reset();
    for (uint64_t n = 1 + random.below(3); n > 0; --n) {
      const uint32_t at = static_cast<uint32_t>(random.below(c.object().index.count));
      uint8_t& byte = c.blob()[at];
      byte = random.chance(1, 2) ? static_cast<uint8_t>(random.next()) : static_cast<uint8_t>(byte ^ 1u << random.below(8));
    }
    if (!c.accepted()) continue;
    ++accepted;
    for (const char* path : {"/", "/a", "/b/c", "/fold", "/p/q/r/s", "/prefix", "/s/x", "/r/12", "/zzx", "/h?q=bb", "/w", "*"})
      c.match(path);
  }
  EXPECT_GT(accepted, 4'000) << "seed " << seed;  // tags, texts, metadata: wrong answers, but no wild reads
}

TEST(IndexBuilder, TagCollisionsDoNotMislead) {
  // Slots that lead from texts which are not in the table to nodes of the same length: what a collision of 32 hash bits would do.
  // The search by length is led astray at that step and must still answer right.
  Corrupted c;
  const auto& t = c.header().prefix[0];
  int forged = 0;
  for (const char* path : {"/zz", "/q", "/z/x", "/0", "/p!q/r", "/p/q/x", "/x/q/r/s"}) {
    const Request r(path);
    const uint32_t right = c.host().match(r.head()).route;
    for (uint32_t node = 0; node < t.nodes.count; ++node) {
      c.reset();
      auto* slots = c.section(t.slots);
      const uint32_t length = c.section(t.nodes)[node].length;
      if (length > std::string_view(path).size()) continue;
      const uint64_t hash = base::hash64(std::string_view(path).substr(0, length));
      uint64_t at = hash & (t.slots.count - 1);
      bool there = false;
      for (; slots[at].node != 0; at = (at + 1) & (t.slots.count - 1))
        there = there || slots[at].tag == static_cast<uint32_t>(hash >> 32);
      if (there) continue;  // that text is in the table
      slots[at] = {static_cast<uint32_t>(hash >> 32), node + 1};
      if (!c.accepted()) continue;
      ++forged;
      const route::VirtualHostRuntime runtime{&c.object(), c.host().runtime().dbs};
      EXPECT_EQ(route::match_route(runtime, r.head(), c.host().context()).route, right) << path << " node " << node;
    }
  }
  EXPECT_GT(forged, 15);
}

}  // namespace
}  // namespace millrace::test
