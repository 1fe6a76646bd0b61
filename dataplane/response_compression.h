// What an exchange remembers of the compressor filters of its connection manager; in the request's head buffer, and only where
// there are such filters. http_compress.cc decides, encoded_out.h sends the body through the encoder.
//
//   request head ─ begin_compression(): what the client accepts ─┐
//   response head ─ compress_response(): each filter, last first ─┴▶ encoder, or none ─▶ relay_response() ─ EncodedOut ─▶ client
//   end of the exchange ─ end_compression(): the encoder goes back
#pragma once

#include <cstdint>
#include <string_view>

#include "dataplane/exchange.h"
#include "dataplane/exchange_filters.h"
#include "lib/base/list.h"
#include "lib/base/time.h"
#include "lib/compress/encoder.h"
#include "lib/stats/region.h"

namespace millrace::dataplane {

// Input that one response may give its encoder in one turn of the loop (bytes): at 50 MB/s about 0.3 ms.
inline constexpr uint32_t kEncodedPerTurn = 16 * 1024;
// brotli and zstd gather a block before they work on it; after so much input (bytes) they are made to, so that no call takes
// longer than that.
inline constexpr uint32_t kEncodedPerFlush = 64 * 1024;

struct ResponseCompression {
  Exchange* exchange = nullptr;
  std::string_view accept_encoding;    // of the request, in its head buffer; several fields joined by ','
  uint8_t filters_before_removal = 0;  // filters that saw it: behind one with remove_accept_encoding_header, the rest see none
  bool streaming = false;    // the length is not told: what has come is flushed, since somebody may wait for it (events)
  bool unflushed = false;    // bytes went in since the last flush
  bool failed = false;       // packet memory or the library gave up: the response cannot be completed
  uint32_t since_flush = 0;  // bytes
  uint32_t turn_bytes = 0;   // that went in during the turn of `turn_at`, however often the body was looked at
  base::TimeNs turn_at = 0;
  compress::Encoder* encoder = nullptr;           // null: the response goes as it is
  stats::ScopeSlot slot = stats::kOverflowScope;  // of the filter that encodes; its gauge holds the slot
  base::ListNode more;                            // in HttpProxy::encoding_: has used up its turn
};

// Whether the exchange's response goes through an encoder.
inline bool encodes(const Exchange& ex) {
  return ex.filters != nullptr && ex.filters->compression != nullptr && ex.filters->compression->encoder != nullptr;
}

}  // namespace millrace::dataplane
