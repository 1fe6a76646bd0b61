// Who may open connections: token buckets and counts against models, then a stack that asks.
#include "dataplane/admission.h"

#include <map>
#include <set>

#include "lib/base/prng.h"
#include "tests/unit/dataplane/stack_fixture.h"

namespace millrace::dataplane::test {
namespace {

using Entry = ListenerSet::Entry;

TEST(TokenBuckets, BurstThenRateThenBurstAgain) {
  TokenBuckets b(10, 3, 64);  // a token each 100 ms, three at once
  TimeNs now = 5 * kSecond;
  const auto take = [&](uint64_t key) {
    const TokenBuckets::Place p = b.find(key);
    if (!b.has(p, now)) return false;
    b.spend(p, key, now);
    return true;
  };
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(take(7));
  EXPECT_FALSE(take(7));
  EXPECT_TRUE(take(8));  // another's
  now += 99 * kMillisecond;
  EXPECT_FALSE(take(7));
  now += kMillisecond;
  EXPECT_TRUE(take(7));
  EXPECT_FALSE(take(7));
  now += 10 * kSecond;  // never more than the burst
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(take(7));
  EXPECT_FALSE(take(7));
}

// A table far smaller than the number of sources that pass by: whoever sends steadily stays in it.
TEST(TokenBuckets, AFloodOfSourcesDoesNotLetABusyOneOff) {
  TokenBuckets b(100, 10, 256);
  base::Prng random(42);
  TimeNs now = kSecond;
  uint32_t busy = 0;
  for (uint32_t i = 0; i < 1'000'000; ++i) {  // 1,000,000 a second for a second, one in a hundred of them the busy one's
    now += 1'000;
    const uint64_t key = i % 100 == 0 ? 0xb0000000'00000001 : random.next() | 1;
    const TokenBuckets::Place p = b.find(key);
    if (!b.has(p, now)) continue;
    b.spend(p, key, now);
    busy += key == 0xb0000000'00000001;
  }
  EXPECT_GT(b.forgotten(), 0u);
  EXPECT_LE(busy, 10u + 100u + 1u);  // its burst and a second's rate
  EXPECT_GE(busy, 100u);
}

TEST(KeyCounts, AgainstAMap) {
  const uint64_t seed = 20'260'101;
  SCOPED_TRACE("seed " + std::to_string(seed));
  base::Prng random(seed);
  KeyCounts counts(200);
  std::map<uint64_t, uint32_t> model;
  for (uint32_t i = 0; i < 200'000; ++i) {
    const uint64_t key = (random.below(300) << 32 | random.below(2)) + 1;  // many with the same home
    const bool up = random.below(2) == 0;
    if (up && (model.contains(key) || model.size() < 200)) {
      counts.up(key);
      ++model[key];
    } else if (!up && model.contains(key)) {
      counts.down(key);
      if (--model[key] == 0) model.erase(key);
    }
    ASSERT_EQ(counts.keys(), model.size());
    const uint64_t other = (random.below(300) << 32 | random.below(2)) + 1;
    const auto it = model.find(other);
    ASSERT_EQ(counts.get(other), it == model.end() ? 0 : it->second);
  }
}

Entry entry(table::ObjectId id, uint32_t limit = 0) { return {ip("0.0.0.0"), 80, id, false, limit}; }

struct RateCase {
  const char* what;
  SourceLevel level;
  const char* first;
  const char* second;
  bool shared;  // one bucket for both
};
TEST(Admission, PrefixesShareABucket) {
  const RateCase cases[] = {
      {"hosts", {32, 64, 1, 1, 0}, "10.0.0.1", "10.0.0.2", false},
      {"the same host", {32, 64, 1, 1, 0}, "10.0.0.1", "10.0.0.1", true},
      {"network of 24", {24, 64, 1, 1, 0}, "10.0.0.1", "10.0.0.200", true},
      {"two networks of 24", {24, 64, 1, 1, 0}, "10.0.0.1", "10.0.1.1", false},
      {"network of 20", {20, 64, 1, 1, 0}, "10.0.16.1", "10.0.31.1", true},
      {"beyond it", {20, 64, 1, 1, 0}, "10.0.16.1", "10.0.32.1", false},
      {"IPv6 64", {32, 64, 1, 1, 0}, "2001:db8::1", "2001:db8::ffff:1", true},
      {"two of IPv6 64", {32, 64, 1, 1, 0}, "2001:db8::1", "2001:db8:0:1::1", false},
      {"IPv6 48", {32, 48, 1, 1, 0}, "2001:db8:0:5::1", "2001:db8:0:6::1", true},
      {"IPv6 128", {32, 128, 1, 1, 0}, "2001:db8::1", "2001:db8::2", false},
      {"families apart", {8, 16, 1, 1, 0}, "10.0.0.1", "::a00:1", false},
  };
  for (const RateCase& c : cases) {
    AdmissionConfig config;
    config.sources = {c.level};
    Admission a(config, 1, 100, 99);
    EXPECT_EQ(a.on_syn(ip(c.first), entry(1), kSecond), DropReason::kNone) << c.what;
    EXPECT_EQ(a.on_syn(ip(c.second), entry(1), kSecond), c.shared ? DropReason::kTcpSynRateLimited : DropReason::kNone) << c.what;
  }
}

TEST(Admission, AHostAboveItsRateTakesNothingFromItsNetwork) {
  AdmissionConfig config;
  config.sources = {{32, 64, 1, 1, 0}, {24, 64, 5, 5, 0}};
  Admission a(config, 1, 100, 99);
  for (int i = 0; i < 50; ++i) a.on_syn(ip("10.0.0.1"), entry(1), kSecond);
  for (const char* other : {"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"})
    EXPECT_EQ(a.on_syn(ip(other), entry(1), kSecond), DropReason::kNone) << other;
  EXPECT_EQ(a.on_syn(ip("10.0.0.6"), entry(1), kSecond), DropReason::kTcpSynRateLimited);  // five of the network
}

TEST(Admission, CountsByListenerSourceAndAltogether) {
  AdmissionConfig config;
  config.max_active_downstream_connections = 6;
  config.listener_limits = true;
  config.sources = {{32, 64, 0, 0, 2}};
  Admission a(config, 1, 100, 99);
  uint16_t on[8] = {};
  const Entry one = entry(1, 3), two = entry(2), three = entry(3, 3);
  EXPECT_EQ(a.accept(ip("10.0.0.1"), one, on[0]), DropReason::kNone);
  EXPECT_EQ(a.accept(ip("10.0.0.1"), two, on[1]), DropReason::kNone);
  EXPECT_EQ(a.accept(ip("10.0.0.1"), two, on[2]), DropReason::kTcpSourceLimit);
  EXPECT_EQ(a.on_syn(ip("10.0.0.1"), two, kSecond), DropReason::kTcpSourceLimit);
  EXPECT_EQ(a.accept(ip("10.0.0.2"), one, on[2]), DropReason::kNone);
  EXPECT_EQ(a.accept(ip("10.0.0.3"), one, on[3]), DropReason::kNone);
  EXPECT_EQ(a.accept(ip("10.0.0.4"), one, on[4]), DropReason::kTcpListenerLimit);
  EXPECT_EQ(a.accept(ip("10.0.0.4"), three, on[4]), DropReason::kNone);
  EXPECT_EQ(a.accept(ip("10.0.0.5"), two, on[5]), DropReason::kNone);
  EXPECT_EQ(a.accept(ip("10.0.0.6"), two, on[6]), DropReason::kTcpDownstreamLimit);
  EXPECT_EQ(a.active(), 6u);
  a.ended(ip("10.0.0.2"), on[2]);
  EXPECT_EQ(a.accept(ip("10.0.0.4"), one, on[2]), DropReason::kNone);
  for (const auto& [address, n] : std::vector<std::pair<const char*, int>>{
           {"10.0.0.1", 0}, {"10.0.0.1", 1}, {"10.0.0.4", 2}, {"10.0.0.3", 3}, {"10.0.0.4", 4}, {"10.0.0.5", 5}})
    a.ended(ip(address), on[n]);
  EXPECT_EQ(a.active() + a.sources(), 0u);
}

TEST(Admission, EachWorkerHasItsShareRoundedUp) {
  AdmissionConfig config;
  config.max_active_downstream_connections = 10;
  Admission a(config, 4, 100, 99);
  uint16_t on = 0;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(a.accept(ip("10.0.0.1"), entry(1), on), DropReason::kNone);
  EXPECT_EQ(a.accept(ip("10.0.0.1"), entry(1), on), DropReason::kTcpDownstreamLimit);
}

// Listeners come and go: a limit belongs to the listener's id, and a place without connections to anybody.
TEST(Admission, MoreListenersThanPlacesOneAfterTheOther) {
  AdmissionConfig config;
  config.listener_limits = true;
  Admission a(config, 1, 100, 99);
  for (uint32_t id = 1; id <= 3u * Admission::kMaxListeners; ++id) {
    uint16_t on = 0, over = 0;
    ASSERT_EQ(a.accept(ip("10.0.0.1"), entry(id, 1), on), DropReason::kNone);
    ASSERT_NE(on, 0);
    ASSERT_EQ(a.accept(ip("10.0.0.1"), entry(id, 1), over), DropReason::kTcpListenerLimit);
    a.ended(ip("10.0.0.1"), on);
  }
}

// --- a stack that asks
// ------------------------------------------------------------------------------------------------------------------

struct Client {
  Stack& s;
  uint16_t port;
  IpAddress address = ip("10.1.0.2");
  uint32_t seq = 100, ack = 0;

