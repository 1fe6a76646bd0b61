#include "lib/http/h1_parser.h"

#include <bit>
#include <cstring>

#include "lib/http/connection.h"
#include "lib/http/h1_line.h"
#include "lib/http/h1_scan.h"
#include "lib/http/h1_target.h"

namespace millrace::http {

namespace {

constexpr H1ErrorInfo kInfo[] = {
    {"none", 0, "", "no error", false},
#define H1_ERROR(symbol, name, status, details, text) \
  {name, status, details, text, H1Error::symbol != H1Error::kMissingHost && H1Error::symbol != H1Error::kQueryContentType},
#include "lib/http/h1_errors.def"
#undef H1_ERROR
};

// Envoy's isMethodValid when custom methods are off (balsa_parser.cc; QUERY came with 1.3x).
bool is_known_method(std::string_view m) {
  switch (m.size()) {
    case 3:
      return is_text(m, "GET") || is_text(m, "PUT") || is_text(m, "ACL");
    case 4:
      return is_text(m, "POST") || is_text(m, "HEAD") || is_text(m, "BIND") || is_text(m, "COPY") || is_text(m, "LINK") ||
             is_text(m, "LOCK") || is_text(m, "MOVE");
    case 5:
      return is_text(m, "PATCH") || is_text(m, "MERGE") || is_text(m, "MKCOL") || is_text(m, "PURGE") || is_text(m, "QUERY") ||
             is_text(m, "TRACE");
    case 6:
      return is_text(m, "DELETE") || is_text(m, "NOTIFY") || is_text(m, "REBIND") || is_text(m, "REPORT") ||
             is_text(m, "SEARCH") || is_text(m, "SOURCE") || is_text(m, "UNBIND") || is_text(m, "UNLINK") || is_text(m, "UNLOCK");
    case 7:
      return is_text(m, "OPTIONS") || is_text(m, "CONNECT") || is_text(m, "MSEARCH");
    case 8:
      return is_text(m, "CHECKOUT") || is_text(m, "PROPFIND");
    case 9:
      return is_text(m, "PROPPATCH") || is_text(m, "SUBSCRIBE");
    case 10:
      return is_text(m, "MKACTIVITY") || is_text(m, "MKCALENDAR");
    case 11:
      return is_text(m, "UNSUBSCRIBE");
    default:
      return false;
  }
}

enum class Step : uint8_t { kOk, kPartial, kBad };

// A reader over the bytes of one head. Every function either advances p, or says kPartial, or sets `error` and says kBad.
struct Reader {
  char* p;
  char* end;
  H1Error error = H1Error::kNone;

