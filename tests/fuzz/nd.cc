// A neighbour solicitation or advertisement that the view accepts says the same after it was written by the repr.
#include "lib/wire/nd.h"

#include "lib/wire/ipv6.h"
#include "tests/fuzz/require.h"

using namespace millrace;
using namespace millrace::wire;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};
  const base::IpAddress src = link_local_from_mac(mac), dst = src;
  NdView v;
  if (NdView::parse({data, size}, src, dst, kNdHopLimit, false, v) != ParseError::kNone) return 0;
  FUZZ_REQUIRE(v.prefix_count <= kNdMaxPrefixes);
  if (v.type != NdType::kNeighborSolicitation && v.type != NdType::kNeighborAdvertisement) return 0;
  NdRepr repr;
  repr.type = v.type;
  repr.target = v.target;
  repr.router = v.router;
  repr.solicited = v.solicited;
  repr.override_flag = v.override_flag;
  repr.mac = v.type == NdType::kNeighborSolicitation ? v.source_mac : v.target_mac;
  uint8_t out[kNdMaxLength];
  const uint32_t length = repr.emit(out, src, dst);
  FUZZ_REQUIRE(length == repr.length());
  NdView again;
  FUZZ_REQUIRE(NdView::parse({out, length}, src, dst, kNdHopLimit, true, again) == ParseError::kNone);
  FUZZ_REQUIRE(again.type == v.type && again.target == v.target && again.router == v.router && again.solicited == v.solicited);
  FUZZ_REQUIRE(again.override_flag == v.override_flag);
  FUZZ_REQUIRE(v.type == NdType::kNeighborSolicitation ? again.source_mac == v.source_mac : again.target_mac == v.target_mac);
  return 0;
}
