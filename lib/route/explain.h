// The same matcher, with its reasons: control runs it on the object it published, so what it says is what the data plane does.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/route/matcher.h"

namespace millrace::route {

struct ConsideredRoute {
  uint32_t route = 0;  // index into VirtualHost.routes
  bool matched = false;
  std::string why;  // one sentence: "path begins with /api", "header x-tenant is \"b\", not \"a\"", "prefix /x does not match"
};
struct RouteExplanation {
  MatchResult result;
  std::vector<ConsideredRoute>
      considered;         // ascending; the winner is last. At most `limit` failures, the last ones before the winner
  uint32_t left_out = 0;  // earlier failures beyond the limit
};
// Heap allowed; not for poll cores.
RouteExplanation explain_route(const VirtualHostRuntime& host, const http::RequestHead& head, const MatchContext& context,
                               uint32_t limit = 50);

}  // namespace millrace::route
