// Paths as routes and upstreams see them: forward.h's normalize_path.
#include <array>
#include <cstring>

#include "lib/http/forward.h"
#include "lib/http/h1_scan.h"

namespace millrace::http {

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}
// The byte that "%XY" at the front of s stands for, or -1.
int percent_byte(std::string_view s) {
  if (s.size() < 3 || s[0] != '%') return -1;
  const int high = hex_digit(s[1]), low = hex_digit(s[2]);
  return high < 0 || low < 0 ? -1 : high << 4 | low;
}
constexpr bool is_unreserved(int c) {  // RFC 3986 2.3
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '.' || c == '_' ||
         c == '~';
}
// Bytes that the URL standard's path percent-encode set adds to those no target can have.
constexpr bool must_encode(char c) {
  return c == '"' || c == '<' || c == '>' || c == '^' || c == '`' || c == '{' || c == '|' || c == '}' ||
         static_cast<uint8_t>(c) <= 0x20 || static_cast<uint8_t>(c) >= 0x7f;
}
// Bytes that normalisation may change.
constexpr bool is_interesting(char c) { return c == '%' || c == '\\' || c == '.' || must_encode(c); }
constexpr auto kInteresting = [] {
  std::array<bool, 256> t{};
  for (size_t c = 0; c < 256; ++c) t[c] = is_interesting(static_cast<char>(c));
  return t;
}();

// %2f and %5c become / and \ in place. True when there were any.
bool unescape_slashes(char* path, size_t* size) {
  size_t out = 0;
  for (size_t in = 0; in < *size;) {
    const int c = percent_byte({path + in, *size - in});
    if (c == '/' || c == '\\') {
      path[out++] = static_cast<char>(c);
      in += 3;
    } else {
      path[out++] = path[in++];
    }
  }
  const bool changed = out != *size;
  *size = out;
  return changed;
}
bool has_escaped_slash(std::string_view path) {
  for (size_t at = path.find('%'); at != std::string_view::npos; at = path.find('%', at + 1)) {
    const int c = percent_byte(path.substr(at));
    if (c == '/' || c == '\\') return true;
  }
  return false;
}

// RFC 3986 6.2.2: unreserved bytes decoded, odd bytes encoded, \ is /. `out` has room for three times path.size(). False: %00.
bool normalize_bytes(std::string_view path, char* out, size_t* size) {
  char* p = out;
  for (size_t i = 0; i < path.size();) {
    const char c = path[i];
    const int escaped = c == '%' ? percent_byte(path.substr(i)) : -1;
    if (escaped == 0) return false;
    if (escaped > 0 && is_unreserved(escaped)) {
      *p++ = static_cast<char>(escaped);
      i += 3;
      continue;
    }
    ++i;
    if (c == '\\') {
      *p++ = '/';
    } else if (must_encode(c)) {
      *p++ = '%';
      *p++ = "0123456789ABCDEF"[static_cast<uint8_t>(c) >> 4];
      *p++ = "0123456789ABCDEF"[static_cast<uint8_t>(c) & 15];
    } else {
      *p++ = c;
    }
  }
  *size = static_cast<size_t>(p - out);
  return true;
}

// RFC 3986 5.2.4 in place; path[0] is '/'. Empty segments are segments.
void remove_dot_segments(char* path, size_t* size) {
  size_t out = 0;
  for (size_t in = 0; in < *size;) {  // path[in] is '/', the segment lies behind it
    size_t end = in + 1;
    while (end < *size && path[end] != '/') ++end;
    const std::string_view segment(path + in + 1, end - in - 1);
    const bool last = end == *size;
    if (segment == "." || segment == "..") {
      if (segment == ".." && out != 0)
        while (path[--out] != '/') {
        }
      if (last) path[out++] = '/';
    } else {
      path[out++] = '/';
      for (char c : segment) path[out++] = c;
    }
    in = end;
  }
  *size = out;
}

void merge_slashes(char* path, size_t* size) {
  size_t out = 0;
  for (size_t in = 0; in < *size; ++in)
    if (path[in] != '/' || out == 0 || path[out - 1] != '/') path[out++] = path[in];
  *size = out;
}

// What a path (and its query) may have that matters here.
struct PathBytes {
  bool hash = false;
  bool odd = false;  // false: no byte is interesting and no slash follows another. True: there may be such.
};

PathBytes look_at_each(std::string_view path) {
  PathBytes found;
  char before = 0;
  for (char c : path) {
    found.hash |= c == '#';
    found.odd |= kInteresting[static_cast<uint8_t>(c)] || (c == '/' && before == '/');
    before = c;
  }
  return found;
}

