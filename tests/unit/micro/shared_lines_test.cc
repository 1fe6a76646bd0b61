// Share-nothing, shown: two workers of one gateway, each loaded by its own peers, write to no common cache line, and neither
// touches a line that the other writes. Their ports, pools, statistics, tables and event rings are those of production; each runs
// on a thread of its own with its own DPDK core id, one at a time, while every access of it is noted (write_tracker.h).
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>

#include <gtest/gtest.h>

#include "lib/tls/memory.h"
#include "perf/micro/eal.h"
#include "perf/micro/worker_rig.h"
#include "perf/micro/write_tracker.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MILLRACE_SANITIZED 1
#endif

namespace millrace::bench {
namespace {

// A thread that does what it is told, one thing at a time.
class Hand {
 public:
  explicit Hand(unsigned index) : thread_([this, index] { run(index); }) {}
  ~Hand() {
    tell(nullptr);
    thread_.join();
  }
  void tell(std::function<void()> what) {
    std::unique_lock lock(mutex_);
    work_ = std::move(what);
    busy_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !busy_; });
  }

 private:
  void run(unsigned index) {
    if (!enter_eal(index).ok()) std::abort();
    for (bool more = true; more;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return busy_; });
      more = work_ != nullptr;
      if (more) work_();
      busy_ = false;
      changed_.notify_all();
    }
    leave_eal();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> work_;
  bool busy_ = false;
  std::thread thread_;
};

std::string describe(const LineSet& lines, const LineSet& others) {
  std::string out;
  int shown = 0;
  for (const auto& [line, touch] : lines) {
    if (++shown > 20) return out + "  … " + std::to_string(lines.size()) + " lines in all\n";
    out += "  " + describe_data(line) + "\n    by " + describe_code(touch.instruction) + "\n";
    if (const auto o = others.find(line); o != others.end()) out += "    and " + describe_code(o->second.instruction) + "\n";
  }
  return out;
}
LineSet common(const LineSet& a, const LineSet& b) {
  LineSet out;
  for (const auto& [line, touch] : a)
    if (b.contains(line)) out[line] = touch;
  return out;
}

class SharedLines : public testing::Test {
 protected:
  void SetUp() override {
#ifdef MILLRACE_SANITIZED
    GTEST_SKIP() << "protected pages and a sanitizer's shadow memory do not go together";
#endif
  }
};

// The instrument itself: finds a line that two pieces of code share, and does not find one that they do not.
TEST_F(SharedLines, TrackerFindsWhatIsShared) {
  struct alignas(64) Counters {
    uint64_t a = 0, b = 0;       // one line
    alignas(64) uint64_t c = 0;  // another
    alignas(64) uint8_t wide[256] = {};
  };
  const auto memory = std::make_unique<Counters>();
  volatile Counters* m = memory.get();
  const auto line = [](const volatile void* p) { return reinterpret_cast<uint64_t>(p) / kCacheLine * kCacheLine; };
  const LineSet a = lines_written([&] { m->a = m->a + 1; });
  const LineSet b = lines_written([&] { m->b = m->b + 1; });
  const LineSet c = lines_written([&] { m->c = 1; });
  EXPECT_EQ(a.size(), 1u);
  EXPECT_TRUE(a.contains(line(&m->a)));
  EXPECT_EQ(common(a, b).size(), 1u);
  EXPECT_TRUE(common(a, c).empty());
  EXPECT_EQ(memory->a, 1u);
  // A block in pieces of any size, from the middle of a line to the middle of another.
  const LineSet wide = lines_written([&] { std::memset(const_cast<uint8_t*>(m->wide) + 50, 7, 100); });
  EXPECT_EQ(wide.size(), 3u);
  // Reading is touching, once the line is one of those asked for.
  uint64_t seen = 0;
  EXPECT_EQ(lines_touched(a, [&] { seen = m->b; }).size(), 1u);
  EXPECT_TRUE(lines_touched(a, [&] { seen += m->c; }).empty());
  EXPECT_EQ(seen, 2u);
}

