// A terminal that shows one screen again and again, as top(1) does: the alternate screen, no cursor, keys without Enter. However
// the program is left (a key, SIGINT, SIGTERM, SIGHUP, an error, Ctrl-Z for a while), the terminal is as it was before.
#pragma once

#include <cstddef>
#include <string_view>
#include <termios.h>

namespace millrace::cli {

class Terminal {
 public:
  // At most one at a time in a process. Standard output must be a terminal; keys are read when standard input is one too.
  Terminal();
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  struct Size {
    size_t width = 80, height = 24;
  };
  static Size stdout_size();
  // Shows `text` (lines ending in '\n') in place of what was there, without flicker. False: nobody can see it any more.
  bool show(std::string_view text);
  // Until a key, a signal or `seconds`. The key; kQuit for q and for signals that end a program, kResized when the size may have
  // changed, kNothing when time was up.
  static constexpr int kNothing = -1, kQuit = -2, kResized = -3;
  int wait(double seconds);
  bool has_keys() const { return keys_; }

 private:
  void enter();
  void leave();

  bool keys_ = false;
  termios before_{};
};

}  // namespace millrace::cli
