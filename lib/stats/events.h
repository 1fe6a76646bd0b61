// Records that the data plane puts on its event rings (one a worker, one of the loader), read by control. Binary, fixed
// little-endian layouts, no formatting: control makes text of them. A record is RecordHeader, the fixed part of its type, then
// (access log) a list of strings.
//
//   +--------------+------------------------+-----------------+-----------------+
//   | RecordHeader | AccessLogRecord        | StringRef × n   | string bytes    |   padded to 8 by the ring
//   +--------------+------------------------+-----------------+-----------------+
//
// A missing string is not in the list; control prints "-" for it. A string longer than its limit (string_limit) is cut, and its
// reference and the record say so. Nothing in a record is trusted: AccessLogView::parse checks every length against the bytes
// received.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "lib/base/ip_address.h"
#include "lib/stats/response_flag.h"

namespace millrace::stats {

inline constexpr uint16_t kEventVersion = 2;

enum class EventType : uint16_t {
  kNone = 0,
  kAccessLog = 1,         // worker: one request, or one TCP-proxied connection, has ended
  kSnapshotAccepted = 2,  // loader: LoaderEvent without text
  kSnapshotRejected = 3,  // loader: LoaderEvent with the reason as text
  kLoaderNote = 4,        // loader: LoaderEvent with a warning as text (tables are in force nevertheless)
};

struct RecordHeader {
  EventType type;
  uint16_t version;  // kEventVersion
  uint32_t size;     // bytes of the whole record, this header included
};
static_assert(sizeof(RecordHeader) == 8);

// ---- access log -----------------------------------------------------------------------------------------------------------
enum class Protocol : uint8_t { kNone = 0, kHttp10, kHttp11, kHttp2, kTcp };
const char* to_string(Protocol p);  // "HTTP/1.1" as %PROTOCOL% prints it; "-" for kNone and kTcp

// Wire values of the negotiated version, 0: no TLS.
inline constexpr uint16_t kWireTls12 = 0x0303, kWireTls13 = 0x0304;

enum AccessLogFlag : uint16_t {
  kFlagStringsTruncated = 1 << 0,  // at least one string was cut to its limit
  kFlagStringsMissing = 1 << 1,    // at least one string did not fit into the record at all
  kFlagDownstreamTls = 1 << 2,
  kFlagUpstreamTls = 1 << 3,
  kFlagTlsResumed = 1 << 4,
  kFlagResponseCut = 1 << 6,       // the response did not reach its end
  kFlagConnectionRecord = 1 << 5,  // no request: a connection ended (TCP proxy, no filter chain, listener filter timeout)
};

inline constexpr uint64_t kNoTime = UINT64_MAX;  // a moment that never came; prints "-"

struct AccessLogRecord {
  RecordHeader header;
  uint64_t start_wall_ns = 0;  // CLOCK_REALTIME, first byte of the request (START_TIME)
  uint64_t duration_ns = 0;    // to the last byte of the response (DURATION)
  // Moments after the start:
  uint64_t request_rx_last_ns = kNoTime;    // last byte of the request received (REQUEST_DURATION)
  uint64_t upstream_tx_first_ns = kNoTime;  // first byte of the request sent to the upstream
  uint64_t upstream_tx_last_ns = kNoTime;
  uint64_t upstream_rx_first_ns = kNoTime;  // first byte of the response received (RESPONSE_DURATION)
  uint64_t upstream_rx_last_ns = kNoTime;
  uint64_t downstream_tx_first_ns = kNoTime;
  uint64_t upstream_connect_start_ns = kNoTime;  // of a connection opened for this request
  uint64_t upstream_connect_end_ns = kNoTime;
  uint64_t upstream_ready_ns = kNoTime;  // a connection was there (UPSTREAM_CONNECTION_POOL_READY_DURATION)
  uint64_t tls_handshake_ns = kNoTime;   // of the client's connection, from its first packet (DOWNSTREAM_HANDSHAKE_DURATION)
  uint64_t bytes_received = 0, bytes_sent = 0;  // bodies (BYTES_RECEIVED, BYTES_SENT); of connections: TCP payload
  uint64_t upstream_bytes_sent = 0, upstream_bytes_received = 0;
  uint64_t flags = 0;          // ResponseFlags::bits
  uint64_t connection_id = 0;  // of the downstream connection (CONNECTION_ID); unique in this data plane incarnation
  uint64_t listener = 0;       // table::ObjectId
  uint64_t route_table = 0, virtual_host = 0, cluster = 0;  // table::ObjectId; 0: none
  base::IpAddress downstream_remote, downstream_local, upstream_remote, upstream_local;
  base::IpAddress downstream_direct_remote;  // the TCP peer, where downstream_remote came from x-forwarded-for
  uint16_t downstream_remote_port = 0, downstream_local_port = 0, upstream_remote_port = 0, upstream_local_port = 0;
  uint16_t downstream_direct_remote_port = 0;
  uint16_t response_code = 0;          // 0: none was sent
  uint16_t tls_version = 0;            // wire value of the downstream connection
  uint16_t tls_cipher = 0;             // IANA number of the cipher suite
  uint16_t record_flags = 0;           // AccessLogFlag
  uint16_t filter_chain = UINT16_MAX;  // index into Listener.filter_chains; UINT16_MAX: none matched
  uint16_t attempt_count = 0;          // UPSTREAM_REQUEST_ATTEMPT_COUNT
  uint32_t route_rank = UINT32_MAX;    // index into VirtualHost.routes; UINT32_MAX: none
  uint16_t worker = 0, reserved16 = 0;
  Protocol protocol = Protocol::kNone;
  Protocol upstream_protocol = Protocol::kNone;
  uint32_t string_count = 0;    // StringRefs behind this struct; set by the builder
  uint32_t sinks = UINT32_MAX;  // bit i: the i-th access log of its list writes it (filters have decided)
  uint32_t request_headers_bytes = 0, response_headers_bytes = 0, response_trailers_bytes = 0;
  uint32_t tcp_handshake_rtt_us = 0, tcp_rtt_us = 0;  // of the client's connection; 0: not measured
  uint32_t tcp_retransmits = 0;                       // segments of the client's connection sent again, so far
  uint16_t grpc_status = UINT16_MAX;                  // UINT16_MAX: none
  uint16_t reserved2 = 0;
};
static_assert(sizeof(AccessLogRecord) % 8 == 0);

enum class StringId : uint16_t {
  kMethod = 1,
  kPath,
  kOriginalPath,
  kAuthority,
  kForwardedFor,
  kUserAgent,
  kRequestId,
  kReferer,
  kUpstreamServiceTime,
  kRouteName,
  kClusterName,
  kVirtualHostName,
  kFilterChainName,
  kServerName /* SNI */,
  kUpstreamHost /* endpoint hostname */,
  kResponseCodeDetails /* the text: lib/http owns the list */,
  kTransportFailure,
  kConnectionTermination,
  kScheme,
  kForwardedProto,
  kContentType,
  kJa3,
  kJa4,
  // Extra headers: any %REQ(X)%, %RESP(X)% or %TRAILER(X)% of a configured format that is not in the list above. The loader reads
  // the formats of a listener's access logs and gives the worker the names it must record (RuntimeSnapshot: AccessLogFields); the
  // string is one byte of name length, the lower-case name, then the value. Read with AccessLogView::extra().
  kExtraRequestHeader = 64,
  kExtraResponseHeader,
  kExtraResponseTrailer,
};
// Longest value kept of a string; longer ones are cut.
constexpr uint32_t string_limit(StringId id) {
  switch (id) {
    case StringId::kMethod:
      return 64;
    case StringId::kPath:
    case StringId::kOriginalPath:
      return 2048;
    case StringId::kRequestId:
      return 128;
    case StringId::kUpstreamServiceTime:
      return 32;
    default:
      return 512;
  }
}
inline constexpr uint32_t kPlainStrings = 64;  // ids below it: one of each in a record, found at once
inline constexpr uint32_t kMaxRecordStrings = 64;
// Most a record can take: the fixed part, all references, and 16 KB of string bytes (two paths, 24 strings of 512 bytes).
inline constexpr uint32_t kMaxStringBytes = 16 * 1024;
inline constexpr uint32_t kMaxAccessLogRecord = sizeof(AccessLogRecord) + kMaxRecordStrings * 4 + kMaxStringBytes;

struct StringRef {
  StringId id;
  uint16_t size_and_cut;  // low 15 bits: bytes; top bit: cut to its limit
  uint32_t size() const { return size_and_cut & 0x7fff; }
  bool cut() const { return (size_and_cut & 0x8000) != 0; }
};
static_assert(sizeof(StringRef) == 4);

// Writes one record into a reserved ring span. First the strings are added, which decides what fits, then the record is written
// in one pass:
//   AccessLogBuilder b(record);
//   b.add(StringId::kPath, path); ...
//   span = ring.reserve(b.size()); if (!span.empty()) { b.write(span); ring.commit(b.size()); }
// Nothing is allocated; `record` and the strings must stay alive until write(). Empty strings are left out.
struct LogString {
  StringId id;
  std::string_view value;
  std::string_view name = {};  // extra headers only
};
class AccessLogBuilder {
 public:
  explicit AccessLogBuilder(const AccessLogRecord& record) : record_(record) {}
  AccessLogBuilder(const AccessLogRecord& record, std::span<const LogString> strings) : record_(record) {
    for (const LogString& s : strings) add(s.id, s.value, s.name);
  }
  // Strings behind the first that does not fit are left out too (kFlagStringsMissing).
  void add(StringId id, std::string_view value) {
    if (value.empty()) return;
    put(id, value, {});
  }
  void add(StringId id, std::string_view value, std::string_view name);  // an extra header; its value may be empty
  uint32_t size() const {                                                // bytes of the record; at most kMaxAccessLogRecord
    return static_cast<uint32_t>(sizeof(AccessLogRecord) + count_ * sizeof(StringRef) + string_bytes_);
  }
  void write(std::span<uint8_t> out) const;  // out.size() >= size()

