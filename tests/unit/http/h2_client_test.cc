// H2Connection as a client: what a server may do to it.
#include "tests/unit/http/h2_fixture.h"

namespace millrace::http::test {
namespace {

const std::string kServerHello = frame(kSettings, 0, 0, "");
// :status 200
const std::string k200 = "\x88";

class H2Client : public H2 {
 protected:
  void begin(H2Options o = {}) {
    ASSERT_TRUE(client.start(context, H2Role::kClient, o, client_owner));
    ASSERT_TRUE(feed_client(kServerHello));
    out();
  }
  std::vector<Frame> out() {
    io::PacketQueue q;
    client.produce(q, 1 << 20);
    std::string s = drain(q);
    if (s.starts_with(kH2Preface)) s.erase(0, kH2Preface.size());
    return parse(s);
  }
  // The code of the frame of that type that we send, for that stream.
  uint32_t code_of(uint8_t type, uint32_t stream = 0) {
    for (const Frame& f : out())
      if (f.type == type && f.stream == stream) return static_cast<uint8_t>(f.payload.back());
    return UINT32_MAX;
  }
};

TEST_F(H2Client, SaysThePrefaceAndTakesNoPush) {
  ASSERT_TRUE(client.start(context, H2Role::kClient, {}, client_owner));
  io::PacketQueue q;
  client.produce(q, 1 << 20);
  const std::string s = drain(q);
  ASSERT_TRUE(s.starts_with(kH2Preface));
  const std::vector<Frame> frames = parse(std::string_view(s).substr(kH2Preface.size()));
  ASSERT_GE(frames.size(), 1u);
  EXPECT_EQ(frames[0].type, kSettings);
  EXPECT_NE(frames[0].payload.find(std::string("\0\2\0\0\0\0", 6)), std::string::npos) << "ENABLE_PUSH 0";
}

TEST_F(H2Client, OpensNoMoreStreamsThanItMayBeforeSettings) {
  ASSERT_TRUE(client.start(context, H2Role::kClient, {}, client_owner));
  EXPECT_FALSE(client.settings_received());
  EXPECT_EQ(client.may_open(), kStreamsBeforeSettings);
  ASSERT_TRUE(feed_client(kServerHello));
  EXPECT_TRUE(client.settings_received());
  EXPECT_EQ(client.may_open(), 1024u) << "the peer names no limit: ours";
}

TEST_F(H2Client, KnowsWhetherTheHeadWentOut) {
  begin();
  TestStream* s = request("GET", "/", true);
  EXPECT_FALSE(s->head_sent);
  out();
  EXPECT_TRUE(s->head_sent);
  client.release(*s);
}

TEST_F(H2Client, AStreamGivenUpBeforeItsHeadWentOutIsForgotten) {
  begin();
  TestStream* s = request("GET", "/", true);
  client.release(*s);
  std::memset(static_cast<void*>(s->bytes), 0xdd, sizeof s->bytes);
  for (const Frame& f : out()) EXPECT_NE(f.type, kHeaders);
  EXPECT_EQ(client.open_streams(), 0u);
  EXPECT_FALSE(client.has_ready());
  TestStream* next = request("GET", "/next", true);
  out();
  EXPECT_TRUE(next->head_sent);
  client.release(*next);
}

TEST_F(H2Client, GoawayLeavesOutWhatIsAboveItsId) {
  begin();
  TestStream* first = request("GET", "/1", true);
  TestStream* second = request("GET", "/2", true);
  out();
  TestStream* queued = request("GET", "/3", true);
  ASSERT_TRUE(feed_client(frame(kGoAwayFrame, 0, 0, u32(static_cast<uint32_t>(first->id)) + u32(0))));
  out();
  std::vector<TestStream*> ready;
  while (TestStream* s = next(client)) ready.push_back(s);
  EXPECT_EQ(ready.size(), 2u);
  EXPECT_TRUE(second->closed && queued->closed && !first->closed);
  EXPECT_EQ(second->error, H2Error::kGoAway);
  EXPECT_EQ(queued->error, H2Error::kGoAway) << "it was not even sent";
  EXPECT_EQ(client.may_open(), 0u);
  EXPECT_FALSE(client.finished());
  ASSERT_TRUE(feed_client(frame(kHeaders, kEndHeaders | kEndStream, 1, k200)));
  EXPECT_EQ(next(client), first);
  EXPECT_EQ(first->response.status, 200);
  EXPECT_TRUE(client.finished());
  for (TestStream* s : {first, second, queued}) client.release(*s);
}

TEST_F(H2Client, PingsAreAnswered) {
  begin();
  ASSERT_TRUE(client.ping());
  std::string payload;
  for (const Frame& f : out())
    if (f.type == kPing && f.flags == 0) payload = f.payload;
  ASSERT_EQ(payload.size(), 8u);
  EXPECT_EQ(client.counters().ping_acks_rx, 0u);
  ASSERT_TRUE(feed_client(frame(kPing, kAck, 0, payload)));
  EXPECT_EQ(client.counters().ping_acks_rx, 1u);
}

TEST_F(H2Client, UnreadBytesAreCounted) {
  begin();
  TestStream* a = request("GET", "/a", true);
  TestStream* b = request("GET", "/b", true);
  out();
  for (const TestStream* s : {a, b})
    ASSERT_TRUE(feed_client(frame(kHeaders, kEndHeaders, static_cast<uint32_t>(s->id), k200) +
                            frame(kData, 0, static_cast<uint32_t>(s->id), std::string(1000, 'x'))));
  EXPECT_EQ(client.unread(), 2000u);
  a->rx.consume(300);
  client.consumed(*a, 300);
  EXPECT_EQ(client.unread(), 1700u);
  client.release(*b);
  EXPECT_EQ(client.unread(), 700u);
  client.release(*a);
  EXPECT_EQ(client.unread(), 0u);
}

struct ServerCase {
  const char* name;
  std::string bytes;  // behind SETTINGS, with one GET under way on stream 1
  H2Error error;
  bool connection;  // the connection's end, not only the stream's
};
class H2BadServer : public H2Client, public ::testing::WithParamInterface<ServerCase> {};

TEST_P(H2BadServer, IsFoundOut) {
  for (const bool stream_only : {false, true}) {
    SCOPED_TRACE(stream_only);
    H2Options o;
    o.override_stream_error_on_invalid_http_message = stream_only;
    o.max_headers = 8;
    begin(o);
    TestStream* s = request("GET", "/", true);
    out();
    feed_client(GetParam().bytes);
    out();
    const bool message = GetParam().error == H2Error::kInvalidHeader || GetParam().error == H2Error::kMessaging;
    if (GetParam().connection && !(message && stream_only)) {
      EXPECT_EQ(client.error(), GetParam().error) << info(client.error()).details;
      EXPECT_TRUE(client.finished());
    } else {
      EXPECT_EQ(client.error(), H2Error::kNone) << info(client.error()).details;
      EXPECT_TRUE(s->closed);
      EXPECT_EQ(s->error, GetParam().error) << info(s->error).details;
    }
    client.release(*s);
    client.stop();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Table, H2BadServer,
    ::testing::Values(
        ServerCase{"Push", frame(kPush, kEndHeaders, 1, u32(2) + get_block()), H2Error::kPush, true},
        ServerCase{"NotHttp2", "HTTP/1.1 400 Bad Request\r\n\r\n", H2Error::kFrameSize, true},
        ServerCase{"DataBeforeHead", frame(kData, 0, 1, "x"), H2Error::kProtocol, true},
        ServerCase{"NoStatus", frame(kHeaders, kEndHeaders, 1, literal("x", "y")), H2Error::kMessaging, true},
        ServerCase{"StatusOfTwoDigits", frame(kHeaders, kEndHeaders, 1, literal(":status", "20")), H2Error::kInvalidHeader, true},
        ServerCase{"TwoStatus", frame(kHeaders, kEndHeaders, 1, k200 + literal(":status", "200")), H2Error::kInvalidHeader, true},
        ServerCase{"Status101", frame(kHeaders, kEndHeaders, 1, literal(":status", "101")), H2Error::kInvalidHeader, true},
        ServerCase{"RequestPseudoHeader", frame(kHeaders, kEndHeaders, 1, k200 + literal(":path", "/")), H2Error::kInvalidHeader,
                   true},
        ServerCase{"ConnectionField", frame(kHeaders, kEndHeaders, 1, k200 + literal("connection", "close")),
                   H2Error::kInvalidHeader, true},
        ServerCase{"TransferEncoding", frame(kHeaders, kEndHeaders, 1, k200 + literal("transfer-encoding", "chunked")),
                   H2Error::kInvalidHeader, true},
        ServerCase{"NewlineInValue", frame(kHeaders, kEndHeaders, 1, k200 + literal("x", "a\r\nb: c")), H2Error::kInvalidHeader,
                   true},
        ServerCase{"UpperCaseName", frame(kHeaders, kEndHeaders, 1, k200 + literal("X-Y", "z")), H2Error::kInvalidHeader, true},
        ServerCase{"TwoLengths",
                   frame(kHeaders, kEndHeaders, 1, k200 + literal("content-length", "3") + literal("content-length", "3")),
                   H2Error::kInvalidHeader, true},
        ServerCase{"PseudoHeaderInTrailers",
                   frame(kHeaders, kEndHeaders, 1, k200) + frame(kHeaders, kEndHeaders | kEndStream, 1, k200),
                   H2Error::kInvalidHeader, true},
        ServerCase{"TooManyHeaders", frame(kHeaders, kEndHeaders, 1, k200 + repeat(literal("x", "y"), 9)),
                   H2Error::kTooManyHeaders, false},
        ServerCase{"InformationalFlood", repeat(frame(kHeaders, kEndHeaders, 1, literal(":status", "103")), 33),
                   H2Error::kInformationalFlood, false},
        ServerCase{"EmptyDataFlood", frame(kHeaders, kEndHeaders, 1, k200) + repeat(frame(kData, 0, 1, ""), 2),
                   H2Error::kEmptyFrames, true},
        ServerCase{"WindowUpdateFlood", repeat(frame(kWindow, 0, 0, u32(1)), 8), H2Error::kWindowUpdateFlood, true},
        ServerCase{"PriorityFlood", repeat(frame(kPriority, 0, 1, u32(0) + "\x10"), 201), H2Error::kPriorityFlood, true},
        ServerCase{"ContinuationFlood", frame(kHeaders, 0, 1, k200) + repeat(frame(kContinuation, 0, 1, literal("a", "b")), 50),
                   H2Error::kContinuationFlood, true},
        ServerCase{"PingFlood", repeat(frame(kPing, 0, 0, "12345678"), 1001), H2Error::kOutboundControlFlood, true},
        ServerCase{"SettingsFlood", repeat(frame(kSettings, 0, 0, ""), 1001), H2Error::kOutboundControlFlood, true},
        ServerCase{"EvenStream", frame(kHeaders, kEndHeaders, 2, k200), H2Error::kProtocol, true}),
    [](const auto& p) { return std::string(p.param.name); });

TEST_F(H2Client, ALengthThatLiesIsNotTakenForWhole) {
  begin();
  TestStream* s = request("GET", "/", true);
  out();
  feed_client(frame(kHeaders, kEndHeaders, 1, k200 + literal("content-length", "3")) + frame(kData, kEndStream, 1, "four"));
  out();
  EXPECT_FALSE(s->rx_end);
  EXPECT_TRUE(s->closed);
  client.release(*s);
}

TEST_F(H2Client, AnswersWithoutBodies) {
  begin();
  TestStream* head = request("HEAD", "/", true);
  TestStream* none = request("GET", "/", true);
  out();
  ASSERT_TRUE(feed_client(frame(kHeaders, kEndHeaders | kEndStream, 1, k200 + literal("content-length", "1000")) +
                          frame(kHeaders, kEndHeaders, 3, literal(":status", "204")) + frame(kData, kEndStream, 3, "")));
  EXPECT_TRUE(head->rx_end && head->closed && head->error == H2Error::kNone);
  EXPECT_TRUE(none->rx_end && none->closed && none->error == H2Error::kNone);
  client.release(*head);
  client.release(*none);
}

TEST_F(H2Client, AResetAfterTheWholeAnswerIsNoFailure) {
  begin();
  TestStream* s = request("POST", "/", false);
  write(client, *s, "part", false);
  out();
  ASSERT_TRUE(
      feed_client(frame(kHeaders, kEndHeaders, 1, k200) + frame(kData, kEndStream, 1, "whole") + frame(kRst, 0, 1, u32(0))));
  EXPECT_TRUE(s->head_complete && s->rx_end && s->closed);
  EXPECT_EQ(drain(s->rx), "whole");
  client.consumed(*s, 5);
  client.release(*s);
}

}  // namespace
}  // namespace millrace::http::test
