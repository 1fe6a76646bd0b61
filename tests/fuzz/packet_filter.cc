// Input: a filter's text, a zero byte, a frame. Whatever they are: the parser ends with a program or a reason that says where; a
// program is valid and runs on any frame.
#include "lib/table/packet_filter.h"

#include <algorithm>
#include <cstring>

#include "tests/fuzz/require.h"

using namespace millrace::table;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* zero = static_cast<const uint8_t*>(size == 0 ? nullptr : std::memchr(data, 0, size));
  const size_t n = zero == nullptr ? size : static_cast<size_t>(zero - data);
  FilterNames names;
  names.listener = names.cluster = [](std::string_view) {
    return millrace::base::Result<std::vector<FilterEndpoint>>(std::vector<FilterEndpoint>{{{}, 80}});
  };
  const auto f = parse_packet_filter({reinterpret_cast<const char*>(data), n}, names);
  PacketFields fields;
  if (zero != nullptr) {
    fields.length = static_cast<uint32_t>(size - n - 1);
    read_fields({zero + 1, size - n - 1}, fields);
  }
  FUZZ_REQUIRE(f.ok() || !f.error().empty());
  if (!f.ok()) return 0;
  FUZZ_REQUIRE(is_valid(*f));
  (void)matches(*f, fields);
  // A program of the input's own bytes: refused, or it runs.
  PacketFilter raw;
  if (size != 0) std::memcpy(static_cast<void*>(&raw), data, std::min(size, sizeof raw));
  if (is_valid(raw)) (void)matches(raw, fields);
  return 0;
}
