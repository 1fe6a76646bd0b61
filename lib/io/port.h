// A port of DPDK: any device, opened, configured for the workers, its capabilities found out and cut down to what can be relied
// on. Used by the main thread at start; the workers get only their PortQueue.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/base/ip_address.h"
#include "lib/base/status.h"
#include "lib/io/bond.h"
#include "lib/io/packet_pool.h"
#include "lib/io/port_queue.h"
#include "lib/io/steering.h"

struct rte_eth_dev_info;

namespace millrace::io {

// What may be left to the device, where it offers it (bootstrap: ports[].offloads).
struct Offloads {
  bool checksum = true, tso = true, lro = true, scatter = true;
};

struct PortOptions {
  std::string name;                  // for people
  std::string devargs;               // PCI address or vdev with arguments (bootstrap::expand_device)
  std::vector<std::string> members;  // of a bond (devargs net_bonding…,slave=…): their devargs; probed first, removed last
  uint16_t mtu = 1500;
  Offloads offloads;              // none: everything in software
  bool every_group = false;       // receive every Ethernet group, not only those of our addresses
  std::optional<MacAddress> mac;  // set it where the device can; default its own
  uint32_t workers = 1;
  uint16_t queues = 0;  // receive and transmit queues at most; 0: one a worker
  uint16_t rx_descriptors = 1024, tx_descriptors = 1024;
  std::vector<base::IpAddress> addresses;  // for the multicast groups to join (solicited-node, RFC 4291 2.7.1)
};

// What the device itself counts, for all workers together; read by the supervisor.
struct PortDeviceStats {
  uint64_t rx_missed = 0, rx_errors = 0, rx_no_mbuf = 0, tx_errors = 0;
};

class Port {
 public:
  // Probes, configures and starts the device. `pools[w]`: received packets of worker w. One sentence on failure: device absent,
  // in use, MTU too large, driver refuses.
  static base::Result<std::unique_ptr<Port>> open(const PortOptions& options, std::span<const PacketPool> pools);
  ~Port();  // stops, closes and removes the device
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  PortQueue& queue(uint32_t worker) { return parts_.empty() ? *queues_[worker] : parts_[worker]->queue(0); }
  const PortCapabilities& capabilities() const { return capabilities_; }
  // The spreading to give to Steering::set_hardware(); nullopt: software steering.
  const std::optional<RssTable>& rss() const { return rss_; }
  const std::string& name() const { return options_.name; }
  const std::string& driver() const { return driver_; }
  const PortOptions& options() const { return options_; }
  bool link_up() const;
  uint32_t link_mbps() const;  // 0: unknown
  PortDeviceStats device_stats() const;
  // Of a bond, each Bond::kLookEveryMs: a sentence when traffic has moved to other members. Others: nullopt.
  bool is_bond() const { return bond_.has_value(); }
  std::optional<std::string> look_at_members() { return bond_ ? bond_->look() : std::nullopt; }
  // What was found wanting at start and replaced by software, in words; empty when nothing.
  const std::vector<std::string>& notes() const { return notes_; }
  // Packets a queue that were sent and that the driver may still hold when it has closed: 0, but for net_af_xdp, which reclaims
  // from its completion ring only when it sends. (What it took for its fill ring at its start it keeps too: pools show that.)
  uint32_t sent_packets_kept() const { return driver_ == "net_af_xdp" ? options_.tx_descriptors : 0; }

 private:
  Port() = default;
  static base::Result<std::unique_ptr<Port>> open_device(const PortOptions& options, std::span<const PacketPool> pools);
  static base::Result<std::unique_ptr<Port>> open_parts(const PortOptions& options, std::span<const PacketPool> pools);
  base::Status probe();
  base::Status configure(std::span<const PacketPool> pools);
  base::Status start();
  void choose_capabilities(const rte_eth_dev_info& info);
  void read_rss(const rte_eth_dev_info& info);
  void test_offloads();
  void join_groups();

  PortOptions options_;
  uint16_t id_ = UINT16_MAX;
  bool started_ = false;
  std::string driver_;
  PortCapabilities capabilities_;
  std::optional<RssTable> rss_;
  uint16_t tx_queues_ = 1;
  uint64_t rx_offloads_ = 0, tx_offloads_ = 0;
  std::vector<std::string> notes_;
  std::vector<std::unique_ptr<PortQueue>> queues_;
  std::unique_ptr<struct TxLock[]> locks_;
  std::optional<Bond> bond_;
  std::vector<std::unique_ptr<Port>> parts_;  // a device for each worker, where one device cannot have all the queues
};

// The capabilities of all ports as a table for people, one port a line, with headings and a line for each note.
std::string capability_table(std::span<const std::unique_ptr<Port>> ports);

}  // namespace millrace::io
