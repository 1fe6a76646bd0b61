#include "lib/wire/proxy_protocol.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "lib/base/hash.h"

namespace millrace::wire {

namespace {

constexpr std::string_view kV1Start = "PROXY ";
constexpr std::string_view kSignature{"\r\n\r\n\0\r\nQUIT\n", 12};
constexpr uint8_t kLocal = 0, kProxy = 1;
constexpr uint8_t kUnspec = 0, kInet = 1, kInet6 = 2;  // upper half of byte 13
constexpr uint8_t kStream = 1, kDgram = 2;             // lower half
constexpr size_t kInetBytes = 12, kInet6Bytes = 36;    // two addresses, two ports
constexpr size_t kTlvHeadBytes = 3, kCrcBytes = 4;

// kAbsent, or kPartial when all the bytes there are are the beginning of `start`.
ProxyStatus begins(std::string_view bytes, std::string_view start) {
  const size_t n = std::min(bytes.size(), start.size());
  if (bytes.substr(0, n) != start.substr(0, n)) return ProxyStatus::kAbsent;
  return n == start.size() ? ProxyStatus::kDone : ProxyStatus::kPartial;
}

// The next word of a line that has exactly one blank between words.
std::string_view word(std::string_view* line) {
  const size_t blank = line->find(' ');
  const std::string_view w = line->substr(0, blank);
  *line = blank == std::string_view::npos ? std::string_view{} : line->substr(blank + 1);
  return w;
}

bool parse_port(std::string_view s, uint16_t* out) {
  if (s.empty() || s.size() > 5 || (s.size() > 1 && s[0] == '0')) return false;
  uint32_t v = 0;
  for (const char c : s) {
    if (c < '0' || c > '9') return false;
    v = v * 10 + static_cast<uint32_t>(c - '0');
  }
  *out = static_cast<uint16_t>(v);
  return v <= 65535;
}

ProxyStatus bad(ProxyError why, ProxyError* error) {
  *error = why;
  return ProxyStatus::kBad;
}

ProxyStatus parse_v1(std::string_view bytes, ProxyHeader* h, ProxyError* error) {
  const std::string_view most = bytes.substr(0, kMostProxyV1Bytes);
  const size_t cr = most.find('\r');
  if (most.substr(0, cr).find_first_of(std::string_view("\n\0", 2)) != std::string_view::npos)
    return bad(ProxyError::kLine, error);
  if (cr == std::string_view::npos)
    return most.size() == kMostProxyV1Bytes ? bad(ProxyError::kLine, error) : ProxyStatus::kPartial;
  if (cr + 1 == most.size()) return most.size() == kMostProxyV1Bytes ? bad(ProxyError::kLine, error) : ProxyStatus::kPartial;
  if (most[cr + 1] != '\n') return bad(ProxyError::kLine, error);
  std::string_view line = most.substr(kV1Start.size(), cr - kV1Start.size());
  *h = {};
  h->version = 1;
  h->size = cr + 2;
  const std::string_view family = word(&line);
  if (family == "UNKNOWN") return ProxyStatus::kDone;  // whatever follows is to be ignored
  const bool v4 = family == "TCP4";
  if (!v4 && family != "TCP6") return bad(ProxyError::kFamily, error);
  const auto address = [&](base::IpAddress* out) {
    const std::string_view text = word(&line);
    // "::ffff:192.0.2.1" is an address of IPv6, though we keep it as one of IPv4.
    if ((text.find(':') == std::string_view::npos) != v4) return false;
    const auto parsed = base::IpAddress::parse(text);
    if (parsed) *out = *parsed;
    return parsed.has_value();
  };
  if (!address(&h->source) || !address(&h->destination)) return bad(ProxyError::kAddress, error);
  const bool two = line.find(' ') != std::string_view::npos;
  const std::string_view first = word(&line);
  if (!two || !parse_port(first, &h->source_port) || !parse_port(line, &h->destination_port))
    return bad(ProxyError::kPort, error);
  h->local = false;
  return ProxyStatus::kDone;
}

// The checksum is over the whole header with its own four bytes as zeros.
bool crc_agrees(base::ByteSpan header, base::ByteSpan field) {
  const size_t at = static_cast<size_t>(field.data() - header.data());
  const uint8_t zeros[kCrcBytes] = {};
  uint32_t crc = base::crc32c(header.first(at));
  crc = base::crc32c({zeros, kCrcBytes}, crc);
  crc = base::crc32c(header.subspan(at + kCrcBytes), crc);
  return crc == base::load_be32(field.data());
}

ProxyStatus parse_v2(base::ByteSpan bytes, ProxyHeader* h, ProxyError* error) {
  // What is wrong is said as soon as the byte is there.
  const uint8_t* p = bytes.data();
  if (bytes.size() > 12 && p[12] >> 4 != 2) return bad(ProxyError::kVersion, error);
  if (bytes.size() > 12 && (p[12] & 15) > kProxy) return bad(ProxyError::kCommand, error);
  if (bytes.size() < kProxyV2HeadBytes) return ProxyStatus::kPartial;
  const uint8_t command = p[12] & 15, family = p[13] >> 4, transport = p[13] & 15;
  const size_t length = base::load_be16(p + 14), size = kProxyV2HeadBytes + length;
  if (size > kMostProxyV2Bytes) return bad(ProxyError::kLength, error);
  const bool unspec = family == kUnspec;
  if (command == kProxy && !unspec && (family > kInet6 || (transport != kStream && transport != kDgram)))
    return bad(ProxyError::kFamily, error);
  // LOCAL: addresses are skipped by what the family says, where it says anything (so that TLVs may follow).
  const size_t addresses = family == kInet ? kInetBytes : family == kInet6 ? kInet6Bytes : 0;
  const bool skips = command == kLocal && length < addresses;
  if (command == kProxy && length < addresses) return bad(ProxyError::kLength, error);
  if (bytes.size() < size) return ProxyStatus::kPartial;
  *h = {};
  h->version = 2;
  h->size = size;
  h->local = command == kLocal || unspec;
  const uint8_t* a = p + kProxyV2HeadBytes;
  if (!h->local && family == kInet) {
    h->source = base::IpAddress::v4(base::load_be32(a));
    h->destination = base::IpAddress::v4(base::load_be32(a + 4));
    h->source_port = base::load_be16(a + 8);
    h->destination_port = base::load_be16(a + 10);
  } else if (!h->local) {
    h->source = base::IpAddress::v6(a);
    h->destination = base::IpAddress::v6(a + 16);
    h->source_port = base::load_be16(a + 32);
    h->destination_port = base::load_be16(a + 34);
  }
  if (h->local && (unspec || skips || family > kInet6)) return ProxyStatus::kDone;  // nobody says where TLVs would begin
  h->tlvs = bytes.subspan(kProxyV2HeadBytes + addresses, length - addresses);
  for (base::ByteSpan rest = h->tlvs; !rest.empty();) {
    if (rest.size() < kTlvHeadBytes || rest.size() - kTlvHeadBytes < base::load_be16(rest.data() + 1))
      return bad(ProxyError::kTlv, error);
    ProxyTlv tlv;
    next_proxy_tlv(&rest, &tlv);
    if (tlv.type != kTlvCrc32c) continue;
    if (tlv.value.size() != kCrcBytes) return bad(ProxyError::kTlv, error);
    if (!crc_agrees(bytes.first(size), tlv.value)) return bad(ProxyError::kChecksum, error);
  }
  return ProxyStatus::kDone;
}

size_t append(std::span<uint8_t> out, size_t at, std::string_view text) {
  if (at + text.size() <= out.size()) std::memcpy(out.data() + at, text.data(), text.size());
  return at + text.size();
}

size_t append_port(std::span<uint8_t> out, size_t at, uint16_t port) {
  char digits[5];
  size_t n = sizeof digits;
  do digits[--n] = static_cast<char>('0' + port % 10);
  while ((port = static_cast<uint16_t>(port / 10)) != 0);
  return append(out, at, {digits + n, sizeof digits - n});
}

size_t write_v1(const ProxyHeader& h, std::span<uint8_t> out) {
  if (h.local || h.source.is_v4() != h.destination.is_v4()) {
    const size_t n = append(out, 0, "PROXY UNKNOWN\r\n");
    return n <= out.size() ? n : 0;
  }
  size_t n = append(out, 0, h.source.is_v4() ? "PROXY TCP4 " : "PROXY TCP6 ");
  for (const base::IpAddress* a : {&h.source, &h.destination}) {
    char text[46];
    n = append(out, n, {text, a->format(text, sizeof text)});
    n = append(out, n, " ");
  }
  n = append_port(out, n, h.source_port);
  n = append(out, n, " ");
  n = append_port(out, n, h.destination_port);
  n = append(out, n, "\r\n");
  return n <= out.size() ? n : 0;
}

size_t write_v2(const ProxyHeader& h, std::span<uint8_t> out) {
  const bool v4 = h.source.is_v4() && h.destination.is_v4();
  const size_t addresses = h.local ? 0 : v4 ? kInetBytes : kInet6Bytes;
  const size_t tlvs = h.local ? 0 : h.tlvs.size();
  const size_t size = kProxyV2HeadBytes + addresses + tlvs;
  if (size > out.size() || tlvs > kMostTlvBytes) return 0;
  uint8_t* p = out.data();
  std::memcpy(p, kSignature.data(), kSignature.size());
  p[12] = static_cast<uint8_t>(2 << 4 | (h.local ? kLocal : kProxy));
  p[13] = h.local ? 0 : static_cast<uint8_t>((v4 ? kInet : kInet6) << 4 | kStream);
  base::store_be16(p + 14, static_cast<uint16_t>(addresses + tlvs));
  p += kProxyV2HeadBytes;
  if (h.local) return size;
  const size_t from = v4 ? 12 : 0, bytes = 16 - from;
  std::memcpy(p, h.source.bytes.data() + from, bytes);
  std::memcpy(p + bytes, h.destination.bytes.data() + from, bytes);
  base::store_be16(p + 2 * bytes, h.source_port);
  base::store_be16(p + 2 * bytes + 2, h.destination_port);
  if (tlvs != 0) std::memmove(p + addresses, h.tlvs.data(), tlvs);
  return size;
}

}  // namespace

const char* to_string(ProxyError e) {
  constexpr const char* kNames[] = {"none",    "line",    "family", "address", "port",
                                    "version", "command", "length", "tlv",     "checksum"};
  return kNames[static_cast<size_t>(e)];
}

ProxyStatus parse_proxy_header(base::ByteSpan bytes, ProxyHeader* header, ProxyError* error) {
  *error = ProxyError::kNone;
  const std::string_view text = base::as_chars(bytes);
  if (const ProxyStatus s = begins(text, kSignature); s != ProxyStatus::kAbsent)
    return s == ProxyStatus::kDone ? parse_v2(bytes, header, error) : s;
  const ProxyStatus s = begins(text, kV1Start);
  return s == ProxyStatus::kDone ? parse_v1(text, header, error) : s;
}

bool next_proxy_tlv(base::ByteSpan* tlvs, ProxyTlv* tlv) {
  if (tlvs->size() < kTlvHeadBytes) return false;
  const size_t length = base::load_be16(tlvs->data() + 1);
  if (tlvs->size() - kTlvHeadBytes < length) return false;
  *tlv = {(*tlvs)[0], tlvs->subspan(kTlvHeadBytes, length)};
  *tlvs = tlvs->subspan(kTlvHeadBytes + length);
  return true;
}

size_t write_proxy_header(const ProxyHeader& header, std::span<uint8_t> out) {
  return header.version == 1 ? write_v1(header, out) : write_v2(header, out);
}

}  // namespace millrace::wire
