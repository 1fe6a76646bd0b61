// The engine as a whole: every kind of load is clean on a good cable, and every fault of a bad one is in the result.
#include <gtest/gtest.h>

#include "lib/tls/memory.h"
#include "lib/wire/arp.h"
#include "lib/wire/checksum.h"
#include "lib/wire/ethernet.h"
#include "tests/unit/load/engine_rig.h"

namespace millrace::load {
namespace {

// --- good cables ------------------------------------------------------------------------------------------------------------

struct CleanCase {
  const char* name;
  std::function<void(Rig&)> set;
  std::function<void(Rig&)> check;
};

void PrintTo(const CleanCase& c, std::ostream* out) { *out << c.name; }

class CleanRun : public testing::TestWithParam<CleanCase> {};

TEST_P(CleanRun, IsClean) {
  Rig rig;
  GetParam().set(rig);
  rig.run();
  EXPECT_EQ(rig.clients.failure, "");
  EXPECT_TRUE(rig.clients.clean()) << errors_of(rig.c());
  EXPECT_EQ(errors_of(rig.s()), "");
  EXPECT_GT(rig.c().responses, 0u);
  EXPECT_EQ(rig.c().responses, rig.c().requests_sent);
  EXPECT_EQ(rig.s().server_requests, rig.c().requests_sent);
  EXPECT_EQ(rig.servers.last.server_connections, 0u) << "the servers end what is left";
  EXPECT_TRUE(rig.client_pool.balanced());
  EXPECT_TRUE(rig.server_pool.balanced());
  if (GetParam().check) GetParam().check(rig);
}

base::IpAddress ip(const char* text) { return *base::IpAddress::parse(text); }

const CleanCase kCleanCases[] = {
    {"keep_alive", [](Rig&) {},
     [](Rig& r) {
       EXPECT_EQ(r.c().connected, 8u);
       // One request and its answer take two cable delays and up to two steps.
       EXPECT_GE(r.clients.latency.min(), 2 * kCableDelay);
       EXPECT_LE(r.clients.latency.max(), 4 * kCableDelay + 20 * kStep) << "the first ones wait for their connection";
       EXPECT_EQ(r.c().response_bytes, 64 * r.c().responses);
     }},
    {"pipeline", [](Rig& r) { r.client_options.pipeline = 16; },
     [](Rig& r) { EXPECT_LT(r.c().tx_frames, r.c().requests_sent) << "requests share segments"; }},
    {"the_longest_pipeline", [](Rig& r) { r.client_options.pipeline = kMaxPipeline; }, nullptr},
    {"one_request_each", [](Rig& r) { r.client_options.requests_per_connection = 1; },
     [](Rig& r) {
       EXPECT_LE(r.c().connected - r.c().closed, 8u) << "those that were open at the end";
       EXPECT_GE(r.c().connected, r.c().requests_sent);
     }},
    {"three_requests_pipelined",
     [](Rig& r) {
       r.client_options.requests_per_connection = 3;
       r.client_options.pipeline = 2;
     },
     [](Rig& r) { EXPECT_GT(r.c().closed, 10u); }},
    {"close_by_header",
     [](Rig& r) {
       r.client_options.requests_per_connection = 2;
       r.client_options.close = CloseMode::kHeader;
     },
     [](Rig& r) { EXPECT_GT(r.c().closed, 10u); }},
    {"close_by_reset",
     [](Rig& r) {
       r.client_options.requests_per_connection = 2;
       r.client_options.close = CloseMode::kReset;
     },
     [](Rig& r) { EXPECT_GT(r.c().closed, 10u); }},
    {"servers_close", [](Rig& r) { r.server_options.server_close_after = 3; }, [](Rig& r) { EXPECT_GT(r.s().accepted, 10u); }},
    {"request_body",
     [](Rig& r) {
       r.client_options.method = "POST";
       r.client_options.request_body = 20'000;
     },
     [](Rig& r) { EXPECT_EQ(r.s().request_bytes, 20'000 * r.s().server_requests); }},
    {"large_answers",
     [](Rig& r) {
       r.client_options.response_body = r.server_options.response_body = 1 << 20;
       r.client_options.connections = 3;
     },
     [](Rig& r) { EXPECT_EQ(r.c().response_bytes, r.c().responses << 20); }},
    {"no_body", [](Rig& r) { r.client_options.response_body = r.server_options.response_body = 0; }, nullptr},
    {"chunked_answers",
     [](Rig& r) {
       r.client_options.response_body = r.server_options.response_body = 5000;
       r.server_options.server_chunked = true;
     },
     nullptr},
    {"head", [](Rig& r) { r.client_options.method = "HEAD"; }, nullptr},
    {"many_paths",
     [](Rig& r) {
       r.targets.clear();
       for (int i = 0; i < 500; ++i) r.targets += "host-" + std::to_string(i % 7) + ".example /path/" + std::to_string(i) + "\n";
       r.client_options.zipf = 1.1;
     },
     nullptr},
    {"two_targets",
     [](Rig& r) {
       r.client_options.targets = {{ip("10.65.0.1"), 80}, {ip("10.65.0.4"), 81}};
     },
     nullptr},
    {"a_small_window",
     [](Rig& r) {
       r.client_options.window = 4096;
       r.client_options.response_body = r.server_options.response_body = 100'000;
     },
     [](Rig& r) { EXPECT_GT(r.s().window_stalls, 0u); }},
    {"open_loop",
     [](Rig& r) {
       r.client_options.rate = 20'000;
       r.client_options.connections = 32;
     },
     [](Rig& r) {
       const double rate =
           static_cast<double>((r.clients.end.counters - r.clients.start.counters).responses) / r.clients.seconds();
       EXPECT_NEAR(rate, 20'000, 200);
       EXPECT_EQ(r.clients.end.backlog, 0u);
     }},
    {"open_loop_poisson",
     [](Rig& r) {
       r.client_options.rate = 20'000;
       r.client_options.poisson = true;
       r.client_options.connections = 64;
     },
     [](Rig& r) {
       const double rate =
           static_cast<double>((r.clients.end.counters - r.clients.start.counters).responses) / r.clients.seconds();
       EXPECT_NEAR(rate, 20'000, 1500);
     }},
    {"open_loop_connection_each",
     [](Rig& r) {
       r.client_options.rate = 5'000;
       r.client_options.requests_per_connection = 1;
       r.client_options.connections = 64;
     },
     [](Rig& r) { EXPECT_NEAR(static_cast<double>(r.c().connected), 5'000 * r.clients.seconds(), 60); }},
    {"idle",
     [](Rig& r) {
       r.client_options.idle = 3000;
       r.client_options.ramp = 100'000;
       r.client_options.connections = 4;
     },
     [](Rig& r) {
       EXPECT_EQ(r.clients.end.idle_connections, 3000u);
       EXPECT_EQ(r.clients.end.client_connections, 3004u);
     }},
    {"idle_alone",
     [](Rig& r) {
       r.client_options.idle = 100;
       r.client_options.connections = 0;
     },
     [](Rig& r) { EXPECT_EQ(r.c().responses, 100u); }},
    {"so_many_requests", [](Rig& r) { r.client_options.requests = 1234; }, [](Rig& r) { EXPECT_EQ(r.c().responses, 1234u); }},
    {"ipv6",
     [](Rig& r) {
       r.client_options.wires[0].router = {ip("fd63::1"), 64};
       r.client_options.wires[0].dut = ip("fd63::2");
       r.client_options.clients = {ip("fd64::"), 112};
       r.client_options.targets = {{ip("fd65::1"), 80}};
       r.server_options.wires[0].router = {ip("fd63::2"), 64};
       r.server_options.wires[0].dut = ip("fd63::1");
       r.server_options.servers = {{ip("fd65::1"), ip("fd65::2"), 80, 80}};
     },
     nullptr},
};

INSTANTIATE_TEST_SUITE_P(Load, CleanRun, testing::ValuesIn(kCleanCases), [](const auto& i) { return std::string(i.param.name); });

// --- bad cables -------------------------------------------------------------------------------------------------------------

uint64_t repairs(const Counters& c) { return c.retransmissions + c.syn_retransmissions + c.duplicates + c.rx_out_of_order; }

// Ports that take segments uncut, as net_vhost does with tso=1: bodies are sent by reference to the pattern where the port
// copies, and are the same bytes whichever way. Buffers hold whole frames.
void take_uncut(Rig& rig, bool copies) {
  for (support::FakePort* port : {&rig.client_port, &rig.server_port}) {
    io::PortCapabilities& c = port->change();
    c.tso = c.tx_multi_segment = c.tx_tcp_checksum = c.tso_sum_with_length = c.partial_rx_checksum = true;
    c.tx_copies = copies;
    c.max_tx_segments = 2;
  }
}

TEST(UncutRun, BodiesByReferenceAreTheSameBytes) {
  struct Case {
    const char* what;
    bool copies;
    uint32_t request, response, pipeline, lose;
    bool chunked;
  };
  const Case cases[] = {
      {"copied", false, 0, 1'000'000, 1, 0, false},
      {"by reference", true, 0, 1'000'000, 1, 0, false},
      {"requests too", true, 300'000, 100'000, 1, 0, false},
      {"several answers in a frame, each too small to refer to", true, 0, 700, 32, 0, false},
      {"several answers in a frame, some by reference", true, 0, 9'000, 16, 0, false},
      {"chunks", true, 0, 200'000, 1, 0, true},
      {"sent again from anywhere in the stream", true, 50'000, 150'001, 2, 10, false},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    Rig rig(1024, 60'000);
    take_uncut(rig, c.copies);
    for (Options* o : {&rig.client_options, &rig.server_options}) {
      o->response_body = c.response;
      o->request_body = c.request;
      o->pipeline = c.pipeline;
      o->server_chunked = c.chunked;
    }
    if (c.request != 0) rig.client_options.method = "POST";
    rig.client_options.duration_ns = 250 * base::kMillisecond;
    rig.to_server.lose = rig.to_client.lose = c.lose;
    rig.run();
    EXPECT_GT(rig.c().responses, 20u);
    EXPECT_EQ(rig.c().body + rig.c().length + rig.c().status + rig.c().malformed, 0u) << errors_of(rig.c());
    if (c.lose == 0) {
      EXPECT_EQ(errors_of(rig.c()) + errors_of(rig.s()), "");
      EXPECT_EQ(rig.c().response_bytes, uint64_t{c.response} * rig.c().responses);
      if (c.response > 50'000) {
        EXPECT_LT(rig.s().tx_frames, rig.c().response_bytes / 10'000) << "frames were cut";
      }
    }
    EXPECT_TRUE(rig.client_pool.balanced());
    EXPECT_TRUE(rig.server_pool.balanced());
  }
}

TEST(FaultyRun, LostFramesAreRepairedAndCounted) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rig rig;
    rig.client_options.response_body = rig.server_options.response_body = 20'000;
    rig.client_options.duration_ns = 3 * base::kSecond;
    rig.client_options.requests_per_connection = 20;
    rig.to_server = Cable(seed), rig.to_client = Cable(seed + 100);
    rig.to_server.lose = rig.to_client.lose = 10;
    rig.run();
    EXPECT_GT(rig.c().responses, 200u);
    EXPECT_FALSE(rig.clients.clean());
    EXPECT_GT(repairs(rig.c()), 0u);
    EXPECT_GT(rig.s().retransmissions, 0u) << "answers were lost";
    EXPECT_EQ(rig.c().body + rig.c().length + rig.c().status + rig.c().malformed, 0u) << errors_of(rig.c());
    EXPECT_TRUE(rig.client_pool.balanced() && rig.server_pool.balanced());
  }
}

TEST(FaultyRun, LossOfItsOwnMakingIsTheSame) {
  Rig rig;
  rig.client_options.loss = 0.01;
  rig.client_options.duration_ns = 2 * base::kSecond;
  rig.run();
  EXPECT_GT(rig.c().responses, 500u);
  EXPECT_GT(rig.c().retransmissions, 0u);
  EXPECT_FALSE(rig.clients.clean());
}

TEST(FaultyRun, ReorderedFramesAreCounted) {
  Rig rig;
  rig.client_options.response_body = rig.server_options.response_body = 50'000;
  rig.client_options.duration_ns = base::kSecond;
  rig.to_client.hold_back = 20;
  rig.run();
  EXPECT_GT(rig.c().responses, 20u);
  EXPECT_GT(rig.c().rx_out_of_order, 0u);
  EXPECT_FALSE(rig.clients.clean());
}

TEST(FaultyRun, RepeatedFramesAreCounted) {
  Rig rig;
  rig.to_client.repeat = 50;
  rig.run();
  EXPECT_GT(rig.c().responses, 500u);
  EXPECT_GT(rig.c().duplicates, 0u);
  EXPECT_FALSE(rig.clients.clean());
}

constexpr size_t kPayload = 14 + 20 + 20;  // of frames without TCP options

TEST(FaultyRun, AWrongChecksumIsCountedAndDropped) {
  Rig rig;
  rig.client_options.duration_ns = 2 * base::kSecond;
  uint32_t changed = 0;
  rig.to_client.change = [&](Frame& f) {
    if (f.size() > kPayload + 20 && rig.to_client.random.below(100) == 0) f.back() ^= 1, ++changed;
  };
  rig.run();
  EXPECT_GT(changed, 0u);
  EXPECT_EQ(rig.c().rx_bad_checksum, changed);
  EXPECT_EQ(rig.c().body, 0u);
  EXPECT_FALSE(rig.clients.clean());
}

// Changes a byte and mends the checksum, as a broken gateway would.
void change_byte(Frame& f, size_t at, uint8_t value) {
  uint16_t word_before, word_after;
  const size_t even = at - (at - 14) % 2;
  std::memcpy(&word_before, &f[even], 2);
  f[at] = value;
  std::memcpy(&word_after, &f[even], 2);
  uint16_t sum;
  std::memcpy(&sum, &f[14 + 20 + 16], 2);
  sum = wire::checksum_update16(sum, word_before, word_after);
  std::memcpy(&f[14 + 20 + 16], &sum, 2);
}

TEST(FaultyRun, AWrongByteInABodyIsFound) {
  Rig rig;
  uint32_t changed = 0;
  rig.to_client.change = [&](Frame& f) {
    if (f.size() > kPayload + 64 && changed < 5) change_byte(f, f.size() - 1 - rig.to_client.random.below(64), '!'), ++changed;
  };
  rig.run();
  EXPECT_EQ(rig.c().body, changed);
  EXPECT_EQ(errors_of(rig.c()), "body 5 ");
}

TEST(FaultyRun, AnAnswerToAnotherRequestIsFound) {
  // The servers see another path than the clients asked for, as if the gateway had mixed up two requests.
  Rig rig;
  rig.targets = "load.example /aaaa\n";
  uint32_t changed = 0;
  rig.to_server.change = [&](Frame& f) {
    if (f.size() > kPayload + 10 && f[kPayload] == 'G' && changed < 3) change_byte(f, kPayload + 5, 'b'), ++changed;
  };
  rig.run();
  EXPECT_EQ(rig.c().body, 3u) << errors_of(rig.c());
}

TEST(FaultyRun, AnotherStatusIsFound) {
  Rig rig;
  rig.to_client.change = [n = 0](Frame& f) mutable {
    if (f.size() > kPayload + 64 && ++n <= 7) change_byte(f, kPayload + 9, '5');
  };
  rig.run();
  EXPECT_EQ(errors_of(rig.c()), "status 7 ");
}

TEST(FaultyRun, AnotherLengthIsFound) {
  Rig rig;
  rig.client_options.response_body = 63;
  rig.run();
  EXPECT_EQ(rig.c().responses, 0u);
  EXPECT_EQ(rig.c().length, rig.c().requests_sent);
}

TEST(FaultyRun, WhatIsNotHttpIsFound) {
  Rig rig;
  rig.to_client.change = [n = 0](Frame& f) mutable {
    if (f.size() > kPayload + 64 && ++n == 20) change_byte(f, kPayload, 'X');
  };
  rig.run();
  EXPECT_EQ(rig.c().malformed, 1u) << errors_of(rig.c());
  EXPECT_GT(rig.c().responses, 500u) << "the other connections, and the next one of this slot, go on";
}

TEST(FaultyRun, ResetsAreCountedAndTheSlotGoesOn) {
  Rig rig;
  uint32_t made = 0;
  rig.to_client.change = [&](Frame& f) {  // an answer becomes an RST in the right place
    if (f.size() <= kPayload + 64 || made == 6 || rig.to_client.random.below(50) != 0) return;
    ++made;
    f.resize(kPayload);
    f[14 + 2] = 0, f[14 + 3] = 40;
    f[14 + 20 + 13] = 0x14;
    std::memset(&f[14 + 10], 0, 2);
    std::memset(&f[14 + 20 + 16], 0, 2);
    wire::store_checksum(&f[14 + 10], wire::checksum_finish(wire::checksum_sum({&f[14], 20})));
    const auto pseudo = wire::pseudo_header_v4(base::load_be32(&f[26]), base::load_be32(&f[30]), 6, 20);
    wire::store_checksum(&f[14 + 20 + 16], wire::checksum_finish(pseudo + wire::checksum_sum({&f[34], 20})));
  };
  rig.run();
  EXPECT_EQ(rig.c().reset, 6u) << errors_of(rig.c());
  EXPECT_EQ(rig.c().connected, 8u + 6u);
  EXPECT_EQ(rig.clients.end.client_connections, 8u);
}

TEST(FaultyRun, SilenceIsCountedAsTimeouts) {
  Rig rig;
  rig.client_options.timeout_ns = 300 * base::kMillisecond;
  rig.client_options.duration_ns = base::kSecond;
  rig.each_step = [&](base::TimeNs t) { rig.to_client.cut = t > 100 * base::kMillisecond; };
  rig.run();
  EXPECT_GE(rig.c().timeout, 8u);
  EXPECT_FALSE(rig.clients.clean());
}

TEST(FaultyRun, APeerThatNeverClosesDoesNotHoldTheSlot) {
  Rig rig;
  rig.client_options.requests_per_connection = 2;
  rig.client_options.timeout_ns = 50 * base::kMillisecond;
  rig.client_options.duration_ns = base::kSecond;
  rig.to_client.change = [](Frame& f) {
    if (f.size() >= kPayload && f[12] == 8 && f[13] == 0 && (f[14 + 20 + 13] & 1) != 0) f.clear();
  };
  rig.run();
  EXPECT_GE(rig.c().timeout, 8u) << errors_of(rig.c());
  EXPECT_GT(rig.c().connected, 40u);
}

TEST(FaultyRun, NobodyListens) {
  Rig rig;
  rig.client_options.targets = {{ip("10.65.0.1"), 8080}};
  rig.run();
  EXPECT_EQ(rig.clients.failure, "10.65.0.1 does not accept connections on port 8080");
  EXPECT_FALSE(rig.clients.clean());
}

TEST(FaultyRun, NobodyIsThere) {
  Rig rig;
  rig.to_server.cut = rig.to_client.cut = true;
  rig.run();
  EXPECT_EQ(rig.clients.failure, "no answer from 10.63.0.2 to ARP or neighbour discovery on memory");
}

// --- the open loop ------------------------------------------------------------------------------------------------------------

TEST(OpenLoop, AStallIsInEveryLatencyThatItDelayed) {
  // 1,000 requests/s, and for 200 ms no answer: 200 requests are late, the first by 200 ms, each next one by 1 ms less, although
  // one connection could only have asked once in that time.
  Rig rig;
  rig.client_options.connections = 1;
  rig.client_options.rate = 1000;
  rig.client_options.duration_ns = base::kSecond;
  rig.each_step = [&](base::TimeNs t) {
    if (t > 500 * base::kMillisecond && rig.to_client.stalled_until == 0)
      rig.to_client.stalled_until = base::kSecond + t + 200 * base::kMillisecond;
  };
  rig.run();
  const Histogram& h = rig.clients.latency;
  EXPECT_NEAR(static_cast<double>(h.count()), 1000, 5);
  EXPECT_NEAR(static_cast<double>(h.max()) / base::kMillisecond, 200, 3);
  EXPECT_NEAR(static_cast<double>(h.percentile(90)) / base::kMillisecond, 117, 25) << "half of the delayed ones are above 100 ms";
  EXPECT_LT(h.percentile(50), base::kMillisecond);
}

TEST(OpenLoop, WhatCannotBeServedIsBacklog) {
  Rig rig;
  rig.client_options.connections = 1;
  rig.client_options.rate = 100'000;  // one connection answers about 7,000/s over this cable
  rig.run();
  EXPECT_GT(rig.clients.end.backlog, 10'000u);
  EXPECT_GT(rig.clients.latency.max(), 100 * base::kMillisecond);
}

// --- TLS
// ------------------------------------------------------------------------------------------------------------------------

const bool kHooked = tls::install_memory_hooks().ok();  // before any test uses OpenSSL

struct TlsRun {
  support::HeapPacketPool packets{8192};
  std::unique_ptr<TlsPeer> peer;
  Rig rig;

  explicit TlsRun(bool tls12 = false, bool resume = false) {
    TlsConfig config;
    config.clients = config.servers = true;
    config.max_sessions = 64;
    config.sni = "load.example";
    config.tls12 = tls12;
    config.resume = resume;
    auto made = TlsPeer::create(config, packets.pool());
    EXPECT_TRUE(made.ok()) << (made.ok() ? "" : made.error());
    peer = std::move(*made);
    rig.client_tls = rig.server_tls = peer.get();
    rig.client_options.tls_clients = rig.server_options.tls_servers = true;
  }
  void run() {
    peer->start_thread();
    rig.run();
    EXPECT_EQ(peer->open(), 0u) << "every session is closed with its connection";
    peer->end_thread();
  }
};

TEST(Tls, KeepAliveIsClean) {
  for (const bool tls12 : {false, true}) {
    SCOPED_TRACE(tls12 ? "1.2" : "1.3");
    TlsRun t(tls12);
    t.run();
    EXPECT_TRUE(t.rig.clients.clean()) << errors_of(t.rig.c());
    EXPECT_EQ(errors_of(t.rig.s()), "");
    EXPECT_EQ(t.rig.c().responses, t.rig.c().requests_sent);
    EXPECT_GT(t.rig.c().responses, 500u);
    EXPECT_EQ(t.rig.c().handshakes_full, 8u);
  }
}

TEST(Tls, TicketsAreUsedWhereAsked) {
  TlsRun t(false, true);
  t.rig.client_options.requests_per_connection = 4;
  t.run();
  EXPECT_TRUE(t.rig.clients.clean()) << errors_of(t.rig.c());
  EXPECT_GT(t.rig.c().handshakes_resumed, 20u)
      << t.rig.c().handshakes_full << " full, " << t.rig.c().connected << " connected, " << t.rig.c().closed << " closed";
  EXPECT_LE(t.rig.c().handshakes_full, 16u);
  EXPECT_EQ(t.rig.s().server_handshakes_resumed, t.rig.c().handshakes_resumed);
}

TEST(Tls, LargeAnswersAndRequests) {
  TlsRun t;
  t.rig.client_options.connections = 3;
  t.rig.client_options.method = "POST";
  t.rig.client_options.request_body = 100'000;
  t.rig.client_options.response_body = t.rig.server_options.response_body = 1 << 20;
  t.run();
  EXPECT_TRUE(t.rig.clients.clean()) << errors_of(t.rig.c());
  EXPECT_GT(t.rig.c().responses, 5u);
  EXPECT_EQ(t.rig.s().request_bytes, 100'000 * t.rig.s().server_requests);
}

TEST(Tls, LossIsRepaired) {
  TlsRun t;
  t.rig.client_options.duration_ns = 3 * base::kSecond;
  t.rig.client_options.requests_per_connection = 10;
  t.rig.client_options.response_body = t.rig.server_options.response_body = 20'000;
  t.rig.to_server.lose = t.rig.to_client.lose = 10;
  t.run();
  EXPECT_GT(t.rig.c().responses, 40u);
  EXPECT_GT(t.rig.s().retransmissions, 0u);
  EXPECT_EQ(t.rig.c().body + t.rig.c().length + t.rig.c().status + t.rig.c().malformed + t.rig.c().tls, 0u)
      << errors_of(t.rig.c());
}

TEST(Tls, APeerThatSpeaksPlaintextIsCounted) {
  TlsRun t;
  t.rig.server_options.tls_servers = false;
  t.rig.client_options.timeout_ns = base::kSecond;
  t.run();
  EXPECT_EQ(t.rig.c().responses, 0u);
  EXPECT_FALSE(t.rig.clients.clean());
}

// --- servers and other roles
// ----------------------------------------------------------------------------------------------------

TEST(Forward, FramesComeBackWithMacAddressesSwapped) {
  support::HeapPacketPool pool;
  support::FakePort port({2, 0, 0, 0, 0, 9});
  Options o = rig_options(Role::kForward);
  auto table = TargetTable::single("a", "/");
  io::PortQueue* ports[] = {&port};
  o.duration_ns = 0;
  auto e = Engine::create(o, *table, ports, pool.pool(), nullptr, 1);
  ASSERT_TRUE(e.ok());
  Frame f(60, 0);
  for (int i = 0; i < 12; ++i) f[static_cast<size_t>(i)] = static_cast<uint8_t>(i);
  f[12] = 8, f[14] = 0x45, f[17] = 40, f[23] = 6;
  port.deliver(pool.make(base::ByteSpan(f)));
  (*e)->step(base::kSecond);
  Frame expected = f;
  for (size_t i = 0; i < 6; ++i) std::swap(expected[i], expected[6 + i]);
  bool found = false;
  for (Frame out = port.pop_sent_bytes(); !out.empty(); out = port.pop_sent_bytes()) found |= out == expected;
  EXPECT_TRUE(found);
  EXPECT_EQ((*e)->counters().forwarded, 1u);
}

TEST(Forward, AnswersArpForWhoeverIsAskedFor) {
  support::HeapPacketPool pool;
  support::FakePort port({2, 0, 0, 0, 0, 9});
  Options o = rig_options(Role::kForward);
  auto table = TargetTable::single("a", "/");
  io::PortQueue* ports[] = {&port};
  auto e = Engine::create(o, *table, ports, pool.pool(), nullptr, 1);
  ASSERT_TRUE(e.ok());
  Frame f(60, 0);
  const wire::EthernetRepr ethernet{wire::kBroadcastMac, {2, 0, 0, 0, 0, 1}, wire::kEtherArp, 0};
  const uint32_t at = ethernet.emit(f.data());
  wire::ArpRepr{wire::ArpOperation::kRequest, {2, 0, 0, 0, 0, 1}, 0x0a3f0001, {}, 0x0a3f0002}.emit(f.data() + at);
  port.deliver(pool.make(base::ByteSpan(f)));
  (*e)->step(base::kSecond);
  const Frame answer = port.pop_sent_bytes();
  ASSERT_GE(answer.size(), at + wire::kArpLength);
  wire::ArpView arp;
  ASSERT_EQ(wire::ArpView::parse(base::ByteSpan(answer).subspan(at), arp), wire::ParseError::kNone);
  EXPECT_EQ(arp.operation, wire::ArpOperation::kReply);
  EXPECT_EQ(arp.sender_ip, 0x0a3f0002u);
  EXPECT_EQ(arp.sender_mac, (wire::MacAddress{2, 0, 0, 0, 0, 9}));
  EXPECT_EQ(port.sent(), 0u) << "and says nothing of itself";
}

TEST(Create, SaysWhatDoesNotFit) {
  support::HeapPacketPool pool;
  support::FakePort port({2, 0, 0, 0, 0, 9});
  io::PortQueue* ports[] = {&port};
  auto table = TargetTable::single("a", "/");
  Options o = rig_options(Role::kClients);
  o.clients.bits = 32;
  o.connections = 100'000;
  auto few = Engine::create(o, *table, ports, pool.pool(), nullptr, 1);
  ASSERT_FALSE(few.ok());
  EXPECT_EQ(few.error(), "the network of --clients has too few addresses for 100000 connections");
  o = rig_options(Role::kClients);
  o.targets = {{ip("fd00::1"), 80}};
  auto mixed = Engine::create(o, *table, ports, pool.pool(), nullptr, 1);
  ASSERT_FALSE(mixed.ok());
  EXPECT_EQ(mixed.error(), "--target and --clients are of different families: fd00::1");
}

}  // namespace
}  // namespace millrace::load
