// millctl top: rates from two looks at the counters, and what a person sees of them (golden files in tests/golden/, written anew
// with MILLRACE_WRITE_GOLDEN=1).
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "control/cli/structured.h"
#include "control/cli/table.h"
#include "control/cli/top_rates.h"
#include "control/cli/top_screen.h"

namespace millrace::cli {
namespace {

namespace pb = control::v1;

constexpr uint64_t kSecond = 1'000'000'000;

pb::WorkerSample worker(uint32_t n, uint64_t scale) {
  pb::WorkerSample w;
  w.set_worker(n);
  w.set_busy_turns(10 * scale);
  w.set_busy_cycles(600'000 * scale);
  w.set_idle_cycles(400'000 * scale);
  w.set_rx_packets(80 * scale);
  w.set_rx_bytes(10'000 * scale);
  w.set_tx_packets(70 * scale);
  w.set_tx_bytes(12'500 * scale);
  w.set_requests(40 * scale);
  w.set_failed(scale);
  w.set_accepted(2 * scale);
  w.set_opened(scale);
  w.set_connections(12);
  w.set_exchanges(3);
  w.set_accounted_turns(scale);
  const struct {
    const char* name;
    uint64_t cycles, entries;
  } stages[] = {
      {"loop", 6'000, 1}, {"tcp_input", 24'000, 8}, {"http_parse", 18'000, 4}, {"route_match", 12'000, 4}, {"timers", 0, 0}};
  for (const auto& s : stages) {
    pb::StageCount& c = *w.add_stages();
    c.set_name(s.name);
    c.set_cycles(s.cycles * scale);
    c.set_entries(s.entries * scale);
  }
  pb::PoolStatus& p = *w.add_pools();
  p.set_name("packets");
  p.set_in_use(1'024);
  p.set_capacity(65'536);
  p.set_high_water(4'000);
  pb::PoolStatus& q = *w.add_pools();
  q.set_name("exchanges");
  q.set_in_use(3);
  q.set_capacity(4);
  q.set_high_water(4);
  q.set_refused(17);
  return w;
}

pb::TopSample sample(uint64_t at_ns, uint64_t scale, uint32_t workers = 2, uint64_t incarnation = 7) {
  pb::TopSample s;
  s.set_connected(true);
  s.set_incarnation(incarnation);
  s.set_taken_ns(at_ns);
  s.set_tsc_hz(2'450'000'000);
  s.set_stage_period(16);
  s.set_uptime_ms(at_ns / 1'000'000);
  for (uint32_t w = 0; w < workers; ++w) *s.add_workers() = worker(w, scale * (w + 1));
  return s;
}

void drop(pb::TopSample* s, const char* name, const char* severity, uint64_t count) {
  pb::Drop& d = *s->add_drops();
  d.set_name(name);
  d.set_severity(severity);
  d.set_count(count);
  d.set_text(std::string("what ") + name + " means");
}

// ---- rates --------------------------------------------------------------------------------------------------------------------

TEST(TopRates, PerSecondPerRequestPerPacket) {
  const pb::TopFrame f = make_frame(sample(10 * kSecond, 1'000), sample(12 * kSecond, 3'000));
  EXPECT_EQ(f.note(), "");
  EXPECT_DOUBLE_EQ(f.seconds(), 2);
  ASSERT_EQ(f.workers_size(), 2);
  const pb::WorkerRates& w = f.workers(0);
  EXPECT_DOUBLE_EQ(w.load(), 0.6);
  EXPECT_DOUBLE_EQ(w.requests(), 40'000);
  EXPECT_DOUBLE_EQ(w.failed(), 1'000);
  EXPECT_DOUBLE_EQ(w.accepted(), 2'000);
  EXPECT_DOUBLE_EQ(w.opened(), 1'000);
  EXPECT_DOUBLE_EQ(w.rx_packets(), 80'000);
  EXPECT_DOUBLE_EQ(w.tx_packets(), 70'000);
  EXPECT_DOUBLE_EQ(w.rx_gbit(), 0.08);
  EXPECT_DOUBLE_EQ(w.tx_gbit(), 0.1);
  EXPECT_DOUBLE_EQ(w.cycles_per_request(), 15'000);
  EXPECT_DOUBLE_EQ(w.cycles_per_packet(), 7'500);
  EXPECT_DOUBLE_EQ(w.burst(), 8);
  EXPECT_DOUBLE_EQ(w.accounted(), 0.1);
  EXPECT_EQ(w.connections(), 12u);
  EXPECT_DOUBLE_EQ(f.workers(1).requests(), 80'000) << "the second does twice as much";
  EXPECT_DOUBLE_EQ(f.total().requests(), 120'000);
  EXPECT_DOUBLE_EQ(f.total().load(), 0.6);
  EXPECT_DOUBLE_EQ(f.total().cycles_per_request(), 15'000);
  EXPECT_EQ(f.total().connections(), 24u);
  ASSERT_EQ(f.total().pools_size(), 2);
  EXPECT_EQ(f.total().pools(1).capacity(), 8u);
  EXPECT_EQ(f.total().pools(1).refused(), 34u);
}

TEST(TopRates, StagesShareTheBusyCycles) {
  const pb::TopFrame f = make_frame(sample(10 * kSecond, 1'000), sample(11 * kSecond, 2'000));
  double all = 0, cycles = 0;
  for (const pb::StageShare& s : f.total().stages()) {
    all += s.share();
    cycles += s.cycles_per_request();
  }
  EXPECT_DOUBLE_EQ(all, 1);
  EXPECT_DOUBLE_EQ(cycles, f.total().cycles_per_request());
  const pb::StageShare& tcp = f.total().stages(1);
  EXPECT_EQ(tcp.name(), "tcp_input");
  EXPECT_DOUBLE_EQ(tcp.share(), 0.4);
  EXPECT_DOUBLE_EQ(tcp.cycles_per_request(), 6'000);
  EXPECT_DOUBLE_EQ(tcp.cycles_per_entry(), 3'000);
  EXPECT_DOUBLE_EQ(tcp.entries_per_request(), 2) << "8 entries a turn accounted, 10 turns busy for each, 40 requests";
}

TEST(TopRates, WithoutAccountedTurnsThereAreNoStages) {
  pb::TopSample a = sample(10 * kSecond, 1'000), b = sample(11 * kSecond, 2'000);
  for (int w = 0; w < 2; ++w) {
    *b.mutable_workers(w)->mutable_stages() = a.workers(w).stages();
    b.mutable_workers(w)->set_accounted_turns(a.workers(w).accounted_turns());
  }
  EXPECT_EQ(make_frame(a, b).total().stages_size(), 0);
}

TEST(TopRates, WhatCannotBeComparedSaysWhy) {
  const pb::TopSample a = sample(10 * kSecond, 1'000);
  struct Case {
    const char* what;
    pb::TopSample before, now;
    const char* note;
    bool connected;
  };
  pb::TopSample gone;
  gone.set_dataplane_state("waiting for the data plane");
  const Case cases[] = {
      {"nothing before", pb::TopSample(), a, "counting has begun", true},
      {"no data plane", a, gone, "no data plane: waiting for the data plane", false},
      {"it came back", gone, a, "counting has begun", true},
      {"a new data plane whose counters are smaller", a, sample(11 * kSecond, 1, 2, 8),
       "the data plane was started anew; counting has begun again", true},
      {"a new data plane whose counters are larger", a, sample(11 * kSecond, 5'000, 2, 8),
       "the data plane was started anew; counting has begun again", true},
      {"a new data plane with more workers", a, sample(11 * kSecond, 5, 4, 8),
       "the data plane was started anew; counting has begun again", true},
      {"more workers", a, sample(11 * kSecond, 5'000, 3), "the number of workers changed; counting has begun again", true},
      {"fewer workers", a, sample(11 * kSecond, 5'000, 1), "the number of workers changed; counting has begun again", true},
      {"no time", a, a, "no time has passed", true},
      {"time went back", a, sample(9 * kSecond, 2'000), "no time has passed", true},
  };
  for (const Case& c : cases) {
    const pb::TopFrame f = make_frame(c.before, c.now);
    EXPECT_EQ(f.note(), c.note) << c.what;
    EXPECT_EQ(f.connected(), c.connected) << c.what;
    EXPECT_EQ(f.seconds(), 0) << c.what;
    EXPECT_EQ(f.total().requests(), 0) << c.what;
    EXPECT_EQ(f.workers_size(), c.now.workers_size()) << c.what;
    const auto workers = static_cast<uint32_t>(c.now.workers_size());
    EXPECT_EQ(f.total().connections(), 12 * workers) << c.what << ": gauges need no past";
  }
}

TEST(TopRates, CountersThatWrapAndCountersThatGoBack) {
  pb::TopSample a = sample(10 * kSecond, 1'000, 1), b = sample(11 * kSecond, 1'000, 1);
  a.mutable_workers(0)->set_busy_cycles(UINT64_MAX - 99);
  b.mutable_workers(0)->set_busy_cycles(900);
  b.mutable_workers(0)->set_idle_cycles(a.workers(0).idle_cycles() + 3'000);
  b.mutable_workers(0)->set_requests(a.workers(0).requests() - 1);
  a.mutable_workers(0)->mutable_stages(1)->set_cycles(UINT64_MAX);
  b.mutable_workers(0)->mutable_stages(1)->set_cycles(9);
  const pb::TopFrame f = make_frame(a, b);
  EXPECT_DOUBLE_EQ(f.total().load(), 0.25) << "1000 busy, 3000 idle";
  EXPECT_EQ(f.total().requests(), 0);
  EXPECT_EQ(f.total().cycles_per_request(), 0);
  ASSERT_EQ(f.total().stages_size(), 5);
  EXPECT_DOUBLE_EQ(f.total().stages(1).share(), 1);
}

TEST(TopRates, AnIdleGatewayHasNoQuotients) {
  pb::TopSample a = sample(10 * kSecond, 1'000, 1), b = a;
  b.set_taken_ns(11 * kSecond);
  b.mutable_workers(0)->set_idle_cycles(a.workers(0).idle_cycles() + 1'000'000);
  const pb::WorkerRates w = make_frame(a, b).workers(0);
  EXPECT_EQ(w.load(), 0);
  EXPECT_EQ(w.cycles_per_request(), 0);
  EXPECT_EQ(w.cycles_per_packet(), 0);
  EXPECT_EQ(w.burst(), 0);
}

TEST(TopRates, DropsPerSecondWorstFirst) {
  pb::TopSample a = sample(10 * kSecond, 1'000), b = sample(12 * kSecond, 2'000);
  drop(&a, "old", "error", 5);
  drop(&a, "tcp_no_connection", "info", 100);
  drop(&b, "old", "error", 5);
  drop(&b, "tcp_no_connection", "info", 1'100);
  drop(&b, "tx_queue_full", "warning", 4);
  drop(&b, "rx_no_mbuf", "warning", 40);
  drop(&b, "bug", "error", 1);
  const pb::TopFrame f = make_frame(a, b);
  std::string told;
  for (const pb::ReasonRate& r : f.drops()) told += r.name() + " " + rate(r.rate()) + "; ";
  EXPECT_EQ(told, "bug 0.50; rx_no_mbuf 20.0; tx_queue_full 2.00; tcp_no_connection 500; ");
}

TEST(TopRates, ChosenWorkersOnly) {
  pb::TopSample s = sample(kSecond, 1, 4);
  uint32_t missing = 0;
  ASSERT_TRUE(select_workers({1, 3}, &s, &missing));
  ASSERT_EQ(s.workers_size(), 2);
  EXPECT_EQ(s.workers(0).worker(), 1u);
  EXPECT_EQ(s.workers(1).worker(), 3u);
  EXPECT_FALSE(select_workers({1, 2}, &s, &missing));
  EXPECT_EQ(missing, 2u);
  pb::TopSample none;
  EXPECT_TRUE(select_workers({9}, &none, &missing)) << "no data plane is not a missing worker";
}

TEST(TopRates, ListsOfWorkers) {
  struct Case {
    const char* text;
    std::vector<uint32_t> workers;  // empty: no list
  };
  for (const Case& c : std::vector<Case>{{"0", {0}},
                                         {"0,2-4", {0, 2, 3, 4}},
                                         {"3,1,1-2", {1, 2, 3}},
                                         {"1023", {1023}},
                                         {"", {}},
                                         {"1,", {}},
                                         {",1", {}},
                                         {"4-2", {}},
                                         {"a", {}},
                                         {"1-", {}},
                                         {"-1", {}},
                                         {"1024", {}},
                                         {"0-99999999", {}},
                                         {"99999999999999999999", {}},
                                         {"1 2", {}}}) {
    std::vector<uint32_t> got;
    EXPECT_EQ(parse_workers(c.text, &got), !c.workers.empty()) << c.text;
    if (c.workers.empty()) continue;
    EXPECT_EQ(got, c.workers) << c.text;
  }
}

// ---- what a person sees
// ---------------------------------------------------------------------------------------------------------

class Golden : public testing::Test {
 protected:
  void SetUp() override { set_color(false); }
  void TearDown() override { set_color(false); }
  static void expect_golden(const std::string& name, const std::string& text) {
    const std::filesystem::path file = std::filesystem::path(MILLRACE_SOURCE_ROOT) / "tests" / "golden" / name;
    if (std::getenv("MILLRACE_WRITE_GOLDEN") != nullptr) std::ofstream(file, std::ios::binary) << text;
    std::ifstream in(file, std::ios::binary);
    std::stringstream want;
    want << in.rdbuf();
    EXPECT_EQ(text, want.str()) << "differs from tests/golden/" << name;
  }
  static pb::TopFrame busy() {
    pb::TopSample a = sample(192 * kSecond, 1'000), b = sample(193 * kSecond, 2'000);
    b.mutable_workers(1)->set_idle_cycles(a.workers(1).idle_cycles());
    b.mutable_workers(1)->set_heartbeat_age_ms(2'500);
    drop(&b, "tcp_no_connection", "info", 1'100);
    drop(&b, "tx_queue_full", "warning", 4);
    pb::ResponseFlagCount& flag = *b.add_flags();
    flag.set_flag("UH");
    flag.set_count(250);
    flag.set_text("no healthy upstream");
    return make_frame(a, b);
  }
};

TEST_F(Golden, AsWideAsItLikes) { expect_golden("millctl_top.txt", render(busy(), {})); }

TEST_F(Golden, NarrowTerminalsLoseColumnsAndNeverBreakLines) {
  std::string all;
  for (const size_t width : {132u, 100u, 80u, 60u, 40u, 20u}) {
    ScreenOptions o;
    o.width = width;
    o.keys = true;
    o.clock = "10:12:31, every 1 s";
    const std::string text = render(busy(), o);
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(visible_width(line), width) << line;
    all += "==== " + std::to_string(width) + " columns\n" + text;
  }
  expect_golden("millctl_top_widths.txt", all);
}

TEST_F(Golden, OneWorkerStagesOffNothingDropped) {
  pb::TopSample a = sample(192 * kSecond, 1'000, 1), b = sample(193 * kSecond, 1'001, 1);
  for (pb::TopSample* s : {&a, &b}) {
    s->set_stage_period(0);
    s->mutable_workers(0)->clear_stages();
  }
  expect_golden("millctl_top_quiet.txt", render(make_frame(a, b), {}));
}

TEST_F(Golden, NoDataPlane) {
  pb::TopSample gone;
  gone.set_dataplane_state("waiting for the data plane");
  EXPECT_EQ(render(make_frame(pb::TopSample(), gone), {}), "millrace\nno data plane: waiting for the data plane\n");
}

TEST_F(Golden, AShortTerminalSaysThatThereIsMore) {
  for (size_t height = 1; height < 40; ++height) {
    ScreenOptions o;
    o.width = 100;
    o.height = height;
    const std::string text = render(busy(), o), whole = render(busy(), {.width = 100});
    const auto lines = [](const std::string& t) { return static_cast<size_t>(std::count(t.begin(), t.end(), '\n')); };
    EXPECT_EQ(lines(text), std::min(height, lines(whole)));
    EXPECT_EQ(text.find("a taller terminal") != std::string::npos, height < lines(whole)) << height;
  }
}

TEST_F(Golden, ColoursTakeNoRoom) {
  const std::string plain = render(busy(), {.width = 80});
  set_color(true);
  const std::string painted = render(busy(), {.width = 80});
  EXPECT_NE(plain, painted);
  std::string bare;
  for (size_t i = 0; i < painted.size(); ++i) {
    if (painted[i] == '\033') i = painted.find('m', i);
    else bare += painted[i];
  }
  EXPECT_EQ(bare, plain);
}

TEST(TopScreen, CutsAtCharactersAndEndsColours) {
  EXPECT_EQ(cut_line("plain", 10), "plain");
  EXPECT_EQ(cut_line("plain", 3), "pla");
  EXPECT_EQ(cut_line("µµµ", 2), "µµ");
  EXPECT_EQ(cut_line("a\033[31mred\033[0m", 2), "a\033[31mr\033[0m");
  EXPECT_EQ(cut_line("\033[31mr\033[0mest", 3), "\033[31mr\033[0mes");
  EXPECT_EQ(visible_width("a\033[31m█d\033[0m"), 3u);
}

TEST(TopScreen, Rates) {
  for (const auto& [v, text] : std::vector<std::pair<double, const char*>>{{0, "0"},
                                                                           {-1, "0"},
                                                                           {0.004, "0.00"},
                                                                           {0.5, "0.50"},
                                                                           {9.994, "9.99"},
                                                                           {9.996, "10.0"},
                                                                           {99.94, "99.9"},
                                                                           {99.96, "100"},
                                                                           {1'234'567.8, "1,234,568"}})
    EXPECT_EQ(rate(v), text) << v;
}

// ---- for programs
// -----------------------------------------------------------------------------------------------------------------

TEST(Structured, YamlSaysWhatJsonSays) {
  struct Case {
    const char *json, *yaml;
  };
  for (const Case& c : std::vector<Case>{
           {"{}", "{}\n"},
           {"[]", "[]\n"},
           {"{\"a\": 1, \"b\": \"1\", \"c\": true, \"d\": \"true\", \"e\": null, \"f\": 1.5e3}",
            "a: 1\nb: \"1\"\nc: true\nd: \"true\"\ne: null\nf: 1.5e3\n"},
           {"{\"list\": [{\"x\": 1, \"z\": []}, {\"x\": 2, \"z\": {}}], \"text\": \"two\\nlines: #3\"}",
            "list:\n- x: 1\n  z: []\n- x: 2\n  z: {}\ntext: \"two\\nlines: #3\"\n"},
           {"{\"y\": \"no\"}", "\"y\": \"no\"\n"},
           {"[\"a\", [1, 2]]", "- a\n-\n  - 1\n  - 2\n"},
           {"not json", "not json"},
       })
    EXPECT_EQ(yaml_of_json(c.json), c.yaml) << c.json;
}

TEST(Structured, ARepliesOwnDefaultsAreWritten) {
  pb::SetStagesReply r;
  r.set_connected(true);
  EXPECT_EQ(yaml_of_json(to_json(r, false)), "connected: true\nin_force: false\nperiod: 0\nreason: \"\"\n");
}

}  // namespace
}  // namespace millrace::cli
