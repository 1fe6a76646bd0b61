// What lib/tcp costs per segment, without I/O: two TCBs in one thread, segments handed over as values, payload in packets of a
// pool as the data plane has them. Items are segments.
//   build/perf/bench-tcp
#include <benchmark/benchmark.h>
#include <cstdio>
#include <memory>
#include <optional>
#include <vector>

#include "lib/base/prng.h"
#include "lib/io/packet_pool.h"
#include "lib/tcp/listener.h"
#include "lib/tcp/repair.h"
#include "lib/tcp/tcb.h"
#include "lib/tcp/tcp.h"
#include "perf/micro/eal.h"
#include "perf/micro/measured.h"

using namespace millrace;
using namespace millrace::tcp;

namespace {

constexpr uint32_t kPackets = 65'536;
constexpr size_t kOrder = 4096;  // requests before sizes and connections repeat

io::PacketPool& packets() {
  static io::PacketPool pool = [] {
    if (const base::Status s = bench::start_eal(); !s.ok()) {
      std::fprintf(stderr, "bench-tcp: %s\n", s.error().c_str());
      std::exit(1);
    }
    return io::make_eal_pool("payload", kPackets, io::kPayloadRoom, 0).value();
  }();
  return pool;
}

// A received header as the parser would give it.
wire::TcpView received(const OutSegment& out) {
  const wire::TcpRepr& h = out.header;
  wire::TcpView v;
  v.src_port = h.src_port;
  v.dst_port = h.dst_port;
  v.seq = h.seq;
  v.ack = h.ack;
  v.window = h.window;
  v.flags = h.flags;
  v.sack_permitted = h.sack_permitted;
  v.wscale = h.wscale;
  v.mss = h.mss;
  v.timestamps = h.timestamps;
  v.sack = h.sack;
  v.payload_length = out.payload_len;
  return v;
}

// Both ends of a connection.
struct Pair {
  Tcb a, b;

  Pair(const Profile& profile, uint16_t port, TimeNs now) {
    const auto x = base::IpAddress::v4(0x0a000001), y = base::IpAddress::v4(0x0a000002);
    open_active(a, {x, y, port, 80}, profile, 1, now);
    OutSegment out;
    poll_output(a, now, out);
    open_passive(b, {y, x, 80, port}, profile, received(out), 2, now);
    for (int i = 0; i < 4; ++i) {
      move(b, a, now);
      move(a, b, now);
    }
    MILLRACE_ASSERT(state(a) == State::kEstablished && state(b) == State::kEstablished, "a finished handshake");
  }
  ~Pair() {
    release(a);
    release(b);
  }
  // Everything that `from` has due goes to `to`; how many segments.
  uint32_t move(Tcb& from, Tcb& to, TimeNs now) {
    OutSegment out;
    uint32_t segments = 0;
    while (poll_output(from, now, out)) {
      io::PacketPtr payload;
      if (out.payload_len > 0) {
        payload = packets().alloc();
        from.tx.peek(out.payload_offset, payload.append(out.payload_len), out.payload_len);
      }
      input(to, received(out), std::move(payload), now);
      ++segments;
    }
    return segments;
  }
  // The application takes everything.
  static uint64_t read(Tcb& t, TimeNs now) {
    const uint64_t bytes = t.rx.bytes();
    t.rx.clear();
    window_update(t, now);
    return bytes;
  }
};

// Many connections that take turns: a request one way, a response the other, ACKs ride along.
struct KeepAlive {
  RepairPool repairs{8};
  Profile profile{{}, &repairs};
  TimeNs now = base::kSecond;
  std::vector<std::unique_ptr<Pair>> pairs;
  std::vector<uint8_t> bytes = std::vector<uint8_t>(4096, 'x');
  struct Turn {
    uint32_t pair, request, response;
  };
  std::vector<Turn> order;
  size_t at = 0;

