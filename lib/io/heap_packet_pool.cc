#include <rte_mempool.h>

#include <cstdlib>
#include <cstring>

#include "lib/io/packet_pool.h"

namespace millrace::io {

namespace {

// The "driver" of the heap pool: a stack of free objects behind mempool's table of ops. DPDK finds it by index, so it works without EAL.
struct FreeStack {
  uint32_t count;
  uint32_t capacity;
  void** objects;
};

FreeStack& stack_of(const rte_mempool* mp) { return *static_cast<FreeStack*>(mp->pool_data); }

int heap_alloc(rte_mempool*) { return 0; }
void heap_free(rte_mempool*) {}
int heap_enqueue(rte_mempool* mp, void* const* objects, unsigned n) {
  FreeStack& s = stack_of(mp);
  MILLRACE_ASSERT(s.count + n <= s.capacity, "no more packets come back than were lent (double free?)");
  for (unsigned i = 0; i < n; ++i) s.objects[s.count++] = objects[i];
  return 0;
}
int heap_dequeue(rte_mempool* mp, void** objects, unsigned n) {
  FreeStack& s = stack_of(mp);
  if (s.count < n) return -ENOBUFS;
  for (unsigned i = 0; i < n; ++i) objects[i] = s.objects[--s.count];
  return 0;
}
unsigned heap_count(const rte_mempool* mp) { return stack_of(mp).count; }

int register_heap_ops() {
  rte_mempool_ops ops{};
  std::strncpy(ops.name, "millrace_heap", sizeof ops.name - 1);
  ops.alloc = heap_alloc;
  ops.free = heap_free;
  ops.enqueue = heap_enqueue;
  ops.dequeue = heap_dequeue;
  ops.get_count = heap_count;
  return rte_mempool_register_ops(&ops);
}

constexpr size_t kAlign = RTE_MEMPOOL_ALIGN;
size_t round_up(size_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

}  // namespace

HeapPacketPool::HeapPacketPool(uint32_t count, uint32_t room) {
  static const int ops_index = register_heap_ops();
  MILLRACE_ASSERT(ops_index >= 0, "DPDK's table of mempool drivers has room for the heap pool");

  const uint32_t buffer = room == 0 ? 0 : room + RTE_PKTMBUF_HEADROOM;
  const size_t pool_bytes = round_up(RTE_MEMPOOL_HEADER_SIZE(static_cast<rte_mempool*>(nullptr), 0)) + sizeof(rte_pktmbuf_pool_private);
  mp_ = static_cast<rte_mempool*>(std::aligned_alloc(kAlign, round_up(pool_bytes)));
  MILLRACE_ASSERT(mp_ != nullptr, "memory for a test pool");
  std::memset(static_cast<void*>(mp_), 0, round_up(pool_bytes));
  std::strncpy(mp_->name, "heap", sizeof mp_->name - 1);
  mp_->size = count;
  mp_->populated_size = count;
  mp_->cache_size = 0;
  mp_->elt_size = static_cast<uint32_t>(sizeof(rte_mbuf)) + buffer;
  mp_->header_size = sizeof(rte_mempool_objhdr);
  mp_->private_data_size = sizeof(rte_pktmbuf_pool_private);
  mp_->ops_index = ops_index;
  mp_->socket_id = SOCKET_ID_ANY;

  auto* stack = new FreeStack{0, count, static_cast<void**>(std::malloc(sizeof(void*) * (count + 1)))};
  mp_->pool_data = stack;

  rte_pktmbuf_pool_private priv{};
  priv.mbuf_data_room_size = static_cast<uint16_t>(buffer);
  rte_pktmbuf_pool_init(mp_, &priv);

  // Each object is its own allocation: [pad | objhdr | mbuf | buffer], the mbuf on a cache line as DPDK wants it.
  for (uint32_t i = 0; i < count; ++i) {
    const size_t head = round_up(sizeof(rte_mempool_objhdr));
    auto* base = static_cast<uint8_t*>(std::aligned_alloc(kAlign, round_up(head + mp_->elt_size)));
    MILLRACE_ASSERT(base != nullptr, "memory for a test packet");
    std::memset(base, 0, head);
    void* object = base + head;
    auto* header = reinterpret_cast<rte_mempool_objhdr*>(static_cast<uint8_t*>(object) - sizeof(rte_mempool_objhdr));
    header->mp = mp_;
    header->iova = reinterpret_cast<rte_iova_t>(object);
    rte_pktmbuf_init(mp_, nullptr, object, i);
    stack->objects[stack->count++] = object;
  }
}

HeapPacketPool::~HeapPacketPool() {
  FreeStack& s = stack_of(mp_);
  MILLRACE_ASSERT(s.count == s.capacity, "every packet is back in its pool");
  for (uint32_t i = 0; i < s.count; ++i) {
    std::free(static_cast<uint8_t*>(s.objects[i]) - round_up(sizeof(rte_mempool_objhdr)));
  }
  std::free(s.objects);
  delete &s;
  std::free(mp_);
}

PacketPtr HeapPacketPool::make(base::ByteSpan bytes) {
  PacketPtr p = alloc();
  MILLRACE_ASSERT(p && p.tailroom() >= bytes.size(), "a test packet that fits its pool");
  if (!bytes.empty()) std::memcpy(p.append(static_cast<uint32_t>(bytes.size())), bytes.data(), bytes.size());
  return p;
}

}  // namespace millrace::io
