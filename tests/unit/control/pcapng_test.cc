// pcapng files, byte by byte against draft-ietf-opsawg-pcapng (tshark reads them in tests/e2e/test_capture.py), and what
// questions and records of connections become.
#include "control/pcapng.h"

#include <cstring>

#include <gtest/gtest.h>

#include "control/capture.h"
#include "control/connections.h"
#include "control/inspections.h"

namespace millrace::control {
namespace {

uint32_t u32(std::string_view s, size_t at) {
  uint32_t v;
  std::memcpy(&v, s.data() + at, 4);
  return v;
}

// Every block: type, length, body, the same length again, all on 32 bits.
std::vector<std::string> blocks(const std::string& file) {
  std::vector<std::string> out;
  for (size_t at = 0; at < file.size();) {
    const uint32_t length = u32(file, at + 4);
    EXPECT_EQ(length % 4, 0u);
    EXPECT_LE(at + length, file.size());
    if (length < 12 || at + length > file.size()) break;
    EXPECT_EQ(u32(file, at + length - 4), length);
    out.push_back(file.substr(at, length));
    at += length;
  }
  return out;
}

const std::string kSection(
    "\x0a\x0d\x0d\x0a\x38\0\0\0"        // Section Header Block, 56 bytes
    "\x4d\x3c\x2b\x1a\x01\0\0\0"        // little endian, 1.0
    "\xff\xff\xff\xff\xff\xff\xff\xff"  // length not known
    "\x03\0\x05\0Linux\0\0\0"           // shb_os
    "\x04\0\x08\0Millrace"              // shb_userappl
    "\0\0\0\0\x38\0\0\0",
    56);
const std::string kInterface(
    "\x01\0\0\0\x30\0\0\0"    // Interface Description Block, 48 bytes
    "\x01\0\0\0\x40\0\0\0"    // Ethernet, snap 64
    "\x02\0\x02\0in\0\0"      // if_name
    "\x09\0\x01\0\x09\0\0\0"  // if_tsresol: 10^-9
    "\x0b\0\x04\0\0tcp"       // if_filter: a string
    "\0\0\0\0\x30\0\0\0",
    48);
const std::string kPacket(
    "\x06\0\0\0\x3c\0\0\0"    // Enhanced Packet Block, 60 bytes
    "\x01\0\0\0"              // interface 1
    "\x02\0\0\0\x03\0\0\0"    // time: 2 * 2^32 + 3 ns
    "\x05\0\0\0\x09\0\0\0"    // 5 of 9 bytes
    "abcde\0\0\0"             //
    "\x01\0\x02\0hi\0\0"      // opt_comment
    "\x02\0\x04\0\x02\0\0\0"  // epb_flags: outbound
    "\0\0\0\0\x3c\0\0\0",
    60);
const std::string kSecrets("\x0a\0\0\0\x18\0\0\0KSLT\x03\0\0\0k 1\0\x18\0\0\0", 24);

TEST(Pcapng, BytesOfEachBlock) {
  const uint8_t data[] = {'a', 'b', 'c', 'd', 'e'};
  PcapngWriter w;
  w.section("Millrace");
  EXPECT_EQ(w.buffer(), kSection);
  w.buffer().clear();
  w.interface({"in", "", "tcp", 64});
  EXPECT_EQ(w.buffer(), kInterface);
  w.buffer().clear();
  w.packet(1, (uint64_t{2} << 32) + 3, data, 9, PcapngWriter::Direction::kOutbound, "hi");
  EXPECT_EQ(w.buffer(), kPacket);
  w.buffer().clear();
  w.tls_keys("k 1");
  EXPECT_EQ(w.buffer(), kSecrets);
}

TEST(Pcapng, StatisticsCarryLosses) {
  PcapngWriter w;
  w.statistics(3, 10, (uint64_t{1} << 32) | 20, 1000, 600, 7);
  const auto b = blocks(w.buffer());
  ASSERT_EQ(b.size(), 1u);
  EXPECT_EQ(u32(b[0], 0), 5u);
  EXPECT_EQ(u32(b[0], 8), 3u);
  EXPECT_EQ(u32(b[0], 12), 1u);  // the end's time
  EXPECT_EQ(u32(b[0], 16), 20u);
  std::map<uint32_t, uint64_t> options;
  for (size_t at = 20; u32(b[0], at) != 0; at += 12) {
    ASSERT_EQ(u32(b[0], at) >> 16, 8u);
    options[u32(b[0], at) & 0xffff] = uint64_t{u32(b[0], at + 8)} << 32 | u32(b[0], at + 4);
  }
  EXPECT_EQ(options[4], 1000u);  // isb_ifrecv
  EXPECT_EQ(options[5], 7u);     // isb_ifdrop
  EXPECT_EQ(options[6], 600u);   // isb_filteraccept
}

TEST(Pcapng, AnyLengthIsPadded) {
  for (size_t n = 0; n < 70; ++n) {
    const std::vector<uint8_t> data(n, 'x');
    PcapngWriter w;
    w.section(std::string(n, 'm'));
    w.interface({std::string(n, 'i'), std::string(n, 'd'), std::string(n, 'f'), 0});
    w.packet(0, 1, data, static_cast<uint32_t>(n), PcapngWriter::Direction::kUnknown, std::string(n, 'c'));
    w.tls_keys(std::string(n, 'k'));
    w.statistics(0, 1, 2, 3, 4, 5);
    EXPECT_EQ(blocks(w.buffer()).size(), 5u) << n;
  }
}

// ---- connections

TEST(ConnectionId, GoesRoundAndNothingElseDoes) {
  const table::ConnectionId id{17, 0x0fa90c21};
  EXPECT_EQ(connection_id(3, id), "3-17-0fa90c21");
  const auto back = parse_connection_id("3-17-0fa90c21");
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->first, 3u);
  EXPECT_EQ(back->second.slot, 17u);
  EXPECT_EQ(back->second.tag, 0x0fa90c21u);
  for (const char* bad :
       {"", "3", "3-17", "3-17-", "3-17-fa90c21", "3-17-0fa90c2g", "x-17-0fa90c21", "3-x-0fa90c21", "3-17-0fa90c21 ",
        "-1-17-0fa90c21", "3-4294967295-0fa90c21", "3-99999999999-0fa90c21", "3-17-0fa90c21-1"})
    EXPECT_FALSE(parse_connection_id(bad).ok()) << bad;
}

struct Question {
  v1::ConnectionsRequest rq;
  const char* error;  // "" : good
};
Question question(std::function<void(v1::ConnectionsRequest&)> set, const char* error = "") {
  Question q{{}, error};
  set(q.rq);
  return q;
}

TEST(Connections, QuestionsAreCheckedByField) {
  const Question cases[] = {
      question([](auto&) {}),
      question([](auto& r) { r.set_peer("10.0.0.1"); }),
      question([](auto& r) { r.set_peer("10.0.0.0/8"); }),
      question([](auto& r) { r.set_peer("10.0.0.1:80"); }),
      question([](auto& r) { r.set_peer("[fd00::1]:80"); }),
      question([](auto& r) { r.set_peer("fd00::/8"); }),
      question([](auto& r) { r.set_local(":443"); }),
      question([](auto& r) { r.add_states("ESTABLISHED"), r.add_states("fin-wait-1"), r.add_states("syn-recv"); }),
      question([](auto& r) { r.set_peer("10.0.0.1:"); }, "--peer"),
      question([](auto& r) { r.set_peer("[fd00::1"); }, "--peer"),
      question([](auto& r) { r.set_local("10.0.0.1:0"); }, "--local"),
      question([](auto& r) { r.add_states("open"); }, "--state: \"open\" is no TCP state"),
      question([](auto& r) { r.add_workers(2); }, "--worker: there is no worker 2; there are 2"),
      question([](auto& r) { r.set_role("both"); }, "--role"),
      question([](auto& r) { r.set_sort("size"); }, "--sort"),
      question([](auto& r) { r.set_sort("rtt"), r.set_limit(5000); }, "--top: at most 1024"),
      question([](auto& r) { r.set_listener("x"); }, "--listener: there is no listener \"x\""),
      question([](auto& r) { r.set_action(v1::ConnectionsRequest::SHOW); }, "which connection?"),
      question([](auto& r) { r.set_id("9-1-00000000"); }, "there is no worker 9"),
  };
  for (const Question& c : cases) {
    const auto q = connections_question(c.rq, Model(), 2);
    EXPECT_EQ(q.ok(), *c.error == 0) << c.rq.ShortDebugString() << (q.ok() ? "" : q.error());
    if (!q.ok()) {
      EXPECT_NE(q.error().find(c.error), std::string::npos) << q.error();
    }
  }
  v1::ConnectionsRequest rq;
  rq.set_peer("10.1.0.0/16");
  rq.add_states("estab");
  const auto q = connections_question(rq, Model(), 2);
  EXPECT_EQ(q->filter.peer_bits, 16);
  EXPECT_EQ(q->filter.states, 1u << 3);
  EXPECT_EQ(q->filter.workers, UINT64_MAX);
}

TEST(Connections, EveryTraceKindIsASentence) {
  for (uint8_t k = 1; k < static_cast<uint8_t>(table::TraceKind::kCount); ++k) {
    table::TraceRecord r;
    r.entry.kind = static_cast<table::TraceKind>(k);
    r.entry.to = 1;
    v1::TraceEvent e;
    report_trace(r, &e);
    EXPECT_NE(e.event(), "?") << int{k};
    EXPECT_GT(e.text().size(), 5u) << int{k};
  }
  table::TraceRecord damaged;
  damaged.entry.kind = table::TraceKind::kDropped;
  damaged.entry.a = 60'000;
  damaged.entry.from = damaged.entry.to = 200;
  v1::TraceEvent e;
  report_trace(damaged, &e);
  EXPECT_EQ(e.text(), "?");
}

TEST(Connections, StreamsAreCountedFromTheOpening) {
  table::ConnectionRecord r;
  r.stream_sent = 50;  // beyond the wrap of 2^32
  r.stream_received = 1'101;
  table::TraceEntry opened, established;
  opened.kind = table::TraceKind::kOpened;
  opened.a = UINT32_MAX - 50;
  opened.b = 1'000;
  established.kind = table::TraceKind::kState;
  established.to = 3;
  established.b = 1'051;
  for (const uint8_t how : {1, 2, 3}) {
    opened.from = how;
    v1::Connection c;
    const table::TraceEntry trace[] = {opened, established};
    EXPECT_TRUE(count_stream(r, trace, &c));
    EXPECT_EQ(c.bytes_sent(), 100u);
    EXPECT_EQ(c.bytes_received(), how == 3 ? 50u : 100u);
  }
  v1::Connection unknown;
  EXPECT_FALSE(count_stream(r, std::span(&established, 1), &unknown));
  EXPECT_FALSE(unknown.bytes_known());
}

// ---- who asked gets the answer

TEST(Inspections, RecordsGoToWhoAsked) {
  Inspections all;
  const auto one = all.open(), other = all.open();
  EXPECT_NE(one->id(), other->id());
  const auto send = [&](uint64_t id) {
    table::InspectDone d;
    d.header = {table::InspectType::kDone, 1, id};
    all.on_record(1, {reinterpret_cast<const uint8_t*>(&d), sizeof d});
  };
  send(one->id());
  send(other->id());
  send(one->id());
  send(12'345);  // nobody's
  const uint8_t cut[4] = {};
  all.on_record(0, cut);
  bool gone = true;
  const auto soon = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  EXPECT_EQ(one->take(soon, &gone).size(), 2u);
  EXPECT_FALSE(gone);
  EXPECT_EQ(other->take(soon, &gone).size(), 1u);
  EXPECT_TRUE(one->take(std::chrono::steady_clock::now(), &gone).empty());
  all.on_record(0, {});
  EXPECT_TRUE(one->take(soon, &gone).empty());
  EXPECT_TRUE(gone);
}

TEST(Capture, QuestionsAreChecked) {
  const std::vector<std::string> ports = {"ingress", "egress"};
  v1::CaptureRequest rq;
  auto q = capture_question(rq, Model(), ports);
  ASSERT_TRUE(q.ok()) << q.error();
  EXPECT_EQ(q->filter.count, 0u);
  EXPECT_EQ(q->max_packets, kDefaultCapturePackets);
  EXPECT_EQ(q->ports, UINT32_MAX);
  rq.set_filter("tcp");
  rq.set_direction("out");
  rq.add_ports("egress");
  q = capture_question(rq, Model(), ports);
  ASSERT_TRUE(q.ok());
  EXPECT_TRUE(table::is_valid(q->filter));
  EXPECT_EQ(q->filter.count, 3u);
  EXPECT_EQ(q->ports, 2u);
  rq.add_ports("egres");
  EXPECT_NE(capture_question(rq, Model(), ports).error().find("did you mean egress?"), std::string::npos);
  rq.clear_ports();
  rq.set_filter("listener edge");
  EXPECT_NE(capture_question(rq, Model(), ports).error().find("no listener of that name"), std::string::npos);
}

}  // namespace
}  // namespace millrace::control
