// All connections and how a segment finds its own. A client's is found by arithmetic, because we chose its address and port; a
// server's in a hash table with one 8-byte entry a connection.
//
//   client:  t = generation * slots + slot         address = first + t mod addresses,  port = 1024 + t / addresses
//   back:    t = (port - 1024) * addresses + offset         slot = t mod slots, generation = t / slots
//
// `slots` and `addresses` are powers of two. A slot that opens a new connection takes its next generation, so an address and port
// come back only after all of the slot's others.
#pragma once

#include <bit>
#include <cstdint>

#include "perf/load/connection.h"
#include "perf/load/deadline_table.h"
#include "perf/load/zeroed_array.h"

namespace millrace::load {

inline constexpr uint32_t kRingMessages = 64;  // of one connection: kMaxPipeline
static_assert(kRingMessages >= kMaxPipeline && std::has_single_bit(kRingMessages));
inline constexpr uint32_t kCarryBytes = 16 * 1024;  // a head that comes in pieces
inline constexpr uint32_t kMaxCarries = 4096;

struct TableConfig {
  uint32_t clients = 0;  // slots in use, connections 0 … clients-1
  uint32_t servers = 0;  // connections clients … clients+servers-1
  bool client_v6 = false;
  AddressId client_first = 0;     // ids of client addresses follow each other
  uint32_t client_addresses = 1;  // a power of two
  uint32_t rings = 0;
};

class ConnectionTable {
 public:
  explicit ConnectionTable(const TableConfig& config);

  Connection& operator[](uint32_t i) { return connections_[i]; }
  uint32_t clients() const { return config_.clients; }
  // Generations that a slot has before its first comes back.
  uint32_t generations() const { return generations_; }

  // Address and port of a slot in its generation, into the connection.
  void place_client(Connection& c, uint32_t slot) const {
    const uint64_t t = uint64_t{c.generation} * slots_ + slot;
    c.local = config_.client_first + static_cast<uint32_t>(t & (config_.client_addresses - 1));
    c.local_port = static_cast<uint16_t>(kFirstClientPort + (t >> address_bits_));
  }
  bool is_client_address(bool v6, AddressId a) const {
    return config_.clients != 0 && v6 == config_.client_v6 && a - config_.client_first < config_.client_addresses;
  }

  // Three steps, so that a burst's cache misses overlap: hash and fetch the entry, fetch the connection, look.
  struct Lookup {
    uint64_t hash;
    uint32_t index;  // kNone: not known
  };
  void prepare(const Segment& s, Lookup& l) {
    if (is_client_address(s.v6, s.dst)) {
      l.hash = 0;
      l.index = client_index(s);
      if (l.index != kNone) prefetch(l.index);
      return;
    }
    l.index = kNone;
    l.hash = hash_of(s.v6, s.src, s.dst, s.src_port, s.dst_port);
    __builtin_prefetch(&entries_[l.hash & entry_mask_]);
  }
  void fetch(const Segment& s, Lookup& l) {
    if (l.hash == 0) return;
    const Entry& e = entries_[l.hash & entry_mask_];
    if (e.index != 0) prefetch(e.index - 1);
  }
  // The connection of a segment, kNone when there is none.
  uint32_t find(const Segment& s, const Lookup& l) {
    if (l.hash == 0) {
      if (l.index == kNone) return kNone;
      const Connection& c = connections_[l.index];
      const bool same = c.state >= State::kSynSent && c.remote == s.src && c.remote_port == s.src_port && c.local == s.dst &&
                        c.local_port == s.dst_port;
      return same ? l.index : kNone;
    }
    for (uint64_t at = l.hash & entry_mask_;; at = (at + 1) & entry_mask_) {
      const Entry& e = entries_[at];
      if (e.index == 0) return kNone;
      if (e.tag != static_cast<uint32_t>(l.hash >> 32)) continue;
      const Connection& c = connections_[e.index - 1];
      if (c.remote == s.src && c.remote_port == s.src_port && c.local == s.dst && c.local_port == s.dst_port &&
          ((c.flags & kV6) != 0) == s.v6)
        return e.index - 1;
    }
  }

  // A server's connection for the segment, in the hash table, all zero but its key; kNone: all in use.
  uint32_t add_server(const Segment& s);
  void remove_server(uint32_t i);
  uint32_t servers_open() const { return servers_open_; }
  uint32_t servers_used() const { return servers_used_; }  // of all indices ever used: clients() … clients() + servers_used() - 1

  // --- messages, oldest first
  Message& message(Connection& c, uint32_t k) {
    return c.ring == kNone ? c.first : rings_[size_t{c.ring} * kRingMessages + ((c.ring_head + k) & (kRingMessages - 1))];
  }
  // Null: there is no room (kRingMessages in flight, or no ring left).
  Message* push_message(Connection& c);
  void pop_message(Connection& c) {
    --c.in_flight;
    if (c.ring != kNone) c.ring_head = (c.ring_head + 1) & (kRingMessages - 1);
  }

  // --- the beginning of a head that did not come whole
  struct Carry {
    uint32_t length;
    uint8_t bytes[kCarryBytes];
  };
  Carry* carry(Connection& c) { return c.carry == kNone ? nullptr : &carries_[c.carry]; }
  Carry* take_carry(Connection& c);  // null: none left
  void drop_carry(Connection& c);

  // Before the connection is forgotten: gives back what it holds here.
  void give_back(Connection& c);

  DeadlineTable deadlines;

 private:
  struct Entry {
    uint32_t tag, index;  // index + 1; 0: empty
  };
  void prefetch(uint32_t i) {
    __builtin_prefetch(&connections_[i]);
    __builtin_prefetch(reinterpret_cast<const char*>(&connections_[i]) + 64);
    __builtin_prefetch(&connections_[i].flags, 1);
  }
  uint32_t client_index(const Segment& s) const {
    if (s.dst_port < kFirstClientPort) return kNone;
    const uint64_t t =
        uint64_t{static_cast<uint32_t>(s.dst_port - kFirstClientPort)} << address_bits_ | (s.dst - config_.client_first);
    const auto slot = static_cast<uint32_t>(t & (slots_ - 1));
    return slot < config_.clients ? slot : kNone;
  }
  // Never 0, which says "a client's".
  static uint64_t hash_of(bool v6, AddressId src, AddressId dst, uint16_t src_port, uint16_t dst_port) {
    uint64_t h = (uint64_t{src} << 32 | dst) * 0x9e3779b97f4a7c15;
    h = (h ^ h >> 29 ^ (uint64_t{src_port} << 32 | uint64_t{dst_port} << 1 | v6)) * 0xbf58476d1ce4e5b9;
    return (h ^ h >> 32) | 1ull << 63;
  }

  TableConfig config_;
  uint64_t slots_ = 1;
  uint32_t address_bits_ = 0, generations_ = 1;
  ZeroedArray<Connection> connections_;
  ZeroedArray<Entry> entries_;
  uint64_t entry_mask_ = 0;
  ZeroedArray<uint32_t> free_servers_;  // stack
  uint32_t free_count_ = 0, servers_open_ = 0, servers_used_ = 0;
  ZeroedArray<Message> rings_;
  ZeroedArray<uint32_t> free_rings_;
  uint32_t free_ring_count_ = 0, rings_used_ = 0;
  ZeroedArray<Carry> carries_;
  ZeroedArray<uint32_t> free_carries_;
  uint32_t free_carry_count_ = 0, carries_used_ = 0;
};

}  // namespace millrace::load
