// A packet pool on the heap, for tests and the simulator: a real rte_mempool with real mbufs, made by hand without EAL, hugepages
// or a NIC, so that code above lib/io/packet.h runs unchanged. Stricter than the pool of the data plane: freeing twice, freeing
// what is not of this pool and returning a packet that is still referenced abort at once; under ASan a freed packet is poisoned,
// and every packet has a red zone behind its data room. Not thread-safe: one pool a thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/io/packet.h"

namespace millrace::support {

class HeapPacketPool {
 public:
  static constexpr uint32_t kDefaultCapacity = 4096;  // packets
  static constexpr uint32_t kDefaultDataRoom = 2048;  // payload bytes of a packet, headroom not counted

  // `data_room` + RTE_PKTMBUF_HEADROOM must fit 16 bits; 0 makes packets without any room, to be attached to others
  // (rte_pktmbuf_attach).
  explicit HeapPacketPool(uint32_t capacity = kDefaultCapacity, uint32_t data_room = kDefaultDataRoom);
  // Asserts balanced(): declare the pool before whatever holds packets of it.
  ~HeapPacketPool();
  HeapPacketPool(const HeapPacketPool&) = delete;
  HeapPacketPool& operator=(const HeapPacketPool&) = delete;

  // Valid as long as this object.
  io::PacketPool& pool() { return pool_; }
  operator io::PacketPool&() { return pool_; }  // NOLINT: a HeapPacketPool is used where a PacketPool is asked for

  // Null when the pool is empty (or at its limit).
  io::PacketPtr alloc() { return pool_.alloc(); }
  // A fresh packet that holds a copy of `bytes`, which fit the data room. Null when the pool is empty.
  io::PacketPtr make(base::ByteSpan bytes);
  io::PacketPtr make(std::string_view text) { return make(base::as_bytes(text)); }

  // Packets that are out, references by others included.
  uint32_t in_use() const;
  uint32_t capacity() const { return static_cast<uint32_t>(elements_.size()); }
  // True when every packet is back.
  bool balanced() const { return in_use() == 0; }
  // Most packets that were out at one time.
  uint32_t high_water() const { return high_water_; }

  // From now on alloc() fails while `limit` packets are out (capacity(): no limit). To test what happens when a pool runs empty.
  void set_limit(uint32_t limit) { limit_ = limit; }

 private:
  struct Ops;  // the mempool operations, which reach into this object
  friend struct Ops;
  struct MempoolMemory;
  enum class ElementState : uint8_t { kFree, kOut };

  uint32_t index_of(const void* object) const;

  std::unique_ptr<MempoolMemory> memory_;
  std::vector<void*> elements_;  // the mbufs, by index
  std::vector<ElementState> states_;
  std::vector<uint32_t> free_;  // indices, last in first out
  uint32_t element_size_ = 0;   // bytes of mbuf and data room
  uint32_t limit_ = 0;
  uint32_t high_water_ = 0;
  io::PacketPool pool_;
};

}  // namespace millrace::support
