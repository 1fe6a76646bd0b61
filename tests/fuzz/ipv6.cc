// Lengths stay inside the packet and the limits; a packet without extension headers is written again byte for byte.
#include "lib/wire/ipv6.h"

#include <cstring>

#include "tests/fuzz/require.h"

using namespace millrace::wire;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Ipv6View v;
  if (Ipv6View::parse({data, size}, v) != ParseError::kNone) return 0;
  FUZZ_REQUIRE(v.payload_offset >= kIpv6Header && v.payload_offset <= kIpv6Header + kIpv6MaxExtensionBytes);
  FUZZ_REQUIRE(uint32_t{v.payload_offset} + v.payload_length <= size);
  if (v.payload_offset != kIpv6Header) return 0;
  Ipv6Repr repr;
  repr.src = v.src;
  repr.dst = v.dst;
  repr.next_header = v.next_header;
  repr.hop_limit = v.hop_limit;
  repr.traffic_class = v.traffic_class;
  repr.flow_label = v.flow_label;
  repr.payload_length = v.payload_length;
  uint8_t out[kIpv6Header];
  FUZZ_REQUIRE(repr.emit(out) == kIpv6Header);
  FUZZ_REQUIRE(std::memcmp(out, data, kIpv6Header) == 0);
  return 0;
}
