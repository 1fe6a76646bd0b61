// sim_tcp: the TCP simulator's program.
//   sim_tcp                          200 seeds from a fresh starting point, which is printed
//   sim_tcp --seed N                 one seed, with its scenario
//   sim_tcp --from N --count K       K seeds from N on
//   sim_tcp --golden FILE            measures the throughput table and compares it with FILE (15% tolerance)
//   sim_tcp --golden FILE --update   writes it
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <sstream>

#include "tests/sim/simulation.h"

using namespace millrace;
using namespace millrace::sim;

namespace {

constexpr double kTolerance = 0.15;

support::HeapPacketPool& pool() {
  static support::HeapPacketPool p(8'192, 9'216);
  return p;
}

bool run_seed(uint64_t seed, bool verbose) {
  Simulation simulation(random_scenario(seed), pool());
  const std::string failure = simulation.run();
  if (failure.empty()) {
    if (verbose) std::printf("seed %lu: right, %lu packets\n", seed, simulation.packets());
    return true;
  }
  std::printf("%sseed %lu FAILED %s\nreplay: sim_tcp --seed %lu\n", simulation.trace().c_str(), seed, failure.c_str(), seed);
  return false;
}

// --- the table of loss x buffer -> throughput: 100 Mbit/s, 20 ms round trip, a queue of 125 KB, ten seconds of bulk data one
// way.

double throughput_mbit(double loss, uint32_t buffer, tcp::CongestionAlgorithm algorithm, bool sack) {
  constexpr TimeNs kDuration = 20 * base::kSecond;
  Scenario s;
  s.seed = 1;
  for (Link& l : s.link) {
    l.delay = 10 * base::kMillisecond;
    l.bytes_per_second = 12'500'000;
    l.queue_bytes = 125'000;
  }
  s.link[0].loss = loss;
  ConnectionPlan c;
  c.client_port = 40'000;
  c.client.send_bytes = UINT64_MAX / 2;
  c.client.write_size = 65'536;
  c.client_config.snd_buf = c.server_config.rcv_buf = c.client_config.rcv_buf = buffer;
  c.server_config.rcv_wnd_initial = std::min(buffer, 65'536u);
  c.client_config.congestion = algorithm;
  c.client_config.sack = sack;
  s.connections.push_back(c);
  Simulation simulation(s, pool());
  const std::string failure = simulation.run_until(kDuration);
  if (!failure.empty()) {
    std::printf("%s%s\n", simulation.trace().c_str(), failure.c_str());
    std::exit(1);
  }
  return static_cast<double>(simulation.outcome(0, 1).received) * 8e-6 / (static_cast<double>(kDuration) * 1e-9);
}

std::string measure_table() {
  std::ostringstream out;
  out << "# Bulk throughput in Mbit/s of virtual time: 100 Mbit/s link, 20 ms round trip, 125 KB queue, 20 s, loss one way.\n"
         "# Written by: sim_tcp --golden FILE --update. Compared with a tolerance of 15% (and 0.05 Mbit/s).\n"
         "# algorithm  recovery  loss_percent  16KB  64KB  256KB  1024KB\n";
  for (const auto algorithm : {tcp::CongestionAlgorithm::kCubic, tcp::CongestionAlgorithm::kReno}) {
    for (const bool sack : {true, false}) {
      for (const double loss : {0.0, 0.0001, 0.001, 0.01, 0.03, 0.1}) {
        char line[160];
        int at =
            std::snprintf(line, sizeof line, "%-6s %-8s %6.2f", algorithm == tcp::CongestionAlgorithm::kCubic ? "cubic" : "reno",
                          sack ? "sack" : "newreno", loss * 100);
        for (const uint32_t kb : {16u, 64u, 256u, 1024u})
          at += std::snprintf(line + at, sizeof line - static_cast<size_t>(at), " %8.2f",
                              throughput_mbit(loss, kb * 1024, algorithm, sack));
        out << line << '\n';
      }
    }
  }
  return out.str();
}

bool compare_tables(const std::string& golden, const std::string& measured) {
  std::istringstream a(golden), b(measured);
  std::string la, lb;
  bool same = true;
  for (;;) {
    const bool more_a = static_cast<bool>(std::getline(a, la)), more_b = static_cast<bool>(std::getline(b, lb));
    if (!more_a || !more_b) return same && more_a == more_b;
    if (la.starts_with('#') && lb.starts_with('#')) continue;
    std::istringstream wa(la), wb(lb);
    std::string algorithm_a, recovery_a, algorithm_b, recovery_b;
    wa >> algorithm_a >> recovery_a;
    wb >> algorithm_b >> recovery_b;
    bool line_same = algorithm_a == algorithm_b && recovery_a == recovery_b;
    double va, vb;
    while (wa >> va) {
      if (!(wb >> vb) || std::abs(va - vb) > std::max(kTolerance * std::abs(va), 0.05)) line_same = false;
    }
    if (!line_same) {
      std::printf("golden:   %s\nmeasured: %s\n", la.c_str(), lb.c_str());
      same = false;
    }
  }
}

int golden(const char* path, bool update) {
  const std::string measured = measure_table();
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
  if (compare_tables(text.str(), measured)) return 0;
  std::printf("throughput differs from %s; if that is meant, run: sim_tcp --golden %s --update\n", path, path);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t from = static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()) % 1'000'000'000, count = 200;
  const char* golden_path = nullptr;
  bool update = false, one = false;
  for (int i = 1; i < argc; ++i) {
    const auto value = [&] { return i + 1 < argc ? argv[++i] : ""; };
    if (std::strcmp(argv[i], "--seed") == 0) {
      from = std::strtoull(value(), nullptr, 10);
      count = 1;
      one = true;
    } else if (std::strcmp(argv[i], "--from") == 0) {
      from = std::strtoull(value(), nullptr, 10);
    } else if (std::strcmp(argv[i], "--count") == 0) {
      count = std::strtoull(value(), nullptr, 10);
    } else if (std::strcmp(argv[i], "--golden") == 0) {
      golden_path = value();
    } else if (std::strcmp(argv[i], "--update") == 0) {
      update = true;
    } else {
      std::fprintf(stderr, "sim_tcp: unknown argument %s\n", argv[i]);
      return 2;
    }
  }
  if (golden_path != nullptr) return golden(golden_path, update);
  std::printf("seeds %lu to %lu\n", from, from + count - 1);
  std::fflush(stdout);
  for (uint64_t seed = from; seed < from + count; ++seed)
    if (!run_seed(seed, one)) return 1;
  std::printf("%lu seeds, all right\n", count);
  return 0;
}
