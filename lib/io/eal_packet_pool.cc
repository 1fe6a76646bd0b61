#include <algorithm>
#include <string>

#include <rte_errno.h>
#include <rte_lcore.h>

#include "lib/io/packet_pool.h"

namespace millrace::io {

base::Result<PacketPool> make_eal_pool(const char* name, uint32_t count, uint32_t room, unsigned lcore) {
  const uint32_t buffer = room == 0 ? 0 : room + RTE_PKTMBUF_HEADROOM;
  // A cache per core; mempool wants count * 2/3 >= cache, and packets in the caches of other cores must not starve this one.
  const unsigned cache = std::min<uint32_t>(RTE_MEMPOOL_CACHE_MAX_SIZE / 2, count / 32);
  rte_mempool* mp = rte_pktmbuf_pool_create(name, count, cache, 0, static_cast<uint16_t>(buffer),
                                            static_cast<int>(rte_lcore_to_socket_id(lcore)));
  if (mp == nullptr) {
    const uint64_t mb = (uint64_t{count} * (sizeof(rte_mbuf) + buffer + 64) >> 20) + 1;
    return base::Error{"no memory for the packet pool '" + std::string(name) + "' (" + std::to_string(count) +
                       " packets, about " + std::to_string(mb) + " MB): " + rte_strerror(rte_errno) +
                       "; raise dataplane.memory_mb or lower dataplane.limits"};
  }
  return PacketPool(mp);
}

void free_eal_pool(PacketPool pool) { rte_mempool_free(pool.raw()); }

}  // namespace millrace::io
