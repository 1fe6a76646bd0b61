// RouteAction.hash_policy: the hash of a request that decides on its endpoint, bit by bit Envoy's (Http::HashPolicyImpl).
#pragma once

#include <cstdint>
#include <string_view>

#include "lib/http/message.h"
#include "lib/table/objects.h"

namespace millrace::route {

struct RequestHash {
  uint64_t value = 0;
  bool known = false;  // some policy has said something
  // What a further policy says. The rotation keeps two equal ones from cancelling each other out.
  void add(uint64_t h) {
    value = (known ? value << 1 | value >> 63 : 0) ^ h;
    known = true;
  }
};

enum class PolicyAnswer : uint8_t {
  kNothing,  // the request has nothing of the kind
  kHash,
  kMakeCookie,  // the request has no such cookie, and is to be given one, whose value is hashed
};
// What one policy says of a request. `object`: what the policy lies in. `client_ip`: as Envoy writes it, for source_ip; empty:
// not known. Of a header that is there more than kMostHashedValues times, the rest does not count. No allocation.
inline constexpr uint32_t kMostHashedValues = 64;
PolicyAnswer ask_policy(const void* object, const table::HashPolicy& policy, const http::RequestHead& head,
                        std::string_view client_ip, uint64_t* hash);

// The value of the first cookie of that name; empty: none. Without the quotes it may have.
std::string_view cookie_value(const http::HeaderTable& headers, std::string_view name);

}  // namespace millrace::route
