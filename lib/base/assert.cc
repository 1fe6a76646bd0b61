#include "lib/base/assert.h"

#include <cstdio>
#include <cstdlib>

namespace millrace::base {

void assert_failed(const char* expr, const char* what, const char* file, int line) noexcept {
  std::fprintf(stderr, "assertion failed: %s (%s) at %s:%d\n", expr, what, file, line);
  std::abort();
}

}  // namespace millrace::base
