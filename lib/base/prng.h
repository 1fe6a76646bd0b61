// A small, fast, seeded random generator (xoshiro256**, Blackman and Vigna 2018), the same on every machine and build: for
// balancing, jitter and simulation. Not for secrets. std:: distributions are avoided because they differ between libraries.
#pragma once

#include <bit>
#include <cstdint>

namespace millrace::base {

class Prng {
 public:
  using result_type = uint64_t;  // so that std::shuffle takes it

  // Any seed is good, 0 too: it is spread by SplitMix64.
  explicit Prng(uint64_t seed) {
    for (uint64_t& word : s_) {
      seed += 0x9e3779b97f4a7c15;
      uint64_t z = seed;
      z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
      z = (z ^ z >> 27) * 0x94d049bb133111eb;
      word = z ^ z >> 31;
    }
  }

  uint64_t next() {
    const uint64_t result = std::rotl(s_[1] * 5, 7) * 9;
    const uint64_t t = s_[1] << 17;
    s_[2] ^= s_[0];
    s_[3] ^= s_[1];
    s_[1] ^= s_[2];
    s_[0] ^= s_[3];
    s_[2] ^= t;
    s_[3] = std::rotl(s_[3], 45);
    return result;
  }
  // Uniform in 0..n-1, without a division in the common case (Lemire 2019). n > 0.
  uint64_t below(uint64_t n) {
    __extension__ using Wide = unsigned __int128;
    Wide product = static_cast<Wide>(next()) * n;
    if (static_cast<uint64_t>(product) < n) {
      const uint64_t threshold = (0 - n) % n;
      while (static_cast<uint64_t>(product) < threshold) product = static_cast<Wide>(next()) * n;
    }
    return static_cast<uint64_t>(product >> 64);
  }
  // Uniform in low..high, both included. low <= high.
  uint64_t between(uint64_t low, uint64_t high) { return high - low == UINT64_MAX ? next() : low + below(high - low + 1); }
  // True in `parts` of `whole` cases: chance(1, 100).
  bool chance(uint64_t parts, uint64_t whole) { return below(whole) < parts; }
  // Uniform in [0, 1), all 53 bits.
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }

  uint64_t operator()() { return next(); }
  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return UINT64_MAX; }

 private:
  uint64_t s_[4];
};

}  // namespace millrace::base
