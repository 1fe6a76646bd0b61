#include "lib/wire/tcp.h"

#include <algorithm>
#include <cstring>

namespace millrace::wire {

namespace {

// Option kinds (IANA tcp-parameters) and their lengths.
constexpr uint8_t kOptEnd = 0, kOptNop = 1, kOptMss = 2, kOptWindowScale = 3, kOptSackPermitted = 4, kOptSack = 5,
                  kOptTimestamps = 8, kOptFastOpen = 34;
constexpr uint8_t kMssLength = 4, kWindowScaleLength = 3, kSackPermittedLength = 2, kSackBlockLength = 8, kTimestampsLength = 10;
constexpr uint32_t kMaxOptions = kTcpMaxHeader - kTcpMinHeader;

bool parse_options(const uint8_t* p, const uint8_t* end, TcpView& out) {
  const bool syn = out.syn();
  while (p < end) {
    const uint8_t kind = p[0];
    if (kind == kOptEnd) return true;
    if (kind == kOptNop) {
      ++p;
      continue;
    }
    if (end - p < 2) return false;
    const uint32_t length = p[1];
    if (length < 2 || length > static_cast<uint32_t>(end - p)) return false;
    switch (kind) {
      case kOptMss:
        if (length != kMssLength) return false;
        if (syn) out.mss = base::load_be16(p + 2);
        break;
      case kOptWindowScale:
        if (length != kWindowScaleLength) return false;
        if (syn) out.wscale = std::min(p[2], kTcpMaxWindowShift);
        break;
      case kOptSackPermitted:
        if (length != kSackPermittedLength) return false;
        if (syn) out.sack_permitted = true;
        break;
      case kOptSack:
        if (length < 2 + kSackBlockLength || (length - 2) % kSackBlockLength != 0) return false;
        out.sack.clear();  // a second SACK option replaces the first, as for every option
        for (uint32_t at = 2; at < length; at += kSackBlockLength)
          out.sack.push({base::load_be32(p + at), base::load_be32(p + at + 4)});
        break;
      case kOptTimestamps:
        if (length != kTimestampsLength) return false;
        out.timestamps = TcpTimestamps{base::load_be32(p + 2), base::load_be32(p + 6)};
        break;
      case kOptFastOpen: {
        const uint32_t bytes = length - 2;
        if (!syn || bytes % 2 != 0 || (bytes != 0 && bytes < TcpCookie::kLeast) || bytes > TcpCookie::kMost) break;
        TcpCookie& cookie = out.fast_open.emplace();
        cookie.length = static_cast<uint8_t>(bytes);
        std::memcpy(cookie.bytes, p + 2, bytes);
        break;
      }
      default:
        break;
    }
    p += length;
  }
  return true;
}

// How long the options before SACK are, padding included.
uint32_t fixed_options_length(const TcpRepr& r) {
  uint32_t n = 0;
  if (r.mss) n += kMssLength;
  if (r.timestamps) n += kTcpTimestampsLength;  // SACK permitted takes the place of its two NOPs
  else if (r.sack_permitted) n += 4;
  if (r.wscale) n += 4;
  if (r.fast_open != nullptr) n += (2u + r.fast_open->length + 3) & ~3u;
  return n;
}

uint32_t sack_blocks_that_fit(const TcpRepr& r, uint32_t used) {
  const uint32_t room = (kMaxOptions - used) < 4 ? 0 : (kMaxOptions - used - 4) / kSackBlockLength;
  return std::min(room, r.sack.size());
}

}  // namespace

ParseError TcpView::parse_any(base::ByteSpan segment, TcpView& out) {
  if (segment.size() < kTcpMinHeader) return ParseError::kTruncated;
  const uint8_t* p = segment.data();
  const uint32_t header = (p[12] >> 4) * 4u;
  if (header < kTcpMinHeader) return ParseError::kBadHeader;
  if (header > segment.size()) return ParseError::kTruncated;
  const uint8_t flags = p[13];
  if ((flags & (kTcpFin | kTcpSyn | kTcpRst | kTcpPsh | kTcpAck | kTcpUrg)) == 0) return ParseError::kBadFlags;
  if ((flags & kTcpSyn) != 0 && (flags & (kTcpFin | kTcpRst)) != 0) return ParseError::kBadFlags;

  out.src_port = base::load_be16(p);
  out.dst_port = base::load_be16(p + 2);
  out.seq = base::load_be32(p + 4);
  out.ack = base::load_be32(p + 8);
  out.window = base::load_be16(p + 14);
  out.urgent_pointer = base::load_be16(p + 18);
  out.flags = flags;
  out.payload_offset = static_cast<uint8_t>(header);
  out.payload_length = static_cast<uint32_t>(segment.size() - header);
  out.sack_permitted = false;
  out.wscale.reset();
  out.mss.reset();
  out.fast_open.reset();
  out.timestamps.reset();
  out.sack.clear();

  if (header == kTcpMinHeader) return ParseError::kNone;
  return parse_options(p + kTcpMinHeader, p + header, out) ? ParseError::kNone : ParseError::kTruncated;
}

uint32_t TcpRepr::header_length_with_options() const {
  const uint32_t fixed = fixed_options_length(*this);
  const uint32_t blocks = sack.empty() ? 0 : sack_blocks_that_fit(*this, fixed);
  return kTcpMinHeader + fixed + (blocks == 0 ? 0 : 4 + blocks * kSackBlockLength);
}

uint32_t TcpRepr::emit_with_options(uint8_t* out) const {
  const uint32_t length = header_length();
  emit_fixed(out, length, 0);
  uint8_t* p = out + kTcpMinHeader;
  if (mss) {
    p[0] = kOptMss;
    p[1] = kMssLength;
    base::store_be16(p + 2, *mss);
    p += kMssLength;
  }
  if (timestamps) {
    p[0] = sack_permitted ? kOptSackPermitted : kOptNop;
    p[1] = sack_permitted ? kSackPermittedLength : kOptNop;
    p[2] = kOptTimestamps;
    p[3] = kTimestampsLength;
    base::store_be32(p + 4, timestamps->val);
    base::store_be32(p + 8, timestamps->ecr);
    p += kTcpTimestampsLength;
  } else if (sack_permitted) {
    const uint8_t option[4] = {kOptNop, kOptNop, kOptSackPermitted, kSackPermittedLength};
    std::memcpy(p, option, 4);
    p += 4;
  }
  if (wscale) {
    const uint8_t option[4] = {kOptNop, kOptWindowScale, kWindowScaleLength, std::min(*wscale, kTcpMaxWindowShift)};
    std::memcpy(p, option, 4);
    p += 4;
  }
  if (fast_open != nullptr) {
    p[0] = kOptFastOpen;
    p[1] = static_cast<uint8_t>(2 + fast_open->length);
    std::memcpy(p + 2, fast_open->bytes, fast_open->length);
    p += p[1];
    for (; (p - out) % 4 != 0; ++p) *p = kOptNop;
  }
  if (!sack.empty()) {
    const uint32_t blocks = sack_blocks_that_fit(*this, static_cast<uint32_t>(p - out) - kTcpMinHeader);
    if (blocks != 0) {
      const uint8_t option[4] = {kOptNop, kOptNop, kOptSack, static_cast<uint8_t>(2 + blocks * kSackBlockLength)};
      std::memcpy(p, option, 4);
      p += 4;
      for (uint32_t i = 0; i < blocks; ++i, p += kSackBlockLength) {
        base::store_be32(p, sack[i].left);
        base::store_be32(p + 4, sack[i].right);
      }
    }
  }
  MILLRACE_ASSERT(p == out + length, "header_length() is what emit() writes");
  return length;
}

const char* format_tcp_flags(uint8_t flags, char (&out)[36]) {
  static constexpr const char* kNames[8] = {"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"};
  char* p = out;
  for (int bit = 0; bit < 8; ++bit) {
    if ((flags & (1u << bit)) == 0) continue;
    if (p != out) *p++ = '|';
    std::memcpy(p, kNames[bit], 3);
    p += 3;
  }
  *p = 0;
  return out;
}

}  // namespace millrace::wire
