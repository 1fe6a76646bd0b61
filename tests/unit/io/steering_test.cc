// Steering and hand-over: the RSS hash against Microsoft's published vectors, port choice, rings.
#include "lib/io/steering.h"

#include <set>

#include <gtest/gtest.h>

#include "tests/support/heap_packet_pool.h"

namespace millrace::io {
namespace {

base::IpAddress ip(const char* text) { return *base::IpAddress::parse(text); }

// "Verifying the RSS Hash Calculation": the key and tuples of Microsoft's driver documentation.
constexpr std::array<uint8_t, 52> kKey = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
                                          0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
                                          0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};

struct Vector {
  const char *remote, *local;
  uint16_t remote_port, local_port;
  uint32_t hash;
};
constexpr Vector kVectors[] = {
    {"66.9.149.187", "161.142.100.80", 2794, 1766, 0x51ccc178},
    {"199.92.111.2", "65.69.140.83", 14230, 4739, 0xc626b0ea},
    {"24.19.198.95", "12.22.207.184", 12898, 38024, 0x5c2b394a},
    {"38.27.205.30", "209.142.163.6", 48228, 2217, 0xafc7327f},
    {"153.39.163.191", "202.188.127.2", 44251, 1303, 0x10e828a2},
    {"3ffe:2501:200:1fff::7", "3ffe:2501:200:3::1", 2794, 1766, 0x40207d3d},
    {"3ffe:501:8::260:97ff:fe40:efab", "ff02::1", 14230, 4739, 0xdde51bbf},
    {"3ffe:1900:4545:3:200:f8ff:fe21:67cf", "fe80::200:f8ff:fe21:67cf", 44251, 38024, 0x02d1feef},
};

TEST(Toeplitz, PublishedVectors) {
  RssTable rss;
  rss.key = kKey;
  for (uint16_t i = 0; i < 128; ++i) rss.reta.push_back(i % 7);
  Steering s(7, 1);
  s.set_hardware(3, rss);
  for (const Vector& v : kVectors) {
    const uint32_t expected = rss.reta[v.hash & 127];
    EXPECT_EQ(s.owner(3, ip(v.local), v.local_port, ip(v.remote), v.remote_port), expected) << v.remote;
    // The short way, with the hash of all but the port done once.
    const base::IpAddress local = ip(v.local), remote = ip(v.remote);
    const Steering::PortChoice choice(s, 3, local, remote, v.remote_port);
    EXPECT_EQ(choice.owner(v.local_port), expected) << v.remote;
  }
  uint8_t input[12] = {66, 9, 149, 187, 161, 142, 100, 80, 2794 >> 8, 2794 & 255, 1766 >> 8, 1766 & 255};
  EXPECT_EQ(toeplitz(kKey.data(), input, 12), 0x51ccc178u);
}

RssTable table(const std::array<uint8_t, 52>& key, uint16_t entries, uint16_t queues) {
  RssTable rss;
  rss.key = key;
  for (uint16_t i = 0; i < entries; ++i) rss.reta.push_back(i % queues);
  return rss;
}

// `key` with zeros where the low 7 bits of the local port (byte `at`, 1 to 7) meet the lowest bit of the hash.
std::array<uint8_t, 52> blind_key(uint32_t at) {
  std::array<uint8_t, 52> key = kKey;
  for (uint32_t bit = at * 8 + 1 + 31; bit <= at * 8 + 7 + 31; ++bit) key[bit / 8] &= static_cast<uint8_t>(~(0x80 >> bit % 8));
  return key;
}

TEST(Toeplitz, WhetherLowBitsOfThePortReachAllQueues) {
  EXPECT_TRUE(reaches_all_queues(table(kKey, 128, 2), 2));
  EXPECT_TRUE(reaches_all_queues(table(kKey, 128, 4), 4));
  EXPECT_TRUE(reaches_all_queues(table(kKey, 128, 7), 7));
  std::array<uint8_t, 52> no_v4 = blind_key(11), no_v6 = blind_key(35);
  no_v4[(11 * 8 + 31) / 8] &= static_cast<uint8_t>(~(0x80 >> (11 * 8 + 31) % 8));  // the eighth bit too
  no_v6[(35 * 8 + 31) / 8] &= static_cast<uint8_t>(~(0x80 >> (35 * 8 + 31) % 8));
  EXPECT_FALSE(reaches_all_queues(table(no_v4, 128, 2), 2));
  EXPECT_FALSE(reaches_all_queues(table(no_v6, 128, 2), 2));
  EXPECT_FALSE(reaches_all_queues(table(kKey, 512, 512), 512)) << "256 ports cannot";
}

TEST(Software, SpreadsEvenlyAndSaysTheSameEitherWay) {
  for (const uint32_t workers : {1u, 2u, 3u, 8u}) {
    const Steering s(workers, 42);
    std::vector<int> count(workers);
    for (uint32_t i = 0; i < 8000; ++i) {
      const auto remote = base::IpAddress::v4(0xc0000200 + i / 100);
      const uint16_t port = static_cast<uint16_t>(1024 + i % 100 * 13);
      const uint32_t w = s.owner(0, ip("10.0.0.1"), 80, remote, port);
      ASSERT_LT(w, workers);
      EXPECT_EQ(w, s.owner(0, remote, port, ip("10.0.0.1"), 80));
      ++count[w];
    }
    for (const int n : count) EXPECT_NEAR(n, 8000.0 / workers, 8000.0 / workers * 0.15);
  }
}

TEST(Mesh, FifoPerPairAndBounded) {
  support::HeapPacketPool pool(HandoverMesh::kRingSize + 8);
  HandoverMesh mesh(3);
  std::vector<rte_mbuf*> frames;
  while (frames.size() < HandoverMesh::kRingSize) frames.push_back(pool.alloc().release());
  uint32_t pushed = 0;
  while (pushed < frames.size() && mesh.push(0, 2, frames[pushed])) ++pushed;
  EXPECT_EQ(pushed, HandoverMesh::kRingSize - 1);
  rte_mbuf* out[32];
  EXPECT_EQ(mesh.pop(1, 2, out, 32), 0);
  EXPECT_EQ(mesh.pop(0, 1, out, 32), 0);
  EXPECT_EQ(mesh.pop(2, 2, out, 32), 0);
  uint32_t popped = 0;
  while (const uint16_t n = mesh.pop(0, 2, out, 32)) {
    for (uint16_t i = 0; i < n; ++i) EXPECT_EQ(out[i], frames[popped++]);
  }
  EXPECT_EQ(popped, pushed);
  EXPECT_TRUE(mesh.push(0, 1, frames[0]));  // the mesh frees what is left in it
  for (uint32_t i = 1; i < frames.size(); ++i) rte_pktmbuf_free(frames[i]);
}

}  // namespace
}  // namespace millrace::io
