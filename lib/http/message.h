// A request or response head as the gateway holds it, whatever HTTP version it came in. Plain views: the bytes belong to the head
// buffer of the exchange (dataplane/head_buffer.h) and live as long as it. Header names are lower case (the parser lowers them in
// place: RFC 9110 5.1 makes them case-insensitive and Envoy sends them so).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "lib/base/assert.h"
#include "lib/http/short_bytes.h"

namespace millrace::http {

enum class Version : uint8_t { kHttp10, kHttp11, kHttp2 };

// Names that the gateway itself looks at; all others are kOther. The bit of an id is set in HeaderTable::present.
enum class HeaderId : uint8_t {
  kOther = 0,
  kHost,
  kConnection,
  kContentLength,
  kTransferEncoding,
  kTe,
  kTrailer,
  kUpgrade,
  kExpect,
  kKeepAlive,
  kProxyConnection,
  kContentType,
  kUserAgent,
  kXForwardedFor,
  kXForwardedProto,
  kXForwardedHost,
  kXRequestId,
  kVia,
  kServer,
  kDate,
  kLocation,
  kXEnvoyOriginalPath,
  kXEnvoyExpectedRqTimeoutMs,
  kXEnvoyUpstreamServiceTime,
  kXEnvoyUpstreamRqTimeoutMs,
  kXEnvoyOverloaded,
  kXEnvoyInternal,
  kXEnvoyExternalAddress,
  kGrpcTimeout,
  kGrpcStatus,
  kCookie,
  kAuthorization,
  kReferer,
  kHttp2Settings,
  kXEnvoyDecoratorOperation,
  kXForwardedPort,
  kXEnvoyOriginalHost,
  kXEnvoyAttemptCount,
  kRetryAfter,
  kOrigin,
  kCount
};
static_assert(static_cast<int>(HeaderId::kCount) <= 64, "one bit each in HeaderTable::present");

constexpr uint64_t bit_of(HeaderId id) { return uint64_t{1} << static_cast<int>(id); }

HeaderId header_id(std::string_view lower_case_name);
extern const std::array<std::string_view, static_cast<size_t>(HeaderId::kCount)> kHeaderNames;
inline std::string_view header_name(HeaderId id) { return kHeaderNames[static_cast<size_t>(id)]; }  // "" for kOther

// Names that are kOther but may mean something to forward.h, "x-envoy-..." and "x-forwarded-client-cert", told from nearly all
// others by their first bytes, in any case.
inline bool is_guarded_name(std::string_view n) {
  if (n.size() < 4) return false;
  const uint32_t front = load4(n.data()) | 0x20202020;
  return front == "x-en"_word || front == "x-fo"_word;
}

struct Header {
  std::string_view name;   // lower case
  std::string_view value;  // without surrounding white space
  HeaderId id = HeaderId::kOther;
  // The parser's note that the bytes at name.data() are just as the writer would write them: this many, "name: value" CRLF. 0:
  // they are not, or nobody knows. Whoever gives the header another name or value need not care: see is_line().
  uint32_t line_bytes = 0;

  // True when the line still stands in memory as it is to be written.
  bool is_line() const { return line_bytes == name.size() + value.size() + 4 && value.data() == name.data() + name.size() + 2; }
};

// Header fields in order of arrival, in storage that the caller lends (capacity fixed for its life; no allocation).
class HeaderTable {
 public:
  HeaderTable() = default;
  HeaderTable(Header* storage, uint32_t capacity) : data_(storage), capacity_(capacity) {}
  // The fields of `filled`, which lies in the same storage, with (more) room: a parser's limit need not be the forwarder's.
  HeaderTable(Header* storage, uint32_t capacity, const HeaderTable& filled)
      : data_(storage),
        size_(filled.size_),
        capacity_(capacity),
        guarded_(filled.guarded_),
        present_(filled.present_),
        repeated_(filled.repeated_) {}

  uint32_t size() const { return size_; }
  uint32_t capacity() const { return capacity_; }
  const Header& operator[](uint32_t i) const { return data_[i]; }
  Header& operator[](uint32_t i) { return data_[i]; }
  const Header* begin() const { return data_; }
  const Header* end() const { return data_ + size_; }
  // One bit for each id that is there (`1 << id`), so that "none of these" is one test.
  uint64_t present() const { return present_; }
  // The bits of the ids that are there more than once.
  uint64_t repeated() const { return repeated_; }
  // False: no unknown name of the table is_guarded_name(). True: there may be one.
  bool may_have_guarded_names() const { return guarded_; }
  bool has(HeaderId id) const { return (present_ >> static_cast<int>(id)) & 1; }

