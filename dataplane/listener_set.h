// Which listener answers a SYN: an immutable map from local address and port to a listener's id. Built off the poll cores (the
// table loader) for each snapshot; a worker gets a pointer to it at the loop top (TcpStack::set_listeners) and looks it up per
// SYN.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/base/ip_address.h"
#include "lib/stats/region.h"
#include "lib/table/objects.h"

namespace millrace::dataplane {

class ListenerSet {
 public:
  struct Entry {
    base::IpAddress address;  // 0.0.0.0 or :: : every address of the gateway of that family
    uint16_t port = 0;        // host order, 1..65535
    table::ObjectId id = table::kNoObject;
    bool draining = false;                           // accepts nothing new: a SYN is answered with RST
    uint32_t connection_limit = 0;                   // established at one time, all workers together; 0: none
    stats::ScopeSlot scope = stats::kOverflowScope;  // where it counts
    table::TcpOptions tcp;                           // of the connections that it accepts
    uint32_t buffer_limit = UINT32_MAX;              // per_connection_buffer_limit_bytes
  };

  ListenerSet() = default;
  // Of several entries with the same address and port the first wins (control refuses such tables before they get here).
  explicit ListenerSet(std::span<const Entry> entries);

  // The entry for exactly this address, else the one for the unspecified address of the family. Null when nobody listens.
  // The pointer lives as long as the set.
  const Entry* find(const base::IpAddress& local, uint16_t port) const;
  size_t size() const { return count_; }

 private:
  const Entry* probe(const base::IpAddress& address, uint16_t port) const;
  std::vector<Entry> slots_;  // open addressing, power of two, at most half full; id kNoObject and port 0: free
  uint32_t mask_ = 0;
  uint32_t count_ = 0;
};

}  // namespace millrace::dataplane
