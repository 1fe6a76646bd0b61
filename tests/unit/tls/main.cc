// OpenSSL's memory hooks must come before anything else that uses it.
#include <cstdio>

#include <gtest/gtest.h>

#include "lib/tls/memory.h"

int main(int argc, char** argv) {
  if (const auto s = millrace::tls::install_memory_hooks(); !s) {
    std::fprintf(stderr, "%s\n", s.error().c_str());
    return 1;
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
