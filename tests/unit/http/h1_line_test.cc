// The vector scan of field lines against a reader that looks at one byte after the other, on random heads that are nearly right;
// and what the parser notes about lines ("as written", repeated, guarded) against what it means.
#include <cstdlib>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "lib/http/connection.h"
#include "lib/http/forward.h"
#include "lib/http/h1_parser.h"
#include "lib/http/h1_writer.h"
#include "tests/support/guard_page.h"
#include "tests/support/seed.h"

namespace millrace::http {
namespace {

using namespace std::string_view_literals;

struct Field {
  std::string name, value;
};
struct Reading {
  ParseStatus status = ParseStatus::kPartial;
  H1Error error = H1Error::kNone;
  size_t consumed = 0;
  std::vector<Field> fields;
};

bool is_tchar(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
         "!#$%&'*+-.^_`|~"sv.find(c) != std::string_view::npos;
}
bool is_blank(char c) { return c == ' ' || c == '\t'; }
bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

// RFC 9112 5 as README.md has it, from `at` on.
Reading read_plainly(std::string_view b, size_t at) {
  Reading r;
  const auto bad = [&](H1Error e) {
    r.status = ParseStatus::kBad;
    r.error = e;
    return r;
  };
  while (at < b.size()) {
    const size_t start = at;
    const bool empty = b[at] == '\r' || b[at] == '\n';
    Field f;
    if (!empty) {
      for (; at < b.size() && is_tchar(b[at]); ++at)
        f.name += b[at] >= 'A' && b[at] <= 'Z' ? static_cast<char>(b[at] + 32) : b[at];
      if (at == b.size()) return r;
      if (b[at] != ':') {
        if (at == start && is_blank(b[at])) return bad(H1Error::kObsFold);
        if (b[at] == '\r' || b[at] == '\n') return bad(H1Error::kMissingColon);
        return bad(is_control(b[at]) && b[at] != '\t' ? H1Error::kControlInName : H1Error::kBadName);
      }
      if (at == start) return bad(H1Error::kEmptyName);
      for (++at; at < b.size() && is_blank(b[at]);) ++at;
      for (; at < b.size() && (!is_control(b[at]) || b[at] == '\t'); ++at) f.value += b[at];
      while (!f.value.empty() && is_blank(f.value.back())) f.value.pop_back();
    }
    if (at == b.size()) return r;
    if (b[at] == '\r') {
      if (at + 1 == b.size()) return r;
      if (b[at + 1] != '\n') return bad(H1Error::kBareCr);
      at += 2;
    } else if (b[at] == '\n') {
      ++at;
    } else {
      return bad(H1Error::kBadValue);
    }
    if (empty) {
      r.status = ParseStatus::kDone;
      r.consumed = at;
      return r;
    }
    r.fields.push_back(f);
  }
  return r;
}

HeaderId id_of(std::string_view name) {
  for (size_t i = 1; i < static_cast<size_t>(HeaderId::kCount); ++i)
    if (header_name(static_cast<HeaderId>(i)) == name) return static_cast<HeaderId>(i);
  return HeaderId::kOther;
}

std::string write_plainly(const ResponseHead& head) {
  std::string s = "HTTP/1.1 " + std::to_string(head.status) + " " + std::string(reason_phrase(head.status)) + "\r\n";
  for (const Header& h : head.headers) s += std::string(h.name) + ": " + std::string(h.value) + "\r\n";
  return s + "\r\n";
}
std::string write_plainly(const RequestHead& head) {
  std::string s =
      std::string(head.method) + " " + std::string(head.path) + " HTTP/1.1\r\nhost: " + std::string(head.authority) + "\r\n";
  for (const Header& h : head.headers) s += std::string(h.name) + ": " + std::string(h.value) + "\r\n";
  return s + "\r\n";
}

class Lines : public testing::Test {
 protected:
  Lines() {
    seed_ = support::run_seed();
    random_.seed(seed_);
  }
  size_t below(size_t n) { return random_() % n; }
  bool one_in(size_t n) { return below(n) == 0; }

