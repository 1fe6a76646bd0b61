// The part of a program whose instructions are counted: what runs inside measured(), and nothing else.
//   valgrind --tool=callgrind --instr-atstart=no --collect-atstart=no --toggle-collect=millrace_measured_turn PROGRAM …
// and main() of the benchmarks that can be run so: `PROGRAM --callgrind CASE N` (or all) does N items of a case, without a clock.
// perf/instructions/check does it for all of them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <type_traits>

// What the profiler is told to look for. Its own cost is about ten instructions a call.
extern "C" void millrace_measured_turn(void (*work)(void*), void* argument);

namespace millrace::bench {

template <class Work>
void measured(Work&& work) {
  using Type = std::remove_reference_t<Work>;
  millrace_measured_turn([](void* w) { (*static_cast<Type*>(w))(); },
                         const_cast<std::remove_const_t<Type>*>(&work));  // comes back as what it was
}

// Under valgrind's --instr-atstart=no: everything before this call runs at valgrind's full speed and cannot be counted.
void start_counting();
// Ends what was counted since start_counting(): callgrind writes it to a file of its own, which names `label`, and begins anew.
void stop_counting(const std::string& label);

// Cheap fixed inputs, warm caches of a profiler that has none: a few hundred items are enough, and every run gives the same
// number.
struct CountedCase {
  std::string name;
  // Makes the inputs (not counted). What it returns does one item, the next one at each call.
  std::function<std::function<void()>()> make;
};

// Google Benchmark's main, or one counted case.
int bench_main(int argc, char** argv, std::span<const CountedCase> counted = {});

}  // namespace millrace::bench
