// The names of HeaderId as the parser and the writer want them: found by a perfect hash, and laid out as the front of a field
// line ("name: "), so that one load compares a name and one store writes it. Internal to the codec.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "lib/http/message.h"
#include "lib/http/short_bytes.h"

namespace millrace::http::names {

inline constexpr size_t kCount = static_cast<size_t>(HeaderId::kCount);
inline constexpr std::array<std::string_view, kCount> kNames = {"",
                                                                "host",
                                                                "connection",
                                                                "content-length",
                                                                "transfer-encoding",
                                                                "te",
                                                                "trailer",
                                                                "upgrade",
                                                                "expect",
                                                                "keep-alive",
                                                                "proxy-connection",
                                                                "content-type",
                                                                "user-agent",
                                                                "x-forwarded-for",
                                                                "x-forwarded-proto",
                                                                "x-forwarded-host",
                                                                "x-request-id",
                                                                "via",
                                                                "server",
                                                                "date",
                                                                "location",
                                                                "x-envoy-original-path",
                                                                "x-envoy-expected-rq-timeout-ms",
                                                                "x-envoy-upstream-service-time",
                                                                "x-envoy-upstream-rq-timeout-ms",
                                                                "x-envoy-overloaded",
                                                                "x-envoy-internal",
                                                                "x-envoy-external-address",
                                                                "grpc-timeout",
                                                                "grpc-status",
                                                                "cookie",
                                                                "authorization",
                                                                "referer",
                                                                "http2-settings",
                                                                "x-envoy-decorator-operation",
                                                                "x-forwarded-port",
                                                                "x-envoy-original-host",
                                                                "x-envoy-attempt-count",
                                                                "retry-after",
                                                                "origin"};
static_assert(kNames[0].empty() && !kNames.back().empty(), "one name for each HeaderId, in its order");

// "name: " in 32 bytes, zeros behind it.
inline constexpr size_t kPrefixBytes = 32;
inline constexpr size_t kMaxNameBytes = kPrefixBytes - 2;
struct alignas(kPrefixBytes) Prefix {
  std::array<char, kPrefixBytes> bytes{};
};
inline constexpr auto kPrefixes = [] {
  std::array<Prefix, kCount> t{};
  for (size_t i = 1; i < kCount; ++i) {
    for (size_t k = 0; k < kNames[i].size(); ++k) t[i].bytes[k] = kNames[i][k];
    t[i].bytes[kNames[i].size()] = ':';
    t[i].bytes[kNames[i].size() + 1] = ' ';
  }
  return t;
}();
static_assert(std::all_of(kNames.begin(), kNames.end(), [](std::string_view n) { return n.size() <= kMaxNameBytes; }));

// A perfect hash of a name folded to 8 bytes: its words of 8, the last one zero-padded, one over the other. The compiler searches
// for the multiplier.
struct Hash {
  uint64_t multiplier = 0;
  std::array<uint8_t, 256> slots{};
  constexpr uint8_t slot(uint64_t folded) const { return static_cast<uint8_t>(folded * multiplier >> 56); }
};
inline constexpr Hash kHash = [] {
  std::array<uint64_t, kCount> folded{};
  for (size_t i = 1; i < kCount; ++i)
    for (size_t at = 0; at < kNames[i].size(); at += 8) folded[i] ^= word_of(kNames[i].substr(at, 8));
  for (uint64_t seed = 0x9e3779b97f4a7c15;; seed = seed * 6364136223846793005 + 1442695040888963407) {
    Hash h{seed | 1, {}};
    bool good = true;
    for (size_t i = 1; i < kCount && good; ++i) {
      uint8_t& slot = h.slots[h.slot(folded[i])];
      good = slot == 0;
      slot = static_cast<uint8_t>(i);
    }
    if (good) return h;
  }
}();

}  // namespace millrace::http::names
