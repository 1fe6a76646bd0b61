// What it costs to look at a received frame: Ethernet, IP and TCP headers, each checked once (lib/wire). Frames lie 2 KB apart as
// in a packet pool, are of many flows, and come in a random order; "hot" ones fit the L1 cache, "pool" ones are 16 MB of them.
//   build/perf/bench-parser
#include <benchmark/benchmark.h>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "lib/base/prng.h"
#include "lib/wire/checksum.h"
#include "lib/wire/ethernet.h"
#include "lib/wire/ipv4.h"
#include "lib/wire/ipv6.h"
#include "lib/wire/tcp.h"
#include "perf/micro/measured.h"

using namespace millrace;
using namespace millrace::wire;

namespace {

enum Kind { kData, kAck, kSyn, kSack, kV6Data, kMixed };
constexpr size_t kFrameStride = 2048 + 128 + 128;  // as a payload packet of the data plane: mbuf, headroom, room

struct Frames {
  std::unique_ptr<uint8_t, decltype(&std::free)> memory{nullptr, &std::free};
  std::vector<base::ByteSpan> order;  // what is parsed, in this order

  Frames(Kind kind, size_t n) {
    memory.reset(static_cast<uint8_t*>(std::aligned_alloc(64, (n * kFrameStride + 63) / 64 * 64)));
    base::Prng random(42);
    std::vector<base::ByteSpan> all;
    for (size_t i = 0; i < n; ++i) {
      const Kind k = kind == kMixed ? static_cast<Kind>(random.below(kMixed)) : kind;
      uint8_t* at = memory.get() + i * kFrameStride;
      all.push_back({at, write(at, k, random)});
    }
    for (size_t i = 0; i < 4096; ++i) order.push_back(all[random.below(n)]);
  }

  static uint32_t write(uint8_t* out, Kind kind, base::Prng& random) {
    TcpRepr t;
    t.src_port = static_cast<uint16_t>(random.between(1024, 65535));
    t.dst_port = 443;
    t.seq = static_cast<uint32_t>(random.next());
    t.ack = static_cast<uint32_t>(random.next());
    t.window = static_cast<uint16_t>(random.next());
    t.flags = kTcpAck;
    uint32_t payload = 0;
    if (kind == kSyn) {
      t.flags = kTcpSyn;
      t.mss = 1460;
      t.wscale = 7;
      t.sack_permitted = true;
    }
    t.timestamps = TcpTimestamps{static_cast<uint32_t>(random.next()), static_cast<uint32_t>(random.next())};
    if (kind == kSack) {
      for (uint64_t b = random.between(1, 3); b > 0; --b) t.sack.push({t.ack + 1000, t.ack + 3000});
    }
    if (kind == kData || kind == kV6Data) {
      t.flags |= kTcpPsh;
      payload = static_cast<uint32_t>(random.between(40, 1400));
    }
    const bool v6 = kind == kV6Data;
    const uint32_t length = t.header_length() + payload;
    uint8_t* at = out;
    at += EthernetRepr{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}, static_cast<uint16_t>(v6 ? kEtherIpv6 : kEtherIpv4), 0}.emit(at);
    if (v6) {
      Ipv6Repr ip;
      ip.src = *base::IpAddress::parse("2001:db8::1");
      ip.dst = *base::IpAddress::parse("2001:db8::2");
      ip.src.bytes[15] = static_cast<uint8_t>(random.between(1, 255));
      ip.next_header = kIpTcp;
      ip.payload_length = static_cast<uint16_t>(length);
      at += ip.emit(at);
    } else {
      Ipv4Repr ip;
      ip.src = 0x0a000000 + static_cast<uint32_t>(random.below(1 << 16));
      ip.dst = 0x0a010001;
      ip.protocol = kIpTcp;
      ip.payload_length = static_cast<uint16_t>(length);
      at += ip.emit(at);
    }
    t.emit(at);
    return static_cast<uint32_t>(at - out) + length;
  }
};

