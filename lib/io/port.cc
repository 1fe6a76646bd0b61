#include "lib/io/port.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_lcore.h>
#include <rte_spinlock.h>
#include <rte_tcp.h>

#include "lib/io/eal_log.h"

namespace millrace::io {

using base::Error;
using base::Result;
using base::Status;

// Where a device has fewer transmit queues than there are workers, they share: the only lock of the packet path, and only there.
struct alignas(64) TxLock {
  rte_spinlock_t lock;
};

namespace {

constexpr uint16_t kSentKept = 128;  // sent packets that a driver may keep before it gives them back, where it lets us choose
constexpr uint32_t kFrameOverhead = 14 + 4;  // Ethernet and one VLAN tag

// What a driver does that it does not say.
struct DriverTraits {
  // Its peers are sockets of this very host, which leave checksums half done without a mark (engine rule 7).
  bool silent_host_peer = false;
  // RTE_MBUF_F_RX_L4_CKSUM_NONE means VIRTIO_NET_HDR_F_NEEDS_CSUM: the bytes came through memory, the sum was left to a device.
  bool marks_unsummed = false;
  // Our frames are as it wants them without rte_eth_tx_prepare(), which for these drivers only writes the pseudo-header's sum
  // that is already there.
  bool takes_frames_unprepared = false;
  // The pseudo-header's sum of a frame to be cut has the length in it, as virtio defines it (rte_eth_tx_prepare() would put it
  // in).
  bool full_sum_for_tso = false;
  // Gives sent packets back only when all but tx_free_thresh places of its ring are taken: then a ring of a thousand keeps a
  // thousand packets going round that no cache holds.
  bool frees_late = false;
  // "LRO" is nothing but large frames of a peer that nobody cut: no harm in it, and most of bulk throughput.
  bool lro_is_free = false;
  // The driver copies each frame with the processor: any memory of the process will do.
  bool copies = false;
};
DriverTraits traits_of(const std::string& driver) {
  DriverTraits t;
  t.silent_host_peer = driver == "net_af_packet" || driver == "net_af_xdp";
  const bool virtio = driver == "net_virtio" || driver == "net_virtio_user";
  t.marks_unsummed = t.takes_frames_unprepared = virtio || driver == "net_vhost";
  t.full_sum_for_tso = t.lro_is_free = t.frees_late = virtio;
  t.copies = driver == "net_vhost";
  return t;
}

class EthQueue final : public PortQueue {
 public:
  EthQueue(uint16_t id, uint16_t rx_queue, uint16_t tx_queue, rte_spinlock_t* lock, const PortCapabilities& c, bool unprepared,
           PacketPool pool)
      : id_(id), rx_queue_(rx_queue), tx_queue_(tx_queue), unprepared_(unprepared), lock_(lock), pool_(pool) {
    capabilities_ = c;
  }

  uint16_t rx_burst(rte_mbuf** out, uint16_t n) override {
    if (rx_queue_ == kNoQueue) return 0;
    if (keep_alive_ && --until_keep_alive_ == 0) [[unlikely]] {
      until_keep_alive_ = kKeepAliveInterval;
      tx_burst(nullptr, 0);
    }
    const uint16_t got = rte_eth_rx_burst(id_, rx_queue_, out, n);
    uint16_t kept = 0;
    for (uint16_t i = 0; i < got; ++i) {
      rte_mbuf* m = out[i];
      if (m->nb_segs > 1) [[unlikely]]
        m = straighten(m);
      if (m != nullptr) out[kept++] = m;
    }
    return kept;
  }

  uint16_t tx_burst(rte_mbuf** frames, uint16_t n) override {
    if (lock_ == nullptr) return send(frames, n);
    // Whoever has the lock may have lost its core for milliseconds: to us the queue is full meanwhile.
    if (rte_spinlock_trylock(lock_) == 0) return 0;
    const uint16_t sent = send(frames, n);
    rte_spinlock_unlock(lock_);
    return sent;
  }

  static constexpr uint16_t kNoQueue = UINT16_MAX;
  // 802.3ad: the driver sends its LACPDUs from within transmit calls, and wants one every 100 ms, also of nothing.
  void keep_alive() { keep_alive_ = true; }

