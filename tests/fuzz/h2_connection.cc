// Bytes of anybody on an HTTP/2 connection, as server and as client: it never crashes, gives every packet and every byte of its
// arena back, keeps its bounds, and what it accepted as a head is what lib/http calls one. The first byte: bit 0 the role, bit 1
// whether the preface and SETTINGS come first, the rest how the bytes are cut into packets and what the owner does with streams.
#include "lib/http/h2_connection.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/fuzz/require.h"
#include "tests/support/heap_packet_pool.h"

using namespace millrace;
using namespace millrace::http;

namespace {

struct FuzzStream : H2Stream {
  char bytes[64], more[4096], trailer_bytes[256];
  Header fields[4], more_fields[64], trailer_fields[8];
  bool grown = false;
};

struct Owner final : H2Owner {
  std::vector<std::unique_ptr<FuzzStream>> streams;
  H2Stream* open_stream() override {
    if (streams.size() == 64) return nullptr;
    streams.push_back(std::make_unique<FuzzStream>());
    return streams.back().get();
  }
  bool lend(H2Stream& s, bool trailers, H2HeadStorage* storage) override {
    auto& t = static_cast<FuzzStream&>(s);
    if (trailers) *storage = {t.trailer_bytes, t.trailer_fields, 8};
    else *storage = {{t.bytes, 64}, t.fields, 4};
    return true;
  }
  bool grow(H2Stream& s, H2HeadStorage* storage) override {
    auto& t = static_cast<FuzzStream&>(s);
    *storage = {{t.more, sizeof t.more}, t.more_fields, 64};
    return !std::exchange(t.grown, true);
  }
};

void check_text(const FuzzStream& s, std::string_view v) {
  if (v.empty()) return;
  const auto within = [&](const char* from, size_t n) { return v.data() >= from && v.data() + v.size() <= from + n; };
  FUZZ_REQUIRE(s.grown ? within(s.more, sizeof s.more) : within(s.bytes, sizeof s.bytes));
  for (const char c : v) FUZZ_REQUIRE(c != '\r' && c != '\n' && c != '\0');
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  static base::Arena* const arena = base::Arena::create(base::kArenaMinBytes);
  const uint8_t how = data[0];
  const size_t cut = 1 + data[1];
  data += 2;
  size -= 2;
  support::HeapPacketPool pool(512);
  {
    H2Context context(arena, pool);
    const uint64_t before = arena->in_use();
    Owner owner;
    const bool server = (how & 1) == 0;
    H2Options options;
    options.initial_stream_window_size = options.initial_connection_window_size = 65535;
    options.override_stream_error_on_invalid_http_message = (how & 4) != 0;
    {
      H2Connection c;
      FUZZ_REQUIRE(c.start(context, server ? H2Role::kServer : H2Role::kClient, options, owner));
      if (!server) {
        RequestHead head;
        head.method = "POST";
        head.path = "/";
        head.authority = "a";
        head.scheme = "http";
        for (int i = 0; i < 3; ++i) {
          FuzzStream& s = *static_cast<FuzzStream*>(owner.open_stream());
          FUZZ_REQUIRE(c.submit_request(s, head, i == 0));
        }
      }
      std::string bytes(reinterpret_cast<const char*>(data), size);
      const std::string settings("\0\0\0\4\0\0\0\0\0", 9);
      if (how & 2) bytes = (server ? "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" : "") + settings + bytes;
      base::TimeNs now = base::kSecond;
      bool alive = true;
      for (size_t i = 0; i < bytes.size() && alive; i += cut) {
        io::PacketQueue in, out;
        in.push_whole(pool.make(std::string_view(bytes).substr(i, cut)));
        alive = c.receive(in, now += base::kMillisecond);
        while (auto* s = static_cast<FuzzStream*>(c.pop_ready())) {
          if (s->head_complete && server) {
            check_text(*s, s->request.path);
            check_text(*s, s->request.authority);
            for (const Header& h : s->request.headers) check_text(*s, h.value);
          }
          const uint64_t n = s->rx.bytes();
          if (how & 8) {
            s->rx.clear();
            c.consumed(*s, n);
          }
          if (server && s->head_complete && !s->closed && s->tx_bytes == 0 && !s->tx_end && (how & 16)) {
            ResponseHead head;
            head.status = 200;
            c.submit_response(*s, head, (how & 32) != 0);
            if ((how & 32) == 0) {
              s->tx.append_copy("answer", pool);
              s->tx_end = true;
              c.resume(*s);
            }
          }
          if (s->closed || (how & 64)) c.release(*s);
        }
        c.produce(out, 16384);
        FUZZ_REQUIRE(c.open_streams() <= 64);
      }
      for (auto& s : owner.streams) c.release(*s);
    }
    FUZZ_REQUIRE(arena->in_use() == before);
  }
  FUZZ_REQUIRE(pool.balanced());
  return 0;
}