// All of a frame's headers as the data plane reads them; the sum of what was read, so that nothing is left out.
uint64_t parse_frame(base::ByteSpan frame) {
  EthernetView e;
  if (EthernetView::parse(frame, e) != ParseError::kNone) return 0;
  const base::ByteSpan l3 = frame.subspan(e.payload_offset);
  uint64_t seen = 0;
  base::ByteSpan l4;
  if (e.ether_type == kEtherIpv4) {
    Ipv4View ip;
    if (Ipv4View::parse(l3, true, ip) != ParseError::kNone) return 0;
    seen = ip.src;
    l4 = l3.subspan(ip.payload_offset, ip.payload_length);
  } else {
    Ipv6View ip;
    if (Ipv6View::parse(l3, ip) != ParseError::kNone) return 0;
    seen = ip.src.bytes[15];
    l4 = l3.subspan(ip.payload_offset, ip.payload_length);
  }
  TcpView tcp;
  if (TcpView::parse(l4, tcp) != ParseError::kNone) return 0;
  benchmark::DoNotOptimize(tcp);
  return seen + tcp.seq + tcp.payload_length;
}

void parse(benchmark::State& state, Kind kind) {
  const Frames frames(kind, static_cast<size_t>(state.range(0)));
  size_t i = 0;
  for (auto _ : state) {
    const uint64_t seen = parse_frame(frames.order[i++ & 4095]);
    if (seen == 0) return state.SkipWithError("a frame of the benchmark is refused");
    benchmark::DoNotOptimize(seen);
  }
  state.SetItemsProcessed(state.iterations());
}
constexpr int64_t kHot = 12, kPool = 8192;
BENCHMARK_CAPTURE(parse, v4_data, kData)->Arg(kHot)->Arg(kPool);
BENCHMARK_CAPTURE(parse, v4_ack, kAck)->Arg(kHot);
BENCHMARK_CAPTURE(parse, v4_syn, kSyn)->Arg(kHot);
BENCHMARK_CAPTURE(parse, v4_sack, kSack)->Arg(kHot);
BENCHMARK_CAPTURE(parse, v6_data, kV6Data)->Arg(kHot)->Arg(kPool);
BENCHMARK_CAPTURE(parse, mixed, kMixed)->Arg(kHot)->Arg(kPool);

// The way out: headers of a data segment from values.
void write_headers(benchmark::State& state) {
  base::Prng random(7);
  std::vector<uint32_t> seqs(4096);
  for (uint32_t& s : seqs) s = static_cast<uint32_t>(random.next());
  uint8_t frame[128];
  size_t i = 0;
  for (auto _ : state) {
    TcpRepr t;
    t.src_port = 443;
    t.dst_port = static_cast<uint16_t>(seqs[i & 4095]);
    t.seq = seqs[i & 4095];
    t.ack = seqs[(i + 7) & 4095];
    t.flags = kTcpAck | kTcpPsh;
    t.window = 512;
    t.timestamps = TcpTimestamps{static_cast<uint32_t>(i), 5};
    uint8_t* at = frame;
    at += EthernetRepr{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}, kEtherIpv4, 0}.emit(at);
    Ipv4Repr ip;
    ip.src = 0x0a010001;
    ip.dst = seqs[i & 4095];
    ip.protocol = kIpTcp;
    ip.payload_length = static_cast<uint16_t>(t.header_length() + 64);
    at += ip.emit(at);
    t.emit(at);
    benchmark::DoNotOptimize(frame);
    ++i;
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(write_headers);

const bench::CountedCase kCounted[] = {{"parse-mixed", [] {
                                          auto frames = std::make_shared<Frames>(kMixed, 256);
                                          return [frames, i = size_t{0}]() mutable {
                                            benchmark::DoNotOptimize(parse_frame(frames->order[i++ & 4095]));
                                          };
                                        }}};

}  // namespace

int main(int argc, char** argv) { return millrace::bench::bench_main(argc, argv, kCounted); }
