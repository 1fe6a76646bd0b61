#include "lib/wire/udp.h"

#include <cstring>

#include "tests/fuzz/require.h"

using namespace millrace::wire;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  UdpView v;
  if (UdpView::parse({data, size}, v) != ParseError::kNone) return 0;
  FUZZ_REQUIRE(kUdpHeader + v.payload_length <= size);
  uint8_t out[kUdpHeader];
  const UdpRepr repr{v.src_port, v.dst_port, v.payload_length};
  FUZZ_REQUIRE(repr.emit(out) == kUdpHeader && std::memcmp(out, data, kUdpChecksumOffset) == 0);
  return 0;
}
