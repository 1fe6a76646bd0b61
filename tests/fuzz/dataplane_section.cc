// Whatever the text, reading ends; either errors, each with a path or a place, or a section whose devices are filled in.
#include "lib/bootstrap/dataplane_section.h"

#include "tests/fuzz/require.h"

using namespace millrace::bootstrap;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 8192) return 0;
  const SectionResult r = read_dataplane_section({reinterpret_cast<const char*>(data), size}, "f");
  FUZZ_REQUIRE(!(r.section && !r.errors.empty()));
  for (const SectionError& e : r.errors) FUZZ_REQUIRE(!e.message.empty() && e.line >= 0);
  if (r.section) {
    FUZZ_REQUIRE(!r.section->ports.empty() && !r.section->cores.empty());
    for (const PortSection& p : r.section->ports) FUZZ_REQUIRE(!p.devargs.empty() && !p.addresses.empty());
  }
  return 0;
}
