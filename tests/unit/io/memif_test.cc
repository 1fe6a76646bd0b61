// net_memif between two processes, each with an EAL of its own on ordinary pages: frames of every size there and back, as they
// were.
#include <chrono>
#include <cstdio>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>

#include "lib/bootstrap/dataplane_section.h"
#include "lib/io/eal.h"
#include "lib/io/packet_pool.h"
#include "lib/io/port.h"

namespace millrace::io {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kFrames = 2000;
constexpr uint32_t kSmallest = 60, kLargest = 1518;

uint32_t size_of(int i) { return kSmallest + static_cast<uint32_t>(i) * 37 % (kLargest - kSmallest + 1); }
uint8_t byte_of(int i, uint32_t at) { return static_cast<uint8_t>(i * 31 + static_cast<int>(at) * 7); }

// One side: EAL, a pool, the port. Exits the process with a number that says what failed.
struct Side {
  base::Result<PacketPool> pool{base::Error{"not made yet"}};
  std::unique_ptr<Port> port;

  int open(const std::string& socket, const char* role) {
    EalOptions eal;
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    eal.main_core = 0;
    eal.worker_cores = {cores > 1 ? 1u : 0u};
    eal.hugepages = false;
    eal.memory_mb = 64;
    eal.file_prefix = std::string("memif-test-") + role + std::to_string(getpid());
    if (const base::Status s = init_eal(eal); !s) {
      std::fprintf(stderr, "%s\n", s.error().c_str());
      return 77;  // the machine does not let us
    }
    pool = make_eal_pool("test", 8192, kPayloadRoom, 0);
    if (!pool) return 2;
    PortOptions o;
    o.name = role;
    std::string why;
    o.devargs = *bootstrap::expand_device("memif:" + socket + ",role=" + role, 0, 1500, 1, &why);
    auto p = Port::open(o, {&pool.value(), 1});
    if (!p) {
      std::fprintf(stderr, "%s\n", p.error().c_str());
      return 3;
    }
    port = std::move(*p);
    const auto limit = Clock::now() + std::chrono::seconds(20);
    while (!port->link_up()) {
      if (Clock::now() > limit) return 4;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return 0;
  }
};

// Sends everything back as it came, until it has seen all frames.
int echo(const std::string& socket) {
  Side s;
  if (const int r = s.open(socket, "server"); r != 0) return r;
  const auto limit = Clock::now() + std::chrono::seconds(30);
  for (int seen = 0; seen < kFrames;) {
    rte_mbuf* frames[kRxBurst];
    const uint16_t n = s.port->queue(0).rx_burst(frames, kRxBurst);
    seen += n;
    for (uint16_t sent = 0; sent < n && Clock::now() < limit;)
      sent = static_cast<uint16_t>(sent + s.port->queue(0).tx_burst(frames + sent, static_cast<uint16_t>(n - sent)));
    if (Clock::now() > limit) return 5;
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  s.port.reset();
  return rte_mempool_in_use_count(s.pool->raw()) == 0 ? 0 : 6;
}

int ask(const std::string& socket) {
  // A client's port does not start before its server listens.
  for (const auto limit = Clock::now() + std::chrono::seconds(20); access(socket.c_str(), F_OK) != 0 && Clock::now() < limit;)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  Side s;
  if (const int r = s.open(socket, "client"); r != 0) return r;
  const auto limit = Clock::now() + std::chrono::seconds(30);
  int sent = 0, got = 0, wrong = 0;
  while (got < kFrames && Clock::now() < limit) {
    if (sent < kFrames && sent - got < 256) {
      PacketPtr p = s.pool->alloc();
      if (!p) return 7;
      const uint32_t size = size_of(sent);
      uint8_t* at = p.append(size);
      for (uint32_t i = 0; i < size; ++i) at[i] = byte_of(sent, i);
      rte_mbuf* m = p.release();
      if (s.port->queue(0).tx_burst(&m, 1) == 1) ++sent;
      else rte_pktmbuf_free(m);
    }
    rte_mbuf* frames[kRxBurst];
    const uint16_t n = s.port->queue(0).rx_burst(frames, kRxBurst);
    for (uint16_t k = 0; k < n; ++k, ++got) {
      PacketPtr p(frames[k]);
      wrong += p.size() != size_of(got);
      for (uint32_t i = 0; i < p.size(); ++i) wrong += p.data()[i] != byte_of(got, i);
    }
  }
  if (got != kFrames) return 8;
  if (wrong != 0) return 9;
  std::fputs(capability_table({&s.port, 1}).c_str(), stderr);
  s.port.reset();
  return rte_mempool_in_use_count(s.pool->raw()) == 0 ? 0 : 6;
}

TEST(Memif, FramesBetweenTwoProcesses) {
  const std::string socket = "/tmp/millrace-memif-test-" + std::to_string(getpid()) + ".sock";
  pid_t children[2];
  for (int side = 0; side < 2; ++side) {
    children[side] = fork();
    ASSERT_GE(children[side], 0);
    if (children[side] == 0) _exit(side == 0 ? echo(socket) : ask(socket));
  }
  for (int side = 0; side < 2; ++side) {
    int status = 0;
    ASSERT_EQ(waitpid(children[side], &status, 0), children[side]);
    ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
    if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "DPDK does not start here";
    EXPECT_EQ(WEXITSTATUS(status), 0) << (side == 0 ? "server" : "client");
  }
  unlink(socket.c_str());
}

}  // namespace
}  // namespace millrace::io
