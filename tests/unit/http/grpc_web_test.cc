#include "lib/http/grpc_web.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace millrace::http {
namespace {

std::string bytes(std::initializer_list<int> b) { return {b.begin(), b.end()}; }
std::string frame(std::string_view message, char flags = 0) {
  const size_t n = message.size();
  return std::string{flags, static_cast<char>(n >> 24), static_cast<char>(n >> 16), static_cast<char>(n >> 8),
                     static_cast<char>(n)} +
         std::string(message);
}

TEST(GrpcWeb, TypesAreExactNames) {
  const struct {
    const char* value;
    GrpcWebType type;
  } kCases[] = {
      {"application/grpc-web", GrpcWebType::kBinary},
      {"application/grpc-web+proto", GrpcWebType::kBinary},
      {"application/grpc-web-text", GrpcWebType::kText},
      {"application/grpc-web-text+proto", GrpcWebType::kText},
      {"application/grpc-web+json", GrpcWebType::kNone},
      {"application/grpc-web-text+proto; charset=utf-8", GrpcWebType::kNone},
      {"Application/grpc-web", GrpcWebType::kNone},
      {"application/grpc", GrpcWebType::kNone},
      {"", GrpcWebType::kNone},
  };
  for (const auto& c : kCases) EXPECT_EQ(grpc_web_type(c.value), c.type) << c.value;
}

TEST(GrpcWeb, ResponsesThatPass) {
  const struct {
    uint16_t status;
    const char *type, *grpc_status;
    bool end, passes;
  } kCases[] = {
      {200, "application/grpc", nullptr, false, true},
      {200, "application/grpc+proto", nullptr, false, true},
      {200, "application/grpc-web+proto", nullptr, false, true},
      {200, "application/grpc-web+Proto ; x=y", nullptr, false, true},
      {200, "application/grpc-web-text", nullptr, false, false},
      {200, "text/html", nullptr, false, false},
      {200, "text/html", "0", false, false},
      {503, "application/grpc", nullptr, false, false},
      {503, "application/grpc", "14", true, true},  // trailers only: the status of HTTP does not count
      {200, "application/grpc", nullptr, true, false},
  };
  for (const auto& c : kCases) {
    Header storage[4];
    ResponseHead head;
    head.status = c.status;
    head.headers = HeaderTable(storage, 4);
    head.headers.push({"content-type", c.type, HeaderId::kContentType});
    if (c.grpc_status != nullptr) head.headers.push({"grpc-status", c.grpc_status, HeaderId::kGrpcStatus});
    EXPECT_EQ(is_grpc_web_response(head, c.end), c.passes) << c.status << c.type << c.end;
  }
}

TEST(Base64Decoder, WhatItReads) {
  const struct {
    const char *text, *bytes;
    bool bad, complete;
  } kCases[] = {
      {"", "", false, true},
      {"aGVsbG8=", "hello", false, true},
      {"aGVsbA==", "hell", false, true},
      {"aGVs", "hel", false, true},
      {"aGVsbA==bwo=", "hello\n", false, true},  // one encoding behind the other
      {"aGVsb", "hel", false, false},
      {"aGVsbG8", "hel", false, false},  // padding is not optional
      {"aGVs\nbG8=", "hel", true, false},
      {"aGVs\n", "hel", false, false},  // it may be the length that is wrong
      {"aG-_", "", true, false},
      {"a===", "", true, false},
      {"====", "", true, false},
      {"aA=a", "", true, false},
      {"aGVsbG9=", "hel", true, false},  // bits behind the last byte
      {"aB==", "", true, false},
  };
  for (const auto& c : kCases) {
    for (const size_t room : {3, 4, 7, 100}) {
      for (const size_t piece : {1, 2, 3, 5, 100}) {
        SCOPED_TRACE(std::string(c.text) + " room " + std::to_string(room) + " piece " + std::to_string(piece));
        Base64Decoder d;
        std::string got;
        std::string_view left = c.text;
        CodedStep s;
        while (!left.empty() && !s.bad) {
          uint8_t out[100];
          s = d.step(base::as_bytes(left.substr(0, piece)), std::span(out).first(room));
          ASSERT_TRUE(s.consumed != 0 || s.bad);
          got.append(reinterpret_cast<char*>(out), s.produced);
          left.remove_prefix(s.consumed);
        }
        EXPECT_EQ(got, c.bytes);
        EXPECT_EQ(s.bad, c.bad);
        if (!c.bad) {
          EXPECT_EQ(d.complete(), c.complete);
        }
      }
    }
  }
}

TEST(GrpcWebTextEncoder, EachFrameIsAnEncodingOfItsOwn) {
  const std::string in = frame("") + frame("a") + frame("hello") + frame("0123456789", 1) + frame("cut off").substr(0, 8);
  constexpr std::string_view kText = "AAAAAAA=AAAAAAFhAAAAAAVoZWxsbw==AQAAAAowMTIzNDU2Nzg5AAAAAAdjdXQ=";
  for (const size_t room : {8, 9, 12, 17, 200}) {
    for (const size_t piece : {1, 2, 3, 4, 5, 7, 200}) {
      GrpcWebTextEncoder e;
      std::string got;
      std::string_view left = in;
      uint8_t out[200];
      while (!left.empty()) {
        const CodedStep s = e.step(base::as_bytes(left.substr(0, piece)), std::span(out).first(room));
        ASSERT_NE(s.consumed, 0u);
        got.append(reinterpret_cast<char*>(out), s.produced);
        left.remove_prefix(s.consumed);
      }
      got.append(reinterpret_cast<char*>(out), e.finish(out));
      EXPECT_EQ(got, kText) << room << " " << piece;
      EXPECT_EQ(e.finish(out), 0u);
    }
  }
}

TEST(GrpcWeb, FrameOfTrailers) {
  Header storage[4];
  HeaderTable t(storage, 4);
  t.push({"grpc-status", "0", HeaderId::kGrpcStatus});
  t.push({"x-a", "b: c", HeaderId::kOther});
  char out[64];
  const size_t n = write_grpc_web_trailers(t, out);
  EXPECT_EQ(std::string(out, n), bytes({0x80, 0, 0, 0, 25}) + "grpc-status:0\r\nx-a:b: c\r\n");
  char small[29];
  small[0] = 'x';
  EXPECT_EQ(write_grpc_web_trailers(t, small), n);
  EXPECT_EQ(small[0], 'x');
}

TEST(GrpcWeb, Messages) {
  char memory[64];
  for (const auto& [text, message] : std::vector<std::pair<std::string, std::string>>{
           {"plain text", "plain text"}, {"100 % ~\n\x7f", "100 %25 %7E%0A%7F"}, {"\xc3\xa9", "%C3%A9"}, {"", ""}}) {
    Scratch s(memory);
    EXPECT_EQ(grpc_message(text, s), message);
  }
  Scratch none(std::span<char>(memory, 2));
  EXPECT_EQ(grpc_message("%", none), "");
  EXPECT_TRUE(none.overflowed());
}

}  // namespace
}  // namespace millrace::http
