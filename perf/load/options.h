// What the generator is told: the command line, parsed and checked. main() hands it to the engine as it is; nothing behind the
// parser looks at text again.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/ip_address.h"
#include "lib/base/status.h"
#include "lib/base/time.h"

namespace millrace::load {

enum class Role : uint8_t { kBoth, kClients, kServers, kForward };
// What of a response body is compared: nothing but its length, or every byte with the pattern that our own servers send
// (pattern.h).
enum class BodyCheck : uint8_t { kLength, kPattern };
// How a client ends a connection after its last request: by its FIN, by asking for "Connection: close", or by RST.
enum class CloseMode : uint8_t { kFin, kHeader, kReset };

inline constexpr uint16_t kFirstClientPort = 1024, kLastClientPort = 65535;  // of each client address, inclusive
inline constexpr uint32_t kMaxClientAddresses = 65'536;  // of a larger network only so many are used: 4.2 billion connections
inline constexpr uint32_t kMaxConnections = 16'000'000;  // open at a time, idle ones included
inline constexpr uint32_t kMaxPipeline = 64;             // requests in flight on one connection
inline constexpr uint32_t kMaxBody = 64u << 20;          // bytes
inline constexpr uint32_t kMaxServerAddresses = 65'536;  // of all --servers together
inline constexpr uint32_t kMaxWires = 2;

struct Network {
  base::IpAddress address;  // host bits kept
  uint8_t bits = 0;         // 0 … 32 or 128
};

struct Endpoint {
  base::IpAddress address;
  uint16_t port = 0;
};

// Every address of first … last (one family, first <= last) with every port of port_first … port_last.
struct ServerRange {
  base::IpAddress first, last;
  uint16_t port_first = 0, port_last = 0;
};

enum class WireOffloads : uint8_t {
  kAuto,
  kCut,  // as kAuto, but sends no segment larger than the MTU: for a device under test that takes none
  kOff,  // everything in software
};

// One wire: a device, our address on it, and the device under test behind it.
struct WireOptions {
  std::string devargs;                  // of DPDK: "net_vhost0,iface=/run/x.sock,tso=1", "0000:3b:00.0"
  Network router{};                     // --router: our own address
  base::IpAddress dut{};                // --dut: whom every frame goes to
  std::optional<Network> router6;       // a second --router of the other family, for IPv6 clients or servers beside IPv4
  std::optional<base::IpAddress> dut6;  // likewise
};

struct Options {
  // machine
  uint32_t core = 1;       // polls
  uint32_t main_core = 0;  // threads that do not
  uint32_t memory_mb = 512;
  std::string file_prefix;  // empty: "millrace-load-<pid>"
  bool hugepages = true;

  // wires: one for all, or clients' and servers'
  std::vector<WireOptions> wires;
  uint16_t mtu = 1500;
  WireOffloads offloads = WireOffloads::kAuto;
  uint16_t descriptors = 1024;   // of each queue
  uint16_t queues = 1;           // of each device: spread_queue.h
  uint32_t window = 256 * 1024;  // of each connection, bytes it announces and at most sends ahead: 4,096 … 1 GiB
  uint32_t max_server_connections = 262'144;

  // work
  Role role = Role::kBoth;
  Network clients{};                 // --clients
  std::vector<Endpoint> targets;     // at least one unless role is kServers or kForward
  std::vector<ServerRange> servers;  // at least one unless role is kClients or kForward

  // load
  uint32_t connections = 64;             // 0 only with idle > 0
  double rate = 0;                       // requests/s; 0: closed loop
  bool poisson = false;                  // with rate: exponential gaps instead of equal ones
  uint32_t requests_per_connection = 0;  // 0: for ever
  uint32_t pipeline = 1;                 // 1 … kMaxPipeline
  uint64_t requests = 0;                 // stop after so many; 0: by time
  uint32_t idle = 0;                     // connections opened beside, one request each, then left open
  double wake = 0;                       // with idle: share of them that ask for ever from the end of the warm-up on
  uint32_t ramp = 10'000;                // connections opened a second, at most: idle ones and the first of the others
  CloseMode close = CloseMode::kFin;

  // what is asked for
  std::string method = "GET";
  std::string host = "load.example";
  std::string path = "/";
  std::string targets_file;               // lines `host path`; wins over host and path
  double zipf = 0;                        // 0: uniform
  std::vector<std::string> headers;       // "name: value", without CRLF
  uint32_t request_body = 0;              // bytes; Content-Length is sent for more than 0 and for POST, PUT, PATCH
  std::optional<uint32_t> response_body;  // bytes: what servers send and clients expect; clients: absent means any length
  BodyCheck body_check = BodyCheck::kPattern;
  uint16_t expect_status = 200;
  bool server_chunked = false;      // answers are sent with Transfer-Encoding: chunked
  uint32_t server_close_after = 0;  // answers on a connection, the last with Connection: close; 0: never

  // TLS
  bool tls_clients = false, tls_servers = false, tls12 = false, tls_resume = false;
  std::string sni;               // default: host without port; empty when that is an IP address (RFC 6066 3)
  std::string certificate, key;  // files; both empty: self-signed

  // faults of our own wire, for testing what is behind it (and this program): share of received and sent frames lost, 0 … 1
  double loss = 0;
  uint64_t seed = 1;

  // beside the load: segments from nobody
  double flood = 0;                                           // a second; 0: none. From the warm-up on
  uint8_t flood_flags = 0x02;                                 // TCP's
  Network flood_sources{base::IpAddress::v4(0x0b000000), 8};  // random addresses of it; IPv4, apart from --clients and --servers

  // time, in ns; warm-up is not counted
  base::TimeNs warmup_ns = base::kSecond;
  base::TimeNs duration_ns = 10 * base::kSecond;
  base::TimeNs interval_ns = base::kSecond;      // progress lines; 0: none
  base::TimeNs timeout_ns = 10 * base::kSecond;  // a request that is not answered for so long is an error and ends its connection
  bool start_on_signal =
      false;                 // the polling begins at SIGUSR1: what is behind the wire can be started after the device is there
  base::TimeNs hold_ns = 0;  // with idle: how long all connections stay open before the end

  // output
  std::string json_file, histogram_file;
  bool quiet = false;
};

// Parses and checks; the error is one sentence that names the option. `help` is set when --help or --version was asked for: print
// it, exit 0.
struct ParsedOptions {
  Options options;
  std::string help;
};
base::Result<ParsedOptions> parse_options(int argc, const char* const* argv);

}  // namespace millrace::load
