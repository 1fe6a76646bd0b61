// Input: the first bytes of a connection. What is read as a header is whole, stays the same whatever follows it and however much
// of it came first, and is written as it was read.
#include "lib/wire/proxy_protocol.h"

#include <cstring>

#include "tests/fuzz/require.h"

using namespace millrace;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const base::ByteSpan input(data, size);
  wire::ProxyHeader h;
  wire::ProxyError error;
  const wire::ProxyStatus status = wire::parse_proxy_header(input, &h, &error);
  FUZZ_REQUIRE((status == wire::ProxyStatus::kBad) == (error != wire::ProxyError::kNone));
  if (status == wire::ProxyStatus::kAbsent || status == wire::ProxyStatus::kBad) return 0;
  const size_t whole = status == wire::ProxyStatus::kDone ? h.size : size;
  FUZZ_REQUIRE(whole <= size && whole <= wire::kMostProxyV2Bytes + (status == wire::ProxyStatus::kPartial ? size : 0));
  for (size_t n = 0; n < whole; n += 1 + n / 8) {
    wire::ProxyHeader part;
    FUZZ_REQUIRE(wire::parse_proxy_header(input.first(n), &part, &error) == wire::ProxyStatus::kPartial);
  }
  if (status != wire::ProxyStatus::kDone) return 0;
  base::ByteSpan rest = h.tlvs;
  wire::ProxyTlv tlv;
  while (wire::next_proxy_tlv(&rest, &tlv)) {
  }
  FUZZ_REQUIRE(rest.empty());
  uint8_t out[wire::kMostProxyV2Bytes + 64];
  const size_t n = wire::write_proxy_header(h, out);
  // A v4-mapped address in a header of IPv6 is kept, and written, as one of IPv4: its checksum is another one then.
  if (n == 0) return 0;
  wire::ProxyHeader again;
  const wire::ProxyStatus second = wire::parse_proxy_header({out, n}, &again, &error);
  if (second == wire::ProxyStatus::kBad) {
    FUZZ_REQUIRE(error == wire::ProxyError::kChecksum);
    return 0;
  }
  FUZZ_REQUIRE(second == wire::ProxyStatus::kDone && again.size == n);
  const bool mixed = h.version == 1 && h.source.is_v4() != h.destination.is_v4();
  FUZZ_REQUIRE(again.local == (h.local || mixed));
  if (again.local) return 0;
  FUZZ_REQUIRE(again.source == h.source && again.destination == h.destination);
  FUZZ_REQUIRE(again.source_port == h.source_port && again.destination_port == h.destination_port);
  FUZZ_REQUIRE(again.tlvs.size() == h.tlvs.size());
  return 0;
}
