// H2Connection under test: a server and a client of ours against each other, and either against frames made by hand.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/prng.h"
#include "lib/http/h2_connection.h"
#include "tests/support/heap_packet_pool.h"

namespace millrace::http::test {

using namespace std::string_literals;

struct TestStream : H2Stream {
  char bytes[8192], trailer_bytes[1024];
  Header fields[128], trailer_fields[16];
  std::unique_ptr<char[]> large;
  std::unique_ptr<Header[]> large_fields;
};

struct Owner final : H2Owner {
  std::deque<std::unique_ptr<TestStream>> streams;
  uint32_t refuse_after = UINT32_MAX;
  bool lend_trailers = true;
  H2Stream* open_stream() override {
    if (streams.size() >= refuse_after) return nullptr;
    return make();
  }
  TestStream* make() {
    streams.push_back(std::make_unique<TestStream>());
    return streams.back().get();
  }
  bool lend(H2Stream& s, bool trailers, H2HeadStorage* storage) override {
    auto& t = static_cast<TestStream&>(s);
    if (trailers) {
      if (!lend_trailers) return false;
      *storage = {t.trailer_bytes, t.trailer_fields, 16};
    } else {
      *storage = {t.bytes, t.fields, 112};
    }
    return true;
  }
  bool grow(H2Stream& s, H2HeadStorage* storage) override {
    auto& t = static_cast<TestStream&>(s);
    if (t.large != nullptr) return false;
    t.large = std::make_unique<char[]>(100'000);
    t.large_fields = std::make_unique<Header[]>(1100);
    *storage = {{t.large.get(), 100'000}, t.large_fields.get(), 1100};
    return true;
  }
};

inline std::string drain(io::PacketQueue& q) {
  std::string s;
  while (!q.empty()) {
    const base::ByteSpan f = q.front();
    s.append(reinterpret_cast<const char*>(f.data()), f.size());
    q.consume(f.size());
  }
  return s;
}

inline std::string peek(const io::PacketQueue& q) {
  std::string s(q.bytes(), '\0');
  q.peek(0, reinterpret_cast<uint8_t*>(s.data()), s.size());
  return s;
}

// --- frames by hand

inline std::string u24(uint32_t v) { return {static_cast<char>(v >> 16), static_cast<char>(v >> 8), static_cast<char>(v)}; }
inline std::string u32(uint32_t v) { return static_cast<char>(v >> 24) + u24(v); }
inline std::string frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
  return u24(static_cast<uint32_t>(payload.size())) + static_cast<char>(type) + static_cast<char>(flags) + u32(stream) +
         std::string(payload);
}
enum : uint8_t { kData, kHeaders, kPriority, kRst, kSettings, kPush, kPing, kGoAwayFrame, kWindow, kContinuation };
constexpr uint8_t kEndStream = 1, kEndHeaders = 4, kAck = 1;
inline const std::string kMagic = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
inline std::string literal(std::string_view name, std::string_view value) {  // HPACK literal without indexing, short strings
  return "\0"s + static_cast<char>(name.size()) + std::string(name) + static_cast<char>(value.size()) + std::string(value);
}
// :method GET, :scheme http, :path /, :authority h
inline std::string get_block() { return "\x82\x86\x84"s + literal(":authority", "h"); }
inline std::string hello() { return kMagic + frame(kSettings, 0, 0, ""); }

struct Frame {
  uint8_t type, flags;
  uint32_t stream;
  std::string payload;
};
inline std::vector<Frame> parse(std::string_view s) {
  std::vector<Frame> v;
  const auto at = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(s[i])); };
  while (s.size() >= 9) {
    const uint32_t n = at(0) << 16 | at(1) << 8 | at(2);
    v.push_back({static_cast<uint8_t>(at(3)), static_cast<uint8_t>(at(4)), at(5) << 24 | at(6) << 16 | at(7) << 8 | at(8),
                 std::string(s.substr(9, n))});
    s.remove_prefix(9 + n);
  }
  EXPECT_TRUE(s.empty());
  return v;
}

class H2 : public ::testing::Test {
 protected:
  void start(H2Options options = {}) {
    ASSERT_TRUE(server.start(context, H2Role::kServer, options, server_owner));
    ASSERT_TRUE(client.start(context, H2Role::kClient, {}, client_owner));
  }
  void start_server(H2Options options = {}) { ASSERT_TRUE(server.start(context, H2Role::kServer, options, server_owner)); }
  // Everything both have to say, until nobody has anything.
  void exchange(uint64_t limit = 1 << 20) {
    for (int i = 0; i < 100; ++i) {
      io::PacketQueue up, down;
      ASSERT_TRUE(client.produce(up, limit));
      ASSERT_TRUE(server.produce(down, limit));
      if (up.empty() && down.empty()) return;
      EXPECT_TRUE(server.receive(up, now));
      EXPECT_TRUE(client.receive(down, now));
    }
  }
  TestStream* request(std::string_view method, std::string_view path, bool end, std::vector<Header> extra = {}) {
    TestStream* s = client_owner.make();
    RequestHead head;
    head.method = method;
    head.path = path;
    head.authority = "host.test";
    head.scheme = "http";
    head.headers = HeaderTable(extra.data(), static_cast<uint32_t>(extra.size() + 8));
    std::vector<Header> storage(extra.size() + 1);
    head.headers = HeaderTable(storage.data(), static_cast<uint32_t>(storage.size()));
    for (const Header& h : extra) head.headers.push(h);
    EXPECT_TRUE(client.submit_request(*s, head, end));
    return s;
  }
  void respond(H2Stream& s, uint16_t status, bool end, std::vector<Header> extra = {}) {
    ResponseHead head;
    head.status = status;
    std::vector<Header> storage(extra.size() + 1);
    head.headers = HeaderTable(storage.data(), static_cast<uint32_t>(storage.size()));
    for (const Header& h : extra) head.headers.push(h);
    EXPECT_TRUE(server.submit_response(s, head, end));
  }
  void write(H2Connection& c, H2Stream& s, std::string_view body, bool end) {
    EXPECT_EQ(s.tx.append_copy(body, pool), body.size());
    s.tx_end = end;
    c.resume(s);
  }
  TestStream* next(H2Connection& c) { return static_cast<TestStream*>(c.pop_ready()); }
  // Raw bytes to the server; its answer as frames.
  bool feed(std::string_view bytes, size_t packet = 1400) {
    io::PacketQueue q;
    for (size_t i = 0; i < bytes.size(); i += packet) q.push_whole(pool.make(bytes.substr(i, packet)));
    return server.receive(q, now);
  }
  std::vector<Frame> answer() {
    io::PacketQueue q;
    server.produce(q, 1 << 20);
    return parse(drain(q));
  }
  // The same to the client.
  bool feed_client(std::string_view bytes) {
    io::PacketQueue q;
    q.append_copy(bytes, pool);
    return client.receive(q, now);
  }
  uint32_t goaway_code() {
    for (const Frame& f : answer())
      if (f.type == kGoAwayFrame) return static_cast<uint8_t>(f.payload[7]);
    return UINT32_MAX;
  }

  base::TimeNs now = base::kSecond;
  support::HeapPacketPool pool{8192};
  H2Context context{nullptr, pool};
  Owner server_owner, client_owner;
  H2Connection server, client;
};

inline std::string repeat(std::string_view s, int n) {
  std::string all;
  for (int i = 0; i < n; ++i) all += s;
  return all;
}

}  // namespace millrace::http::test
