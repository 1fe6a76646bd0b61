// Lengths stay inside the packet; a header without options and with a right checksum is written again byte for byte.
#include "lib/wire/ipv4.h"

#include <cstring>

#include "tests/fuzz/require.h"

using namespace millrace::wire;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Ipv4View v, checked;
  const ParseError e = Ipv4View::parse({data, size}, false, v);
  const ParseError with_checksum = Ipv4View::parse({data, size}, true, checked);
  FUZZ_REQUIRE(with_checksum == e || with_checksum == ParseError::kBadChecksum);
  if (e != ParseError::kNone) return 0;
  FUZZ_REQUIRE(v.payload_offset >= kIpv4Header && uint32_t{v.payload_offset} + v.payload_length <= size);
  if (with_checksum != ParseError::kNone || v.payload_offset != kIpv4Header) return 0;
  if ((data[6] & 0x80) != 0 || (data[10] == 0xff && data[11] == 0xff) || (data[10] == 0 && data[11] == 0))
    return 0;  // reserved bit; the other zero
  Ipv4Repr repr;
  repr.src = v.src;
  repr.dst = v.dst;
  repr.protocol = v.protocol;
  repr.ttl = v.ttl;
  repr.tos = v.tos;
  repr.dont_fragment = v.dont_fragment;
  repr.identification = v.identification;
  repr.payload_length = v.payload_length;
  uint8_t out[kIpv4Header];
  FUZZ_REQUIRE(repr.emit(out) == kIpv4Header);
  FUZZ_REQUIRE(std::memcmp(out, data, kIpv4Header) == 0);
  return 0;
}
