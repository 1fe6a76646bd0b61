// Any field against any filters: the answer is one of the filters' codings or none, and what the client excluded is never chosen.
#include "lib/compress/accept_encoding.h"

#include <cstdlib>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace millrace::compress;
  if (size < 1) return 0;
  Candidate all[4];
  const uint32_t count = data[0] % 4;
  for (uint32_t i = 0; i < count; ++i) all[i] = {static_cast<Codec>((data[0] >> (2 + i)) % kCodecs), (data[0] >> 5 & 1) != 0};
  const std::string field(reinterpret_cast<const char*>(data + 1), size - 1);
  const Decision d = choose_encoding(field, {all, count});
  if (!d.encodes) return 0;
  if (d.choice != Choice::kCoding && d.choice != Choice::kWildcard) abort();
  bool known = false;
  for (uint32_t i = 0; i < count; ++i) known |= all[i].codec == d.codec;
  if (!known) abort();
  // Excluded at the end, it is not chosen any more.
  const Decision without = choose_encoding(field + "," + std::string(content_encoding(d.codec)) + ";q=0", {all, count});
  if (without.encodes && without.codec == d.codec) abort();
  return 0;
}
