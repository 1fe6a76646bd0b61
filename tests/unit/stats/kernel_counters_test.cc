// Linux's names for a worker's counters: each once, each with its sentence, each of the right words.
#include "lib/stats/kernel_counters.h"

#include <memory>
#include <set>
#include <string>

#include <gtest/gtest.h>

namespace millrace::stats {
namespace {

uint64_t value(const WorkerBlock& b, std::string_view name) {
  for (const KernelCounter& k : kernel_counters())
    if (name == k.name) return k.of(b);
  ADD_FAILURE() << name;
  return 0;
}

TEST(KernelCounters, NamesAreLinuxsAndUnique) {
  std::set<std::string> seen;
  for (const KernelCounter& k : kernel_counters()) {
    EXPECT_TRUE(seen.insert(k.name).second) << k.name;
    const std::string name = k.name;
    EXPECT_TRUE(name.starts_with("Ip") || name.starts_with("Icmp") || name.starts_with("Tcp") || name.starts_with("Udp")) << name;
    EXPECT_GT(std::string(k.text).size(), 10u) << name;
  }
  for (const char* must : {"TcpActiveOpens", "TcpPassiveOpens", "TcpAttemptFails", "TcpEstabResets", "TcpCurrEstab", "TcpInSegs",
                           "TcpOutSegs", "TcpRetransSegs", "TcpInErrs", "TcpOutRsts", "TcpInCsumErrors"})
    EXPECT_TRUE(seen.contains(must)) << must << " (RFC 4022)";
}

TEST(KernelCounters, AreMadeOfTheRightWords) {
  const auto memory = std::make_unique<WorkerBlock>();
  WorkerBlock& b = *memory;
  b.tcp[TcpCounter::kSegmentsIn].add(100);
  b.tcp[TcpCounter::kSegmentsOther].add(10);
  b.drop(DropReason::kTcpBadChecksum, 3);
  b.tcp[TcpCounter::kSegmentsOut].add(50);
  b.tcp[TcpCounter::kRetransmits].add(5);
  b.tcp[TcpCounter::kEstablished].add(4);
  b.tcp[TcpCounter::kEstablished].sub(6);  // as a worker's share of a gauge may be
  b.ports[1][PortCounter::kTxPackets].add(7);
  EXPECT_EQ(value(b, "TcpInSegs"), 113u);
  EXPECT_EQ(value(b, "TcpInErrs"), 3u);
  EXPECT_EQ(value(b, "TcpInCsumErrors"), 3u);
  EXPECT_EQ(value(b, "TcpOutSegs"), 45u);
  EXPECT_EQ(value(b, "TcpRetransSegs"), 5u);
  EXPECT_EQ(value(b, "TcpCurrEstab") + 2, 0u);
  EXPECT_EQ(value(b, "IpOutRequests"), 7u);
}

}  // namespace
}  // namespace millrace::stats
