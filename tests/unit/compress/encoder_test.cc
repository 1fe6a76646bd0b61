#include "lib/compress/encoder.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/prng.h"
#include "lib/compress/encoder_pool.h"
#include "tests/support/decode.h"
#include "tests/support/seed.h"

namespace millrace::compress {
namespace {

constexpr size_t kPoolBytes = 64 << 20;

Settings gzip(uint8_t level = 6, uint8_t window = 12, uint8_t memory = 5, uint8_t strategy = 0) {
  return {Codec::kGzip, level, strategy, window, memory};
}
Settings brotli(uint8_t quality = 3, uint8_t window = 18, uint8_t mode = 0, bool contexts = true) {
  Settings s{Codec::kBrotli, quality, mode, window};
  s.no_literal_contexts = !contexts;
  return s;
}
Settings zstd(uint8_t level = 3, uint8_t strategy = 0, bool checksum = false) {
  Settings s{Codec::kZstd, level, strategy};
  s.checksum = checksum;
  return s;
}
const Settings kDefaults[] = {gzip(), brotli(), zstd()};

std::vector<Settings> every() {
  std::vector<Settings> all;
  for (uint8_t level = 1; level <= 9; ++level) all.push_back(gzip(level));
  for (uint8_t window = 9; window <= 15; ++window) all.push_back(gzip(6, window, static_cast<uint8_t>(window - 6)));
  for (uint8_t memory = 1; memory <= 9; ++memory) all.push_back(gzip(6, 15, memory));
  for (uint8_t strategy = 1; strategy <= 4; ++strategy) all.push_back(gzip(6, 12, 5, strategy));
  for (uint8_t quality = 0; quality <= kMostBrotliQuality; ++quality)
    for (uint8_t window : {10, 14, 16, 18, 22, 24}) all.push_back(brotli(quality, window, quality % 3, window != 14));
  for (uint8_t level = 1; level <= kMostZstdLevel; ++level) all.push_back(zstd(level, 0, level % 2 != 0));
  for (uint8_t strategy = 1; strategy <= kMostZstdStrategy; ++strategy) all.push_back(zstd(5, strategy));
  return all;
}

std::string name(const Settings& s) {
  return std::string(content_encoding(s.codec)) + " level " + std::to_string(s.level) + " strategy " +
         std::to_string(s.strategy) + " window " + std::to_string(s.window_bits) + " memory " + std::to_string(s.memory_level);
}

// Half text-like, half noise, so that libraries have both to do.
std::string body(size_t bytes, uint64_t seed) {
  base::Prng random(seed);
  static constexpr std::string_view kWords[] = {"route ",        "cluster ", "listener ", "endpoint ",
                                                "{\"name\": \"", "\"},\n",   "0123",      "a"};
  std::string s;
  while (s.size() < bytes) {
    if (random.next() % 64 == 0)
      for (int i = 0; i < 200; ++i) s += static_cast<char>(random.next());
    s += kWords[random.next() % 8];
  }
  s.resize(bytes);
  return s;
}

// `in` by pieces of at most `piece` bytes through an `out` of `room`, flushed after every `flush`th piece (0: never), then
// finished.
std::string encode(Encoder& e, std::string_view in, size_t piece, size_t room, int flush = 0) {
  std::string coded;
  std::vector<uint8_t> out(room);
  int pieces = 0;
  while (true) {
    base::ByteSpan rest = base::as_bytes(in.substr(0, piece));
    in.remove_prefix(rest.size());
    const Directive d = in.empty()                            ? Directive::kFinish
                        : flush != 0 && ++pieces % flush == 0 ? Directive::kFlush
                                                              : Directive::kMore;
    Step s;
    int idle = 0;
    do {
      s = e.step(rest, out, d);
      rest = rest.subspan(s.consumed);
      coded.append(reinterpret_cast<char*>(out.data()), s.produced);
      idle = s.consumed + s.produced == 0 ? idle + 1 : 0;
      EXPECT_LT(idle, 3) << "no headway";
    } while (!s.done && !s.failed && idle < 3);
    EXPECT_FALSE(s.failed);
    if (d == Directive::kFinish || s.failed) return coded;
  }
}

void expect_round_trip(Codec codec, const std::string& coded, const std::string& plain) {
  std::string back;
  bool whole = false;
  EXPECT_TRUE(test::decode(codec, coded, &back, &whole));
  EXPECT_TRUE(whole);
  EXPECT_TRUE(back == plain) << back.size() << " bytes of " << plain.size();
}

TEST(Encoder, RoundTripOfEverySetting) {
  EncoderPool pool(kPoolBytes);
  for (const Settings& s : every()) {
    SCOPED_TRACE(name(s));
    for (const size_t bytes : {0, 1, 100, 5'000, 300'000}) {
      const std::string plain = body(bytes, 1 + bytes);
      for (const uint64_t length : {uint64_t{bytes}, kUnknownLength}) {
        Encoder* e = pool.open(s, length);
        ASSERT_NE(e, nullptr);
        expect_round_trip(s.codec, encode(*e, plain, 16 * 1024, 2048, length == kUnknownLength ? 1 : 0), plain);
        pool.close(e);
      }
    }
  }
  EXPECT_EQ(pool.in_use(), 0u);
}

// Whatever the pieces, the bytes come out right; and every size of output is headway.
TEST(Encoder, EveryChunking) {
  const uint64_t seed = support::run_seed();
  SCOPED_TRACE(seed);
  base::Prng random(seed);
  EncoderPool pool(kPoolBytes);
  for (int i = 0; i < 300; ++i) {
    const Settings& s = kDefaults[i % 3];
    SCOPED_TRACE(name(s));
    const std::string plain = body(random.next() % 100'000, random.next());
    Encoder* e = pool.open(s, i % 2 == 0 ? plain.size() : kUnknownLength);
    ASSERT_NE(e, nullptr);
    const size_t piece = 1 + random.next() % (i % 5 == 0 ? 10 : 20'000);
    const size_t room = Encoder::kLeastOut + random.next() % (i % 7 == 0 ? 8 : 4'000);
    expect_round_trip(s.codec, encode(*e, plain, piece, room, static_cast<int>(random.next() % 4)), plain);
    pool.close(e);
  }
}

// Streams: after a flush, all that was taken can be read at the other end.
TEST(Encoder, AFlushHoldsNothingBack) {
  EncoderPool pool(kPoolBytes);
  for (const Settings& s : every()) {
    SCOPED_TRACE(name(s));
    Encoder* e = pool.open(s, kUnknownLength);
    ASSERT_NE(e, nullptr);
    std::string plain, coded;
    uint8_t out[256];
    for (int event = 0; event < 20; ++event) {
      const std::string text = "data: event " + std::to_string(event) + std::string(event * 37, 'x') + "\n\n";
      plain += text;
      base::ByteSpan rest = base::as_bytes(std::string_view(text));
      Step step;
      do {
        step = e->step(rest, out, Directive::kFlush);
        rest = rest.subspan(step.consumed);
        coded.append(reinterpret_cast<char*>(out), step.produced);
      } while (!step.done && !step.failed);
      ASSERT_FALSE(step.failed);
      std::string back;
      bool whole;
      ASSERT_TRUE(test::decode(s.codec, coded, &back, &whole));
      EXPECT_EQ(back, plain);
      EXPECT_FALSE(whole);
    }
    pool.close(e);
  }
}

// What is read twice in a body is found again: these are compressors.
TEST(Encoder, Ratio) {
  EncoderPool pool(kPoolBytes);
  std::string plain;
  for (int i = 0; i < 4'000; ++i) plain += "{\"id\": " + std::to_string(i) + ", \"name\": \"endpoint\", \"healthy\": true}\n";
  for (const Settings& s : kDefaults) {
    Encoder* e = pool.open(s, plain.size());
    ASSERT_NE(e, nullptr);
    const std::string coded = encode(*e, plain, 16 * 1024, 2048);
    EXPECT_LT(coded.size() * 5, plain.size()) << name(s);
    pool.close(e);
  }
}

// block_bytes() is not a guess: no library asks in vain for memory, whatever the body, and a good part of it is used.
TEST(Encoder, MemoryIsEnough) {
  EncoderPool pool(kPoolBytes);
  for (const Settings& s : every()) {
    SCOPED_TRACE(name(s));
    size_t peak = 0;
    for (const int kind : {0, 1, 2}) {
      base::Prng random(7);
      std::string plain = kind == 0 ? body(400'000, 3) : std::string(400'000, 'a');
      if (kind == 2)
        for (char& c : plain) c = static_cast<char>(random.next());
      Encoder* e = pool.open(s, kUnknownLength);
      ASSERT_NE(e, nullptr);
      expect_round_trip(s.codec, encode(*e, plain, 16 * 1024, 4096, kind == 1 ? 1 : 4), plain);
      peak = std::max(peak, e->peak_bytes());
      pool.close(e);
    }
    const size_t block = Encoder::block_bytes(s, kUnknownLength);
    // zlib takes all at the start, zstd says itself what it needs (and its block was rounded up); of brotli there is room to
    // spare.
    const size_t least = s.codec == Codec::kBrotli ? peak * 9 / 8 : s.codec == Codec::kZstd ? peak - base::kArenaSpanBytes : peak;
    EXPECT_LE(least, block) << peak << " of " << block;
    EXPECT_LE(block, size_t{6} << 20);
    if (std::find(std::begin(kDefaults), std::end(kDefaults), s) != std::end(kDefaults))
      RecordProperty(name(s), std::to_string(peak) + " of " + std::to_string(block));
  }
}

TEST(EncoderPool, ShorterBodiesNeedLess) {
  for (const Settings& s : {brotli(), zstd()}) {
    EXPECT_LT(Encoder::block_bytes(s, 1'000), Encoder::block_bytes(s, kUnknownLength)) << name(s);
    EXPECT_EQ(Encoder::block_bytes(s, 1 << 30), Encoder::block_bytes(s, kUnknownLength)) << name(s);
  }
}

TEST(EncoderPool, ExhaustedIsAnAnswer) {
  EncoderPool pool(4 << 20);
  for (int round = 0; round < 3; ++round) {
    for (const Settings& s : kDefaults) {
      SCOPED_TRACE(name(s));
      const uint64_t before = pool.refused();
      std::vector<Encoder*> all;
      while (Encoder* e = pool.open(s, kUnknownLength)) all.push_back(e);
      EXPECT_EQ(pool.refused(), before + 1);
      EXPECT_GE(all.size(), 1u);
      EXPECT_EQ(pool.in_use(), all.size());
      const std::string plain = body(20'000, 5);
      expect_round_trip(s.codec, encode(*all.back(), plain, 3'000, 1'000), plain);  // the last one as good as the first
      for (Encoder* e : all) pool.close(e);
      EXPECT_EQ(pool.in_use(), 0u);
    }
  }
}

// A body that is cut: an encoder ends at any point, and its memory is as good as new.
TEST(EncoderPool, ClosedInTheMiddle) {
  EncoderPool pool(4 << 20);
  const std::string plain = body(50'000, 9);
  uint8_t out[512];
  for (int i = 0; i < 200; ++i) {
    const Settings& s = kDefaults[i % 3];
    Encoder* e = pool.open(s, kUnknownLength);
    ASSERT_NE(e, nullptr);
    e->step(base::as_bytes(std::string_view(plain)).first(static_cast<size_t>(i) * 200), out, static_cast<Directive>(i % 3));
    pool.close(e);
  }
  EXPECT_EQ(pool.refused(), 0u);
}

// Debian's brotli ends the process when it gets no memory. Ours does not get that far.
TEST(Encoder, BrotliWithoutMemoryFails) {
  const Settings s = brotli(4);
  const std::string plain = body(200'000, 4);
  bool failed = false;
  for (size_t bytes = 16 * 1024; bytes < size_t{2} << 20; bytes += 64 * 1024) {
    auto* block = static_cast<uint8_t*>(std::aligned_alloc(64, bytes));
    uint8_t out[512];
    if (Encoder* e = Encoder::create(s, kUnknownLength, {block, bytes}); e != nullptr) {
      base::ByteSpan rest = base::as_bytes(std::string_view(plain));
      Step step;
      do {
        step = e->step(rest, out, Directive::kFinish);
        rest = rest.subspan(step.consumed);
      } while (!step.done && !step.failed);
      failed |= step.failed;
      EXPECT_EQ(e->step({}, out, Directive::kFinish).done, step.done || step.failed);
    }
    std::free(block);
  }
  EXPECT_TRUE(failed);
}

TEST(Encoder, MisuseIsRefused) {
  alignas(64) static uint8_t small[256];
  for (const Settings& s : kDefaults) EXPECT_EQ(Encoder::create(s, kUnknownLength, small), nullptr);
  EncoderPool pool(kPoolBytes);
  for (const Settings& s : kDefaults) {
    Encoder* e = pool.open(s, 3);
    uint8_t out[512];
    EXPECT_TRUE(e->step(base::as_bytes("abc"), std::span<uint8_t>(out).first(Encoder::kLeastOut - 1), Directive::kMore).failed);
    EXPECT_TRUE(e->step(base::as_bytes("abc"), out, Directive::kFinish).done);
    EXPECT_TRUE(e->step({}, out, Directive::kFinish).done);
    EXPECT_TRUE(e->step(base::as_bytes("d"), out, Directive::kMore).failed);
    pool.close(e);
  }
  EXPECT_EQ(pool.open(gzip(10), 100), nullptr);  // zlib knows no such level
}

}  // namespace
}  // namespace millrace::compress
