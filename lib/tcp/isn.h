// Initial sequence numbers (RFC 6528) and timestamp offsets (RFC 7323 5.4): a clock plus a keyed hash of who talks to whom, so
// that nobody off the path can guess them, while they still grow for one and the same tuple. One key per process, the same on
// every worker.
#pragma once

#include <cstdint>

#include "lib/base/hash.h"
#include "lib/tcp/tcp.h"

namespace millrace::tcp {

class IsnGenerator {
 public:
  // `key`: 128 bits from the system's random source.
  explicit IsnGenerator(const base::HashKey& key) : key_(key) {}

  // ISN = M + F(tuple, key): M counts 4 microseconds (RFC 6528 3).
  uint32_t isn(const FourTuple&, TimeNs now) const;
  // Depends on the addresses alone, so that timestamps grow from one connection of a pair of hosts to the next (RFC 6191 needs
  // that).
  uint32_t timestamp_offset(const FourTuple&) const;

 private:
  base::HashKey key_;
};

}  // namespace millrace::tcp
