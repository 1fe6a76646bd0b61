// What connections of one filter chain remember of the configuration, once for all of them. No pointer into a table lives longer
// than a loop iteration, and an edit never closes a connection; so each connection holds a reference to a copy, and a million
// idle ones hold references to the same few.
//
//   session ── ConnectionPolicy* ──▶ {listener, chain, HttpPolicy, epoch in which it was last found right, users}
//
// A copy never changes while it has users, except that a newer epoch finds it still right or marks it gone. An edit of the chain
// makes a new copy, which connections move to one by one, each with its next request.
//
// Full (as many different policies in use at once as there are places): a new connection is reset and counted
// (downstream_cx_overflow); one that is there keeps the policy it has, and its next response says connection: close.
#pragma once

#include <cstdint>
#include <memory>

#include "dataplane/http_policy.h"
#include "lib/base/list.h"
#include "lib/base/pool.h"
#include "lib/stats/region.h"
#include "lib/table/layout.h"

namespace millrace::dataplane {

struct ConnectionPolicy {
  HttpPolicy http;
  http::ForwardOptions forward;  // http.options(): views into `http`, which stays here
  table::ObjectId listener = table::kNoObject;
  uint64_t chain_key = 0;  // hash of the chain's name: finds it again in a later epoch
  uint64_t epoch = 0;      // of the tables that said so last
  uint32_t users = 0;
  stats::ScopeSlot listener_slot = stats::kOverflowScope;
  uint16_t chain = UINT16_MAX;  // index in the listener's filter chains, in `epoch`; UINT16_MAX: not chosen yet
  bool gone = false;            // `epoch` knows no such listener or chain: connections close with their next response
  uint32_t hash = 0;
  base::ListNode bucket;
};

class PolicyCache {
 public:
  explicit PolicyCache(uint32_t capacity);

  // A copy with these contents, `policy` included, and one user more; made if there is none. Null when full. `policy`: null for a
  // connection whose chain is not chosen yet, or speaks no HTTP.
  ConnectionPolicy* acquire(table::ObjectId listener, stats::ScopeSlot listener_slot, uint16_t chain, uint64_t chain_key,
                            const HttpPolicy* policy, uint64_t epoch);
  // The same for a connection that was just accepted, found without comparing contents when the last one of this chain came in
  // the same epoch. Null: not that easy, use acquire().
  ConnectionPolicy* again(table::ObjectId listener, uint16_t chain, uint64_t epoch) {
    ConnectionPolicy* p = last_[(listener ^ chain) & (kLast - 1)];
    if (p == nullptr || p->listener != listener || p->chain != chain || p->epoch != epoch || p->gone) return nullptr;
    ++p->users;
    return p;
  }
  void release(ConnectionPolicy& p) {
    if (--p.users == 0) drop(p);
  }
  uint32_t in_use() const { return pool_.in_use(); }
  uint32_t capacity() const { return pool_.capacity(); }

 private:
  using Bucket = base::List<ConnectionPolicy, &ConnectionPolicy::bucket>;
  static constexpr uint32_t kLast = 64;
  void drop(ConnectionPolicy& p);

  base::Pool<ConnectionPolicy> pool_;
  uint32_t mask_;
  std::unique_ptr<Bucket[]> buckets_;
  ConnectionPolicy* last_[kLast] = {};  // by listener and chain: the one acquired last
};

}  // namespace millrace::dataplane
