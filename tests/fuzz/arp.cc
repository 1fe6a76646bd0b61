// What the view accepts, the repr writes again, byte for byte.
#include "lib/wire/arp.h"

#include <cstring>

#include "tests/fuzz/require.h"

using namespace millrace::wire;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ArpView v;
  if (ArpView::parse({data, size}, v) != ParseError::kNone) return 0;
  uint8_t out[kArpLength];
  FUZZ_REQUIRE(v.emit(out) == kArpLength);
  FUZZ_REQUIRE(std::memcmp(out, data, kArpLength) == 0);
  return 0;
}