struct Share {
  const char* name;
  RigOptions options;
  int turns = 8;
};
void PrintTo(const Share& s, std::ostream* out) { *out << s.name; }
std::vector<Share> shares() {
  std::vector<Share> all(4);
  all[0].name = "keepalive";
  all[0].options.access_log = true;
  all[1].name = "connections";
  all[1].options.one_request_each = true;
  all[2].name = "body_16k";
  all[2].options.body_bytes = 16 * 1024;
  all[3].name = "tls";
  all[3].options.tls = true;
  all[3].turns = 3;  // records are written many times over: its arithmetic
  for (Share& s : all) {
    s.options.connections = 16;
    s.options.pool_packets = 8192;
  }
  return all;
}

class WorkersShare : public SharedLines, public testing::WithParamInterface<Share> {};

TEST_P(WorkersShare, NoWrittenLine) {
  const int turns = GetParam().turns;
  Gateway gateway(GetParam().options, 2);
  std::unique_ptr<Rig> rigs[2];
  LineSet written[2];
  std::string wrong;
  {
    Hand hands[2] = {Hand(0), Hand(1)};
    for (uint32_t w = 0; w < 2; ++w)
      hands[w].tell([&, w] {
        rigs[w] = std::make_unique<Rig>(gateway, w);
        if (!rigs[w]->run(200, false)) wrong += rigs[w]->error() + "; ";
      });
    ASSERT_EQ(wrong, "");
    // What each writes, both sides of the loop's turns interleaved as the loop has them.
    for (uint32_t w = 0; w < 2; ++w)
      hands[w].tell([&, w] {
        for (int turn = 0; turn < turns; ++turn) {
          written[w].merge(lines_written([&] { rigs[w]->turn_worker(); }));
          rigs[w]->turn_peers();
        }
      });
    // What each touches of the other's.
    LineSet touched[2];
    for (uint32_t w = 0; w < 2; ++w)
      hands[w].tell([&, w] {
        for (int turn = 0; turn < turns; ++turn) {
          touched[w].merge(lines_touched(written[1 - w], [&] { rigs[w]->turn_worker(); }));
          rigs[w]->turn_peers();
        }
      });
    for (uint32_t w = 0; w < 2; ++w) {
      EXPECT_EQ(rigs[w]->error(), "");
      EXPECT_GT(rigs[w]->answered(), 202u) << "requests were answered while lines were noted";
      EXPECT_GT(written[w].size(), 100u);
      EXPECT_TRUE(touched[w].empty()) << "worker " << w << " touches lines that the other writes:\n"
                                      << describe(touched[w], written[1 - w]);
    }
    const LineSet both = common(written[0], written[1]);
    EXPECT_TRUE(both.empty()) << "lines that both write:\n" << describe(both, written[1]);
    std::printf("%s: %zu and %zu lines written in %d turns, %zu in common\n", GetParam().name, written[0].size(),
                written[1].size(), turns, both.size());
    for (uint32_t w = 0; w < 2; ++w) hands[w].tell([&, w] { rigs[w].reset(); });
  }
}
INSTANTIATE_TEST_SUITE_P(Load, WorkersShare, testing::ValuesIn(shares()), [](const auto& i) { return i.param.name; });

}  // namespace
}  // namespace millrace::bench

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (const millrace::base::Status s = millrace::tls::install_memory_hooks(); !s.ok()) {
    std::fprintf(stderr, "unit_shared_lines: %s\n", s.error().c_str());
    return 1;
  }
  if (const millrace::base::Status s = millrace::bench::start_eal(); !s.ok()) {
    std::fprintf(stderr, "unit_shared_lines: %s\n", s.error().c_str());
    return 1;
  }
  return RUN_ALL_TESTS();
}
