// The golden table of throughput: loss x buffer and loss x delay for each congestion controller.
#pragma once

namespace millrace::sim {

// Measures and compares with the file at `path`, or writes it. Returns the program's exit code.
int golden(const char* path, bool update);

}  // namespace millrace::sim
