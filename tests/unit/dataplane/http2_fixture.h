// Both ends of HTTP/2 for tests of a whole worker: clients on connections to its listener, and an endpoint that speaks it on
// every connection the worker opens.
#pragma once

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

// A stream at the endpoint.
struct ServerStream : http::H2Stream {
  char bytes[16384], trailer_bytes[1024];
  Header fields[256], trailer_fields[16], answer_trailers[8];
  http::HeaderTable trailer_table;
  size_t connection = 0;  // index
  std::string body;
  bool over = false;
  std::string header(std::string_view name) const {
    const Header* h = request.headers.find(name);
    return h == nullptr ? "-" : std::string(h->value);
  }
};

// Speaks HTTP/2 on every connection to the world's server. `news` is called for a stream whenever there is something new of it.
class Http2Endpoint {
 public:
  struct Connection final : http::H2Owner {
    Peer* peer = nullptr;
    http::H2Connection h2;
    std::vector<std::unique_ptr<ServerStream>> streams;
    size_t index = 0;
    http::H2Stream* open_stream() override {
      streams.push_back(std::make_unique<ServerStream>());
      streams.back()->connection = index;
      return streams.back().get();
    }
    bool lend(http::H2Stream& s, bool trailers, http::H2HeadStorage* out) override {
      auto& c = static_cast<ServerStream&>(s);
      if (trailers) *out = {c.trailer_bytes, c.trailer_fields, 16};
      else *out = {c.bytes, c.fields, 256};
      return true;
    }
    bool grow(http::H2Stream&, http::H2HeadStorage*) override { return false; }
  };
  explicit Http2Endpoint(World& w, http::H2Options o = {}) : w_(w), options_(o), context_(nullptr, pool_.pool()) {
    w.server_script = [this] { step(); };
  }
  ~Http2Endpoint() {
    w_.server_script = nullptr;
    for (auto& c : connections)
      for (auto& s : c->streams)
        if (s->id != 0) c->h2.release(*s);
  }
  // Answers every request, once it is whole, with 200 and its path as the body.
  void serve() {
    news = [this](ServerStream& s) {
      if (s.head_complete && s.rx_end && !s.tx_end && !s.closed) respond(s, 200, {}, std::string(s.request.path));
    };
  }
  // `end`: with the body, or with the trailers behind it.
  void respond(ServerStream& s, uint16_t status, std::vector<Header> extra = {}, std::string_view body = {}, bool end = true,
               std::vector<Header> trailers = {}) {
    http::ResponseHead head;
    head.status = status;
    std::vector<Header> storage(extra.size() + 1);
    head.headers = http::HeaderTable(storage.data(), static_cast<uint32_t>(storage.size()));
    for (const Header& h : extra) head.headers.push(h);
    const bool bare = end && body.empty() && trailers.empty();
    EXPECT_TRUE(of(s).submit_response(s, head, bare));
    if (status >= 200 && !bare) send(s, body, end, std::move(trailers));
  }
  void send(ServerStream& s, std::string_view body, bool end, std::vector<Header> trailers = {}) {
    EXPECT_EQ(s.tx.append_copy(body, pool_.pool()), body.size());
    s.tx_end = end;
    if (!trailers.empty()) {
      s.trailer_table = http::HeaderTable(s.answer_trailers, 8);
      for (const Header& h : trailers) s.trailer_table.push(h);
      s.tx_trailers = &s.trailer_table;
    }
    of(s).resume(s);
  }
  http::H2Connection& of(ServerStream& s) { return connections[s.connection]->h2; }
  void reset(ServerStream& s, H2Code code) { of(s).reset(s, code); }
  // All requests seen so far, in order.
  std::vector<ServerStream*> all() {
    std::vector<ServerStream*> out;
    for (auto& c : connections)
      for (auto& s : c->streams)
        if (s->head_complete) out.push_back(s.get());
    return out;
  }
  // The i-th of them, waited for.
  ServerStream& request(size_t i = 0) {
    static ServerStream none;
    if (!w_.run_until([&] { return all().size() > i; }, 10 * kSecond)) {
      ADD_FAILURE() << "the endpoint saw " << all().size() << " requests";
      return none;
    }
    return *all()[i];
  }
  void step() {
    for (size_t i = connections.size(); i < w_.server.peers.size(); ++i) {
      auto& c = connections.emplace_back(std::make_unique<Connection>());
      c->peer = &w_.server.peers[i];
      c->index = i;
      EXPECT_TRUE(c->h2.start(context_, http::H2Role::kServer, options_, *c));
    }
    for (auto& c : connections) {
      if (!c->peer->received.empty()) {
        io::PacketQueue in;
        EXPECT_EQ(in.append_copy(c->peer->received, pool_.pool()), c->peer->received.size());
        c->peer->received.clear();
        c->h2.receive(in, w_.now);
      }
      while (auto* s = static_cast<ServerStream*>(c->h2.pop_ready())) {
        while (!s->rx.empty() && reading) {
          const base::ByteSpan f = s->rx.front();
          s->body += base::as_chars(f);
          c->h2.consumed(*s, f.size());
          s->rx.consume(f.size());
        }
        s->over |= s->closed;
        if (news) news(*s);
      }
      if (!speaking) continue;
      io::PacketQueue out;
      c->h2.produce(out, 1 << 20);
      while (!out.empty()) {
        if (c->peer->open()) w_.server.send(*c->peer, base::as_chars(out.front()), w_.now);
        out.pop();
      }
    }
  }

 private:
  World& w_;
  http::H2Options options_;
  support::HeapPacketPool pool_{16384};
  http::H2Context context_;

 public:
  std::vector<std::unique_ptr<Connection>> connections;
  std::function<void(ServerStream&)> news;
  bool reading = true, speaking = true;
};

}  // namespace millrace::dataplane::test
