// SharedTable against std::map: the same after any edits, copies untouched by them, differences exactly those that there are.
#include "control/shared_table.h"

#include <map>

#include <gtest/gtest.h>

#include "lib/base/prng.h"

namespace millrace::control {
namespace {

using Table = SharedTable<int>;
using Map = std::map<std::string, std::shared_ptr<const int>, std::less<>>;

void expect_same(const Table& t, const Map& m) {
  ASSERT_EQ(t.size(), m.size());
  auto it = t.begin();
  for (const auto& [name, value] : m) {
    ASSERT_NE(it, t.end());
    EXPECT_EQ(it->first, name);
    EXPECT_EQ(it->second, value);
    ++it;
  }
  EXPECT_EQ(it, t.end());
}

Map differences_of(const Map& a, const Map& b) {  // name -> what it is now
  Map out;
  for (const auto& [n, v] : a)
    if (!b.contains(n)) out[n] = nullptr;
  for (const auto& [n, v] : b)
    if (!a.contains(n) || a.at(n) != v) out[n] = v;
  return out;
}

TEST(SharedTable, IsAMapWhateverIsDoneToIt) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    base::Prng random(seed);
    const uint64_t names = seed % 2 == 0 ? 60 : 2000;
    Table t;
    Map m;
    std::vector<std::pair<Table, Map>> kept;
    for (int step = 0; step < 4000; ++step) {
      const std::string name = "n" + std::to_string(random.next() % names);
      if (random.next() % 3 != 0) {
        const auto value = std::make_shared<const int>(step);
        t[name] = value;
        m[name] = value;
      } else {
        EXPECT_EQ(t.erase(name), m.erase(name));
      }
      EXPECT_EQ(t.contains(name), m.contains(name));
      if (step % 500 == 0) kept.emplace_back(t, m);
      if (step % 1111 == 0) {
        const auto odd = [](const auto& e) { return e.first.back() % 2 == 1; };
        erase_if(t, odd);
        std::erase_if(m, odd);
      }
    }
    expect_same(t, m);
    for (const auto& [old_table, old_map] : kept) {
      expect_same(old_table, old_map);
      Map seen;
      std::string last;
      Table::differences(old_table, t, [&](const std::string& name, const auto& before, const auto& after) {
        EXPECT_LT(last, name);
        last = name;
        EXPECT_NE(before, after);
        EXPECT_EQ(before, old_map.contains(name) ? old_map.at(name) : nullptr);
        seen[name] = after;
      });
      EXPECT_EQ(seen, differences_of(old_map, m));
      EXPECT_EQ(old_table == t, old_map == m);
    }
  }
}

TEST(SharedTable, AChangeLooksAtWhatIsNotShared) {
  Table a;
  for (int i = 0; i < 10'000; ++i) a["name" + std::to_string(100'000 + i)] = std::make_shared<const int>(i);
  Table b = a;
  b["name105000"] = std::make_shared<const int>(-1);
  int calls = 0;
  Table::differences(a, b, [&](const std::string& name, const auto&, const auto&) {
    EXPECT_EQ(name, "name105000");
    ++calls;
  });
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(*a.at("name105000"), 5000);
  EXPECT_EQ(*b.at("name105000"), -1);
}

}  // namespace
}  // namespace millrace::control
