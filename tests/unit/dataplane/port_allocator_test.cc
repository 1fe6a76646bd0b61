// Local ports: each once at a time, of the worker that asks, whatever the key of the NIC.
#include "dataplane/port_allocator.h"

#include <set>

#include <gtest/gtest.h>

#include "lib/base/prng.h"

namespace millrace::dataplane {
namespace {

base::IpAddress ip(const char* text) { return *base::IpAddress::parse(text); }

constexpr uint16_t kFirst = 16'384, kLast = 65'535, kPort = 8080;

TEST(PortAllocator, EachPortOnceUntilTheRangeIsSpent) {
  const io::Steering steering(1, 7);
  PortAllocator ports(1000, 1999, 2, 5);
  std::set<uint16_t> given;
  for (int i = 0; i < 1000; ++i) {
    const uint16_t port = ports.allocate(steering, 0, 0, ip("10.0.0.1"), ip("10.0.0.2"), kPort);
    ASSERT_TRUE(port >= 1000 && port <= 1999 && given.insert(port).second) << port;
  }
  EXPECT_EQ(ports.allocate(steering, 0, 0, ip("10.0.0.1"), ip("10.0.0.2"), kPort), 0);
  EXPECT_NE(ports.allocate(steering, 0, 0, ip("10.0.0.1"), ip("10.0.0.3"), kPort), 0) << "another endpoint has its own";
  EXPECT_EQ(ports.allocate(steering, 0, 0, ip("10.0.0.1"), ip("10.0.0.4"), kPort), 0) << "no map left";
  ports.release(ip("10.0.0.1"), ip("10.0.0.2"), kPort, 1234);
  EXPECT_EQ(ports.allocate(steering, 0, 0, ip("10.0.0.1"), ip("10.0.0.2"), kPort), 1234);
}

// A key with zeros under the low `blind` bits of the local port, where they meet the lowest bit of the hash: 2^blind neighbours
// lead to the same of two queues. One random key in 2^blind is so.
io::Steering blind(uint32_t workers, uint32_t blind, uint64_t seed) {
  io::RssTable rss;
  base::Prng random(seed);
  for (uint8_t& b : rss.key) b = static_cast<uint8_t>(random());
  for (const uint32_t last : {11u * 8 + 7, 35u * 8 + 7})
    for (uint32_t i = 0; i < blind; ++i) rss.key[(last - i + 31) / 8] &= static_cast<uint8_t>(~(0x80 >> (last - i + 31) % 8));
  for (uint16_t i = 0; i < 128; ++i) rss.reta.push_back(static_cast<uint16_t>(i % workers));
  io::Steering s(workers, 3);
  s.set_hardware(0, rss);
  return s;
}

TEST(PortAllocator, FindsAPortOfTheWorkerUnderAnyKey) {
  uint32_t found = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    for (const uint32_t workers : {2u, 4u}) {
      const io::Steering steering = blind(workers, 7, seed);
      for (const bool v6 : {false, true}) {
        const base::IpAddress local = ip(v6 ? "fd77:1::1" : "10.77.1.1"), remote = ip(v6 ? "fd77:1::2" : "10.77.1.2");
        for (uint32_t worker = 0; worker < workers; ++worker) {
          const io::Steering::PortChoice choice(steering, 0, local, remote, kPort);
          uint32_t owned = 0;
          for (uint32_t port = kFirst; port <= kLast; ++port) owned += choice.owner(static_cast<uint16_t>(port)) == worker;
          if (owned == 0) continue;  // such a key is not drawn: io::reaches_all_queues()
          ++found;
          PortAllocator ports(kFirst, kLast, 4, seed);
          for (int i = 0; i < 300; ++i) {
            const uint16_t port = ports.allocate(steering, worker, 0, local, remote, kPort);
            ASSERT_NE(port, 0) << "key " << seed << ", worker " << worker << " of " << workers << ", connection " << i;
            ASSERT_EQ(steering.owner(0, local, port, remote, kPort), worker);
          }
        }
      }
    }
  }
  EXPECT_GE(found, 2'300) << "of 2,400";
}

}  // namespace
}  // namespace millrace::dataplane
