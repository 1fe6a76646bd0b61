// The generator's command line: what is meant, and one clear sentence for every mistake.
#include "perf/load/options.h"

#include <cstdio>
#include <string>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "perf/load/option_values.h"

namespace millrace::load {
namespace {

using base::IpAddress;

// Words separated by blanks; `~` stands for a blank within a word.
std::vector<std::string> words(const std::string& line) {
  std::vector<std::string> out;
  std::string word;
  for (char c : line + " ") {
    if (c == ' ') {
      if (!word.empty()) out.push_back(std::exchange(word, ""));
    } else {
      word += c == '~' ? ' ' : c;
    }
  }
  return out;
}

base::Result<ParsedOptions> parse(const std::vector<std::string>& args) {
  std::vector<const char*> argv = {"millrace-load"};
  for (const std::string& a : args) argv.push_back(a.c_str());
  return parse_options(static_cast<int>(argv.size()), argv.data());
}
base::Result<ParsedOptions> parse(const std::string& line) { return parse(words(line)); }

const std::string kBoth = "--device net_memif0 --target 10.63.0.2:80 --servers 10.65.0.1:80 ";
const std::string kClients = "--device net_memif0 --role clients --target 10.63.0.2:80 ";

Options good(const std::string& line) {
  auto r = parse(line);
  EXPECT_TRUE(r.ok()) << line << ": " << (r.ok() ? "" : r.error());
  return r.ok() ? r->options : Options();
}
IpAddress ip(const char* text) { return *IpAddress::parse(text); }

TEST(LoadOptions, WhatIsLeftAwayIsAsTheReadmeSays) {
  const Options o = good(kBoth);
  ASSERT_EQ(o.wires.size(), 1u);
  EXPECT_EQ(o.wires[0].devargs, "net_memif0");
  EXPECT_EQ(o.wires[0].router.address, ip("10.63.0.1"));
  EXPECT_EQ(o.wires[0].router.bits, 30);
  EXPECT_EQ(o.wires[0].dut, ip("10.63.0.2"));
  EXPECT_FALSE(o.wires[0].router6.has_value());
  EXPECT_EQ(to_string(o.clients), "10.64.0.0/16");
  EXPECT_EQ(o.role, Role::kBoth);
  EXPECT_EQ(o.connections, 64u);
  EXPECT_EQ(o.rate, 0);
  EXPECT_EQ(o.body_check, BodyCheck::kPattern);
  EXPECT_FALSE(o.response_body.has_value());
  EXPECT_EQ(o.duration_ns, 10 * base::kSecond);
  EXPECT_EQ(o.warmup_ns, base::kSecond);
  EXPECT_TRUE(o.hugepages);
  EXPECT_EQ(o.offloads, WireOffloads::kAuto);
  EXPECT_EQ(good(kClients).body_check, BodyCheck::kLength);  // a server that is not ours sends what it likes
  EXPECT_EQ(good(kClients + "--body-check pattern").body_check, BodyCheck::kPattern);
}

TEST(LoadOptions, EverythingAtOnce) {
  const Options o = good(
      "--core 3 --main-core 2 --memory-mb 2048 --file-prefix gen-1 --no-hugepages --device net_vhost0,iface=/run/a,tso=1 "
      "--device 0000:3b:00.0 "
      "--router 10.1.0.1/24 --router 10.2.0.1/24 --router fd00:1::1/64 --router fd00:2::1/64 --dut 10.1.0.2 --dut fd00:1::2 "
      "--dut 10.2.0.2 "
      "--dut fd00:2::2 --mtu 1600 --offloads off --descriptors 512 --role both --clients fd00:64::/64 --target [fd00:1::2]:8443 "
      "--target [fd00:1::2]:8444 --servers [fd00:65::1]-[fd00:65::ff]:80-81 --servers 10.65.0.1-10.65.0.9:90 --connections 10k "
      "--rate 1.5M "
      "--poisson --requests-per-connection 100 --pipeline 16 --requests 5M --idle 1M --ramp 50k --close header --window 64K "
      "--max-server-connections 5k --method POST --targets /dev/null --zipf 1.1 --header X-A:~b~c --header accept:*/* "
      "--request-body 1K "
      "--response-body 16KB --body-check length --expect-status 204 --server-chunked --server-close-after 7 "
      "--tls-clients "
      "--tls-servers --tls12 --tls-resume --sni a.example --certificate /dev/null --key /dev/null --warmup 0 --duration 2.5 "
      "--interval 500ms "
      "--timeout 1m --hold 3s --json - --histogram /dev/null --quiet --loss 0.01 --seed 99");
  EXPECT_EQ(o.core, 3u);
  EXPECT_EQ(o.main_core, 2u);
  EXPECT_EQ(o.memory_mb, 2048u);
  EXPECT_EQ(o.file_prefix, "gen-1");
  EXPECT_FALSE(o.hugepages);
  ASSERT_EQ(o.wires.size(), 2u);
  EXPECT_EQ(o.wires[0].devargs, "net_vhost0,iface=/run/a,tso=1");
  EXPECT_EQ(o.wires[1].devargs, "0000:3b:00.0");
  EXPECT_EQ(to_string(o.wires[0].router), "10.1.0.1/24");
  EXPECT_EQ(to_string(o.wires[1].router), "10.2.0.1/24");
  EXPECT_EQ(to_string(*o.wires[0].router6), "fd00:1::1/64");
  EXPECT_EQ(to_string(*o.wires[1].router6), "fd00:2::1/64");
  EXPECT_EQ(o.wires[0].dut, ip("10.1.0.2"));
  EXPECT_EQ(o.wires[1].dut, ip("10.2.0.2"));
  EXPECT_EQ(*o.wires[0].dut6, ip("fd00:1::2"));
  EXPECT_EQ(*o.wires[1].dut6, ip("fd00:2::2"));
  EXPECT_EQ(o.mtu, 1600);
  EXPECT_EQ(o.offloads, WireOffloads::kOff);
  EXPECT_EQ(o.descriptors, 512);
  EXPECT_EQ(to_string(o.clients), "fd00:64::/64");
  ASSERT_EQ(o.targets.size(), 2u);
  EXPECT_EQ(o.targets[1].address, ip("fd00:1::2"));
  EXPECT_EQ(o.targets[1].port, 8444);
  ASSERT_EQ(o.servers.size(), 2u);
  EXPECT_EQ(o.servers[0].last, ip("fd00:65::ff"));
  EXPECT_EQ(o.servers[0].port_first, 80);
  EXPECT_EQ(o.servers[0].port_last, 81);
  EXPECT_EQ(o.servers[1].first, ip("10.65.0.1"));
  EXPECT_EQ(o.servers[1].last, ip("10.65.0.9"));
  EXPECT_EQ(o.servers[1].port_last, 90);
  EXPECT_EQ(o.connections, 10'000u);
  EXPECT_EQ(o.rate, 1.5e6);
  EXPECT_TRUE(o.poisson);
  EXPECT_EQ(o.requests_per_connection, 100u);
  EXPECT_EQ(o.pipeline, 16u);
  EXPECT_EQ(o.requests, 5'000'000u);
  EXPECT_EQ(o.idle, 1'000'000u);
  EXPECT_EQ(o.ramp, 50'000u);
  EXPECT_EQ(o.close, CloseMode::kHeader);
  EXPECT_EQ(o.window, 65'536u);
  EXPECT_EQ(o.max_server_connections, 5'000u);
  EXPECT_EQ(o.method, "POST");
  EXPECT_EQ(o.targets_file, "/dev/null");
  EXPECT_EQ(o.zipf, 1.1);
  EXPECT_EQ(o.headers, (std::vector<std::string>{"X-A: b c", "accept: */*"}));
  EXPECT_EQ(o.request_body, 1024u);
  EXPECT_EQ(o.response_body, 16'384u);
  EXPECT_EQ(o.body_check, BodyCheck::kLength);
  EXPECT_EQ(o.expect_status, 204);
  EXPECT_TRUE(o.server_chunked);
  EXPECT_EQ(o.server_close_after, 7u);
  EXPECT_TRUE(o.tls_clients && o.tls_servers && o.tls12 && o.tls_resume);
  EXPECT_EQ(o.sni, "a.example");
  EXPECT_EQ(o.certificate, "/dev/null");
  EXPECT_EQ(o.key, "/dev/null");
  EXPECT_EQ(o.warmup_ns, 0u);
  EXPECT_EQ(o.duration_ns, 2'500'000'000u);
  EXPECT_EQ(o.interval_ns, 500 * base::kMillisecond);
  EXPECT_EQ(o.timeout_ns, 60 * base::kSecond);
  EXPECT_EQ(o.hold_ns, 3 * base::kSecond);
  EXPECT_EQ(o.json_file, "-");
  EXPECT_EQ(o.histogram_file, "/dev/null");
  EXPECT_TRUE(o.quiet);
  EXPECT_EQ(o.loss, 0.01);
  EXPECT_EQ(o.seed, 99u);
}

TEST(LoadOptions, FormsThatAreAccepted) {
  EXPECT_EQ(good("--device=net_memif0 --target=10.63.0.2:80 --servers=10.65.0.1:80 --connections=5").connections, 5u);
  EXPECT_EQ(good("--device net_memif0 --role forward").role, Role::kForward);
  EXPECT_EQ(good("--device net_memif0 --role servers --servers 10.65.0.1:80").role, Role::kServers);
  EXPECT_EQ(good(kBoth + "--connections 0 --idle 5 --hold 1").connections, 0u);
  EXPECT_EQ(good(kBoth + "--response-body 0").response_body, 0u);
  EXPECT_EQ(good(kBoth + "--duration 0").duration_ns, 0u);
  EXPECT_EQ(good(kBoth + "--header x:").headers[0], "x: ");
  EXPECT_EQ(good(kBoth + "--path /a?b=c#d --host [::1]:8080").host, "[::1]:8080");
  EXPECT_EQ(good(kClients + "--router fd00::1/64 --dut fd00::2 --router 10.9.0.1/24 --dut 10.9.0.2").wires[0].router6->address,
            ip("fd00::1"));
}

TEST(LoadOptions, ServerNameFollowsTheHost) {
  EXPECT_EQ(good(kClients).sni, "");
  EXPECT_EQ(good(kClients + "--tls-clients").sni, "load.example");
  EXPECT_EQ(good(kClients + "--tls-clients --host a.example:8443").sni, "a.example");
  EXPECT_EQ(good(kClients + "--tls-clients --host a.example:8443 --sni b.example").sni, "b.example");
  EXPECT_EQ(good(kClients + "--tls-clients --host 10.1.2.3:80").sni, "");
  EXPECT_EQ(good(kClients + "--tls-clients --host [fd00::1]:80").sni, "");
}

TEST(LoadOptions, OneSentenceForEachMistake) {
  const std::string six = "--device net_memif0 --router fd00::1/64 --dut fd00::2 ";
  const struct {
    std::string line, want;
  } cases[] = {
      // words
      {"", "--device: none is given; name the wire to send on"},
      {kBoth + "--conections 5", "--conections: there is no such option; is --connections meant?"},
      {kBoth + "--conections=5", "--conections: there is no such option; is --connections meant?"},
      {kBoth + "--xyzzy", "--xyzzy: there is no such option; see --help"},
      {kBoth + "-c 5", "-c: there is no such option; see --help"},
      {kBoth + "5", "'5' belongs to no option; see --help"},
      {kBoth + "--core", "--core: its value is missing (N)"},
      {kBoth + "--core --quiet", "--core: its value is missing (N)"},
      {kBoth + "--quiet=maybe", "--quiet: takes no value"},
      {kBoth + "--rate -5", "--rate: '-5' is out of range: 0 to 1000000000"},
      {kBoth + "--core 1 --core 2", "--core: given 2 times"},
      // values
      {kBoth + "--core x", "--core: 'x' is not a whole number (such as 64, 100k, 2M)"},
      {kBoth + "--core 1.5", "--core: '1.5' is not a whole number (such as 64, 100k, 2M)"},
      {kBoth + "--core 1e2", "--core: '1e2' is not a whole number (such as 64, 100k, 2M)"},
      {kBoth + "--core=", "--core: its value is missing (N)"},
      {kBoth + "--core=-1", "--core: '-1' is out of range: 0 to 1023"},
      {kBoth + "--connections 99999999999999999999999",
       "--connections: '99999999999999999999999' is not a whole number (such as 64, 100k, 2M)"},
      {kBoth + "--connections 17M", "--connections: '17M' is out of range: 0 to 16000000"},
      {kBoth + "--rate 0", "--rate: '0': a rate is above 0; leave it away for a closed loop"},
      {kBoth + "--rate nan", "--rate: 'nan' is not a number"},
      {kBoth + "--rate fast", "--rate: 'fast' is not a number"},
      {kBoth + "--zipf 11", "--zipf: '11' is out of range: 0 to 10"},
      {kBoth + "--pipeline 65", "--pipeline: '65' is out of range: 1 to 64"},
      {kBoth + "--response-body 65M", "--response-body: '65M' is out of range: 0 to 67108864"},
      {kBoth + "--response-body 1.0001K", "--response-body: '1.0001K' is not a number of bytes (such as 64, 16K, 1M)"},
      {kBoth + "--duration 2000m", "--duration: '2000m' is out of range: 0 to 86400 seconds"},
      {kBoth + "--timeout 0", "--timeout: '0' is out of range: 0.001 to 86400 seconds"},
      {kBoth + "--duration 5h", "--duration: '5h' is not a time (seconds, or a number with us, ms, s or m)"},
      {kBoth + "--descriptors 1000", "--descriptors: '1000' is not a power of two"},
      {kBoth + "--offloads on", "--offloads: 'on' is none of auto, cut, off"},
      {kBoth + "--role client", "--role: 'client' is none of both, clients, servers, forward"},
      {kBoth + "--file-prefix a/b", "--file-prefix: 'a/b' is not 1 to 64 letters, digits, '-', '_' and '.'"},
      {kBoth + "--mtu 10000", "--mtu: '10000' is out of range: 576 to 9000"},
      {"--device a~b", "--device: 'a b' is not a device as DPDK names it"},
      // addresses
      {kBoth + "--clients 10.64.0.0", "--clients: '10.64.0.0' lacks the length of its prefix (such as /16)"},
      {kBoth + "--clients 10.64.0.0/33", "--clients: '10.64.0.0/33': the prefix is 0 to 32 bits long"},
      {kBoth + "--clients 10.64.0/16",
       "--clients: '10.64.0/16' is not an address with the length of its prefix (such as 10.64.0.0/16)"},
      {kBoth + "--clients 0.0.0.0/0", "--clients: '0.0.0.0/0' is nobody's address"},
      {kBoth + "--target 10.63.0.2", "--target: '10.63.0.2' is not ADDRESS:PORT (IPv6 in brackets: [fd00::1]:80)"},
      {kBoth + "--target 10.63.0.2:0", "--target: '10.63.0.2:0' is not ADDRESS:PORT (IPv6 in brackets: [fd00::1]:80)"},
      {kBoth + "--target 10.63.0.2:65536", "--target: '10.63.0.2:65536' is not ADDRESS:PORT (IPv6 in brackets: [fd00::1]:80)"},
      {kBoth + "--target fd00::1:80", "--target: 'fd00::1:80' is not ADDRESS:PORT (IPv6 in brackets: [fd00::1]:80)"},
      {kBoth + "--target [10.63.0.2]:80", "--target: '[10.63.0.2]:80' is not ADDRESS:PORT (IPv6 in brackets: [fd00::1]:80)"},
      {kBoth + "--servers 10.65.0.9-10.65.0.1:80",
       "--servers: '10.65.0.9-10.65.0.1:80': the last address comes before the first"},
      {kBoth + "--servers 10.65.0.1:81-80", "--servers: '10.65.0.1:81-80': the last port comes before the first"},
      {kBoth + "--servers 10.65.0.1-[fd00::1]:80",
       "--servers: '10.65.0.1-[fd00::1]:80': from an IPv4 to an IPv6 address is no range"},
      {kBoth + "--servers 10.65.0.1",
       "--servers: '10.65.0.1' is not ADDRESS[-ADDRESS]:PORT[-PORT] (IPv6 in brackets: [fd00::1]-[fd00::9]:80)"},
      {kBoth + "--servers 10.70.0.0-10.71.0.0:80", "--servers: more than 65536 addresses"},
      // the wire
      {kBoth + "--device b --device c", "--device: given 3 times; there is one wire, or one for clients and one for servers"},
      {kBoth + "--device net_memif0", "--device: both wires are 'net_memif0'"},
      {kClients + "--device b", "--device: two wires are for --role both; this role needs one"},
      {kBoth + "--device b", "--router: none is given; say our address on each wire, and with --dut who is asked"},
      {kBoth + "--device b --router 10.1.0.1/24 --dut 10.1.0.2", "--router: 1 IPv4 addresses for 2 wires"},
      {kBoth + "--router 10.1.0.1/24", "--dut: 0 IPv4 addresses for 1 of --router"},
      {kBoth + "--dut 10.1.0.1", "--dut: 1 IPv4 addresses for 0 of --router"},
      {kBoth + "--router 10.1.0.1/24 --dut 10.2.0.2", "--dut: 10.2.0.2 is not on the wire of --router 10.1.0.1/24"},
      {kBoth + "--router 10.1.0.1/24 --dut 10.1.0.1", "--dut: 10.1.0.1 is our own address (--router)"},
      {"--device a --role forward --dut 10.1.0.1", "--dut: has no use with --role forward, which answers whoever sends"},
      // clients
      {"--device a --servers 10.65.0.1:80", "--target: none is given; say where clients connect to"},
      {"--device a --role servers --servers 10.65.0.1:80 --rate 5", "--rate: has no use without clients (--role)"},
      {six + "--role clients --target [fd00::2]:80", "--clients: say which IPv6 addresses clients have"},
      {six + "--role clients --target 10.63.0.2:80",
       "--clients: they are IPv4, the clients' wire has no --router of that family"},
      {kClients + "--target [fd00::2]:80", "--target: fd00::2 is IPv6, the clients' addresses (--clients) are IPv4"},
      {kClients + "--clients 10.63.0.0/16", "--target: 10.63.0.2 is one of the clients' addresses (--clients 10.63.0.0/16)"},
      {"--device a --role clients --target 10.99.0.1:80 --clients 10.63.0.0/16",
       "--clients: 10.63.0.0/16 takes in 10.63.0.1, an address on the wire (--router, --dut)"},
      {kClients + "--connections 0", "--connections: 0 is only possible with --idle"},
      {kClients + "--connections 10M --idle 10M", "--idle: 20000000 connections are more than 16000000"},
      {kClients + "--clients 10.64.0.7/32 --connections 100k",
       "--clients: 10.64.0.7/32 has address and port for 64512 connections, not for 100000"},
      {kClients + "--connections 0 --idle 5 --rate 10", "--rate: needs --connections to send on"},
      {kClients + "--poisson", "--poisson: only with --rate"},
      {kClients + "--requests-per-connection 1 --pipeline 2",
       "--pipeline: 2 in flight on connections of 1 (--requests-per-connection)"},
      {kClients + "--hold 5", "--hold: only with --idle"},
      {kClients + "--targets /dev/null --path /", "--targets: the file has hosts and paths; leave --host and --path away"},
      {kClients + "--zipf 1", "--zipf: needs --targets to draw from"},
      {kClients + "--targets /nonexistent/x", "--targets: /nonexistent/x: No such file or directory"},
      {kClients + "--method G~T", "--method: 'G T' is not a method"},
      {kClients + "--method CONNECT", "--method: CONNECT opens a tunnel; nothing here speaks through one"},
      {kClients + "--path x", "--path: 'x': the path does not begin with /"},
      {kClients + "--host a~b", "--host: 'a b': the host has a blank or control character"},
      {kClients + "--header nocolon", "--header: 'nocolon' is not `Name: value`"},
      {kClients + "--header a~b:c", "--header: 'a b:c' is not `Name: value`"},
      {kClients + "--header hOst:x", "--header: 'hOst' is written by the generator itself (--host, --request-body, --close)"},
      {kClients + "--header a:\r\nb:c", "--header: the value of 'a' has a control character"},
      {kClients + "--expect-status 100", "--expect-status: '100' is out of range: 200 to 599"},
      // servers
      {"--device a --target 10.63.0.2:80", "--servers: none is given; say where servers listen"},
      {kClients + "--servers 10.65.0.1:80", "--servers: has no use without servers (--role)"},
      {kBoth + "--servers 10.64.0.1:80", "--servers: 10.64.0.1-10.64.0.1 overlaps with --clients 10.64.0.0/16"},
      {kBoth + "--servers 10.63.255.0-10.65.0.1:80", "--servers: more than 65536 addresses"},
      {kBoth + "--servers 10.63.0.0-10.63.0.9:80", "--servers: 10.63.0.2 is the device under test (--dut)"},
      {kBoth + "--servers [fd00::9]:80", "--servers: fd00::9 is IPv6, the servers' wire has no --router of that family"},
      // TLS
      {kClients + "--tls-resume", "--tls-resume: only with --tls-clients"},
      {kClients + "--tls12", "--tls12: only with --tls-clients or --tls-servers"},
      {kClients + "--sni a", "--sni: only with --tls-clients or --tls-servers"},
      {kClients + "--tls-clients --sni a:b", "--sni: 'a:b' is not a server name"},
      {kBoth + "--tls-servers --key /dev/null", "--certificate and --key: one is missing"},
      {kBoth + "--certificate /dev/null --key /dev/null", "--certificate: only with --tls-servers"},
      {kBoth + "--tls-servers --certificate /nonexistent --key /dev/null",
       "--certificate: /nonexistent: No such file or directory"},
      // output and machine
      {kBoth + "--json /nonexistent/x", "--json: /nonexistent/x: No such file or directory"},
      {kBoth + "--histogram -", "--histogram: needs a file"},
      {kBoth + "--json=", "--json: its value is missing (FILE)"},
      {kBoth + "--core 2 --main-core 2", "--core: core 2 polls without a pause; other threads need another one (--main-core)"},
  };
  for (const auto& c : cases) {
    const auto r = parse(c.line);
    if (r.ok()) ADD_FAILURE() << c.line << ": accepted, expected: " << c.want;
    else EXPECT_EQ(r.error(), c.want) << c.line;
  }
}

TEST(LoadOptions, HelpAndVersion) {
  for (const char* ask : {"--help", "-h"}) {
    auto r = parse(std::vector<std::string>{ask});
    ASSERT_TRUE(r.ok());
    for (const char* want : {"--device DEVARGS", "Wire:", "TLS:", "Exit: 0 a clean run", "--requests-per-connection N"})
      EXPECT_NE(r->help.find(want), std::string::npos) << want << "\n" << r->help;
  }
  auto r = parse("--version");
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(r->help.rfind("millrace-load ", 0), 0u);
  EXPECT_EQ(r->help.back(), '\n');
}

TEST(LoadOptionValues, Ranges) {
  EXPECT_EQ(addresses_between(ip("10.0.0.1"), ip("10.0.0.1")), 1u);
  EXPECT_EQ(addresses_between(ip("10.0.0.255"), ip("10.0.1.0")), 2u);
  EXPECT_EQ(addresses_between(ip("0.0.0.1"), ip("255.255.255.255")), 4'294'967'295u);
  EXPECT_EQ(addresses_between(ip("fd00::1"), ip("fd00:1::1")), UINT64_MAX);
  EXPECT_EQ(addresses_between(ip("fd00::ffff:ffff:ffff:ffff"), ip("fd00::1:0:0:0:0")), 2u);
  EXPECT_EQ(addresses_of(*parse_network("10.0.0.1/32")), 1u);
  EXPECT_EQ(addresses_of(*parse_network("10.0.0.1/8")), 1u << 24);
  EXPECT_EQ(addresses_of(*parse_network("fd00::/64")), UINT64_MAX);
  EXPECT_EQ(addresses_of(*parse_network("fd00::/120")), 256u);
}

TEST(LoadOptionValues, NumbersWithUnits) {
  EXPECT_EQ(*parse_count("1.5M", 0, UINT64_MAX), 1'500'000u);
  EXPECT_EQ(*parse_count("0.1k", 0, 1000), 100u);
  EXPECT_EQ(*parse_bytes("1.5K", 0, 10'000), 1536u);
  EXPECT_EQ(*parse_bytes("2MiB", 0, UINT64_MAX), 2u << 20);
  EXPECT_EQ(*parse_bytes("64B", 0, 100), 64u);
  EXPECT_EQ(*parse_duration("0.1", 0, base::kSecond), 100'000'000u);
  EXPECT_EQ(*parse_duration("1.5us", 0, base::kSecond), 1500u);
  EXPECT_EQ(*parse_duration("2min", 0, 1000 * base::kSecond), 120 * base::kSecond);
  for (const char* bad : {"", " 1", "1 ", "+1", "0x10", "1kk", "k", "--1", "1,5", "inf", "1E3"}) {
    EXPECT_FALSE(parse_count(bad, 0, UINT64_MAX).ok()) << bad;
    EXPECT_FALSE(parse_bytes(bad, 0, UINT64_MAX).ok()) << bad;
    EXPECT_FALSE(parse_real(bad, 0, 1e9).ok()) << bad;
    EXPECT_FALSE(parse_duration(bad, 0, base::kNever).ok()) << bad;
  }
}

}  // namespace
}  // namespace millrace::load