 private:
  static constexpr uint32_t kKeepAliveInterval = 1024;  // receive calls: an idle loop makes thousands of them a millisecond
  uint16_t send(rte_mbuf** frames, uint16_t n) {
    if (!unprepared_ && (capabilities_.tx_tcp_checksum || capabilities_.tx_ip_checksum || capabilities_.tso)) {
      const uint16_t ready = rte_eth_tx_prepare(id_, tx_queue_, frames, n);
      if (ready < n && ready == 0) {  // the driver refuses the first: drop it, or it would block the queue for ever
        rte_pktmbuf_free(frames[0]);
        count(stats::DropReason::kTxTooBig);
        return 1;
      }
      n = ready;
    }
    return rte_eth_tx_burst(id_, tx_queue_, frames, n);
  }
  // A chain in one buffer where it fits, as it is where it is short enough, else nothing (counted).
  rte_mbuf* straighten(rte_mbuf* m) {
    if (m->pkt_len <= pool_.data_room()) {
      PacketPtr whole = pool_.alloc();
      if (whole) {
        uint8_t* at = whole.append(m->pkt_len);
        for (const rte_mbuf* s = m; s != nullptr; s = s->next) {
          std::memcpy(at, rte_pktmbuf_mtod(s, const uint8_t*), s->data_len);
          at += s->data_len;
        }
        whole.raw()->ol_flags = m->ol_flags & ~RTE_MBUF_F_INDIRECT & ~RTE_MBUF_F_EXTERNAL;
        whole.raw()->hash = m->hash;
        rte_pktmbuf_free(m);
        return whole.release();
      }
    }
    if (m->nb_segs <= kMaxRxSegments) return m;
    rte_pktmbuf_free(m);
    count(stats::DropReason::kRxTooManySegments);
    return nullptr;
  }

