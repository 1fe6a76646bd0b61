// Any server at the other end of a connection that we opened, while the owner does what the data plane does with it: opens
// streams as may_open() allows, writes bodies, gives streams up before and after their heads went out, asks with PING, reads some
// and leaves some, goes on to a second connection when the first is going away. The input is a script: an operation byte, then
// for kBytes a length and the server's bytes. Whatever the server says: bounds hold, a response that is handed over whole is
// whole, memory comes back.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lib/http/h2_connection.h"
#include "tests/fuzz/require.h"
#include "tests/support/heap_packet_pool.h"

using namespace millrace;
using namespace millrace::http;

namespace {

struct Stream : H2Stream {
  char bytes[256], trailer_bytes[256];
  Header fields[16], trailer_fields[8];
  uint64_t taken = 0;
};

struct Owner final : H2Owner {
  std::vector<std::unique_ptr<Stream>> streams;
  H2Stream* open_stream() override {
    FUZZ_REQUIRE(!"a server opened a stream");
    return nullptr;
  }
  bool lend(H2Stream& s, bool trailers, H2HeadStorage* storage) override {
    auto& t = static_cast<Stream&>(s);
    if (trailers) *storage = {t.trailer_bytes, t.trailer_fields, 8};
    else *storage = {t.bytes, t.fields, 16};
    return true;
  }
  bool grow(H2Stream&, H2HeadStorage*) override { return false; }
  void drop(H2Connection& c, size_t i) {
    c.release(*streams[i]);
    streams.erase(streams.begin() + static_cast<std::ptrdiff_t>(i));  // its memory is gone: nobody may look at it again
  }
};

enum Operation : uint8_t {
  kBytes,
  kOpen,
  kOpenPost,
  kBody,
  kLastBody,
  kGiveUp,
  kReset,
  kTake,
  kPing,
  kProduce,
  kReconnect,
  kSettings,
  kCount
};
constexpr size_t kMostStreams = 40;

void check_head(const Stream& s) {
  FUZZ_REQUIRE(s.response.status >= 100 && s.response.status <= 999 && s.response.status != 101);
  for (const Header& h : s.response.headers) {
    FUZZ_REQUIRE(!h.name.empty() && h.name[0] != ':');
    for (const char c : h.name) FUZZ_REQUIRE(c > ' ' && !(c >= 'A' && c <= 'Z') && c != ':' && c != 0x7f);
    for (const char c : h.value) FUZZ_REQUIRE(c != '\r' && c != '\n' && c != '\0');
    FUZZ_REQUIRE(h.id != HeaderId::kConnection && h.id != HeaderId::kTransferEncoding && h.id != HeaderId::kUpgrade);
  }
}

void look(H2Connection& c, Owner& owner) {
  while (auto* s = static_cast<Stream*>(c.pop_ready())) {
    if (s->informational) s->informational = s->head_complete = false;
    if (s->head_complete) check_head(*s);
    if (!s->closed) continue;
    FUZZ_REQUIRE(!(s->error == H2Error::kNone) || (s->rx_end && s->tx_ended && s->head_complete));
    FUZZ_REQUIRE(s->head_sent || s->error == H2Error::kGoAway);
    if (s->rx_end && s->head_complete && s->response.headers.has(HeaderId::kContentLength) && s->error == H2Error::kNone &&
        s->request.method != "HEAD" && s->response.status != 204 && s->response.status != 304) {
      uint64_t told = 0;
      for (const char d : s->response.headers.get(HeaderId::kContentLength)) told = told * 10 + static_cast<uint64_t>(d - '0');
      FUZZ_REQUIRE(told == s->rx_bytes);
    }
    for (size_t i = 0; i < owner.streams.size(); ++i)
      if (owner.streams[i].get() == s) {
        owner.drop(c, i);
        break;
      }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static base::Arena* const arena = base::Arena::create(base::kArenaMinBytes);
  support::HeapPacketPool pool(512);
  {
    H2Context context(arena, pool);
    const uint64_t before = arena->in_use();
    {
      Owner owner;
      auto c = std::make_unique<H2Connection>();
      H2Options options;
      options.initial_stream_window_size = options.initial_connection_window_size = 65535;
      options.max_concurrent_streams = 20;
      options.override_stream_error_on_invalid_http_message = size != 0 && (data[0] & 0x80) != 0;
      FUZZ_REQUIRE(c->start(context, H2Role::kClient, options, owner));
      base::TimeNs now = base::kSecond;
      size_t pick = 0;
      const auto chosen = [&]() -> Stream* {
        return owner.streams.empty() ? nullptr : owner.streams[pick++ % owner.streams.size()].get();
      };
      const auto produce = [&](uint64_t limit) {
        io::PacketQueue out;
        c->produce(out, limit);
        look(*c, owner);
      };
      for (size_t at = 0; at < size;) {
        switch (data[at++] % kCount) {
          case kBytes: {
            if (at == size) break;
            const size_t told = data[at++], n = std::min(told, size - at);
            io::PacketQueue in;
            in.push_whole(pool.make(std::string_view(reinterpret_cast<const char*>(data + at), n)));
            at += n;
            c->receive(in, now += base::kMillisecond);
            look(*c, owner);
            break;
          }
          case kSettings: {
            static constexpr std::string_view kEmpty("\0\0\0\4\0\0\0\0\0", 9);
            io::PacketQueue in;
            in.push_whole(pool.make(kEmpty));
            c->receive(in, now);
            break;
          }
          case kOpen:
          case kOpenPost: {
            if (owner.streams.size() == kMostStreams || c->may_open() == 0) break;
            FUZZ_REQUIRE(c->open_streams() < 20);
            RequestHead head;
            head.method = data[at - 1] % kCount == kOpen ? "GET" : "POST";
            head.path = "/";
            head.authority = "a";
            head.scheme = "http";
            Stream& s = *owner.streams.emplace_back(std::make_unique<Stream>());
            s.request.method = head.method;
            if (!c->submit_request(s, head, head.method == "GET")) owner.drop(*c, owner.streams.size() - 1);
            break;
          }
          case kBody:
          case kLastBody:
            if (Stream* s = chosen(); s != nullptr && !s->tx_end) {
              s->tx.append_copy(std::string_view("0123456789"), pool);
              s->tx_end = data[at - 1] % kCount == kLastBody;
              c->resume(*s);
            }
            break;
          case kGiveUp:
            if (!owner.streams.empty()) owner.drop(*c, pick++ % owner.streams.size());
            break;
          case kReset:
            if (Stream* s = chosen(); s != nullptr) c->reset(*s, H2Code::kCancel);
            break;
          case kTake:
            if (Stream* s = chosen(); s != nullptr) {
              const uint64_t n = s->rx.bytes();
              FUZZ_REQUIRE((s->taken += n) <= s->rx_bytes);
              s->rx.clear();
              c->consumed(*s, n);
            }
            break;
          case kPing:
            c->ping();
            break;
          case kProduce:
            produce(at < size ? data[at] * 64u : 64);
            break;
          case kReconnect: {
            while (!owner.streams.empty()) owner.drop(*c, 0);
            c->stop();
            c = std::make_unique<H2Connection>();
            FUZZ_REQUIRE(c->start(context, H2Role::kClient, options, owner));
            break;
          }
        }
        uint64_t unread = 0;
        for (const auto& s : owner.streams) unread += s->rx.bytes();
        FUZZ_REQUIRE(c->unread() == unread || c->error() == H2Error::kNoMemory);
        FUZZ_REQUIRE(unread <= 65535u + 16384u);
        FUZZ_REQUIRE(c->open_streams() <= 20);
      }
      produce(1 << 20);
      while (!owner.streams.empty()) owner.drop(*c, 0);
    }
    FUZZ_REQUIRE(arena->in_use() == before);
  }
  FUZZ_REQUIRE(pool.balanced());
  return 0;
}
