#include "lib/http/websocket.h"

#include <string>

#include <gtest/gtest.h>

namespace millrace::http {
namespace {

std::string accept_of(std::string_view key) {
  char out[kWebSocketAcceptBytes];
  write_websocket_accept(key, out);
  return {out, sizeof out};
}

// The first is RFC 6455 1.3's own; the others were made with Python's hashlib and base64, so that one, two and three blocks are
// there (a key of 19 bytes is the last that fits one block, one of 20 the first that does not).
TEST(WebSocket, Accept) {
  EXPECT_EQ(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
  EXPECT_EQ(accept_of(""), "Kfh9QIsMVZcl6xEPYxPHzW8SZ8w=");
  EXPECT_EQ(accept_of(std::string(19, 'a')), "yzaGyu0mcUukN7CdsSwa30tnCpc=");
  EXPECT_EQ(accept_of(std::string(20, 'a')), "dUYRM7bOMwDmbriNIPr11x+r3E0=");
  EXPECT_EQ(accept_of(std::string(64, 'a')), "jGdebzmm20QI0DmM5dGETWg7dwQ=");
  EXPECT_EQ(accept_of(std::string(65, 'a')), accept_of(std::string(64, 'a'))) << "no key is that long";
}

TEST(WebSocket, Key) {
  char out[kWebSocketKeyBytes];
  const uint64_t zero[2] = {0, 0}, bytes[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
  write_websocket_key(zero, out);
  EXPECT_EQ(std::string(out, sizeof out), "AAAAAAAAAAAAAAAAAAAAAA==");
  write_websocket_key(bytes, out);
  EXPECT_EQ(std::string(out, sizeof out), "AAECAwQFBgcICQoLDA0ODw==");
}

}  // namespace
}  // namespace millrace::http
