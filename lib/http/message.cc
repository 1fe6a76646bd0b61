#include "lib/http/message.h"

#include <array>
#include <cstring>

namespace millrace::http {

namespace {

constexpr std::array<std::string_view, static_cast<size_t>(HeaderId::kCount)> kNames = {"",  // kOther
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
static_assert(!kNames.back().empty(), "one name for each HeaderId, in its order");

// A perfect hash of the names: length, first, middle and last two bytes, mixed by a multiplier that the compiler searches for.
constexpr uint32_t kSlotBits = 8;
constexpr uint32_t name_key(const char* p, size_t n) {
  return (static_cast<uint32_t>(n) ^ static_cast<uint32_t>(static_cast<uint8_t>(p[0])) << 1) |
         static_cast<uint32_t>(static_cast<uint8_t>(p[n > 1 ? n - 2 : 0])) << 8 |
         static_cast<uint32_t>(static_cast<uint8_t>(p[n / 2])) << 16 |
         static_cast<uint32_t>(static_cast<uint8_t>(p[n - 1])) << 24;
}
struct NameHash {
  uint32_t multiplier = 0;
  std::array<uint8_t, 1 << kSlotBits> slots{};
};
consteval NameHash make_name_hash() {
  for (uint32_t m = 0x9e3779b1;; m += 2) {
    NameHash h;
    h.multiplier = m;
    bool good = true;
    for (size_t i = 1; i < kNames.size() && good; ++i) {
      uint8_t& slot = h.slots[(name_key(kNames[i].data(), kNames[i].size()) * m) >> (32 - kSlotBits)];
      good = slot == 0;
      slot = static_cast<uint8_t>(i);
    }
    if (good) return h;
  }
}
constexpr NameHash kNameHash = make_name_hash();

}  // namespace

HeaderId header_id(std::string_view name) {
  if (name.empty()) return HeaderId::kOther;
  const uint8_t i = kNameHash.slots[(name_key(name.data(), name.size()) * kNameHash.multiplier) >> (32 - kSlotBits)];
  const std::string_view candidate = kNames[i];
  if (candidate.size() != name.size() || std::memcmp(candidate.data(), name.data(), name.size()) != 0) return HeaderId::kOther;
  return static_cast<HeaderId>(i);
}

std::string_view header_name(HeaderId id) { return kNames[static_cast<size_t>(id)]; }

const Header* HeaderTable::find(std::string_view lower_case_name) const {
  const HeaderId id = header_id(lower_case_name);
  if (!has(id)) return nullptr;
  for (const Header& h : *this)
    if (h.id == id && (id != HeaderId::kOther || h.name == lower_case_name)) return &h;
  return nullptr;
}

uint32_t HeaderTable::remove(std::string_view lower_case_name) {
  const HeaderId id = header_id(lower_case_name);
  if (id != HeaderId::kOther) return remove(id);
  if (!has(id)) return 0;
  return remove_if([&](const Header& h) { return h.id == HeaderId::kOther && h.name == lower_case_name; });
}

uint32_t HeaderTable::remove(HeaderId id) {
  if (!has(id)) return 0;
  return remove_if([&](const Header& h) { return h.id == id; });
}

bool HeaderTable::set(HeaderId id, std::string_view value) {
  MILLRACE_ASSERT(id != HeaderId::kOther, "set() is for known names");
  if (!has(id)) return push({header_name(id), value, id});
  bool first = true;
  remove_if([&](const Header& h) {
    if (h.id != id) return false;
    if (!first) return true;
    first = false;
    const_cast<Header&>(h).value = value;  // storage is the caller's and mutable; the predicate's const is for other users
    return false;
  });
  return true;
}

}  // namespace millrace::http
