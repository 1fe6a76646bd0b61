// The gateway's own answers, changed by mappers and put into a form; which records access logs want.
#include "lib/table/format_piece.h"
#include "tests/unit/dataplane/worker_fixture.h"

namespace millrace::dataplane::test {
namespace {

using table::FormatOp;
using table::FormatPiece;
using table::FormatQuote;
using table::LogFilter;
using table::LogFilterKind;

FormatPiece text(std::string s, FormatQuote quote = FormatQuote::kNone) {
  return {.op = FormatOp::kLiteral, .text = std::move(s), .quote = quote};
}
FormatPiece op(FormatOp o, std::string name = "", FormatQuote quote = FormatQuote::kNone) {
  return {.op = o, .text = std::move(name), .quote = quote};
}
table::BodyFormat form(table::ObjectWriter& w, const std::vector<FormatPiece>& pieces, std::string_view content_type) {
  table::BodyFormat f{};
  f.parts = table::write_format(w, pieces);
  f.content_type = w.string(content_type);
  return f;
}
table::Array<LogFilter> status_at_least(table::ObjectWriter& w, uint16_t status) {
  std::vector<LogFilter> nodes(1);
  nodes[0].kind = LogFilterKind::kStatus;
  nodes[0].op = table::LogFilterOp::kAtLeast;
  nodes[0].value = status;
  return w.array(nodes);
}

// "/nothing" has no route: 404.
Config config(std::function<void(table::ObjectWriter&, table::HttpConnectionManager&)> write) {
  Config c;
  c.routes = {route_to("c", "/up")};
  c.write_hcm = std::move(write);
  return c;
}

TEST(LocalReply, AMapperChangesStatusBodyAndFields) {
  World w(config([](table::ObjectWriter& writer, table::HttpConnectionManager& h) {
    std::vector<table::LocalReplyMapper> mappers(2);
    mappers[0].filter = status_at_least(writer, 500);
    mappers[0].status = 599;
    mappers[1].filter = status_at_least(writer, 404);
    mappers[1].status = 410;
    mappers[1].body = writer.string("gone");
    mappers[1].has_body = 1;
    std::vector<table::HeaderOption> headers(1);
    headers[0].name = writer.string("x-mapped");
    headers[0].parts = table::write_format(writer, {op(FormatOp::kResponseCode), text(" "), op(FormatOp::kReq, ":path")});
    mappers[1].headers_to_add = writer.array(headers);
    h.local_reply_mappers = writer.array(mappers);
    h.local_reply_format = form(writer,
                                {text("<"), op(FormatOp::kLocalReplyBody), text("> "), op(FormatOp::kResponseCode), text(" "),
                                 op(FormatOp::kReq, "x-none")},
                                "text/form");
  }));
  Peer& c = w.connect();
  w.send(c, get("/nothing"));
  ASSERT_TRUE(w.wait_for(c, "<gone> 410 -")) << c.received;
  EXPECT_TRUE(c.received.starts_with("HTTP/1.1 410 Gone\r\n")) << c.received;
  for (const std::string_view line : {"x-mapped: 404 /nothing", "content-type: text/form", "content-length: 12"})
    EXPECT_TRUE(has_line(c.received, line)) << line << "\n" << c.received;
  EXPECT_EQ(w.log().back().status, 410);
}

TEST(LocalReply, JsonOfWhichNothingAbsentIsLeft) {
  World w(config([](table::ObjectWriter& writer, table::HttpConnectionManager& h) {
    const FormatQuote key = FormatQuote::kJsonKey, open = FormatQuote::kJsonOpen, close = FormatQuote::kJsonClose;
    h.local_reply_format = form(
        writer,
        {text("{", open), text("\"a\":", key), op(FormatOp::kReq, "x-none", FormatQuote::kJsonString), text("\"b\":{", open),
         text("\"c\":", key), op(FormatOp::kReq, "x-none", FormatQuote::kJsonString), text("}", close), text("\"d\":[", open),
         text("]", close), text("\"e\":", key), op(FormatOp::kResponseCode, "", FormatQuote::kJsonNumber), text("\"f\":", key),
         op(FormatOp::kReq, "x-odd", FormatQuote::kJsonString), text("}", close)},
        "application/json");
    h.local_reply_format.omit_empty_values = 1;
  }));
  Peer& c = w.connect();
  w.send(c, get("/nothing", "x-odd: \"\\\xc3\xa9\xff\r\n"));
  ASSERT_TRUE(w.wait_for(c, "\"e\":404")) << c.received;
  EXPECT_NE(c.received.find("{\"d\":[],\"e\":404,\"f\":\"\\\"\\\\\xc3\xa9\xef\xbf\xbd\"}"), std::string::npos) << c.received;
}

// More than a small head buffer holds moves to a large one, and what none holds ends the connection: never half a body.
TEST(LocalReply, LongBodies) {
  constexpr size_t kPath = 5000;
  for (const size_t times : {1u, 2u, 20u, 40u}) {
    World w(config([&](table::ObjectWriter& writer, table::HttpConnectionManager& h) {
      std::vector<FormatPiece> pieces;
      for (size_t i = 0; i < times; ++i) pieces.push_back(op(FormatOp::kReq, ":path"));
      h.local_reply_format = form(writer, pieces, "text/plain");
    }));
    Peer& c = w.connect();
    const std::string path = "/" + std::string(kPath - 1, 'p');
    w.send(c, get(path));
    if (times < 40) {
      ASSERT_TRUE(w.wait_for(c, "\r\n\r\n"));
      EXPECT_TRUE(has_line(c.received, "content-length: " + std::to_string(times * kPath))) << times;
      const size_t head = c.received.find("\r\n\r\n") + 4;
      EXPECT_TRUE(w.run_until([&] { return c.received.size() == head + times * kPath; })) << c.received.size();
    } else {
      EXPECT_TRUE(w.run_until([&] { return c.reset || c.fin; })) << c.received;
      EXPECT_EQ(c.received, "");
    }
  }
}

TEST(AccessLogFilter, OnlyWantedRecordsAreMade) {
  World w(config([](table::ObjectWriter& writer, table::HttpConnectionManager& h) {
    std::vector<table::AccessLog> logs(2);
    for (table::AccessLog& l : logs) {
      l.path = writer.string("access.log");
      l.format = writer.string(kLogFormat);
    }
    logs[0].filter = status_at_least(writer, 400);
    logs[1].filter = status_at_least(writer, 500);
    h.access_logs = writer.array(logs);
  }));
  w.serve([](const std::string&) { return std::string("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"); });
  Peer& c = w.connect();
  w.send(c, get("/up"));
  ASSERT_TRUE(w.wait_for(c, "ok"));
  EXPECT_TRUE(w.log().empty()) << "nobody wants it";
  w.send(c, get("/nothing"));
  ASSERT_TRUE(w.wait_for(c, "404"));
  ASSERT_EQ(w.log().size(), 1u);
  EXPECT_EQ(w.log()[0].sinks & 3u, 1u) << "one log of two";
}

}  // namespace
}  // namespace millrace::dataplane::test
