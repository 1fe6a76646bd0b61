// The `dataplane:` section of the configuration file: cores, memory, ports, addresses, limits. Everything else in the file is
// Envoy's and control's; this is the one key that both programs read. YAML and JSON alike (JSON is YAML).
//
// Reading never stops at the first mistake: all errors of the section come back at once, each with its place and what to do.
// Unknown keys are errors. What the machine has (devices, cores, hugepages) is not looked at here: lib/io answers that at start.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/ip_address.h"

namespace millrace::bootstrap {

struct SectionError {
  std::string file;
  int line = 0, column = 0;  // from 1; 0: the file as a whole
  std::string path;          // "dataplane.ports[0].mtu"
  std::string message;       // what is wrong and what to do

  // "file:line:column: path: message"
  std::string to_string() const;
};

struct Prefix {
  base::IpAddress address;
  uint8_t bits = 0;  // 0..32 for IPv4, 0..128 for IPv6
};

struct RouteSection {
  Prefix to;  // host bits are zero
  base::IpAddress via;
};

struct NeighborSection {
  base::IpAddress address;
  std::array<uint8_t, 6> mac{};
};

// What a port may leave to its device, where the device offers it. Cutting and large receive need checksums and chains as well.
struct Offloads {
  bool checksum = true;  // received and sent
  bool tso = true;       // large segments, cut by the device
  bool lro = true;       // large segments, received uncut
  bool scatter = true;   // frames in several packets, both ways
  bool operator==(const Offloads&) const = default;
};

// What belongs to one VLAN of a port.
struct LinkSection {
  uint16_t vlan = 0;                      // 0: untagged; 1..4094
  std::vector<Prefix> addresses;          // at least one; host bits kept
  std::vector<base::IpAddress> gateways;  // default routers; the first of a family that answers is used
  std::vector<RouteSection> routes;
  std::vector<NeighborSection> neighbors;  // static entries
  uint32_t dad = 1;                        // solicitations before an IPv6 address is used (RFC 4862 5.1); 0: none
};

enum class BondMode : uint8_t { kNone, kActiveBackup, kBalance, kLacp };

struct PortSection : LinkSection {
  std::string name;                 // default "port<index>"
  std::string device;               // as written
  std::string devargs;              // for DPDK: a PCI address, or a vdev with its arguments filled in (expand_device)
  BondMode bond = BondMode::kNone;  // the device is a bond of `members`
  std::vector<std::string> members, member_devargs;
  uint16_t queues = 0;             // receive and transmit queues at most; 0: one a worker, of a memif one
  uint16_t mtu = 1500;             // 576..9216; IPv6 needs 1280
  std::vector<LinkSection> vlans;  // further VLANs of the device
  Offloads offloads;
  std::optional<std::array<uint8_t, 6>> mac;  // default: the device's own
};

// Limits of every prefix of one length that clients come from (limits.sources); 0: none. Of all workers together.
struct SourceSection {
  uint8_t ipv4_prefix = 32, ipv6_prefix = 64;  // bits
  uint32_t syns_per_second = 0;
  uint32_t burst = 0;  // SYNs at once; 0: as many as in a second
  uint32_t connections = 0;
};

// Sizes per worker, decided at start. The defaults suit one worker in `memory_mb` 512.
struct LimitsSection {
  uint32_t connections = 32'768;  // TCP connections, both sides together
  uint32_t half_open = 1'024;     // beyond it SYNs are answered with cookies
  uint32_t time_wait = 65'536;
  uint32_t neighbors = 1'024;
  uint32_t payload_packets = 65'536;  // 2,304 bytes each
  uint32_t header_packets = 16'384;   // 832 bytes each: headers, small frames, ACK, RST, ARP
  uint32_t rx_descriptors = 1'024;    // of each port's receive queue
  uint32_t tx_descriptors = 1'024;
  uint16_t upstream_port_first = 16'384;  // local ports of connections to endpoints, inclusive
  uint16_t upstream_port_last = 65'535;
  uint32_t resets_per_second = 1'000;  // RST answers to segments of nobody
  uint32_t icmp_per_second = 1'000;    // echo replies and ICMP errors
  uint32_t fragments = 256;            // IP fragments held for reassembly; 0: all dropped
  // Who may open connections; 0 and empty: anybody. Of all workers together.
  uint32_t max_active_downstream_connections =
      0;                          // of all listeners (Envoy: overload manager, global_downstream_max_connections)
  uint32_t connection_limit = 0;  // of each listener (Envoy: envoy.resource_limits.listener.<name>.connection_limit)
  std::map<std::string, uint32_t> listener_connection_limits;  // of the listener of that name, instead of the former
  std::vector<SourceSection> sources;
  uint32_t source_table = 65'536;  // prefixes of a length whose rates are remembered at one time, a worker
};

// Which traffic to an address of the gateway is the host's when the gateway itself has no use for it.
struct HostRule {
  uint8_t protocol = 0;               // 6 or 17
  uint16_t first = 0, last = 65'535;  // port of either end
};

// What is not ours goes to the host, through one TAP device a port.
struct ExceptionSection {
  bool enable = false;
  std::string name = "mr-";  // the devices are called this and the port's name
  uint32_t rate = 10'000;    // frames a second, each way
  std::vector<HostRule> to_host;
};

// Who decides how much is in flight (tcp::CongestionAlgorithm), and whether marks are agreed on (tcp::EcnMode).
enum class CongestionControl : uint8_t { kCubic, kReno, kBbr };
enum class EcnUse : uint8_t { kOff, kAccept, kRequest };

// Knobs of the transport; the names and meanings are those of tcp::Config, times in milliseconds here.
struct TcpSection {
  uint32_t rcv_buf = 256 * 1024;  // bytes
  uint32_t rcv_wnd_initial = 64 * 1024;
  uint32_t snd_buf = 256 * 1024;
  CongestionControl congestion = CongestionControl::kCubic;
  EcnUse ecn = EcnUse::kAccept;
  bool sack = true, timestamps = true, window_scaling = true, delayed_ack = true;
  uint32_t delayed_ack_ms = 40;
  uint32_t rto_min_ms = 200, rto_initial_ms = 1'000, rto_max_ms = 60'000;
  uint32_t connect_timeout_ms = 30'000, user_timeout_ms = 120'000;
  uint32_t keepalive_idle_ms = 300'000, keepalive_interval_ms = 30'000;  // idle 0: off
  uint32_t keepalive_probes = 4;
  uint32_t fin_wait_2_ms = 60'000, time_wait_ms = 60'000;
};

struct DataplaneSection {
  std::vector<uint32_t> cores{1};  // one worker on each, in this order
  uint32_t main_core = 0;          // loader and supervisor threads; may not be a worker core unless share_cores
  bool share_cores = false;        // cores may be named more than once; idle workers let others run. Not for speed
  bool hugepages = true;
  uint32_t memory_mb = 512;
  std::string file_prefix = "millrace";  // EAL's; default derived from the run directory, so that two gateways coexist
  std::vector<PortSection> ports;        // 1..16
  LimitsSection limits;
  ExceptionSection exception;
  TcpSection tcp;
  bool tls_key_capture = false;   // `millctl capture --tls-keys` may ask for the keys of TLS sessions
  bool stage_accounting = false;  // where cycles go is measured from the start; millctl top --stages changes it while running
};

struct SectionResult {
  std::optional<DataplaneSection> section;  // only when there is no error and the key is there
  bool present = false;                     // the file has the key
  std::vector<SectionError> errors;         // in the order of the file
};

// Reads the section out of a whole configuration file. `file` is only for messages. `run_dir` gives the default of file_prefix
// ("/run/millrace" -> "millrace", any other -> "millrace-" and a hash of the path). A file that is not YAML is one error.
// A file without the key: not an error, `present` false.
SectionResult read_dataplane_section(std::string_view text, std::string_view file, std::string_view run_dir = "/run/millrace");

// DPDK's device arguments for a `device`: PCI addresses and full vdev strings ("net_tap0,iface=x") as they are; short forms with
// options that work: "af_packet:IFACE", "af_xdp:IFACE", "memif:SOCKET[,role=server|client][,id=N]", "tap:IFACE",
// "virtio_user:SOCKET", "vhost:SOCKET". Short forms take further ",key=value" options, which win over the filled-in ones.
// nullopt, with `why`, when it is none of these. `index` numbers the vdev.
std::optional<std::string> expand_device(std::string_view device, uint32_t index, uint16_t mtu, uint32_t queues,
                                         std::string* why);

}  // namespace millrace::bootstrap
