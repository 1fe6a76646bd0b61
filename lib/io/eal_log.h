// What DPDK and the libraries below it (libbpf, libxdp) write while something starts, held back: the last lines become part of an
// error sentence; when all went well DPDK's own warnings are passed on and the libraries' chatter is not. Main thread, at start
// only.
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
  // rte_panic() and failed assertions end in abort(): what was held back is the reason.
  static void on_abort(int signal);
  FILE* stream_ = nullptr;  // DPDK's log
  char* text_ = nullptr;
  size_t size_ = 0;
  int saved_ = -1;   // the real standard error
  int caught_ = -1;  // what was written to it instead
  bool told_ = false;
  EalLog* outer_ = nullptr;  // at work when this one began
  void (*abort_was_)(int) = nullptr;
};

// "0000:3b:00.0" or "3b:00.0", with or without ",options".
bool is_pci_address(const std::string& device);

}  // namespace millrace::io
