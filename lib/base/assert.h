// Assertions that stay on in release builds. They mark *our* mistakes only: a wrong peer or a wrong configuration gets a
// reason from lib/stats, never an assert (DESIGN section 11).
#pragma once

namespace millrace::base {

// Prints "assertion failed: <expr> (<what>) at file:line" to stderr and aborts. Never returns.
[[noreturn]] void assert_failed(const char* expr, const char* what, const char* file, int line) noexcept;

}  // namespace millrace::base

// `what` says which invariant was meant to hold.
#define MILLRACE_ASSERT(expr, what)                                     \
  do {                                                                  \
    if (__builtin_expect(!(expr), 0)) {                                 \
      ::millrace::base::assert_failed(#expr, what, __FILE__, __LINE__); \
    }                                                                   \
  } while (0)
