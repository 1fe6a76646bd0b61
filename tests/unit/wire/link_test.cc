#include <gtest/gtest.h>

#include "lib/wire/arp.h"
#include "lib/wire/ethernet.h"
#include "tests/support/guard_page.h"
#include "tests/support/hex.h"

namespace millrace::wire {
namespace {

using support::GuardPage;
using support::hex;

constexpr MacAddress kA = {2, 0, 0, 0, 0, 0x0a}, kB = {2, 0, 0, 0, 0, 0x0b};

// Linux asks who has 10.9.0.2, and is told.
constexpr const char* kArpRequest =
    "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001 02000000000a 0a090001 000000000000 0a090002";
constexpr const char* kArpReply =
    "02000000000a 02000000000b 0806 0001 0800 06 04 0002 02000000000b 0a090002 02000000000a 0a090001";

TEST(Ethernet, Frames) {
  const struct {
    const char* name;
    const char* frame;
    ParseError error;
    uint16_t type, vlan;
    uint8_t offset;
  } kRows[] = {
      {"untagged", "ffffffffffff 02000000000a 0806", ParseError::kNone, kEtherArp, 0, 14},
      {"tagged", "ffffffffffff 02000000000a 8100 a007 0800", ParseError::kNone, kEtherIpv4, 7, 18},
      {"highest VLAN", "ffffffffffff 02000000000a 8100 0ffe 0800", ParseError::kNone, kEtherIpv4, 4094, 18},
      {"priority only", "ffffffffffff 02000000000a 8100 e000 86dd", ParseError::kNone, kEtherIpv6, 0, 18},
      {"unknown type is the caller's", "ffffffffffff 02000000000a 88cc", ParseError::kNone, 0x88cc, 0, 14},
      {"reserved VLAN", "ffffffffffff 02000000000a 8100 0fff 0800", ParseError::kBadHeader, 0, 0, 0},
      {"group as source", "02000000000a 03000000000b 0800", ParseError::kBadHeader, 0, 0, 0},
      {"LLC", "0180c2000000 02000000000a 0026", ParseError::kUnsupported, 0, 0, 0},
      {"two tags", "02000000000b 02000000000a 8100 0007 8100 0008 0800", ParseError::kUnsupported, 0, 0, 0},
      {"service tag", "02000000000b 02000000000a 88a8 0007 0800", ParseError::kUnsupported, 0, 0, 0},
      {"cut in the header", "ffffffffffff 02000000000a 08", ParseError::kTruncated, 0, 0, 0},
      {"cut in the tag", "ffffffffffff 02000000000a 8100 0007 08", ParseError::kTruncated, 0, 0, 0},
      {"empty", "", ParseError::kTruncated, 0, 0, 0},
  };
  for (const auto& row : kRows) {
    SCOPED_TRACE(row.name);
    const GuardPage page(hex(row.frame));
    EthernetView v;
    ASSERT_EQ(EthernetView::parse(page.bytes(), v), row.error);
    if (row.error != ParseError::kNone) continue;
    EXPECT_EQ(v.ether_type, row.type);
    EXPECT_EQ(v.vlan_id, row.vlan);
    EXPECT_EQ(v.payload_offset, row.offset);
    EXPECT_EQ(v.src, kA);
  }
}

TEST(Ethernet, Writes) {
  std::vector<uint8_t> out(18);
  EthernetRepr r{kB, kA, kEtherIpv4, 0};
  out.resize(r.emit(out.data()));
  EXPECT_EQ(out, hex("02000000000b 02000000000a 0800"));
  out.resize(18);
  r.vlan_id = 7;
  ASSERT_EQ(r.header_length(), 18u);
  out.resize(r.emit(out.data()));
  EXPECT_EQ(out, hex("02000000000b 02000000000a 8100 0007 0800"));
}

TEST(Ethernet, GroupsOfIpv6) {
  EXPECT_EQ(multicast_mac_v6(*base::IpAddress::parse("ff02::1:ff00:2")), (MacAddress{0x33, 0x33, 0xff, 0, 0, 2}));
  EXPECT_TRUE(is_group(kBroadcastMac));
  EXPECT_FALSE(is_group(kA));
}

TEST(Arp, RequestAndReplyOfLinux) {
  ArpView v;
  const auto request = hex(kArpRequest), reply = hex(kArpReply);
  ASSERT_EQ(ArpView::parse(base::ByteSpan(request).subspan(14), v), ParseError::kNone);
  EXPECT_EQ(v.operation, ArpOperation::kRequest);
  EXPECT_EQ(v.sender_mac, kA);
  EXPECT_EQ(v.sender_ip, 0x0a090001u);
  EXPECT_EQ(v.target_ip, 0x0a090002u);
  EXPECT_FALSE(v.is_gratuitous());

  std::vector<uint8_t> out(42);
  EthernetRepr{v.sender_mac, kB, kEtherArp, 0}.emit(out.data());
  ArpRepr answer;
  answer.operation = ArpOperation::kReply;
  answer.sender_mac = kB;
  answer.sender_ip = v.target_ip;
  answer.target_mac = v.sender_mac;
  answer.target_ip = v.sender_ip;
  EXPECT_EQ(answer.emit(out.data() + 14), kArpLength);
  EXPECT_EQ(out, reply);
}

TEST(Arp, Refusals) {
  const struct {
    const char* name;
    size_t at;
    uint8_t value;
    ParseError error;
  } kRows[] = {
      {"hardware type", 1, 6, ParseError::kUnsupported},    {"protocol", 2, 0x86, ParseError::kUnsupported},
      {"hardware length", 4, 8, ParseError::kUnsupported},  {"protocol length", 5, 16, ParseError::kUnsupported},
      {"reverse ARP", 7, 3, ParseError::kUnsupported},      {"operation 0", 7, 0, ParseError::kUnsupported},
      {"group as sender", 8, 0x03, ParseError::kBadHeader},
  };
  const auto whole = hex(kArpRequest);
  const base::ByteSpan packet = base::ByteSpan(whole).subspan(14);
  for (const auto& row : kRows) {
    std::vector<uint8_t> changed(packet.begin(), packet.end());
    changed[row.at] = row.value;
    ArpView v;
    EXPECT_EQ(ArpView::parse(changed, v), row.error) << row.name;
  }
  for (size_t n = 0; n < packet.size(); ++n) {
    const GuardPage page(packet.first(n));
    ArpView v;
    EXPECT_EQ(ArpView::parse(page.bytes(), v), ParseError::kTruncated) << n;
  }
}

TEST(Arp, AnnouncementAndPadding) {
  auto whole = hex(kArpRequest);
  whole.insert(whole.end(), 18, 0);  // to the least Ethernet frame
  std::copy(whole.begin() + 28, whole.begin() + 32, whole.begin() + 38);
  ArpView v;
  ASSERT_EQ(ArpView::parse(base::ByteSpan(whole).subspan(14), v), ParseError::kNone);
  EXPECT_TRUE(v.is_gratuitous());
}

TEST(ParseErrorText, NamesAll) {
  EXPECT_STREQ(to_string(ParseError::kNone), "none");
  EXPECT_STREQ(to_string(ParseError::kUnsupported), "unsupported");
}

}  // namespace
}  // namespace millrace::wire