#if defined(MILLRACE_HTTP_WINDOW)
constexpr scan::Constant plain_table(bool rows) {
  std::array<uint8_t, 16> column{}, row = {0, 0, 1, 2, 4, 8, 16, 32};
  for (uint32_t c = 0x21; c < 0x7f; ++c)
    if (!is_interesting(static_cast<char>(c))) column[c & 15] = static_cast<uint8_t>(column[c & 15] | row[c >> 4]);
  scan::Constant k;
  for (size_t i = 0; i < 32; ++i) k.bytes[i] = (rows ? row : column)[i & 15];
  return k;
}
constexpr scan::Constant kPlainColumn = plain_table(false), kPlainRow = plain_table(true);

PathBytes look_at(std::string_view path) {
  if (path.size() < scan::kLeastForPieces) return look_at_each(path);
  PathBytes found;
  scan::for_each_piece(path, [&](__m256i x) {
    const uint32_t slashes = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(x, _mm256_set1_epi8('/'))));
    found.hash |= _mm256_movemask_epi8(_mm256_cmpeq_epi8(x, _mm256_set1_epi8('#'))) != 0;
    found.odd |= (scan::zero_bytes(scan::nibble_hits(x, kPlainColumn, kPlainRow)) | (slashes & (slashes >> 1))) != 0;
  });
  return found;
}
bool has_hash(std::string_view path) {
  if (path.size() < scan::kLeastForPieces) return look_at_each(path).hash;
  const __m256i hash = _mm256_set1_epi8('#');
  __m256i found = _mm256_setzero_si256();
  scan::for_each_piece(path, [&](__m256i x) { found = _mm256_or_si256(found, _mm256_cmpeq_epi8(x, hash)); });
  return _mm256_movemask_epi8(found) != 0;
}
#else
PathBytes look_at(std::string_view path) { return look_at_each(path); }
bool has_hash(std::string_view path) { return path.find('#') != std::string_view::npos; }
#endif

}  // namespace

PathVerdict normalize_path(RequestHead* head, const ForwardOptions& options, Scratch& scratch) {
  const std::string_view whole = head->path;
  if (whole.empty()) return PathVerdict::kContinue;
  if (whole.front() != '/') return PathVerdict::kNotRelative;
  const bool asked =
      options.normalize_path || options.merge_slashes || options.escaped_slashes != EscapedSlashesAction::kKeepUnchanged;
  if (!asked) return has_hash(whole) ? PathVerdict::kReject : PathVerdict::kContinue;
  const PathBytes bytes = look_at(whole);
  if (bytes.hash) return PathVerdict::kReject;
  if (!bytes.odd) return PathVerdict::kContinue;
  const std::string_view path = whole.substr(0, whole.find('?'));
  const std::string_view query = whole.substr(path.size());

  bool escaped = false;
  if (options.escaped_slashes != EscapedSlashesAction::kKeepUnchanged) {
    escaped = has_escaped_slash(path);
    if (escaped && options.escaped_slashes == EscapedSlashesAction::kReject) return PathVerdict::kReject;
  }
  bool interesting = escaped || (options.merge_slashes && path.find("//") != std::string_view::npos);
  if (options.normalize_path && !interesting)
    for (char c : path) interesting = interesting || kInteresting[static_cast<uint8_t>(c)];
  if (!interesting) return PathVerdict::kContinue;

  // Two runs of at most three times the path: one for the unescaped bytes, one for the result. The first goes back.
  const size_t room = (options.normalize_path ? 3 : 1) * path.size() + query.size();
  char* const out = scratch.allocate(room);
  char* const raw = scratch.allocate(path.size());
  if (raw == nullptr) return PathVerdict::kReject;
  size_t raw_size = path.copy(raw, path.size());
  if (escaped) unescape_slashes(raw, &raw_size);
  size_t size = 0;
  bool good = true;
  if (options.normalize_path) {
    good = normalize_bytes({raw, raw_size}, out, &size);
    if (good) remove_dot_segments(out, &size);
  } else {
    size = std::string_view(raw, raw_size).copy(out, raw_size);
  }
  if (good && options.merge_slashes) merge_slashes(out, &size);
  scratch.give_back(path.size());
  if (!good) {
    scratch.give_back(room);
    return PathVerdict::kReject;
  }
  size += query.copy(out + size, query.size());
  scratch.give_back(room - size);
  head->path = {out, size};
  return escaped && options.escaped_slashes == EscapedSlashesAction::kUnescapeAndRedirect ? PathVerdict::kRedirect
                                                                                          : PathVerdict::kContinue;
}

}  // namespace millrace::http
