// The load generator's readers of HTTP: a head scanned whole and in two pieces, a chunked body whole and byte by byte. The same
// bytes must say the same, nothing outside of them is read (the sanitizer sees to that), and every step goes on.
#include <cstdint>
#include <cstring>
#include <memory>

#include "perf/load/http_chunks.h"
#include "perf/load/http_scan.h"
#include "tests/fuzz/require.h"

using namespace millrace;

namespace {

// A copy without a spare byte behind it.
std::unique_ptr<uint8_t[]> exact(const uint8_t* p, size_t n) {
  auto copy = std::make_unique<uint8_t[]>(n == 0 ? 1 : n);
  std::memcpy(copy.get(), p, n);
  return copy;
}

struct Chunked {
  uint64_t data = 0, took = 0;
  bool end = false, bad = false;
  friend bool operator==(const Chunked&, const Chunked&) = default;
};

Chunked run_chunked(const uint8_t* p, uint32_t n, uint32_t piece) {
  load::Parse state = load::Parse::kChunkSize;
  uint32_t left = 0;
  Chunked out;
  while (out.took < n && !out.end && !out.bad) {
    const uint32_t run = std::min<uint32_t>(piece, static_cast<uint32_t>(n - out.took));
    const auto bytes = exact(p + out.took, run);
    const load::ChunkStep step = load::scan_chunked(state, left, bytes.get(), run);
    FUZZ_REQUIRE(step.took >= 1 && step.took <= run && (step.data == 0 || step.data == step.took));
    out.took += step.took;
    out.data += step.data;
    out.end = step.end;
    out.bad = step.bad;
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const uint32_t cut = data[0] % 64;
  const uint8_t* p = data + 1;
  const auto n = static_cast<uint32_t>(size - 1);

  const auto whole_bytes = exact(p, n);
  load::HeadScan whole;
  load::scan_head(whole_bytes.get(), n, whole);
  FUZZ_REQUIRE(whole.length <= n);
  if (whole.length != 0) {
    // The head alone, and any beginning of it.
    const auto head = exact(p, whole.length);
    load::HeadScan again;
    load::scan_head(head.get(), whole.length, again);
    FUZZ_REQUIRE(again.length == whole.length && again.content_length == whole.content_length && again.chunked == whole.chunked);
    const uint32_t less = whole.length > cut ? whole.length - 1 - cut % whole.length : 0;
    const auto part = exact(p, less);
    load::HeadScan half;
    load::scan_head(part.get(), less, half);
    FUZZ_REQUIRE(half.length == 0);
  }
  FUZZ_REQUIRE(run_chunked(p, n, n == 0 ? 1 : n) == run_chunked(p, n, 1));
  FUZZ_REQUIRE(run_chunked(p, n, n == 0 ? 1 : n) == run_chunked(p, n, cut + 1));
  return 0;
}
