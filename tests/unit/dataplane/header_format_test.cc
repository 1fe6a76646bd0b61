// Headers with %COMMANDS%, on the way up and on the way down, over tables that change in between.
#include "tests/unit/dataplane/worker_fixture.h"

namespace millrace::dataplane::test {
namespace {

using table::FormatOp;
using table::FormatPiece;
using table::HeaderAppend;

FormatPiece text(std::string s) { return {.op = FormatOp::kLiteral, .text = std::move(s)}; }
FormatPiece op(FormatOp o, std::string name = "", std::string other = "", uint32_t max = 0) {
  return {.op = o, .text = std::move(name), .other = std::move(other), .max_length = max};
}
route::HeaderOptionSpec header(std::string name, std::vector<FormatPiece> parts,
                               HeaderAppend append = HeaderAppend::kAppendIfExistsOrAdd, bool keep_empty = false) {
  return {std::move(name), "", append, keep_empty, std::move(parts)};
}

Config config() {
  Config c;
  c.routes = {route_to()};
  auto& m = c.routes[0].headers_mut;
  m.request_add = {
      header("x-plain", {text("a "), op(FormatOp::kReq, ":method"), text(" b")}),
      header("x-cut", {op(FormatOp::kReq, ":path", "", 3)}),
      header("x-other", {op(FormatOp::kReq, "x-none", "x-given")}),
      header("x-none-at-all", {op(FormatOp::kReq, "x-none")}),
      header("x-empty", {op(FormatOp::kReq, "x-none")}, HeaderAppend::kAppendIfExistsOrAdd, true),
      header("x-given", {op(FormatOp::kReq, "x-given"), text("+")}, HeaderAppend::kOverwriteIfExistsOrAdd),
      header("x-after", {op(FormatOp::kReq, "x-given")}),
      header("x-names",
             {op(FormatOp::kRouteName), text("/"), op(FormatOp::kVirtualHostName), text("/"), op(FormatOp::kUpstreamCluster)}),
      header("x-remote", {op(FormatOp::kDownstreamRemoteNoPort), text(" "), op(FormatOp::kDownstreamLocalPort)}),
      header("x-time", {op(FormatOp::kStartTime, "%Y")}),
      header("x-early", {op(FormatOp::kUpstreamHost), text("|"), op(FormatOp::kResponseFlags)}),
  };
  m.response_add = {
      header("x-code", {op(FormatOp::kResponseCode), text(" "), op(FormatOp::kResponseCodeDetails)}),
      header("x-up", {op(FormatOp::kUpstreamHost), text(" "), op(FormatOp::kRouteName)}),
      header("x-echo", {op(FormatOp::kReq, "x-given"), text(" "), op(FormatOp::kResp, "x-from")}),
      header("x-from", {op(FormatOp::kResp, "x-from"), text("!")}, HeaderAppend::kOverwriteIfExists),
      header("x-nothing", {op(FormatOp::kResp, "x-nothing")}),
  };
  return c;
}

TEST(HeaderFormat, Request) {
  World w(config());
  Peer& c = w.connect();
  w.send(c, get("/path?q=1", "x-given: one\r\n"));
  Peer& u = w.upstream();
  ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
  for (const std::string_view line : {"x-plain: a GET b", "x-cut: /pa", "x-other: one", "x-empty: ", "x-given: one+",
                                      "x-after: one", "x-names: to-c/h/c", "x-remote: 10.1.0.2 80", "x-early: |-"})
    EXPECT_TRUE(has_line(u.received, line)) << line << "\n" << u.received;
  EXPECT_EQ(u.received.find("x-none-at-all"), std::string::npos) << "an absent value adds nothing";
  EXPECT_NE(u.received.find("x-time: "), std::string::npos);
}

// The steps of response headers were copied: the tables they came from are overwritten before the response comes.
TEST(HeaderFormat, ResponseAfterTheTablesChanged) {
  World w(config());
  Peer& c = w.connect();
  w.send(c, get("/", "x-given: one\r\n"));
  Peer& u = w.upstream();
  ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
  Config after;
  after.routes = {route_to("d")};
  after.clusters = {{"d", {{"10.2.0.2", 8001}}, {}}};
  w.publish(after);
  w.run(kSecond);
  w.send(u, "HTTP/1.1 201 Created\r\nx-from: there\r\ncontent-length: 5\r\n\r\nhello");
  ASSERT_TRUE(w.wait_for(c, "hello"));
  for (const std::string_view line :
       {"x-code: 201 via_upstream", "x-up: 10.2.0.2:8000 to-c", "x-echo: one+ there", "x-from: there!"})
    EXPECT_TRUE(has_line(c.received, line)) << line << "\n" << c.received;
  EXPECT_EQ(c.received.find("x-nothing"), std::string::npos);
}

TEST(HeaderFormat, OwnAnswersHaveNoCodeYet) {
  Config config;
  route::RouteSpec direct = route_to();
  direct.action = table::ActionKind::kDirectResponse;
  direct.clusters.clear();
  direct.direct_status = 418;
  direct.direct_body = "teapot";
  direct.headers_mut.response_add = {
      header("x-code", {op(FormatOp::kResponseCode), text(" "), op(FormatOp::kResponseCodeDetails)})};
  config.routes = {direct};
  World w(config);
  Peer& c = w.connect();
  w.send(c, get("/"));
  ASSERT_TRUE(w.wait_for(c, "teapot"));
  EXPECT_TRUE(has_line(c.received, "x-code: 0 direct_response")) << c.received;
  EXPECT_EQ(w.log().back().status, 418);
}

// Bytes that no field value may have do not get into one, whatever a command gives.
TEST(HeaderFormat, ControlBytesBecomeUnderscores) {
  Config config;
  config.routes = {route_to()};
  config.routes[0].name = "two\r\nlines";
  config.routes[0].headers_mut.request_add = {header("x-route", {op(FormatOp::kRouteName)})};
  World w(config);
  Peer& c = w.connect();
  w.send(c, get("/"));
  Peer& u = w.upstream();
  ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
  EXPECT_TRUE(has_line(u.received, "x-route: two__lines")) << u.received;
}

// More than a head has room for is refused, not cut.
TEST(HeaderFormat, TooMuchIsRefused) {
  Config config;
  config.routes = {route_to()};
  for (int i = 0; i < 40; ++i)
    config.routes[0].headers_mut.request_add.push_back(header("x-" + std::to_string(i), {op(FormatOp::kReq, ":path")}));
  World w(config);
  Peer& c = w.connect();
  w.send(c, get("/" + std::string(1500, 'p')));
  ASSERT_TRUE(w.wait_for(c, "431 "));
  EXPECT_EQ(w.log().back().status, 431);
}

}  // namespace
}  // namespace millrace::dataplane::test
