#include "lib/io/steering.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

#include <rte_mbuf.h>
#include <rte_ring.h>

#include "lib/base/assert.h"
#include "lib/base/bytes.h"

namespace millrace::io {

// A port's RSS, ready for questions. `port_xor[half][byte]` is the hash contribution of one byte of the local port, per family.
struct HardwareSteering {
  RssTable rss;
  uint32_t mask = 0;
  uint32_t port_xor[2][2][256] = {};  // [v6][high/low byte]

  uint32_t queue(uint32_t hash) const { return rss.reta[hash & mask]; }
};

namespace {

// The tuple as it is in a frame that arrives: source is the remote end. Returns its length.
uint32_t rss_input(uint8_t out[36], const base::IpAddress& local, uint16_t local_port, const base::IpAddress& remote,
                   uint16_t remote_port) {
  const uint32_t skip = local.is_v4() ? 12 : 0, n = 16 - skip;
  std::memcpy(out, remote.bytes.data() + skip, n);
  std::memcpy(out + n, local.bytes.data() + skip, n);
  base::store_be16(out + 2 * n, remote_port);
  base::store_be16(out + 2 * n + 2, local_port);
  return 2 * n + 4;
}

uint64_t fold(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide p = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(p) ^ static_cast<uint64_t>(p >> 64);
}

uint64_t end_hash(uint64_t seed, const base::IpAddress& a, uint16_t port) {
  uint64_t w[2];
  std::memcpy(w, a.bytes.data(), 16);
  return fold(fold(w[0] ^ seed ^ 0x9e3779b97f4a7c15, w[1] ^ 0xc2b2ae3d27d4eb4f) ^ port, 0xd6e8feb86659fd93);
}

// Equal for both directions: both ends are hashed alike and added.
uint32_t software_owner(uint32_t workers, uint64_t local_end, uint64_t remote_end) {
  const uint64_t h = fold(local_end + remote_end, 0xa0761d6478bd642f);
  return static_cast<uint32_t>((h >> 32) * workers >> 32);
}

}  // namespace

uint32_t toeplitz(const uint8_t* key, const uint8_t* input, uint32_t n) {
  uint32_t result = 0;
  uint32_t window = base::load_be32(key);
  for (uint32_t i = 0; i < n; ++i) {
    uint32_t next = key[i + 4];
    for (uint32_t bit = 0; bit < 8; ++bit) {
      if (input[i] & (0x80u >> bit)) result ^= window;
      window = window << 1 | (next >> 7 & 1);
      next <<= 1;
    }
  }
  return result;
}

bool reaches_all_queues(const RssTable& rss, uint32_t queues) {
  const auto mask = static_cast<uint32_t>(rss.reta.size()) - 1;
  for (const uint32_t n : {12u, 36u}) {
    std::array<uint32_t, 256> low{};  // what the low byte of the local port adds to a hash
    for (uint32_t byte = 0; byte < 256; ++byte) {
      uint8_t input[36] = {};
      input[n - 1] = static_cast<uint8_t>(byte);
      low[byte] = toeplitz(rss.key.data(), input, n);
    }
    for (uint32_t base = 0; base <= mask; ++base) {
      std::vector<bool> seen(queues);
      for (const uint32_t x : low) seen[rss.reta[(base ^ x) & mask] % queues] = true;
      if (std::find(seen.begin(), seen.end(), false) != seen.end()) return false;
    }
  }
  return true;
}

void Steering::set_hardware(uint16_t port, const RssTable& rss) {
  MILLRACE_ASSERT(port < kMaxPorts && std::has_single_bit(rss.reta.size()), "a redirection table of a power of two entries");
  auto h = std::make_shared<HardwareSteering>();
  h->rss = rss;
  h->mask = static_cast<uint32_t>(rss.reta.size()) - 1;
  for (uint32_t v6 = 0; v6 < 2; ++v6) {
    const uint32_t n = v6 ? 36 : 12;
    for (uint32_t half = 0; half < 2; ++half) {
      for (uint32_t byte = 0; byte < 256; ++byte) {
        uint8_t input[36] = {};
        input[n - 2 + half] = static_cast<uint8_t>(byte);
        h->port_xor[v6][half][byte] = toeplitz(rss.key.data(), input, n);
      }
    }
  }
  hardware_[port] = std::move(h);
}

uint32_t Steering::owner(uint16_t port, const base::IpAddress& local, uint16_t local_port, const base::IpAddress& remote,
                         uint16_t remote_port) const {
  if (workers_ == 1) return 0;
  return PortChoice(*this, port, local, remote, remote_port).owner(local_port);
}

Steering::PortChoice::PortChoice(const Steering& s, uint16_t port, const base::IpAddress& local, const base::IpAddress& remote,
                                 uint16_t remote_port)
    : steering_(s), hardware_(s.hardware_[port].get()), local_(local), v6_(!local.is_v4()) {
  if (hardware_ != nullptr) {
    uint8_t input[36];
    const uint32_t n = rss_input(input, local, 0, remote, remote_port);
    base_ = toeplitz(hardware_->rss.key.data(), input, n);
  } else {
    remote_end_ = end_hash(s.seed_, remote, remote_port);
  }
}

uint32_t Steering::PortChoice::owner(uint16_t local_port) const {
  if (steering_.workers_ == 1) return 0;
  if (hardware_ != nullptr) {
    const uint32_t hash = base_ ^ hardware_->port_xor[v6_][0][local_port >> 8] ^ hardware_->port_xor[v6_][1][local_port & 255];
    return hardware_->queue(hash) % steering_.workers_;
  }
  return software_owner(steering_.workers_, end_hash(steering_.seed_, local_, local_port), remote_end_);
}

HandoverMesh::HandoverMesh(uint32_t workers) : workers_(workers), rings_(size_t{workers} * workers, nullptr) {
  for (uint32_t i = 0; i < workers; ++i) {
    for (uint32_t j = 0; j < workers; ++j) {
      if (i == j) continue;
      const auto size = static_cast<size_t>(rte_ring_get_memsize(kRingSize));
      auto* ring = static_cast<rte_ring*>(
          std::aligned_alloc(RTE_CACHE_LINE_SIZE, (size + RTE_CACHE_LINE_SIZE - 1) & ~size_t{RTE_CACHE_LINE_SIZE - 1}));
      MILLRACE_ASSERT(ring != nullptr && rte_ring_init(ring, "handover", kRingSize, RING_F_SP_ENQ | RING_F_SC_DEQ) == 0,
                      "memory for hand-over rings");
      rings_[size_t{i} * workers + j] = ring;
    }
  }
}

HandoverMesh::~HandoverMesh() {
  for (rte_ring* ring : rings_) {
    if (ring == nullptr) continue;
    void* m;
    while (rte_ring_sc_dequeue(ring, &m) == 0) rte_pktmbuf_free(static_cast<rte_mbuf*>(m));
    std::free(ring);
  }
}

bool HandoverMesh::push(uint32_t from, uint32_t to, rte_mbuf* frame) {
  return rte_ring_sp_enqueue(rings_[size_t{from} * workers_ + to], frame) == 0;
}

uint16_t HandoverMesh::pop(uint32_t from, uint32_t to, rte_mbuf** out, uint16_t n) {
  if (from == to) return 0;
  return static_cast<uint16_t>(
      rte_ring_sc_dequeue_burst(rings_[size_t{from} * workers_ + to], reinterpret_cast<void**>(out), n, nullptr));
}

}  // namespace millrace::io
