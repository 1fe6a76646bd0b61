// What two looks at the workers' counters say about the time between them. A pure function: no clock, no connection.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "lib/api/millrace.control.v1.pb.h"

namespace millrace::cli {

// The frame between `before` and `now`. Without rates (seconds 0), and with a note that says why, when there is nothing to
// compare: no data plane, none before, another one (it was started anew), another number of workers, or no time between the
// looks. Counters may wrap (they are compared modulo 2^64); one that went backwards counts as 0.
control::v1::TopFrame make_frame(const control::v1::TopSample& before, const control::v1::TopSample& now);

// Leaves only these workers in a sample; empty: all. False: one of them is not there (`*missing`).
bool select_workers(const std::vector<uint32_t>& workers, control::v1::TopSample* sample, uint32_t* missing);

// "0,2-3" as numbers, each at most once, in order; false when it is no such list. At most kMaxListed numbers.
inline constexpr uint32_t kMaxListed = 1024;
bool parse_workers(std::string_view text, std::vector<uint32_t>* out);

}  // namespace millrace::cli
