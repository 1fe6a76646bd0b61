// What control says: one line for the operator on stderr, with the time, and the last lines kept for `millctl log`.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

namespace millrace::control {

class LogBook {
 public:
  struct Line {
    uint64_t number = 0;  // from 1
    int64_t time_ms = 0;  // since the epoch, UTC
    std::string text;
  };
  static constexpr size_t kKept = 4096;

  void add(std::string text);
  // The last `most` lines, oldest first.
  std::vector<Line> last(size_t most) const;
  // Lines above `number`; waits for one at most `wait`.
  std::vector<Line> after(uint64_t number, std::chrono::milliseconds wait) const;

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable added_;
  std::deque<Line> lines_;
  uint64_t next_ = 1;
};

// The process' book.
LogBook& log_book();
// Any thread. A line has no newline of its own.
void say(const std::string& line);

}  // namespace millrace::control
