#include "perf/load/options.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "perf/load/option_values.h"
#include "perf/load/workload.h"

namespace millrace::load {
namespace {

using base::Error;
using base::IpAddress;
using base::Result;
using base::Status;
using base::TimeNs;

constexpr TimeNs kDay = 24 * 3600 * base::kSecond;
constexpr double kMaxRate = 1e9;
constexpr double kMaxZipf = 10;
constexpr size_t kMaxHeaders = 64;
constexpr size_t kMaxHeaderBytes = 8000;
constexpr size_t kMaxFilePrefix = 64;
constexpr const char* kDefaultClients = "10.64.0.0/16";
constexpr const char* kDefaultRouter = "10.63.0.1/30";
constexpr const char* kDefaultDut = "10.63.0.2";

// The command line as it is read, before options are held against each other.
struct Draft {
  Options o;
  std::vector<std::string> devices;
  std::vector<Network> routers;
  std::vector<IpAddress> duts;
  std::set<std::string, std::less<>> given;  // names of options that were there
  bool has(std::string_view name) const { return given.contains(name); }
};

enum class Form : uint8_t { kOne, kMany, kFlag };

struct Spec {
  const char* group;
  const char* name;
  const char* value;  // placeholder; empty for flags
  Form form;
  const char* help;
  Status (*set)(Draft&, const std::string& text);
};

template <class T, class V>
Status store(T& where, Result<V> value) {
  if (!value) return Error{value.error()};
  where = static_cast<T>(*value);
  return {};
}
template <class T, class V>
Status append(std::vector<T>& where, Result<V> value) {
  if (!value) return Error{value.error()};
  where.push_back(*value);
  return {};
}

Status store_file(std::string& where, const std::string& text) {
  if (text.empty()) return Error{"the name of a file is empty"};
  where = text;
  return {};
}

// RFC 9110 5.6.2
bool token(std::string_view s) {
  return !s.empty() && std::all_of(s.begin(), s.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           (c != 0 && std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos);
  });
}

bool same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
           return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
         });
}

Status add_header(Draft& d, const std::string& text) {
  const size_t colon = text.find(':');
  const std::string_view name = std::string_view(text).substr(0, colon);
  if (colon == std::string::npos || !token(name)) return Error{"'" + text + "' is not `Name: value`"};
  for (const char* ours : {"host", "content-length", "transfer-encoding", "connection"}) {
    if (same_name(name, ours))
      return Error{"'" + std::string(name) + "' is written by the generator itself (--host, --request-body, --close)"};
  }
  size_t begin = colon + 1, end = text.size();
  while (begin < end && (text[begin] == ' ' || text[begin] == '\t')) ++begin;
  while (begin < end && (text[end - 1] == ' ' || text[end - 1] == '\t')) --end;
  const std::string value = text.substr(begin, end - begin);
  if (std::any_of(value.begin(), value.end(), [](char c) { return (c >= 0 && c < ' ' && c != '\t') || c == 0x7f; })) {
    return Error{"the value of '" + std::string(name) + "' has a control character"};
  }
  if (d.o.headers.size() == kMaxHeaders) return Error{"more than " + std::to_string(kMaxHeaders) + " headers"};
  std::string line = std::string(name) + ": " + value;
  if (line.size() > kMaxHeaderBytes) return Error{"a header is longer than " + std::to_string(kMaxHeaderBytes) + " bytes"};
  d.o.headers.push_back(std::move(line));
  return {};
}

template <class E>
Status choose(E& where, const std::string& text, std::initializer_list<std::pair<const char*, E>> words) {
  std::string all;
  for (const auto& [word, value] : words) {
    if (text == word) {
      where = value;
      return {};
    }
    all += (all.empty() ? "" : ", ") + std::string(word);
  }
  return Error{"'" + text + "' is none of " + all};
}

template <bool Options::*kMember>
Status set_flag(Draft& d, const std::string&) {
  d.o.*kMember = true;
  return {};
}

constexpr const char *kMachine = "Machine", *kWire = "Wire", *kWork = "Work", *kLoad = "Load", *kAsked = "What is asked for",
                     *kServing = "Servers", *kTls = "TLS", *kTime = "Time", *kOutput = "Output", *kFaults = "Faults of our own";

