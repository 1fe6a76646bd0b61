// Who may open connections: asked about a SYN before anything is kept for it, and once more when its handshake is complete.
//
//   SYN ─▶ on_syn:  room for all clients? for this listener? for its sources? ─▶ a token of each source's bucket ─▶ TCB or cookie
//   last ACK of the handshake ─▶ accept: the three counts once more, now for good ─▶ session layer      end ─▶ ended: counts go
//   down
//
// Sources are prefixes, at up to kMaxLevels lengths at once: a host and its network, say. Half-open connections count nowhere:
// their source may be forged, and a victim must not lose its share to whoever writes its address. They have limits of their own
// (tcp/listener.h).
//
// A worker has its share of every limit, rounded up, because no word is shared between workers; flows of one source are spread
// evenly over them. Without any limit the stack has no Admission and asks nothing.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "dataplane/listener_set.h"
#include "lib/base/ip_address.h"
#include "lib/base/reserved_memory.h"
#include "lib/base/time.h"
#include "lib/stats/drop_reason.h"
#include "lib/table/layout.h"

namespace millrace::dataplane {

// Limits of every prefix of one length; 0: none.
struct SourceLevel {
  uint8_t ipv4_prefix = 32, ipv6_prefix = 64;  // bits
  uint32_t syns_per_second = 0;
  uint32_t burst = 0;        // SYNs at once; 0: as many as in a second
  uint32_t connections = 0;  // established at one time
};

struct AdmissionConfig {
  static constexpr uint32_t kMaxLevels = 4;
  uint32_t max_active_downstream_connections = 0;  // of all listeners together
  bool listener_limits = false;                    // some ListenerSet::Entry has a connection_limit
  std::vector<SourceLevel> sources;                // at most kMaxLevels, all must agree
  uint32_t source_table = 65'536;                  // buckets of a level that are remembered at one time

  bool any() const { return max_active_downstream_connections != 0 || listener_limits || !sources.empty(); }
};

// Token buckets by key in a table of fixed size that forgets by itself. A bucket that is full again is as good as none, so its
// place is free without anybody cleaning up; where four live ones meet, the one nearest to full gives way, so a flood of sources
// that send one SYN each never lets a busy one off.
class TokenBuckets {
 public:
  // `per_second` > 0 tokens, `burst` > 0 at once. `entries`: rounded up to a power of two, 16 bytes each, touched when used.
  TokenBuckets(uint32_t per_second, uint32_t burst, uint32_t entries);

  // Where `key` (a keyed hash: nobody outside can aim at a place) stands. has(): is there a token now? spend(): takes it.
  struct Place {
    uint32_t index = 0;
    bool fresh = false;  // not in the table: its bucket is full
  };
  Place find(uint64_t key) const;
  bool has(const Place& p, base::TimeNs now) const {
    return p.fresh || entries_[p.index].full_at <= now || entries_[p.index].full_at - now + cost_ <= depth_;
  }
  void spend(const Place& p, uint64_t key, base::TimeNs now);

  uint64_t forgotten() const { return forgotten_; }  // live buckets that gave way

 private:
  static constexpr uint32_t kWays = 4;  // a cache line
  struct Entry {
    uint64_t key;
    base::TimeNs full_at;  // when the bucket is full again (the theoretical arrival time of GCRA); 0: a free place
  };
  base::TimeNs cost_, depth_;  // ns a token; of a whole bucket
  uint32_t mask_;              // of sets
  base::ReservedMemory memory_;
  Entry* entries_;
  uint64_t forgotten_ = 0;
};

// How many of something each key has, exactly; room for `capacity` keys at one time.
class KeyCounts {
 public:
  explicit KeyCounts(uint32_t capacity);
  uint32_t get(uint64_t key) const;
  void up(uint64_t key);    // at most `capacity` keys are above 0
  void down(uint64_t key);  // is above 0
  uint32_t keys() const { return keys_; }

 private:
  struct Entry {
    uint64_t key;
    uint32_t count;  // 0: a free place
  };
  uint32_t home(uint64_t key) const { return static_cast<uint32_t>(key >> 32) & mask_; }
  uint32_t mask_;
  base::ReservedMemory memory_;
  Entry* entries_;
  uint32_t capacity_, keys_ = 0;
};

class Admission {
 public:
  // `connections`: the most that this worker can have. `seed`: random; equal on all workers or not.
  Admission(const AdmissionConfig& config, uint32_t workers, uint32_t connections, uint64_t seed);

  // kNone: go on, a token is spent. kTcpSynRateLimited is to be ignored in silence (the source may be forged); the other reasons
  // are kTcpDownstreamLimit, kTcpListenerLimit, kTcpSourceLimit.
  stats::DropReason on_syn(const base::IpAddress& remote, const ListenerSet::Entry& listener, base::TimeNs now);
  // kNone: counted, and ended() is called once for it with what it left in `counted_on`.
  stats::DropReason accept(const base::IpAddress& remote, const ListenerSet::Entry& listener, uint16_t& counted_on);
  void ended(const base::IpAddress& remote, uint16_t counted_on);

  uint32_t active() const { return active_; }  // connections counted
  uint32_t sources() const;                    // prefixes with connections, all levels together
  uint64_t forgotten() const;                  // live token buckets that gave way, all levels together

  // Listeners with a limit and connections at one time; further ones are not limited.
  static constexpr uint16_t kMaxListeners = 1024;

 private:
  struct Level {
    uint64_t mask_v4[2], mask_v6[2];  // of the address's two words
    uint32_t connections = 0;         // of this worker; 0: no limit
    std::unique_ptr<TokenBuckets> buckets;
    std::unique_ptr<KeyCounts> counts;
  };
  struct ListenerCount {
    table::ObjectId id = table::kNoObject;
    uint32_t active = 0;
  };
  uint64_t key(const Level& l, const base::IpAddress& a) const;
  uint32_t share(uint32_t limit) const { return (limit + workers_ - 1) / workers_; }
  uint16_t listener(table::ObjectId id) const;  // its place + 1; 0: none
  stats::DropReason room(const base::IpAddress& remote, const ListenerSet::Entry& listener) const;

  uint32_t workers_;
  uint64_t seed_;
  uint32_t most_ = UINT32_MAX, active_ = 0;
  std::vector<Level> levels_;
  std::vector<ListenerCount> listeners_;  // few: searched in order
};

}  // namespace millrace::dataplane
