// A request head: whole and in two pieces give the same answer, parsing twice gives the same, what the forwarder makes of an
// accepted request is again an acceptable request, and nothing of it lies outside the memory it was given.
#include <algorithm>
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

constexpr uint32_t kFields = 128;

std::string text_of(const RequestHead& h) {
  std::string s;
  for (std::string_view part : {h.method, h.path, h.authority, h.scheme}) s += std::string(part) + "\n";
  for (const Header& f : h.headers) s += std::string(f.name) + ":" + std::string(f.value) + "\n";
  return s;
}

void forward(RequestHead head, const H1Limits& limits, bool edge) {
  char memory[8192];
  Scratch scratch(memory);
  ForwardOptions o;
  o.use_remote_address = edge;
  o.normalize_path = o.merge_slashes = edge;
  o.escaped_slashes = edge ? EscapedSlashesAction::kUnescapeAndForward : EscapedSlashesAction::kKeepUnchanged;
  o.underscores = edge ? UnderscoreAction::kDrop : UnderscoreAction::kAllow;
  o.via = edge ? "v" : "";
  const BodyFraming framing = request_framing(head);
  check_underscores(head.headers, o.underscores);
  if (normalize_path(&head, o, scratch) != PathVerdict::kContinue) return;
  Downstream d;
  d.remote = d.local = base::IpAddress::v4(0x0a000001);
  const uint64_t random[2] = {1, 2};
  RequestOrigin origin;
  if (!mutate_request(&head, o, d, random, scratch, &origin)) return;
  std::vector<char> out(70000);
  const size_t n = write_request_head(head, framing, out);
  FUZZ_REQUIRE(n <= out.size());
  Header storage[kFields + 8];
  RequestHead again;
  again.headers = HeaderTable(storage, kFields + 8);
  H1Limits wide = limits;
  wide.max_header_count = kFields + 8;
  wide.max_head_bytes = 70000;
  wide.allow_custom_methods = true;
  const HeadResult r = parse_request_head({out.data(), n}, 0, wide, &again);
  FUZZ_REQUIRE(r.status == ParseStatus::kDone && r.consumed == n);
  FUZZ_REQUIRE(again.method == head.method && again.authority == head.authority);
  const BodyFraming then = request_framing(again);  // a body is framed the same way on the other side: no room for smuggling
  FUZZ_REQUIRE(then.empty() == framing.empty() &&
               (framing.empty() || (then.kind == framing.kind && then.length == framing.length)));
}

void check(const uint8_t* data, size_t size, const H1Limits& limits, bool edge) {
  // Exactly as many bytes as there are, so that the sanitizer sees a read behind them.
  std::vector<char> bytes(data, data + size);
  Header storage[kFields], second_storage[kFields];
  RequestHead head, second;
  head.headers = HeaderTable(storage, kFields);
  second.headers = HeaderTable(second_storage, kFields);
  const size_t split = size == 0 ? 0 : data[size / 2] % size;
  std::vector<char> piece(data, data + split);
  const HeadResult first = parse_request_head(piece, 0, limits, &second);
  const HeadResult whole = parse_request_head(bytes, 0, limits, &head);
  FUZZ_REQUIRE((whole.status == ParseStatus::kBad) == (whole.error != H1Error::kNone));
  FUZZ_REQUIRE(whole.consumed <= size);
  if (whole.status == ParseStatus::kDone) {
    FUZZ_REQUIRE(first.status != ParseStatus::kBad);
    const std::string text = text_of(head);
    std::vector<char> again(bytes);
    const HeadResult resumed = parse_request_head(again, first.status == ParseStatus::kPartial ? split : 0, limits, &second);
    FUZZ_REQUIRE(resumed.status == ParseStatus::kDone && resumed.consumed == whole.consumed && text_of(second) == text);
    forward(head, limits, edge);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  check(data, size, H1Limits{}, true);
  H1Limits lax;
  lax.accept_http_10 = lax.allow_custom_methods = lax.allow_chunked_length = true;
  lax.default_host_for_http_10 = "d";
  lax.max_head_bytes = 4096;
  check(data, size, lax, false);
  return 0;
}
