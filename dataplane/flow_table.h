// 4-tuple -> connection index of one worker. Buckets of one cache line, seven entries each; a lookup touches the bucket and then
// the connection itself, where the tuple is compared: two misses, both prefetched one stage apart over a burst.
//
// No tombstones: each bucket counts the entries that found it full and went on to the next one (`spilled`); a search goes on only
// while that is not 0. Sized at start for at most 64 % load (14.2 bytes a connection), never resized: one bucket in twenty is
// then full, and a search for what is not there reads 1.05 lines.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <immintrin.h>

#include "lib/base/assert.h"
#include "lib/base/ip_address.h"
#include "lib/base/reserved_memory.h"

namespace millrace::dataplane {

// A keyed hash of a 4-tuple (two multiplications a 16 bytes): an attacker who does not know `seed` cannot choose colliding
// tuples.
inline uint64_t flow_hash(uint64_t seed, const base::IpAddress& local, uint16_t local_port, const base::IpAddress& remote,
                          uint16_t remote_port) {
  auto mix = [](uint64_t a, uint64_t b) {
    const unsigned __int128 p = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(p) ^ static_cast<uint64_t>(p >> 64);
  };
  uint64_t l[2], r[2];
  std::memcpy(l, local.bytes.data(), 16);
  std::memcpy(r, remote.bytes.data(), 16);
  const uint64_t ports = uint64_t{local_port} << 16 | remote_port;
  uint64_t h = mix(l[0] ^ seed ^ 0xa0761d6478bd642full, l[1] ^ (seed + 0xe7037ed1a0b428dbull));
  h = mix(h ^ r[0] ^ 0x8ebc6af09c88c6e3ull, r[1] ^ (seed * 3 + 0x589965cc75374cc3ull));
  return mix(h ^ ports, seed ^ 0x1d8e4e27c47d124full);
}

class FlowTable {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint32_t kSlots = 7;

  // Room for `capacity` flows.
  explicit FlowTable(uint32_t capacity) : count_(buckets_for(capacity)), memory_(size_t{count_} * sizeof(Bucket)) {
    buckets_ = memory_.as<Bucket>();
  }
  static constexpr uint32_t buckets_for(uint32_t capacity) { return static_cast<uint32_t>(uint64_t{capacity} * 2 / 9) + 2; }
  static constexpr double bytes_per_flow(uint32_t capacity) { return 64.0 * buckets_for(capacity) / capacity; }

  void prefetch(uint32_t hash) const { __builtin_prefetch(&buckets_[home(hash)]); }

  // The first index under `hash` for which equal(index) holds, else kNone.
  template <class Equal>
  uint32_t find(uint32_t hash, Equal&& equal) const {
    for (uint32_t b = home(hash);; b = after(b)) {
      const Bucket& bucket = buckets_[b];
      for (uint32_t hits = matches(bucket, hash); hits != 0; hits &= hits - 1) {
        const uint32_t index = bucket.index[std::countr_zero(hits)];
        if (index != 0 && equal(index - 1)) return index - 1;
      }
      if (bucket.spilled == 0) return kNone;
    }
  }
  // The index that a find() will probably look at first, for prefetching; kNone when there is none in the home bucket.
  uint32_t candidate(uint32_t hash) const {
    const Bucket& bucket = buckets_[home(hash)];
    const uint32_t hits = matches(bucket, hash);
    return hits == 0 ? kNone : bucket.index[std::countr_zero(hits)] - 1;  // a free slot's 0 becomes kNone
  }
  // `index` must not be in the table, and the table holds less than its capacity.
  void insert(uint32_t hash, uint32_t index) {
    for (uint32_t b = home(hash);; b = after(b)) {
      Bucket& bucket = buckets_[b];
      for (uint32_t i = 0; i < kSlots; ++i) {
        if (bucket.index[i] != 0) continue;
        bucket.signature[i] = hash;
        bucket.index[i] = index + 1;
        ++size_;
        return;
      }
      ++bucket.spilled;
      MILLRACE_ASSERT(bucket.spilled <= size_ + 1, "a flow table with a free slot");
    }
  }
  // The flow must be there.
  void erase(uint32_t hash, uint32_t index) {
    for (uint32_t b = home(hash);; b = after(b)) {
      Bucket& bucket = buckets_[b];
      for (uint32_t i = 0; i < kSlots; ++i) {
        if (bucket.signature[i] != hash || bucket.index[i] != index + 1) continue;
        bucket.index[i] = 0;
        --size_;
        for (uint32_t s = home(hash); s != b; s = after(s)) --buckets_[s].spilled;
        return;
      }
      MILLRACE_ASSERT(bucket.spilled != 0, "erase a flow that is in the table");
    }
  }
  uint32_t size() const { return size_; }

 private:
  // All zero when fresh.
  struct alignas(64) Bucket {
    uint32_t signature[kSlots];
    uint32_t index[kSlots];  // + 1; 0: free
    uint32_t spilled;        // entries that passed this bucket because it was full
    uint32_t reserved;
  };
  static_assert(sizeof(Bucket) == 64);

  uint32_t home(uint32_t hash) const { return static_cast<uint32_t>(uint64_t{hash} * count_ >> 32); }
  uint32_t after(uint32_t b) const { return b + 1 == count_ ? 0 : b + 1; }
  // Bit i: signature[i] is `hash` (whether or not the slot is in use).
  static uint32_t matches(const Bucket& b, uint32_t hash) {
    const __m256i all = _mm256_load_si256(reinterpret_cast<const __m256i*>(b.signature));  // the eighth is index[0]
    const __m256i equal = _mm256_cmpeq_epi32(all, _mm256_set1_epi32(static_cast<int>(hash)));
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(equal))) & ((1u << kSlots) - 1);
  }

  uint32_t count_;
  base::ReservedMemory memory_;
  Bucket* buckets_;
  uint32_t size_ = 0;
};

}  // namespace millrace::dataplane
