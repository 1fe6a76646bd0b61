#include "lib/http/h1_body.h"

#include <algorithm>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "lib/http/h1_writer.h"
#include "tests/support/seed.h"
#include "tests/unit/http/chars.h"

namespace millrace::http {
namespace {

using namespace std::string_view_literals;

struct Decoded {
  BodyStatus status = BodyStatus::kMore;
  H1Error error = H1Error::kNone;
  std::string body;
  std::string trailers;  // "name=value|..."
  size_t used = 0;       // bytes of the stream that belong to the message
};

enum TrailerMode { kDropTrailers, kWantTrailers };

// Feeds the stream in pieces whose sizes next_piece() gives.
template <class NextPiece>
Decoded decode(std::string_view stream, BodyFraming framing, TrailerMode mode, NextPiece&& next_piece,
               TrailerLimits limits = {}) {
  Decoded run;
  Header storage[128];
  HeaderTable table(storage, 128);
  std::vector<char> memory(4096);
  BodyDecoder d;
  d.start(framing, limits);
  if (mode == kWantTrailers) d.lend_trailers(memory, &table);
  GuardPage page(1 << 17);
  size_t at = 0;
  for (bool first = true; first || (at < stream.size() && run.status == BodyStatus::kMore); first = false) {
    const size_t n = std::min<size_t>(next_piece(), stream.size() - at);
    base::ByteSpan piece = page.place(base::as_bytes(stream.substr(at, n)));
    do {
      const BodyDecoder::Step s = d.step(piece);
      EXPECT_LE(s.skip + s.data, piece.size());
      EXPECT_TRUE(s.skip + s.data != 0 || s.status != BodyStatus::kMore || piece.empty()) << "no progress";
      run.body += base::as_chars(piece.subspan(s.skip, s.data));
      at += s.skip + s.data;
      piece = piece.subspan(s.skip + s.data);
      run.status = s.status;
      run.error = s.error;
    } while (run.status == BodyStatus::kMore && !piece.empty());
  }
  run.used = at;
  EXPECT_EQ(run.status == BodyStatus::kDone, d.done());
  if (run.status != BodyStatus::kBad) {
    EXPECT_EQ(d.body_bytes(), run.body.size());
  }
  if (run.status == BodyStatus::kDone)
    for (const Header& h : table) run.trailers += std::string(h.name) + "=" + std::string(h.value) + "|";
  return run;
}
size_t all() { return SIZE_MAX; }

struct Row {
  const char* name;
  std::string_view stream;  // a chunked body, "NEXT" behind it belongs to the next message
  H1Error error;
  const char* body;
  const char* trailers;
};
const Row kRows[] = {
    {"one chunk", "5\r\nhello\r\n0\r\n\r\nNEXT", H1Error::kNone, "hello", ""},
    {"empty", "0\r\n\r\nNEXT", H1Error::kNone, "", ""},
    {"three chunks", "1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\nNEXT", H1Error::kNone, "abcdef", ""},
    {"hex in both cases", "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", H1Error::kNone, "01234567890123456789", ""},
    {"leading zeros", "0000000000000000000000005\r\nhello\r\n0000\r\n\r\nNEXT", H1Error::kNone, "hello", ""},
    {"blank behind the size", "5 \t\r\nhello\r\n0 \r\n\r\nNEXT", H1Error::kNone, "hello", ""},
    {"extension", "5;a=b;c=\"d e\"\r\nhello\r\n0;x\r\n\r\nNEXT", H1Error::kNone, "hello", ""},
    {"extension with blanks", "5 ; a = b\r\nhello\r\n0\r\n\r\n", H1Error::kNone, "hello", ""},
    {"empty extension", "5;\r\nhello\r\n0\r\n\r\n", H1Error::kNone, "hello", ""},
    {"CRLF is data", "4\r\n\r\n\r\n\r\n0\r\n\r\nNEXT", H1Error::kNone, "\r\n\r\n", ""},
    {"a chunk that looks like an end", "5\r\n0\r\n\r\n\r\n0\r\n\r\nNEXT", H1Error::kNone, "0\r\n\r\n", ""},
    {"trailers", "5\r\nhello\r\n0\r\nX-T: 1\r\nY:  2 \r\n\r\nNEXT", H1Error::kNone, "hello", "x-t=1|y=2|"},
    {"trailer names what it may not", "0\r\nContent-Length: 5\r\nHost: x\r\n\r\nNEXT", H1Error::kNone, "",
     "content-length=5|host=x|"},
    {"size missing", "\r\nhello", H1Error::kBadChunkSize, "", ""},
    {"size 0x5", "0x5\r\nhello", H1Error::kBadChunkSize, "", ""},
    {"size -5", "-5\r\nhello", H1Error::kBadChunkSize, "", ""},
    {"size +5", "+5\r\nhello", H1Error::kBadChunkSize, "", ""},
    {"blank before the size", " 5\r\nhello", H1Error::kBadChunkSize, "", ""},
    {"size 5g", "5g\r\nhello", H1Error::kBadChunkSize, "", ""},
    {"LF behind the size", "5\nhello", H1Error::kBadChunkSize, "", ""},
    {"NUL behind the size", "5\0\r\nhello"sv, H1Error::kBadChunkSize, "", ""},
    {"63 bits", "7fffffffffffffff\r\nx", H1Error::kNone, "x", ""},
    {"64 bits", "8000000000000000\r\nx", H1Error::kChunkSizeOverflow, "", ""},
    {"65 bits", "10000000000000005\r\nhello", H1Error::kChunkSizeOverflow, "", ""},
    {"extension without semicolon", "5 a\r\nhello", H1Error::kBadChunkExtension, "", ""},
    {"extension with CR", "5;a\rb\r\nhello", H1Error::kBadChunkExtension, "", ""},
    {"extension with LF", "5;a\nhello", H1Error::kBadChunkExtension, "", ""},
    {"extension with NUL", "5;a\0\r\nhello"sv, H1Error::kBadChunkExtension, "", ""},
    {"CR CR LF behind the size", "5\r\r\nhello", H1Error::kBadChunkExtension, "", ""},
    {"data too long", "5\r\nhelloX\r\n0\r\n\r\n", H1Error::kMissingChunkEnd, "hello", ""},
    {"data too short", "5\r\nhell\r\n0\r\n\r\n", H1Error::kMissingChunkEnd, "hell\r", ""},
    {"LF behind the data", "5\r\nhello\n0\r\n\r\n", H1Error::kMissingChunkEnd, "hello", ""},
    {"CR CR behind the data", "5\r\nhello\r\r\n", H1Error::kMissingChunkEnd, "hello", ""},
    {"LF at the end", "0\r\n\n", H1Error::kBadTrailer, "", ""},
    {"trailer without colon", "0\r\nXT\r\n\r\n", H1Error::kBadTrailer, "", ""},
    {"trailer without name", "0\r\n: a\r\n\r\n", H1Error::kBadTrailer, "", ""},
    {"trailer with blank before colon", "0\r\nX : a\r\n\r\n", H1Error::kBadTrailer, "", ""},
    {"folded trailer", "0\r\nX: a\r\n b\r\n\r\n", H1Error::kBadTrailer, "", ""},
    {"trailer with LF", "0\r\nX: a\n\r\n", H1Error::kBadTrailer, "", ""},
    {"trailer with NUL", "0\r\nX: a\0\r\n\r\n"sv, H1Error::kControlInTrailer, "", ""},
    {"trailer with CR", "0\r\nX: a\rb\r\n\r\n", H1Error::kBadTrailer, "", ""},
};

void expect_row(const Row& row, const Decoded& run, TrailerMode mode) {
  EXPECT_STREQ(info(run.error).name, info(row.error).name);
  EXPECT_EQ(run.body, row.body);
  if (row.error != H1Error::kNone) {
    EXPECT_EQ(run.status, BodyStatus::kBad);
    return;
  }
  if (row.name == "63 bits"sv) return;
  EXPECT_EQ(run.status, BodyStatus::kDone);
  EXPECT_EQ(run.trailers, mode == kWantTrailers ? row.trailers : "");
  const size_t next = row.stream.ends_with("NEXT") ? 4 : 0;
  EXPECT_EQ(run.used, row.stream.size() - next);
}

TEST(H1Body, Chunked) {
  for (const Row& row : kRows)
    for (const TrailerMode mode : {kDropTrailers, kWantTrailers}) {
      SCOPED_TRACE(row.name);
      expect_row(row, decode(row.stream, {Framing::kChunked, 0}, mode, all), mode);
      expect_row(row, decode(row.stream, {Framing::kChunked, 0}, mode, [] { return size_t{1}; }), mode);
    }
}

TEST(H1Body, EverySplitInTwo) {
  for (const Row& row : kRows)
    for (size_t n = 1; n < row.stream.size(); ++n) {
      SCOPED_TRACE(std::string(row.name) + " split at " + std::to_string(n));
      bool first = true;
      expect_row(
          row,
          decode(row.stream, {Framing::kChunked, 0}, kWantTrailers, [&] { return std::exchange(first, false) ? n : SIZE_MAX; }),
          kWantTrailers);
    }
}

TEST(H1Body, EveryPrefixOfAGoodBodyWantsMore) {
  for (const Row& row : kRows) {
    if (row.error != H1Error::kNone || row.name == "63 bits"sv) continue;
    const size_t end = row.stream.size() - (row.stream.ends_with("NEXT") ? 4 : 0);
    for (size_t n = 0; n < end; ++n)
      EXPECT_EQ(decode(row.stream.substr(0, n), {Framing::kChunked, 0}, kDropTrailers, all).status, BodyStatus::kMore)
          << row.name << " " << n;
  }
}

TEST(H1Body, ContentLength) {
  for (const size_t length : {0u, 1u, 5u, 4096u, 65536u})
    for (const size_t piece : {size_t{1}, size_t{7}, size_t{1460}, SIZE_MAX}) {
      std::string stream(length, 'b');
      stream += "NEXT";
      const Decoded run = decode(stream, {Framing::kContentLength, length}, kDropTrailers, [&] { return piece; });
      EXPECT_EQ(run.status, BodyStatus::kDone);
      EXPECT_EQ(run.used, length);
      EXPECT_EQ(run.body, std::string(length, 'b'));
    }
}

TEST(H1Body, AWholePacketIsOneStep) {
  BodyDecoder d;
  d.start({Framing::kContentLength, 10'000});
  const std::string packet(1460, 'x');
  const BodyDecoder::Step s = d.step(base::as_bytes(packet));
  EXPECT_EQ(s.skip, 0u);
  EXPECT_EQ(s.data, 1460u);
  EXPECT_EQ(s.status, BodyStatus::kMore);
  EXPECT_EQ(d.remaining(), 10'000u - 1460);

  d.start({Framing::kChunked, 0});
  const std::string chunk = "1000\r\n" + packet;
  const BodyDecoder::Step c = d.step(base::as_bytes(chunk));
  EXPECT_EQ(c.skip, 6u);
  EXPECT_EQ(c.data, 1460u);
}

TEST(H1Body, UntilCloseAndTunnelNeverEndByThemselves) {
  for (const Framing kind : {Framing::kUntilClose, Framing::kTunnel}) {
    BodyDecoder d;
    d.start({kind, 0});
    const BodyDecoder::Step s = d.step(base::as_bytes("0\r\n\r\n"));
    EXPECT_EQ(s.data, 5u);
    EXPECT_EQ(s.status, BodyStatus::kMore);
    EXPECT_TRUE(d.finish());
  }
}

TEST(H1Body, ClosingTooEarlyIsNoEnd) {
  BodyDecoder d;
  d.start({Framing::kContentLength, 2});
  EXPECT_FALSE(d.finish());
  d.step(base::as_bytes("a"));
  EXPECT_FALSE(d.finish());
  d.step(base::as_bytes("b"));
  EXPECT_TRUE(d.finish());
  d.start({Framing::kChunked, 0});
  EXPECT_EQ(d.step(base::as_bytes("1\r\na\r\n0\r\n")).data, 1u);
  EXPECT_EQ(d.step(base::as_bytes("\r\n0\r\n")).skip, 5u);
  EXPECT_FALSE(d.finish());
  d.step(base::as_bytes("\r\n"));
  EXPECT_TRUE(d.finish());
  d.start({Framing::kNone, 0});
  EXPECT_TRUE(d.finish());
  EXPECT_EQ(d.step({}).status, BodyStatus::kDone);
}

TEST(H1Body, WhatIsBadStaysBad) {
  BodyDecoder d;
  d.start({Framing::kChunked, 0});
  EXPECT_EQ(d.step(base::as_bytes("x")).error, H1Error::kBadChunkSize);
  const BodyDecoder::Step again = d.step(base::as_bytes("0\r\n\r\n"));
  EXPECT_EQ(again.status, BodyStatus::kBad);
  EXPECT_EQ(again.error, H1Error::kBadChunkSize);
  EXPECT_EQ(again.skip + again.data, 0u);
}

TEST(H1Body, Limits) {
  const auto with = [](std::string stream, TrailerMode mode, TrailerLimits limits = {}) {
    return decode(
        stream, {Framing::kChunked, 0}, mode, [] { return size_t{100}; }, limits);
  };
  EXPECT_EQ(with("5;" + std::string(kMaxChunkLineBytes - 2, 'e') + "\r\nhello\r\n0\r\n\r\n", kDropTrailers).status,
            BodyStatus::kDone);
  EXPECT_EQ(with("5;" + std::string(kMaxChunkLineBytes - 1, 'e') + "\r\nhello\r\n0\r\n\r\n", kDropTrailers).error,
            H1Error::kBadChunkExtension);
  EXPECT_EQ(with(std::string(kMaxChunkLineBytes, '0') + "\r\n\r\n", kDropTrailers).status, BodyStatus::kDone);
  EXPECT_EQ(with(std::string(kMaxChunkLineBytes + 1, '0') + "\r\n\r\n", kDropTrailers).error, H1Error::kBadChunkExtension);

  const std::string trailers = "0\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n";
  const uint32_t bytes = static_cast<uint32_t>(trailers.size() - 3);
  for (const TrailerMode mode : {kDropTrailers, kWantTrailers}) {
    EXPECT_EQ(with(trailers, mode, {bytes, 3}).status, BodyStatus::kDone);
    EXPECT_EQ(with(trailers, mode, {bytes - 1, 3}).error, H1Error::kTrailersTooLarge);
  }
  EXPECT_EQ(with(trailers, kWantTrailers, {bytes, 2}).error, H1Error::kTooManyTrailers);
  EXPECT_EQ(with(trailers, kDropTrailers, {bytes, 2}).status, BodyStatus::kDone);  // not counted when nobody wants them, as Envoy
  EXPECT_EQ(with("0\r\nX: " + std::string(5000, 'y') + "\r\n\r\n", kWantTrailers).error,
            H1Error::kTrailersTooLarge);  // lent 4096
}

// Random bodies, chunked by the writer in random pieces, cut into random packets: the same bytes come out.
TEST(H1Body, RandomRoundTrip) {
  const uint64_t seed = support::run_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 300; ++round) {
    std::string body, stream;
    for (uint64_t chunks = random() % 6; chunks != 0; --chunks) {
      std::string data(random() % 3000 + 1, '\0');
      for (char& c : data) c = static_cast<char>(random());
      char head[kMaxChunkHeaderBytes];
      const size_t n = write_chunk_header(data.size(), head);
      stream.append(head, n).append(data).append(kChunkEnd);
      body += data;
    }
    Header storage[2];
    HeaderTable table(storage, 2);
    table.push({"x-a", "1", HeaderId::kOther});
    table.push({"x-b", "", HeaderId::kOther});
    char last[64];
    const bool with_trailers = random() % 2 != 0;
    if (with_trailers) stream.append(last, write_last_chunk(table, last));
    else stream += kLastChunk;
    const Decoded run = decode(stream, {Framing::kChunked, 0}, kWantTrailers, [&] { return random() % 1500 + 1; });
    EXPECT_EQ(run.status, BodyStatus::kDone);
    EXPECT_EQ(run.body, body);
    EXPECT_EQ(run.trailers, with_trailers ? "x-a=1|x-b=|" : "");
    EXPECT_EQ(run.used, stream.size());
  }
}

}  // namespace
}  // namespace millrace::http
