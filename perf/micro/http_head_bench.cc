// HTTP/1 codec: nanoseconds and bytes a second per head and per chunked packet. Names say what the input is; "wrk" is the head
// that wrk sends (the benchmark of the whole gateway), "browser" a Chrome request of 12 fields.
#include <benchmark/benchmark.h>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "lib/http/forward.h"
#include "lib/http/h1_body.h"
#include "lib/http/h1_parser.h"
#include "lib/http/h1_writer.h"

namespace {

using namespace millrace;
using namespace millrace::http;

constexpr std::string_view kWrk = "GET / HTTP/1.1\r\nHost: 10.0.0.1:8080\r\n\r\n";
constexpr std::string_view kBrowser =
    "GET /static/js/app.3f2a1b.js?v=20260101 HTTP/1.1\r\nHost: www.example.com\r\nConnection: keep-alive\r\n"
    "sec-ch-ua: \"Chromium\";v=\"124\", \"Google Chrome\";v=\"124\", \"Not-A.Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36\r\n"
    "sec-ch-ua-platform: \"Linux\"\r\nAccept: */*\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: no-cors\r\n"
    "Referer: https://www.example.com/products/overview\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-US,en;q=0.9,de;q=0.8\r\nCookie: sid=8d5f4e0b6c7a4b1d9e2f3a4b5c6d7e8f; theme=dark; consent=all\r\n\r\n";
constexpr std::string_view kResponse =
    "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 06:00:00 GMT\r\nContent-Type: "
    "text/html\r\nContent-Length: 615\r\n"
    "Last-Modified: Tue, 19 Oct 2021 10:00:00 GMT\r\nConnection: keep-alive\r\nETag: \"616e9a40-267\"\r\nAccept-Ranges: "
    "bytes\r\n\r\n";

// The head is copied in front of each parse, as a head that came out of a packet is: names are lowered in place.
void parse_request(benchmark::State& state, std::string_view text) {
  std::vector<char> bytes(text.begin(), text.end());
  Header storage[128];
  RequestHead head;
  head.headers = HeaderTable(storage, 128);
  const H1Limits limits;
  for (auto _ : state) {
    std::memcpy(bytes.data(), text.data(), text.size());
    benchmark::DoNotOptimize(parse_request_head(bytes, 0, limits, &head));
    benchmark::DoNotOptimize(storage);
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
}
BENCHMARK_CAPTURE(parse_request, wrk, kWrk);
BENCHMARK_CAPTURE(parse_request, browser, kBrowser);

void parse_response(benchmark::State& state) {
  std::vector<char> bytes(kResponse.begin(), kResponse.end());
  Header storage[128];
  ResponseHead head;
  head.headers = HeaderTable(storage, 128);
  const H1Limits limits;
  for (auto _ : state) {
    std::memcpy(bytes.data(), kResponse.data(), kResponse.size());
    benchmark::DoNotOptimize(parse_response_head(bytes, 0, limits, &head));
    benchmark::DoNotOptimize(storage);
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kResponse.size()));
}
BENCHMARK(parse_response);

// Everything the proxy does to a request head but routing: parse, path, header rules, write.
void forward_request(benchmark::State& state, std::string_view text) {
  std::vector<char> bytes(text.begin(), text.end()), out(4096), memory(4096);
  Header storage[128];
  const H1Limits limits;
  ForwardOptions options;
  options.use_remote_address = true;
  Downstream peer;
  peer.remote = base::IpAddress::v4(0xcb007109);
  const uint64_t random[2] = {0x0123456789abcdef, 0xfedcba9876543210};
  for (auto _ : state) {
    std::memcpy(bytes.data(), text.data(), text.size());
    RequestHead head;
    head.headers = HeaderTable(storage, 128);
    Scratch scratch(memory);
    RequestOrigin origin;
    parse_request_head(bytes, 0, limits, &head);
    const BodyFraming framing = request_framing(head);
    normalize_path(&head, options, scratch);
    mutate_request(&head, options, peer, random, scratch, &origin);
    mutate_upstream_request(&head, options, 15000, scratch);
    benchmark::DoNotOptimize(write_request_head(head, framing, out));
    benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
}
BENCHMARK_CAPTURE(forward_request, wrk, kWrk);
BENCHMARK_CAPTURE(forward_request, browser, kBrowser);

void forward_response(benchmark::State& state) {
  std::vector<char> bytes(kResponse.begin(), kResponse.end()), out(4096), memory(1024);
  Header storage[128];
  const H1Limits limits;
  for (auto _ : state) {
    std::memcpy(bytes.data(), kResponse.data(), kResponse.size());
    ResponseHead head;
    head.headers = HeaderTable(storage, 128);
    Scratch scratch(memory);
    parse_response_head(bytes, 0, limits, &head);
    ResponseWrite how;
    how.framing = response_framing(head, "GET", false);
    mutate_upstream_response(&head, {}, 3, scratch);
    mutate_response(&head, {}, {"Mon, 23 Nov 2026 06:00:00 GMT", "", false}, scratch);
    benchmark::DoNotOptimize(write_response_head(head, how, out));
    benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kResponse.size()));
}
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
    benchmark::DoNotOptimize(d.body_bytes());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * stream.size()));
}
BENCHMARK(decode_chunked)->Arg(16)->Arg(512)->Arg(16384);

void look_up_name(benchmark::State& state) {
  const std::string_view names[] = {"host",         "accept-encoding", "x-forwarded-for", "sec-fetch-mode",
                                    "content-type", "cookie",          "x-foo",           "te"};
  size_t i = 0;
  for (auto _ : state) benchmark::DoNotOptimize(header_id(names[i++ & 7]));
}
BENCHMARK(look_up_name);

}  // namespace

BENCHMARK_MAIN();
