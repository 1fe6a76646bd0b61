#include "lib/wire/parse_error.h"

namespace millrace::wire {

const char* to_string(ParseError e) {
  switch (e) {
    case ParseError::kNone:
      return "none";
    case ParseError::kTruncated:
      return "truncated";
    case ParseError::kBadHeader:
      return "bad_header";
    case ParseError::kBadFlags:
      return "bad_flags";
    case ParseError::kBadChecksum:
      return "bad_checksum";
    case ParseError::kFragment:
      return "fragment";
    case ParseError::kUnsupported:
      return "unsupported";
  }
  return "unknown";
}

}  // namespace millrace::wire