const Spec kSpecs[] =
    {
        {kMachine, "--core", "N", Form::kOne, "core that polls [1]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.core, parse_count(s, 0, 1023)); }},
        {kMachine, "--main-core", "N", Form::kOne, "core of threads that do not poll [0]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.main_core, parse_count(s, 0, 1023)); }},
        {kMachine, "--memory-mb", "MB", Form::kOne, "memory of DPDK [512]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.memory_mb, parse_count(s, 64, 1'048'576)); }},
        {kMachine, "--file-prefix", "NAME", Form::kOne, "name space of DPDK's files [millrace-load-PID]",
         [](Draft& d, const std::string& s) -> Status {
           const bool good = !s.empty() && s.size() <= kMaxFilePrefix && std::all_of(s.begin(), s.end(), [](char c) {
             return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.';
           });
           if (!good) return Error{"'" + s + "' is not 1 to 64 letters, digits, '-', '_' and '.'"};
           d.o.file_prefix = s;
           return {};
         }},
        {kMachine, "--no-hugepages", "", Form::kFlag, "ordinary pages (slower; not for vhost)",
         [](Draft& d, const std::string& s) -> Status {
           d.o.hugepages = false;
           return {};
         }},

        {kWire, "--device", "DEVARGS", Form::kMany,
         "as DPDK names it: net_vhost0,iface=SOCKET; net_memif0,…; net_af_xdp0,iface=IF; 0000:3b:00.0. Given twice: the clients' "
         "wire, then the servers'",
         [](Draft& d, const std::string& s) -> Status {
           if (s.empty() || s.find_first_of(" \t\n") != std::string::npos)
             return Error{"'" + s + "' is not a device as DPDK names it"};
           d.devices.push_back(s);
           return {};
         }},
        {kWire, "--router", "ADDR/BITS", Form::kMany, "our address on the wire, for each wire and family [10.63.0.1/30]",
         [](Draft& d, const std::string& s) -> Status { return append(d.routers, parse_network(s)); }},
        {kWire, "--dut", "ADDR", Form::kMany, "the device under test: every frame goes to it [10.63.0.2]",
         [](Draft& d, const std::string& s) -> Status { return append(d.duts, parse_address(s)); }},
        {kWire, "--mtu", "BYTES", Form::kOne, "of the wire [1500]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.mtu, parse_count(s, 576, 9000)); }},
        {kWire, "--offloads", "auto|cut|off", Form::kOne,
         "by the device what it can; that, but no large segments sent; nothing [auto]",
         [](Draft& d, const std::string& s) -> Status {
           return choose(d.o.offloads, s,
                         {{"auto", WireOffloads::kAuto}, {"cut", WireOffloads::kCut}, {"off", WireOffloads::kOff}});
         }},
        {kWire, "--descriptors", "N", Form::kOne, "of each queue, a power of two [1024]",
         [](Draft& d, const std::string& s) -> Status {
           auto n = parse_count(s, 64, 32768);
           if (n && (*n & (*n - 1)) != 0) return Error{"'" + s + "' is not a power of two"};
           return store(d.o.descriptors, std::move(n));
         }},
        {kWire, "--queues", "N", Form::kOne, "of each device: flows are spread over them by a hash, as another NIC would [1]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.queues, parse_count(s, 1, 16)); }},

        {kWork, "--role", "ROLE", Form::kOne,
         "both, clients, servers, or forward: sends every frame back to the router (the wire's limit without TCP) [both]",
         [](Draft& d, const std::string& s) -> Status {
           return choose(
               d.o.role, s,
               {{"both", Role::kBoth}, {"clients", Role::kClients}, {"servers", Role::kServers}, {"forward", Role::kForward}});
         }},
        {kWork, "--clients", "NET/BITS", Form::kOne, "addresses of clients, ports 1024 to 65535 of each [10.64.0.0/16]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.clients, parse_network(s)); }},
        {kWork, "--target", "ADDR:PORT", Form::kMany, "what clients connect to; repeatable",
         [](Draft& d, const std::string& s) -> Status { return append(d.o.targets, parse_endpoint(s)); }},
        {kWork, "--servers", "ADDR[-ADDR]:PORT[-PORT]", Form::kMany, "where servers listen; repeatable",
         [](Draft& d, const std::string& s) -> Status { return append(d.o.servers, parse_server_range(s)); }},

        {kLoad, "--connections", "N", Form::kOne, "connections at a time; closed loop: each sends when its answer is there [64]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.connections, parse_count(s, 0, kMaxConnections)); }},
        {kLoad, "--rate", "R", Form::kOne, "open loop: R requests/s, latency from the intended time of sending",
         [](Draft& d, const std::string& s) -> Status {
           auto r = parse_real(s, 0, kMaxRate);
           if (r && *r <= 0) return Error{"'" + s + "': a rate is above 0; leave it away for a closed loop"};
           return store(d.o.rate, std::move(r));
         }},
        {kLoad, "--poisson", "", Form::kFlag, "with --rate: exponential gaps, not equal ones", &set_flag<&Options::poisson>},
        {kLoad, "--requests-per-connection", "N", Form::kOne, "then it is closed and opened again; 0: never [0]",
         [](Draft& d, const std::string& s) -> Status {
           return store(d.o.requests_per_connection, parse_count(s, 0, UINT32_MAX));
         }},
        {kLoad, "--pipeline", "N", Form::kOne, "requests in flight on a connection [1]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.pipeline, parse_count(s, 1, kMaxPipeline)); }},
        {kLoad, "--requests", "N", Form::kOne, "ends after so many, not by time",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.requests, parse_count(s, 1, 1'000'000'000'000'000)); }},
        {kLoad, "--idle", "N", Form::kOne, "connections opened beside, one request each, then left open [0]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.idle, parse_count(s, 0, kMaxConnections)); }},
        {kLoad, "--wake", "SHARE", Form::kOne, "of the idle connections that work like the others after the warm-up, 0 to 1 [0]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.wake, parse_real(s, 0, 1)); }},
        {kLoad, "--flood", "RATE", Form::kOne, "segments a second from random addresses beside the load, from the warm-up on [0]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.flood, parse_real(s, 0, 1e8)); }},
        {kLoad, "--flood-kind", "KIND", Form::kOne, "syn, ack, rst, fin or syn-ack [syn]",
         [](Draft& d, const std::string& s) -> Status {
           return choose<uint8_t>(d.o.flood_flags, s, {{"syn", 0x02}, {"ack", 0x10}, {"rst", 0x04}, {"fin", 0x11}, {"syn-ack", 0x12}});
         }},
        {kLoad, "--flood-sources", "NET/BITS", Form::kOne, "where it seems to come from, IPv4 [11.0.0.0/8]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.flood_sources, parse_network(s)); }},
        {kLoad, "--ramp", "N", Form::kOne, "connections opened a second, at first and for --idle [10k]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.ramp, parse_count(s, 1, 100'000'000)); }},
        {kLoad, "--close", "HOW", Form::kOne, "how a client ends a connection: fin, header (asks for it), or reset [fin]",
         [](Draft& d, const std::string& s) -> Status {
           return choose(d.o.close, s, {{"fin", CloseMode::kFin}, {"header", CloseMode::kHeader}, {"reset", CloseMode::kReset}});
         }},
        {kLoad, "--window", "BYTES", Form::kOne, "of each connection: announced, and at most sent ahead [256K]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.window, parse_bytes(s, 4096, 1u << 30)); }},
        {kLoad, "--max-server-connections", "N", Form::kOne, "that servers hold at a time [262144]",
         [](Draft& d, const std::string& s) -> Status {
           return store(d.o.max_server_connections, parse_count(s, 1, kMaxConnections));
         }},

        {kAsked, "--method", "NAME", Form::kOne, "[GET]",
         [](Draft& d, const std::string& s) -> Status {
           if (!token(s) || s.size() > 32) return Error{"'" + s + "' is not a method"};
           if (s == "CONNECT") return Error{"CONNECT opens a tunnel; nothing here speaks through one"};
           d.o.method = s;
           return {};
         }},
        {kAsked, "--host", "NAME", Form::kOne, "[load.example]",
         [](Draft& d, const std::string& s) -> Status {
           if (auto t = TargetTable::single(s, "/"); !t) return Error{"'" + s + "': " + t.error()};
           d.o.host = s;
           return {};
         }},
        {kAsked, "--path", "PATH", Form::kOne, "[/]",
         [](Draft& d, const std::string& s) -> Status {
           if (auto t = TargetTable::single("h", s); !t) return Error{"'" + s + "': " + t.error()};
           d.o.path = s;
           return {};
         }},
        {kAsked, "--targets", "FILE", Form::kOne, "lines `host path`, drawn uniformly or by --zipf",
         [](Draft& d, const std::string& s) -> Status { return store_file(d.o.targets_file, s); }},
        {kAsked, "--zipf", "S", Form::kOne, "exponent of Zipf's law: line i has weight 1/i^S; 0: uniform [0]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.zipf, parse_real(s, 0, kMaxZipf)); }},
        {kAsked, "--header", "LINE", Form::kMany, "`Name: value`, added to every request; repeatable", &add_header},
        {kAsked, "--request-body", "BYTES", Form::kOne, "[0]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.request_body, parse_bytes(s, 0, kMaxBody)); }},
        {kAsked, "--response-body", "BYTES", Form::kOne, "what servers send and clients expect [servers: 0, clients: any length]",
         [](Draft& d, const std::string& s) -> Status {
           auto n = parse_bytes(s, 0, kMaxBody);
           if (!n) return Error{n.error()};
           d.o.response_body = static_cast<uint32_t>(*n);
           return {};
         }},
        {kAsked, "--body-check", "WHAT", Form::kOne,
         "of a response's body: pattern (every byte, as our servers send it) or length [pattern; for role clients: length]",
         [](Draft& d, const std::string& s) -> Status {
           return choose(d.o.body_check, s, {{"pattern", BodyCheck::kPattern}, {"length", BodyCheck::kLength}});
         }},
        {kAsked, "--expect-status", "CODE", Form::kOne, "every other one is an error [200]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.expect_status, parse_count(s, 200, 599)); }},

        {kServing, "--server-chunked", "", Form::kFlag, "answers are chunked", &set_flag<&Options::server_chunked>},
        {kServing, "--server-close-after", "N", Form::kOne,
         "answers on a connection, the last with Connection: close; 0: never [0]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.server_close_after, parse_count(s, 0, UINT32_MAX)); }},

        {kTls, "--tls-clients", "", Form::kFlag, "clients speak TLS 1.3", &set_flag<&Options::tls_clients>},
        {kTls, "--tls-servers", "", Form::kFlag, "servers speak TLS 1.3", &set_flag<&Options::tls_servers>},
        {kTls, "--tls12", "", Form::kFlag, "1.2 in place of 1.3", &set_flag<&Options::tls12>},
        {kTls, "--tls-resume", "", Form::kFlag, "clients resume with tickets", &set_flag<&Options::tls_resume>},
        {kTls, "--sni", "NAME", Form::kOne, "server name that clients send [--host]",
         [](Draft& d, const std::string& s) -> Status {
           if (s.empty() || s.size() > kMaxHostBytes || s.find_first_of(" \t:/") != std::string::npos)
             return Error{"'" + s + "' is not a server name"};
           d.o.sni = s;
           return {};
         }},
        {kTls, "--certificate", "FILE", Form::kOne, "PEM, of servers; without it self-signed",
         [](Draft& d, const std::string& s) -> Status { return store_file(d.o.certificate, s); }},
        {kTls, "--key", "FILE", Form::kOne, "PEM, its key",
         [](Draft& d, const std::string& s) -> Status { return store_file(d.o.key, s); }},

        {kTime, "--warmup", "S", Form::kOne, "not counted [1]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.warmup_ns, parse_duration(s, 0, kDay)); }},
        {kTime, "--duration", "S", Form::kOne, "that is measured; 0: until SIGINT or SIGTERM, which is then no error [10]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.duration_ns, parse_duration(s, 0, kDay)); }},
        {kTime, "--start-on-signal", "", Form::kFlag, "devices are opened at once, everything else begins at SIGUSR1",
         &set_flag<&Options::start_on_signal>},
        {kTime, "--interval", "S", Form::kOne, "between lines of progress; 0: none [1]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.interval_ns, parse_duration(s, 0, kDay)); }},
        {kTime, "--timeout", "S", Form::kOne, "a request unanswered for so long is an error [10]",
         [](Draft& d, const std::string& s) -> Status {
           return store(d.o.timeout_ns, parse_duration(s, base::kMillisecond, kDay));
         }},
        {kTime, "--hold", "S", Form::kOne, "with --idle: how long all stay open before the end [0]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.hold_ns, parse_duration(s, 0, kDay)); }},

        {kOutput, "--json", "FILE", Form::kOne, "the result as JSON; -: standard output, and the table on standard error",
         [](Draft& d, const std::string& s) -> Status { return store_file(d.o.json_file, s); }},
        {kOutput, "--histogram", "FILE", Form::kOne, "latencies as HdrHistogram's percentile text",
         [](Draft& d, const std::string& s) -> Status { return store_file(d.o.histogram_file, s); }},
        {kOutput, "--quiet", "", Form::kFlag, "no progress, no table; errors are still said", &set_flag<&Options::quiet>},

        {kFaults, "--loss", "SHARE", Form::kOne, "frames we lose of those received and sent, 0 to 0.9 [0]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.loss, parse_real(s, 0, 0.9)); }},
        {kFaults, "--seed", "N", Form::kOne, "of everything that is drawn [1]",
         [](Draft& d, const std::string& s) -> Status { return store(d.o.seed, parse_count(s, 0, 9'000'000'000'000'000)); }},
};

constexpr const char* kFooter = R"(
Numbers take k, M, G (thousands, …), sizes K, M, G (1024, …), times us, ms, s, m.

A gateway between our clients and our servers on one wire, closed loop:
  millrace-load --device net_vhost0,iface=/run/gw.sock --target 10.63.0.2:8080 --servers 10.65.0.1-10.65.0.4:80 --response-body 64
nginx behind a veth pair, 100,000 requests/s, every latency:
  millrace-load --role clients --device net_af_xdp0,iface=gen0 --router 10.9.0.1/24 --dut 10.9.0.2 --target 10.9.0.2:80 --rate 100k \
      --histogram latency.hgrm
A million idle connections at 50,000/s, held for a minute:
  millrace-load --device … --target 10.63.0.2:8080 --servers 10.65.0.1:80 --connections 0 --idle 1M --ramp 50k --hold 1m

Exit: 0 a clean run; 1 a run with errors; 2 usage; 3 the machine (core, memory, device). perf/load/README.md says more.)";

// --- options held against each other ----------------------------------------------------------------------------------------

bool plays_clients(Role r) { return r == Role::kBoth || r == Role::kClients; }
bool plays_servers(Role r) { return r == Role::kBoth || r == Role::kServers; }

const char* family(const IpAddress& a) { return a.is_v4() ? "IPv4" : "IPv6"; }

// Routers and devices under test to wires: of each family the first belongs to the first wire, the second to the second.
Status lay_wires(Draft& d) {
  const size_t wires = d.devices.size();
  if (wires == 0) return Error{"--device: none is given; name the wire to send on"};
  if (wires > kMaxWires)
    return Error{"--device: given " + std::to_string(wires) +
                 " times; there is one wire, or one for clients and one for servers"};
  if (wires == 2 && d.o.role != Role::kBoth) return Error{"--device: two wires are for --role both; this role needs one"};
  for (const std::string& name : d.devices) d.o.wires.push_back({.devargs = name});
  if (wires == 2 && d.devices[0] == d.devices[1]) return Error{"--device: both wires are '" + d.devices[0] + "'"};
  if (d.o.role == Role::kForward) {
    for (const char* name : {"--router", "--dut"})
      if (d.has(name)) return Error{std::string(name) + ": has no use with --role forward, which answers whoever sends"};
    return {};
  }
  if (d.routers.empty() && d.duts.empty() && wires == 1) {
    d.routers.push_back(*parse_network(kDefaultRouter));
    d.duts.push_back(*parse_address(kDefaultDut));
  }
  for (const bool v4 : {true, false}) {
    std::vector<Network> routers;
    std::vector<IpAddress> duts;
    std::copy_if(d.routers.begin(), d.routers.end(), std::back_inserter(routers),
                 [&](const Network& n) { return n.address.is_v4() == v4; });
    std::copy_if(d.duts.begin(), d.duts.end(), std::back_inserter(duts), [&](const IpAddress& a) { return a.is_v4() == v4; });
    const std::string ip = v4 ? "IPv4" : "IPv6";
    if (!routers.empty() && routers.size() != wires) {
      return Error{"--router: " + std::to_string(routers.size()) + " " + ip + " addresses for " + std::to_string(wires) +
                   (wires == 1 ? " wire" : " wires")};
    }
    if (duts.size() != routers.size()) {
      return Error{"--dut: " + std::to_string(duts.size()) + " " + ip + " addresses for " + std::to_string(routers.size()) +
                   " of --router"};
    }
    for (size_t i = 0; i < routers.size(); ++i) {
      WireOptions& w = d.o.wires[i];
      if (!contains(routers[i], duts[i]))
        return Error{"--dut: " + duts[i].to_string() + " is not on the wire of --router " + to_string(routers[i])};
      if (duts[i] == routers[i].address) return Error{"--dut: " + duts[i].to_string() + " is our own address (--router)"};
      if (w.router.address.is_unspecified()) {
        w.router = routers[i];
        w.dut = duts[i];
      } else {
        w.router6 = routers[i];
        w.dut6 = duts[i];
      }
    }
  }
  if (d.o.wires[0].router.address.is_unspecified())
    return Error{"--router: none is given; say our address on each wire, and with --dut who is asked"};
  return {};
}

bool routes_family(const WireOptions& w, bool v4) {
  return (!w.router.address.is_unspecified() && w.router.address.is_v4() == v4) ||
         (w.router6 && w.router6->address.is_v4() == v4);
}

Status check_clients(Draft& d) {
  Options& o = d.o;
  if (!plays_clients(o.role)) {
    for (const char* name :
         {"--clients", "--target", "--connections", "--rate", "--idle", "--targets", "--tls-clients", "--histogram"})
      if (d.has(name)) return Error{std::string(name) + ": has no use without clients (--role)"};
    return {};
  }
  if (o.targets.empty()) return Error{"--target: none is given; say where clients connect to"};
  if (!d.has("--clients")) {
    if (!o.targets[0].address.is_v4()) return Error{"--clients: say which IPv6 addresses clients have"};
    o.clients = *parse_network(kDefaultClients);
  }
  for (const Endpoint& t : o.targets) {
    if (t.address.is_v4() != o.clients.address.is_v4()) {
      return Error{"--target: " + t.address.to_string() + " is " + family(t.address) +
                   ", the clients' addresses (--clients) are " + family(o.clients.address)};
    }
    if (contains(o.clients, t.address))
      return Error{"--target: " + t.address.to_string() + " is one of the clients' addresses (--clients " + to_string(o.clients) +
                   ")"};
  }
  for (const WireOptions& w : o.wires) {
    for (const IpAddress& a : {w.router.address, w.dut}) {
      if (contains(o.clients, a))
        return Error{"--clients: " + to_string(o.clients) + " takes in " + a.to_string() +
                     ", an address on the wire (--router, --dut)"};
    }
  }
  if (!routes_family(o.wires.front(), o.clients.address.is_v4())) {
    return Error{std::string("--clients: they are ") + family(o.clients.address) +
                 ", the clients' wire has no --router of that family"};
  }
  if (o.connections == 0 && o.idle == 0) return Error{"--connections: 0 is only possible with --idle"};
  const uint64_t all = uint64_t{o.connections} + o.idle;
  if (all > kMaxConnections)
    return Error{"--idle: " + std::to_string(all) + " connections are more than " + std::to_string(kMaxConnections)};
  const uint64_t ends =
      std::min<uint64_t>(addresses_of(o.clients), kMaxClientAddresses) * (kLastClientPort - kFirstClientPort + 1);
  if (all > ends) {
    return Error{"--clients: " + to_string(o.clients) + " has address and port for " + std::to_string(ends) +
                 " connections, not for " + std::to_string(all)};
  }
  if (o.connections == 0 && o.rate > 0) return Error{"--rate: needs --connections to send on"};
  if (o.poisson && o.rate == 0) return Error{"--poisson: only with --rate"};
  if (o.requests_per_connection != 0 && o.pipeline > o.requests_per_connection) {
    return Error{"--pipeline: " + std::to_string(o.pipeline) + " in flight on connections of " +
                 std::to_string(o.requests_per_connection) + " (--requests-per-connection)"};
  }
  if (o.wake > 0 && o.idle == 0) return Error{"--wake: only with --idle"};
  if (o.flood > 0 && (!o.flood_sources.address.is_v4() || !o.targets[0].address.is_v4()))
    return Error{"--flood: only of IPv4, from --flood-sources to --target"};
  if (d.has("--hold") && o.idle == 0) return Error{"--hold: only with --idle"};
  if (!o.targets_file.empty() && (d.has("--host") || d.has("--path")))
    return Error{"--targets: the file has hosts and paths; leave --host and --path away"};
  if (d.has("--zipf") && o.targets_file.empty()) return Error{"--zipf: needs --targets to draw from"};
  if (!d.has("--body-check") && o.role == Role::kClients) o.body_check = BodyCheck::kLength;
  return {};
}

Status check_servers(const Draft& d) {
  const Options& o = d.o;
  if (!plays_servers(o.role)) {
    for (const char* name : {"--servers", "--tls-servers", "--server-chunked", "--server-close-after", "--certificate", "--key",
                             "--max-server-connections"})
      if (d.has(name)) return Error{std::string(name) + ": has no use without servers (--role)"};
    return {};
  }
  if (o.servers.empty()) return Error{"--servers: none is given; say where servers listen"};
  uint64_t addresses = 0;
  for (const ServerRange& r : o.servers) {
    const uint64_t n = addresses_between(r.first, r.last);
    addresses = n > kMaxServerAddresses ? n : addresses + n;
    if (addresses > kMaxServerAddresses)
      return Error{"--servers: more than " + std::to_string(kMaxServerAddresses) + " addresses"};
    if (!routes_family(o.wires.back(), r.first.is_v4())) {
      return Error{std::string("--servers: ") + r.first.to_string() + " is " + family(r.first) +
                   ", the servers' wire has no --router of that family"};
    }
    if (plays_clients(o.role) && r.first.is_v4() == o.clients.address.is_v4() &&
        (contains(o.clients, r.first) || contains(o.clients, r.last) ||
         (r.first <= o.clients.address && o.clients.address <= r.last))) {
      return Error{"--servers: " + r.first.to_string() + "-" + r.last.to_string() + " overlaps with --clients " +
                   to_string(o.clients)};
    }
    for (const WireOptions& w : o.wires) {
      if (r.first <= w.dut && w.dut <= r.last)
        return Error{"--servers: " + w.dut.to_string() + " is the device under test (--dut)"};
    }
  }
  return {};
}

// The name in a Host field, without its port; empty for addresses, which server_name does not take.
std::string server_name(const std::string& host) {
  if (host.starts_with('[')) return {};
  std::string name = host.substr(0, host.find(':'));
  return IpAddress::parse(name) ? std::string() : name;
}

Status check_tls(Draft& d) {
  const Options& o = d.o;
  const bool any = o.tls_clients || o.tls_servers;
  if (o.tls_resume && !o.tls_clients) return Error{"--tls-resume: only with --tls-clients"};
  if (o.tls12 && !any) return Error{"--tls12: only with --tls-clients or --tls-servers"};
  if (!o.sni.empty() && !any) return Error{"--sni: only with --tls-clients or --tls-servers"};
  if (o.certificate.empty() != o.key.empty()) return Error{"--certificate and --key: one is missing"};
  if (!o.certificate.empty() && !o.tls_servers) return Error{"--certificate: only with --tls-servers"};
  if (any && o.sni.empty()) d.o.sni = server_name(o.host);
  for (const auto& [name, file] : {std::pair{"--certificate", &o.certificate}, std::pair{"--key", &o.key}}) {
    if (!file->empty() && access(file->c_str(), R_OK) != 0)
      return Error{std::string(name) + ": " + *file + ": " + std::strerror(errno)};
  }
  return {};
}

// A result that cannot be written is found out before the run, not after it.
Status check_output(const char* name, const std::string& file) {
  if (file.empty() || file == "-") return {};
  if (access(file.c_str(), F_OK) == 0) {
    if (access(file.c_str(), W_OK) == 0) return {};
  } else {
    const size_t slash = file.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : file.substr(0, slash);
    if (access(folder.c_str(), W_OK | X_OK) == 0) return {};
  }
  return Error{std::string(name) + ": " + file + ": " + std::strerror(errno)};
}

Status check(Draft& d) {
  if (Status s = lay_wires(d); !s) return s;
  if (Status s = check_clients(d); !s) return s;
  if (Status s = check_servers(d); !s) return s;
  if (Status s = check_tls(d); !s) return s;
  if (d.o.core == d.o.main_core)
    return Error{"--core: core " + std::to_string(d.o.core) +
                 " polls without a pause; other threads need another one (--main-core)"};
  if (!d.o.targets_file.empty() && access(d.o.targets_file.c_str(), R_OK) != 0)
    return Error{"--targets: " + d.o.targets_file + ": " + std::strerror(errno)};
  if (d.o.histogram_file == "-") return Error{"--histogram: needs a file"};
  if (Status s = check_output("--json", d.o.json_file); !s) return s;
  return check_output("--histogram", d.o.histogram_file);
}

// --- reading ------------------------------------------------------------------------------------------------------------------

// Letters to change, add or drop to make one word of the other (Levenshtein).
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t cost = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({cost, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string unknown(const std::string& word) {
  if (!word.starts_with('-')) return "'" + word + "' belongs to no option; see --help";
  const std::string_view name = std::string_view(word).substr(0, word.find('='));
  const Spec* nearest = nullptr;
  size_t best = 1 + name.size() / 3;  // further away is another word
  for (const Spec& s : kSpecs) {
    const size_t n = distance(name, s.name);
    if (n < best) best = n, nearest = &s;
  }
  return std::string(name) + ": there is no such option" +
         (nearest != nullptr ? "; is " + std::string(nearest->name) + " meant?" : "; see --help");
}

// Breaks a description into lines that stand beside the options' names.
std::string wrapped(std::string text) {
  constexpr size_t kColumns = 84;
  for (size_t begin = 0; text.size() - begin > kColumns;) {
    const size_t blank = text.rfind(' ', begin + kColumns);
    if (blank == std::string::npos || blank <= begin) break;
    text[blank] = '\n';
    begin = blank + 1;
  }
  return text;
}

}  // namespace

Result<ParsedOptions> parse_options(int argc, const char* const* argv) {
  CLI::App app{
      "millrace-load: plays the clients and the servers of a gateway at packet level on one core, and checks every answer.",
      "millrace-load"};
  app.get_formatter()->column_width(42);
  app.footer(kFooter);
  app.set_version_flag("--version", "millrace-load " MILLRACE_VERSION);
  app.allow_extras();
  std::map<const Spec*, std::vector<std::string>> values;
  std::map<const Spec*, CLI::Option*> flags;
  for (const Spec& s : kSpecs) {
    if (s.form == Form::kFlag) {
      flags[&s] = app.add_flag(s.name)
                      ->description(wrapped(s.help))
                      ->group(s.group)
                      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    } else {
      app.add_option(s.name, values[&s], wrapped(s.help))
          ->type_name(s.value)
          ->group(s.group)
          ->expected(1)
          ->allow_extra_args(false)
          ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    }
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return ParsedOptions{{}, app.help()};
  } catch (const CLI::CallForVersion&) {
    return ParsedOptions{{}, app.version() + "\n"};
  } catch (const CLI::ArgumentMismatch& e) {  // "--core: 1 required N missing"
    const std::string_view name = std::string_view(e.what()).substr(0, std::string_view(e.what()).find(':'));
    for (const Spec& s : kSpecs)
      if (name == s.name) return Error{std::string(name) + ": its value is missing (" + s.value + ")"};
    return Error{e.what()};
  } catch (const CLI::ParseError& e) {
    return Error{e.what()};
  }
  if (const std::vector<std::string> rest = app.remaining(); !rest.empty()) return Error{unknown(rest.front())};

  Draft d;
  for (const Spec& s : kSpecs) {
    std::vector<std::string>& texts = values[&s];
    if (s.form == Form::kFlag && flags[&s]->count() != 0) {
      if (flags[&s]->results().back() != "true") return Error{std::string(s.name) + ": takes no value"};
      texts.push_back("");
    }
    if (texts.empty()) continue;
    d.given.insert(s.name);
    if (s.form == Form::kOne && texts.size() > 1)
      return Error{std::string(s.name) + ": given " + std::to_string(texts.size()) + " times"};
    for (const std::string& text : texts) {
      if (text.starts_with("--")) return Error{std::string(s.name) + ": its value is missing (" + s.value + ")"};
      if (Status status = s.set(d, text); !status) return Error{std::string(s.name) + ": " + status.error()};
    }
  }
  if (Status s = check(d); !s) return Error{s.error()};
  return ParsedOptions{std::move(d.o), {}};
}

}  // namespace millrace::load
