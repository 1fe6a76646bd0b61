// Where the data plane's packets come from: pools in EAL's memory with per-core caches. Tests and the simulator have a pool of
// their own that needs no EAL (tests/support/heap_packet_pool.h); both are rte_mempools, so nobody above sees a difference.
#pragma once

#include <cstdint>
#include <memory>

#include "lib/base/status.h"
#include "lib/io/packet.h"

namespace millrace::io {

// Bytes of data room of a payload packet behind the headroom: an Ethernet frame of MTU 1500 with VLAN tags, and memif's buffer
// size.
inline constexpr uint32_t kPayloadRoom = 2048;
// Data room of a header packet: Ethernet 14 + VLAN 4 + IPv6 40 + TCP 60 and a head of a request or response with a small body,
// copied; also ARP, ND and RST frames. With it a packet is 832 bytes; what is longer goes by reference from 512 bytes on
// (port_queue.h), or takes a payload packet.
inline constexpr uint32_t kHeaderRoom = 512;

// A pool in EAL memory on the socket of `lcore`, with a per-core cache. `room` as above (0: indirect packets only).
// Fails with a sentence that says how much memory it wanted.
base::Result<PacketPool> make_eal_pool(const char* name, uint32_t count, uint32_t room, unsigned lcore);
void free_eal_pool(PacketPool pool);

}  // namespace millrace::io