  // Bodies of 40 bytes up to `most`.
  KeepAlive(uint32_t connections, uint32_t most) {
    packets();
    base::Prng random(6);
    for (uint32_t i = 0; i < connections; ++i)
      pairs.push_back(std::make_unique<Pair>(profile, static_cast<uint16_t>(1024 + i), now));
    for (size_t i = 0; i < kOrder; ++i)
      order.push_back({static_cast<uint32_t>(random.below(connections)), static_cast<uint32_t>(random.between(40, most)),
                       static_cast<uint32_t>(random.between(40, most))});
  }
  // Segments moved; 0: something went wrong.
  uint32_t operator()() {
    const Turn& t = order[at++ & (kOrder - 1)];
    Pair& p = *pairs[t.pair];
    now += base::kMicrosecond;
    send_copy(p.a, {bytes.data(), t.request}, packets());
    uint32_t segments = p.move(p.a, p.b, now);
    if (Pair::read(p.b, now) != t.request) return 0;
    send_copy(p.b, {bytes.data(), t.response}, packets());
    segments += p.move(p.b, p.a, now);
    if (Pair::read(p.a, now) != t.response) return 0;
    return segments;
  }
};

void request_response(benchmark::State& s) {
  KeepAlive work(static_cast<uint32_t>(s.range(0)), static_cast<uint32_t>(s.range(1)));
  int64_t segments = 0;
  for (auto _ : s) {
    const uint32_t moved = work();
    if (moved == 0) return s.SkipWithError("bytes are missing");
    segments += moved;
  }
  s.SetItemsProcessed(segments);
}
BENCHMARK(request_response)->Args({1, 400})->Args({64, 400})->Args({64, 1400})->Args({10'000, 400});

// One way, in full segments: data and the delayed ACKs.
void bulk(benchmark::State& s) {
  packets();
  constexpr size_t kBytes = 14'480;
  RepairPool repairs{8};
  const Profile profile{{}, &repairs};
  TimeNs now = base::kSecond;
  Pair p(profile, 1024, now);
  const std::vector<uint8_t> bytes(kBytes, 1);
  int64_t segments = 0;
  for (auto _ : s) {
    now += 50 * base::kMicrosecond;
    send_copy(p.a, bytes, packets());
    segments += p.move(p.a, p.b, now);
    Pair::read(p.b, now);
    segments += p.move(p.b, p.a, now);
  }
  s.SetItemsProcessed(segments);
  s.SetBytesProcessed(s.iterations() * static_cast<int64_t>(kBytes));
}
BENCHMARK(bulk);

// A SYN answered with a cookie, and the ACK that comes back.
void syn_cookie(benchmark::State& s) {
  const SynCookies cookies({1, 2});
  Config config;
  wire::TcpView syn, ack;
  syn.flags = wire::kTcpSyn;
  syn.mss = 1460;
  ack.flags = wire::kTcpAck;
  FourTuple t{base::IpAddress::v4(1), base::IpAddress::v4(2), 80, 40'000};
  for (auto _ : s) {
    ++syn.seq;
    ack.seq = syn.seq + 1;
    ack.ack = cookies.make(t, syn, base::kSecond) + 1;
    const auto answer = cookies.check(t, ack, config, base::kSecond);
    if (!answer) return s.SkipWithError("a cookie is refused");
    benchmark::DoNotOptimize(answer);
  }
  s.SetItemsProcessed(s.iterations());
}
BENCHMARK(syn_cookie);

bench::CountedCase counted(const char* name, uint32_t connections, uint32_t most) {
  return {name, [=] {
            auto work = std::make_shared<KeepAlive>(connections, most);
            return [work] { (*work)(); };
          }};
}
const bench::CountedCase kCounted[] = {counted("input-output", 64, 400), counted("input-output-1400", 64, 1400)};

}  // namespace

int main(int argc, char** argv) { return bench::bench_main(argc, argv, kCounted); }
