// Which changes of state RFC 9293 knows (3.3.2, figure 5, and the steps of 3.10), as they can be seen between two calls of
// lib/tcp. Whatever else is observed is a bug. What was observed is counted, so that a run can show that it has been everywhere.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "lib/tcp/tcp.h"

namespace millrace::sim {

inline constexpr size_t kStates = static_cast<size_t>(tcp::State::kTimeWait) + 1;

class StateOracle {
 public:
  // Notes the change; false when no clause allows it. No change is always allowed.
  bool change(tcp::State from, tcp::State to);
  // Legal changes that have not been seen, one a line; empty when all have.
  std::string missing() const;
  // All that has been seen, with numbers.
  std::string report() const;
  void add(const StateOracle& other);

 private:
  std::array<std::array<uint64_t, kStates>, kStates> seen_{};
};

}  // namespace millrace::sim
