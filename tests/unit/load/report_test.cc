// What a run says of itself: that errors cannot be overlooked, that figures are those of the measuring phase, that the JSON is
// the README's.
#include "perf/load/report.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

namespace millrace::load {
namespace {

Options options() {
  Options o;
  o.wires.push_back({.devargs = "net_memif0,role=client"});
  return o;
}

// Two seconds of 1,000,000 requests after a warm-up that must not count.
RunResult result() {
  RunResult r;
  r.start.now = 1'000'000'000;
  r.start.counters.responses = 77'777;
  r.start.counters.connected = 64;
  r.start.busy_measured_ns = 500;
  r.end = r.start;
  r.end.now = 3'000'000'000;
  r.end.counters.responses += 2'000'000;
  r.end.counters.response_bytes += 128'000'000;
  r.end.counters.connected += 10;
  r.end.counters.rx_frames += 4'000'000;
  r.end.counters.tx_frames += 4'000'002;
  r.end.counters.rx_bytes += 500'000'000;
  r.end.counters.tx_bytes += 250'000'000;
  r.end.counters.server_requests += 1'999'990;
  r.end.busy_measured_ns += 1'200'000'000;
  r.last = r.end;
  for (uint64_t i = 1; i <= 1000; ++i) r.latency.record(i * 1000);
  return r;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// The line of the table that begins with a name, blanks squeezed.
std::string line_of(const std::string& table, const std::string& name) {
  std::istringstream in(table);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string squeezed;
    for (std::string w; words >> w;) squeezed += (squeezed.empty() ? "" : " ") + w;
    if (squeezed.rfind(name, 0) == 0) return squeezed;
  }
  return "";
}

TEST(LoadReport, TableOfACleanRun) {
  const std::string t = result_table(options(), result());
  EXPECT_TRUE(has(t, "millrace-load: role both, closed loop, 64 connections, net_memif0,role=client")) << t;
  EXPECT_TRUE(has(t, "2.00 s measured, generator busy 60 %")) << t;
  EXPECT_EQ(line_of(t, "requests"), "requests 2,000,000 1,000,000");
  EXPECT_EQ(line_of(t, "connections"), "connections 10 5.0");
  EXPECT_EQ(line_of(t, "response bodies"), "response bodies 128,000,000 B 0.512 Gbit/s");
  EXPECT_EQ(line_of(t, "server requests"), "server requests 1,999,990 999,995");
  EXPECT_EQ(line_of(t, "frames received"), "frames received 4,000,000 2,000,000 2.000 Gbit/s");
  EXPECT_EQ(line_of(t, "frames sent"), "frames sent 4,000,002 2,000,001 1.000 Gbit/s");
  EXPECT_EQ(line_of(t, "500."), "500.5 µs 500.7 µs 899.1 µs 989.2 µs 997.4 µs 1.00 ms");
  EXPECT_TRUE(has(t, "clean: every answer's status, length and bytes were right"));
  EXPECT_FALSE(has(t, "ERRORS"));
  EXPECT_FALSE(has(t, "handshakes"));
  EXPECT_EQ(result_warnings(options(), result()), "");
}

TEST(LoadReport, EveryErrorCounterIsShouted) {
  for (const LoadCounterInfo& i : kLoadCounters) {
    RunResult r = result();
    r.last.counters.*i.member += 1'234;
    const uint64_t value = r.last.counters.*i.member;
    const std::string t = result_table(options(), r), w = result_warnings(options(), r), j = result_json(options(), r);
    const bool error = i.kind == CounterKind::kError;
    EXPECT_EQ(has(t, "NOT CLEAN"), error) << i.name;
    EXPECT_EQ(has(t, "    " + std::string(i.name) + " ") && has(t, i.text), i.kind != CounterKind::kTraffic) << i.name;
    EXPECT_EQ(has(w, std::string("A RUN WITH ERRORS (") + i.name + " 1,234)"), error) << i.name << ": " << w;
    EXPECT_EQ(has(j, "\"clean\": false"), error) << i.name;
    // Of traffic only what a soak asks for is a number of its own.
    const bool in_json = i.kind != CounterKind::kTraffic || std::string_view(i.name) == "woken";
    EXPECT_EQ(has(j, "\"" + std::string(i.name) + "\": " + std::to_string(value)), in_json) << i.name;
  }
}

TEST(LoadReport, WarningsOfRunsToBeDoubted) {
  RunResult r = result();
  r.end.busy_measured_ns = r.start.busy_measured_ns + 1'900'000'000;
  EXPECT_TRUE(has(result_warnings(options(), r), "busy for 95 % of the time: it may have been the limit"))
      << result_warnings(options(), r);

  Options open = options();
  open.rate = 1'200'000;
  EXPECT_TRUE(has(result_warnings(open, result()), "of 1,200,000 requests/s offered 1,000,000 were answered"))
      << result_warnings(open, result());
  open.rate = 1'000'000;
  EXPECT_EQ(result_warnings(open, result()), "");

  r = result();
  r.interrupted = true;
  EXPECT_TRUE(has(result_warnings(options(), r), "interrupted: measured for 2.0 s of 10.0"));
  r = result();
  r.latency.clear();
  EXPECT_TRUE(has(result_warnings(options(), r), "no request was answered"));
  RunResult failed;
  failed.failure = "10.63.0.2 does not answer ARP";
  EXPECT_EQ(result_warnings(options(), failed), "millrace-load: NOTHING WAS MEASURED: 10.63.0.2 does not answer ARP\n");
  EXPECT_TRUE(has(result_table(options(), failed), "NOTHING WAS MEASURED: 10.63.0.2 does not answer ARP"));
  EXPECT_FALSE(failed.clean());
}

TEST(LoadReport, RolesShowWhatTheyDo) {
  Options o = options();
  o.role = Role::kServers;
  std::string t = result_table(o, result());
  EXPECT_FALSE(has(t, "response bodies")) << t;
  EXPECT_FALSE(has(t, "latency")) << t;
  EXPECT_TRUE(has(t, "server requests")) << t;
  o.role = Role::kForward;
  t = result_table(o, result());
  EXPECT_TRUE(has(t, "frames sent back")) << t;
  EXPECT_FALSE(has(t, "server requests")) << t;
  o.role = Role::kClients;
  o.tls_clients = true;
  o.idle = 5;
  o.pipeline = 4;
  o.requests_per_connection = 8;
  o.rate = 500;
  t = result_table(o, result());
  EXPECT_TRUE(
      has(t, "open loop, 500 requests/s offered, 64 connections, 8 requests each, 4 in flight on each, 5 idle beside, TLS 1.3"))
      << t;
  EXPECT_TRUE(has(t, "handshakes, full") && has(t, "latency, from due") && has(t, "idle connections")) << t;
}

TEST(LoadReport, ProgressLine) {
  const RunResult r = result();
  Sample now = r.end;
  now.phase = Phase::kMeasuring;
  now.client_connections = 64;
  now.busy_ns = 1'000'000'000;
  EXPECT_EQ(progress_line(options(), r.start, r.start, now),
            "    2.0 s  measuring    1,000,000 requests/s         64 connections  rx 2.00 tx 1.00 Gbit/s  busy 50 %");
  now.counters.reset = 3;
  EXPECT_TRUE(has(progress_line(options(), r.start, r.start, now), "  ERRORS 3"));
  EXPECT_FALSE(progress_line(options(), now, now, now).empty());  // no time between: no division
}

TEST(LoadReport, JsonHasTheReadmesKeys) {
  RunResult r = result();
  r.notes = {"a \"quoted\" note\n"};
  const std::string j = result_json(options(), r);
  for (const char* want :
       {R"("version": 1, "clean": true)", R"("seconds": 2.000000)",
        R"("requests": 2000000, "requests_per_s": 1000000.000, "connections": 10, "connections_per_s": 5.000)",
        R"("handshakes_full_per_s": 0.000, "handshakes_resumed_per_s": 0.000, "response_gbit_per_s": 0.512000)",
        R"("frames_per_s": {"rx": 2000000.000, "tx": 2000001.000})", R"("latency_us": {"mean": 500.500, "p50": 500.735, "p90": )",
        R"("p999": )", R"("idle_connections": 0, "server_requests": 1999990)", R"("busy": 0.6000)",
        R"("notes": ["a \"quoted\" note\u000a"])"}) {
    EXPECT_TRUE(has(j, want)) << want << "\n" << j;
  }
  for (const char* key : {"status", "length", "body", "reset", "timeout", "retransmissions", "rx_lost", "tls", "unexpected"}) {
    EXPECT_TRUE(has(j.substr(j.find("\"errors\"")), "\"" + std::string(key) + "\": 0")) << key;
  }
  EXPECT_EQ(j.find('\n'), j.size() - 1);
  // A program other than us reads it.
  char name[] = "/tmp/millrace-report-XXXXXX";
  const int fd = mkstemp(name);
  ASSERT_GE(fd, 0);
  std::FILE* out = fdopen(fd, "w");
  std::fputs(j.c_str(), out);
  std::fclose(out);
  const std::string command = "python3 -m json.tool " + std::string(name) + " > /dev/null";
  EXPECT_EQ(std::system(command.c_str()), 0);
  std::remove(name);
}

TEST(LoadReport, NothingMeasuredIsStillJson) {
  RunResult r;
  r.failure = "no";
  const std::string j = result_json(options(), r);
  EXPECT_TRUE(has(j, R"("clean": false)") && has(j, R"("requests_per_s": 0.000)") && has(j, R"("failure": "no")")) << j;
  EXPECT_FALSE(has(j, ": nan") || has(j, ": inf") || has(j, ": -")) << j;
}

TEST(LoadReport, FilesAreWrittenOrItIsSaid) {
  Options o = options();
  o.quiet = true;
  char folder[] = "/tmp/millrace-report-XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  o.json_file = std::string(folder) + "/r.json";
  o.histogram_file = std::string(folder) + "/h.txt";
  EXPECT_TRUE(report(o, result()));
  std::stringstream text;
  text << std::ifstream(o.json_file).rdbuf();
  EXPECT_EQ(text.str(), result_json(o, result()));
  text.str("");
  text << std::ifstream(o.histogram_file).rdbuf();
  EXPECT_TRUE(has(text.str(), "Total count    =         1000"));
  Options full = o;
  full.json_file = "/dev/full";
  EXPECT_FALSE(report(full, result()));
  full = o;
  full.histogram_file = "/dev/full";
  EXPECT_FALSE(report(full, result()));
  std::remove(o.json_file.c_str());
  std::remove(o.histogram_file.c_str());
  std::remove(folder);
}

}  // namespace
}  // namespace millrace::load