  uint16_t id_, rx_queue_, tx_queue_;
  bool unprepared_;
  bool keep_alive_ = false;
  uint32_t until_keep_alive_ = kKeepAliveInterval;
  rte_spinlock_t* lock_;
  PacketPool pool_;
};

std::string device_name(const std::string& devargs) {
  std::string name = devargs.substr(0, devargs.find(','));
  if (is_pci_address(name) && std::count(name.begin(), name.end(), ':') == 1) name = "0000:" + name;
  return name;
}

std::string argument(const std::string& devargs, const char* key) {
  const std::string needle = std::string(",") + key + "=";
  const size_t at = devargs.find(needle);
  if (at == std::string::npos) return "";
  const size_t from = at + needle.size();
  return devargs.substr(from, devargs.find(',', from) - from);
}

// The same with `,key=value` in the place of another value, or at the end.
std::string replaced(std::string arguments, const std::string& key, uint32_t value) {
  const std::string needle = "," + key + "=";
  const size_t at = arguments.find(needle);
  if (at != std::string::npos) {
    const size_t end = std::min(arguments.find(',', at + 1), arguments.size());
    arguments.erase(at, end - at);
  }
  return arguments + needle + std::to_string(value);
}

// Queues of the interface of a net_af_xdp device. DPDK's driver counts only those that receive and send ("combined"). An
// interface that has them apart, as veth has, is one queue to it, though it can be told to begin at any: such an interface gets a
// device for each queue.
struct XdpQueues {
  uint32_t combined = 0, apart = 0;
};
std::optional<XdpQueues> xdp_queues(const PortOptions& o) {
  const std::string iface = argument(o.devargs, "iface");
  if (o.workers == 1 || !o.devargs.starts_with("net_af_xdp") || iface.size() >= IFNAMSIZ) return std::nullopt;
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return std::nullopt;
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  ifreq request{};
  std::memcpy(request.ifr_name, iface.c_str(), iface.size());
  request.ifr_data = reinterpret_cast<char*>(&channels);
  const bool known = ioctl(fd, SIOCETHTOOL, &request) == 0;
  close(fd);
  if (!known) return std::nullopt;
  return XdpQueues{channels.combined_count, std::min(channels.rx_count, channels.tx_count)};
}

// Everything that can be known to be wrong before the driver says so in its own words.
Status check_interface(const std::string& devargs) {
  const std::string iface = argument(devargs, "iface");
  const bool by_socket = devargs.starts_with("net_af_packet") || devargs.starts_with("net_af_xdp");
  if (!by_socket || iface.empty()) return {};
  if (access(("/sys/class/net/" + iface).c_str(), F_OK) != 0) {
    return Error{"there is no network interface '" + iface +
                 "' in this network namespace; create it first (ip link show lists those that are there)"};
  }
  return {};
}

}  // namespace

base::Result<std::unique_ptr<Port>> Port::open(const PortOptions& options, std::span<const PacketPool> pools) {
  MILLRACE_ASSERT(pools.size() == options.workers && options.workers > 0, "one pool for each worker");
  const std::optional<XdpQueues> xdp = xdp_queues(options);
  if (!xdp) return open_device(options, pools);
  if (xdp->combined == 0 && xdp->apart >= options.workers) return open_parts(options, pools);
  if (xdp->combined == 0 && xdp->apart > 1)
    return Error{"port '" + options.name + "' (" + options.devargs + "): the interface has " + std::to_string(xdp->apart) +
                 " queues for " + std::to_string(options.workers) + " workers; give it one queue, or one for each worker"};
  PortOptions o = options;
  o.devargs = replaced(o.devargs, "queue_count", std::clamp(xdp->combined, 1u, options.workers));
  return open_device(o, pools);
}

// One device for each queue, all of the same interface. What they can do is alike, so the first speaks for all.
base::Result<std::unique_ptr<Port>> Port::open_parts(const PortOptions& options, std::span<const PacketPool> pools) {
  std::unique_ptr<Port> port(new Port);
  port->options_ = options;
  const size_t name_end = std::min(options.devargs.find(','), options.devargs.size());
  const std::string name = options.devargs.substr(0, name_end);
  const auto first = static_cast<uint32_t>(std::strtoul(argument(options.devargs, "start_queue").c_str(), nullptr, 10));
  for (uint32_t w = 0; w < options.workers; ++w) {
    PortOptions o = options;
    o.workers = 1;
    o.devargs = name + "_" + std::to_string(w) +
                replaced(replaced(options.devargs.substr(name_end), "start_queue", first + w), "queue_count", 1);
    auto part = open_device(o, pools.subspan(w, 1));
    if (!part.ok()) return Error{part.error()};
    port->parts_.push_back(std::move(part).value());
  }
  port->driver_ = port->parts_[0]->driver_;
  port->capabilities_ = port->parts_[0]->capabilities_;
  port->capabilities_.rx_queues = static_cast<uint16_t>(options.workers);
  port->notes_ = port->parts_[0]->notes_;
  return port;
}

base::Result<std::unique_ptr<Port>> Port::open_device(const PortOptions& options, std::span<const PacketPool> pools) {
  std::unique_ptr<Port> port(new Port);
  port->options_ = options;
  auto failed = [&](const Status& s) { return Error{"port '" + options.name + "' (" + options.devargs + "): " + s.error()}; };
  if (Status s = port->probe(); !s) return failed(s);
  if (Status s = port->configure(pools); !s) return failed(s);
  if (Status s = port->start(); !s) return failed(s);
  return port;
}

Port::~Port() {
  while (!parts_.empty()) parts_.pop_back();
  if (id_ == UINT16_MAX) return;
  rte_eth_dev_info info{};
  const bool known = rte_eth_dev_info_get(id_, &info) == 0;
  if (started_) rte_eth_dev_stop(id_);
  rte_eth_dev_close(id_);
  if (known && info.device != nullptr) rte_dev_remove(info.device);
  for (const std::string& m : options_.members) {
    uint16_t member = UINT16_MAX;
    rte_eth_dev_info of{};
    if (rte_eth_dev_get_port_by_name(device_name(m).c_str(), &member) != 0 || rte_eth_dev_info_get(member, &of) != 0) continue;
    rte_eth_dev_close(member);
    if (of.device != nullptr) rte_dev_remove(of.device);
  }
}

base::Status Port::probe() {
  if (Status s = check_interface(options_.devargs); !s) return s;
  EalLog log;
  for (const std::string& m : options_.members) {
    if (Status s = check_interface(m); !s) return s;
    uint16_t member = UINT16_MAX;
    if (rte_eth_dev_get_port_by_name(device_name(m).c_str(), &member) == 0) continue;
    if (const int r = rte_dev_probe(m.c_str()); r < 0 && r != -EEXIST)
      return Error{"member '" + m + "' of the bond: " + rte_strerror(-r) + log.tail()};
  }
  const std::string name = device_name(options_.devargs);
  if (rte_eth_dev_get_port_by_name(name.c_str(), &id_) != 0) {
    id_ = UINT16_MAX;
    const int r = rte_dev_probe(options_.devargs.c_str());
    if (r < 0 && r != -EEXIST) {
      const char* hint = r == -EFAULT ? "; is it spelt as DPDK names its drivers, and is the driver installed?"
                         : r == -EBUSY || r == -EADDRINUSE ? "; is another process using it?"
                         : is_pci_address(name)            ? "; is it bound to vfio-pci?"
                                                           : "";
      return Error{"the device did not come up: " + std::string(rte_strerror(-r)) + hint + log.tail()};
    }
    if (rte_eth_dev_get_port_by_name(name.c_str(), &id_) != 0) {
      id_ = UINT16_MAX;
      return Error{std::string("DPDK found no such Ethernet device") +
                   (is_pci_address(name) ? "; is it bound to vfio-pci?" : "; check the name (net_<driver><number>,arguments)") +
                   log.tail()};
    }
  }
  return {};
}

void Port::choose_capabilities(const rte_eth_dev_info& info) {
  PortCapabilities& c = capabilities_;
  const Offloads& may = options_.offloads;
  auto rx = [&](bool on, uint64_t flag) { return on && (info.rx_offload_capa & flag) != 0; };
  auto tx = [&](bool on, uint64_t flag) { return on && (info.tx_offload_capa & flag) != 0; };
  c.rx_ip_checksum = rx(may.checksum, RTE_ETH_RX_OFFLOAD_IPV4_CKSUM);
  c.rx_tcp_checksum = rx(may.checksum, RTE_ETH_RX_OFFLOAD_TCP_CKSUM);
  c.tx_ip_checksum = tx(may.checksum, RTE_ETH_TX_OFFLOAD_IPV4_CKSUM);
  c.tx_tcp_checksum = tx(may.checksum, RTE_ETH_TX_OFFLOAD_TCP_CKSUM);
  c.tx_multi_segment = tx(may.scatter, RTE_ETH_TX_OFFLOAD_MULTI_SEGS);
  c.tso = c.tx_tcp_checksum && c.tx_multi_segment && tx(may.tso, RTE_ETH_TX_OFFLOAD_TCP_TSO);
  const uint16_t segments = info.tx_desc_lim.nb_mtu_seg_max;
  c.max_tx_segments = c.tx_multi_segment ? (segments == 0 || segments > kMaxTxSegments ? kMaxTxSegments : segments) : 1;
  if (c.max_tx_segments < 2) c.tx_multi_segment = c.tso = false;
  const DriverTraits traits = traits_of(driver_);
  c.partial_rx_checksum = traits.silent_host_peer;
  c.rx_tcp_unsummed = traits.marks_unsummed && c.rx_tcp_checksum;
  c.tso_sum_with_length = traits.full_sum_for_tso;
  c.tx_copies = traits.copies;
  c.lro = traits.lro_is_free && c.rx_tcp_checksum && rx(may.lro, RTE_ETH_RX_OFFLOAD_TCP_LRO) &&
          rx(may.scatter, RTE_ETH_RX_OFFLOAD_SCATTER);
  rx_offloads_ = (c.rx_ip_checksum ? RTE_ETH_RX_OFFLOAD_IPV4_CKSUM : 0) | (c.rx_tcp_checksum ? RTE_ETH_RX_OFFLOAD_TCP_CKSUM : 0) |
                 (c.lro ? RTE_ETH_RX_OFFLOAD_TCP_LRO : 0);
  tx_offloads_ = (c.tx_ip_checksum ? RTE_ETH_TX_OFFLOAD_IPV4_CKSUM : 0) | (c.tx_tcp_checksum ? RTE_ETH_TX_OFFLOAD_TCP_CKSUM : 0) |
                 (c.tso ? RTE_ETH_TX_OFFLOAD_TCP_TSO : 0) | (c.tx_multi_segment ? RTE_ETH_TX_OFFLOAD_MULTI_SEGS : 0);
  // Never RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE: payload is shared and comes from several pools.
}

base::Status Port::configure(std::span<const PacketPool> pools) {
  rte_eth_dev_info info{};
  if (const int r = rte_eth_dev_info_get(id_, &info); r != 0)
    return Error{std::string("the driver tells nothing about the device: ") + rte_strerror(-r)};
  driver_ = info.driver_name;
  choose_capabilities(info);

  const auto workers = static_cast<uint16_t>(options_.workers);
  const uint16_t wanted = options_.queues == 0 ? workers : std::min(workers, options_.queues);
  const uint16_t rx_queues = std::min(wanted, info.max_rx_queues);
  tx_queues_ = std::min(wanted, info.max_tx_queues);
  if (rx_queues == 0 || tx_queues_ == 0) return Error{"the device has no receive or no transmit queue"};
  capabilities_.rx_queues = rx_queues;

  // The MTU: what the device takes, and what our buffers take when it cannot chain.
  capabilities_.max_mtu = info.max_mtu == 0 ? UINT16_MAX : info.max_mtu;
  const uint32_t one_buffer = pools[0].data_room() - kFrameOverhead;
  const bool scatter = (options_.mtu > one_buffer || capabilities_.lro) && options_.offloads.scatter &&
                       (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER) != 0;
  if (!scatter || !capabilities_.tx_multi_segment)
    capabilities_.max_mtu = static_cast<uint16_t>(std::min<uint32_t>(capabilities_.max_mtu, one_buffer));
  if (options_.mtu > capabilities_.max_mtu) {
    return Error{"mtu " + std::to_string(options_.mtu) + " is too large: this device takes at most " +
                 std::to_string(capabilities_.max_mtu)};
  }
  capabilities_.mtu = options_.mtu;
  capabilities_.rx_scatter = scatter;

  rte_eth_conf conf{};
  conf.rxmode.mtu = options_.mtu;
  conf.rxmode.offloads = rx_offloads_ | (scatter ? RTE_ETH_RX_OFFLOAD_SCATTER : 0);
  conf.txmode.offloads = tx_offloads_;
  std::array<uint8_t, 52> key{};
  const uint64_t tcp_hash = RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV6_TCP;
  const bool rss = workers > 1 && rx_queues == workers && (info.flow_type_rss_offloads & tcp_hash) == tcp_hash &&
                   info.reta_size > 0 && std::has_single_bit(info.reta_size) &&
                   (info.hash_key_size == 40 || info.hash_key_size == 52);
  if (rss) {
    RssTable drawn;
    for (uint32_t i = 0; i < info.reta_size; ++i) drawn.reta.push_back(static_cast<uint16_t>(i % rx_queues));
    constexpr int kDraws = 64;  // one in two does, of few queues; of more than 128 none can, and PortAllocator looks further
    for (int draw = 0; draw < kDraws && (draw == 0 || !reaches_all_queues(drawn, rx_queues)); ++draw) {
      if (getrandom(key.data(), key.size(), 0) != static_cast<ssize_t>(key.size()))
        return Error{"no random bytes for the RSS key"};
      drawn.key = key;
    }
    conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
    conf.rx_adv_conf.rss_conf.rss_key = key.data();
    conf.rx_adv_conf.rss_conf.rss_key_len = info.hash_key_size;
    conf.rx_adv_conf.rss_conf.rss_hf = tcp_hash;
  }
  EalLog log;
  if (const int r = rte_eth_dev_configure(id_, rx_queues, tx_queues_, &conf); r != 0) {
    return Error{"the driver refused " + std::to_string(rx_queues) +
                 " queues with the offloads it advertises: " + rte_strerror(-r) + "; try offloads: off" + log.tail()};
  }
  uint16_t current = 0;
  if (rte_eth_dev_get_mtu(id_, &current) == 0) {
    const int r = rte_eth_dev_set_mtu(id_, options_.mtu);
    if (r != 0 && r != -ENOTSUP)
      return Error{"the device refused mtu " + std::to_string(options_.mtu) + ": " + rte_strerror(-r) + log.tail()};
  }
  uint16_t rx_desc = options_.rx_descriptors, tx_desc = options_.tx_descriptors;
  rte_eth_dev_adjust_nb_rx_tx_desc(id_, &rx_desc, &tx_desc);
  for (uint16_t q = 0; q < rx_queues; ++q) {
    if (const int r = rte_eth_rx_queue_setup(id_, q, rx_desc, SOCKET_ID_ANY, nullptr, pools[q].raw()); r != 0) {
      const char* hint = driver_ == "net_af_xdp" ? "; is another process using this interface, or has it fewer queues?" : "";
      return Error{"receive queue " + std::to_string(q) + " could not be set up: " + rte_strerror(-r) + hint + log.tail()};
    }
  }
  rte_eth_txconf tx_conf = info.default_txconf;
  for (uint16_t q = 0; q < tx_queues_; ++q) {
    // A virtio device has rings of its own size, whatever is asked for, and its driver does not say which: when the threshold
    // is beyond it, that of half the size is tried.
    int r = -EINVAL;
    for (uint16_t size = tx_desc; r == -EINVAL && traits_of(driver_).frees_late && size > 2 * kSentKept - 1; size /= 2) {
      EalLog expected;
      tx_conf.tx_free_thresh = static_cast<uint16_t>(size - kSentKept);
      r = rte_eth_tx_queue_setup(id_, q, tx_desc, SOCKET_ID_ANY, &tx_conf);
      if (r == -EINVAL) expected.tail();
    }
    if (r != 0) r = rte_eth_tx_queue_setup(id_, q, tx_desc, SOCKET_ID_ANY, &info.default_txconf);
    if (r != 0) {
      return Error{"transmit queue " + std::to_string(q) + " could not be set up: " + rte_strerror(-r) + log.tail()};
    }
  }
  if (options_.mac) {
    rte_ether_addr mac;
    std::memcpy(mac.addr_bytes, options_.mac->data(), 6);
    if (const int r = rte_eth_dev_default_mac_addr_set(id_, &mac); r != 0)
      return Error{std::string("the device refused the MAC address: ") + rte_strerror(-r) + log.tail()};
  }
  capabilities_.rss = rss;
  if (tx_queues_ < workers) {
    locks_ = std::make_unique<TxLock[]>(tx_queues_);
    for (uint16_t q = 0; q < tx_queues_; ++q) rte_spinlock_init(&locks_[q].lock);
    notes_.push_back("only " + std::to_string(tx_queues_) + " transmit queues for " + std::to_string(workers) +
                     " workers: they take turns");
  }
  if (rx_queues < workers)
    notes_.push_back("only " + std::to_string(rx_queues) + " receive queues for " + std::to_string(workers) +
                     " workers: frames are handed over in software");

  queues_.clear();
  for (uint16_t w = 0; w < workers; ++w) {
    const uint16_t tx = w % tx_queues_;
    auto queue = std::make_unique<EthQueue>(id_, w < rx_queues ? w : EthQueue::kNoQueue, tx, locks_ ? &locks_[tx].lock : nullptr,
                                            capabilities_, traits_of(driver_).takes_frames_unprepared, pools[w]);
    if (driver_ == "net_bonding") queue->keep_alive();
    queues_.push_back(std::move(queue));
  }
  return {};
}

base::Status Port::start() {
  EalLog log;
  if (const int r = rte_eth_dev_start(id_); r != 0)
    return Error{std::string("the device did not start: ") + rte_strerror(-r) + log.tail()};
  started_ = true;
  if (!options_.members.empty()) {
    // Members whose drivers have no interrupt for their links are looked at every ten milliseconds.
    for (int i = 0; i < 50 && !link_up(); ++i) usleep(10'000);
    auto bond = Bond::open(id_, options_.members);
    if (!bond.ok()) return Error{bond.error()};
    bond_ = std::move(bond).value();
  }
  rte_ether_addr mac{};
  if (rte_eth_macaddr_get(id_, &mac) == 0) std::memcpy(capabilities_.mac.data(), mac.addr_bytes, 6);
  join_groups();
  rte_eth_dev_info info{};
  rte_eth_dev_info_get(id_, &info);
  if (capabilities_.rss) read_rss(info);
  test_offloads();
  for (auto& q : queues_) q->set_capabilities(capabilities_);
  return {};
}

// Solicited-node groups of our IPv6 addresses, in the device's filter; a device without one shows us everything or is told to.
void Port::join_groups() {
  if (options_.every_group) {
    EalLog log;
    if (rte_eth_allmulticast_enable(id_) != 0) rte_eth_promiscuous_enable(id_);
    log.tail();
    return;
  }
  std::vector<rte_ether_addr> groups;
  for (const base::IpAddress& a : options_.addresses) {
    if (a.is_v4()) continue;
    rte_ether_addr g = {{0x33, 0x33, 0xff, a.bytes[13], a.bytes[14], a.bytes[15]}};
    groups.push_back(g);
  }
  if (groups.empty()) return;
  groups.push_back({{0x33, 0x33, 0, 0, 0, 1}});
  EalLog log;
  if (rte_eth_dev_set_mc_addr_list(id_, groups.data(), static_cast<uint32_t>(groups.size())) == 0) return;
  if (rte_eth_allmulticast_enable(id_) != 0) rte_eth_promiscuous_enable(id_);
  log.tail();  // expected of virtual devices: not worth a line
}

void Port::read_rss(const rte_eth_dev_info& info) {
  RssTable t;
  rte_eth_rss_conf conf{};
  conf.rss_key = t.key.data();
  conf.rss_key_len = info.hash_key_size;
  std::vector<rte_eth_rss_reta_entry64> reta((info.reta_size + 63) / 64);
  for (uint32_t i = 0; i < info.reta_size; ++i) {
    reta[i / 64].mask |= uint64_t{1} << (i % 64);
    reta[i / 64].reta[i % 64] = static_cast<uint16_t>(i % capabilities_.rx_queues);
  }
  EalLog log;
  rte_eth_dev_rss_reta_update(id_, reta.data(), info.reta_size);  // may be refused: what is read back counts
  const bool ok =
      rte_eth_dev_rss_reta_query(id_, reta.data(), info.reta_size) == 0 && rte_eth_dev_rss_hash_conf_get(id_, &conf) == 0;
  if (!ok) {
    log.tail();
    capabilities_.rss = false;
    notes_.push_back("RSS key or table cannot be read: flows are spread in software");
    return;
  }
  for (uint32_t i = 0; i < info.reta_size; ++i) t.reta.push_back(reta[i / 64].reta[i % 64]);
  rss_ = std::move(t);
}

// The driver must accept a frame that asks for what it advertises (rte_eth_tx_prepare); where it does not, software does it.
// Whether received frames are really marked rightly is tested on the first of them (dataplane/ip_layer).
void Port::test_offloads() {
  PortCapabilities& c = capabilities_;
  if (!c.tx_tcp_checksum && !c.tx_ip_checksum) return;
  alignas(64) uint8_t frame[128] = {};
  auto* ip = reinterpret_cast<rte_ipv4_hdr*>(frame + 14);
  ip->version_ihl = 0x45;
  ip->total_length = rte_cpu_to_be_16(40);
  ip->next_proto_id = IPPROTO_TCP;
  reinterpret_cast<rte_tcp_hdr*>(frame + 34)->data_off = 5 << 4;
  rte_mbuf m{};
  m.buf_addr = frame;
  m.data_len = 54;
  m.pkt_len = 54;
  m.nb_segs = 1;
  rte_mbuf_refcnt_set(&m, 1);
  m.l2_len = 14;
  m.l3_len = 20;
  m.l4_len = 20;
  m.ol_flags =
      RTE_MBUF_F_TX_IPV4 | (c.tx_ip_checksum ? RTE_MBUF_F_TX_IP_CKSUM : 0) | (c.tx_tcp_checksum ? RTE_MBUF_F_TX_TCP_CKSUM : 0);
  rte_mbuf* one = &m;
  if (rte_eth_tx_prepare(id_, 0, &one, 1) == 1) return;
  c.tx_ip_checksum = c.tx_tcp_checksum = c.tso = false;
  notes_.push_back("the driver refuses frames that ask for the checksums it advertises: computed in software");
}

bool Port::link_up() const {
  if (!parts_.empty()) return parts_[0]->link_up();
  rte_eth_link link{};
  return rte_eth_link_get_nowait(id_, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

uint32_t Port::link_mbps() const {
  if (!parts_.empty()) return parts_[0]->link_mbps();
  rte_eth_link link{};
  if (rte_eth_link_get_nowait(id_, &link) != 0 || link.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN) return 0;
  return link.link_speed;
}

PortDeviceStats Port::device_stats() const {
  PortDeviceStats sum;
  for (const auto& p : parts_) {
    const PortDeviceStats one = p->device_stats();
    sum.rx_missed += one.rx_missed;
    sum.rx_errors += one.rx_errors;
    sum.rx_no_mbuf += one.rx_no_mbuf;
    sum.tx_errors += one.tx_errors;
  }
  if (!parts_.empty()) return sum;
  rte_eth_stats s{};
  if (rte_eth_stats_get(id_, &s) != 0) return {};
  return {s.imissed, s.ierrors, s.rx_nombuf, s.oerrors};
}

std::string capability_table(std::span<const std::unique_ptr<Port>> ports) {
  auto cell = [](std::string s, size_t width) {
    s.resize(std::max(width, s.size()), ' ');
    return s + "  ";
  };
  size_t name = 4, driver = 6;
  for (const auto& p : ports) {
    name = std::max(name, p->name().size());
    driver = std::max(driver, p->driver().size());
  }
  std::string out = cell("port", name) + cell("driver", driver) + cell("mac", 17) + cell("mtu", 5) + cell("rxq", 3) +
                    cell("rx checksum", 11) + cell("tx checksum", 11) + cell("tso", 3) + cell("lro", 3) + cell("chains", 6) +
                    cell("spreading", 9) + "link\n";
  auto sums = [](bool ip, bool tcp) {
    return std::string(ip && tcp ? "device" : ip ? "ip only" : tcp ? "tcp only" : "software");
  };
  for (const auto& p : ports) {
    const PortCapabilities& c = p->capabilities();
    char mac[18];
    std::snprintf(mac, sizeof mac, "%02x:%02x:%02x:%02x:%02x:%02x", c.mac[0], c.mac[1], c.mac[2], c.mac[3], c.mac[4], c.mac[5]);
    out += cell(p->name(), name) + cell(p->driver(), driver) + cell(mac, 17) + cell(std::to_string(c.mtu), 5) +
           cell(std::to_string(c.rx_queues), 3) + cell(sums(c.rx_ip_checksum, c.rx_tcp_checksum), 11) +
           cell(sums(c.tx_ip_checksum, c.tx_tcp_checksum), 11) + cell(c.tso ? "yes" : "no", 3) + cell(c.lro ? "yes" : "no", 3) +
           cell(c.tx_multi_segment ? std::to_string(c.max_tx_segments) : "copied", 6) +
           cell(p->options().workers == 1 ? "-"
                : p->rss()                ? "rss"
                                          : "software",
                9) +
           (p->link_up() ? (p->link_mbps() > 0 ? std::to_string(p->link_mbps()) + " Mb/s" : "up") : "down") + "\n";
    for (const std::string& n : p->notes()) out += "  " + p->name() + ": " + n + "\n";
  }
  return out;
}

}  // namespace millrace::io
