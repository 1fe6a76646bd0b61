#include "control/log_book.h"

#include <cstdio>
#include <time.h>

namespace millrace::control {

void LogBook::add(std::string text) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const std::lock_guard lock(mutex_);
  lines_.push_back({next_++, std::chrono::duration_cast<std::chrono::milliseconds>(now).count(), std::move(text)});
  if (lines_.size() > kKept) lines_.pop_front();
  added_.notify_all();
}

std::vector<LogBook::Line> LogBook::last(size_t most) const {
  const std::lock_guard lock(mutex_);
  const size_t n = most < lines_.size() ? most : lines_.size();
  return {lines_.end() - static_cast<std::ptrdiff_t>(n), lines_.end()};
}

std::vector<LogBook::Line> LogBook::after(uint64_t number, std::chrono::milliseconds wait) const {
  std::unique_lock lock(mutex_);
  added_.wait_for(lock, wait, [&] { return next_ > number + 1; });
  std::vector<Line> out;
  for (const Line& l : lines_)
    if (l.number > number) out.push_back(l);
  return out;
}

LogBook& log_book() {
  static LogBook book;
  return book;
}

void say(const std::string& line) {
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  tm parts;
  gmtime_r(&t.tv_sec, &parts);
  char stamp[32];
  strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &parts);
  std::fprintf(stderr, "%s.%03ldZ millrace-control: %s\n", stamp, t.tv_nsec / 1'000'000, line.c_str());
  log_book().add(line);
}

}  // namespace millrace::control
