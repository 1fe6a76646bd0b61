#include "control/access_log.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>
#include <utility>

#include "control/control_plane.h"

namespace millrace::control {

namespace {

std::vector<AccessLogSink> sinks_of(const void* object, const table::Array<table::AccessLog>& logs) {
  std::vector<AccessLogSink> out;
  for (const table::AccessLog* l = logs.begin(object); l != logs.end(object); ++l) {
    const std::string_view text = table::view(object, l->format);
    const bool omit = l->omit_empty_values != 0;
    auto format = l->json != 0 ? AccessLogFormat::json(text, omit) : AccessLogFormat::text(text, omit);
    if (!format.ok()) format = AccessLogFormat::text("");
    out.push_back({std::string(table::view(object, l->path)), std::make_shared<AccessLogFormat>(std::move(format).value())});
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
  wake_.notify_all();
  thread_.join();
  flush();  // what an earlier try left over
  flush();  // what came since
  for (auto& [path, f] : files_)
    if (f.fd > 2) close(f.fd);
}

void AccessLogger::run() {
  while (true) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, kFlushInterval, [this] { return stopping_ || full_; });
      if (stopping_) return;
    }
    flush();
  }
}

void AccessLogger::set_sinks(AccessLogSinks sinks) {
  const std::lock_guard lock(mutex_);
  SinkMap next;
  const auto resolve = [this](std::vector<AccessLogSink>& from) {
    std::vector<Sink> to;
    for (AccessLogSink& s : from) to.push_back({&files_[s.path], std::move(s.format)});
    return to;
  };
  for (auto& [listener, from] : sinks) {
    Sinks& to = next[listener];
    for (auto& chain : from.chains) to.chains.push_back(resolve(chain));
    to.listener = resolve(from.listener);
  }
  previous_ = std::move(sinks_);
  sinks_ = std::move(next);
  last_listener_ = table::kNoObject;
}

const AccessLogger::Sinks* AccessLogger::find(table::ObjectId listener) const {
  for (const SinkMap* known : {&sinks_, &previous_}) {
    const auto it = known->find(listener);
    if (it != known->end()) return &it->second;
  }
  return nullptr;
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
  if (r.listener != last_listener_ || last_listener_ == table::kNoObject) {
    last_sinks_ = find(r.listener);
    last_listener_ = r.listener;
  }
  const std::vector<Sink>* sinks = nullptr;
  if (last_sinks_ != nullptr) {
    if (r.filter_chain == UINT16_MAX) sinks = &last_sinks_->listener;
    else if (r.filter_chain < last_sinks_->chains.size()) sinks = &last_sinks_->chains[r.filter_chain];
  }
  if (sinks == nullptr) {
    ++counters_.unknown;
    return;
  }
  for (size_t i = 0; i < sinks->size(); ++i) {
    if (i < 32 && (r.sinks >> i & 1) == 0) continue;
    const Sink& s = (*sinks)[i];
    LineBuffer& lines = s.file->lines;
    if (lines.size() > kMaxBuffered) {
      ++counters_.lost;
      continue;
    }
    s.format->append(view, lines);
    ++counters_.lines;
    if (lines.size() < kFlushBytes || full_) continue;
    full_ = true;
    wake_.notify_one();
  }
}

void AccessLogger::flush() {
  const std::lock_guard writer(writing_);
  std::unique_lock lock(mutex_);
  full_ = false;
  const bool reopening = std::exchange(reopen_, false);
  for (auto& [path, f] : files_) {  // files may be added meanwhile, never removed
    if (f.writing.empty()) std::swap(f.writing, f.lines);
    const bool opening = f.fd < 0 && !f.complained;  // also without a line, as Envoy: who rotates or follows it finds it
    if (f.writing.empty() && !reopening && !opening) continue;
    lock.unlock();
    if (!f.writing.empty() || opening) write_out(path, f);
    if (reopening) {
      if (f.fd > 2) close(f.fd);
      f.fd = -1;
      f.complained = false;
    }
    lock.lock();
  }
}

void AccessLogger::reopen() {
  {
    const std::lock_guard lock(mutex_);
    reopen_ = true;
  }
  flush();
}

AccessLogger::Counters AccessLogger::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

// What a full disk leaves over stays for the next try.
void AccessLogger::write_out(const std::string& path, File& f) {
  if (f.fd < 0)
    f.fd = path == "/dev/stdout"   ? 1
           : path == "/dev/stderr" ? 2
                                   : open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  ssize_t n = -1;
  if (f.fd >= 0 && f.writing.empty()) return;
  if (f.fd >= 0) n = write(f.fd, f.writing.view().data(), f.writing.size());
  if (n >= 0) {
    f.writing.consume(static_cast<size_t>(n));
    f.complained = false;
    return;
  }
  if (errno == EINTR || errno == EAGAIN) return;
  if (!f.complained)
    say_as(Logger::kFile, LogLevel::kWarning,
           "access log " + path + ": " + std::strerror(errno) + "; lines are kept up to " + std::to_string(kMaxBuffered >> 20) +
               " MB and written when it works again");
  f.complained = true;
}

}  // namespace millrace::control
