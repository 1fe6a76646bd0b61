// The TCP header (RFC 9293 3.1) as two types: TcpView is what arrived, checked once and copied out into values, so that nothing
// behind the check can be malformed; TcpRepr is what we send, and holds nothing that cannot be written.
//
// Options: MSS, window scale and timestamps (RFC 7323), SACK permitted and SACK (RFC 2018), fast open (RFC 7413). Unknown kinds
// are skipped. An illegal
// length, of a known or unknown kind, makes the header kTruncated (RFC 9293 MUST-7 asks for an answer to such a segment; we drop
// it with a reason). MSS, window scale and SACK permitted are read from SYN segments only, as nowhere else do they mean anything
// (RFC 9293 3.7.1, RFC 7323 2.2, RFC 2018 2). Checksums are not looked at here: ports do that, or checksum.h where they cannot.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "lib/base/assert.h"
#include "lib/base/bytes.h"
#include "lib/wire/parse_error.h"

namespace millrace::wire {

// Bits of the flags byte; `flags` fields below are ORs of these.
enum TcpFlag : uint8_t {
  kTcpFin = 0x01,
  kTcpSyn = 0x02,
  kTcpRst = 0x04,
  kTcpPsh = 0x08,
  kTcpAck = 0x10,
  kTcpUrg = 0x20,
  kTcpEce = 0x40,  // RFC 3168
  kTcpCwr = 0x80,
};

inline constexpr uint32_t kTcpMinHeader = 20, kTcpMaxHeader = 60;  // bytes
inline constexpr uint32_t kTcpMaxSackBlocks = 4;      // 40 option bytes hold no more (RFC 2018 3); 3 beside timestamps
inline constexpr uint8_t kTcpMaxWindowShift = 14;     // RFC 7323 2.3
inline constexpr uint32_t kTcpTimestampsLength = 12;  // option bytes of timestamps, with the customary padding
inline constexpr uint32_t kTcpChecksumOffset = 16;    // of the checksum field in the header
// NOP NOP timestamps: what nearly every segment of an established connection carries (RFC 7323 appendix A).
inline constexpr uint32_t kTcpNopNopTimestamps = 0x0101080a;

// RFC 7323 3.2.
struct TcpTimestamps {
  uint32_t val = 0;  // TSval
  uint32_t ecr = 0;  // TSecr
  friend bool operator==(const TcpTimestamps&, const TcpTimestamps&) = default;
};

// One block of RFC 2018: the peer holds [left, right). Nothing says that left is before right: that is for the reader to judge.
struct SackBlock {
  uint32_t left = 0, right = 0;
  friend bool operator==(const SackBlock&, const SackBlock&) = default;
};

// Up to four SACK blocks in the order of the wire (the first is the one that changed last, RFC 2018 4).
class SackBlocks {
 public:
  // False, and nothing added, when there are already kTcpMaxSackBlocks.
  bool push(SackBlock b) {
    if (count_ == kTcpMaxSackBlocks) return false;
    blocks_[count_++] = b;
    return true;
  }
  void clear() { count_ = 0; }
  uint32_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  const SackBlock& operator[](uint32_t i) const {
    MILLRACE_ASSERT(i < count_, "SACK block that is there");
    return blocks_[i];
  }
  const SackBlock* begin() const { return blocks_; }
  const SackBlock* end() const { return blocks_ + count_; }
  friend bool operator==(const SackBlocks& a, const SackBlocks& b) {
    if (a.count_ != b.count_) return false;
    for (uint32_t i = 0; i < a.count_; ++i)
      if (a.blocks_[i] != b.blocks_[i]) return false;
    return true;
  }

 private:
  SackBlock blocks_[kTcpMaxSackBlocks];
  uint8_t count_ = 0;
};

// RFC 7413 4.1.1: a fast open cookie, or, without bytes, the request for one.
struct TcpCookie {
  static constexpr uint32_t kLeast = 4, kMost = 16;  // bytes, and always even
  uint8_t length = 0;                                // 0: request
  uint8_t bytes[kMost] = {};                         // zero beyond length
  friend bool operator==(const TcpCookie&, const TcpCookie&) = default;
};

// A received header in host byte order. Plain values: it stays valid when the packet is gone.
struct TcpView {
  uint16_t src_port = 0, dst_port = 0;
  uint32_t seq = 0;
  uint32_t ack = 0;                    // means something only with kTcpAck
  uint16_t window = 0;                 // as on the wire: not yet scaled
  uint16_t urgent_pointer = 0;         // means something only with kTcpUrg
  uint8_t flags = 0;                   // TcpFlag bits
  uint8_t payload_offset = 0;          // header length in bytes: 20..60, a multiple of 4
  bool sack_permitted = false;         // SYN only
  std::optional<uint8_t> wscale;       // SYN only; a larger shift is read as 14, as RFC 7323 2.3 wants
  std::optional<uint16_t> mss;         // SYN only; as announced, even when absurdly small
  std::optional<TcpCookie> fast_open;  // SYN only; one of an illegal length is none (RFC 7413 4.1.1)
  uint32_t payload_length = 0;         // bytes behind the header
  std::optional<TcpTimestamps> timestamps;
  SackBlocks sack;

