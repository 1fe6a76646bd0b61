#include "lib/http/h1_writer.h"

#include <bit>
#include <cstring>

#include "lib/http/connection.h"
#include "lib/http/header_names.h"

namespace millrace::http {

namespace {

// Every head is written by a function over an output of one of two kinds. FastOut writes as long as kSlack bytes are left behind
// what it puts, which may then be overwritten: constants and known names go out in one or two stores of full size. When they are
// not, the head is written once more by ExactOut, which writes what fits and counts the rest.
class FastOut {
 public:
  explicit FastOut(std::span<char> out)
      : begin_(out.data()), next_(begin_), room_(static_cast<ptrdiff_t>(out.size()) - static_cast<ptrdiff_t>(kSlack)) {}

  bool complete() const { return room_ >= 0; }
  size_t size() const { return static_cast<size_t>(next_ - begin_); }

  void put(std::string_view s) {
    if (!take(s.size())) [[unlikely]]
      return;
    copy_bytes(next_, s.data(), s.size());
    next_ += s.size();
  }
  template <size_t N>
  void put(const char (&literal)[N]) {
    static_assert(N - 1 <= kSlack);
    if (!take(N - 1)) [[unlikely]]
      return;
    std::memcpy(next_, literal, N - 1);
    next_ += N - 1;
  }
  void put_decimal(uint64_t v) {
    if (take(kMaxDecimalBytes)) [[likely]]
      next_ += write_decimal(next_, v);
  }
  void put_field(HeaderId id, std::string_view name, std::string_view value) {
    if (!take(name.size() + value.size() + 4)) [[unlikely]]
      return;
    if (id != HeaderId::kOther) {
      std::memcpy(next_, names::kPrefixes[static_cast<size_t>(id)].bytes.data(), names::kPrefixBytes);
      next_ += name.size() + 2;
    } else {
      copy_bytes(next_, name.data(), name.size());
      std::memcpy(next_ + name.size(), ": ", 2);
      next_ += name.size() + 2;
    }
    copy_bytes(next_, value.data(), value.size());
    std::memcpy(next_ + value.size(), "\r\n", 2);
    next_ += value.size() + 2;
  }

 private:
  static constexpr size_t kSlack = 64;  // above the longest literal and the bytes of a known name
  bool take(size_t n) {
    room_ -= static_cast<ptrdiff_t>(n);
    return room_ >= 0;
  }

  char* begin_;
  char* next_;
  ptrdiff_t room_;  // negative from the first time on that something did not fit
};

class ExactOut {
 public:
  explicit ExactOut(std::span<char> out) : out_(out) {}

  size_t size() const { return size_; }
  void put(std::string_view s) {
    if (size_ <= out_.size() && s.size() <= out_.size() - size_ && !s.empty())
      std::memcpy(out_.data() + size_, s.data(), s.size());
    size_ += s.size();
  }
  void put_decimal(uint64_t v) {
    char digits[kMaxDecimalBytes];
    put({digits, write_decimal(digits, v)});
  }
  void put_field(HeaderId, std::string_view name, std::string_view value) {
    for (std::string_view part : {name, std::string_view(": "), value, std::string_view("\r\n")}) put(part);
  }

