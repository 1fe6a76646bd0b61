// RouteAction.hash_policy: what of a request decides on its endpoint, where the cluster balances by a hash. Included by
// objects.h.
#pragma once

#include <cstdint>

#include "lib/table/layout.h"

namespace millrace::table {

enum class HashPolicyKind : uint8_t { kHeader, kCookie, kSourceIp, kQueryParameter };
struct CookieAttribute {  // HashPolicy.CookieAttribute
  Str name, value;        // an empty value: the name stands alone
  template <class V>
  void refs(V& v) const {
    v(name);
    v(value);
  }
};
struct HashPolicy {
  Str name;  // of the header (lower case), cookie or query parameter
  Str path;  // kCookie
  Array<CookieAttribute> attributes;
  uint64_t ttl_s = 0;   // kCookie with has_ttl; 0: a cookie of the session
  uint8_t has_ttl = 0;  // a cookie is made for who has none
  uint8_t terminal = 0;
  uint8_t header = 0;  // kHeader: http::HeaderId of the name, 0 for names the gateway does not know
  HashPolicyKind kind = HashPolicyKind::kHeader;
  uint8_t reserved[4] = {};
  template <class V>
  void refs(V& v) const {
    v(name);
    v(path);
    v(attributes);
  }
};

}  // namespace millrace::table
