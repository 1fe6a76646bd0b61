// Which cache lines a piece of code writes, or touches, in all of the process's memory but its own stack: the memory is
// protected, each access that faults is noted, let through for one instruction, and the protection put back. So nothing is
// missed, whoever made the code (libraries too), and nothing has to be compiled in. A fault costs some microseconds: for tests, a
// few hundred requests.
//
// x86-64 Linux. One thread runs while it is on; the code makes no system calls that write to memory. Not under sanitizers, whose
// shadow memory it would trip over, nor under a debugger.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace millrace::bench {

inline constexpr uint64_t kCacheLine = 64;

struct Touch {
  uint64_t instruction = 0;  // address of the one that touched the line first
};
using LineSet = std::map<uint64_t, Touch>;  // by address of the line

// Runs `work` and returns the lines it wrote to.
LineSet lines_written(const std::function<void()>& work);
// Runs `work` and returns which of `lines` it read or wrote.
LineSet lines_touched(const LineSet& lines, const std::function<void()>& work);

// "heap + 0x1230", "/memfd:stats + 0x40": the mapping an address lies in; "function + 0x12 (file)" for code.
std::string describe_data(uint64_t address);
std::string describe_code(uint64_t address);

}  // namespace millrace::bench
