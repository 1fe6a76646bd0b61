// What the view accepts, the repr writes again, byte for byte but for the priority bits, which we do not send.
#include "lib/wire/ethernet.h"

#include <cstring>

#include "tests/fuzz/require.h"

using namespace millrace::wire;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  EthernetView v;
  if (EthernetView::parse({data, size}, v) != ParseError::kNone) return 0;
  FUZZ_REQUIRE(v.payload_offset <= size);
  FUZZ_REQUIRE(v.vlan_id <= kMaxVlanId);
  if (v.payload_offset == kEthernetHeader + kVlanTag && v.vlan_id == 0) return 0;  // a priority tag is not sent back
  uint8_t out[kEthernetHeader + kVlanTag];
  const EthernetRepr repr{v.dst, v.src, v.ether_type, v.vlan_id};
  FUZZ_REQUIRE(repr.emit(out) == v.payload_offset);
  if (v.vlan_id != 0) {
    FUZZ_REQUIRE((data[14] & 0x0f) == out[14]);
    out[14] = data[14];
  }
  FUZZ_REQUIRE(std::memcmp(out, data, v.payload_offset) == 0);
  return 0;
}
