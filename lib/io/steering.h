// Which worker owns a flow, and the way from one worker to another for frames that arrive at the wrong one.
//
// One function, owner(), is used both ways: to dispatch what arrives, and to choose the local port of a connection we open so
// that its return traffic arrives at the worker that opened it.
//   hardware  the port spreads by RSS with a key and table that we know: owner = table[toeplitz(remote, local)], and frames
//   arrive there software  it cannot (one queue, or a spreading of its own like af_packet's fan-out): owner = symmetric hash mod
//   workers; whoever
//             receives the frame hands it over
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "lib/base/ip_address.h"
#include "lib/io/port_queue.h"

struct rte_ring;

namespace millrace::io {

// What a port's RSS does: the key, and the queue of each entry of the redirection table (power of two entries).
struct RssTable {
  std::array<uint8_t, 52> key{};
  std::vector<uint16_t> reta;
};

// Toeplitz hash of `n` bytes (Microsoft RSS). `key` has at least n + 4 bytes.
uint32_t toeplitz(const uint8_t* key, const uint8_t* input, uint32_t n);

// Whether among any 256 local ports that differ in their low byte only, some lead to each of `queues` queues, IPv4 and IPv6. One
// random key in a hundred does not; local ports would then be hard to find for connections that we open.
bool reaches_all_queues(const RssTable& rss, uint32_t queues);

struct HardwareSteering;  // steering.cc

class Steering {
 public:
  // Every port in software mode until set_hardware().
  Steering(uint32_t workers, uint64_t seed) : workers_(workers), seed_(seed) {}

  // `port` spreads by `rss` over queues numbered like the workers.
  void set_hardware(uint16_t port, const RssTable& rss);
  // True when the queue of arrival already is the answer: no hash needed.
  bool by_queue(uint16_t port) const { return workers_ == 1 || hardware_[port] != nullptr; }
  // The worker that owns the flow whose local address belongs to `port`. Ports in host order.
  uint32_t owner(uint16_t port, const base::IpAddress& local, uint16_t local_port, const base::IpAddress& remote,
                 uint16_t remote_port) const;
  uint32_t workers() const { return workers_; }

  // owner() for many local ports of one (local address, remote endpoint): the hash of all but the local port once, then two table
  // look-ups a candidate (Toeplitz is linear over XOR).
  class PortChoice {
   public:
    PortChoice(const Steering& s, uint16_t port, const base::IpAddress& local, const base::IpAddress& remote,
               uint16_t remote_port);
    uint32_t owner(uint16_t local_port) const;

   private:
    const Steering& steering_;
    const HardwareSteering* hardware_;
    const base::IpAddress& local_;  // of the caller; outlives the choice
    uint64_t remote_end_ = 0;       // software: hash of the remote end
    uint32_t base_ = 0;             // hardware: Toeplitz hash with local port 0
    bool v6_ = false;
  };

 private:
  friend class PortChoice;
  uint32_t workers_;
  uint64_t seed_;
  std::array<std::shared_ptr<HardwareSteering>, kMaxPorts>
      hardware_;  // shared_ptr: set at start only, never touched on the hot path
};

// Bounded single-producer single-consumer rings between each pair of workers, in heap memory (no EAL needed).
class HandoverMesh {
 public:
  static constexpr uint32_t kRingSize = 1024;  // frames; a power of two
  explicit HandoverMesh(uint32_t workers);
  ~HandoverMesh();  // frees what is still in the rings
  HandoverMesh(const HandoverMesh&) = delete;
  HandoverMesh& operator=(const HandoverMesh&) = delete;

  // False when the ring is full: the caller still owns the frame. Called by worker `from` only.
  bool push(uint32_t from, uint32_t to, rte_mbuf* frame);
  // Called by worker `to` only.
  uint16_t pop(uint32_t from, uint32_t to, rte_mbuf** out, uint16_t n);
  uint32_t workers() const { return workers_; }

 private:
  uint32_t workers_;
  std::vector<rte_ring*> rings_;  // [from * workers + to]; null on the diagonal
};

}  // namespace millrace::io
