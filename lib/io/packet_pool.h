// Where packets come from. Two makers of the same rte_mempool: the data plane's (hugepage memory of EAL, per-core caches) and a heap-backed
// one that needs no EAL, hugepages or threads, for tests, the simulator and fuzzers.
#pragma once

#include <cstdint>
#include <memory>

#include "lib/base/status.h"
#include "lib/io/packet.h"

namespace millrace::io {

// Bytes of data room of a payload packet behind the headroom: an Ethernet frame of MTU 1500 with VLAN tags, and memif's buffer size.
inline constexpr uint32_t kPayloadRoom = 2048;
// Data room of a header packet: Ethernet 14 + VLAN 4 + IPv6 40 + TCP 60, rounded up; also ARP, ND and RST frames.
inline constexpr uint32_t kHeaderRoom = 128;

// A pool whose packets come from malloc, one allocation each, so that AddressSanitizer sees an access outside a packet. One thread only.
// The destructor asserts that every packet has come back: each test ends with its pools balanced (engine rule 2).
class HeapPacketPool {
 public:
  // `count` packets with `room` bytes behind the standard headroom (128 bytes). Room 0 makes a pool for indirect packets.
  explicit HeapPacketPool(uint32_t count, uint32_t room = kPayloadRoom);
  ~HeapPacketPool();
  HeapPacketPool(const HeapPacketPool&) = delete;
  HeapPacketPool& operator=(const HeapPacketPool&) = delete;

  PacketPool pool() { return PacketPool(mp_); }
  PacketPtr alloc() { return PacketPtr(rte_pktmbuf_alloc(mp_)); }
  // Packets out of the pool now.
  uint32_t in_use() const { return rte_mempool_in_use_count(mp_); }
  // Copies `bytes` into a fresh packet; asserts that it fits and that the pool is not empty.
  PacketPtr make(base::ByteSpan bytes);
  PacketPtr make(std::string_view text) { return make(base::as_bytes(text)); }

 private:
  rte_mempool* mp_ = nullptr;
};

// A pool in EAL memory on the socket of `lcore`, with a per-core cache. `room` as above (0: indirect packets only).
// Fails with a sentence that says how much memory it wanted.
base::Result<PacketPool> make_eal_pool(const char* name, uint32_t count, uint32_t room, unsigned lcore);
void free_eal_pool(PacketPool pool);

}  // namespace millrace::io
