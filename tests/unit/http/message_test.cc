#include "lib/http/message.h"

#include <set>
#include <string>

#include <gtest/gtest.h>

#include "lib/http/connection.h"
#include "lib/http/scratch.h"

namespace millrace::http {
namespace {

TEST(HeaderNames, EveryNameHasItsIdAndNothingElseDoes) {
  std::set<std::string_view> names;
  for (int i = 1; i < static_cast<int>(HeaderId::kCount); ++i) {
    const HeaderId id = static_cast<HeaderId>(i);
    const std::string name(header_name(id));
    EXPECT_EQ(header_id(name), id);
    EXPECT_TRUE(names.insert(header_name(id)).second);
    for (size_t at = 0; at < name.size(); ++at) {  // one byte off is another name
      std::string other = name;
      other[at] = '*';
      EXPECT_EQ(header_id(other), HeaderId::kOther) << other;
      EXPECT_EQ(header_id(name.substr(0, at)) == HeaderId::kOther || names.count(name.substr(0, at)) != 0 || at == 2, true);
    }
    EXPECT_EQ(header_id(name + "x"), HeaderId::kOther);
  }
  EXPECT_EQ(header_id(""), HeaderId::kOther);
  EXPECT_EQ(header_id("Host"), HeaderId::kOther);  // lower case is the caller's duty
  EXPECT_EQ(header_name(HeaderId::kOther), "");
}

std::string text_of(const HeaderTable& t) {
  std::string s;
  for (const Header& h : t) s += std::string(h.name) + "=" + std::string(h.value) + " ";
  return s;
}

TEST(HeaderTable, FindSetRemove) {
  Header storage[6];
  HeaderTable t(storage, 6);
  const auto add = [&](std::string_view n, std::string_view v) { return t.push({n, v, header_id(n)}); };
  EXPECT_TRUE(add("x-a", "1"));
  EXPECT_TRUE(add("via", "v1"));
  EXPECT_TRUE(add("x-b", "2"));
  EXPECT_TRUE(add("via", "v2"));
  EXPECT_TRUE(add("x-a", "3"));
  EXPECT_EQ(t.get(HeaderId::kVia), "v1");
  EXPECT_EQ(t.find("x-a")->value, "1");
  EXPECT_EQ(t.find("via")->value, "v1");
  EXPECT_EQ(t.find("x-c"), nullptr);
  EXPECT_EQ(t.find("server"), nullptr);

  EXPECT_TRUE(t.set(HeaderId::kVia, "v3"));  // in place; the second goes
  EXPECT_EQ(text_of(t), "x-a=1 via=v3 x-b=2 x-a=3 ");
  EXPECT_TRUE(t.set(HeaderId::kServer, "s"));
  EXPECT_EQ(text_of(t), "x-a=1 via=v3 x-b=2 x-a=3 server=s ");
  EXPECT_EQ(t.remove("x-a"), 2u);
  EXPECT_EQ(t.remove("x-a"), 0u);
  EXPECT_EQ(text_of(t), "via=v3 x-b=2 server=s ");
  EXPECT_TRUE(t.has(HeaderId::kOther));
  EXPECT_EQ(t.remove("x-b"), 1u);
  EXPECT_FALSE(t.has(HeaderId::kOther));
  EXPECT_EQ(t.remove(HeaderId::kVia), 1u);
  EXPECT_FALSE(t.has(HeaderId::kVia));
  EXPECT_TRUE(t.has(HeaderId::kServer));
}

TEST(HeaderTable, FullIsSaid) {
  Header storage[1];
  HeaderTable t(storage, 1);
  EXPECT_TRUE(t.set(HeaderId::kVia, "1"));
  EXPECT_TRUE(t.set(HeaderId::kVia, "2"));
  EXPECT_FALSE(t.set(HeaderId::kServer, "s"));
  EXPECT_FALSE(t.push({"x", "y", HeaderId::kOther}));
  EXPECT_EQ(text_of(t), "via=2 ");
}

TEST(Scratch, FillsAndSaysWhenItIsFull) {
  char memory[10];
  Scratch s(memory);
  EXPECT_EQ(s.concat({"ab", "", "cd"}), "abcd");
  EXPECT_EQ(s.decimal(1234), "1234");
  EXPECT_FALSE(s.overflowed());
  EXPECT_EQ(s.copy("xyz"), "");
  EXPECT_TRUE(s.overflowed());
  EXPECT_EQ(s.copy("xy"), "xy");
  EXPECT_TRUE(s.overflowed());
  EXPECT_EQ(s.left(), 0u);
}

TEST(Connection, Lists) {
  EXPECT_TRUE(list_has_token("close", "close"));
  EXPECT_TRUE(list_has_token("a , Close\t,b", "close"));
  EXPECT_TRUE(list_has_token(",,close", "close"));
  EXPECT_FALSE(list_has_token("closed", "close"));
  EXPECT_FALSE(list_has_token("clo se", "close"));
  EXPECT_FALSE(list_has_token("", "close"));
}

struct CloseRow {
  Version version;
  const char* name;
  const char* value;
  bool closes;
};
TEST(Connection, ShouldClose) {
  const CloseRow rows[] = {
      {Version::kHttp11, "x", "close", false},
      {Version::kHttp11, "connection", "close", true},
      {Version::kHttp11, "connection", "keep-alive, CLOSE", true},
      {Version::kHttp11, "connection", "keep-alive", false},
      {Version::kHttp11, "proxy-connection", "close", true},
      {Version::kHttp10, "x", "y", true},
      {Version::kHttp10, "connection", "Keep-Alive", false},
      {Version::kHttp10, "connection", "close", true},
  };
  for (const CloseRow& row : rows) {
    Header storage[1];
    HeaderTable t(storage, 1);
    t.push({row.name, row.value, header_id(row.name)});
    EXPECT_EQ(should_close(row.version, t), row.closes) << row.name << ": " << row.value;
  }
}

TEST(Connection, UpgradeExpectGrpc) {
  Header storage[4];
  RequestHead head;
  head.headers = HeaderTable(storage, 4);
  EXPECT_FALSE(is_upgrade(head.headers));
  head.headers.push({"upgrade", "WebSocket", HeaderId::kUpgrade});
  EXPECT_FALSE(is_upgrade(head.headers));
  head.headers.push({"connection", "keep-alive, Upgrade", HeaderId::kConnection});
  EXPECT_TRUE(is_upgrade(head.headers));
  EXPECT_TRUE(is_websocket(head.headers));
  EXPECT_FALSE(expects_continue(head));
  head.headers.push({"expect", "100-Continue", HeaderId::kExpect});
  EXPECT_TRUE(expects_continue(head));
  for (const auto& [type, grpc] : {std::pair{"application/grpc", true},
                                   {"application/grpc+proto", true},
                                   {"application/grpc-web", false},
                                   {"application/grp", false},
                                   {"", false}}) {
    head.headers.set(HeaderId::kContentType, type);
    EXPECT_EQ(is_grpc(head.headers), grpc) << type;
  }
}

}  // namespace
}  // namespace millrace::http
