#include "lib/route/request_hash.h"

#include <algorithm>
#include <array>

#include "lib/base/ascii.h"
#include "lib/base/xxhash64.h"
#include "lib/route/matcher_impl.h"

namespace millrace::route {

namespace {

PolicyAnswer hash_header(const void* object, const table::HashPolicy& policy, const http::RequestHead& head, uint64_t* hash) {
  const auto one = [&](std::string_view value) {
    if (value.empty()) return PolicyAnswer::kNothing;
    *hash = base::xxhash64(value);
    return PolicyAnswer::kHash;
  };
  switch (policy.header) {
    case table::kPseudoMethod:
      return one(head.method);
    case table::kPseudoPath:
      return one(head.path);
    case table::kPseudoAuthority:
      return one(head.authority);
    case table::kPseudoScheme:
      return one(head.scheme);
    default:
      break;
  }
  const std::string_view name = table::view(object, policy.name);
  std::array<std::string_view, kMostHashedValues> values;
  uint32_t n = 0;
  for (const http::Header& h : head.headers)
    if (n < kMostHashedValues && static_cast<uint8_t>(h.id) == policy.header &&
        (h.id != http::HeaderId::kOther || base::iequals(h.name, name)))
      values[n++] = h.value;
  if (n == 0) return PolicyAnswer::kNothing;
  std::sort(values.begin(), values.begin() + n);  // the order in which they come does not matter
  *hash = 0;
  for (uint32_t i = 0; i < n; ++i) *hash = base::xxhash64(values[i], *hash);
  return PolicyAnswer::kHash;
}

}  // namespace

std::string_view cookie_value(const http::HeaderTable& headers, std::string_view name) {
  if (!headers.has(http::HeaderId::kCookie)) return {};
  for (const http::Header& h : headers) {
    if (h.id != http::HeaderId::kCookie) continue;
    std::string_view rest = h.value;
    while (!rest.empty()) {
      const size_t end = std::min(rest.find(';'), rest.size());
      std::string_view pair = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      pair.remove_prefix(std::min(pair.find_first_not_of(' '), pair.size()));
      const size_t equal = pair.find('=');
      if (equal == std::string_view::npos || pair.substr(0, equal) != name) continue;
      std::string_view value = pair.substr(equal + 1);
      if (value.size() >= 2 && value.front() == '"' && value.back() == '"') value = value.substr(1, value.size() - 2);
      return value;
    }
  }
  return {};
}

PolicyAnswer ask_policy(const void* object, const table::HashPolicy& policy, const http::RequestHead& head,
                        std::string_view client_ip, uint64_t* hash) {
  switch (policy.kind) {
    case table::HashPolicyKind::kHeader:
      return hash_header(object, policy, head, hash);
    case table::HashPolicyKind::kCookie: {
      const std::string_view value = cookie_value(head.headers, table::view(object, policy.name));
      if (value.empty()) return policy.has_ttl != 0 ? PolicyAnswer::kMakeCookie : PolicyAnswer::kNothing;
      *hash = base::xxhash64(value);
      return PolicyAnswer::kHash;
    }
    case table::HashPolicyKind::kSourceIp:
      if (client_ip.empty()) return PolicyAnswer::kNothing;
      *hash = base::xxhash64(client_ip);
      return PolicyAnswer::kHash;
    case table::HashPolicyKind::kQueryParameter: {
      std::string_view value;
      if (!first_query_value(head.path, table::view(object, policy.name), &value)) return PolicyAnswer::kNothing;
      *hash = base::xxhash64(value);
      return PolicyAnswer::kHash;
    }
  }
  return PolicyAnswer::kNothing;
}

}  // namespace millrace::route
