// HTTP/1 heads: bytes in, RequestHead/ResponseHead out (RFC 9112 2-6, RFC 9110 5-7; where Envoy is stricter or laxer, Envoy:
// README.md has the table). No I/O, no state, no allocation: views into the caller's bytes. Names are lowered in place.
//
// A head must be contiguous. Usually one packet holds it all and it is parsed where it lies (or after one small copy); when it
// does not, the caller appends packets to a head buffer and calls again with `already_scanned` = the length of the last call, so
// that no byte is searched twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "lib/http/message.h"

namespace millrace::http {

enum class H1Error : uint8_t {
  kNone = 0,
#define H1_ERROR(symbol, name, status, details, text) symbol,
#include "lib/http/h1_errors.def"
#undef H1_ERROR
  kCount
};
inline constexpr uint32_t kH1ErrorCount = static_cast<uint32_t>(H1Error::kCount);

struct H1ErrorInfo {
  const char* name;     // stable, snake_case
  uint16_t status;      // what a client is answered
  const char* details;  // %RESPONSE_CODE_DETAILS%
  const char* text;     // one sentence for a person
  // True for everything but kMissingHost and kQueryContentType: the codec answers by itself, with the status' reason phrase as
  // body and flag DPE. Those two are the connection manager's: empty body, no flag. All close the connection.
  bool by_codec;
};
const H1ErrorInfo& info(H1Error e);

// Largest number of header fields any configuration can ask for (HttpProtocolOptions.max_headers_count); 100 is the default.
inline constexpr uint32_t kMaxHeaderCountLimit = 1024;

struct H1Limits {
  uint32_t max_head_bytes =
      60 * 1024;  // start line, fields and the empty line (HCM.max_request_headers_kb; responses: of the cluster)
  uint32_t max_header_count = 100;    // HttpProtocolOptions.max_headers_count; Host counts
  bool accept_http_10 = false;        // Http1ProtocolOptions.accept_http_10
  bool allow_absolute_url = true;     // Http1ProtocolOptions.allow_absolute_url
  bool allow_custom_methods = false;  // Http1ProtocolOptions.allow_custom_methods: any token; else the methods Envoy knows
  bool allow_chunked_length = false;  // Http1ProtocolOptions.allow_chunked_length: with both, content-length is removed
  std::string_view default_host_for_http_10;  // Http1ProtocolOptions.default_host_for_http_10; "": an HTTP/1.0 request needs Host
};

enum class ParseStatus : uint8_t {
  kDone,     // the head is complete: `consumed` bytes of the input are it
  kPartial,  // legal so far, more bytes are needed
  kBad,      // `error` says why; the connection cannot be used any more
};

struct HeadResult {
  ParseStatus status = ParseStatus::kPartial;
  H1Error error = H1Error::kNone;
  size_t consumed = 0;  // kDone: length of the head with its empty line (and empty lines in front of it, RFC 9112 2.2)
};

// Line ends in front of the start line that are skipped (RFC 9112 2.2 asks for at least one CRLF); more is kBadStartLine.
inline constexpr size_t kMaxLeadingNewlineBytes = 64;

inline constexpr size_t kNotFound = SIZE_MAX;

// The end of a head: index just behind the empty line (CRLF CRLF; LF LF and LF CRLF count, see README), or kNotFound.
// Bytes before `from` were searched by an earlier call. Empty lines in front of the start line are skipped.
size_t find_head_end(std::span<const char> bytes, size_t from = 0);

// Parses a request head at the front of `bytes`. `already_scanned`: length of `bytes` at the last kPartial (0 the first time; the
// front must be unchanged). head->headers must have storage (its capacity is a limit like max_header_count: kTooManyHeaders); it
// is cleared first. On kDone the views of *head point into `bytes` (and limits.default_host_for_http_10), names lower case; on
// kPartial and kBad nothing of *head is to be read (Envoy logs "-" for the method and path of such requests), but names may have
// been lowered already. The exceptions are the errors that are not info().by_codec: for them the head is complete (and its
// authority empty). What is wrong is kBad at once where that can be told, even when the rest has not arrived: in the first call
// everything, in later calls the start line and the size. Parsing the same bytes again from 0 gives the same result. Host, and
// for CONNECT content-length: 0, is taken out of the table; so are upgrade and http2-settings of an h2c upgrade, and (unless the
// request is an upgrade or CONNECT) the fields that connection nominates (RFC 9110 7.6.1; te stays when it has "trailers").
HeadResult parse_request_head(std::span<char> bytes, size_t already_scanned, const H1Limits& limits, RequestHead* head);

// The same for a response head from an upstream.
HeadResult parse_response_head(std::span<char> bytes, size_t already_scanned, const H1Limits& limits, ResponseHead* head);

// Parses field lines up to and with the empty line (the trailer section of RFC 9112 7.1.2). `bytes` must end with the empty line.
// Returns kNone or the reason. Fields are appended to *table.
H1Error parse_fields(std::span<char> bytes, uint32_t max_count, HeaderTable* table);

// True for a token of RFC 9110 5.6.2 (at least one tchar).
bool is_token(std::string_view s);

}  // namespace millrace::http
