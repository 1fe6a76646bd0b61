#include "dataplane/port_allocator.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <sys/mman.h>

#include "dataplane/flow_table.h"
#include "lib/base/assert.h"

namespace millrace::dataplane {
namespace {

constexpr size_t kMapBytes = 65'536 / 8;

}  // namespace

PortAllocator::PortAllocator(uint16_t first, uint16_t last, uint32_t max_maps, uint64_t seed)
    : first_(first), last_(last), max_maps_(max_maps), seed_(seed) {
  MILLRACE_ASSERT(first > 0 && first <= last && max_maps > 0, "a range of local ports");
  uint32_t buckets = 1;
  while (buckets < max_maps) buckets *= 2;
  mask_ = buckets - 1;
  heads_ = std::make_unique<uint32_t[]>(buckets);
  for (uint32_t i = 0; i < buckets; ++i) heads_[i] = kNone;
  maps_ = std::make_unique<Map[]>(max_maps);
  for (uint32_t i = max_maps; i-- > 0;) {
    maps_[i].next = free_;
    free_ = i;
  }
  void* m = mmap(nullptr, max_maps * kMapBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  MILLRACE_ASSERT(m != MAP_FAILED, "address space for port maps");
  bits_ = static_cast<uint64_t*>(m);
}

PortAllocator::~PortAllocator() { munmap(bits_, max_maps_ * kMapBytes); }

uint32_t PortAllocator::bucket(const base::IpAddress& local, const base::IpAddress& remote, uint16_t remote_port) const {
  return static_cast<uint32_t>(flow_hash(seed_, local, 0, remote, remote_port)) & mask_;
}

uint32_t PortAllocator::find(const base::IpAddress& local, const base::IpAddress& remote, uint16_t remote_port) const {
  for (uint32_t m = heads_[bucket(local, remote, remote_port)]; m != kNone; m = maps_[m].next) {
    const Map& map = maps_[m];
    if (map.remote_port == remote_port && map.remote == remote && map.local == local) return m;
  }
  return kNone;
}

namespace {
constexpr uint32_t kGolden = 40'503;  // 65,536 / the golden ratio: runs spread over the range whatever their number
}

uint16_t PortAllocator::allocate(const io::Steering& steering, uint32_t worker, uint16_t port_index, const base::IpAddress& local,
                                 const base::IpAddress& remote, uint16_t remote_port) {
  const uint32_t range = uint32_t{last_} - first_ + 1;
  uint32_t m = find(local, remote, remote_port);
  if (m == kNone) {
    if (free_ == kNone) return 0;
    m = free_;
    Map& map = maps_[m];
    free_ = map.next;
    map.local = local;
    map.remote = remote;
    map.remote_port = remote_port;
    map.used = 0;
    // Where the search starts is not to be guessed from outside (RFC 6056 3.3.3), and differs when a pair comes back.
    map.cursor = static_cast<uint32_t>(flow_hash(seed_ ^ ++draws_, local, 1, remote, remote_port) % range);
    uint32_t& head = heads_[bucket(local, remote, remote_port)];
    map.next = head;
    head = m;
    ++maps_in_use_;
  }
  Map& map = maps_[m];
  uint64_t* bits = bits_ + size_t{m} * kWords;
  const io::Steering::PortChoice choice(steering, port_index, local, remote, remote_port);
  const uint32_t run = kMaxTriesPerWorker * steering.workers();
  uint32_t tries = run, runs = kMaxRuns;
  uint32_t at = map.cursor;
  // Whole words of taken ports are passed at once, so the scan is bounded by the words of the range, the candidates by `tries`.
  for (uint32_t seen = 0; seen < range && map.used < range;) {
    const uint32_t port = first_ + at;
    const uint64_t word = bits[port / 64] >> (port % 64);
    const uint32_t taken = static_cast<uint32_t>(std::countr_one(word));
    if (taken > 0) {
      const uint32_t skip = std::min({taken, 64 - port % 64, range - at});
      seen += skip;
      at += skip;
      if (at == range) at = 0;
      continue;
    }
    ++seen;
    if (++at == range) at = 0;
    if (choice.owner(static_cast<uint16_t>(port)) == worker) {
      bits[port / 64] |= uint64_t{1} << (port % 64);
      ++map.used;
      ++in_use_;
      map.cursor = at;
      return static_cast<uint16_t>(port);
    }
    if (--tries != 0) continue;
    // Neighbours differ in their low bits only, and a port's hash is linear: where its key has nothing but zeros under these bits
    // (one random key in 128, of two queues), a run of them leads to one worker. So the next run is far away.
    if (--runs == 0) break;
    tries = run;
    at = static_cast<uint32_t>((at + uint64_t{range} * kGolden / 65'536) % range);
  }
  map.cursor = at;  // the next call looks elsewhere
  if (map.used == 0) drop_map(m);
  return 0;
}

void PortAllocator::release(const base::IpAddress& local, const base::IpAddress& remote, uint16_t remote_port,
                            uint16_t local_port) {
  const uint32_t m = find(local, remote, remote_port);
  MILLRACE_ASSERT(m != kNone, "a port that was allocated");
  uint64_t& word = bits_[size_t{m} * kWords + local_port / 64];
  const uint64_t bit = uint64_t{1} << (local_port % 64);
  MILLRACE_ASSERT((word & bit) != 0, "a port is released once");
  word &= ~bit;
  --in_use_;
  if (--maps_[m].used == 0) drop_map(m);
}

void PortAllocator::drop_map(uint32_t m) {
  Map& map = maps_[m];
  uint32_t* link = &heads_[bucket(map.local, map.remote, map.remote_port)];
  while (*link != m) link = &maps_[*link].next;
  *link = map.next;
  map.next = free_;
  free_ = m;
  --maps_in_use_;
}

}  // namespace millrace::dataplane
