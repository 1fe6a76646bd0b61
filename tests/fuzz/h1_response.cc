// A response head: whole and in two pieces give the same answer, and what is written for the client is acceptable again.
#include <string>
#include <vector>

#include "lib/http/forward.h"
#include "lib/http/h1_body.h"
#include "lib/http/h1_parser.h"
#include "lib/http/h1_writer.h"
#include "tests/fuzz/require.h"

using namespace millrace;
using namespace millrace::http;

namespace {
std::string text_of(const ResponseHead& h) {
  std::string s = std::to_string(h.status) + std::string(h.reason) + "\n";
  for (const Header& f : h.headers) s += std::string(f.name) + ":" + std::string(f.value) + "\n";
  return s;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr uint32_t kFields = 128;
  std::vector<char> bytes(data, data + size);
  Header storage[kFields], second_storage[kFields];
  ResponseHead head, second;
  head.headers = HeaderTable(storage, kFields);
  second.headers = HeaderTable(second_storage, kFields);
  const size_t split = size == 0 ? 0 : data[size / 2] % size;
  std::vector<char> piece(data, data + split);
  const HeadResult first = parse_response_head(piece, 0, {}, &second);
  const HeadResult whole = parse_response_head(bytes, 0, {}, &head);
  FUZZ_REQUIRE((whole.status == ParseStatus::kBad) == (whole.error != H1Error::kNone));
  if (whole.status != ParseStatus::kDone) return 0;
  FUZZ_REQUIRE(whole.consumed <= size && first.status != ParseStatus::kBad && head.status >= 100 && head.status <= 999);
  const std::string text = text_of(head);
  std::vector<char> again(bytes);
  const HeadResult resumed = parse_response_head(again, first.status == ParseStatus::kPartial ? split : 0, {}, &second);
  FUZZ_REQUIRE(resumed.status == ParseStatus::kDone && resumed.consumed == whole.consumed && text_of(second) == text);

  const BodyFraming in = response_framing(head, "GET", false);
  char memory[4096];
  Scratch scratch(memory);
  if (!mutate_upstream_response(&head, {}, 1, scratch) || !mutate_response(&head, {}, {"D", "", false}, scratch)) return 0;
  std::vector<char> out(70000);
  ResponseWrite how;
  how.framing = outgoing_framing(in, Version::kHttp11);
  const size_t n = write_response_head(head, how, out);
  Header third_storage[kFields + 8];
  ResponseHead third;
  third.headers = HeaderTable(third_storage, kFields + 8);
  H1Limits wide;
  wide.max_header_count = kFields + 8;
  wide.max_head_bytes = 70000;
  FUZZ_REQUIRE(parse_response_head({out.data(), n}, 0, wide, &third).status == ParseStatus::kDone);
  const BodyFraming then = response_framing(third, "GET", false);
  FUZZ_REQUIRE(then.empty() == how.framing.empty() && then.kind != Framing::kUntilClose);
  return 0;
}
