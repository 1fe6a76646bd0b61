// Hash policies of a route: which endpoint a request belongs to, and the cookie that keeps it there.
#include <cstring>

#include "dataplane/downstream.h"
#include "dataplane/http_proxy.h"
#include "dataplane/retry.h"
#include "lib/base/xxhash64.h"
#include "lib/format/evaluate.h"
#include "lib/route/request_hash.h"

namespace millrace::dataplane {

namespace {

// Envoy: one value for each connection, so that requests that race are given the same. 16 hexadecimal digits.
std::string_view connection_cookie(const tcp::FourTuple& tuple, http::Scratch& scratch) {
  char text[format::kValueRoom];
  size_t n = 0;
  const auto put = [&](const base::IpAddress& a, uint16_t port) {
    char one[format::kValueRoom];
    const std::string_view t = format::detail::address_text(a, port, one);
    std::memcpy(text + n, t.data(), t.size());
    n += t.size();
  };
  put(tuple.remote, tuple.remote_port);
  put(tuple.local, tuple.local_port);
  const uint64_t hash = base::xxhash64(std::string_view(text, n));
  char hex[16];
  for (size_t i = 0; i < sizeof hex; ++i) hex[i] = "0123456789abcdef"[hash >> (60 - 4 * i) & 15];
  return scratch.copy({hex, sizeof hex});
}

// Http::Utility::makeSetCookieValue. Empty: no room.
std::string_view set_cookie(const void* object, const table::HashPolicy& p, std::string_view value, http::Scratch& scratch,
                            std::span<char> room) {
  size_t n = 0;
  bool fits = true;
  const auto put = [&](std::string_view t) {
    fits = fits && t.size() <= room.size() - n;
    if (!fits) return;
    std::memcpy(room.data() + n, t.data(), t.size());
    n += t.size();
  };
  put(table::view(object, p.name));
  put("=\"");
  put(value);
  put("\"");
  if (p.ttl_s != 0) {
    put("; Max-Age=");
    put(scratch.decimal(p.ttl_s));
  }
  if (p.path.count != 0) {
    put("; Path=");
    put(table::view(object, p.path));
  }
  for (const table::CookieAttribute* a = p.attributes.begin(object); a != p.attributes.end(object); ++a) {
    put("; ");
    put(table::view(object, a->name));
    if (a->value.count == 0) continue;
    put("=");
    put(table::view(object, a->value));
  }
  put("; HttpOnly");
  return fits ? scratch.copy({room.data(), n}) : std::string_view();
}

}  // namespace

// The response's edits with one more before them: a cookie for the client, if the response is an endpoint's.
bool HttpProxy::keep_cookie(Exchange& ex, std::string_view value) {
  auto* edits = allocate_array<ResponseEdit>(ex.scratch, ex.route.response_edit_count + 1);
  if (edits == nullptr || value.empty()) return false;
  edits[0] = {};
  edits[0].name = "set-cookie";
  edits[0].value = value;
  edits[0].level = ResponseEdit::kCookieLevel;
  for (uint32_t i = 0; i < ex.route.response_edit_count; ++i) edits[i + 1] = ex.route.response_edits[i];
  ex.route.response_edits = edits;
  ++ex.route.response_edit_count;
  return true;
}

bool HttpProxy::hash_request(Exchange& ex, const void* object, const table::Route& route, route::RequestHash* out) {
  char ip[64];
  const std::string_view client = format::detail::ip_text(ex.origin.client, ip);
  for (const table::HashPolicy* p = route.hash_policies.begin(object); p != route.hash_policies.end(object); ++p) {
    uint64_t hash = 0;
    switch (route::ask_policy(object, *p, ex.request, client, &hash)) {
      case route::PolicyAnswer::kNothing:
        break;
      case route::PolicyAnswer::kMakeCookie: {
        const std::string_view value = connection_cookie(ex.downstream->tuple(), ex.scratch);
        if (!keep_cookie(ex, set_cookie(object, *p, value, ex.scratch, ctx_.write_buffer))) return false;
        out->add(base::xxhash64(value));
        break;
      }
      case route::PolicyAnswer::kHash:
        out->add(hash);
        break;
    }
    if (p->terminal != 0 && out->known) break;
  }
  if (ex.retry != nullptr) ex.retry->hash = *out;
  return true;
}

}  // namespace millrace::dataplane
