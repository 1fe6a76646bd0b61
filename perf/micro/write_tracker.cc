#include "perf/micro/write_tracker.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <dlfcn.h>
#include <fstream>
#include <signal.h>
#include <sstream>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "lib/base/assert.h"

namespace millrace::bench {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kTrapFlag = 0x100;
constexpr size_t kMaxRanges = 4096;
constexpr size_t kSlots = 1 << 20;  // of lines noted, open addressing
constexpr uint64_t kStaticTls =
    64 * 1024;                       // below the thread pointer; of the main thread, others have it in their stack's mapping
constexpr size_t kMaxOpenPages = 8;  // that one instruction may touch: gathers touch a few

struct Range {
  uint64_t begin, end;
};

// Everything that the signal handlers use, in memory of its own that is never protected.
struct State {
  Range ranges[kMaxRanges];
  size_t range_count;
  int protection;                // what the ranges have while work runs
  bool only_wanted;              // note only lines that are there already
  uint64_t line[kSlots];         // 0: free
  uint64_t instruction[kSlots];  // 0: wanted, not touched yet
  size_t lines;
  uint64_t open[kMaxOpenPages];  // pages let through for one instruction
  size_t open_count;
  uint64_t next_line;  // of the last fault, and what it held: an access may reach into it
  uint8_t next_bytes[kCacheLine];
  uint64_t rip;
};
// Where it is, on a page that nothing else is on: the handlers read it while other pages may not even be read.
struct alignas(kPage) StatePage {
  State* state = nullptr;
  uint8_t rest[kPage - sizeof(State*)];
} state_page;
State*& state = state_page.state;

uint64_t round_down(uint64_t a, uint64_t to) { return a / to * to; }

bool covered(uint64_t a) {
  for (size_t i = 0; i < state->range_count; ++i)
    if (a >= state->ranges[i].begin && a < state->ranges[i].end) return true;
  return false;
}

void note(uint64_t line, uint64_t rip) {
  for (size_t at = line / kCacheLine * 0x9e3779b97f4a7c15ull >> 44;; at = (at + 1) % kSlots) {
    if (state->line[at] == line) {
      if (state->instruction[at] == 0) state->instruction[at] = rip;
      return;
    }
    if (state->line[at] != 0) continue;
    if (state->only_wanted) return;
    if (state->lines == kSlots / 2) abort();
    state->line[at] = line;
    state->instruction[at] = rip;
    ++state->lines;
    return;
  }
}
void want(uint64_t line) {
  state->only_wanted = false;
  note(line, 0);
}

void on_fault(int, siginfo_t* info, void* context) {
  auto* c = static_cast<ucontext_t*>(context);
  const auto address = reinterpret_cast<uint64_t>(info->si_addr);
  if (state->open_count == kMaxOpenPages || !covered(address)) {  // a crash of the code's own
    signal(SIGSEGV, SIG_DFL);
    return;
  }
  const uint64_t page = round_down(address, kPage);
  mprotect(reinterpret_cast<void*>(page), kPage, PROT_READ | PROT_WRITE);
  state->open[state->open_count++] = page;
  state->rip = static_cast<uint64_t>(c->uc_mcontext.gregs[REG_RIP]);
  const uint64_t line = round_down(address, kCacheLine);
  note(line, state->rip);
  state->next_line = 0;
  if (round_down(line + kCacheLine, kPage) == page) {
    state->next_line = line + kCacheLine;
    memcpy(state->next_bytes, reinterpret_cast<void*>(state->next_line), kCacheLine);
  }
  c->uc_mcontext.gregs[REG_EFL] |= static_cast<greg_t>(kTrapFlag);
}

void on_step(int, siginfo_t*, void* context) {
  auto* c = static_cast<ucontext_t*>(context);
  c->uc_mcontext.gregs[REG_EFL] &= ~static_cast<greg_t>(kTrapFlag);
  if (state->next_line != 0 && memcmp(state->next_bytes, reinterpret_cast<void*>(state->next_line), kCacheLine) != 0)
    note(state->next_line, state->rip);
  for (size_t i = 0; i < state->open_count; ++i) mprotect(reinterpret_cast<void*>(state->open[i]), kPage, state->protection);
  state->open_count = 0;
}

struct Mapping {
  Range range;
  bool writable;
  std::string name;
};
std::vector<Mapping> mappings() {
  std::vector<Mapping> out;
  std::ifstream f("/proc/self/maps");
  for (std::string line; std::getline(f, line);) {
    Mapping m{};
    char flags[8] = {};
    int name = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx %7s %*s %*s %*s %n", &m.range.begin, &m.range.end, flags, &name) < 3) continue;
    m.writable = flags[1] == 'w';
    if (name > 0 && static_cast<size_t>(name) < line.size()) m.name = line.substr(static_cast<size_t>(name));
    out.push_back(std::move(m));
  }
  return out;
}

void make_state() {
  if (state != nullptr) return;
  void* p = mmap(nullptr, sizeof(State), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  MILLRACE_ASSERT(p != MAP_FAILED, "memory to note lines in");
  state = static_cast<State*>(p);
}
void clear_state() {
  make_state();
  madvise(state, sizeof(State), MADV_DONTNEED);  // zeros
}

// Protects state->ranges, runs `work`, and takes everything back.
void run_protected(const std::function<void()>& work) {
  constexpr size_t kStackBytes = 256 * 1024;
  void* signal_stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  MILLRACE_ASSERT(signal_stack != MAP_FAILED, "memory for a signal stack");
  const stack_t alternative{signal_stack, 0, kStackBytes};
  stack_t before_stack;
  sigaltstack(&alternative, &before_stack);
  struct sigaction fault {
  }, step{}, before_fault, before_step;
  fault.sa_sigaction = on_fault;
  step.sa_sigaction = on_step;
  fault.sa_flags = step.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &fault, &before_fault);
  sigaction(SIGTRAP, &step, &before_step);
  for (size_t i = 0; i < state->range_count; ++i) {
    const Range r = state->ranges[i];
    mprotect(reinterpret_cast<void*>(r.begin), r.end - r.begin, state->protection);
  }
  work();
  for (size_t i = 0; i < state->range_count; ++i) {
    const Range r = state->ranges[i];
    mprotect(reinterpret_cast<void*>(r.begin), r.end - r.begin, PROT_READ | PROT_WRITE);
  }
  sigaction(SIGSEGV, &before_fault, nullptr);
  sigaction(SIGTRAP, &before_step, nullptr);
  sigaltstack(&before_stack, nullptr);
  munmap(signal_stack, kStackBytes);
}

LineSet noted() {
  LineSet out;
  for (size_t i = 0; i < kSlots; ++i)
    if (state->line[i] != 0 && state->instruction[i] != 0) out[state->line[i]] = {state->instruction[i]};
  return out;
}

}  // namespace

