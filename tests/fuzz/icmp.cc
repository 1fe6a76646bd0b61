// First byte: the family, by its bit 1. Checksums are not verified, so that the fuzzer gets behind them; a message
// with its checksum put right must then pass the verification, and so must the reply to an echo.
#include "lib/wire/icmp.h"

#include <cstring>
#include <vector>

#include "lib/wire/checksum.h"
#include "lib/wire/ipv4.h"
#include "tests/fuzz/require.h"

using namespace millrace;
using namespace millrace::wire;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 2000) return 0;
  const bool v6 = (data[0] & 2) != 0;
  const base::ByteSpan input(data + 1, size - 1);
  base::IpAddress src, dst;
  src.bytes[0] = dst.bytes[0] = 0xfd;
  dst.bytes[15] = 2;
  const auto parse = [&](base::ByteSpan m, bool verify, IcmpView& out) {
    return v6 ? IcmpView::parse_v6(m, src, dst, verify, out) : IcmpView::parse_v4(m, verify, out);
  };
  IcmpView v, again;
  if (parse(input, false, v) != ParseError::kNone) return 0;
  FUZZ_REQUIRE(!v.quote.has_seq || v.quote.has_ports);

  std::vector<uint8_t> copy(input.begin(), input.end());
  const auto length = static_cast<uint32_t>(copy.size());
  copy[2] = copy[3] = 0;
  const ChecksumSum pseudo = v6 ? pseudo_header(src, dst, kIpIcmpv6, length) : 0;
  store_checksum(&copy[2], checksum_finish(pseudo + checksum_sum(copy)));
  FUZZ_REQUIRE(parse(copy, true, again) == ParseError::kNone);
  FUZZ_REQUIRE(again.kind == v.kind && again.mtu == v.mtu && again.has_quote == v.has_quote);
  if (v.kind != IcmpKind::kEchoRequest) return 0;
  v6 ? make_echo_reply_v6(copy) : make_echo_reply_v4(copy);
  FUZZ_REQUIRE(parse(copy, true, again) == ParseError::kNone);
  FUZZ_REQUIRE(again.kind == IcmpKind::kEchoReply && again.identifier == v.identifier && again.sequence == v.sequence);
  return 0;
}
