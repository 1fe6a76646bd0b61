#include "lib/tls/client_hello.h"

#include <algorithm>
#include <cstring>

#include "lib/base/assert.h"

namespace millrace::tls {
namespace {

using base::ByteSpan;
using base::MutableByteSpan;

constexpr uint8_t kHandshakeRecord = 22;
constexpr uint8_t kClientHelloType = 1;
constexpr uint32_t kRecordHeader = 5;
constexpr uint32_t kMessageHeader = 4;
constexpr uint32_t kMaxRecordBody = 16384;   // RFC 8446 5.1
constexpr uint32_t kMaxMessageBody = 16384;  // BoringSSL's ssl_max_handshake_message_len without client certificates
constexpr uint32_t kMaxEmptyRecords = 32;    // BoringSSL's kMaxEmptyRecords

enum Extension : uint16_t {
  kServerNameExt = 0,
  kSupportedGroupsExt = 10,
  kEcPointFormatsExt = 11,
  kSignatureAlgorithmsExt = 13,
  kAlpnExt = 16,
  kSupportedVersionsExt = 43,
};

HelloResult need(uint32_t bytes) { return {HelloVerdict::kNeedMore, HelloError::kNone, bytes}; }
HelloResult bad(HelloError e) { return {HelloVerdict::kBad, e, 0}; }

// Takes bytes off the front; every get_*() says false, and takes nothing, when there are too few.
class Reader {
 public:
  explicit Reader(ByteSpan s) : s_(s) {}
  size_t left() const { return s_.size(); }
  bool get_u8(uint8_t& v) {
    if (s_.empty()) return false;
    v = s_[0];
    s_ = s_.subspan(1);
    return true;
  }
  bool get_u16(uint16_t& v) {
    if (s_.size() < 2) return false;
    v = base::load_be16(s_.data());
    s_ = s_.subspan(2);
    return true;
  }
  bool get_bytes(size_t n, ByteSpan& v) {
    if (s_.size() < n) return false;
    v = s_.first(n);
    s_ = s_.subspan(n);
    return true;
  }
  bool get_list8(ByteSpan& v) {
    const ByteSpan start = s_;
    uint8_t n;
    if (get_u8(n) && get_bytes(n, v)) return true;
    s_ = start;
    return false;
  }
  bool get_list16(ByteSpan& v) {
    const ByteSpan start = s_;
    uint16_t n;
    if (get_u16(n) && get_bytes(n, v)) return true;
    s_ = start;
    return false;
  }

