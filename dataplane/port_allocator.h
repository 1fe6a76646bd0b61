// Local ports of the connections a worker opens: one bitmap per (local address, remote address, remote port), so that the same
// local port serves many endpoints at once and a search is a scan of words. A port stays taken through TIME-WAIT.
#pragma once

#include <cstdint>
#include <memory>

#include "lib/base/ip_address.h"
#include "lib/io/steering.h"

namespace millrace::dataplane {

class PortAllocator {
 public:
  // Ports first..last inclusive. `max_maps`: pairs that may have ports in use at one time (8 KiB each, reserved at start, touched
  // when used).
  PortAllocator(uint16_t first, uint16_t last, uint32_t max_maps, uint64_t seed);
  ~PortAllocator();
  PortAllocator(const PortAllocator&) = delete;
  PortAllocator& operator=(const PortAllocator&) = delete;

  // A free port whose return traffic arrives at `worker`, now taken. 0 when none was found: range spent, all candidates looked
  // at belonged to other workers, or no map left.
  uint16_t allocate(const io::Steering& steering, uint32_t worker, uint16_t port_index, const base::IpAddress& local,
                    const base::IpAddress& remote, uint16_t remote_port);
  // Gives back what allocate() gave for the same pair.
  void release(const base::IpAddress& local, const base::IpAddress& remote, uint16_t remote_port, uint16_t local_port);

  uint32_t in_use() const { return in_use_; }  // ports
  uint32_t maps_in_use() const { return maps_in_use_; }
  static constexpr uint32_t kMaxTriesPerWorker = 64;  // free candidates of a run, times the number of workers
  static constexpr uint32_t kMaxRuns = 32;            // runs of candidates in different parts of the range

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint32_t kWords = 65'536 / 64;
  struct Map {
    base::IpAddress local, remote;
    uint16_t remote_port = 0;
    uint32_t used = 0;      // bits set
    uint32_t cursor = 0;    // next port to look at
    uint32_t next = kNone;  // hash chain or free list
  };
  uint32_t bucket(const base::IpAddress& local, const base::IpAddress& remote, uint16_t remote_port) const;
  uint32_t find(const base::IpAddress& local, const base::IpAddress& remote, uint16_t remote_port) const;
  void drop_map(uint32_t m);

  uint16_t first_, last_;
  uint32_t max_maps_;
  uint64_t seed_;
  uint64_t draws_ = 0;
  uint32_t mask_ = 0;
  uint32_t free_ = kNone;
  uint32_t in_use_ = 0, maps_in_use_ = 0;
  std::unique_ptr<Map[]> maps_;
  std::unique_ptr<uint32_t[]> heads_;
  uint64_t* bits_ = nullptr;  // kWords a map, mapped memory; a map without ports has all bits clear
};

}  // namespace millrace::dataplane
