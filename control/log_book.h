// What control says: one line for the operator, on stderr or in a file, as text or as JSON, and the last lines kept for `millctl
// log`. Loggers and levels go by Envoy's names and are set at run time (POST /logging).
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/status.h"

namespace millrace::control {

enum class LogLevel : uint8_t { kTrace, kDebug, kInfo, kWarning, kError, kCritical, kOff };
std::string_view to_string(LogLevel l);  // "trace" … "off", as Envoy's
std::optional<LogLevel> log_level(std::string_view name);

// Who speaks. Envoy's names where Envoy has the same; "link" is the way to the data plane.
enum class Logger : uint8_t { kAdmin, kConfig, kDns, kFile, kLink, kMain, kStats, kCount };
std::string_view to_string(Logger l);
std::optional<Logger> logger(std::string_view name);

enum class LogFormat : uint8_t { kText, kJson };

class LogBook {
 public:
  struct Line {
    uint64_t number = 0;  // from 1
    int64_t time_ms = 0;  // since the epoch, UTC
    std::string text;
  };
  static constexpr size_t kKept = 4096;

  ~LogBook();
  // Before the first line, or at any time. `file`: "" is stderr. Error: the file cannot be written to; nothing was changed.
  base::Status set_output(LogFormat format, const std::string& file);
  // The file anew, by its name: it was renamed. When that fails the old one is written to further, and the error says why.
  base::Status reopen();
  LogLevel level(Logger l) const { return levels_[static_cast<size_t>(l)].load(std::memory_order_relaxed); }
  void set_level(Logger l, LogLevel level) { levels_[static_cast<size_t>(l)].store(level, std::memory_order_relaxed); }
  void set_every_level(LogLevel level);
  bool wants(Logger l, LogLevel level) const { return level >= this->level(l); }

  // A line has no newline of its own. Below the logger's level it is neither written nor kept.
  void log(Logger l, LogLevel level, const std::string& text);

  // The last `most` lines, oldest first.
  std::vector<Line> last(size_t most) const;
  // Lines above `number`; waits for one at most `wait`.
  std::vector<Line> after(uint64_t number, std::chrono::milliseconds wait) const;

 private:
  void write(const std::string& line);  // holds mutex_

  std::array<std::atomic<LogLevel>, static_cast<size_t>(Logger::kCount)> levels_ = {
      LogLevel::kInfo, LogLevel::kInfo, LogLevel::kInfo, LogLevel::kInfo, LogLevel::kInfo, LogLevel::kInfo, LogLevel::kInfo};
  mutable std::mutex mutex_;
  mutable std::condition_variable added_;
  std::deque<Line> lines_;
  uint64_t next_ = 1;
  LogFormat format_ = LogFormat::kText;
  std::string file_;
  int fd_ = 2;
};

// One line as it is written, with its newline.
std::string log_line(LogFormat format, int64_t time_ms, Logger l, LogLevel level, std::string_view text);

// The process' book.
LogBook& log_book();
// Any thread.
void say_as(Logger l, LogLevel level, const std::string& line);
void say(const std::string& line);  // of main, info
std::function<void(const std::string&)> sayer(Logger l, LogLevel level = LogLevel::kInfo);

}  // namespace millrace::control
