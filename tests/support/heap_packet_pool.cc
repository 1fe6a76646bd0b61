#include "tests/support/heap_packet_pool.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include <rte_errno.h>
#include <rte_mempool.h>

#include "lib/base/assert.h"

#if defined(__SANITIZE_ADDRESS__)
#define MILLRACE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MILLRACE_ASAN 1
#endif
#endif
#ifdef MILLRACE_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

namespace millrace::support {

namespace {

constexpr std::align_val_t kCacheLine{RTE_CACHE_LINE_SIZE};
constexpr uint32_t kHeaderSize = RTE_CACHE_LINE_SIZE;  // before each mbuf: our index, and at its end DPDK's object header
constexpr const char* kOpsName = "millrace_test_heap";

struct ElementHeader {
  uint32_t index;
  uint8_t padding[kHeaderSize - sizeof(uint32_t) - sizeof(rte_mempool_objhdr) - 4];
  rte_mempool_objhdr object_header;
};
static_assert(sizeof(ElementHeader) == kHeaderSize);

ElementHeader* header_of(void* object) { return reinterpret_cast<ElementHeader*>(static_cast<uint8_t*>(object) - kHeaderSize); }

}  // namespace

// rte_mempool_get_priv() finds the private area right behind the struct, as there are no caches.
struct HeapPacketPool::MempoolMemory {
  rte_mempool mempool;
  rte_pktmbuf_pool_private private_area;
};

struct HeapPacketPool::Ops {
  static HeapPacketPool& self(const rte_mempool* mp) { return *static_cast<HeapPacketPool*>(mp->pool_data); }
  static int alloc(rte_mempool*) { return -ENOTSUP; }  // a pool of these operations is made by HeapPacketPool only
  static void free(rte_mempool*) {}
  static int enqueue(rte_mempool* mp, void* const* objects, unsigned n) {
    HeapPacketPool& pool = self(mp);
    for (unsigned i = 0; i < n; ++i) {
      const uint32_t index = pool.index_of(objects[i]);
      MILLRACE_ASSERT(pool.states_[index] == ElementState::kOut, "packet freed once");
      const auto* m = static_cast<const rte_mbuf*>(objects[i]);
      MILLRACE_ASSERT(m->refcnt == 1 && m->next == nullptr && m->nb_segs == 1, "packet returned in its initial state");
      pool.states_[index] = ElementState::kFree;
      pool.free_.push_back(index);
      ASAN_POISON_MEMORY_REGION(objects[i], pool.element_size_);
    }
    return 0;
  }
  static int dequeue(rte_mempool* mp, void** objects, unsigned n) {
    HeapPacketPool& pool = self(mp);
    if (n > pool.free_.size() || pool.in_use() + n > pool.limit_) return -ENOBUFS;
    for (unsigned i = 0; i < n; ++i) {
      const uint32_t index = pool.free_.back();
      pool.free_.pop_back();
      pool.states_[index] = ElementState::kOut;
      objects[i] = pool.elements_[index];
      ASAN_UNPOISON_MEMORY_REGION(objects[i], pool.element_size_);
    }
    pool.high_water_ = std::max(pool.high_water_, pool.in_use());
    return 0;
  }
  static unsigned count(const rte_mempool* mp) { return static_cast<unsigned>(self(mp).free_.size()); }
};

HeapPacketPool::HeapPacketPool(uint32_t capacity, uint32_t data_room)
    : memory_(std::make_unique<MempoolMemory>()), limit_(capacity) {
  static const int ops_index = [] {
    rte_mempool_ops ops{};
    std::strncpy(ops.name, kOpsName, sizeof ops.name - 1);
    ops.alloc = Ops::alloc;
    ops.free = Ops::free;
    ops.enqueue = Ops::enqueue;
    ops.dequeue = Ops::dequeue;
    ops.get_count = Ops::count;
    return rte_mempool_register_ops(&ops);
  }();
  MILLRACE_ASSERT(ops_index >= 0, "mempool operations registered");
  static_assert(offsetof(MempoolMemory, private_area) == sizeof(rte_mempool), "private area where DPDK looks for it");

  const uint32_t room = data_room == 0 ? 0 : data_room + RTE_PKTMBUF_HEADROOM;
  MILLRACE_ASSERT(capacity > 0 && room <= UINT16_MAX, "a data room that fits 16 bits");
  element_size_ = static_cast<uint32_t>(sizeof(rte_mbuf)) + room;

  rte_mempool& mp = memory_->mempool;
  std::strncpy(mp.name, "heap", sizeof mp.name - 1);
  mp.pool_data = this;
  mp.ops_index = ops_index;
  mp.size = mp.populated_size = capacity;
  mp.elt_size = element_size_;
  mp.header_size = kHeaderSize;
  mp.private_data_size = sizeof(rte_pktmbuf_pool_private);
  mp.socket_id = SOCKET_ID_ANY;
  rte_pktmbuf_pool_private private_area{};
  private_area.mbuf_data_room_size = static_cast<uint16_t>(room);
  rte_pktmbuf_pool_init(&mp, &private_area);

  elements_.reserve(capacity);
  states_.assign(capacity, ElementState::kFree);
  free_.reserve(capacity);
  for (uint32_t i = 0; i < capacity; ++i) {
    auto* memory = static_cast<uint8_t*>(::operator new(kHeaderSize + element_size_, kCacheLine));
    void* object = memory + kHeaderSize;
    header_of(object)->index = i;
    header_of(object)->object_header.mp = &mp;
    header_of(object)->object_header.iova = 0;  // no device ever reads these packets
    rte_pktmbuf_init(&mp, nullptr, object, i);
    ASAN_POISON_MEMORY_REGION(object, element_size_);
    elements_.push_back(object);
  }
  for (uint32_t i = capacity; i > 0; --i) free_.push_back(i - 1);
  pool_ = io::PacketPool(&mp);
}

HeapPacketPool::~HeapPacketPool() {
  MILLRACE_ASSERT(balanced(), "every packet back in its pool");
  for (void* object : elements_) {
    ASAN_UNPOISON_MEMORY_REGION(object, element_size_);
    ::operator delete(header_of(object), kCacheLine);
  }
}

io::PacketPtr HeapPacketPool::make(base::ByteSpan bytes) {
  io::PacketPtr p = pool_.alloc();
  if (p && !bytes.empty()) std::memcpy(p.append(static_cast<uint32_t>(bytes.size())), bytes.data(), bytes.size());
  return p;
}

uint32_t HeapPacketPool::in_use() const { return static_cast<uint32_t>(elements_.size() - free_.size()); }

uint32_t HeapPacketPool::index_of(const void* object) const {
  const ElementHeader* header = header_of(const_cast<void*>(object));
  MILLRACE_ASSERT(header->object_header.mp == &memory_->mempool, "packet of this pool");
  MILLRACE_ASSERT(header->index < elements_.size() && elements_[header->index] == object, "packet of this pool");
  return header->index;
}

}  // namespace millrace::support
