// Reads a ClientHello without terminating TLS: what a filter chain match needs (SNI, ALPN, versions) and the inputs of the JA3
// and JA4 fingerprints. Sans-I/O: a function of the bytes received so far, called again when more of them are there.
//
// The answers are those of Envoy's tls_inspector, which lets BoringSSL start a handshake and stops it in its server-name
// callback: what BoringSSL would refuse before that point is "not TLS" there, and kNotTls or kBad here.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "lib/base/bytes.h"
#include "lib/io/packet_queue.h"

namespace millrace::tls {

inline constexpr uint32_t kMaxClientHelloBytes = 16 * 1024;  // TlsInspector.max_client_hello_size: default and maximum
inline constexpr uint32_t kMaxServerName = 255;              // bytes; TLSEXT_MAXLEN_host_name

enum class HelloVerdict : uint8_t {
  kNeedMore,     // a ClientHello so far: call again when at least `need` bytes (from the first on) are there
  kClientHello,  // complete and sound: `hello` is filled
  kNotTls,       // the first bytes are no TLS handshake record: Envoy goes on with transport protocol "raw_buffer"
  kBad,          // TLS, but no ClientHello a server may accept; Envoy treats it as kNotTls unless
                 // close_connection_on_client_hello_parsing_errors is set, and so may the caller
  kTooLarge,     // longer than the limit: Envoy closes the connection (client_hello_too_large)
};

enum class HelloError : uint8_t {
  kNone,
#define TLS_HELLO_ERROR(symbol, name, text) symbol,
#include "lib/tls/hello_errors.def"
#undef TLS_HELLO_ERROR
  kCount
};
const char* name(HelloError e);  // stable, snake_case
const char* text(HelloError e);  // one sentence for a person

// Walks a wire-format list of 8-bit length prefixed names (ALPN's ProtocolNameList without its outer length). The list was
// checked when the hello was read: no name is empty or cut.
class AlpnList {
 public:
  class Iterator {
   public:
    explicit Iterator(const uint8_t* p) : p_(p) {}
    std::string_view operator*() const { return {reinterpret_cast<const char*>(p_ + 1), *p_}; }
    Iterator& operator++() {
      p_ += 1 + *p_;
      return *this;
    }
    friend bool operator==(const Iterator&, const Iterator&) = default;

   private:
    const uint8_t* p_;
  };
  AlpnList() = default;
  explicit AlpnList(base::ByteSpan wire) : wire_(wire) {}
  Iterator begin() const { return Iterator(wire_.data()); }
  Iterator end() const { return Iterator(wire_.data() + wire_.size()); }
  bool empty() const { return wire_.empty(); }
  base::ByteSpan wire() const { return wire_; }

 private:
  base::ByteSpan wire_;
};

// A complete ClientHello. The spans view the bytes given to inspect(), or its scratch; `server_name()` is a copy of its own,
// because it is lower-cased.
struct ClientHello {
  uint16_t legacy_version = 0;   // ClientHello.legacy_version, e.g. 0x0303
  uint16_t max_version = 0;      // highest of supported_versions that is not GREASE, else legacy_version
  bool has_server_name = false;  // the extension was there
  bool has_alpn = false;         // the extension was there and sound; a malformed one counts as none, as in Envoy
  uint8_t server_name_length = 0;
  std::array<char, kMaxServerName> server_name_bytes;  // valid up to server_name_length

  AlpnList alpn;                        // in the client's order of preference
  base::ByteSpan session_id;            // legacy_session_id
  base::ByteSpan cipher_suites;         // 16-bit big-endian numbers, as sent
  base::ByteSpan extensions;            // the whole block, without its outer length; checked: every extension lies inside
  base::ByteSpan supported_versions;    // 16-bit numbers of the supported_versions extension; empty without it
  base::ByteSpan supported_groups;      // 16-bit numbers
  base::ByteSpan signature_algorithms;  // 16-bit numbers
  base::ByteSpan ec_point_formats;      // bytes

  // Lower case, otherwise as sent; empty when the client sent none.
  std::string_view server_name() const { return {server_name_bytes.data(), server_name_length}; }
};

struct HelloResult {
  HelloVerdict verdict = HelloVerdict::kNeedMore;
  HelloError error = HelloError::kNone;  // kBad, kNotTls, kTooLarge: why
  uint32_t need = 0;                     // kNeedMore: total bytes needed before another call can say more (a lower bound)
};

// `bytes`: everything received so far, contiguous, from the first byte of the connection. `scratch`: only used when the handshake
// message is split over several records (then it must hold the message: `limit` bytes are enough; kBad with kScratch if it does
// not); may overlap `bytes` only if scratch.data() == bytes.data() (the message is then put together in place). `limit`: bytes,
// records included. Never reads beyond `bytes`; allocates nothing. Cost: linear in bytes.size(), so callers should wait for
// `need`.
HelloResult inspect(base::ByteSpan bytes, base::MutableByteSpan scratch, ClientHello& hello,
                    uint32_t limit = kMaxClientHelloBytes);

// The same over a queue of packets, which stays as it is. Looks at the first packet in place when all of the hello lies in it,
// else copies into `scratch` (>= limit bytes, lent by the caller: one per worker suffices, the hello's spans live until it is
// used again).
HelloResult inspect(const io::PacketQueue& queue, base::MutableByteSpan scratch, ClientHello& hello,
                    uint32_t limit = kMaxClientHelloBytes);

// True for the reserved values of RFC 8701.
constexpr bool is_grease(uint16_t v) { return (v & 0x0f0f) == 0x0a0a && (v >> 8) == (v & 0xff); }

}  // namespace millrace::tls