 private:
  std::span<char> out_;
  size_t size_ = 0;
};

// `emit(out)` with the one that fits; the size that it needs.
template <class Emit>
[[gnu::always_inline]] inline size_t write(std::span<char> buffer, Emit&& emit) {
  FastOut fast(buffer);
  emit(fast);
  if (fast.complete()) [[likely]]
    return fast.size();
  ExactOut exact(buffer);
  emit(exact);
  return exact.size();
}

// The field lines of a table, those that stand in memory one behind the other as one run. `run`: bytes that go in front of them
// and may be the beginning of the first run.
template <class Out>
[[gnu::always_inline]] inline void put_fields(Out& out, const HeaderTable& headers, std::string_view run) {
  const char* begin = run.data();
  const char* end = begin + run.size();
  for (const Header& h : headers) {
    if (h.is_line()) {
      if (h.name.data() != end) {
        if (begin != end) out.put(std::string_view(begin, static_cast<size_t>(end - begin)));
        begin = end = h.name.data();
      }
      end += h.line_bytes;
      continue;
    }
    if (begin != end) out.put(std::string_view(begin, static_cast<size_t>(end - begin)));
    begin = end;
    out.put_field(h.id, h.name, h.value);
  }
  if (begin != end) out.put(std::string_view(begin, static_cast<size_t>(end - begin)));
}

template <class Out>
void put_content_length(Out& out, uint64_t length) {
  out.put("content-length: ");
  out.put_decimal(length);
  out.put("\r\n");
}

// Methods for which a request without content says nothing about its length (Envoy's requestShouldHaveNoBody; RFC 9110 8.6).
bool is_bodiless_method(std::string_view m) {
  return is_text(m, "GET") || is_text(m, "HEAD") || is_text(m, "DELETE") || is_text(m, "TRACE") || is_text(m, "CONNECT");
}

}  // namespace

std::string_view reason_phrase(uint16_t status) {
  switch (status) {
#define REASON_PHRASE(code, phrase) \
  case code:                        \
    return phrase;
#include "lib/http/reason_phrases.def"
#undef REASON_PHRASE
    default:
      return "Unknown";
  }
}

BodyFraming outgoing_framing(BodyFraming in, Version peer) {
  switch (in.kind) {
    case Framing::kChunked:
    case Framing::kUntilClose:
      return {peer == Version::kHttp10 ? Framing::kUntilClose : Framing::kChunked, 0};
    default:
      return in;
  }
}

// "METHOD path HTTP/1.1" CRLF and "host: authority" CRLF when they stand in memory like that, as the parser noted; else nothing.
static std::string_view start_as_received(const RequestHead& head) {
  constexpr size_t kStartExtra = std::string_view("  HTTP/1.1\r\n").size(), kHostExtra = std::string_view("host: \r\n").size();
  const char* const start = head.method.data();
  if (head.start_line_bytes != head.method.size() + head.path.size() + kStartExtra ||
      head.path.data() != start + head.method.size() + 1 || head.host_line_bytes != head.authority.size() + kHostExtra ||
      head.authority.data() != start + head.start_line_bytes + std::string_view("host: ").size())
    return {};
  return {start, head.start_line_bytes + head.host_line_bytes};
}

size_t write_request_head(const RequestHead& head, BodyFraming framing, std::span<char> buffer) {
  const auto emit = [&](auto& out) __attribute__((always_inline)) {
    const std::string_view received = start_as_received(head);
    if (received.empty()) {
      out.put(head.method);
      out.put(" ");
      out.put(is_connect(head) ? head.authority : head.path);
      out.put(" HTTP/1.1\r\n");
      out.put_field(HeaderId::kHost, "host", head.authority);
    }
    put_fields(out, head.headers, received);
    const bool has_length = head.headers.has(HeaderId::kContentLength);
    switch (framing.kind) {
      case Framing::kNone:
        if (!has_length && !is_bodiless_method(head.method)) put_content_length(out, 0);
        break;
      case Framing::kContentLength:
        if (!has_length) put_content_length(out, framing.length);
        break;
      case Framing::kChunked:
        out.put("transfer-encoding: chunked\r\n");
        break;
      default:
        break;
    }
    out.put("\r\n");
  };
  return write(buffer, emit);
}

size_t write_response_head(const ResponseHead& head, const ResponseWrite& options, std::span<char> buffer) {
  const bool http_10 = options.peer == Version::kHttp10;
  const auto emit = [&](auto& out) __attribute__((always_inline)) {
    if (head.status == 200 && !http_10) [[likely]] {
      out.put("HTTP/1.1 200 OK\r\n");
    } else {
      if (http_10) out.put("HTTP/1.0 ");
      else out.put("HTTP/1.1 ");
      out.put_decimal(head.status);
      out.put(" ");
      out.put(reason_phrase(head.status));
      out.put("\r\n");
    }
    put_fields(out, head.headers, {});
    if (head.status >= 200) {  // interim responses and 101 say nothing about the connection
      if (options.close) out.put("connection: close\r\n");
      else if (http_10) out.put("connection: keep-alive\r\n");
    }
    const bool has_length = head.headers.has(HeaderId::kContentLength);
    const bool lengthless = head.status < 200 || head.status == 204 || head.status == 304;  // RFC 9110 8.6, 9112 6.1
    if (!has_length && !lengthless) {
      switch (options.framing.kind) {
        case Framing::kNone:
          // What a GET would have got is not known; Envoy guesses chunked.
          if (!options.is_head) put_content_length(out, 0);
          else if (!http_10) out.put("transfer-encoding: chunked\r\n");
          break;
        case Framing::kContentLength:
          put_content_length(out, options.framing.length);
          break;
        case Framing::kChunked:
          out.put("transfer-encoding: chunked\r\n");
          break;
        default:
          break;
      }
    }
    out.put("\r\n");
  };
  return write(buffer, emit);
}

size_t write_chunk_header(uint64_t data_bytes, std::span<char> buffer) {
  const size_t digits = data_bytes == 0 ? 1 : (67 - static_cast<size_t>(std::countl_zero(data_bytes))) / 4;
  const size_t n = digits + kChunkEnd.size();
  if (n > buffer.size()) return n;
  for (size_t i = digits; i-- > 0; data_bytes >>= 4) buffer[i] = "0123456789abcdef"[data_bytes & 15];
  std::memcpy(buffer.data() + digits, kChunkEnd.data(), kChunkEnd.size());
  return n;
}

size_t write_last_chunk(const HeaderTable& trailers, std::span<char> buffer) {
  const auto emit = [&](auto& out) {
    out.put("0\r\n");
    put_fields(out, trailers, {});
    out.put("\r\n");
  };
  return write(buffer, emit);
}

void format_date(uint64_t unix_seconds, char out[kDateBytes]) {
  // Days to civil date for the proleptic Gregorian calendar, years counted from March.
  const uint64_t days = unix_seconds / 86400;
  const uint64_t second_of_day = unix_seconds % 86400;
  const uint64_t z = days + 719468;  // days since 0000-03-01
  const uint64_t era = z / 146097;
  const uint64_t day_of_era = z % 146097;
  const uint64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  const uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const uint64_t month_from_march = (5 * day_of_year + 2) / 153;
  const uint64_t day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
  const uint64_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
  const uint64_t year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);
  static constexpr char kDays[] = "ThuFriSatSunMonTueWed";  // 1970-01-01 was a Thursday
  static constexpr char kMonths[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  const auto two = [](char* p, uint64_t v) {
    p[0] = static_cast<char>('0' + v / 10 % 10);
    p[1] = static_cast<char>('0' + v % 10);
  };
  std::memcpy(out, "Xxx, 00 Xxx 0000 00:00:00 GMT", kDateBytes);
  std::memcpy(out, kDays + days % 7 * 3, 3);
  two(out + 5, day);
  std::memcpy(out + 8, kMonths + (month - 1) * 3, 3);
  two(out + 12, year / 100);
  two(out + 14, year % 100);
  two(out + 17, second_of_day / 3600);
  two(out + 20, second_of_day / 60 % 60);
  two(out + 23, second_of_day % 60);
}

}  // namespace millrace::http