  Step bad(H1Error e) {
    error = e;
    return Step::kBad;
  }
  // CRLF, or a lone LF (RFC 9112 2.2 allows it, Envoy does it). A CR that no LF follows is `otherwise`.
  Step line_end(H1Error otherwise) {
    if (p == end) return Step::kPartial;
    if (*p == '\n') {
      ++p;
      return Step::kOk;
    }
    if (*p != '\r') return bad(otherwise);
    if (p + 1 == end) return Step::kPartial;
    if (p[1] != '\n') return bad(H1Error::kBareCr);
    p += 2;
    return Step::kOk;
  }
  Step skip_leading_newlines() {
    char* const limit = static_cast<size_t>(end - p) > kMaxLeadingNewlineBytes ? p + kMaxLeadingNewlineBytes : end;
    while (p != limit && (*p == '\r' || *p == '\n')) ++p;
    if (p == end) return Step::kPartial;
    return *p == '\r' || *p == '\n' ? bad(H1Error::kBadStartLine) : Step::kOk;
  }
  bool skip_blanks() {  // SP and HTAB between the parts of a start line, one or more (RFC 9112 3); false: none
    char* const start = p;
    while (p != end && (*p == ' ' || *p == '\t')) ++p;
    return p != start;
  }
  static bool is_control(char c) { return static_cast<uint8_t>(c) < 0x20 || c == 0x7f; }
  static bool is_blank_or_end(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

  // "HTTP/" DIGIT "." DIGIT. *number: major * 10 + minor.
  Step http_version(uint32_t* number) {
    static constexpr char kPrefix[] = {'H', 'T', 'T', 'P', '/'};
    for (size_t i = 0; i < 8; ++i) {
      if (p + i == end) return Step::kPartial;
      const char c = p[i];
      const bool good = i < 5 ? c == kPrefix[i] : i == 6 ? c == '.' : c >= '0' && c <= '9';
      if (!good) return bad(is_control(c) && !is_blank_or_end(c) ? H1Error::kControlInTarget : H1Error::kBadVersion);
    }
    *number = static_cast<uint32_t>(p[5] - '0') * 10 + static_cast<uint32_t>(p[7] - '0');
    p += 8;
    return Step::kOk;
  }

  // One field line, or the empty line that ends the section (then *empty_line). name is lowered in place.
  Step field(std::string_view* name, std::string_view* value, bool* empty_line) {
    if (p == end) return Step::kPartial;
    char* const start = p;
    if (*p == '\r' || *p == '\n') {
      *empty_line = true;
      return line_end(H1Error::kBareCr);
    }
    *empty_line = false;
    char* const colon = scan::lower_token(p, end);
    if (colon == end) return Step::kPartial;
    if (*colon != ':') {
      const char c = *colon;
      if (colon == start && (c == ' ' || c == '\t')) return bad(H1Error::kObsFold);
      if (c == '\r' || c == '\n') return bad(H1Error::kMissingColon);
      return bad(is_control(c) && c != '\t' ? H1Error::kControlInName : H1Error::kBadName);
    }
    if (colon == start) return bad(H1Error::kEmptyName);
    char* first = colon + 1;
    while (first != end && (*first == ' ' || *first == '\t')) ++first;
    char* const stop = scan::skip_value(first, end);
    p = stop;
    const Step s = line_end(H1Error::kBadValue);
    if (s != Step::kOk) return s;
    char* last = stop;
    while (last != first && (last[-1] == ' ' || last[-1] == '\t')) --last;
    *name = {start, static_cast<size_t>(colon - start)};
    *value = {first, static_cast<size_t>(last - first)};
    return Step::kOk;
  }

  // The start lines. `window` may be null: then without the short cut for lines as they usually are.
  Step request_line(const Window* window, const H1Limits& limits, RequestHead* head);
  Step status_line(const Window* window, ResponseHead* head);

 private:
  Step any_request_line(const H1Limits& limits, RequestHead* head);
  Step any_status_line(ResponseHead* head);
};

inline Step Reader::request_line(const Window* window, const H1Limits& limits, RequestHead* head) {
  StartLine line;
  if (window == nullptr || !read_request_line(*window, p, &line)) return any_request_line(limits, head);
  head->method = {p, line.method_bytes};
  head->path = {p + line.method_bytes + 1, line.target_end - line.method_bytes - 1};
  head->version = Version::kHttp11;
  head->start_line_bytes = static_cast<uint32_t>(line.bytes);
  p += line.bytes;
  return Step::kOk;
}

inline Step Reader::status_line(const Window* window, ResponseHead* head) {
  StartLine line;
  if (window == nullptr || !read_status_line(*window, p, &line)) return any_status_line(head);
  head->status = static_cast<uint16_t>(line.status);
  head->reason = {p + kReasonAt, line.reason_end - kReasonAt};
  head->version = Version::kHttp11;
  p += line.bytes;
  return Step::kOk;
}

// request-line (RFC 9112 3): method SP request-target SP HTTP-version, with Envoy's leniency about the amount of white space.
Step Reader::any_request_line(const H1Limits& limits, RequestHead* head) {
  Step s = skip_leading_newlines();
  if (s != Step::kOk) return s;
  char* const method = p;
  while (p != end && scan::kTokenLower[static_cast<uint8_t>(*p)] != 0) ++p;
  if (p == end) return Step::kPartial;
  if (p == method || !is_blank_or_end(*p))
    return bad(is_control(*p) && p != method && !is_blank_or_end(*p) ? H1Error::kControlInTarget : H1Error::kBadMethod);
  head->method = {method, static_cast<size_t>(p - method)};
  if (!limits.allow_custom_methods && !is_known_method(head->method)) return bad(H1Error::kBadMethod);
  skip_blanks();
  if (p == end) return Step::kPartial;
  char* const target = p;
  p = scan::skip_target(p, end);
  if (p == end) return Step::kPartial;
  char* const target_end = p;
  if (!is_blank_or_end(*p)) return bad(is_control(*p) ? H1Error::kControlInTarget : H1Error::kBadTarget);
  if (target == target_end) return bad(H1Error::kBadStartLine);
  skip_blanks();
  if (p == end) return Step::kPartial;
  uint32_t number = 9;
  const bool has_version = *p != '\r' && *p != '\n';
  if (has_version) {
    s = http_version(&number);
    if (s != Step::kOk) return s;
    skip_blanks();
  }
  s = line_end(H1Error::kBadVersion);
  if (s != Step::kOk) return s;
  // Everything of the line is there: what it says can be judged.
  const H1Error e = parse_target({target, static_cast<size_t>(target_end - target)}, limits.allow_absolute_url, head);
  if (e != H1Error::kNone) return bad(e);
  head->version = number == 11 ? Version::kHttp11 : Version::kHttp10;  // as Envoy: whatever is not 1.1 is treated as 1.0
  if (number != 11 && !limits.accept_http_10) return bad(H1Error::kHttp10Refused);
  if (!has_version) return bad(H1Error::kUnsupportedVersion);
  return Step::kOk;
}

// status-line (RFC 9112 4): HTTP-version SP status-code [SP reason-phrase].
Step Reader::any_status_line(ResponseHead* head) {
  uint32_t number = 0;
  Step s = http_version(&number);
  if (s != Step::kOk) return s;
  if (p == end) return Step::kPartial;
  if (!skip_blanks()) return bad(H1Error::kBadVersion);
  uint32_t status = 0;
  for (int i = 0; i < 3; ++i, ++p) {
    if (p == end) return Step::kPartial;
    if (*p < '0' || *p > '9') return bad(H1Error::kBadStatus);
    status = status * 10 + static_cast<uint32_t>(*p - '0');
  }
  if (status < 100) return bad(H1Error::kBadStatus);
  if (p == end) return Step::kPartial;
  if (!is_blank_or_end(*p)) return bad(H1Error::kBadStatus);
  skip_blanks();
  char* const reason = p;
  p = scan::skip_value(p, end);
  char* const reason_end = p;
  s = line_end(H1Error::kControlInTarget);
  if (s != Step::kOk) return s;
  head->status = static_cast<uint16_t>(status);
  head->reason = {reason, static_cast<size_t>(reason_end - reason)};
  head->version = number == 11 ? Version::kHttp11 : Version::kHttp10;
  return Step::kOk;
}

// What of the fields decides about framing and routing, gathered while they are read.
struct Noted {
  uint32_t hosts = 0, content_lengths = 0, transfer_encodings = 0;
  std::string_view host;
  bool host_is_valid = true;     // the bytes of `host` are an authority's
  uint32_t host_line_bytes = 0;  // as RequestHead's
  bool length_is_number = true;  // of the first content-length
  uint64_t length = 0;
  bool chunked = false;  // of the first transfer-encoding
};

// RFC 9110 8.6: 1*DIGIT; at most 2^63 - 1, so that sums of lengths cannot overflow.
inline bool is_length(std::string_view v, uint64_t* length) {
  constexpr size_t kSafeDigits = 18;  // that many cannot overflow
  uint64_t n = 0;
  if (v.empty()) return false;
  for (char c : v) {
    const uint64_t digit = static_cast<uint64_t>(static_cast<uint8_t>(c)) - '0';
    if (digit > 9) return false;
    if (v.size() > kSafeDigits && n > (uint64_t{INT64_MAX} - digit) / 10) return false;
    n = n * 10 + digit;
  }
  *length = n;
  return true;
}

// Byte by byte: a name has a capital or two, and a wider store would reach into bytes that the next line's load wants.
inline void lower_name(char* name, uint32_t upper) {
  for (; upper != 0; upper &= upper - 1) name[std::countr_zero(upper)] |= 0x20;
}

// A line that read_line finds odd.
Step odd_line(Reader& r, FieldLine* line, bool* empty_line) {
  std::string_view name, value;
  const char* const start = r.p;
  const Step s = r.field(&name, &value, empty_line);
  if (s != Step::kOk || *empty_line) return s;
  line->name_bytes = name.size();
  line->value_at = static_cast<size_t>(value.data() - start);
  line->value_end = line->value_at + value.size();
  line->bytes = static_cast<size_t>(r.p - start);
  line->as_written = line->value_at == name.size() + 2 && start[name.size() + 1] == ' ' && line->bytes == line->value_end + 2 &&
                     start[line->value_end] == '\r';
  line->upper = 0;
  line->id = header_id(name);
  return s;
}

// The field lines and the empty line. The table is filled when all of them are in order.
template <class Head>
Step read_fields(Reader& r, const Window& window, const H1Limits& limits, bool take_host, Head* head, Noted* noted) {
  constexpr uint64_t kFraming = bit_of(HeaderId::kContentLength) | bit_of(HeaderId::kTransferEncoding);
  const uint64_t looked_at = kFraming | (take_host ? bit_of(HeaderId::kHost) : 0);
  Header* const storage = head->headers.storage();
  Header* const storage_end = storage + head->headers.capacity();
  Header* out = storage;
  uint64_t present = 0, repeated = 0;
  uint64_t left = limits.max_header_count;
  bool guarded = false;
  char* p = r.p;
  for (;;) {
    FieldLine line;
    const LineKind kind = read_line(window, p, &line);
    if (kind != LineKind::kField) [[unlikely]] {
      if (kind == LineKind::kEmpty) {
        r.p = p + 2;
        break;
      }
      bool empty_line = false;
      r.p = p;
      FieldLine odd;
      const Step s = odd_line(r, &odd, &empty_line);
      if (s != Step::kOk) return s;
      if (empty_line) break;
      line = odd;
    }
    if (left-- == 0) return r.bad(H1Error::kTooManyHeaders);
    const std::string_view value(p + line.value_at, line.value_end - line.value_at);
    const uint32_t line_bytes = line.as_written ? static_cast<uint32_t>(line.bytes) : 0;
    const uint64_t bit = bit_of(line.id);
    if ((bit & looked_at) != 0) {
      if (line.id == HeaderId::kHost) {
        if (noted->hosts++ == 0) {
          noted->host = value;
          noted->host_is_valid = is_authority(window, value.data(), value.size());
          noted->host_line_bytes = line_bytes;
        }
        lower_name(p, line.upper);
        p += line.bytes;
        continue;
      }
      if (line.id == HeaderId::kContentLength) {
        if (noted->content_lengths++ == 0) noted->length_is_number = is_length(value, &noted->length);
      } else if (noted->transfer_encodings++ == 0) {
        noted->chunked = equals_ignore_case(value, "chunked");
      }
    }
    if (out == storage_end) return r.bad(H1Error::kTooManyHeaders);
    if (line.id == HeaderId::kOther) guarded |= is_guarded_name({p, line.name_bytes});
    repeated |= present & bit;
    present |= bit;
    out->name = {p, line.name_bytes};
    out->value = value;
    out->id = line.id;
    out->line_bytes = line_bytes;
    ++out;
    lower_name(p, line.upper);
    p += line.bytes;
  }
  head->headers.filled(static_cast<uint32_t>(out - storage), present, repeated, guarded);
  head->content_length = noted->length;
  return Step::kOk;
}

// Framing rules that hold for both directions (RFC 9112 6.1 to 6.3, in the order of Envoy's codec).
template <class Head>
H1Error check_framing(const H1Limits& limits, const Noted& noted, Version version, Head* head) {
  if (!noted.length_is_number) return H1Error::kBadContentLength;
  if (noted.content_lengths > 1) return H1Error::kRepeatedContentLength;
  if (noted.transfer_encodings == 0) return H1Error::kNone;
  const bool one_chunked = noted.transfer_encodings == 1 && noted.chunked;
  if (noted.content_lengths != 0) {
    if (!one_chunked || !limits.allow_chunked_length) return H1Error::kLengthAndChunked;
    head->headers.remove(HeaderId::kContentLength);
  }
  if (!one_chunked) return H1Error::kBadTransferEncoding;
  if (version == Version::kHttp10) return H1Error::kTransferEncodingHttp10;
  return H1Error::kNone;
}

// Envoy's sanitizeConnectionHeader for one connection field: removes what it nominates. False: the request is refused.
constexpr uint32_t kMaxNominated = 10;  // that many tokens are refused
constexpr size_t kMaxNominatedTeBytes = 256;
constexpr size_t kMaxTokenBytes = 64;  // a longer token names no field we would meet; names are compared lower case

bool remove_nominated(std::string_view list, uint32_t* tokens, HeaderTable* headers) {
  if (is_text(list, "keep-alive") || is_text(list, "close")) return ++*tokens < kMaxNominated;  // as nearly always
  size_t at = 0;
  while (at <= list.size()) {
    const size_t comma = list.find(',', at);
    std::string_view token = list.substr(at, comma == std::string_view::npos ? comma : comma - at);
    at = comma == std::string_view::npos ? list.size() + 1 : comma + 1;
    if (token.empty()) continue;
    if (++*tokens >= kMaxNominated) return false;
    while (!token.empty() && (token.front() == ' ' || token.front() == '\t')) token.remove_prefix(1);
    while (!token.empty() && (token.back() == ' ' || token.back() == '\t')) token.remove_suffix(1);
    if (token.empty() || token.size() > kMaxTokenBytes) continue;
    if (token.front() == ':') return false;
    char lower[kMaxTokenBytes];
    for (size_t i = 0; i < token.size(); ++i) {
      const char c = token[i];
      lower[i] = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
    }
    const std::string_view name(lower, token.size());
    if (is_text(name, "close") || is_text(name, "keep-alive") || is_text(name, "http2-settings")) continue;
    const HeaderId id = header_id(name);
    if (id == HeaderId::kUpgrade || id == HeaderId::kConnection) continue;
    if (id == HeaderId::kXForwardedFor || id == HeaderId::kXForwardedHost || id == HeaderId::kXForwardedProto) return false;
    if (id == HeaderId::kTe && headers->has(HeaderId::kTe)) {
      if (headers->get(HeaderId::kTe).size() >= kMaxNominatedTeBytes) return false;
      if (list_has_token(headers->get(HeaderId::kTe), "trailers")) continue;  // forward.h leaves "te: trailers" alone of it
    }
    headers->remove(name);
  }
  return true;
}

H1Error sanitize_connection(RequestHead* head, bool host_seen, bool* host_nominated) {
  uint32_t tokens = 0;
  // The lists are copied out first: removing fields moves the table, not the bytes the views point to.
  std::string_view lists[kMaxNominated];
  uint32_t count = 0;
  for (const Header& h : head->headers)
    if (h.id == HeaderId::kConnection) {
      if (count == kMaxNominated) return H1Error::kConnectionNominated;
      lists[count++] = h.value;
    }
  *host_nominated = false;
  for (uint32_t i = 0; i < count; ++i) {
    if (!remove_nominated(lists[i], &tokens, &head->headers)) return H1Error::kConnectionNominated;
    if (host_seen && list_has_token(lists[i], "host")) *host_nominated = true;
  }
  return H1Error::kNone;
}

// RFC 9112 3.2: exactly one Host. With absolute and authority form it is checked, then replaced.
H1Error settle_host(const H1Limits& limits, const Noted& noted, bool host_nominated, RequestHead* head) {
  if (noted.hosts > 1) return H1Error::kRepeatedHost;
  if (!head->authority.empty()) return noted.hosts == 1 && !noted.host_is_valid ? H1Error::kBadHost : H1Error::kNone;
  if (noted.hosts == 1 && !host_nominated) {
    if (!noted.host_is_valid) return H1Error::kBadHost;
    head->authority = noted.host;
    head->host_line_bytes = noted.host_line_bytes;
    return H1Error::kNone;
  }
  if (head->version == Version::kHttp10 && !limits.default_host_for_http_10.empty()) {
    head->authority = limits.default_host_for_http_10;
    return H1Error::kNone;
  }
  return H1Error::kMissingHost;
}

H1Error finish_request(const H1Limits& limits, const Noted& noted, RequestHead* head) {
  HeaderTable& headers = head->headers;
  const bool connect = is_connect(*head);
  if (!noted.length_is_number) return H1Error::kBadContentLength;
  if (headers.has(HeaderId::kUpgrade) && head->version == Version::kHttp10) headers.remove(HeaderId::kUpgrade);  // RFC 9110 7.8
  if (headers.has(HeaderId::kUpgrade) && is_upgrade(headers) && equals_ignore_case(headers.get(HeaderId::kUpgrade), "h2c")) {
    headers.remove(HeaderId::kUpgrade);
    headers.remove(HeaderId::kHttp2Settings);
  }
  if (connect && noted.content_lengths == 1) {
    if (noted.length != 0) return H1Error::kContentLengthConnect;
    headers.remove(HeaderId::kContentLength);
  }
  const H1Error framing = check_framing(limits, noted, head->version, head);
  if (framing != H1Error::kNone) return framing;
  if (connect && noted.transfer_encodings != 0) return H1Error::kTransferEncodingConnect;
  bool host_nominated = false;
  if (headers.has(HeaderId::kConnection) && !connect && !is_upgrade(headers)) {
    const H1Error e = sanitize_connection(head, noted.hosts != 0, &host_nominated);
    if (e != H1Error::kNone) return e;
  }
  const H1Error host = settle_host(limits, noted, host_nominated, head);
  if (host != H1Error::kNone) return host;
  if (is_text(head->method, "QUERY") && !headers.has(HeaderId::kContentType)) return H1Error::kQueryContentType;
  return H1Error::kNone;
}

H1Error finish_response(const H1Limits& limits, const Noted& noted, ResponseHead* head) {
  if (head->status < 200 || head->status == 204) {  // RFC 9112 6.1, RFC 9110 8.6
    if (noted.transfer_encodings != 0) return H1Error::kTransferEncodingNoBody;
    if (noted.content_lengths != 0) {
      if (!noted.length_is_number || noted.length != 0) return H1Error::kContentLengthNoBody;
      head->headers.remove(HeaderId::kContentLength);
      return H1Error::kNone;
    }
  }
  return check_framing(limits, noted, head->version, head);
}

HeadResult bad(H1Error e) { return {ParseStatus::kBad, e, 0}; }

// Common frame of both parsers: `start_line(reader, lines)` and `rest(reader, lines)` do the parts that differ.
template <class StartLine, class Rest>
HeadResult parse_head(std::span<char> bytes, size_t already_scanned, const H1Limits& limits, StartLine&& start_line,
                      Rest&& rest) {
  const size_t window = bytes.size() < limits.max_head_bytes ? bytes.size() : limits.max_head_bytes;
  const HeadResult partial = window < limits.max_head_bytes ? HeadResult{} : bad(H1Error::kHeadTooLarge);
  Reader r{bytes.data(), bytes.data() + window};
  if (already_scanned != 0 && find_head_end(bytes.first(window), already_scanned) == kNotFound) {
    // Still open. Only a start line that was completed just now can be judged; the fields wait, so that a head that comes in many
    // small pieces is not parsed many times.
    if (already_scanned < window) {
      const char* const base = bytes.data();
      const char* const lf = scan::find_lf(base + already_scanned, base + window);
      if (lf != base + window && scan::find_lf(base, base + already_scanned) == base + already_scanned) {
        if (start_line(r, nullptr) == Step::kBad) return bad(r.error);
      }
    }
    return partial;
  }
  const Window lines(r.p, r.end);
  Step s = start_line(r, &lines);
  if (s == Step::kOk) s = rest(r, lines);
  if (s == Step::kPartial) return partial;
  if (s == Step::kBad) return bad(r.error);
  return {ParseStatus::kDone, H1Error::kNone, static_cast<size_t>(r.p - bytes.data())};
}

}  // namespace

const H1ErrorInfo& info(H1Error e) {
  MILLRACE_ASSERT(e < H1Error::kCount, "an H1Error of the list");
  return kInfo[static_cast<size_t>(e)];
}

bool is_token(std::string_view s) {
  for (char c : s)
    if (scan::kTokenLower[static_cast<uint8_t>(c)] == 0) return false;
  return !s.empty();
}

size_t find_head_end(std::span<const char> bytes, size_t from) {
  const char* const base = bytes.data();
  const char* const end = base + bytes.size();
  const char* p = base;
  while (p != end && (*p == '\r' || *p == '\n') && p - base <= static_cast<ptrdiff_t>(kMaxLeadingNewlineBytes)) ++p;
  if (from > 3 && p < base + from - 3) p = base + from - 3;  // an LF of the last three bytes may begin the end
  while ((p = scan::find_lf(p, end)) != end) {
    ++p;
    if (p != end && *p == '\n') return static_cast<size_t>(p + 1 - base);
    if (end - p >= 2 && p[0] == '\r' && p[1] == '\n') return static_cast<size_t>(p + 2 - base);
  }
  return kNotFound;
}

HeadResult parse_request_head(std::span<char> bytes, size_t already_scanned, const H1Limits& limits, RequestHead* head) {
  head->method = head->path = head->authority = head->scheme = {};
  head->version = Version::kHttp11;
  head->start_line_bytes = head->host_line_bytes = 0;
  head->headers.clear();
  return parse_head(
      bytes, already_scanned, limits, [&](Reader& r, const Window* lines) { return r.request_line(lines, limits, head); },
      [&](Reader& r, const Window& lines) {
        Noted noted;
        const Step s = read_fields(r, lines, limits, true, head, &noted);
        if (s != Step::kOk) return s;
        const H1Error e = finish_request(limits, noted, head);
        return e == H1Error::kNone ? Step::kOk : r.bad(e);
      });
}

HeadResult parse_response_head(std::span<char> bytes, size_t already_scanned, const H1Limits& limits, ResponseHead* head) {
  head->status = 0;
  head->reason = {};
  head->version = Version::kHttp11;
  head->headers.clear();
  return parse_head(
      bytes, already_scanned, limits, [&](Reader& r, const Window* lines) { return r.status_line(lines, head); },
      [&](Reader& r, const Window& lines) {
        Noted noted;
        const Step s = read_fields(r, lines, limits, false, head, &noted);
        if (s != Step::kOk) return s;
        const H1Error e = finish_response(limits, noted, head);
        return e == H1Error::kNone ? Step::kOk : r.bad(e);
      });
}

H1Error parse_fields(std::span<char> bytes, uint32_t max_count, HeaderTable* table) {
  Reader r{bytes.data(), bytes.data() + bytes.size()};
  for (;;) {
    Header h;
    bool empty_line = false;
    const Step s = r.field(&h.name, &h.value, &empty_line);
    if (s == Step::kBad) return r.error;
    MILLRACE_ASSERT(s == Step::kOk, "a complete section was given");
    if (empty_line) return H1Error::kNone;
    h.id = header_id(h.name);
    if (table->size() == max_count || !table->push(h)) return H1Error::kTooManyTrailers;
  }
}

}  // namespace millrace::http
