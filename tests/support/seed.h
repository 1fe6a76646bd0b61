// Where random tests begin.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string_view>

namespace millrace::support {

// The seed of this run, to be printed by who uses it: MILLRACE_SEED in the environment (a number; "fresh": one nobody has seen),
// else always the same, so that a red run stays red and a green one green. New seeds are tried by `scripts/dev sim`, `scripts/dev
// fuzz` and `MILLRACE_SEED=fresh`.
inline uint64_t run_seed() {
  const char* given = std::getenv("MILLRACE_SEED");
  if (given == nullptr) return 4711;
  if (std::string_view(given) != "fresh") return std::strtoull(given, nullptr, 0);
  return (uint64_t{std::random_device{}()} << 32) | std::random_device{}();
}

}  // namespace millrace::support
