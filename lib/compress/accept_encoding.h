// Which coding a response gets: what the client says in accept-encoding (RFC 9110 12.5.3) against the compressor filters of the
// connection manager, as Envoy's CompressorFilter::chooseEncoding weighs them.
//
// The highest q wins; among equals the first that the client names, unless a filter with choose_first is among them: then the
// last such one. "*" stands for the filter that comes first in the configuration and is not excluded by q=0. Codings are compared
// as they are written, parameters and "q" without regard to case.
//
// Two places where Envoy's answer hangs on the order of a map into which it looks itself are decided by the sentence above
// instead: "identity;q=0, *" and "*, identity" (there zstd alone goes uncompressed).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "lib/compress/settings.h"

namespace millrace::compress {

// What a filter counts a decision as (Envoy: EncodingDecision::HeaderStat).
enum class Choice : uint8_t {
  kNotValid,  // header_not_valid: nothing of the field can be served
  kIdentity,  // header_identity: the client prefers it as it is
  kWildcard,  // header_wildcard
  kCoding,    // header_compressor_used, header_compressor_overshadowed
};
struct Decision {
  Choice choice = Choice::kNotValid;
  bool encodes = false;  // `codec` is to be used
  Codec codec = Codec::kGzip;
};

// A filter of the chain that may take part: its content types do not exclude the response. In the order of the configuration.
struct Candidate {
  Codec codec = Codec::kGzip;
  bool choose_first = false;
};

// `field`: the accept-encoding field, several joined by ','.
Decision choose_encoding(std::string_view field, std::span<const Candidate> candidates);

}  // namespace millrace::compress