 private:
  struct Part {  // no initialisers: the array below is not touched before it is filled
    const char* value;
    const char* name;
    StringId id;
    uint16_t value_size;
    uint8_t name_size;
    bool cut;
  };
  void put(StringId id, std::string_view value, std::string_view name);
  const AccessLogRecord& record_;
  uint32_t count_ = 0, string_bytes_ = 0;
  uint16_t flags_ = 0;
  Part parts_[kMaxRecordStrings];
};

enum class RecordError : uint8_t {
  kNone = 0,
  kTooShort,
  kWrongType,
  kWrongVersion,
  kWrongSize,
  kTooManyStrings,
  kStringsPastEnd,
  kBadExtra
};
const char* to_string(RecordError e);

// The header of any record; error when it is not one. Never reads outside `bytes`.
RecordError check_record(std::span<const uint8_t> bytes, RecordHeader& out);

// A checked copy of the fixed part, and views into `bytes` for the strings; `bytes` must outlive it.
class AccessLogView {
 public:
  // Copies the fixed part and the references first, so that a peer that changes the bytes meanwhile can harm nobody.
  RecordError parse(std::span<const uint8_t> bytes);
  const AccessLogRecord& fixed() const { return fixed_; }
  ResponseFlags flags() const {
    ResponseFlags f;
    f.bits = fixed_.flags;
    return f;
  }
  std::optional<std::string_view> string(StringId id) const {  // the first of that id, below kPlainStrings
    const uint8_t i = first_[static_cast<size_t>(id)];
    if (i == 0) return std::nullopt;
    return string_at(i - 1u);
  }
  // The recorded extra header of that kind and (lower case) name.
  std::optional<std::string_view> extra(StringId kind, std::string_view lower_case_name) const;
  uint32_t string_count() const { return fixed_.string_count; }
  StringRef ref(uint32_t i) const { return refs_[i]; }
  std::string_view string_at(uint32_t i) const { return {text_ + offsets_[i], refs_[i].size()}; }

