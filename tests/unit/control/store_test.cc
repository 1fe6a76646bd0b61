// The store's history: revisions, the way back over several edits, what ends it.
#include "control/store.h"

#include <filesystem>

#include <gtest/gtest.h>
#include <sqlite3.h>

namespace millrace::control {
namespace {

class StoreTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/millrace-store-XXXXXX";
    folder = ::mkdtemp(name);
    open();
    ASSERT_TRUE(store->reset("f1", "loaded gateway.yaml").ok());
    ASSERT_TRUE(store->fill({cluster("a", "1"), cluster("b", "1")}).ok());
  }
  void TearDown() override { std::filesystem::remove_all(folder); }
  void open() {
    store.reset();
    auto s = Store::open(folder + "/control.db");
    ASSERT_TRUE(s.ok()) << s.error();
    store = std::move(*s);
  }
  static StoredKey key(const std::string& name, const std::string& part = "") { return {{ConfigKind::kCluster, name}, part}; }
  static StoredRow cluster(const std::string& name, const std::string& json) { return {key(name), 0, json}; }
  static StoredRow part(const std::string& name, const std::string& part, uint32_t position, const std::string& json) {
    return {key(name, part), position, json};
  }
  uint64_t edit(const std::vector<StoredRow>& put, const std::vector<StoredKey>& removed, const std::string& what = "edit") {
    Revision r;
    r.origin = {"alice", what};
    r.changes = "~ " + what + "\n";
    const auto n = store->commit(put, removed, r);
    EXPECT_TRUE(n.ok()) << (n.ok() ? "" : n.error());
    return n.ok() ? *n : 0;
  }
  // "a=1 -b": in the order of the names.
  std::string back(uint64_t revision) {
    const auto state = store->way_back(revision);
    if (!state.ok()) return state.error();
    std::string out;
    for (const StoredRow& o : state->rows) out += text(o);
    for (const ConfigKey& k : state->removed) out += "-" + k.name + " ";
    return out;
  }
  static std::string text(const StoredRow& o) {
    return o.key.key.name + (o.key.part.empty() ? "" : "/" + o.key.part) + "=" + o.json + " ";
  }
  std::string now() {
    std::string out;
    for (const StoredRow& o : store->load()) out += text(o);
    return out;
  }

  std::string folder;
  std::unique_ptr<Store> store;
};

TEST_F(StoreTest, TheWayBackIsWhatWasThere) {
  const uint64_t one = edit({cluster("a", "2")}, {}, "one");
  const uint64_t two = edit({cluster("a", "3"), cluster("c", "1")}, {}, "two");
  const uint64_t three = edit({cluster("c", "2")}, {key("b")}, "three");
  EXPECT_EQ(back(three), "");
  EXPECT_EQ(back(two), "b=1 c=1 ");
  EXPECT_EQ(back(one), "a=2 b=1 -c ");
  EXPECT_EQ(back(one - 1), "a=1 b=1 -c ");
  EXPECT_EQ(now(), "a=3 c=2 ");
}

TEST_F(StoreTest, AnObjectOfSeveralRowsGoesBackWhole) {
  edit({part("a", "z", 0, "1"), part("a", "y", 1, "1"), part("a", "x", 2, "1")}, {});
  const uint64_t three_parts = store->history(1).front().number;
  EXPECT_EQ(now(), "a=1 a/z=1 a/y=1 a/x=1 b=1 ") << "by position";
  edit({part("a", "y", 1, "2")}, {});
  edit({part("a", "w", 2, "1")}, {key("a", "x")});
  EXPECT_EQ(now(), "a=1 a/z=1 a/y=2 a/w=1 b=1 ");
  EXPECT_EQ(back(three_parts), "a=1 a/z=1 a/y=1 a/x=1 ") << "rows that were not touched too, those that came later not";
  edit({}, {key("a"), key("a", "z"), key("a", "y"), key("a", "w")});
  EXPECT_EQ(back(three_parts), "a=1 a/z=1 a/y=1 a/x=1 ");
  EXPECT_EQ(now(), "b=1 ");
}

TEST_F(StoreTest, AStoreOfAnotherLayoutBeginsAnew) {
  edit({cluster("a", "2")}, {});
  store.reset();
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((folder + "/control.db").c_str(), &db), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(db, "UPDATE meta SET value = '1' WHERE key = 'layout'", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(db);
  open();
  EXPECT_EQ(now(), "");
  EXPECT_EQ(store->base(), "");
  EXPECT_FALSE(store->edited());
}

TEST_F(StoreTest, HistoryNewestFirstAndOverARestart) {
  edit({cluster("a", "2")}, {}, "one");
  const uint64_t two = edit({cluster("a", "3")}, {}, "two");
  open();
  const std::vector<Revision> all = store->history(0);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].number, two);
  EXPECT_EQ(all[0].origin.author, "alice");
  EXPECT_EQ(all[0].origin.what, "two");
  EXPECT_EQ(all[0].changes, "~ two\n");
  EXPECT_GT(all[0].time_ms, 1'600'000'000'000);
  EXPECT_TRUE(all[2].loaded);
  EXPECT_EQ(all[2].origin.what, "loaded gateway.yaml");
  EXPECT_EQ(store->history(1).size(), 1u);
  EXPECT_EQ(back(two - 1), "a=2 ");
}

TEST_F(StoreTest, WithdrawnAsIfItHadNeverBeen) {
  const uint64_t one = edit({cluster("a", "2")}, {});
  const uint64_t two = edit({cluster("a", "3"), cluster("c", "1")}, {key("b")});
  ASSERT_TRUE(store->withdraw(two).ok());
  EXPECT_EQ(now(), "a=2 b=1 ");
  EXPECT_EQ(store->history(1).front().number, one);
  EXPECT_EQ(back(one - 1), "a=1 ");
}

TEST_F(StoreTest, ANewFileEndsTheWayBack) {
  const uint64_t one = edit({cluster("a", "2")}, {});
  ASSERT_TRUE(store->reset("f2", "loaded other.yaml").ok());
  const uint64_t loaded = store->history(1).front().number;
  EXPECT_GT(loaded, one);
  EXPECT_EQ(back(one), "revision " + std::to_string(one) + " is before the configuration file was loaded (revision " +
                           std::to_string(loaded) + "); what was before it is not kept");
  EXPECT_EQ(back(loaded), "");
  EXPECT_EQ(back(loaded + 7), "there is no revision " + std::to_string(loaded + 7) + "; the newest is " + std::to_string(loaded));
}

TEST_F(StoreTest, OnlySoManyRevisionsAreKept) {
  uint64_t last = 0;
  constexpr uint64_t kKept = 20;
  store.reset();
  auto small = Store::open(folder + "/control.db", kKept);
  ASSERT_TRUE(small.ok());
  store = std::move(*small);
  for (uint64_t i = 0; i < kKept + 5; ++i) last = edit({cluster("a", std::to_string(i))}, {});
  EXPECT_EQ(store->history(0).size(), kKept);
  EXPECT_EQ(back(last - kKept), "a=4 ");
  EXPECT_NE(back(last - kKept - 1).find("is not kept any more"), std::string::npos);
}

}  // namespace
}  // namespace millrace::control