  bool push(const Header& h) {  // false when full
    if (size_ == capacity_) return false;
    const uint64_t bit = bit_of(h.id);
    repeated_ |= present_ & bit;
    present_ |= bit;
    if (h.id == HeaderId::kOther) guarded_ |= is_guarded_name(h.name);
    data_[size_++] = h;
    return true;
  }
  // push({header_name(id), value, id}) of a known name.
  bool add(HeaderId id, std::string_view value) {
    if (size_ == capacity_) return false;
    repeated_ |= present_ & bit_of(id);
    present_ |= bit_of(id);
    Header& h = data_[size_++];
    h.name = header_name(id);
    h.value = value;
    h.id = id;
    h.line_bytes = 0;
    return true;
  }
  // The first value of a known header; "" (and has() false) when absent.
  std::string_view get(HeaderId id) const {
    if (has(id) && id != HeaderId::kOther)
      for (const Header& h : *this)
        if (h.id == id) return h.value;
    return {};
  }
  // The first header of that (lower case) name, or null.
  const Header* find(std::string_view lower_case_name) const;
  // Removes every header of that name, keeping the order of the rest; returns how many there were.
  uint32_t remove(std::string_view lower_case_name);
  uint32_t remove(HeaderId id) { return remove_ids(bit_of(id)); }
  // Removes every header whose bit_of(id) is in `ids`, keeping the order of the rest; returns how many there were. kOther cannot
  // be among them.
  uint32_t remove_ids(uint64_t ids);
  // Removes every header for which remove(header) is true, keeping the order of the rest; returns how many there were.
  template <class Predicate>
  uint32_t remove_if(Predicate&& remove) {
    uint32_t kept = 0;
    uint64_t present = 0, repeated = 0;
    for (uint32_t i = 0; i < size_; ++i) {
      if (remove(static_cast<const Header&>(data_[i]))) continue;
      const uint64_t bit = bit_of(data_[i].id);
      repeated |= present & bit;
      present |= bit;
      if (kept != i) data_[kept] = data_[i];
      ++kept;
    }
    const uint32_t removed = size_ - kept;
    size_ = kept;
    present_ = present;
    repeated_ = repeated;
    return removed;
  }
  // Gives the first header of that id the value and removes further ones, or appends it. False when it had to be added and the
  // table is full.
  bool set(HeaderId id, std::string_view value) {
    MILLRACE_ASSERT(id != HeaderId::kOther, "set() is for known names");
    return has(id) ? replace(id, value) : add(id, value);
  }
  // The same by a (lower case) name that has no id: HeaderId::kOther.
  bool set(std::string_view lower_case_name, std::string_view value) {
    Header* first = nullptr;
    for (uint32_t i = 0; i < size_ && first == nullptr; ++i)
      if (data_[i].id == HeaderId::kOther && data_[i].name == lower_case_name) first = &data_[i];
    if (first == nullptr) return push({lower_case_name, value, HeaderId::kOther});
    first->value = value;
    remove_if([&](const Header& h) { return &h != first && h.id == HeaderId::kOther && h.name == lower_case_name; });
    return true;
  }
  void clear() {
    size_ = 0;
    present_ = repeated_ = 0;
    guarded_ = false;
  }

  // For the parser, which keeps the count and the bits in registers while it fills the storage from [size()] on, and tells them
  // at the end.
  Header* storage() { return data_; }
  void filled(uint32_t size, uint64_t present, uint64_t repeated, bool guarded) {
    size_ = size;
    present_ = present;
    repeated_ = repeated;
    guarded_ = guarded;
  }

 private:
  bool replace(HeaderId id, std::string_view value);

  Header* data_ = nullptr;
  uint32_t size_ = 0, capacity_ = 0;
  bool guarded_ = false;
  uint64_t present_ = 0;  // kOther's bit says that some unknown name is there
  uint64_t repeated_ = 0;
};

// `content_length` of a head that no parser has filled: who wants it reads the field.
inline constexpr uint64_t kLengthNotRead = UINT64_MAX;

struct RequestHead {
  std::string_view method;     // as sent: methods are case-sensitive
  std::string_view path;       // origin-form with query ("/a?b=c"), "*" for OPTIONS *, "" for CONNECT
  std::string_view authority;  // Host, or the authority of an absolute-form or CONNECT target; may be empty for HTTP/1.0
  std::string_view scheme;     // of an absolute-form target or :scheme; else "" (the connection decides)
  Version version = Version::kHttp11;
  HeaderTable headers;                       // without Host (it is `authority`)
  uint64_t content_length = kLengthNotRead;  // the parser's: of the content-length field, where there is one
  // As Header::line_bytes, of "method path HTTP/1.1" CRLF at method.data() and of "host: authority" CRLF. See h1_writer.cc.
  uint32_t start_line_bytes = 0, host_line_bytes = 0;
};

struct ResponseHead {
  uint16_t status = 0;
  std::string_view reason;
  Version version = Version::kHttp11;
  HeaderTable headers;
  uint64_t content_length = kLengthNotRead;  // as RequestHead's
};

// The path without its query, and the query without its '?' (both views into `path`).
inline std::string_view path_only(std::string_view path) {
  path = path.substr(0, path.find('?'));  // two memchr are several times as fast as one find_first_of
  return path.substr(0, path.find('#'));
}
inline std::string_view query_of(std::string_view path) {
  const size_t q = path.find('?');
  return q == std::string_view::npos ? std::string_view{} : path.substr(q + 1);
}

}  // namespace millrace::http
