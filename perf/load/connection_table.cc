#include "perf/load/connection_table.h"

#include <algorithm>

namespace millrace::load {

ConnectionTable::ConnectionTable(const TableConfig& config)
    : deadlines(config.clients + config.servers),
      config_(config),
      slots_(std::bit_ceil(std::max<uint64_t>(config.clients, 1))),
      address_bits_(static_cast<uint32_t>(std::countr_zero(config.client_addresses))),
      connections_(config.clients + config.servers),
      rings_(size_t{config.rings} * kRingMessages),
      free_rings_(config.rings),
      carries_(kMaxCarries),
      free_carries_(kMaxCarries) {
  const uint64_t tuples = uint64_t{config.client_addresses} * (kLastClientPort - kFirstClientPort + 1);
  generations_ = static_cast<uint32_t>(std::min<uint64_t>(tuples / slots_, UINT32_MAX));
  for (uint32_t i = 0; i < config.clients; ++i) connections_[i].ring = connections_[i].carry = connections_[i].tls = kNone;
  const uint64_t entries = std::bit_ceil(std::max<uint64_t>(uint64_t{config.servers} * 2, 2));
  entries_ = ZeroedArray<Entry>(entries);
  entry_mask_ = entries - 1;
  free_servers_ = ZeroedArray<uint32_t>(config.servers);
}

uint32_t ConnectionTable::add_server(const Segment& s) {
  uint32_t i;
  if (free_count_ != 0) i = free_servers_[--free_count_];
  else if (servers_used_ < config_.servers) i = config_.clients + servers_used_++;
  else return kNone;
  Connection& c = connections_[i];
  c = Connection{};
  c.local = s.dst, c.remote = s.src;
  c.local_port = s.dst_port, c.remote_port = s.src_port;
  c.flags = static_cast<uint16_t>(kServer | (s.v6 ? kV6 : 0));
  c.ring = c.carry = c.tls = kNone;
  const uint64_t h = hash_of(s.v6, s.src, s.dst, s.src_port, s.dst_port);
  uint64_t at = h & entry_mask_;
  while (entries_[at].index != 0) at = (at + 1) & entry_mask_;
  entries_[at] = {static_cast<uint32_t>(h >> 32), i + 1};
  ++servers_open_;
  return i;
}

void ConnectionTable::remove_server(uint32_t i) {
  auto home = [&](uint32_t j) {
    const Connection& c = connections_[j];
    return hash_of((c.flags & kV6) != 0, c.remote, c.local, c.remote_port, c.local_port) & entry_mask_;
  };
  uint64_t at = home(i);
  while (entries_[at].index != i + 1) {
    MILLRACE_ASSERT(entries_[at].index != 0, "an open server connection is in the table");
    at = (at + 1) & entry_mask_;
  }
  // Linear probing without tombstones: what follows moves up when its home allows (Knuth 6.4, algorithm R).
  for (uint64_t next = (at + 1) & entry_mask_; entries_[next].index != 0; next = (next + 1) & entry_mask_) {
    const uint64_t h = home(entries_[next].index - 1);
    if (((next - h) & entry_mask_) >= ((next - at) & entry_mask_)) {
      entries_[at] = entries_[next];
      at = next;
    }
  }
  entries_[at] = {};
  connections_[i].state = State::kFree;
  free_servers_[free_count_++] = i;
  --servers_open_;
}

Message* ConnectionTable::push_message(Connection& c) {
  if (c.ring == kNone) {
    if (c.in_flight == 0) {
      ++c.in_flight;
      return &c.first;
    }
    uint32_t ring;
    if (free_ring_count_ != 0) ring = free_rings_[--free_ring_count_];
    else if (rings_used_ < config_.rings) ring = rings_used_++;
    else return nullptr;
    rings_[size_t{ring} * kRingMessages] = c.first;
    c.ring = ring;
    c.ring_head = 0;
  }
  if (c.in_flight == kRingMessages) return nullptr;
  return &rings_[size_t{c.ring} * kRingMessages + ((c.ring_head + c.in_flight++) & (kRingMessages - 1))];
}

ConnectionTable::Carry* ConnectionTable::take_carry(Connection& c) {
  if (c.carry != kNone) return &carries_[c.carry];
  if (free_carry_count_ != 0) c.carry = free_carries_[--free_carry_count_];
  else if (carries_used_ < kMaxCarries) c.carry = carries_used_++;
  else return nullptr;
  carries_[c.carry].length = 0;
  return &carries_[c.carry];
}

void ConnectionTable::drop_carry(Connection& c) {
  if (c.carry == kNone) return;
  free_carries_[free_carry_count_++] = c.carry;
  c.carry = kNone;
}

void ConnectionTable::give_back(Connection& c) {
  drop_carry(c);
  if (c.ring != kNone) free_rings_[free_ring_count_++] = c.ring;
  c.ring = kNone;
  c.in_flight = 0;
}

}  // namespace millrace::load
