#include "dataplane/policy_cache.h"

#include <bit>

#include "lib/base/hash.h"

namespace millrace::dataplane {

PolicyCache::PolicyCache(uint32_t capacity)
    : pool_(capacity), mask_(std::bit_ceil(capacity) - 1), buckets_(std::make_unique<Bucket[]>(mask_ + 1)) {}

ConnectionPolicy* PolicyCache::acquire(table::ObjectId listener, stats::ScopeSlot listener_slot, uint16_t chain,
                                       uint64_t chain_key, const HttpPolicy* policy, uint64_t epoch) {
  static const HttpPolicy kNone{};
  const HttpPolicy& http = policy == nullptr ? kNone : *policy;
  uint64_t h = (listener ^ chain_key * 0x9e3779b97f4a7c15ull) + chain;
  h = (h ^ h >> 32) * 0xff51afd7ed558ccdull;
  const uint32_t hash = static_cast<uint32_t>(h >> 32);
  ConnectionPolicy*& last = last_[(listener ^ chain) & (kLast - 1)];
  for (ConnectionPolicy& p : buckets_[hash & mask_]) {
    if (p.hash != hash || p.listener != listener || p.listener_slot != listener_slot || p.chain != chain ||
        p.chain_key != chain_key || !(p.http == http))
      continue;
    p.epoch = epoch;
    p.gone = false;
    ++p.users;
    last = &p;
    return &p;
  }
  ConnectionPolicy* p = pool_.alloc();
  if (p == nullptr) return nullptr;
  p->http = http;
  p->forward = p->http.options();
  p->listener = listener;
  p->listener_slot = listener_slot;
  p->chain = chain;
  p->chain_key = chain_key;
  p->epoch = epoch;
  p->gone = false;
  p->users = 1;
  p->hash = hash;
  buckets_[hash & mask_].push_front(*p);
  last = p;
  return p;
}

void PolicyCache::drop(ConnectionPolicy& p) {
  ConnectionPolicy*& last = last_[(p.listener ^ p.chain) & (kLast - 1)];
  if (last == &p) last = nullptr;
  p.bucket.unlink();
  pool_.free(&p);
}

}  // namespace millrace::dataplane
