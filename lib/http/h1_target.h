// The four forms of a request target (RFC 9112 3.2) and the grammar of authorities, as Envoy judges them. Internal to the parser.
#pragma once

#include <span>
#include <string_view>

#include "lib/http/h1_parser.h"

namespace millrace::http {

// Host or :authority: unreserved, sub-delims and : @ [ ] % of RFC 3986 3.2, nothing else; may be empty (Envoy's
// authorityIsValid).
bool is_valid_authority(std::string_view authority);

// Splits `target` (no byte below 0x21, none above 0x7e) by the form its method allows and fills head->path, scheme and authority
// (the last two only for absolute and authority form). The scheme is lowered in place. kNone or the reason.
H1Error parse_target(std::span<char> target, bool allow_absolute_url, RequestHead* head);

}  // namespace millrace::http
