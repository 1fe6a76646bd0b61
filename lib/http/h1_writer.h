// HTTP/1 heads and chunk framing out (RFC 9112), in the shape Envoy's codec gives them: names lower case, host first,
// content-length kept where the table has it, framing fields last. Every function writes into the caller's span and returns the
// size it needs: when that is larger than out.size(), the content of `out` is unspecified and the caller tries again with more
// room (snprintf's contract).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "lib/http/h1_body.h"
#include "lib/http/message.h"

namespace millrace::http {

// Envoy's CodeUtility::toString: "OK" for 200, "Unknown" for a code it does not know.
std::string_view reason_phrase(uint16_t status);

// How a body that arrives as `in` leaves on an HTTP/1 connection: content-length is kept, everything of unknown length becomes
// chunked (or, towards an HTTP/1.0 peer, until close).
BodyFraming outgoing_framing(BodyFraming in, Version peer);

// The head of a request for an upstream: request line with head.path (head.authority for CONNECT), "host: <authority>", then
// head.headers in order (the caller has run forward.h on it: no transfer-encoding, no hop-by-hop fields), then what `framing`
// needs: kChunked "transfer-encoding: chunked"; kContentLength "content-length: n" unless the table has one; kNone
// "content-length: 0" for methods that define a body, unless the table has one. Always HTTP/1.1.
size_t write_request_head(const RequestHead& head, BodyFraming framing, std::span<char> out);

// The head of a response for a client of version `peer` ("HTTP/1.0" or "HTTP/1.1"; RFC 9110 2.5 allows either, Envoy answers in
// kind). `close` adds "connection: close"; otherwise an HTTP/1.0 peer is told "connection: keep-alive". Fields of the table
// follow in order, then framing as for requests; `is_head`: an answer to HEAD, whose content-length (if any) is kept and none is
// invented. head.reason is ignored: Envoy writes its own phrase for the code. 1xx and 204 get no framing fields.
struct ResponseWrite {
  BodyFraming framing;
  Version peer = Version::kHttp11;
  bool close = false;
  bool is_head = false;
};
size_t write_response_head(const ResponseHead& head, const ResponseWrite& options, std::span<char> out);

// "HTTP/1.1 100 Continue\r\n\r\n"
inline constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

// Chunk framing: header (hex size, CRLF) goes before the data, kChunkEnd behind it, the last chunk at the end.
inline constexpr size_t kMaxChunkHeaderBytes = 16 + 2;
size_t write_chunk_header(uint64_t data_bytes, std::span<char> out);
inline constexpr std::string_view kChunkEnd = "\r\n";
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";
// "0\r\n", the trailer fields, "\r\n".
size_t write_last_chunk(const HeaderTable& trailers, std::span<char> out);

// IMF-fixdate of RFC 9110 5.6.7 ("Sun, 06 Nov 1994 08:49:37 GMT"); `unix_seconds` since 1970. The caller formats it once a
// second.
inline constexpr size_t kDateBytes = 29;
void format_date(uint64_t unix_seconds, char out[kDateBytes]);

}  // namespace millrace::http
