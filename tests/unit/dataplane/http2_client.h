// A client that speaks HTTP/2 on one of a World's connections (worker_fixture.h).
#pragma once

#include <memory>

#include "lib/http/h2_connection.h"
#include "tests/unit/dataplane/worker_fixture.h"

namespace millrace::dataplane::test {

using http::H2Code;
using http::H2Error;
using http::Header;
using http::HeaderId;

struct ClientStream : http::H2Stream {
  char bytes[16384], trailer_bytes[1024];
  Header fields[256], trailer_fields[16];
  std::string body;
  bool done = false;
  std::string header(std::string_view name) const {
    const Header* h = response.headers.find(name);
    return h == nullptr ? "-" : std::string(h->value);
  }
};

// A client on one of the world's connections.
class Http2Client final : public http::H2Owner {
 public:
  explicit Http2Client(World& w, http::H2Options o = {}) : w_(w), context_(nullptr, pool_.pool()), peer(w.connect()) {
    EXPECT_TRUE(h2.start(context_, http::H2Role::kClient, o, *this));
    step();
  }
  ~Http2Client() {
    for (auto& s : streams)
      if (s->id != 0) h2.release(*s);
  }
  http::H2Stream* open_stream() override { return nullptr; }
  bool lend(http::H2Stream& s, bool trailers, http::H2HeadStorage* out) override {
    auto& c = static_cast<ClientStream&>(s);
    if (trailers) *out = {c.trailer_bytes, c.trailer_fields, 16};
    else *out = {c.bytes, c.fields, 256};
    return true;
  }
  bool grow(http::H2Stream&, http::H2HeadStorage*) override { return false; }

  ClientStream& request(std::string_view method, std::string_view path, std::vector<Header> extra = {}, bool end = true,
                        std::string_view protocol = {}, std::string_view authority = "a") {
    ClientStream& s = *streams.emplace_back(std::make_unique<ClientStream>());
    std::vector<Header> storage(extra.size() + 1);
    http::RequestHead head;
    head.method = method;
    head.path = path;
    head.authority = authority;
    head.scheme = "http";
    if (method == "CONNECT" && path.empty()) head.path = head.scheme = {};
    s.protocol = protocol;
    head.headers = http::HeaderTable(storage.data(), static_cast<uint32_t>(storage.size()));
    for (const Header& h : extra) head.headers.push(h);
    EXPECT_TRUE(h2.submit_request(s, head, end));
    step();
    return s;
  }
  void body(ClientStream& s, std::string_view bytes, bool end) {
    EXPECT_EQ(s.tx.append_copy(bytes, pool_.pool()), bytes.size());
    s.tx_end = end;
    h2.resume(s);
    step();
  }
  // Bytes both ways between the connection and the codec.
  void step() {
    if (!peer.received.empty()) {
      io::PacketQueue in;
      EXPECT_EQ(in.append_copy(peer.received, pool_.pool()), peer.received.size());
      peer.received.clear();
      h2.receive(in, w_.now);
      while (auto* s = static_cast<ClientStream*>(h2.pop_ready())) {
        while (!s->rx.empty() && reading) {
          const base::ByteSpan f = s->rx.front();
          s->body += base::as_chars(f);
          h2.consumed(*s, f.size());
          s->rx.consume(f.size());
        }
        s->done |= s->closed;
      }
    }
    io::PacketQueue out;
    h2.produce(out, 1 << 20);
    while (!out.empty()) {
      w_.send(peer, base::as_chars(out.front()));
      out.pop();
    }
  }
  bool until(const std::function<bool()>& done, base::TimeNs limit = 600 * kSecond) {
    return w_.run_until(
        [&] {
          step();
          return done();
        },
        limit);
  }
  bool finished(ClientStream& s) {
    return until([&] { return s.done; });
  }

 private:
  World& w_;
  support::HeapPacketPool pool_{16384};
  http::H2Context context_;

 public:
  Peer& peer;
  http::H2Connection h2;
  std::vector<std::unique_ptr<ClientStream>> streams;
  bool reading = true;
};

}  // namespace millrace::dataplane::test
