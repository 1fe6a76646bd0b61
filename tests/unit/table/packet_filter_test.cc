// Packet filters: text to program, program on frames, and what is said of texts that are none.
#include "lib/table/packet_filter.h"

#include <gtest/gtest.h>

#include "lib/base/prng.h"

namespace millrace::table {
namespace {

using base::IpAddress;

IpAddress ip(const char* text) { return *IpAddress::parse(text); }

struct Frame {
  std::vector<uint8_t> bytes;
  Frame& u8(std::initializer_list<int> v) {
    for (const int b : v) bytes.push_back(static_cast<uint8_t>(b));
    return *this;
  }
  Frame& zeros(size_t n) {
    bytes.insert(bytes.end(), n, 0);
    return *this;
  }
};

Frame ethernet(int type, int vlan = -1) {
  Frame f;
  f.zeros(12);
  if (vlan >= 0) f.u8({0x81, 0x00, vlan >> 8, vlan & 255});
  return f.u8({type >> 8, type & 255});
}
Frame tcp4(int flags = 0x10, int vlan = -1, int fragment = 0, int protocol = 6) {
  Frame f = ethernet(0x0800, vlan);
  f.u8({0x45, 0, 0, 40, 0, 0, fragment >> 8, fragment & 255, 64, protocol, 0, 0, 10, 1, 0, 2, 10, 1, 0, 1});
  return f.u8({0x9c, 0x40, 0x1f, 0x90}).zeros(9).u8({flags}).zeros(6);  // 40000 -> 8080
}
Frame tcp6(bool hop_by_hop = false) {
  Frame f = ethernet(0x86dd);
  f.u8({0x60, 0, 0, 0, 0, 20, hop_by_hop ? 0 : 6, 64, 0xfd, 0}).zeros(13).u8({2, 0xfd, 0}).zeros(13).u8({1});
  if (hop_by_hop) f.u8({6, 0, 1, 4, 0, 0, 0, 0});
  return f.u8({0x9c, 0x40, 0x01, 0xbb}).zeros(9).u8({0x02}).zeros(6);  // 40000 -> 443, SYN
}
Frame arp() { return ethernet(0x0806).u8({0, 1, 8, 0, 6, 4, 0, 1}).zeros(6).u8({10, 1, 0, 2}).zeros(6).u8({10, 1, 0, 1}); }

PacketFields fields(const Frame& f, bool outbound = false) {
  PacketFields p;
  p.length = static_cast<uint32_t>(f.bytes.size());
  p.outbound = outbound;
  read_fields(f.bytes, p);
  return p;
}

struct Case {
  const char* filter;
  const Frame frame;
  bool outbound, matches;
};
const Case kCases[] = {
    {"", tcp4(), false, true},
    {"ip", tcp4(), false, true},
    {"ip6", tcp4(), false, false},
    {"tcp", tcp4(), false, true},
    {"udp", tcp4(), false, false},
    {"host 10.1.0.2", tcp4(), false, true},
    {"host 10.1.0.1", tcp4(), false, true},
    {"host 10.1.0.3", tcp4(), false, false},
    {"src host 10.1.0.2", tcp4(), false, true},
    {"dst host 10.1.0.2", tcp4(), false, false},
    {"src 10.1.0.2", tcp4(), false, true},
    {"net 10.1.0.0/16", tcp4(), false, true},
    {"src net 10.2.0.0/16", tcp4(), false, false},
    {"net 0.0.0.0/0", tcp4(), false, true},
    {"net 0.0.0.0/0", tcp6(), false, false},
    {"port 8080", tcp4(), false, true},
    {"dst port 8080", tcp4(), false, true},
    {"src port 8080", tcp4(), false, false},
    {"tcp port 8080", tcp4(), false, true},
    {"udp port 8080", tcp4(), false, false},
    {"udp port 8080", tcp4(0x10, -1, 0, 17), false, true},
    {"portrange 8000-8100", tcp4(), false, true},
    {"portrange 8081-8100", tcp4(), false, false},
    {"tcp-syn", tcp4(0x02), false, true},
    {"tcp-syn", tcp4(0x10), false, false},
    {"tcp-syn and not tcp-ack", tcp4(0x12), false, false},
    {"tcp-rst or tcp-fin", tcp4(0x11), false, true},
    {"inbound", tcp4(), false, true},
    {"inbound", tcp4(), true, false},
    {"outbound and tcp", tcp4(), true, true},
    {"vlan", tcp4(0x10, 7), false, true},
    {"vlan 7", tcp4(0x10, 7), false, true},
    {"vlan 8", tcp4(0x10, 7), false, false},
    {"vlan", tcp4(), false, false},
    {"vlan 7 and port 8080", tcp4(0x10, 7), false, true},
    {"less 54", tcp4(), false, true},
    {"less 53", tcp4(), false, false},
    {"greater 54", tcp4(), false, true},
    {"greater 55", tcp4(), false, false},
    // A later fragment has no ports, though its bytes might look like some.
    {"port 8080", tcp4(0x10, -1, 5), false, false},
    {"host 10.1.0.1", tcp4(0x10, -1, 5), false, true},
    {"icmp", tcp4(0, -1, 0, 1), false, true},
    {"icmp6", tcp4(0, -1, 0, 58), false, false},
    {"ip6 and tcp and host fd00::1", tcp6(), false, true},
    {"dst port 443", tcp6(), false, true},
    {"dst port 443 and tcp-syn", tcp6(true), false, true},
    {"net fd00::/8", tcp6(), false, true},
    {"arp", arp(), false, true},
    {"arp host 10.1.0.1", arp(), false, true},
    {"tcp", arp(), false, false},
    // Precedence: and and or alike, to the left; not before both; parentheses before all.
    {"udp and tcp or ip", tcp4(), false, true},
    {"ip or udp and udp", tcp4(), false, false},
    {"ip or (udp and udp)", tcp4(), false, true},
    {"not udp and tcp", tcp4(), false, true},
    {"not (udp or tcp)", tcp4(), false, false},
    {"!udp && (port 1 || port 8080)", tcp4(), false, true},
    {"not not tcp", tcp4(), false, true},
};

TEST(PacketFilter, MatchesWhatItSays) {
  for (const Case& c : kCases) {
    const auto f = parse_packet_filter(c.filter);
    ASSERT_TRUE(f.ok()) << c.filter << ": " << f.error();
    EXPECT_TRUE(is_valid(*f)) << c.filter;
    EXPECT_EQ(matches(*f, fields(c.frame, c.outbound)), c.matches) << c.filter;
  }
}

struct Bad {
  const char* filter;
  const char* says;
};
const Bad kBad[] = {
    {"hots 10.0.0.1", "column 1: \"hots\" is no word of the language; did you mean host?"},
    {"tcp and", "column 8: the end comes where a term was expected"},
    {"host example.org", "column 6: \"example.org\" is no IPv4 or IPv6 address (names are not looked up)"},
    {"host 10.0.0.0/8", "column 6: \"10.0.0.0/8\" is a network: write net instead of host"},
    {"net 10.0.0.0/33", "has no prefix length between 0 and 32"},
    {"port http", "column 6: \"http\" is no port"},
    {"port 65536", "is no port"},
    {"portrange 90-80", "is no range of ports"},
    {"(tcp or udp", "column 1: \"(\" is never closed"},
    {"tcp udp", "column 5: \"udp\" comes where \"and\", \"or\" or the end was expected"},
    {"src tcp", "column 1: \"src\" needs host, net, port or portrange behind it"},
    {"tcp)", "column 4: \")\" comes where"},
    {"less many", "is no frame length"},
    {"listener edge", "cannot be resolved here"},
    {"ether host 1", "column 1: \"ether\" is no word of the language"},
};

TEST(PacketFilter, SaysWhatIsWrongAndWhere) {
  for (const Bad& b : kBad) {
    const auto f = parse_packet_filter(b.filter);
    ASSERT_FALSE(f.ok()) << b.filter;
    EXPECT_NE(f.error().find(b.says), std::string::npos) << b.filter << " -> " << f.error();
  }
  std::string deep, wide = "tcp";
  for (int i = 0; i < 5000; ++i) deep += "(";
  EXPECT_FALSE(parse_packet_filter(deep).ok());
  deep.resize(3000);
  EXPECT_NE(parse_packet_filter(deep).error().find("nested too deeply"), std::string::npos);
  for (int i = 0; i < 100; ++i) wide += " or tcp";
  EXPECT_NE(parse_packet_filter(wide).error().find("too long"), std::string::npos);
}

TEST(PacketFilter, NamesStandForTheirAddresses) {
  FilterNames names;
  names.listener = [](std::string_view n) -> base::Result<std::vector<FilterEndpoint>> {
    if (n != "edge 1") return base::Error{"there is no listener of that name; did you mean edge 1?"};
    return std::vector<FilterEndpoint>{{ip("10.1.0.1"), 8080}};
  };
  names.cluster = [](std::string_view) -> base::Result<std::vector<FilterEndpoint>> {
    return std::vector<FilterEndpoint>{{ip("10.9.0.1"), 80}, {ip("10.1.0.2"), 40000}};
  };
  const auto f = parse_packet_filter("listener 'edge 1'", names);
  ASSERT_TRUE(f.ok()) << f.error();
  EXPECT_TRUE(matches(*f, fields(tcp4())));
  EXPECT_FALSE(matches(*f, fields(tcp6())));
  const auto both = parse_packet_filter("listener 'edge 1' and cluster web", names);
  ASSERT_TRUE(both.ok()) << both.error();
  EXPECT_TRUE(matches(*both, fields(tcp4())));
  EXPECT_NE(parse_packet_filter("listener edge", names).error().find("did you mean edge 1?"), std::string::npos);
  // Address and port must be of the same side.
  names.listener = [](std::string_view) -> base::Result<std::vector<FilterEndpoint>> {
    return std::vector<FilterEndpoint>{{ip("10.1.0.1"), 40000}};
  };
  EXPECT_FALSE(matches(*parse_packet_filter("listener x", names), fields(tcp4())));
}

// Whatever the bytes: no read beyond them, and programs that are none are refused.
TEST(PacketFilter, CutAndDamagedInput) {
  for (const Frame& f : {tcp4(), tcp4(0x10, 7), tcp6(), tcp6(true), arp()})
    for (size_t n = 0; n <= f.bytes.size(); ++n) {
      Frame cut{std::vector<uint8_t>(f.bytes.begin(), f.bytes.begin() + static_cast<long>(n))};
      cut.bytes.shrink_to_fit();
      (void)fields(cut);
    }
  base::Prng random(7);
  uint32_t valid = 0;
  for (int i = 0; i < 200'000; ++i) {
    PacketFilter f;
    f.count = static_cast<uint32_t>(random.below(6));
    for (uint32_t k = 0; k < f.count; ++k) {
      f.ops[k].term = static_cast<FilterTerm>(random.below(22));
      f.ops[k].side = static_cast<FilterSide>(random.below(4));
      f.ops[k].bits = static_cast<uint8_t>(random.below(140));
    }
    if (!is_valid(f)) continue;
    ++valid;
    (void)matches(f, fields(tcp4()));
  }
  EXPECT_GT(valid, 1000u);
  PacketFilter long_one;
  long_one.count = kMaxFilterOps + 1;
  EXPECT_FALSE(is_valid(long_one));
}

}  // namespace
}  // namespace millrace::table
