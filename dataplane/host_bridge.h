// The host's end of the exception path: a TAP device a port, and one ordinary thread that copies frames between the rings of the
// workers and the devices. All system calls of the path are made here.
//
//   worker 0 ─ring─┐                         ┌─▶ mr-ingress ─▶ the host's stack ─▶ bird, sshd, …
//   worker 1 ─ring─┼─▶ thread: write, read ──┼─▶ mr-egress
//   worker 0 ◀ring─┘                         └─◀
//
// A ring to worker 0 that is full stops the reading: the host's own queue in front of the device then holds frames back and
// drops.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "dataplane/exception_path.h"
#include "lib/base/status.h"
#include "lib/io/tap.h"

namespace millrace::dataplane {

class HostBridge {
 public:
  struct Device {
    std::string name;  // of the TAP
    io::MacAddress mac{};
    uint16_t mtu = 1500;
  };
  static constexpr uint64_t kRingBytes = 1 << 20;  // of each ring; a record is at most half of it

  // Makes the devices, one for each port in its order, and the rings of `workers` workers.
  static base::Result<std::unique_ptr<HostBridge>> create(const std::vector<Device>& devices, uint32_t workers);
  ~HostBridge();  // after stop()
  HostBridge(const HostBridge&) = delete;
  HostBridge& operator=(const HostBridge&) = delete;

  // The worker's end of the rings; null where that worker takes nothing from the host.
  shm::RingProducer& to_host(uint32_t worker) { return lanes_[worker].producer; }
  shm::RingConsumer* from_host(uint32_t worker) { return worker == 0 ? &from_host_consumer_ : nullptr; }

  void start();
  void stop();
  // Copies what is waiting, both ways. True when there was something. The thread calls it; tests do without the thread.
  bool turn();
  uint64_t refused() const { return refused_.load(std::memory_order_relaxed); }  // frames that the host did not take

 private:
  struct Memory {
    void operator()(uint8_t* p) const;
  };
  struct Lane {
    std::unique_ptr<uint8_t, Memory> memory;
    shm::RingProducer producer;  // the worker's
    shm::RingConsumer consumer;  // ours
  };
  HostBridge() = default;
  static std::unique_ptr<uint8_t, Memory> make_ring(shm::RingProducer& producer, shm::RingConsumer& consumer);
  void run();

  static constexpr uint32_t kFramesPerTurn = 64;  // of a device or ring, before the next has its turn
  std::vector<std::unique_ptr<io::Tap>> taps_;
  std::vector<Lane> lanes_;
  std::unique_ptr<uint8_t, Memory> from_host_memory_;
  shm::RingProducer from_host_producer_;  // ours
  shm::RingConsumer from_host_consumer_;  // worker 0's
  std::unique_ptr<uint8_t[]> frame_;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> refused_{0};
  std::thread thread_;
};

}  // namespace millrace::dataplane