LineSet lines_written(const std::function<void()>& work) {
  clear_state();
  // A thread's stack and its thread-local variables are its own (and the kernel writes to the latter: restartable sequences).
  const auto stack = reinterpret_cast<uint64_t>(__builtin_frame_address(0));
  const auto thread = round_down(reinterpret_cast<uint64_t>(__builtin_thread_pointer()), kPage);
  const auto own_state = reinterpret_cast<uint64_t>(state);
  const Range holes[] = {{thread - kStaticTls, thread + 2 * kPage},
                         {own_state, round_down(own_state + sizeof(State) + kPage - 1, kPage)}};
  for (const Mapping& m : mappings()) {
    if (!m.writable || (stack >= m.range.begin && stack < m.range.end) || m.name == "[stack]") continue;
    // The kernel joins neighbouring mappings: what lies around a hole counts.
    std::vector<Range> parts{m.range};
    for (const Range& hole : holes) {
      std::vector<Range> rest;
      for (const Range& p : parts) {
        if (hole.end <= p.begin || hole.begin >= p.end) {
          rest.push_back(p);
          continue;
        }
        if (p.begin < hole.begin) rest.push_back({p.begin, hole.begin});
        if (hole.end < p.end) rest.push_back({hole.end, p.end});
      }
      parts = std::move(rest);
    }
    for (const Range& p : parts) {
      MILLRACE_ASSERT(state->range_count < kMaxRanges, "a process with few mappings");
      state->ranges[state->range_count++] = p;
    }
  }
  state->protection = PROT_READ;
  run_protected(work);
  return noted();
}

LineSet lines_touched(const LineSet& lines, const std::function<void()>& work) {
  clear_state();
  for (const auto& [line, touch] : lines) {
    want(line);
    const uint64_t page = round_down(line, kPage);
    if (state->range_count > 0 && state->ranges[state->range_count - 1].end == page) {
      state->ranges[state->range_count - 1].end += kPage;
    } else if (state->range_count == 0 || state->ranges[state->range_count - 1].end < page) {
      MILLRACE_ASSERT(state->range_count < kMaxRanges, "lines on few pages");
      state->ranges[state->range_count++] = {page, page + kPage};
    }
  }
  state->only_wanted = true;
  state->protection = PROT_NONE;
  run_protected(work);
  return noted();
}

std::string describe_data(uint64_t address) {
  char text[64];
  for (const Mapping& m : mappings()) {
    if (address < m.range.begin || address >= m.range.end) continue;
    std::snprintf(text, sizeof text, " + 0x%lx", address - m.range.begin);
    return (m.name.empty() ? "anonymous memory" : m.name) + text;
  }
  return "nowhere";
}

std::string describe_code(uint64_t address) {
  Dl_info info{};
  char text[64];
  if (dladdr(reinterpret_cast<void*>(address), &info) == 0) return "unknown code";
  const char* file = info.dli_fname == nullptr ? "" : std::strrchr(info.dli_fname, '/');
  std::snprintf(text, sizeof text, " + 0x%lx",
                address - reinterpret_cast<uint64_t>(info.dli_sname != nullptr ? info.dli_saddr : info.dli_fbase));
  std::string name = info.dli_sname == nullptr ? "" : info.dli_sname;
  if (info.dli_sname != nullptr) {
    int status = 0;
    if (char* plain = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status); plain != nullptr) {
      name = plain;
      std::free(plain);
    }
  }
  return name + text + " (" + (file == nullptr ? info.dli_fname : file + 1) + ")";
}

}  // namespace millrace::bench
