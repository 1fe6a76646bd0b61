// HTTP/1 heads: parsing, the proxy's own edits, writing; a chunked body; names to ids. Items are heads. "wrk" is what wrk sends
// (the comparison's load), "browser" a Chrome request of a dozen fields, "api" a service's; each is 512 different heads of its
// kind, of different lengths, fields and order, so that no predictor knows the next one. "mixed": all three.
//   build/perf/bench-http-head
#include <benchmark/benchmark.h>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/prng.h"
#include "lib/http/forward.h"
#include "lib/http/h1_body.h"
#include "lib/http/h1_parser.h"
#include "lib/http/h1_writer.h"
#include "perf/micro/measured.h"

namespace {

using namespace millrace;
using namespace millrace::http;

enum Kind { kWrk, kBrowser, kApi, kMixed };
constexpr size_t kHeads = 512;  // power of two

std::string token(base::Prng& random, size_t least, size_t most) {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
  std::string s(random.between(least, most), 'x');
  for (char& c : s) c = kLetters[random.below(kLetters.size())];
  return s;
}
void shuffle(std::vector<std::string>& lines, base::Prng& random) {
  for (size_t i = lines.size(); i > 1; --i) std::swap(lines[i - 1], lines[random.below(i)]);
}

std::string request_text(Kind kind, base::Prng& random) {
  std::vector<std::string> lines;
  std::string first;
  switch (kind) {
    case kWrk:
      first = "GET /" + token(random, 0, 24) + " HTTP/1.1";
      lines = {"Host: 10.0.0." + std::to_string(random.below(250)) + ":8080"};
      break;
    case kBrowser:
      first = "GET /static/" + token(random, 3, 40) + ".js?v=" + std::to_string(random.below(100'000'000)) + " HTTP/1.1";
      lines = {
          "Host: " + token(random, 3, 12) + ".example.com",
          "Connection: keep-alive",
          "sec-ch-ua: \"Chromium\";v=\"124\", \"Google Chrome\";v=\"124\", \"Not-A.Brand\";v=\"99\"",
          "sec-ch-ua-mobile: ?0",
          "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36",
          "sec-ch-ua-platform: \"Linux\"",
          "Accept: */*",
          "Sec-Fetch-Site: same-origin",
          "Sec-Fetch-Mode: no-cors",
          "Referer: https://www.example.com/products/" + token(random, 5, 30),
          "Accept-Encoding: gzip, deflate, br, zstd",
          "Accept-Language: en-US,en;q=0.9,de;q=0.8",
          "Cookie: sid=" + token(random, 32, 32) + "; theme=dark; consent=" + token(random, 3, 80)};
      if (random.chance(1, 3)) lines.push_back("If-None-Match: \"" + token(random, 12, 12) + "\"");
      break;
    default:
      first = "POST /v1/" + token(random, 4, 12) + "/" + std::to_string(random.below(1'000'000)) + " HTTP/1.1";
      lines = {"Host: " + token(random, 4, 20) + ".internal",
               "Content-Type: application/json",
               "Content-Length: " + std::to_string(random.below(5000)),
               "Authorization: Bearer " + token(random, 100, 400),
               "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
               "X-Request-Id: " + token(random, 36, 36),
               "User-Agent: grpc-gateway/2.1",
               "X-Tenant-" + token(random, 1, 6) + ": " + token(random, 1, 20)};
      shuffle(lines, random);
      break;
  }
  for (const std::string& l : lines) first += "\r\n" + l;
  return first + "\r\n\r\n";
}
std::string response_text(base::Prng& random) {
  std::vector<std::string> lines = {"Server: nginx/1.22.1", "Date: Mon, 23 Nov 2026 06:00:00 GMT",
                                    "Content-Type: " + std::string(random.chance(1, 2) ? "text/html" : "application/json"),
                                    "Content-Length: " + std::to_string(random.below(100'000))};
  if (random.chance(1, 2)) lines.push_back("Last-Modified: Tue, 19 Oct 2021 10:00:00 GMT");
  if (random.chance(1, 2)) lines.push_back("Connection: keep-alive");
  if (random.chance(1, 2)) lines.push_back("ETag: \"" + token(random, 10, 20) + "\"");
  if (random.chance(1, 4)) lines.push_back("Set-Cookie: sid=" + token(random, 32, 32) + "; HttpOnly; Path=/");
  if (random.chance(1, 4)) lines.push_back("X-" + token(random, 3, 12) + ": " + token(random, 0, 40));
  shuffle(lines, random);
  std::string text = random.chance(1, 10) ? "HTTP/1.1 404 Not Found" : "HTTP/1.1 200 OK";
  for (const std::string& l : lines) text += "\r\n" + l;
  return text + "\r\n\r\n";
}

// The next head at each call, in bytes of its own: names are lowered in place, so each parse gets a fresh copy, as it does of
// what came in packets (the copy is measured with it).
class Heads {
 public:
  explicit Heads(std::vector<std::string> texts) : texts_(std::move(texts)), bytes_(8192) {}
  static Heads requests(Kind kind) {
    base::Prng random(17);
    std::vector<std::string> texts;
    for (size_t i = 0; i < kHeads; ++i)
      texts.push_back(request_text(kind == kMixed ? static_cast<Kind>(random.below(kMixed)) : kind, random));
    return Heads(std::move(texts));
  }
  static Heads responses() {
    base::Prng random(18);
    std::vector<std::string> texts;
    for (size_t i = 0; i < kHeads; ++i) texts.push_back(response_text(random));
    return Heads(std::move(texts));
  }
  std::span<char> next() {
    const std::string& t = texts_[at_++ & (kHeads - 1)];
    std::memcpy(bytes_.data(), t.data(), t.size());
    total_ += t.size();
    return {bytes_.data(), t.size()};
  }
  uint64_t bytes() const { return total_; }

 private:
  std::vector<std::string> texts_;
  std::vector<char> bytes_;
  size_t at_ = 0;
  uint64_t total_ = 0;
};

void report(benchmark::State& state, const Heads& heads) {
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(static_cast<int64_t>(heads.bytes()));
}

// What the data plane does with a head, each with its own memory around it.
struct ParseRequest {
  Heads heads;
  Header storage[128];
  bool operator()() {
    RequestHead head;
    head.headers = HeaderTable(storage, 128);
    const bool ok = parse_request_head(heads.next(), 0, {}, &head).status == ParseStatus::kDone;
    benchmark::DoNotOptimize(head);
    benchmark::DoNotOptimize(storage);
    return ok;
  }
};
struct ParseResponse {
  Heads heads = Heads::responses();
  Header storage[128];
  bool operator()() {
    ResponseHead head;
    head.headers = HeaderTable(storage, 128);
    const bool ok = parse_response_head(heads.next(), 0, {}, &head).status == ParseStatus::kDone;
    benchmark::DoNotOptimize(head);
    benchmark::DoNotOptimize(storage);
    return ok;
  }
};
// Everything the proxy does to a request head but routing: parse, path, header rules, write.
struct ForwardRequest {
  Heads heads;
  std::vector<char> out = std::vector<char>(8192), memory = std::vector<char>(4096);
  Header storage[128];
  ForwardOptions options;
  Downstream peer;
  uint64_t random[2] = {0x0123456789abcdef, 0xfedcba9876543210};
  explicit ForwardRequest(Heads h) : heads(std::move(h)) {
    options.use_remote_address = true;
    peer.remote = base::IpAddress::v4(0xcb007109);
  }
  bool operator()() {
    RequestHead head;
    head.headers = HeaderTable(storage, 128);
    Scratch scratch(memory);
    RequestOrigin origin;
    random[0] += 0x9e3779b97f4a7c15;
    if (parse_request_head(heads.next(), 0, {}, &head).status != ParseStatus::kDone) return false;
    const BodyFraming framing = request_framing(head);
    normalize_path(&head, options, scratch);
    mutate_request(&head, options, peer, random, scratch, &origin);
    mutate_upstream_request(&head, options, 15000, scratch);
    const size_t written = write_request_head(head, framing, out);
    benchmark::DoNotOptimize(out.data());
    benchmark::ClobberMemory();
    return written > 0;
  }
};
struct ForwardResponse {
  Heads heads = Heads::responses();
  std::vector<char> out = std::vector<char>(8192), memory = std::vector<char>(1024);
  Header storage[128];
  bool operator()() {
    ResponseHead head;
    head.headers = HeaderTable(storage, 128);
    Scratch scratch(memory);
    if (parse_response_head(heads.next(), 0, {}, &head).status != ParseStatus::kDone) return false;
    ResponseWrite how;
    how.framing = response_framing(head, "GET", false);
    mutate_upstream_response(&head, {}, 3, scratch);
    mutate_response(&head, {}, {"Mon, 23 Nov 2026 06:00:00 GMT", "", false}, scratch);
    const size_t written = write_response_head(head, how, out);
    benchmark::DoNotOptimize(out.data());
    benchmark::ClobberMemory();
    return written > 0;
  }
};

template <class Work>
void run(benchmark::State& state, Work work) {
  for (auto _ : state)
    if (!work()) return state.SkipWithError("a head of the benchmark is refused");
  report(state, work.heads);
}
void parse_request(benchmark::State& state, Kind kind) { run(state, ParseRequest{Heads::requests(kind), {}}); }
BENCHMARK_CAPTURE(parse_request, wrk, kWrk);
BENCHMARK_CAPTURE(parse_request, browser, kBrowser);
BENCHMARK_CAPTURE(parse_request, api, kApi);
BENCHMARK_CAPTURE(parse_request, mixed, kMixed);
void parse_response(benchmark::State& state) { run(state, ParseResponse{}); }
BENCHMARK(parse_response);
void forward_request(benchmark::State& state, Kind kind) { run(state, ForwardRequest(Heads::requests(kind))); }
BENCHMARK_CAPTURE(forward_request, wrk, kWrk);
BENCHMARK_CAPTURE(forward_request, browser, kBrowser);
BENCHMARK_CAPTURE(forward_request, api, kApi);
BENCHMARK_CAPTURE(forward_request, mixed, kMixed);
void forward_response(benchmark::State& state) { run(state, ForwardResponse{}); }
BENCHMARK(forward_response);

// A chunked body of chunks of that size, in packets of 1460 bytes.
void decode_chunked(benchmark::State& state) {
  const size_t chunk = static_cast<size_t>(state.range(0));
  std::string stream;
  while (stream.size() < 100'000) {
    char head[kMaxChunkHeaderBytes];
    stream.append(head, write_chunk_header(chunk, head)).append(chunk, 'x').append(kChunkEnd);
  }
  stream += kLastChunk;
  for (auto _ : state) {
    BodyDecoder d;
    d.start({Framing::kChunked, 0});
    for (size_t at = 0; at < stream.size(); at += 1460) {
      base::ByteSpan packet = base::as_bytes(std::string_view(stream).substr(at, 1460));
      while (!packet.empty()) {
        const BodyDecoder::Step s = d.step(packet);
        packet = packet.subspan(s.skip + s.data);
        if (s.status != BodyStatus::kMore) break;
      }
    }
    if (d.body_bytes() == 0) return state.SkipWithError("no body");
    benchmark::DoNotOptimize(d.body_bytes());
  }
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * stream.size()));
}
BENCHMARK(decode_chunked)->Arg(16)->Arg(512)->Arg(16384);

void look_up_name(benchmark::State& state) {
  constexpr std::string_view kNames[] = {"host",         "accept-encoding", "x-forwarded-for", "sec-fetch-mode",
                                         "content-type", "cookie",          "x-foo",           "te"};
  base::Prng random(3);
  std::vector<std::string_view> order(4096);
  for (std::string_view& name : order) name = kNames[random.below(std::size(kNames))];
  size_t i = 0;
  for (auto _ : state) benchmark::DoNotOptimize(header_id(order[i++ & 4095]));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(look_up_name);

template <class Work>
bench::CountedCase counted(const char* name, std::function<Work()> make) {
  return {name, [make] {
            auto work = std::make_shared<Work>(make());
            return [work] { (*work)(); };
          }};
}
const bench::CountedCase kCounted[] = {
    counted<ParseRequest>("parse-request-wrk",
                          [] {
                            return ParseRequest{Heads::requests(kWrk), {}};
                          }),
    counted<ParseRequest>("parse-request-browser",
                          [] {
                            return ParseRequest{Heads::requests(kBrowser), {}};
                          }),
    counted<ParseResponse>("parse-response", [] { return ParseResponse{}; }),
    counted<ForwardRequest>("forward-request-mixed", [] { return ForwardRequest(Heads::requests(kMixed)); }),
    counted<ForwardResponse>("forward-response", [] { return ForwardResponse{}; }),
};

}  // namespace

int main(int argc, char** argv) { return millrace::bench::bench_main(argc, argv, kCounted); }
