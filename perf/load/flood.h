// A flood beside the real clients: segments of one kind from random addresses and ports of a network that nobody plays, at a rate
// of its own. Keeps nothing; what the device under test answers is nobody's and counted as other frames.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lib/base/prng.h"
#include "perf/load/options.h"
#include "perf/load/wire.h"

namespace millrace::load {

class Flood {
 public:
  // `options.flood` segments a second to options.targets (IPv4), over `wire`.
  Flood(const Options& options, Wire& wire, Counters& counters, uint64_t seed)
      : options_(options), wire_(wire), counters_(counters), random_(seed) {
    const Network& n = options.flood_sources;
    hosts_ = n.bits == 0 ? UINT32_MAX : UINT32_MAX >> n.bits;
    first_ = n.address.v4_host_order() & ~hosts_;
  }

  // Once a loop iteration. What the wire or this core cannot send in time is not made up for later: counted as missed.
  void step(base::TimeNs now) {
    if (begun_ == 0) begun_ = now;
    const auto due = static_cast<uint64_t>(static_cast<double>(now - begun_) * options_.flood / 1e9);
    if (due > done_ + kMostBehind) {
      counters_.flood_missed += due - kMostBehind - done_;
      done_ = due - kMostBehind;
    }
    for (uint32_t n = 0; n < kPerStep && done_ < due && !wire_.congested(); ++n, ++done_) send();
  }

 private:
  static constexpr uint32_t kPerStep = 64;
  static constexpr uint64_t kMostBehind = 4'096;  // segments

  void send() {
    rte_mbuf* m = wire_.alloc();
    if (m == nullptr) return;
    const uint64_t r = random_.next(), more = random_.next();
    const Endpoint& target = options_.targets[done_ % options_.targets.size()];
    const bool syn = (options_.flood_flags & 0x02) != 0;
    const uint8_t options = syn ? 4 : 0;
    const auto bytes = static_cast<uint16_t>(wire_.header_bytes(false) + options);
    m->data_len = bytes;
    m->pkt_len = bytes;
    if (syn) base::store_be32(rte_pktmbuf_mtod(m, uint8_t*) + wire_.header_bytes(false), 0x020405b4);  // MSS 1460
    wire_.write_headers(
        m,
        {false, first_ | (static_cast<uint32_t>(r) & hosts_), target.address.v4_host_order(),
         static_cast<uint16_t>(1'024 + (r >> 32) % 64'000), target.port, static_cast<uint32_t>(more),
         (options_.flood_flags & 0x10) != 0 ? static_cast<uint32_t>(more >> 32) : 0, 65'535, options_.flood_flags, options},
        0, 0);
    wire_.send(m);
    ++counters_.flood_frames;
  }

  const Options& options_;
  Wire& wire_;
  Counters& counters_;
  base::Prng random_;
  uint32_t first_ = 0, hosts_ = 0;
  base::TimeNs begun_ = 0;
  uint64_t done_ = 0;
};

}  // namespace millrace::load
