#include "lib/compress/accept_encoding.h"

#include <charconv>

#include "lib/base/ascii.h"

namespace millrace::compress {
namespace {

constexpr std::string_view kBlanks = " \t\f\v\n\r";

std::string_view trim(std::string_view s) {
  const size_t from = s.find_first_not_of(kBlanks);
  if (from == std::string_view::npos) return {};
  return s.substr(from, s.find_last_not_of(kBlanks) - from + 1);
}

// A number as people write it; Envoy takes anything that strtof would, signs and exponents included.
bool parse_q(std::string_view s, float* q) {
  s = trim(s);
  if (s.starts_with('+')) {
    s.remove_prefix(1);
    if (s.starts_with('-') || s.starts_with('+')) return false;
  }
  if (s.empty()) return false;
  const auto r = std::from_chars(s.data(), s.data() + s.size(), *q);
  if (r.ptr != s.data() + s.size()) return false;
  if (r.ec == std::errc::result_out_of_range) {
    *q = 0;
    return true;
  }
  return r.ec == std::errc();
}

// "gzip;q=0.5" in pieces. False: its weight is no number, and Envoy passes over it.
bool parse_token(std::string_view token, std::string_view* name, float* q) {
  const size_t semicolon = token.find(';');
  *name = trim(token.substr(0, semicolon));
  *q = 1;
  if (semicolon == std::string_view::npos) return true;
  const std::string_view parameters = token.substr(semicolon + 1);
  const size_t equals = parameters.find('=');
  if (equals == std::string_view::npos) return true;
  const std::string_view key = trim(parameters.substr(0, equals));
  if (key != "q" && key != "Q") return true;
  return parse_q(parameters.substr(equals + 1), q);
}

template <class F>
void for_each_token(std::string_view field, F&& f) {
  while (!field.empty()) {
    const size_t comma = field.find(',');
    const std::string_view token = field.substr(0, comma);
    field.remove_prefix(comma == std::string_view::npos ? field.size() : comma + 1);
    std::string_view name;
    float q;
    if (!token.empty() && parse_token(token, &name, &q)) f(name, q);
  }
}

// The filters by codec: the first of each counts.
struct Allowed {
  bool there[kCodecs] = {}, first[kCodecs] = {};
  uint8_t order[kCodecs] = {};

  int find(std::string_view name) const {
    for (uint32_t c = 0; c < kCodecs; ++c)
      if (there[c] && content_encoding(static_cast<Codec>(c)) == name) return static_cast<int>(c);
    return -1;
  }
  bool none() const { return !there[0] && !there[1] && !there[2]; }
  Codec earliest() const {
    uint32_t best = kCodecs;
    for (uint32_t c = 0; c < kCodecs; ++c)
      if (there[c] && (best == kCodecs || order[c] < order[best])) best = c;
    return static_cast<Codec>(best);
  }
};

}  // namespace

Decision choose_encoding(std::string_view field, std::span<const Candidate> candidates) {
  Allowed allowed;
  uint8_t order = 0;
  for (const Candidate& c : candidates) {
    const auto i = static_cast<uint32_t>(c.codec);
    if (allowed.there[i]) continue;
    allowed.there[i] = true;
    allowed.first[i] = c.choose_first;
    allowed.order[i] = order++;
  }
  bool any = false;
  for_each_token(field, [&](std::string_view name, float q) {
    any = true;
    const int c = q == 0 ? allowed.find(name) : -1;
    if (c >= 0) allowed.there[c] = false;
  });
  if (!any || allowed.none()) return {};

  float best = 0;
  Decision d{Choice::kIdentity, false, Codec::kGzip};
  for_each_token(field, [&](std::string_view name, float q) {
    const int c = allowed.find(name);
    const bool identity = name == "identity", wildcard = name == "*";
    if (c < 0 && !identity && !wildcard) return;
    if (!(q > best || (q == best && c >= 0 && allowed.first[c]))) return;
    best = q;
    if (c >= 0) d = {Choice::kCoding, true, static_cast<Codec>(c)};
    else d = {wildcard ? Choice::kWildcard : Choice::kIdentity, false, Codec::kGzip};
  });
  if (best == 0) return {};
  if (d.choice == Choice::kWildcard) d = {Choice::kWildcard, true, allowed.earliest()};
  return d;
}

}  // namespace millrace::compress