  std::string name() {
    std::string s;
    if (one_in(2)) {
      do s = header_name(static_cast<HeaderId>(1 + below(static_cast<size_t>(HeaderId::kCount) - 1)));
      while (s == "host" || s == "content-length" || s == "transfer-encoding" || s == "connection" || s == "upgrade");
      if (one_in(8)) s[below(s.size())] = 'q';
      if (one_in(8)) s.resize(1 + below(s.size()));
      if (one_in(16)) s = "x-envoy-" + s;
    } else {
      const size_t n = one_in(4) ? 1 + below(70) : 1 + below(20);
      for (size_t i = 0; i < n; ++i) s += "abcdefghijklmnopqrstuvwxyz-_0123456789!#$%&'*+.^`|~"[below(51)];
    }
    if (s == "host" || s == "content-length" || s == "transfer-encoding" || s == "connection" || s == "upgrade") s += 'x';
    for (char& c : s)
      if (c >= 'a' && c <= 'z' && one_in(5)) c = static_cast<char>(c - 32);
    return s;
  }
  std::string value() {
    std::string s;
    const size_t n = one_in(8) ? 0 : one_in(4) ? below(200) : below(40);
    for (size_t i = 0; i < n; ++i) s += one_in(10) ? static_cast<char>(0x80 + below(128)) : static_cast<char>(0x20 + below(95));
    return s;
  }
  std::string fields() {
    std::string s;
    for (size_t n = below(8); n > 0; --n) {
      const char* const gap = one_in(10) ? (one_in(2) ? "" : one_in(2) ? "\t" : "  ") : " ";
      const char* const tail = one_in(20) ? (one_in(2) ? " " : "\t ") : "";
      s += name() + ":" + gap + value() + tail + (one_in(20) ? "\n" : "\r\n");
    }
    s += one_in(10) ? "\n" : "\r\n";
    if (one_in(3))  // a byte that is another one, is too many or is missing
      for (size_t edits = 1 + below(2); edits > 0 && !s.empty(); --edits) {
        const char c = one_in(2) ? "\r\n: \t\0\x7f"[below(7)] : static_cast<char>(below(256));
        const size_t at = below(s.size());
        if (one_in(3)) s.erase(at, 1);
        else if (one_in(2)) s.insert(at, 1, c);
        else s[at] = c;
      }
    if (one_in(4)) s.resize(below(s.size() + 1));
    if (one_in(4)) s += "GET / HTTP/1.1\r\nfollowing: bytes\r\n\r\n";
    return s;
  }

  // The table is what was read, and every note about it is true.
  void expect_table(const HeaderTable& table, const std::vector<Field>& fields) {
    ASSERT_EQ(table.size(), fields.size());
    uint64_t present = 0, repeated = 0;
    for (uint32_t i = 0; i < table.size(); ++i) {
      const Header& h = table[i];
      ASSERT_EQ(h.name, fields[i].name);
      ASSERT_EQ(h.value, fields[i].value);
      ASSERT_EQ(h.id, id_of(h.name));
      repeated |= present & bit_of(h.id);
      present |= bit_of(h.id);
      const bool guarded = h.id == HeaderId::kOther && (h.name.starts_with("x-envoy-") || h.name == "x-forwarded-client-cert");
      ASSERT_TRUE(!guarded || table.may_have_guarded_names());
      if (h.is_line()) {
        ++as_written_;
        ASSERT_EQ(std::string_view(h.name.data(), h.line_bytes), std::string(h.name) + ": " + std::string(h.value) + "\r\n");
      }
    }
    ASSERT_EQ(table.present(), present);
    ASSERT_EQ(table.repeated(), repeated);
  }
  // Something happens to the table on its way.
  void edit(HeaderTable& table) {
    for (size_t n = below(4); n > 0; --n) {
      const auto id = static_cast<HeaderId>(1 + below(static_cast<size_t>(HeaderId::kCount) - 1));
      if (id == HeaderId::kContentLength) continue;
      if (one_in(2)) table.remove(id);
      else table.set(id, "new value of some length"sv.substr(0, below(20)));
      if (table.size() != 0 && one_in(4)) table[0].value = table[0].value.substr(0, table[0].value.size() / 2);
    }
  }
  template <class Write>
  void expect_written(const std::string& expected, Write&& write) {
    std::string out(expected.size() + 100, '?');
    const size_t room = one_in(3) ? below(expected.size() + 1) : expected.size() + below(100);
    const size_t n = write(std::span<char>(out.data(), room));
    ASSERT_EQ(n, expected.size());
    ASSERT_EQ(std::string_view(out).substr(room), std::string(out.size() - room, '?')) << "written outside";
    if (n <= room) {
      ASSERT_EQ(std::string_view(out).substr(0, n), expected);
    }
  }

