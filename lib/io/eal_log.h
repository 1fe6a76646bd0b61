// What DPDK logs while it starts, held back: told as part of an error sentence, or passed on to stderr when all went well.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

namespace millrace::io {

class EalLog {
 public:
  EalLog();
  ~EalLog();
  EalLog(const EalLog&) = delete;
  EalLog& operator=(const EalLog&) = delete;
  // " (its last lines)", or nothing. What was told is not printed again.
  std::string tail();

 private:
  FILE* stream_ = nullptr;
  char* text_ = nullptr;
  size_t size_ = 0;
  bool told_ = false;
};

// "0000:3b:00.0" or "3b:00.0", with or without ",options".
bool is_pci_address(const std::string& device);

}  // namespace millrace::io
