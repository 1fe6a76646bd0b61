// What the runs of a simulator have seen together: states and faults, so that a run can show that it has been everywhere.
#pragma once

#include <cstdint>
#include <string>

#include "tests/sim/path.h"
#include "tests/sim/scenario.h"
#include "tests/sim/states.h"

namespace millrace::sim {

// What runs have seen together.
struct Coverage {
  StateOracle states;
  uint64_t packets = 0, lost = 0, late = 0, twice = 0, corrupt = 0, queue_full = 0, too_big = 0, partition = 0, burst = 0,
           squeezed = 0, marked = 0;
  uint64_t host_faults[5] = {};  // by HostFault::Kind
  uint64_t reopened_in_time_wait = 0, reopened_over_old = 0, simultaneous = 0, wrapped = 0, path_mtu = 0, no_packet = 0;
  void count(const Passage& way);
  void add(const Coverage& other);
  std::string report() const;
  // What has never happened, one a line; empty when everything has.
  std::string missing() const;
};

}  // namespace millrace::sim
