#include "lib/http/h1_writer.h"

#include <cstring>

#include "lib/http/connection.h"

namespace millrace::http {

namespace {

// Appends while it fits and counts always.
class Out {
 public:
  explicit Out(std::span<char> out) : out_(out) {}
  void put(std::string_view s) {
    if (size_ <= out_.size() && s.size() <= out_.size() - size_ && !s.empty())
      std::memcpy(out_.data() + size_, s.data(), s.size());
    size_ += s.size();
  }
  void put_decimal(uint64_t v) {
    char digits[20];
    size_t n = 0;
    do {
      digits[sizeof digits - ++n] = static_cast<char>('0' + v % 10);
      v /= 10;
    } while (v != 0);
    put({digits + sizeof digits - n, n});
  }
  void put_field(std::string_view name, std::string_view value) {
    // The usual case in one test: room for the whole line.
    const size_t n = name.size() + value.size() + 4;
    if (size_ <= out_.size() && n <= out_.size() - size_) {
      char* p = out_.data() + size_;
      std::memcpy(p, name.data(), name.size());
      p += name.size();
      *p++ = ':';
      *p++ = ' ';
      if (!value.empty()) std::memcpy(p, value.data(), value.size());
      p += value.size();
      *p++ = '\r';
      *p++ = '\n';
    }
    size_ += n;
  }
  size_t size() const { return size_; }

 private:
  std::span<char> out_;
  size_t size_ = 0;
};

void put_content_length(Out& out, uint64_t length) {
  out.put("content-length: ");
  out.put_decimal(length);
  out.put("\r\n");
}

// Methods for which a request without content says nothing about its length (Envoy's requestShouldHaveNoBody; RFC 9110 8.6).
bool is_bodiless_method(std::string_view m) {
  return m == "GET" || m == "HEAD" || m == "DELETE" || m == "TRACE" || m == "CONNECT";
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

size_t write_request_head(const RequestHead& head, BodyFraming framing, std::span<char> buffer) {
  Out out(buffer);
  out.put(head.method);
  out.put(" ");
  out.put(is_connect(head) ? head.authority : head.path);
  out.put(" HTTP/1.1\r\n");
  out.put_field("host", head.authority);
  for (const Header& h : head.headers) out.put_field(h.name, h.value);
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
  return out.size();
}

size_t write_response_head(const ResponseHead& head, const ResponseWrite& options, std::span<char> buffer) {
  Out out(buffer);
  out.put(options.peer == Version::kHttp10 ? "HTTP/1.0 " : "HTTP/1.1 ");
  out.put_decimal(head.status);
  out.put(" ");
  out.put(reason_phrase(head.status));
  out.put("\r\n");
  for (const Header& h : head.headers) out.put_field(h.name, h.value);
  if (head.status >= 200) {  // interim responses and 101 say nothing about the connection
    if (options.close) out.put("connection: close\r\n");
    else if (options.peer == Version::kHttp10) out.put("connection: keep-alive\r\n");
  }
  const bool has_length = head.headers.has(HeaderId::kContentLength);
  const bool lengthless = head.status < 200 || head.status == 204 || head.status == 304;  // RFC 9110 8.6, 9112 6.1
  if (!has_length && !lengthless) {
    switch (options.framing.kind) {
      case Framing::kNone:
        // What a GET would have got is not known; Envoy guesses chunked.
        if (!options.is_head) put_content_length(out, 0);
        else if (options.peer != Version::kHttp10) out.put("transfer-encoding: chunked\r\n");
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
  return out.size();
}

size_t write_chunk_header(uint64_t data_bytes, std::span<char> buffer) {
  char digits[16];
  size_t n = 0;
  do {
    digits[sizeof digits - ++n] = "0123456789abcdef"[data_bytes & 15];
    data_bytes >>= 4;
  } while (data_bytes != 0);
  Out out(buffer);
  out.put({digits + sizeof digits - n, n});
  out.put("\r\n");
  return out.size();
}

size_t write_last_chunk(const HeaderTable& trailers, std::span<char> buffer) {
  Out out(buffer);
  out.put("0\r\n");
  for (const Header& h : trailers) out.put_field(h.name, h.value);
  out.put("\r\n");
  return out.size();
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
