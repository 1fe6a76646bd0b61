#include "control/access_log.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

#include "control/control_plane.h"

namespace millrace::control {

namespace {

std::vector<AccessLogSink> sinks_of(const void* object, const table::Array<table::AccessLog>& logs) {
  std::vector<AccessLogSink> out;
  for (const table::AccessLog* l = logs.begin(object); l != logs.end(object); ++l) {
    const std::string_view text = table::view(object, l->format);
    auto format = l->json != 0 ? AccessLogFormat::json(text) : AccessLogFormat::text(text);
    if (!format.ok()) format = AccessLogFormat::text("");
    out.push_back(
        {std::string(table::view(object, l->path)), std::make_shared<const AccessLogFormat>(std::move(format).value())});
  }
  return out;
}

}  // namespace

ListenerSinks access_log_sinks(const table::Listener& listener) {
  ListenerSinks out;
  for (const table::FilterChain* c = listener.filter_chains.begin(&listener); c != listener.filter_chains.end(&listener); ++c)
    out.chains.push_back(sinks_of(
        &listener, c->filter == table::NetworkFilterKind::kHttpConnectionManager ? c->hcm.access_logs : c->tcp.access_logs));
  out.listener = sinks_of(&listener, listener.access_logs);
  return out;
}

AccessLogger::AccessLogger() : thread_([this] { run(); }) {}

AccessLogger::~AccessLogger() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  thread_.join();
  flush();
  for (auto& [path, f] : files_)
    if (f.fd > 2) close(f.fd);
}

void AccessLogger::run() {
  while (true) {
    std::this_thread::sleep_for(kFlushInterval);
    flush();
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
  }
}

void AccessLogger::set_sinks(AccessLogSinks sinks) {
  const std::lock_guard lock(mutex_);
  previous_ = std::move(sinks_);
  sinks_ = std::move(sinks);
}

void AccessLogger::on_event(uint32_t, std::span<const uint8_t> record) {
  stats::RecordHeader header;
  if (stats::check_record(record, header) == stats::RecordError::kNone && header.type != stats::EventType::kAccessLog) return;
  stats::AccessLogView view;
  const stats::RecordError error = view.parse(record);
  const std::lock_guard lock(mutex_);
  if (error != stats::RecordError::kNone) {
    ++counters_.malformed;
    return;
  }
  const stats::AccessLogRecord& r = view.fixed();
  const std::vector<AccessLogSink>* sinks = nullptr;
  for (const AccessLogSinks* known : {&sinks_, &previous_}) {
    const auto it = known->find(r.listener);
    if (it == known->end()) continue;
    if (r.filter_chain == UINT16_MAX) sinks = &it->second.listener;
    if (r.filter_chain < it->second.chains.size()) sinks = &it->second.chains[r.filter_chain];
    if (sinks != nullptr) break;
  }
  if (sinks == nullptr) {
    ++counters_.unknown;
    return;
  }
  for (const AccessLogSink& s : *sinks) {
    File& f = files_[s.path];
    if (f.buffer.size() > kMaxBuffered) {
      ++counters_.lost;
      continue;
    }
    s.format->append(view, f.buffer);
    ++counters_.lines;
    if (f.buffer.size() >= kFlushBytes) write_out(s.path, f);
  }
}

void AccessLogger::flush() {
  const std::lock_guard lock(mutex_);
  for (auto& [path, f] : files_)
    if (!f.buffer.empty()) write_out(path, f);
}

void AccessLogger::reopen() {
  const std::lock_guard lock(mutex_);
  for (auto& [path, f] : files_) {
    if (!f.buffer.empty()) write_out(path, f);
    if (f.fd > 2) close(f.fd);
    f.fd = -1;
    f.complained = false;
  }
}

AccessLogger::Counters AccessLogger::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

// Whole lines only: what a full disk leaves over stays in the buffer for the next try.
void AccessLogger::write_out(const std::string& path, File& f) {
  if (f.fd < 0)
    f.fd = path == "/dev/stdout"   ? 1
           : path == "/dev/stderr" ? 2
                                   : open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  ssize_t n = -1;
  if (f.fd >= 0) n = write(f.fd, f.buffer.data(), f.buffer.size());
  if (n >= 0) {
    f.buffer.erase(0, static_cast<size_t>(n));
    f.complained = false;
    return;
  }
  if (errno == EINTR || errno == EAGAIN) return;
  if (!f.complained)
    say("access log " + path + ": " + std::strerror(errno) + "; lines are kept up to " + std::to_string(kMaxBuffered >> 20) +
        " MB and written when it works again");
  f.complained = true;
}

}  // namespace millrace::control