  std::span<char> at_the_edge(std::string_view text) {  // the byte behind it cannot be read
    const base::MutableByteSpan placed = guard_.place(base::as_bytes(text));
    return {reinterpret_cast<char*>(placed.data()), placed.size()};
  }

  uint64_t seed_ = 0;
  support::GuardPage guard_{16 * 1024};
  std::mt19937_64 random_;
  size_t as_written_ = 0;
  Header storage_[64];
};

TEST_F(Lines, AreReadAsByteByByte) {
  SCOPED_TRACE("MILLRACE_SEED=" + std::to_string(seed_));
  size_t done = 0, bad = 0, partial = 0;
  for (int round = 0; round < 30000; ++round) {
    const bool request = one_in(2);
    std::string start = request
                            ? (one_in(8) ? "POST  /p\tHTTP/1.1\n" : "GET /a/path/that/may/be/longer?than=a&vector HTTP/1.1\r\n")
                            : (one_in(8)   ? "HTTP/1.1 200  OK \n"
                               : one_in(3) ? "HTTP/1.1 404 Not Found\r\n"
                                           : "HTTP/1.1 200 OK\r\n");
    const size_t hosted = start.size();
    if (request) start += "Host: example.org\r\n";
    const std::string text = start + fields();
    const Reading expected = read_plainly(text, start.size());
    const std::span<char> bytes = at_the_edge(text);
    SCOPED_TRACE(testing::PrintToString(text));
    HeadResult r;
    if (request) {
      RequestHead head;
      head.headers = HeaderTable(storage_, 64);
      r = parse_request_head(bytes, 0, {}, &head);
      if (r.status == ParseStatus::kDone && r.status == expected.status) {
        ASSERT_EQ(head.authority, "example.org");
        expect_table(head.headers, expected.fields);
        edit(head.headers);
        if (one_in(4)) head.authority = "example.com";
        if (one_in(4)) head.path = head.path.substr(0, 1);
        const std::string whole = write_plainly(head);
        expect_written(whole, [&](std::span<char> out) { return write_request_head(head, {Framing::kTunnel, 0}, out); });
      }
    } else {
      ResponseHead head;
      head.headers = HeaderTable(storage_, 64);
      r = parse_response_head(bytes, 0, {}, &head);
      if (r.status == ParseStatus::kDone && r.status == expected.status) {
        expect_table(head.headers, expected.fields);
        edit(head.headers);
        const std::string whole = write_plainly(head);
        expect_written(whole, [&](std::span<char> out) { return write_response_head(head, {{Framing::kTunnel, 0}}, out); });
      }
    }
    ASSERT_EQ(r.status, expected.status) << info(r.error).name << hosted;
    ASSERT_EQ(r.error, expected.error);
    ASSERT_EQ(r.consumed, expected.consumed);
    if (HasFatalFailure()) return;
    (r.status == ParseStatus::kDone ? done : r.status == ParseStatus::kBad ? bad : partial)++;
  }
  EXPECT_GT(done, 10000u);
  EXPECT_GT(bad, 2000u);
  EXPECT_GT(partial, 2000u);
  EXPECT_GT(as_written_, 10000u);
}

// The answer depends neither on where in a vector a byte is nor on how much follows.
TEST_F(Lines, EveryByteAtEveryPlaceOfAShortLine) {
  for (size_t behind : {size_t{0}, size_t{80}})
    for (size_t place = 0; place < 40; ++place)
      for (int byte = 0; byte < 256; ++byte) {
        std::string line = "x-name-" + std::string(9, 'n') + ": value-" + std::string(15, 'v') + "\r\n";
        if (place >= line.size()) continue;
        line[place] = static_cast<char>(byte);
        const std::string text = "HTTP/1.1 200 OK\r\n" + line + "\r\n" + std::string(behind, 'z');
        const Reading expected = read_plainly(text, 17);
        ResponseHead head;
        head.headers = HeaderTable(storage_, 64);
        const HeadResult r = parse_response_head(at_the_edge(text), 0, {}, &head);
        ASSERT_EQ(r.status, expected.status) << place << " " << byte;
        ASSERT_EQ(r.error, expected.error) << place << " " << byte;
        if (r.status == ParseStatus::kDone) expect_table(head.headers, expected.fields);
        if (HasFatalFailure()) return;
      }
}

TEST_F(Lines, NothingIsPartial) {
  for (std::string_view nothing : {std::string_view{}, "a"sv.substr(1)}) {
    RequestHead request;
    request.headers = HeaderTable(storage_, 64);
    ResponseHead response;
    response.headers = HeaderTable(storage_, 64);
    const std::span<char> none(const_cast<char*>(nothing.data()), nothing.size());
    EXPECT_EQ(parse_request_head(none, 0, {}, &request).status, ParseStatus::kPartial);
    EXPECT_EQ(parse_response_head(none, 0, {}, &response).status, ParseStatus::kPartial);
  }
}

TEST_F(Lines, PathsAreLookedAtWhole) {  // every length, every place: '#' is refused, "//" merged
  char memory[1024];
  ForwardOptions merging;
  merging.merge_slashes = true;
  for (size_t n = 1; n < 100; ++n)
    for (size_t place = 1; place < n; ++place) {
      std::string path = "/" + std::string(n - 1, 'a');
      RequestHead head;
      head.path = path;
      Scratch scratch(memory);
      ASSERT_EQ(normalize_path(&head, merging, scratch), PathVerdict::kContinue);
      ASSERT_EQ(head.path.data(), path.data());
      path[place] = '#';
      ASSERT_EQ(normalize_path(&head, merging, scratch), PathVerdict::kReject) << n << " " << place;
      ASSERT_EQ(normalize_path(&head, {}, scratch), PathVerdict::kReject) << n << " " << place;
      path[place] = path[place - 1] = '/';
      std::string merged;
      for (char c : path)
        if (c != '/' || !merged.ends_with('/')) merged += c;
      ASSERT_EQ(normalize_path(&head, merging, scratch), PathVerdict::kContinue);
      ASSERT_EQ(head.path, merged) << n << " " << place;
    }
}

TEST_F(Lines, Uuids) {
  SCOPED_TRACE("MILLRACE_SEED=" + std::to_string(seed_));
  for (int round = 0; round < 1000; ++round) {
    const uint64_t random[2] = {random_(), random_()};
    char digits[33];
    std::snprintf(digits, sizeof digits, "%016llx%016llx",
                  static_cast<unsigned long long>((random[0] & ~uint64_t{0xf000}) | 0x4000),
                  static_cast<unsigned long long>((random[1] & ~(uint64_t{3} << 62)) | uint64_t{2} << 62));
    const std::string d = digits;
    char out[kUuidBytes];
    format_uuid(random, out);
    ASSERT_EQ(std::string_view(out, kUuidBytes),
              d.substr(0, 8) + "-" + d.substr(8, 4) + "-" + d.substr(12, 4) + "-" + d.substr(16, 4) + "-" + d.substr(20));
  }
}

TEST_F(Lines, Decimals) {
  char memory[32];
  for (uint64_t power = 1, digits = 1; digits <= 20; ++digits, power *= 10)
    for (uint64_t v : {power - 1, power, power + 1, power * 9}) {
      Scratch scratch(memory);
      ASSERT_EQ(scratch.decimal(v), std::to_string(v));
      Scratch tight(std::span<char>(memory, std::to_string(v).size()));
      ASSERT_EQ(tight.decimal(v), std::to_string(v));
    }
  Scratch scratch(memory);
  EXPECT_EQ(scratch.decimal(UINT64_MAX), std::to_string(UINT64_MAX));
}

}  // namespace
}  // namespace millrace::http