  // `segment`: the TCP header and all of its payload, nothing behind it (the IP total length says where it ends; not Ethernet's
  // padding). kNone, and `out` filled; or kTruncated, kBadHeader (data offset below 5), kBadFlags (none at all, SYN with FIN or
  // RST).
  static ParseError parse(base::ByteSpan segment, TcpView& out) {
    // Nearly every segment: timestamps and no other option, an acknowledgement, no SYN.
    const uint8_t* p = segment.data();
    constexpr uint32_t kHeader = kTcpMinHeader + kTcpTimestampsLength;
    if (segment.size() < kHeader || (base::load_be16(p + 12) & (0xf000 | kTcpSyn | kTcpAck)) != (kHeader << 10 | kTcpAck) ||
        base::load_be32(p + kTcpMinHeader) != kTcpNopNopTimestamps) [[unlikely]]
      return parse_any(segment, out);
    out.src_port = base::load_be16(p);
    out.dst_port = base::load_be16(p + 2);
    out.seq = base::load_be32(p + 4);
    out.ack = base::load_be32(p + 8);
    out.window = base::load_be16(p + 14);
    out.urgent_pointer = base::load_be16(p + 18);
    out.flags = p[13];
    out.payload_offset = kHeader;
    out.payload_length = static_cast<uint32_t>(segment.size()) - kHeader;
    out.sack_permitted = false;
    out.wscale = std::optional<uint8_t>();
    out.mss = std::optional<uint16_t>();
    out.fast_open.reset();
    out.timestamps = TcpTimestamps{base::load_be32(p + 24), base::load_be32(p + 28)};
    out.sack.clear();
    return ParseError::kNone;
  }

  bool has(uint8_t any_of) const { return (flags & any_of) != 0; }
  bool syn() const { return has(kTcpSyn); }
  bool fin() const { return has(kTcpFin); }
  bool rst() const { return has(kTcpRst); }
  bool has_ack() const { return has(kTcpAck); }
  bool has_mss() const { return mss.has_value(); }
  // SEG.LEN of RFC 9293: payload plus one each for SYN and FIN.
  uint32_t sequence_length() const { return payload_length + (syn() ? 1 : 0) + (fin() ? 1 : 0); }

 private:
  static ParseError parse_any(base::ByteSpan segment, TcpView& out);
};

// A header to send, in host byte order.
struct TcpRepr {
  uint16_t src_port = 0, dst_port = 0;
  uint32_t seq = 0;
  uint32_t ack = 0;             // written as 0 without kTcpAck
  uint16_t window = 0;          // as on the wire: already scaled
  uint8_t flags = 0;            // TcpFlag bits
  bool sack_permitted = false;  // for SYN segments
  std::optional<uint8_t> wscale;
  std::optional<uint16_t> mss;
  const TcpCookie* fast_open = nullptr;  // only beside mss; not owned: there until the last emit()
  std::optional<TcpTimestamps> timestamps;
  SackBlocks sack;  // as many as fit behind the other options are written, the first ones first

  // True for what nearly every segment of an established connection is: no options, or timestamps only.
  bool plain() const { return !(mss.has_value() | wscale.has_value() | sack_permitted | !sack.empty()); }
  // Bytes that emit() writes: 20..60, a multiple of 4.
  uint32_t header_length() const {
    if (plain()) [[likely]]
      return kTcpMinHeader + (timestamps ? kTcpTimestampsLength : 0);
    return header_length_with_options();
  }
  // Writes header_length() bytes to `out`, which has room for them, with checksum and urgent pointer 0. Returns header_length().
  // Option order and padding are those of Linux, so that no middlebox sees anything unusual.
  uint32_t emit(uint8_t* out) const {
    if (!plain()) [[unlikely]]
      return emit_with_options(out);
    return emit_plain(out, 0);
  }
  // The same for a plain() header, with a checksum (in memory order, checksum.h).
  uint32_t emit_plain(uint8_t* out, uint16_t checksum) const {
    const uint32_t length = kTcpMinHeader + (timestamps ? kTcpTimestampsLength : 0);
    emit_fixed(out, length, checksum);
    if (timestamps) {
      base::store_be32(out + kTcpMinHeader, kTcpNopNopTimestamps);
      base::store_be32(out + kTcpMinHeader + 4, timestamps->val);
      base::store_be32(out + kTcpMinHeader + 8, timestamps->ecr);
    }
    return length;
  }

 private:
  uint32_t header_length_with_options() const;
  uint32_t emit_with_options(uint8_t* out) const;
  // The first 20 bytes of a header of `length` bytes.
  void emit_fixed(uint8_t* out, uint32_t length, uint32_t checksum) const {
    base::store_be32(out, uint32_t{src_port} << 16 | dst_port);
    base::store_be32(out + 4, seq);
    base::store_be32(out + 8, (flags & kTcpAck) != 0 ? ack : 0);
    base::store_be32(out + 12, length << 26 | uint32_t{flags} << 16 | window);
    std::memcpy(out + kTcpChecksumOffset, &checksum, sizeof checksum);  // and no urgent pointer
  }
};

// "SYN|ACK" and the like, into `out`, NUL-terminated; for traces and tests. Returns out.
const char* format_tcp_flags(uint8_t flags, char (&out)[36]);

}  // namespace millrace::wire
