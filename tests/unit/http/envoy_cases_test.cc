// Five hundred requests, good and hostile, against the verdicts of a running Envoy 1.40. Where Millrace is meant to differ, the
// case is named in kDifferences with its reason; any other difference fails.
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "lib/http/connection.h"
#include "lib/http/forward.h"
#include "lib/http/h1_body.h"
#include "lib/http/h1_parser.h"
#include "lib/http/local_reply.h"
#include "tests/unit/http/chars.h"

namespace millrace::http {
namespace {

using namespace std::string_view_literals;

// The listeners the answers were recorded on: all defaults; accept_http_10 with a default host; enable_trailers with
// allow_chunked_length; allow_custom_methods with upgrades and rejected underscores; dropped underscores.
enum Config { kDefault, kHttp10, kTrailers, kCustom, kDropUnderscores };

struct Case {
  const char* name;
  Config config;
  std::string_view bytes;
  int status;
  const char* details;
};
const Case kCases[] = {
#include "tests/unit/http/envoy_request_cases.inc"
};

struct Difference {
  H1Error ours;
  const char* why;
};
const std::map<std::string, Difference> kDifferences = {
    {"start line CR CR LF", {H1Error::kBareCr, "RFC 9112 2.2: a bare CR makes the element invalid"}},
    {"value with '\\r'", {H1Error::kBareCr, "RFC 9112 2.2; Envoy removes the CR and joins what it parted"}},
    {"value leading CR", {H1Error::kBareCr, "RFC 9112 2.2"}},
    {"value trailing CR CR LF", {H1Error::kBareCr, "RFC 9112 2.2"}},
    {"lone CR then fields", {H1Error::kBareCr, "RFC 9112 2.2: some peers see two fields here"}},
    {"version 0.9 default host", {H1Error::kUnsupportedVersion, "HTTP/0.9 is not spoken"}},
    {"two hosts same", {H1Error::kRepeatedHost, "RFC 9112 3.2: 400; Envoy joins them with a comma"}},
    {"two hosts diff", {H1Error::kRepeatedHost, "RFC 9112 3.2: 400"}},
    {"two hosts absolute", {H1Error::kRepeatedHost, "RFC 9112 3.2: 400"}},
    {"obs-fold space", {H1Error::kObsFold, "RFC 9112 5.2 lets a server refuse it; Envoy joins the lines"}},
    {"obs-fold tab", {H1Error::kObsFold, "RFC 9112 5.2"}},
    {"obs-fold empty", {H1Error::kObsFold, "RFC 9112 5.2"}},
    {"obs-fold in host", {H1Error::kObsFold, "RFC 9112 5.2; 400 in Envoy as well"}},
    {"obs-fold TE", {H1Error::kObsFold, "RFC 9112 5.2"}},
    {"obs-fold LF", {H1Error::kObsFold, "RFC 9112 5.2"}},
    {"CL '18446744073709551615'", {H1Error::kBadContentLength, "lengths are 63 bits, so that sums cannot overflow"}},
    {"CL '9223372036854775808'", {H1Error::kBadContentLength, "lengths are 63 bits"}},
    {"TE in 1.0 accept", {H1Error::kTransferEncodingHttp10, "RFC 9112 6.1: its framing is to be treated as faulty"}},
    {"chunk ext no semi", {H1Error::kBadChunkExtension, "RFC 9112 7.1.1"}},
    {"chunk ext NUL", {H1Error::kBadChunkExtension, "RFC 9112 7.1.1: no control characters"}},
    {"chunk ext ctl", {H1Error::kBadChunkExtension, "RFC 9112 7.1.1: no control characters"}},
    {"chunk data LF", {H1Error::kMissingChunkEnd, "RFC 9112 7.1: CRLF; the leniency is a smuggling vector"}},
    {"chunk data extra", {H1Error::kMissingChunkEnd, "RFC 9112 7.1; Envoy skips bytes here"}},
    {"chunk data CR CR LF", {H1Error::kMissingChunkEnd, "RFC 9112 7.1"}},
    {"chunk last CRLF LF", {H1Error::kBadTrailer, "RFC 9112 7.1: CRLF"}},
    {"chunk overflow 16 f", {H1Error::kChunkSizeOverflow, "lengths are 63 bits"}},
    {"chunk big 8", {H1Error::kChunkSizeOverflow, "lengths are 63 bits"}},
    {"chunk trailer fold", {H1Error::kBadTrailer, "RFC 9112 5.2"}},
    {"chunk trailer LF", {H1Error::kBadTrailer, "RFC 9112 7.1: CRLF"}},
};

H1Limits limits_of(Config c) {
  H1Limits l;
  l.accept_http_10 = c == kHttp10;
  if (c == kHttp10) l.default_host_for_http_10 = "dflt.example";
  l.allow_chunked_length = c == kTrailers;
  l.allow_custom_methods = c == kCustom;
  return l;
}

struct Verdict {
  int status = 0;
  std::string details;
  H1Error error = H1Error::kNone;
};
Verdict of(H1Error e) { return {info(e).status, info(e).details, e}; }

// What the session does with the parts of this library, in its order.
Verdict judge(const Case& c) {
  static GuardPage page(1 << 16);
  std::span<char> bytes = place(page, c.bytes);
  Header storage[128], trailer_storage[128];
  RequestHead head;
  head.headers = HeaderTable(storage, 128);
  const HeadResult r = parse_request_head(bytes, 0, limits_of(c.config), &head);
  if (r.status == ParseStatus::kBad) return of(r.error);
  if (r.status == ParseStatus::kPartial) return {200, "partial", H1Error::kNone};
  if (r.consumed > bytes.size()) return {0, "consumed too much", H1Error::kNone};
  const BodyFraming framing = request_framing(head);
  if (!check_underscores(head.headers, c.config == kCustom            ? UnderscoreAction::kReject
                                       : c.config == kDropUnderscores ? UnderscoreAction::kDrop
                                                                      : UnderscoreAction::kAllow))
    return of(H1Error::kUnderscore);
  char memory[4096];
  Scratch scratch(memory);
  switch (normalize_path(&head, ForwardOptions{}, scratch)) {
    case PathVerdict::kContinue:
      break;
    case PathVerdict::kReject:
      return {400, "path_normalization_failed", H1Error::kNone};
    case PathVerdict::kNotRelative:
      return {404, "absolute_path_rejected", H1Error::kNone};
    case PathVerdict::kRedirect:
      return {307, "path_normalization_failed", H1Error::kNone};
  }
  if (framing.kind == Framing::kTunnel) {
    const bool allowed = c.config == kCustom && (is_connect(head) || is_websocket(head.headers));
    return allowed ? Verdict{200, "via_upstream", H1Error::kNone} : Verdict{403, "upgrade_failed", H1Error::kNone};
  }
  BodyDecoder decoder;
  decoder.start(framing);
  HeaderTable trailers(trailer_storage, 128);
  std::vector<char> trailer_bytes(8192);
  if (c.config == kTrailers) decoder.lend_trailers(trailer_bytes, &trailers);
  base::ByteSpan rest = base::as_bytes({bytes.data() + r.consumed, bytes.size() - r.consumed});
  for (;;) {
    const BodyDecoder::Step step = decoder.step(rest);
    if (step.status == BodyStatus::kBad) return of(step.error);
    if (step.status == BodyStatus::kDone) break;
    rest = rest.subspan(step.skip + step.data);
    if (rest.empty()) break;
  }
  return {200, "via_upstream", H1Error::kNone};
}

TEST(EnvoyCases, SameVerdictAsEnvoyOrAnIntendedDifference) {
  size_t differences = 0;
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const Verdict v = judge(c);
    const auto d = kDifferences.find(c.name);
    if (d == kDifferences.end()) {
      EXPECT_EQ(v.status, c.status) << v.details << " (" << info(v.error).name << ")";
      EXPECT_EQ(v.details, c.details);
      continue;
    }
    ++differences;
    EXPECT_EQ(info(v.error).name, std::string(info(d->second.ours).name)) << d->second.why;
    EXPECT_TRUE(v.status != c.status || v.details != c.details || c.status == info(d->second.ours).status)
        << "not a difference any more";
  }
  EXPECT_GE(std::size(kCases), 500u);
  EXPECT_EQ(differences, kDifferences.size());
}

}  // namespace
}  // namespace millrace::http