 private:
  ByteSpan s_;
};

// RFC 6066 section 3: exactly one name, of type host_name, 1 to 255 bytes, without NUL (what BoringSSL accepts).
bool read_server_name(ByteSpan body, ClientHello& hello) {
  Reader r(body);
  ByteSpan list, host;
  if (!r.get_list16(list) || r.left() != 0) return false;
  Reader entries(list);
  uint8_t type;
  if (!entries.get_u8(type) || type != 0 || !entries.get_list16(host) || entries.left() != 0) return false;
  if (host.empty() || host.size() > kMaxServerName || std::memchr(host.data(), 0, host.size()) != nullptr) return false;
  for (size_t i = 0; i < host.size(); ++i) {
    const char c = static_cast<char>(host[i]);
    hello.server_name_bytes[i] = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  hello.server_name_length = static_cast<uint8_t>(host.size());
  hello.has_server_name = true;
  return true;
}

bool read_alpn(ByteSpan body, ClientHello& hello) {
  Reader r(body);
  ByteSpan list, name;
  if (!r.get_list16(list) || r.left() != 0 || list.size() < 2) return false;
  for (Reader names(list); names.left() != 0;) {
    if (!names.get_list8(name) || name.empty()) return false;
  }
  hello.alpn = AlpnList(list);
  hello.has_alpn = true;
  return true;
}

bool read_u16_list(ByteSpan body, ByteSpan& out) {
  Reader r(body);
  return r.get_list16(out) && r.left() == 0 && !out.empty() && out.size() % 2 == 0;
}

HelloError read_extensions(ClientHello& hello) {
  uint64_t seen = 0;  // of the extensions below 64: all we look at, and all that OpenSSL knows but for renegotiation_info
  for (Reader r(hello.extensions); r.left() != 0;) {
    uint16_t type;
    ByteSpan body;
    if (!r.get_u16(type) || !r.get_list16(body)) return HelloError::kExtension;
    if (type < 64) {
      if ((seen >> type & 1) != 0) return HelloError::kDuplicateExtension;
      seen |= uint64_t{1} << type;
    }
    switch (type) {
      case kServerNameExt:
        if (!read_server_name(body, hello)) return HelloError::kServerName;
        break;
      case kAlpnExt:
        // A malformed list is for the real TLS stack to refuse: Envoy's inspector goes on as if there were none.
        (void)read_alpn(body, hello);
        break;
      case kSupportedVersionsExt: {
        Reader v(body);
        if (!v.get_list8(hello.supported_versions) || v.left() != 0 || hello.supported_versions.empty() ||
            hello.supported_versions.size() % 2 != 0)
          return HelloError::kSupportedVersions;
        break;
      }
      case kSupportedGroupsExt:
        if (!read_u16_list(body, hello.supported_groups)) return HelloError::kListExtension;
        break;
      case kSignatureAlgorithmsExt:
        if (!read_u16_list(body, hello.signature_algorithms)) return HelloError::kListExtension;
        break;
      case kEcPointFormatsExt: {
        Reader v(body);
        if (!v.get_list8(hello.ec_point_formats) || v.left() != 0) return HelloError::kListExtension;
        break;
      }
      default:
        break;
    }
  }
  return HelloError::kNone;
}

constexpr bool known_version(uint16_t v) { return v >= 0x0301 && v <= 0x0304; }

// The body of the handshake message (RFC 8446 4.1.2).
HelloError read_hello(ByteSpan body, ClientHello& hello) {
  Reader r(body);
  ByteSpan random, compression;
  if (!r.get_u16(hello.legacy_version) || !r.get_bytes(32, random)) return HelloError::kTruncatedField;
  if (!r.get_list8(hello.session_id)) return HelloError::kTruncatedField;
  if (hello.session_id.size() > 32) return HelloError::kSessionId;
  if (!r.get_list16(hello.cipher_suites)) return HelloError::kTruncatedField;
  if (hello.cipher_suites.empty() || hello.cipher_suites.size() % 2 != 0) return HelloError::kCipherSuites;
  if (!r.get_list8(compression)) return HelloError::kTruncatedField;
  if (std::memchr(compression.data(), 0, compression.size()) == nullptr) return HelloError::kCompression;
  if (r.left() != 0) {
    if (!r.get_list16(hello.extensions)) return HelloError::kTruncatedField;
    if (r.left() != 0) return HelloError::kTrailingBytes;
    if (const HelloError e = read_extensions(hello); e != HelloError::kNone) return e;
  }
  // A client that offers nothing from TLS 1.0 to 1.3 ends, in Envoy, before the server name is looked at.
  bool acceptable = false;
  if (hello.supported_versions.empty()) {
    hello.max_version = hello.legacy_version;
    acceptable = hello.legacy_version >= 0x0301;
  }
  for (size_t i = 0; i + 1 < hello.supported_versions.size(); i += 2) {
    const uint16_t v = base::load_be16(&hello.supported_versions[i]);
    if (!is_grease(v) && v > hello.max_version) hello.max_version = v;
    acceptable = acceptable || known_version(v);
  }
  return acceptable ? HelloError::kNone : HelloError::kVersion;
}

void reset(ClientHello& hello) {
  // All but the name's bytes, which are valid only up to its length.
  hello.legacy_version = hello.max_version = 0;
  hello.has_server_name = hello.has_alpn = false;
  hello.server_name_length = 0;
  hello.alpn = AlpnList();
  hello.session_id = hello.cipher_suites = hello.extensions = hello.supported_versions = {};
  hello.supported_groups = hello.signature_algorithms = hello.ec_point_formats = {};
}

}  // namespace

HelloResult inspect(ByteSpan bytes, MutableByteSpan scratch, ClientHello& hello, uint32_t limit) {
  reset(hello);
  const bool truncated = bytes.size() > limit;
  const auto more = [&](size_t n) -> HelloResult {
    // What does not fit the limit will never be complete.
    if (n > limit)
      return {bytes.size() >= limit ? HelloVerdict::kTooLarge : HelloVerdict::kNeedMore,
              bytes.size() >= limit ? HelloError::kTooLong : HelloError::kNone, limit};
    return need(static_cast<uint32_t>(n));
  };
  if (truncated) bytes = bytes.first(limit);

  // First pass over the record headers: where does the message end, and does it lie in one piece?
  size_t at = 0;                 // next record
  size_t have = 0;               // message bytes seen, header included
  size_t message = 0;            // message bytes in all, header included; 0: not known yet
  uint8_t head[kMessageHeader];  // the message's header, put together
  uint32_t empty = 0;
  size_t first_body = 0;
  bool one_piece = false;
  while (message == 0 || have < message) {
    if (at < bytes.size() && bytes[at] != kHandshakeRecord) {
      return at == 0 ? HelloResult{HelloVerdict::kNotTls, HelloError::kNotHandshake, 0} : bad(HelloError::kRecordInterleaved);
    }
    if (at + 1 < bytes.size() && bytes[at + 1] != 3) {
      return at == 0 ? HelloResult{HelloVerdict::kNotTls, HelloError::kRecordVersion, 0} : bad(HelloError::kRecordVersion);
    }
    if (bytes.size() < at + kRecordHeader) return more(bytes.size() + 1);  // any byte of a header can be wrong
    const uint32_t length = base::load_be16(&bytes[at + 3]);
    if (length > kMaxRecordBody) return bad(HelloError::kRecordTooLong);
    if (length == 0 && ++empty > kMaxEmptyRecords) return bad(HelloError::kRecordEmpty);
    const size_t body = at + kRecordHeader;
    const size_t present = std::min<size_t>(length, bytes.size() - body);
    for (size_t i = 0; i < present && have + i < kMessageHeader; ++i) head[have + i] = bytes[body + i];
    if (have == 0 && present > 0) {
      if (head[0] != kClientHelloType) return bad(HelloError::kNotClientHello);
      first_body = body;
    }
    if (message == 0 && have + present >= kMessageHeader) {
      const uint32_t announced = uint32_t{head[1]} << 16 | uint32_t{head[2]} << 8 | head[3];
      if (announced > kMaxMessageBody) return bad(HelloError::kMessageTooLong);
      message = kMessageHeader + announced;
      one_piece = have == 0 && message <= length;
    }
    if (message != 0 && have + present >= message) break;
    if (present < length) {
      // The record is not here whole; when it ends beyond the message, the message's end is what we wait for.
      const size_t wanted = message != 0 ? message - have : have + present == 0 ? 1 : kMessageHeader - have;
      return more(body + std::min<size_t>(length, wanted));
    }
    have += length;
    at = body + length;
  }

  if (one_piece) {
    const HelloError e = read_hello(bytes.subspan(first_body + kMessageHeader, message - kMessageHeader), hello);
    return e == HelloError::kNone ? HelloResult{HelloVerdict::kClientHello, e, 0} : bad(e);
  }
  // Several records: put the message together.
  if (scratch.size() < message) return bad(HelloError::kScratch);
  size_t done = 0;
  for (at = 0; done < message;) {
    const size_t length = base::load_be16(&bytes[at + 3]);
    const size_t take = std::min(length, message - done);
    std::memmove(scratch.data() + done, &bytes[at] + kRecordHeader, take);  // in place the target is always behind the source
    done += take;
    at += kRecordHeader + length;
  }
  const HelloError e = read_hello(ByteSpan(scratch.data(), message).subspan(kMessageHeader), hello);
  return e == HelloError::kNone ? HelloResult{HelloVerdict::kClientHello, e, 0} : bad(e);
}

HelloResult inspect(const io::PacketQueue& queue, MutableByteSpan scratch, ClientHello& hello, uint32_t limit) {
  MILLRACE_ASSERT(scratch.size() >= limit, "the scratch holds a ClientHello of the limit");
  const ByteSpan front = queue.front();
  const HelloResult r = inspect(front, scratch, hello, limit);
  // The first packet decides when it is all there is, or when more could not change the answer.
  if (r.verdict != HelloVerdict::kNeedMore || front.size() == queue.bytes()) return r;
  if (r.need > queue.bytes()) return r;
  const size_t n = queue.peek(0, scratch.data(), std::min<size_t>(scratch.size(), limit));
  return inspect(ByteSpan(scratch.data(), n), scratch, hello, limit);
}

const char* name(HelloError e) {
  switch (e) {
#define TLS_HELLO_ERROR(symbol, name, text) \
  case HelloError::symbol:                  \
    return name;
#include "lib/tls/hello_errors.def"
#undef TLS_HELLO_ERROR
    case HelloError::kNone:
    case HelloError::kCount:
      break;
  }
  return "none";
}

const char* text(HelloError e) {
  switch (e) {
#define TLS_HELLO_ERROR(symbol, name, text) \
  case HelloError::symbol:                  \
    return text;
#include "lib/tls/hello_errors.def"
#undef TLS_HELLO_ERROR
    case HelloError::kNone:
    case HelloError::kCount:
      break;
  }
  return "no error";
}

}  // namespace millrace::tls
