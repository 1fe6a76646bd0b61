// The dataplane section: what is read, and the exact words about what is wrong.
#include "lib/bootstrap/dataplane_section.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace millrace::bootstrap {
namespace {

SectionResult read(const std::string& text) { return read_dataplane_section(text, "gw.yaml"); }

std::string errors(const SectionResult& r) {
  std::string s;
  for (const SectionError& e : r.errors) s += e.to_string() + "\n";
  return s;
}

// A section whose port is good but for `rest`, which is put on lines of its own.
std::string with_port(const std::string& rest) {
  return "dataplane:\n  ports:\n  - device: af_packet:veth0\n    addresses: [10.1.0.1/24, \"fd00:1::1/64\"]\n" + rest;
}

TEST(Section, Defaults) {
  const SectionResult r = read(with_port(""));
  ASSERT_EQ(errors(r), "");
  ASSERT_TRUE(r.section);
  const DataplaneSection& s = *r.section;
  EXPECT_EQ(s.cores, std::vector<uint32_t>{1});
  EXPECT_EQ(s.main_core, 0u);
  EXPECT_TRUE(s.hugepages);
  EXPECT_EQ(s.memory_mb, 512u);
  EXPECT_EQ(s.file_prefix, "millrace");
  EXPECT_FALSE(s.stage_accounting);
  EXPECT_FALSE(s.tls_key_capture);
  ASSERT_EQ(s.ports.size(), 1u);
  EXPECT_EQ(s.ports[0].name, "port0");
  EXPECT_EQ(s.ports[0].mtu, 1500);
  EXPECT_EQ(s.ports[0].devargs, "net_af_packet0,iface=veth0,blocksz=4096,framesz=2048,framecnt=2048,qpairs=1,qdisc_bypass=1");
  EXPECT_EQ(s.ports[0].addresses[0].address.to_string(), "10.1.0.1");
  EXPECT_EQ(s.ports[0].addresses[0].bits, 24);
  EXPECT_EQ(s.ports[0].addresses[1].bits, 64);
  EXPECT_EQ(s.limits.connections, 32'768u);
  EXPECT_EQ(s.tcp.rto_min_ms, 200u);
  EXPECT_EQ(s.tcp.congestion, CongestionControl::kCubic);
  EXPECT_EQ(s.tcp.ecn, EcnUse::kAccept);
}

TEST(Section, EveryKey) {
  const SectionResult r = read(R"(
admin: {}
dataplane:
  cores: [2, 4-5]
  main_core: 1
  hugepages: false
  memory_mb: 2048
  file_prefix: gw-1
  stage_accounting: true
  tls_key_capture: true
  ports:
  - name: ingress
    device: "0000:3b:00.0"
    mtu: 9000
    vlan: 7
    addresses: ["10.1.0.1/24"]
    gateways: ["10.1.0.254", "10.1.0.253"]
    dad: 3
    vlans: [{vlan: 9, addresses: ["10.9.0.1/24", "fd00:9::1/64"], gateways: ["10.9.0.254"], dad: 0}]
    routes: [{to: "10.2.0.0/16", via: "10.1.0.2"}]
    neighbors: [{address: "10.1.0.2", mac: "02:00:00:00:00:09"}]
    offloads: off
    mac: "02:00:00:00:00:01"
  - device: "af_xdp:veth1,busy_budget=64"
    addresses: ["fd00:2::1/64"]
  - {name: both, bond: {mode: lacp, members: ["virtio_user:/run/a.sock", "0000:3b:00.1"]}, addresses: ["10.3.0.1/24"]}
  exception: {enable: true, name: tap-, rate: 500, to_host: [udp, "tcp:179", "tcp:7000-7010"]}
  limits: {connections: 1000, half_open: 10, time_wait: 100, neighbors: 64, payload_packets: 8192, header_packets: 2048, rx_descriptors: 512,
           tx_descriptors: 256, upstream_ports: 20000-30000, resets_per_second: 5, icmp_per_second: 6, fragments: 12,
           max_active_downstream_connections: 5000, connection_limit: 400, listener_connection_limits: {edge: 300, "a b": 0}, source_table: 2048,
           sources: [{syns_per_second: 10, burst: 20}, {ipv4_prefix: 24, ipv6_prefix: 48, connections: 7}]}
  tcp: {rcv_buf: 131072, rcv_wnd_initial: 32768, snd_buf: 65536, sack: false, timestamps: false, window_scaling: false, delayed_ack: false, delayed_ack_ms: 20,
        rto_min_ms: 5, rto_initial_ms: 500, rto_max_ms: 30000, connect_timeout_ms: 5000, user_timeout_ms: 60000, keepalive_idle_ms: 0,
        keepalive_interval_ms: 1000, keepalive_probes: 2, fin_wait_2_ms: 10000, time_wait_ms: 30000, congestion: bbr, ecn: request}
)");
  ASSERT_EQ(errors(r), "");
  const DataplaneSection& s = *r.section;
  EXPECT_EQ(s.cores, (std::vector<uint32_t>{2, 4, 5}));
  EXPECT_EQ(s.main_core, 1u);
  EXPECT_FALSE(s.hugepages);
  EXPECT_EQ(s.tcp.congestion, CongestionControl::kBbr);
  EXPECT_EQ(s.tcp.ecn, EcnUse::kRequest);
  EXPECT_EQ(s.file_prefix, "gw-1");
  EXPECT_TRUE(s.stage_accounting);
  EXPECT_TRUE(s.tls_key_capture);
  const PortSection& p = s.ports[0];
  EXPECT_EQ(p.devargs, "0000:3b:00.0");
  EXPECT_EQ(p.vlan, 7);
  EXPECT_EQ(p.gateways[0].to_string(), "10.1.0.254");
  EXPECT_EQ(p.gateways[1].to_string(), "10.1.0.253");
  EXPECT_EQ(p.dad, 3u);
  ASSERT_EQ(p.vlans.size(), 1u);
  EXPECT_EQ(p.vlans[0].vlan, 9);
  EXPECT_EQ(p.vlans[0].addresses[1].address.to_string(), "fd00:9::1");
  EXPECT_EQ(p.vlans[0].gateways[0].to_string(), "10.9.0.254");
  EXPECT_EQ(p.vlans[0].dad, 0u);
  const PortSection& bond = s.ports[2];
  EXPECT_EQ(bond.bond, BondMode::kLacp);
  EXPECT_EQ(bond.devargs, "net_bonding2,mode=4,xmit_policy=l34,slave=net_virtio_user32,slave=0000:3b:00.1");
  EXPECT_EQ(bond.member_devargs[0], "net_virtio_user32,path=/run/a.sock,queues=3,queue_size=1024");
  EXPECT_TRUE(s.exception.enable);
  EXPECT_EQ(s.exception.name, "tap-");
  EXPECT_EQ(s.exception.rate, 500u);
  ASSERT_EQ(s.exception.to_host.size(), 3u);
  EXPECT_EQ(s.exception.to_host[0].protocol, 17);
  EXPECT_EQ(s.exception.to_host[0].last, 65'535);
  EXPECT_EQ(s.exception.to_host[1].first, 179);
  EXPECT_EQ(s.exception.to_host[1].last, 179);
  EXPECT_EQ(s.exception.to_host[2].last, 7010);
  EXPECT_EQ(s.limits.fragments, 12u);
  EXPECT_EQ(s.limits.max_active_downstream_connections, 5000u);
  EXPECT_EQ(s.limits.connection_limit, 400u);
  EXPECT_EQ(s.limits.listener_connection_limits, (std::map<std::string, uint32_t>{{"a b", 0}, {"edge", 300}}));
  EXPECT_EQ(s.limits.source_table, 2048u);
  ASSERT_EQ(s.limits.sources.size(), 2u);
  EXPECT_EQ(s.limits.sources[0].ipv4_prefix, 32);
  EXPECT_EQ(s.limits.sources[0].ipv6_prefix, 64);
  EXPECT_EQ(s.limits.sources[0].syns_per_second, 10u);
  EXPECT_EQ(s.limits.sources[0].burst, 20u);
  EXPECT_EQ(s.limits.sources[1].ipv4_prefix, 24);
  EXPECT_EQ(s.limits.sources[1].ipv6_prefix, 48);
  EXPECT_EQ(s.limits.sources[1].connections, 7u);
  EXPECT_EQ(p.routes[0].to.bits, 16);
  EXPECT_EQ(p.neighbors[0].mac[5], 9);
  EXPECT_EQ(p.offloads, (Offloads{false, false, false, false}));
  EXPECT_EQ((*p.mac)[0], 2);
  EXPECT_EQ(s.ports[1].name, "port1");
  EXPECT_EQ(s.ports[1].devargs, "net_af_xdp1,iface=veth1,start_queue=0,queue_count=3,busy_budget=64");
  EXPECT_EQ(s.limits.upstream_port_first, 20'000);
  EXPECT_EQ(s.limits.upstream_port_last, 30'000);
  EXPECT_EQ(s.limits.icmp_per_second, 6u);
  EXPECT_FALSE(s.tcp.sack);
  EXPECT_EQ(s.tcp.keepalive_idle_ms, 0u);
  EXPECT_EQ(s.tcp.time_wait_ms, 30'000u);
}

TEST(Section, JsonIsRead) {
  const SectionResult r = read(
      R"({"static_resources": {}, "dataplane": {"cores": [1], "ports": [{"device": "memif:/run/m.sock,id=3", "addresses": ["10.1.0.1/24"]}]}})");
  ASSERT_EQ(errors(r), "");
  EXPECT_EQ(r.section->ports[0].devargs, "net_memif0,socket=/run/m.sock,role=client,bsize=2048,rsize=11,socket-abstract=no,id=3");
}

// Of a large file only the section is read; what it says, and where errors are, must be the same.
std::string filler_yaml(size_t bytes) {
  std::string out = "static_resources:\n  clusters:\n";
  for (int i = 0; out.size() < bytes; ++i)
    out += "  - { name: \"c" + std::to_string(i) + "\", note: 'dataplane: {cores: [7]}' }\n# dataplane: a comment\n";
  return out;
}
TEST(Section, OfALargeFileOnlyItsLinesAreRead) {
  const std::string filler = filler_yaml(3 << 20), small = filler_yaml(100);
  for (const std::string& bad : {std::string(), std::string("  wrong: 1\n")}) {
    for (const bool in_front : {false, true}) {
      const std::string section = with_port(bad);
      const auto text = [&](const std::string& fill) { return in_front ? section + "node: { id: x }\n" + fill : fill + section; };
      const SectionResult big = read(text(filler)), reference = read(text(small));
      EXPECT_EQ(big.present, reference.present);
      ASSERT_EQ(big.errors.size(), reference.errors.size());
      for (size_t i = 0; i < big.errors.size(); ++i) {
        EXPECT_EQ(big.errors[i].message, reference.errors[i].message);
        EXPECT_EQ(big.errors[i].column, reference.errors[i].column);
        const auto lines = [](const std::string& s) { return static_cast<int>(std::count(s.begin(), s.end(), '\n')); };
        EXPECT_EQ(big.errors[i].line - reference.errors[i].line, in_front ? 0 : lines(filler) - lines(small));
      }
      if (bad.empty()) {
        ASSERT_TRUE(big.section);
        EXPECT_EQ(big.section->ports.size(), 1u);
        EXPECT_EQ(big.section->cores, std::vector<uint32_t>{1});
      }
    }
  }
  EXPECT_FALSE(read(filler).present);
}

TEST(Section, OfLargeJsonToo) {
  std::string filler = "\"static_resources\": {\"clusters\": [";
  while (filler.size() < (3 << 20)) filler += R"({"name": "a \\\" } ] \"dataplane\": {", "x": [1, {"dataplane": {}}]}, )";
  filler += "{}]}";
  const std::string section =
      R"("dataplane": {"ports": [{"device": "af_packet:veth0", "addresses": ["10.1.0.1/24"]}], "cores": [3]})";
  for (const std::string& text : {"{" + filler + ", " + section + "}", "{" + section + ",\n" + filler + "}\n",
                                  "{\"node\": 1,\n" + section + ", " + filler + ", \"a\": \"b\"}"}) {
    const SectionResult r = read(text);
    EXPECT_EQ(errors(r), "");
    ASSERT_TRUE(r.section);
    EXPECT_EQ(r.section->cores, std::vector<uint32_t>{3});
  }
  EXPECT_FALSE(read("{" + filler + "}").present);
}

// Aliases may be of anchors outside the section: then everything is read.
TEST(Section, OfALargeFileWithAnchorsAllIsRead) {
  const std::string filler = "cores: &cores [5]\n" + filler_yaml((1 << 20) + 100);
  const SectionResult r = read(filler + with_port("  cores: *cores\n"));
  ASSERT_TRUE(r.section) << errors(r);
  EXPECT_EQ(r.section->cores, std::vector<uint32_t>{5});
}

TEST(Section, AbsentIsNoError) {
  const SectionResult r = read("admin: {}\n");
  EXPECT_FALSE(r.present);
  EXPECT_FALSE(r.section);
  EXPECT_TRUE(r.errors.empty());
}

TEST(Section, PrefixOfTheRunDirectory) {
  EXPECT_EQ(read_dataplane_section(with_port(""), "f", "/run/millrace").section->file_prefix, "millrace");
  const std::string a = read_dataplane_section(with_port(""), "f", "/run/a").section->file_prefix;
  EXPECT_EQ(a.substr(0, 9), "millrace-");
  EXPECT_NE(a, read_dataplane_section(with_port(""), "f", "/run/b").section->file_prefix);
}

TEST(Section, MainCoreKeepsOutOfTheWorkersWay) {
  EXPECT_EQ(read(with_port("  cores: 0-1\n  memory_mb: 1024\n")).section->main_core, 2u);
  EXPECT_EQ(read(with_port("  cores: 0\n")).section->main_core, 1u);
}

TEST(Section, WorkersShareCoresWhenTheyMay) {
  const auto s = read(with_port("  cores: [1, 1, 0]\n  main_core: 1\n  share_cores: true\n  memory_mb: 1024\n")).section;
  ASSERT_TRUE(s);
  EXPECT_EQ(s->cores, (std::vector<uint32_t>{1, 1, 0}));
  EXPECT_EQ(s->main_core, 1u);
}

// Devices have a queue for each worker, but no more than asked for; a memif has one unless asked for more.
TEST(Section, Queues) {
  const auto devargs = [](const std::string& port) {
    const auto s =
        read("dataplane:\n  cores: 0-3\n  memory_mb: 2048\n  ports: [{addresses: [10.1.0.1/24], " + port + "}]\n").section;
    return s ? s->ports[0].devargs + " " + std::to_string(s->ports[0].queues) : "refused";
  };
  EXPECT_NE(devargs("device: 'virtio_user:/run/v.sock'").find(",queues=4,"), std::string::npos);
  EXPECT_NE(devargs("device: 'virtio_user:/run/v.sock', queues: 2").find(",queues=2,"), std::string::npos);
  EXPECT_NE(devargs("device: 'af_xdp:eth0', queues: 9").find(",queue_count=4,"), std::string::npos);
  EXPECT_TRUE(devargs("device: 'memif:/run/m.sock'").ends_with(" 1"));
  EXPECT_TRUE(devargs("device: 'memif:/run/m.sock', queues: 4").ends_with(" 4"));
}

struct Broken {
  std::string text, error;
};
TEST(Section, BrokenSections) {
  const Broken table[] = {
      {"dataplane: [\n", "gw.yaml:2:1: not YAML: end of sequence flow not found"},
      {"a: b: c\n", "gw.yaml:1:5: not YAML: illegal map value"},
      {"dataplane: 5\n", "gw.yaml:1:12: dataplane: must be a map of keys, not a plain value"},
      {"dataplane: {}\n",
       "gw.yaml:1:12: dataplane: has no `ports`: name at least one, as in ports: [{device: \"af_packet:veth0\", addresses: "
       "[\"10.1.0.1/24\"]}]"},
      {"dataplane: {ports: []}\n", "gw.yaml:1:20: dataplane.ports: is empty: name at least one port"},
      {"dataplane: {ports: {}}\n", "gw.yaml:1:20: dataplane.ports: must be a list, not a map"},
      {with_port("  core: 1\n"), "gw.yaml:5:3: dataplane: unknown key 'core'; did you mean 'cores'?"},
      {with_port("  turbo: 1\n"),
       "gw.yaml:5:3: dataplane: unknown key 'turbo'; known keys are cores, main_core, share_cores, hugepages, memory_mb, "
       "file_prefix, ports, "
       "limits, tcp, stage_accounting, tls_key_capture, exception"},
      {with_port("  limits: {sources: [{burst: 3, connections: 1}]}\n"),
       "gw.yaml:5:22: dataplane.limits.sources[0].burst: needs `syns_per_second`"},
      {with_port("  limits: {sources: [{ipv4_prefix: 24}]}\n"),
       "gw.yaml:5:22: dataplane.limits.sources[0]: limits nothing: give `syns_per_second`, `connections` or both"},
      {with_port("  limits: {listener_connection_limits: 5}\n"),
       "gw.yaml:5:40: dataplane.limits.listener_connection_limits: must be a map from names of listeners to numbers"},
      {with_port("  cores: x\n"), "gw.yaml:5:10: dataplane.cores: 'x' is no core number from 0 to 1023 and no range like 1-3"},
      {with_port("  cores: 3-1\n"),
       "gw.yaml:5:10: dataplane.cores: '3-1' is no core number from 0 to 1023 and no range like 1-3"},
      {with_port("  cores: [1, 1]\n"),
       "gw.yaml:5:14: dataplane.cores[1]: core 1 is named twice; share_cores: true allows it, for tests"},
      {with_port("  cores: []\n"), "gw.yaml:5:10: dataplane.cores: names no core: a gateway needs at least one worker"},
      {with_port("  main_core: 1\n"),
       "gw.yaml:5:14: dataplane.main_core: core 1 is also in `cores`: a worker needs a core of its own"},
      {with_port("  main_core: -1\n"), "gw.yaml:5:14: dataplane.main_core: must be a whole number from 0 to 1023, not '-1'"},
      {with_port("  hugepages: maybe\n"), "gw.yaml:5:14: dataplane.hugepages: must be true or false, not 'maybe'"},
      {with_port("  memory_mb: 1\n"), "gw.yaml:5:14: dataplane.memory_mb: must be a whole number from 64 to 1048576, not '1'"},
      {with_port("  memory_mb: 100\n"),
       "gw.yaml:5:14: dataplane.memory_mb: 100 MB do not hold the packets of `limits` for 1 worker: at least 183 MB are needed; "
       "raise it or lower limits.payload_packets"},
      {with_port("  memory_mb: 600\n  memory_mb: 600\n"), "gw.yaml:6:3: dataplane.memory_mb: appears twice; keep one"},
      {with_port("  file_prefix: a/b\n"),
       "gw.yaml:5:16: dataplane.file_prefix: 'a/b' must be 1 to 64 letters, digits, '-', '_' or '.'"},
      {with_port("    mtu: big\n"), "gw.yaml:5:10: dataplane.ports[0].mtu: must be a whole number from 576 to 9216, not 'big'"},
      {with_port("    mtu: 1000\n"),
       "gw.yaml:5:10: dataplane.ports[0].mtu: must be at least 1280 on a port with IPv6 addresses (RFC 8200 5), not '1000'"},
      {with_port("    vlan: 4095\n"), "gw.yaml:5:11: dataplane.ports[0].vlan: must be a whole number from 0 to 4094, not '4095'"},
      {with_port("    name: \"a b\"\n"),
       "gw.yaml:5:11: dataplane.ports[0].name: 'a b' must be 1 to 31 letters, digits, '-', '_' or '.'"},
      {with_port("    offloads: some\n"),
       "gw.yaml:5:15: dataplane.ports[0].offloads: must be auto, off or a list of checksum, tso, lro and scatter, not 'some'"},
      {with_port("    offloads: [tso, gro]\n"),
       "gw.yaml:5:21: dataplane.ports[0].offloads[1]: must be checksum, tso, lro or scatter, not 'gro'"},
      {with_port("    mac: 1:2:3\n"), "gw.yaml:5:10: dataplane.ports[0].mac: '1:2:3' is no MAC address, as in 02:00:00:00:00:01"},
      {with_port("    mac: \"01:00:00:00:00:01\"\n"),
       "gw.yaml:5:10: dataplane.ports[0].mac: '01:00:00:00:00:01' is a group or zero address; a port needs one of its own"},
      {with_port("    gateways: [10.9.0.1]\n"),
       "gw.yaml:5:16: dataplane.ports[0].gateways[0]: 10.9.0.1 is not within the prefix of any address of this port, so it "
       "cannot be reached"},
      {with_port("    gateways: [10.1.0.1]\n"),
       "gw.yaml:5:16: dataplane.ports[0].gateways[0]: 10.1.0.1 is this port's own address; name the router's"},
      {with_port("    gateways: [10.1.0.5, 10.1.0.5]\n"),
       "gw.yaml:5:26: dataplane.ports[0].gateways[1]: 10.1.0.5 is named twice"},
      {with_port("    vlans: [{addresses: [10.2.0.1/24]}]\n"),
       "gw.yaml:5:13: dataplane.ports[0].vlans[0]: needs `vlan`, a tag from 1 to 4094"},
      {with_port("    vlan: 7\n    vlans: [{vlan: 7, addresses: [10.2.0.1/24]}]\n"),
       "gw.yaml:6:13: dataplane.ports[0].vlans[0].vlan: VLAN 7 of this port is already configured; put the addresses together"},
      {with_port("    vlans: [{vlan: 8}]\n"),
       "gw.yaml:5:13: dataplane.ports[0].vlans[0]: has no `addresses`: a port needs at least one, as in addresses: "
       "[\"10.1.0.1/24\"]"},
      {with_port("    vlans: [{vlan: 8, addresses: [10.1.0.1/24]}]\n"),
       "gw.yaml:5:35: dataplane.ports[0].vlans[0].addresses[0]: 10.1.0.1 is already an address of dataplane.ports[0]"},
      {with_port("    vlans: [{vlan: 8, addresses: [10.2.0.1/24], gateways: [10.1.0.9]}]\n"),
       "gw.yaml:5:60: dataplane.ports[0].vlans[0].gateways[0]: 10.1.0.9 is not within the prefix of any address of this port, so "
       "it "
       "cannot be reached"},
      {with_port("    bond: {mode: lacp, members: [\"af_packet:a\"]}\n"),
       "gw.yaml:3:13: dataplane.ports[0].device: is given beside `bond`, which is a device of its own; keep one"},
      {"dataplane: {ports: [{bond: {mode: balance, members: [\"0000:3b:00.1\", \"tap:b\"]}, addresses: [10.1.0.1/24]}]}\n",
       "gw.yaml:1:70: dataplane.ports[0].bond.members[1]: its driver does not tell when the link is down, and balance would go "
       "on "
       "sending there; use active-backup, PCI devices, or a bond of the kernel's as af_packet:bond0"},
      {"dataplane: {ports: [{bond: {mode: active-backup, members: [\"tap:a\", \"memif:/b\"]}, addresses: [10.1.0.1/24]}]}\n",
       "gw.yaml:1:69: dataplane.ports[0].bond.members[1]: cannot be a member of a bond: DPDK's driver does not take another MAC "
       "address; use PCI devices, tap:, virtio_user: or af_packet:"},
      {with_port("  exception: {to_host: [sctp]}\n"),
       "gw.yaml:5:25: dataplane.exception.to_host[0]: 'sctp' is no rule: write tcp or udp, and ports as in tcp:179 or "
       "udp:3784-3785"},
      {with_port("  exception: {enable: true, name: much-too-long}\n"),
       "gw.yaml:5:14: dataplane.exception.name: with the name of port 'port0' gives 'much-too-longport0', which is longer than "
       "15 "
       "characters; shorten one of them"},
      {with_port("    gateways: [10.1.0.5/24]\n"),
       "gw.yaml:5:16: dataplane.ports[0].gateways[0]: '10.1.0.5/24' is no IP address; leave the prefix length out"},
      {with_port("    routes: [{to: 10.2.0.1/16, via: 10.1.0.2}]\n"),
       "gw.yaml:5:19: dataplane.ports[0].routes[0].to: 10.2.0.1/16 has host bits; did you mean 10.2.0.0/16?"},
      {with_port("    routes: [{to: 10.2.0.0/16}]\n"),
       "gw.yaml:5:14: dataplane.ports[0].routes[0]: needs both `to` (a prefix) and `via` (the router's address)"},
      {with_port("    routes: [{to: 10.2.0.0/16, via: \"fd00:1::9\"}]\n"),
       "gw.yaml:5:37: dataplane.ports[0].routes[0].via: is not of the same family as `to`"},
      {with_port("    routes: [{to: 10.2.0.0/16, via: 10.3.0.1}]\n"),
       "gw.yaml:5:37: dataplane.ports[0].routes[0].via: 10.3.0.1 is not within the prefix of any address of this port, so it "
       "cannot be reached"},
      {with_port("    neighbors: [{address: 10.1.0.2}]\n"),
       "gw.yaml:5:17: dataplane.ports[0].neighbors[0]: needs both `address` and `mac`"},
      {with_port("  - device: af_packet:veth0\n    addresses: [10.2.0.1/24]\n"),
       "gw.yaml:5:13: dataplane.ports[1].device: 'af_packet:veth0' is already the device of dataplane.ports[0]"},
      {with_port("  - device: tap:t0\n    addresses: [10.1.0.1/24]\n"),
       "gw.yaml:6:17: dataplane.ports[1].addresses[0]: 10.1.0.1 is already an address of dataplane.ports[0]"},
      {with_port("  - device: tap:t0\n    name: port0\n    addresses: [10.2.0.1/24]\n"),
       "gw.yaml:6:11: dataplane.ports[1].name: 'port0' is already the name of dataplane.ports[0]"},
      {"dataplane: {ports: [{addresses: [10.1.0.1/24]}]}\n",
       "gw.yaml:1:21: dataplane.ports[0]: has no `device`: name a PCI address, af_packet:IFACE, af_xdp:IFACE, memif:SOCKET or "
       "another DPDK device"},
      {"dataplane: {ports: [{device: \"af_packet:v\"}]}\n",
       "gw.yaml:1:21: dataplane.ports[0]: has no `addresses`: a port needs at least one, as in addresses: [\"10.1.0.1/24\"]"},
      {"dataplane: {ports: [{device: eth0, addresses: [10.1.0.1/24]}]}\n",
       "gw.yaml:1:30: dataplane.ports[0].device: 'eth0' is no device: use a PCI address (0000:3b:00.0), af_packet:IFACE, "
       "af_xdp:IFACE, memif:SOCKET, tap:IFACE, "
       "virtio_user:SOCKET, vhost:SOCKET, or a DPDK virtual device (net_<driver><n>,arguments)"},
      {"dataplane: {ports: [{device: \"af_xdp:\", addresses: [10.1.0.1/24]}]}\n",
       "gw.yaml:1:30: dataplane.ports[0].device: 'af_xdp:' names nothing: say which interface, as in af_xdp:veth0"},
      {"dataplane: {ports: [{device: net_tap, addresses: [10.1.0.1/24]}]}\n",
       "gw.yaml:1:30: dataplane.ports[0].device: 'net_tap' has no number: DPDK's virtual devices are named like net_tap0"},
      {"dataplane: {ports: [{device: \"tap:t0\", addresses: [10.1.0.1]}]}\n",
       "gw.yaml:1:52: dataplane.ports[0].addresses[0]: '10.1.0.1' has no prefix length from 0 to 32; write 10.1.0.1/24"},
      {"dataplane: {ports: [{device: \"tap:t0\", addresses: [10.1.0.999/24]}]}\n",
       "gw.yaml:1:52: dataplane.ports[0].addresses[0]: '10.1.0.999/24' is no IP address with prefix length, as in 10.1.0.1/24 or "
       "fd00:1::1/64"},
      {"dataplane: {ports: [{device: \"tap:t0\", addresses: [10.1.0.0/24]}]}\n",
       "gw.yaml:1:52: dataplane.ports[0].addresses[0]: 10.1.0.0 is the network's own address; use one with host bits"},
      {"dataplane: {ports: [{device: \"tap:t0\", addresses: [10.1.0.255/24]}]}\n",
       "gw.yaml:1:52: dataplane.ports[0].addresses[0]: 10.1.0.255 is the network's broadcast address"},
      {"dataplane: {ports: [{device: \"tap:t0\", addresses: [127.0.0.1/8]}]}\n",
       "gw.yaml:1:52: dataplane.ports[0].addresses[0]: 127.0.0.1 cannot be a port's address (unspecified, group or loopback)"},
      {with_port("  limits: {connections: 1}\n"),
       "gw.yaml:5:25: dataplane.limits.connections: must be a whole number from 16 to 10000000, not '1'"},
      {with_port("  limits: {upstream_ports: 5-1}\n"),
       "gw.yaml:5:28: dataplane.limits.upstream_ports: '5-1' is no range of ports within 1024-65535, as in 16384-65535"},
      {with_port("  limits: [1]\n"), "gw.yaml:5:11: dataplane.limits: must be a map of keys, not a list"},
      {with_port("  tcp: {rto_min_ms: 5000, rto_max_ms: 1000}\n"),
       "gw.yaml:5:39: dataplane.tcp.rto_max_ms: must not be below rto_min_ms"},
      {with_port("  tcp: {rcv_buf: 8192, rcv_wnd_initial: 16384}\n"),
       "gw.yaml:5:41: dataplane.tcp.rcv_wnd_initial: must not be above rcv_buf"},
      {with_port("  tcp: {nagle: true}\n"),
       "gw.yaml:5:9: dataplane.tcp: unknown key 'nagle'; known keys are rcv_buf, rcv_wnd_initial, snd_buf, sack, timestamps, "
       "window_scaling, delayed_ack, "
       "delayed_ack_ms, rto_min_ms, rto_initial_ms, rto_max_ms, connect_timeout_ms, user_timeout_ms, keepalive_idle_ms, "
       "keepalive_interval_ms, keepalive_probes, "
       "fin_wait_2_ms, time_wait_ms, congestion, ecn"},
      {with_port("  tcp: {congestion: vegas}\n"),
       "gw.yaml:5:21: dataplane.tcp.congestion: must be cubic, reno or bbr, not 'vegas'"},
      {with_port("  tcp: {ecn: perhaps}\n"), "gw.yaml:5:14: dataplane.tcp.ecn: must be off, accept or request, not 'perhaps'"},
  };
  for (const Broken& b : table) {
    const SectionResult r = read(b.text);
    EXPECT_FALSE(r.section) << b.text;
    EXPECT_EQ(errors(r), b.error + "\n") << b.text;
  }
}

TEST(Section, AllErrorsAtOnceInTheOrderOfTheFile) {
  const SectionResult r = read(
      "dataplane:\n  core: 1\n  hugepages: 7\n  ports:\n  - device: eth0\n    mtu: 1\n    addresses: [10.1.0.1/99, "
      "10.1.0.1/24]\n  - nam: x\n  limits: {foo: 1}\n");
  std::vector<int> lines;
  for (const SectionError& e : r.errors) lines.push_back(e.line);
  EXPECT_EQ(lines, (std::vector<int>{2, 3, 5, 6, 7, 8, 8, 8, 9})) << errors(r);
}

}  // namespace
}  // namespace millrace::bootstrap
