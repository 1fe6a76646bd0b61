// Why a request did not end well: one enum, made from the one list in response_flags.def, and a set of them as one word.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace millrace::stats {

enum class ResponseFlag : uint8_t {
#define RESPONSE_FLAG(symbol, short_name, long_name, text) symbol,
#include "lib/stats/response_flags.def"
#undef RESPONSE_FLAG
  kCount
};

inline constexpr uint32_t kResponseFlagCount = static_cast<uint32_t>(ResponseFlag::kCount);
static_assert(kResponseFlagCount <= 64, "one bit each in ResponseFlags");

struct ResponseFlagInfo {
  const char* short_name;  // "UH": what %RESPONSE_FLAGS% prints
  const char* long_name;   // "NoHealthyUpstream": what %RESPONSE_FLAGS_LONG% prints
  const char* text;        // one sentence for a person
};
// `f` outside the list gives an entry of "-" names (a record of another version).
const ResponseFlagInfo& info(ResponseFlag f);
// The flag of that short name; nullopt when there is none.
std::optional<ResponseFlag> response_flag_of(std::string_view short_name);

// A set of flags, as it travels in records (bit i is the flag of value i). Plain data.
struct ResponseFlags {
  uint64_t bits = 0;

  constexpr ResponseFlags() = default;
  constexpr ResponseFlags(ResponseFlag f) : bits(bit(f)) {}  // NOLINT: implicit by design
  static constexpr uint64_t bit(ResponseFlag f) { return uint64_t{1} << static_cast<uint8_t>(f); }
  constexpr void set(ResponseFlag f) { bits |= bit(f); }
  constexpr bool has(ResponseFlag f) const { return (bits & bit(f)) != 0; }
  constexpr bool empty() const { return bits == 0; }
  constexpr ResponseFlags operator|(ResponseFlags o) const {
    ResponseFlags r;
    r.bits = bits | o.bits;
    return r;
  }
  friend constexpr bool operator==(ResponseFlags, ResponseFlags) = default;

  // Longest text format() can give: 64 names of at most 5 characters and their commas.
  static constexpr size_t kMaxText = 64 * 6;
  // Envoy's form: "UF,URX" in bit order, "-" for none; bits outside the list are left out. Writes at most `capacity` bytes, whole
  // names only; returns the length. `of_request`: that the tries were spent (URX) comes first, as Envoy adds them to a request;
  // of a connection (tcp_proxy) it comes in its place.
  size_t format(char* out, size_t capacity, bool of_request = false) const;
};

}  // namespace millrace::stats
