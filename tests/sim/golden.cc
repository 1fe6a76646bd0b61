#include "tests/sim/golden.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>

#include "tests/sim/simulation.h"

namespace millrace::sim {
namespace {

constexpr double kTolerance = 0.15;
constexpr uint64_t kRate = 12'500'000;        // bytes/s of the link
constexpr uint32_t kQueue = 125'000;          // bytes
constexpr uint32_t kAmple = 4 * 1024 * 1024;  // buffers that hold nobody back

struct Controller {
  const char* name;
  tcp::CongestionAlgorithm algorithm;
};
constexpr Controller kControllers[] = {{"cubic", tcp::CongestionAlgorithm::kCubic},
                                       {"reno", tcp::CongestionAlgorithm::kReno},
                                       {"bbr", tcp::CongestionAlgorithm::kBbr}};

struct Cell {
  double loss = 0;
  TimeNs round_trip = 20 * base::kMillisecond;
  uint32_t buffer = kAmple;
  tcp::CongestionAlgorithm algorithm = tcp::CongestionAlgorithm::kCubic;
  bool sack = true;
};

// Bulk data one way for twenty seconds of virtual time.
double throughput_mbit(const Cell& cell) {
  constexpr TimeNs kDuration = 20 * base::kSecond;
  static support::HeapPacketPool client(8'192, 2'048), server(8'192, 2'048);
  Scenario s;
  s.seed = 1;
  for (Link& l : s.link) {
    l.delay = cell.round_trip / 2;
    l.bytes_per_second = kRate;
    l.queue_bytes = kQueue;
  }
  s.link[0].loss = cell.loss;
  ConnectionPlan c;
  c.client_port = 40'000;
  c.client.send_bytes = UINT64_MAX / 2;
  c.client.write_size = 65'536;
  c.client_config.snd_buf = c.server_config.rcv_buf = c.client_config.rcv_buf = cell.buffer;
  c.server_config.rcv_wnd_initial = std::min(cell.buffer, 65'536u);
  c.client_config.congestion = cell.algorithm;
  c.client_config.sack = cell.sack;
  s.connections.push_back(c);
  Simulation simulation(s, {&client, &server});
  const std::string failure = simulation.run_until(kDuration);
  if (!failure.empty()) {
    std::printf("%s%s\n", simulation.trace().c_str(), failure.c_str());
    std::exit(1);
  }
  return static_cast<double>(simulation.outcome(0, 1).received) * 8e-6 / (static_cast<double>(kDuration) * 1e-9);
}

void put(std::ostream& out, const char* format, auto... values) {
  char text[160];
  std::snprintf(text, sizeof text, format, values...);
  out << text;
}

std::string measure() {
  std::ostringstream out;
  out << "# Bulk throughput in Mbit/s of virtual time: 100 Mbit/s link, 125 KB queue, 20 s, loss one way.\n"
         "# Written by: sim_tcp --golden FILE --update. Compared with a tolerance of 15% (and 0.05 Mbit/s).\n"
         "# Loss and buffer, 20 ms round trip\n"
         "# algorithm  recovery  loss_percent  16KB  64KB  256KB  1024KB\n";
  for (const Controller& c : kControllers) {
    for (const bool sack : {true, false}) {
      for (const double loss : {0.0, 0.0001, 0.001, 0.01, 0.03, 0.1}) {
        put(out, "%-6s %-8s %6.2f", c.name, sack ? "sack" : "newreno", loss * 100);
        for (const uint32_t kb : {16u, 64u, 256u, 1024u})
          put(out, " %8.2f", throughput_mbit({.loss = loss, .buffer = kb * 1024, .algorithm = c.algorithm, .sack = sack}));
        out << '\n';
      }
    }
  }
  out << "# Loss and delay (round trip), 4 MB buffers, SACK\n"
         "# algorithm  loss_percent  2ms  20ms  100ms  300ms\n";
  for (const Controller& c : kControllers) {
    for (const double loss : {0.0, 0.0001, 0.001, 0.01, 0.03, 0.1}) {
      put(out, "%-6s %6.2f", c.name, loss * 100);
      for (const uint32_t ms : {2u, 20u, 100u, 300u})
        put(out, " %8.2f", throughput_mbit({.loss = loss, .round_trip = ms * base::kMillisecond, .algorithm = c.algorithm}));
      out << '\n';
    }
  }
  return out.str();
}

bool same_word(const std::string& a, const std::string& b) {
  char *end_a, *end_b;
  const double va = std::strtod(a.c_str(), &end_a), vb = std::strtod(b.c_str(), &end_b);
  if (end_a == a.c_str() || end_b == b.c_str()) return a == b;
  return std::abs(va - vb) <= std::max(kTolerance * std::abs(va), 0.05);
}

bool same_line(const std::string& a, const std::string& b) {
  std::istringstream in_a(a), in_b(b);
  std::string word_a, word_b;
  for (;;) {
    const bool more_a = static_cast<bool>(in_a >> word_a), more_b = static_cast<bool>(in_b >> word_b);
    if (!more_a || !more_b) return more_a == more_b;
    if (!same_word(word_a, word_b)) return false;
  }
}

bool compare(const std::string& golden, const std::string& measured) {
  std::istringstream a(golden), b(measured);
  std::string line_a, line_b;
  bool same = true;
  for (;;) {
    const bool more_a = static_cast<bool>(std::getline(a, line_a)), more_b = static_cast<bool>(std::getline(b, line_b));
    if (!more_a || !more_b) return same && more_a == more_b;
    if (line_a.starts_with('#') && line_b.starts_with('#')) continue;
    if (same_line(line_a, line_b)) continue;
    std::printf("golden:   %s\nmeasured: %s\n", line_a.c_str(), line_b.c_str());
    same = false;
  }
}

}  // namespace

int golden(const char* path, bool update) {
  const std::string measured = measure();
  if (update) {
    std::ofstream(path) << measured;
    std::cout << measured;
    return 0;
  }
  std::ifstream file(path);
  if (!file) {
    std::printf("no golden table at %s: write it with --update\n", path);
    return 1;
  }
  std::stringstream text;
  text << file.rdbuf();
  if (compare(text.str(), measured)) return 0;
  std::printf("throughput differs from %s; if that is meant, run: sim_tcp --golden %s --update\n", path, path);
  return 1;
}

}  // namespace millrace::sim
