// What a run says: a line now and then while it runs, a table for people at its end, JSON for programs, HdrHistogram's text. A
// run with errors is shouted: its figures are not to be believed.
#pragma once

#include <cstdio>
#include <string>

#include "lib/base/status.h"
#include "perf/load/options.h"
#include "perf/load/run_result.h"

namespace millrace::load {

// Above this share of busy time the generator may have been the limit, and the run says so.
inline constexpr double kBusyWarning = 0.9;
// Open loop: below this share of the offered rate the run says that the rate was not reached.
inline constexpr double kRateReached = 0.99;

// One line for the time between two samples, without line feed: "  3.0 s  measuring    812,345 requests/s …". Errors are counted
// since the start.
std::string progress_line(const Options& options, const Sample& start, const Sample& before, const Sample& now);
// The table, several lines. Its last line is the verdict.
std::string result_table(const Options& options, const RunResult& result);
// One JSON object, one line; the form is in README.md.
std::string result_json(const Options& options, const RunResult& result);
// The sentences that must be said whatever --quiet asks for: errors, a failure, an interruption, a busy generator, a rate not
// reached. Empty for a run without blemish.
std::string result_warnings(const Options& options, const RunResult& result);

// Everything at the end: table to standard output (standard error when the JSON goes there), warnings to standard error, files.
// False when something could not be written, which is said.
bool report(const Options& options, const RunResult& result);

// Lines of progress, for a terminal only: in a file they would be noise.
class Progress {
 public:
  // `out` outlives it.
  Progress(const Options& options, std::FILE* out);
  void line(const Sample& now);

 private:
  const Options& options_;
  std::FILE* out_;
  bool terminal_, begun_ = false;
  Sample start_, before_;
};

}  // namespace millrace::load
