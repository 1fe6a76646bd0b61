// Packet scripts: any text is refused with a line and a reason, or parsed; what was parsed can be written, and what is written
// as a segment parses to the same again.
#include "tests/fuzz/require.h"
#include "tests/packet/script.h"

using namespace millrace;
using namespace millrace::packet;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Script script;
  ScriptError error;
  if (!parse_script(text, script, error)) {
    FUZZ_REQUIRE(error.line >= 1 && !error.why.empty());
    return 0;
  }
  FUZZ_REQUIRE(!script.events.empty() && !script.shows.empty());
  for (const Event& e : script.events) {
    if (e.kind != Event::Kind::kReceive && e.kind != Event::Kind::kExpect) continue;
    const std::string line = format_segment(e.segment);
    Script again;
    FUZZ_REQUIRE(parse_script("shows it\n0 > " + line + "\n", again, error));
    FUZZ_REQUIRE(format_segment(again.events[0].segment) == line);
  }
  return 0;
}
