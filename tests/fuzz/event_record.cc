// The readers of event records: whatever the bytes, they stay inside, and every string they show lies inside too.
#include <string_view>

#include "lib/stats/events.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace millrace::stats;
  const std::span<const uint8_t> bytes(data, size);
  const auto inside = [&](std::string_view s) {
    const auto* p = reinterpret_cast<const uint8_t*>(s.data());
    return s.empty() || (p >= data && p + s.size() <= data + size);
  };
  AccessLogView v;
  if (v.parse(bytes) == RecordError::kNone) {
    for (uint32_t i = 0; i < v.string_count(); ++i) {
      FUZZ_REQUIRE(inside(v.string_at(i)));
      if (v.ref(i).id >= StringId::kExtraRequestHeader) {
        if (const auto value = v.extra(v.ref(i).id, "n")) FUZZ_REQUIRE(inside(*value));
      } else {
        FUZZ_REQUIRE(v.string(v.ref(i).id).has_value());
      }
    }
  }
  LoaderEvent event;
  std::string_view text;
  if (read_loader_event(bytes, event, text) == RecordError::kNone) FUZZ_REQUIRE(inside(text));
  return 0;
}
