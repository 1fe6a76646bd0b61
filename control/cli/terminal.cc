#include "control/cli/terminal.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <fcntl.h>
#include <poll.h>
#include <string>
#include <sys/ioctl.h>
#include <unistd.h>

namespace millrace::cli {

namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP};

// Signals arrive on whatever thread (gRPC has some): the handler puts the number into a pipe that wait() reads.
int g_pipe[2] = {-1, -1};
struct sigaction g_before[std::size(kSignals)];

void on_signal(int signal) {
  const int kept = errno;
  const unsigned char byte = static_cast<unsigned char>(signal);
  [[maybe_unused]] const ssize_t n = write(g_pipe[1], &byte, 1);  // full: one is on its way already
  errno = kept;
}

bool write_all(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(STDOUT_FILENO, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    text.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

constexpr std::string_view kEnter = "\033[?1049h\033[?25l\033[2J";  // alternate screen, no cursor, empty
constexpr std::string_view kLeave = "\033[0m\033[?25h\033[?1049l";

}  // namespace

Terminal::Terminal() {
  if (pipe2(g_pipe, O_CLOEXEC | O_NONBLOCK) != 0) g_pipe[0] = g_pipe[1] = -1;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  for (size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &action, &g_before[i]);
  keys_ = isatty(STDIN_FILENO) != 0 && tcgetattr(STDIN_FILENO, &before_) == 0;
  enter();
}

Terminal::~Terminal() {
  leave();
  for (size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &g_before[i], nullptr);
  for (int& fd : g_pipe) {
    if (fd >= 0) close(fd);
    fd = -1;
  }
}

void Terminal::enter() {
  if (keys_) {
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  }
  write_all(kEnter);
}

void Terminal::leave() {
  write_all(kLeave);
  if (keys_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
}

Terminal::Size Terminal::stdout_size() {
  winsize w{};
  Size s;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0) {
    if (w.ws_col != 0) s.width = w.ws_col;
    if (w.ws_row != 0) s.height = w.ws_row;
  }
  return s;
}

bool Terminal::show(std::string_view text) {
  std::string out = "\033[H";
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    out += text.substr(at, end - at);
    out += "\033[K";  // what was there before
    at = end + 1;
    if (at < text.size()) out += '\n';  // none behind the last line: it would scroll a full screen
  }
  out += "\033[J";
  return write_all(out);
}

int Terminal::wait(double seconds) {
  pollfd fds[2] = {{g_pipe[0], POLLIN, 0}, {keys_ ? STDIN_FILENO : -1, POLLIN, 0}};
  const int ms = static_cast<int>(std::min(std::ceil(std::max(seconds, 0.0) * 1e3), 3.6e6));
  const int n = poll(fds, 2, ms);
  if (n < 0) return errno == EINTR ? kResized : kQuit;
  if (n == 0) return kNothing;
  if (fds[0].revents != 0) {
    unsigned char signal = 0;
    if (read(g_pipe[0], &signal, 1) != 1) return kResized;
    if (signal == SIGWINCH) return kResized;
    if (signal == SIGTSTP) {
      leave();
      raise(SIGSTOP);
      if (keys_) tcgetattr(STDIN_FILENO, &before_);  // the shell's, as it is now
      enter();
      return kResized;
    }
    return kQuit;
  }
  char key = 0;
  const ssize_t got = read(STDIN_FILENO, &key, 1);
  if (got <= 0) {  // the terminal is gone
    keys_ = false;
    return got == 0 ? kNothing : kQuit;
  }
  return key == 'q' || key == 'Q' || key == 4 ? kQuit : static_cast<unsigned char>(key);
}

}  // namespace millrace::cli
