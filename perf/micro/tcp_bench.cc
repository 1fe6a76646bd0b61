// What lib/tcp costs per segment, without I/O: two TCBs in one thread, segments handed over as values, payload from a pool on the
// heap.
//   ninja -C build perf/micro/tcp_bench && build/perf/micro/tcp_bench
// The pool here is the tests' strict one (it checks each free), so the figures are a ceiling; items are segments.
#include <array>
#include <benchmark/benchmark.h>
#include <memory>
#include <vector>

#include "lib/tcp/listener.h"
#include "lib/tcp/tcb.h"
#include "lib/tcp/tcp.h"
#include "tests/support/heap_packet_pool.h"

using namespace millrace;
using namespace millrace::tcp;

namespace {

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

struct Pair {
  support::HeapPacketPool pool{4096, 2048};
  Tcb a, b;
  Config config;
  TimeNs now = base::kSecond;
  uint64_t segments = 0;

  Pair() {
    const auto x = base::IpAddress::v4(0x0a000001), y = base::IpAddress::v4(0x0a000002);
    open_active(a, {x, y, 40'000, 80}, config, 1, now);
    OutSegment out;
    poll_output(a, now, out);
    open_passive(b, {y, x, 80, 40'000}, config, received(out), 2, now);
    for (int i = 0; i < 4; ++i) {
      move(b, a);
      move(a, b);
    }
    MILLRACE_ASSERT(state(a) == State::kEstablished && state(b) == State::kEstablished, "a finished handshake");
  }
  ~Pair() {
    release(a);
    release(b);
  }

  // Everything that `from` has due goes to `to`.
  void move(Tcb& from, Tcb& to) {
    OutSegment out;
    while (poll_output(from, now, out)) {
      io::PacketPtr payload;
      if (out.payload_len > 0) {
        payload = pool.alloc();
        from.tx.peek(out.payload_offset, payload.append(out.payload_len), out.payload_len);
      }
      input(to, received(out), std::move(payload), now);
      ++segments;
    }
  }
  void read(Tcb& t) {
    t.rx.clear();
    window_update(t, now);
  }
};

// One request and one response of `bytes` each: what a keep-alive connection does all day. Two segments an iteration, ACKs ride
// along.
void request_response(benchmark::State& s) {
  Pair p;
  const std::vector<uint8_t> bytes(static_cast<size_t>(s.range(0)), 1);
  for (auto _ : s) {
    p.now += 50 * base::kMicrosecond;
    send_copy(p.a, bytes, p.pool);
    p.move(p.a, p.b);
    p.read(p.b);
    send_copy(p.b, bytes, p.pool);
    p.move(p.b, p.a);
    p.read(p.a);
  }
  s.SetItemsProcessed(static_cast<int64_t>(p.segments));
}
BENCHMARK(request_response)->Arg(100)->Arg(1000);

// One way, in full segments: data and the delayed ACKs.
void bulk(benchmark::State& s) {
  Pair p;
  const std::vector<uint8_t> bytes(14'480, 1);
  for (auto _ : s) {
    p.now += 50 * base::kMicrosecond;
    send_copy(p.a, bytes, p.pool);
    p.move(p.a, p.b);
    p.read(p.b);
    p.move(p.b, p.a);
  }
  s.SetItemsProcessed(static_cast<int64_t>(p.segments));
  s.SetBytesProcessed(s.iterations() * 14'480);
}
BENCHMARK(bulk);

// The receive side alone: the next segment in order, over many connections, so that the TCBs come from memory and not from the L1
// cache.
void input_in_order(benchmark::State& s) {
  support::HeapPacketPool pool(64, 2048);
  const size_t n = static_cast<size_t>(s.range(0));
  std::vector<std::unique_ptr<Tcb>> tcbs;
  Config config;
  config.timestamps = false;
  TimeNs now = base::kSecond;
  for (size_t i = 0; i < n; ++i) {
    auto t = std::make_unique<Tcb>();
    wire::TcpView syn;
    syn.seq = 0;
    syn.flags = wire::kTcpSyn;
    syn.window = 60'000;
    syn.mss = 1460;
    open_passive(*t, {base::IpAddress::v4(1), base::IpAddress::v4(2), 80, static_cast<uint16_t>(i)}, config, syn, 0, now);
    OutSegment out;
    while (poll_output(*t, now, out)) {
    }
    wire::TcpView ack = syn;
    ack.flags = wire::kTcpAck;
    ack.seq = ack.ack = 1;
    input(*t, ack, {}, now);
    tcbs.push_back(std::move(t));
  }
  size_t i = 0;
  for (auto _ : s) {
    Tcb& t = *tcbs[i++ % n];
    wire::TcpView v;
    v.seq = t.rcv_nxt;
    v.ack = t.snd_una;
    v.window = 60'000;
    v.flags = wire::kTcpAck | wire::kTcpPsh;
    v.payload_length = 100;
    io::PacketPtr p = pool.alloc();
    p.append(100);
    benchmark::DoNotOptimize(input(t, v, std::move(p), now));
    t.rx.clear();
    window_update(t, now);
  }
  s.SetItemsProcessed(s.iterations());
  for (auto& t : tcbs) release(*t);
}
BENCHMARK(input_in_order)->Arg(1)->Arg(1000)->Arg(50'000);

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
    benchmark::DoNotOptimize(cookies.check(t, ack, config, base::kSecond));
  }
}
BENCHMARK(syn_cookie);

}  // namespace

BENCHMARK_MAIN();