  void send(uint8_t flags) {
    Segment x{address, ip("10.1.0.1"), {}, ""};
    x.header.src_port = port;
    x.header.dst_port = 80;
    x.header.seq = seq;
    x.header.ack = ack;
    x.header.flags = flags;
    x.header.window = 65535;
    if (flags & wire::kTcpSyn) x.header.mss = 1460;
    seq += (flags & (wire::kTcpSyn | wire::kTcpFin)) != 0;
    s.input(x);
  }
  // Flags of what came back last; 0: nothing.
  uint8_t answer() {
    uint8_t flags = 0;
    while (const auto seen = s.sent()) {
      flags = seen->tcp.flags;
      if (!seen->tcp.rst()) ack = seen->tcp.seq + seen->tcp.sequence_length();
    }
    return flags;
  }
  Connection* open() {
    send(wire::kTcpSyn);
    if (answer() != (wire::kTcpSyn | wire::kTcpAck)) return nullptr;
    send(wire::kTcpAck);
    return s.stack->pop_ready();
  }
};

TEST(AdmissionInStack, SynsAboveTheRateAreIgnoredInSilence) {
  Options o;
  o.admission.sources = {{32, 64, 2, 2, 0}};
  Stack s(o);
  for (uint16_t i = 0; i < 5; ++i) {
    Client c{s, static_cast<uint16_t>(5000 + i)};
    c.send(wire::kTcpSyn);
    EXPECT_EQ(c.answer(), i < 2 ? wire::kTcpSyn | wire::kTcpAck : 0) << i;
  }
  EXPECT_EQ(s.dropped(DropReason::kTcpSynRateLimited), 3u);
  EXPECT_EQ(s.stack->active_connections(), 2u);
  s.wait(kSecond);
  s.port.clear();
  EXPECT_NE((Client{s, 6000}.open()), nullptr);
}

TEST(AdmissionInStack, BeyondTheSourcesConnectionsIsReset) {
  Options o;
  o.admission.sources = {{32, 64, 0, 0, 2}};
  for (const uint32_t half_open : {16u, 0u}) {  // 0: every handshake by cookie
    o.max_half_open = half_open;
    Stack s(o);
    Client a{s, 5000}, b{s, 5001}, c{s, 5002}, d{s, 5003};
    Connection* first = a.open();
    ASSERT_NE(first, nullptr);
    // Three handshakes under way at once: the SYNs find room, the last ACK of one does not.
    b.send(wire::kTcpSyn), b.answer();
    c.send(wire::kTcpSyn), c.answer();
    b.send(wire::kTcpAck);
    EXPECT_NE(s.stack->pop_ready(), nullptr);
    c.send(wire::kTcpAck);
    EXPECT_EQ(s.stack->pop_ready(), nullptr);
    EXPECT_TRUE(c.answer() & wire::kTcpRst);
    d.send(wire::kTcpSyn);
    EXPECT_TRUE(d.answer() & wire::kTcpRst);
    EXPECT_EQ(s.stack->active_connections(), 2u);
    EXPECT_EQ(s.stack->admission()->active(), 2u);
    s.stack->abort(*first, s.now);
    s.turn();
    s.port.clear();
    EXPECT_EQ(s.stack->admission()->active(), 1u);
    EXPECT_NE((Client{s, 5010}.open()), nullptr);
  }
}

TEST(AdmissionInStack, ListenersLimit) {
  Options o;
  o.admission.listener_limits = true;
  Stack s(o);
  const Entry entries[] = {{ip("10.1.0.1"), 80, 11, false, 1}};
  s.listeners = ListenerSet(entries);
  s.stack->set_listeners(&s.listeners);
  Connection* c = Client{s, 5000}.open();
  ASSERT_NE(c, nullptr);
  Client over{s, 5001};
  over.send(wire::kTcpSyn);
  EXPECT_TRUE(over.answer() & wire::kTcpRst);
  EXPECT_EQ(s.dropped(DropReason::kTcpListenerLimit), 1u);
  // A new limit counts at once, and what is there counts towards it.
  const Entry more[] = {{ip("10.1.0.1"), 80, 11, false, 2}};
  s.listeners = ListenerSet(more);
  EXPECT_NE((Client{s, 5002}.open()), nullptr);
  EXPECT_EQ((Client{s, 5003}.open()), nullptr);
}

TEST(AdmissionInStack, NobodyIsAskedByDefault) {
  Stack s;
  EXPECT_EQ(s.stack->admission(), nullptr);
}

}  // namespace
}  // namespace millrace::dataplane::test
