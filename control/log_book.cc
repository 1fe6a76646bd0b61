#include "control/log_book.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

namespace millrace::control {

namespace {

constexpr std::string_view kLevels[] = {"trace", "debug", "info", "warning", "error", "critical", "off"};
constexpr std::string_view kLoggers[] = {"admin", "config", "dns", "file", "link", "main", "stats"};
static_assert(std::size(kLoggers) == static_cast<size_t>(Logger::kCount));

// "2026-11-24T10:20:30.123Z"
std::string stamp(int64_t time_ms) {
  const time_t seconds = time_ms / 1000;
  tm parts;
  gmtime_r(&seconds, &parts);
  char text[32], out[48];
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(out, sizeof out, "%s.%03dZ", text, static_cast<int>(time_ms % 1000));
  return out;
}

// What JSON wants escaped; bytes that are no UTF-8 are taken for Latin-1, so that a reader never stumbles over a line.
void append_json(std::string& out, std::string_view text) {
  const auto escape = [&](unsigned char c) {
    char buf[8];
    std::snprintf(buf, sizeof buf, "\\u%04x", c);
    out += buf;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') (out += '\\') += static_cast<char>(c);
    else if (c < 0x20 || c == 0x7f) escape(c);
    else if (c < 0x80) out += static_cast<char>(c);
    else {
      const size_t more = c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 0;
      size_t good = 0;
      while (good < more && i + 1 + good < text.size() && (static_cast<unsigned char>(text[i + 1 + good]) & 0xc0) == 0x80) ++good;
      if (more == 0 || good < more) {
        escape(c);
        continue;
      }
      out += text.substr(i, more + 1);
      i += more;
    }
  }
}

int open_log(const std::string& file) { return open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640); }

}  // namespace

std::string_view to_string(LogLevel l) { return kLevels[static_cast<size_t>(l)]; }
std::optional<LogLevel> log_level(std::string_view name) {
  for (size_t i = 0; i < std::size(kLevels); ++i)
    if (kLevels[i] == name) return static_cast<LogLevel>(i);
  return std::nullopt;
}
std::string_view to_string(Logger l) { return kLoggers[static_cast<size_t>(l)]; }
std::optional<Logger> logger(std::string_view name) {
  for (size_t i = 0; i < std::size(kLoggers); ++i)
    if (kLoggers[i] == name) return static_cast<Logger>(i);
  return std::nullopt;
}

std::string log_line(LogFormat format, int64_t time_ms, Logger l, LogLevel level, std::string_view text) {
  std::string out;
  if (format == LogFormat::kText) {
    out = stamp(time_ms) + " millrace-control: ";
    if (level != LogLevel::kInfo) (out += to_string(level)) += ": ";
    (out += text) += '\n';
    return out;
  }
  out = "{\"time\":\"" + stamp(time_ms) + "\",\"level\":\"";
  ((out += to_string(level)) += "\",\"logger\":\"") += to_string(l);
  out += "\",\"program\":\"millrace-control\",\"message\":\"";
  append_json(out, text);
  out += "\"}\n";
  return out;
}

LogBook::~LogBook() {
  if (fd_ > 2) close(fd_);
}

base::Status LogBook::set_output(LogFormat format, const std::string& file) {
  int fd = 2;
  if (!file.empty() && (fd = open_log(file)) < 0) return base::Error{file + ": " + std::strerror(errno)};
  const std::lock_guard lock(mutex_);
  if (fd_ > 2) close(fd_);
  fd_ = fd;
  file_ = file;
  format_ = format;
  return {};
}

base::Status LogBook::reopen() {
  const std::lock_guard lock(mutex_);
  if (file_.empty()) return {};
  const int fd = open_log(file_);
  if (fd < 0) return base::Error{file_ + ": " + std::strerror(errno) + "; the log goes on into the file that was open"};
  if (fd_ > 2) close(fd_);
  fd_ = fd;
  return {};
}

void LogBook::set_every_level(LogLevel level) {
  for (auto& l : levels_) l.store(level, std::memory_order_relaxed);
}

// A log that cannot be written (a full disk, a closed pipe) costs its lines, never the program.
void LogBook::write(const std::string& line) {
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t n = ::write(fd_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    done += static_cast<size_t>(n);
  }
}

void LogBook::log(Logger l, LogLevel level, const std::string& text) {
  if (!wants(l, level)) return;
  using namespace std::chrono;
  const int64_t now = duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
  const std::lock_guard lock(mutex_);
  write(log_line(format_, now, l, level, text));
  lines_.push_back({next_++, now, text});
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

void say_as(Logger l, LogLevel level, const std::string& line) { log_book().log(l, level, line); }
void say(const std::string& line) { say_as(Logger::kMain, LogLevel::kInfo, line); }
std::function<void(const std::string&)> sayer(Logger l, LogLevel level) {
  return [l, level](const std::string& line) { say_as(l, level, line); };
}

}  // namespace millrace::control