 private:
  AccessLogRecord fixed_;
  StringRef refs_[kMaxRecordStrings];
  uint32_t offsets_[kMaxRecordStrings];
  uint8_t first_[kPlainStrings];  // by id: 1 + its place in refs_; 0: not there
  uint32_t first_extra_ = 0;      // place of the first extra header; string_count when there is none
  const char* text_ = nullptr;
};

// ---- loader ---------------------------------------------------------------------------------------------------------------
inline constexpr uint32_t kMaxLoaderText = 1024;  // longer reasons are cut

struct LoaderEvent {
  RecordHeader header;
  uint64_t incarnation = 0;  // of the control process whose snapshot it was
  uint64_t epoch = 0;
  uint64_t object = 0;     // table::ObjectId the reason is about; 0: the root or none
  uint64_t build_ns = 0;   // from command to offer
  uint32_t objects = 0;    // in the snapshot
  uint32_t text_size = 0;  // bytes behind this struct
};
static_assert(sizeof(LoaderEvent) == 48);
inline constexpr uint32_t kMaxLoaderEvent = sizeof(LoaderEvent) + kMaxLoaderText;
// Writes event and text into `out` (>= kMaxLoaderEvent bytes); returns the bytes written. Sets header and text_size.
uint32_t write_loader_event(std::span<uint8_t> out, EventType type, LoaderEvent event, std::string_view text);
// Checked copy; `text` is a view into `bytes`.
RecordError read_loader_event(std::span<const uint8_t> bytes, LoaderEvent& event, std::string_view& text);

}  // namespace millrace::stats
