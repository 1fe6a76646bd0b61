#include "lib/wire/proxy_protocol.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/hash.h"
#include "tests/support/guard_page.h"

namespace millrace::wire {
namespace {

const std::string kSig("\r\n\r\n\0\r\nQUIT\n", 12);
std::string bytes(std::initializer_list<int> list) {
  std::string s;
  for (const int b : list) s += static_cast<char>(b);
  return s;
}
std::string v2(int command, int family, const std::string& rest) {
  return kSig + bytes({0x20 | command, family, static_cast<int>(rest.size() >> 8), static_cast<int>(rest.size() & 255)}) + rest;
}
const std::string kInet = bytes({192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb});
std::string tlv(int type, const std::string& value) {
  return bytes({type, static_cast<int>(value.size() >> 8), static_cast<int>(value.size() & 255)}) + value;
}

// "192.0.2.1:56324 198.51.100.1:443 tlvs=0 size=46", "local …", "partial", "absent", "bad port".
std::string read(std::string_view input) {
  ProxyHeader h;
  ProxyError error;
  switch (parse_proxy_header(base::as_bytes(input), &h, &error)) {
    case ProxyStatus::kPartial:
      return "partial";
    case ProxyStatus::kAbsent:
      return "absent";
    case ProxyStatus::kBad:
      return std::string("bad ") + to_string(error);
    case ProxyStatus::kDone:
      break;
  }
  const auto text = [](const base::IpAddress& a) {
    char out[46];
    return std::string(out, a.format(out, sizeof out));
  };
  const std::string addresses = h.local ? "local"
                                        : text(h.source) + ":" + std::to_string(h.source_port) + " " + text(h.destination) + ":" +
                                              std::to_string(h.destination_port);
  return "v" + std::to_string(h.version) + " " + addresses + " tlvs=" + std::to_string(h.tlvs.size()) +
         " size=" + std::to_string(h.size);
}

TEST(ProxyProtocol, VersionOne) {
  const struct {
    std::string input, want;
  } cases[] = {
      {"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET /", "v1 192.0.2.1:56324 198.51.100.1:443 tlvs=0 size=45"},
      {"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", "v1 2001:db8::1:1 ::1:65535 tlvs=0 size=36"},
      {"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "v1 192.0.2.1:1 ::1:2 tlvs=0 size=37"},
      {"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "v1 0.0.0.0:0 0.0.0.0:0 tlvs=0 size=32"},
      {"PROXY UNKNOWN\r\n", "v1 local tlvs=0 size=15"},
      {"PROXY UNKNOWN ffff:f...f:ffff anything 65535\r\n", "v1 local tlvs=0 size=46"},
      {"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443", "partial"},
      {"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r", "partial"},
      {"PROXY ", "partial"},
      {"PROX", "partial"},
      {"", "partial"},
      {"GET / HTTP/1.1\r\n", "absent"},
      {"proxy TCP4", "absent"},
      {"PROXYTCP4", "absent"},
      {"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n", "bad line"},
      {"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\rX", "bad line"},
      {"PROXY UNKNOWN" + std::string(90, ' ') + "\r\n", "v1 local tlvs=0 size=105"},
      {"PROXY UNKNOWN" + std::string(92, ' ') + "\r\n", "v1 local tlvs=0 size=107"},
      {"PROXY UNKNOWN" + std::string(93, ' ') + "\r\n", "bad line"},
      {"PROXY UDP4 192.0.2.1 198.51.100.1 56324 443\r\n", "bad family"},
      {"PROXY \r\n", "bad family"},
      {"PROXY TCP4 192.0.2.256 198.51.100.1 56324 443\r\n", "bad address"},
      {"PROXY TCP4 ::1 198.51.100.1 56324 443\r\n", "bad address"},
      {"PROXY TCP6 192.0.2.1 ::1 56324 443\r\n", "bad address"},
      {"PROXY TCP4 192.0.2.1\r\n", "bad address"},
      {"PROXY TCP4  192.0.2.1 198.51.100.1 56324 443\r\n", "bad address"},
      {"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n", "bad port"},
      {"PROXY TCP4 192.0.2.1 198.51.100.1 56324 65536\r\n", "bad port"},
      {"PROXY TCP4 192.0.2.1 198.51.100.1 -1 443\r\n", "bad port"},
      {"PROXY TCP4 192.0.2.1 198.51.100.1 056 443\r\n", "bad port"},
      {"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 \r\n", "bad port"},
      {"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 more\r\n", "bad port"},
  };
  for (const auto& c : cases) EXPECT_EQ(read(c.input), c.want) << c.input;
}

TEST(ProxyProtocol, VersionTwo) {
  std::string v6;
  for (int i = 0; i < 32; ++i) v6 += static_cast<char>(i == 0 || i == 16 ? 0x20 : i == 15 || i == 31 ? i : 0);
  v6 += bytes({0, 1, 0, 2});
  const struct {
    std::string input, want;
  } cases[] = {
      {v2(1, 0x11, kInet) + "GET /", "v2 192.0.2.1:56324 198.51.100.1:443 tlvs=0 size=28"},
      {v2(1, 0x12, kInet), "v2 192.0.2.1:56324 198.51.100.1:443 tlvs=0 size=28"},
      {v2(1, 0x21, v6), "v2 2000::f:1 2000::1f:2 tlvs=0 size=52"},
      {v2(1, 0x11, kInet + tlv(2, "a.test") + tlv(0xe0, "")), "v2 192.0.2.1:56324 198.51.100.1:443 tlvs=12 size=40"},
      {v2(0, 0x00, ""), "v2 local tlvs=0 size=16"},
      {v2(0, 0x00, "anything"), "v2 local tlvs=0 size=24"},
      {v2(0, 0x11, kInet), "v2 local tlvs=0 size=28"},
      {v2(0, 0x31, "anything"), "v2 local tlvs=0 size=24"},
      {v2(1, 0x00, "anything"), "v2 local tlvs=0 size=24"},
      {v2(2, 0x11, kInet), "bad command"},
      {kSig + bytes({0x11, 0x11, 0, 12}) + kInet, "bad version"},
      {kSig + bytes({0x31}), "bad version"},
      {v2(1, 0x31, std::string(216, 'u')), "bad family"},
      {v2(1, 0x10, kInet), "bad family"},
      {v2(1, 0x13, kInet), "bad family"},
      {v2(1, 0x11, kInet.substr(0, 11)), "bad length"},
      {v2(1, 0x21, kInet), "bad length"},
      {kSig + bytes({0x21, 0x11, 0xff, 0xff}), "bad length"},
      {v2(1, 0x11, kInet + "\x02"), "bad tlv"},
      {v2(1, 0x11, kInet + bytes({2, 0, 1})), "bad tlv"},
      {v2(1, 0x11, kInet + tlv(2, "x") + bytes({4, 0xff, 0xff, 0})), "bad tlv"},
      {v2(1, 0x11, kInet + tlv(3, "abc")), "bad tlv"},
      {v2(1, 0x11, kInet + tlv(3, "abcd")), "bad checksum"},
      {v2(1, 0x11, kInet).substr(0, 27), "partial"},
      {kSig.substr(0, 11), "partial"},
      {"\r\n\r\nX", "absent"},
  };
  for (const auto& c : cases) EXPECT_EQ(read(c.input), c.want) << c.input.size();
}

TEST(ProxyProtocol, Checksum) {
  std::string h = v2(1, 0x11, kInet + tlv(2, "x") + tlv(3, std::string(4, '\0')) + tlv(4, "noop"));
  const size_t at = h.size() - tlv(4, "noop").size() - 4;
  const uint32_t crc = base::crc32c(base::as_bytes(std::string_view(h)));
  for (size_t i = 0; i < 4; ++i) h[at + i] = static_cast<char>(crc >> (24 - 8 * i));
  EXPECT_EQ(read(h), "v2 192.0.2.1:56324 198.51.100.1:443 tlvs=18 size=46");
  for (size_t i = 16; i < h.size(); ++i) {
    if (i == at - 3) continue;  // the type: a header without a checksum then
    std::string damaged = h;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    EXPECT_TRUE(read(damaged).starts_with("bad")) << i;
  }
}

// Every prefix of a good header is a part of one, read up to a page that must not be touched.
TEST(ProxyProtocol, EveryPrefixIsPartial) {
  for (const std::string& whole :
       {std::string("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"), v2(1, 0x11, kInet + tlv(2, "a.test"))}) {
    for (size_t n = 0; n < whole.size(); ++n) {
      support::GuardPage guarded(base::as_bytes(std::string_view(whole).substr(0, n)));
      EXPECT_EQ(read(base::as_chars(guarded.bytes())), "partial") << n;
    }
  }
}

TEST(ProxyProtocol, WrittenAsRead) {
  const std::string names = tlv(2, "a.test");
  ProxyHeader h;
  h.local = false;
  h.source = *base::IpAddress::parse("192.0.2.1");
  h.destination = *base::IpAddress::parse("198.51.100.1");
  h.source_port = 56324;
  h.destination_port = 443;
  uint8_t out[256];
  const auto written = [&] { return std::string(reinterpret_cast<const char*>(out), write_proxy_header(h, out)); };
  h.version = 1;
  EXPECT_EQ(written(), "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n");
  h.version = 2;
  EXPECT_EQ(written(), v2(1, 0x11, kInet));
  h.tlvs = base::as_bytes(std::string_view(names));
  EXPECT_EQ(written(), v2(1, 0x11, kInet + names));
  h.destination = *base::IpAddress::parse("2001:db8::1");
  EXPECT_EQ(read(written()), "v2 192.0.2.1:56324 2001:db8::1:443 tlvs=9 size=61");
  h.version = 1;
  EXPECT_EQ(written(), "PROXY UNKNOWN\r\n") << "one address of each family";
  h.source = *base::IpAddress::parse("2001:db8::2");
  EXPECT_EQ(written(), "PROXY TCP6 2001:db8::2 2001:db8::1 56324 443\r\n");
  h.local = true;
  EXPECT_EQ(written(), "PROXY UNKNOWN\r\n");
  h.version = 2;
  EXPECT_EQ(written(), v2(0, 0, ""));
  h.local = false;
  for (const uint8_t version : {1, 2}) {
    h.version = version;
    const size_t n = write_proxy_header(h, out);
    EXPECT_EQ(write_proxy_header(h, {out, n}), n);
    EXPECT_EQ(write_proxy_header(h, {out, n - 1}), 0u);
  }
}

// What is written may be longer than what is read, and its TLVs may lie where the header is made.
TEST(ProxyProtocol, WrittenInPlace) {
  std::vector<uint8_t> out(kMostProxyHeaderBytes + kMostTlvBytes);
  std::string tlvs;
  while (tlvs.size() + 1003 <= kMostTlvBytes) tlvs += tlv(0xe0, std::string(1000, static_cast<char>('a' + tlvs.size() % 26)));
  std::copy(tlvs.begin(), tlvs.end(), out.begin() + kMostProxyHeaderBytes);
  ProxyHeader h;
  h.local = false;
  h.version = 2;
  h.source = h.destination = *base::IpAddress::parse("2001:db8::1");
  h.tlvs = {out.data() + kMostProxyHeaderBytes, tlvs.size()};
  const size_t n = write_proxy_header(h, out);
  ASSERT_EQ(n, 16 + 36 + tlvs.size());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(out.data()) + 52, tlvs.size()), tlvs);
  const std::vector<uint8_t> more(kMostTlvBytes + 1);
  h.tlvs = more;
  EXPECT_EQ(write_proxy_header(h, out), 0u) << "the length field could not say it";
}

}  // namespace
}  // namespace millrace::wire
