// A HeaderMatcher without a regular expression, asked of the fields of a head: for access log filters and retry policies. Routes
// are matched by lib/route.
#pragma once

#include "lib/http/message.h"
#include "lib/table/objects.h"

namespace millrace::dataplane {

// Whether it holds (Envoy: HeaderUtility::matchHeaders; of repeated fields one value that holds is enough). `object`: what the
// matcher's strings lie in. `request`: for the pseudo headers; null: a response's. `headers`: null: none are there.
bool header_holds(const void* object, const table::ValueMatch& m, const http::RequestHead* request,
                  const http::HeaderTable* headers);

}  // namespace millrace::dataplane
