// What the view accepts says the same after it was written by the repr, whatever the order and padding of the options was.
#include "lib/wire/tcp.h"

#include "tests/fuzz/require.h"

using namespace millrace::wire;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  TcpView v;
  if (TcpView::parse({data, size}, v) != ParseError::kNone) return 0;
  FUZZ_REQUIRE(v.payload_offset >= kTcpMinHeader && v.payload_offset <= kTcpMaxHeader && v.payload_offset % 4 == 0);
  FUZZ_REQUIRE(v.payload_offset + v.payload_length == size);
  FUZZ_REQUIRE(!v.wscale || *v.wscale <= kTcpMaxWindowShift);
  FUZZ_REQUIRE(v.syn() || (!v.mss && !v.wscale && !v.sack_permitted));

  TcpRepr repr;
  repr.src_port = v.src_port;
  repr.dst_port = v.dst_port;
  repr.seq = v.seq;
  repr.ack = v.ack;
  repr.window = v.window;
  repr.flags = v.flags;
  repr.mss = v.mss;
  repr.wscale = v.wscale;
  repr.sack_permitted = v.sack_permitted;
  repr.timestamps = v.timestamps;
  repr.sack = v.sack;
  uint8_t out[kTcpMaxHeader];
  const uint32_t length = repr.emit(out);
  FUZZ_REQUIRE(length == repr.header_length() && length <= kTcpMaxHeader);
  TcpView again;
  FUZZ_REQUIRE(TcpView::parse({out, length}, again) == ParseError::kNone);
  FUZZ_REQUIRE(again.payload_offset == length && again.payload_length == 0);
  FUZZ_REQUIRE(again.seq == v.seq && again.window == v.window && again.flags == v.flags);
  FUZZ_REQUIRE(again.ack == (v.has_ack() ? v.ack : 0));
  FUZZ_REQUIRE(again.mss == v.mss && again.wscale == v.wscale && again.sack_permitted == v.sack_permitted &&
               again.timestamps == v.timestamps);
  FUZZ_REQUIRE(again.sack.size() <= v.sack.size());
  for (uint32_t i = 0; i < again.sack.size(); ++i) FUZZ_REQUIRE(again.sack[i] == v.sack[i]);
  return 0;
}
