// A ClientHello says the same however it arrives: whole, as a prefix, in other records, or in a queue of small packets.
#include "lib/tls/client_hello.h"

#include <algorithm>
#include <vector>

#include "tests/fuzz/require.h"
#include "tests/support/heap_packet_pool.h"

using namespace millrace;
using namespace millrace::tls;

namespace {

bool same(base::ByteSpan a, base::ByteSpan b) { return std::ranges::equal(a, b); }
bool same(const ClientHello& a, const ClientHello& b) {
  return a.server_name() == b.server_name() && a.has_server_name == b.has_server_name && a.has_alpn == b.has_alpn &&
         a.legacy_version == b.legacy_version && a.max_version == b.max_version && same(a.alpn.wire(), b.alpn.wire()) &&
         same(a.session_id, b.session_id) && same(a.cipher_suites, b.cipher_suites) && same(a.extensions, b.extensions) &&
         same(a.supported_versions, b.supported_versions) && same(a.supported_groups, b.supported_groups) &&
         same(a.signature_algorithms, b.signature_algorithms) && same(a.ec_point_formats, b.ec_point_formats);
}
bool same(const HelloResult& a, const HelloResult& b) { return a.verdict == b.verdict && a.error == b.error; }

// Views into what was given, or into the scratch, and nowhere else.
void check_views(const ClientHello& h, base::ByteSpan bytes, base::ByteSpan scratch) {
  for (base::ByteSpan v : {h.alpn.wire(), h.session_id, h.cipher_suites, h.extensions, h.supported_versions, h.supported_groups,
                           h.signature_algorithms, h.ec_point_formats}) {
    if (v.empty()) continue;
    const auto inside = [&](base::ByteSpan outer) {
      return v.data() >= outer.data() && v.data() + v.size() <= outer.data() + outer.size();
    };
    FUZZ_REQUIRE(inside(bytes) || inside(scratch));
  }
  size_t names = 0;
  for (std::string_view n : h.alpn) {
    FUZZ_REQUIRE(!n.empty());
    names += 1 + n.size();
  }
  FUZZ_REQUIRE(names == h.alpn.wire().size());
  for (char c : h.server_name()) FUZZ_REQUIRE(c != 0 && !(c >= 'A' && c <= 'Z'));
  FUZZ_REQUIRE(h.has_server_name == !h.server_name().empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr uint32_t kLimit = kMaxClientHelloBytes;
  std::vector<uint8_t> scratch(kLimit);
  ClientHello hello;
  const HelloResult whole = inspect({data, size}, scratch, hello);
  if (whole.verdict == HelloVerdict::kNeedMore) FUZZ_REQUIRE(whole.need > size && whole.need <= kLimit);
  if (whole.verdict == HelloVerdict::kTooLarge) FUZZ_REQUIRE(size >= kLimit);
  if (whole.verdict == HelloVerdict::kClientHello) check_views(hello, {data, size}, scratch);

  // Prefixes, each in memory of its own so that a sanitizer sees the first byte read too far. Wait for `need` as a caller does.
  size_t have = 0;
  for (int calls = 0;; ++calls) {
    FUZZ_REQUIRE(calls < 20'000);
    const std::vector<uint8_t> prefix(data, data + have);
    ClientHello h;
    const HelloResult r = inspect(prefix, scratch, h);
    if (r.verdict != HelloVerdict::kNeedMore) {
      FUZZ_REQUIRE(same(r, whole));
      break;
    }
    FUZZ_REQUIRE(r.need > have);
    if (r.need > size) {
      FUZZ_REQUIRE(whole.verdict == HelloVerdict::kNeedMore);
      break;
    }
    have = r.need;
  }

  // In a queue of packets of a size that the input chooses.
  {
    static support::HeapPacketPool pool(kLimit * 2 + 64, 64);
    io::PacketQueue queue;
    const size_t piece = size == 0 ? 1 : 1 + data[size - 1] % 64;
    for (size_t at = 0; at < std::min<size_t>(size, kLimit * 2); at += piece) {
      queue.push_whole(pool.make(base::ByteSpan(data + at, std::min(piece, std::min<size_t>(size, kLimit * 2) - at))));
    }
    std::vector<uint8_t> other(kLimit);
    ClientHello h;
    const HelloResult r = inspect(queue, other, h);
    FUZZ_REQUIRE(same(r, whole));
    if (r.verdict == HelloVerdict::kClientHello) FUZZ_REQUIRE(same(h, hello));
  }

  // The same message in records of another size.
  if (whole.verdict == HelloVerdict::kClientHello) {
    std::vector<uint8_t> message;
    for (size_t at = 0;
         at + 5 <= size && (message.size() < 4 || message.size() < 4u + (message[1] << 16 | message[2] << 8 | message[3]));) {
      const size_t n = base::load_be16(data + at + 3);
      message.insert(message.end(), data + at + 5, data + std::min(size, at + 5 + n));
      at += 5 + n;
    }
    message.resize(4u + (message[1] << 16 | message[2] << 8 | message[3]));
    const size_t piece = 1 + data[size / 2];
    std::vector<uint8_t> framed;
    for (size_t at = 0; at < message.size(); at += piece) {
      const size_t n = std::min(piece, message.size() - at);
      framed.insert(framed.end(), {22, 3, 1, static_cast<uint8_t>(n >> 8), static_cast<uint8_t>(n)});
      framed.insert(framed.end(), message.begin() + static_cast<long>(at), message.begin() + static_cast<long>(at + n));
    }
    if (framed.size() <= kLimit) {
      std::vector<uint8_t> other(kLimit);
      ClientHello h;
      FUZZ_REQUIRE(inspect(framed, other, h).verdict == HelloVerdict::kClientHello);
      FUZZ_REQUIRE(same(h, hello));
    }
  }
  return 0;
}
