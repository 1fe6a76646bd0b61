// RING_HASH and MAGLEV: which endpoint a hash belongs to, point by point as Envoy's RingHashLoadBalancer and MaglevLoadBalancer
// place them, so that both send the same request to the same endpoint. Built off the poll core, immutable, shared by all workers.
//
//   ring     points sorted by hash:  ... 3a·B  41·A  5c·A  77·C ...    a hash belongs to the first point that is not below it
//   Maglev   slots 0 … size-1:       B A C A B ...                     a hash belongs to slot hash % size
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace millrace::route::balancer {

class HashTable {
 public:
  struct Host {
    std::string key;        // what is hashed: "10.0.0.1:80", "[fd00::1]:80", or the hostname
    uint32_t endpoint = 0;  // index into EndpointSet.endpoints
    double weight = 0;      // > 0; those of all hosts sum up to 1
  };

  HashTable() = default;  // empty
  // `least`, `most`: RingHashLbConfig.minimum_ring_size and maximum_ring_size, from 1.
  static HashTable ring(std::vector<Host> hosts, uint64_t least, uint64_t most, bool murmur);
  // `size`: MaglevLbConfig.table_size, a prime above 2.
  static HashTable maglev(std::vector<Host> hosts, uint32_t size);

  bool empty() const { return size_ == 0; }
  uint32_t size() const { return size_; }
  // Where a hash falls; `attempt`: how many choices of it were turned down before. Not when empty().
  uint32_t slot(uint64_t hash, uint32_t attempt = 0) const;
  // The endpoint of a slot, and its share of all weights.
  uint32_t endpoint(uint32_t slot) const { return owners_[owner(slot)].endpoint; }
  double weight(uint32_t slot) const { return owners_[owner(slot)].weight; }
  // Who else is there, for bounded load.
  struct Owner {
    uint32_t endpoint;
    double weight;
  };
  const std::vector<Owner>& owners() const { return owners_; }
  size_t bytes() const { return points_.capacity() * 8 + packed_.capacity() + owners_.capacity() * sizeof(Owner); }

 private:
  void start(uint32_t size, const std::vector<Host>& hosts);
  void set_owner(uint32_t slot, uint32_t owner);
  uint32_t owner(uint32_t slot) const;

  std::vector<Owner> owners_;
  std::vector<uint64_t> points_;  // ring only: sorted
  std::vector<uint8_t>
      packed_;  // owner of each slot, `bits_` each: a table of Envoy's 65,537 slots takes 32 KiB for 10 endpoints
  uint32_t size_ = 0, bits_ = 0;
};

}  // namespace millrace::route::balancer
