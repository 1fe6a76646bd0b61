// Access logs: the records that workers put on their event rings, as lines in files. The data plane decides which record is made
// and which logs want it (filters); here it is formatted, by the thread that drains the rings, and written, by a thread of its
// own: a slow disk delays no ring.
//
// A line is in its file at most kFlushInterval after its request ended (Envoy: 10 s). Files are opened for appending within that
// time of the configuration that names them, and reopened by reopen() (SIGUSR1, for logrotate). A file that cannot be written is
// said so once, its lines are kept up to kMaxBuffered, then counted as lost, and it is tried again.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "control/access_log_format.h"
#include "lib/table/layout.h"
#include "lib/table/objects.h"

namespace millrace::control {

// One access log of a listener's configuration.
struct AccessLogSink {
  std::string path;  // "/dev/stdout" and "/dev/stderr" are this process' own
  std::shared_ptr<AccessLogFormat> format;
};
struct ListenerSinks {
  std::vector<std::vector<AccessLogSink>> chains;  // by index of filter_chains
  std::vector<AccessLogSink> listener;             // for connections that no chain matched
};
using AccessLogSinks = std::map<table::ObjectId, ListenerSinks>;
// Of one listener object (validated); a format that does not compile (validation has looked before) becomes the default one.
ListenerSinks access_log_sinks(const table::Listener& listener);

class AccessLogger {
 public:
  static constexpr std::chrono::milliseconds kFlushInterval{100};
  static constexpr size_t kFlushBytes = 64 * 1024;
  static constexpr size_t kMaxBuffered = 8u << 20;  // of one file that cannot be written: more is lost, and counted

  AccessLogger();
  ~AccessLogger();
  AccessLogger(const AccessLogger&) = delete;
  AccessLogger& operator=(const AccessLogger&) = delete;

  // From now on. Any thread.
  void set_sinks(AccessLogSinks sinks);
  // One record of a worker's event ring; others than access log records are ignored, malformed ones counted.
  void on_event(uint32_t worker, std::span<const uint8_t> record);
  void flush();
  void reopen();

  struct Counters {
    uint64_t lines = 0, lost = 0, malformed = 0, unknown = 0;  // unknown: of a listener or chain that is gone
  };
  Counters counters() const;

 private:
  // Under mutex_: `lines`. The writer's alone: all else.
  struct File {
    LineBuffer lines;
    LineBuffer writing;  // taken over from `lines`, on its way into the file
    int fd = -1;
    bool complained = false;
  };
  struct Sink {
    File* file;
    std::shared_ptr<AccessLogFormat> format;
  };
  struct Sinks {
    std::vector<std::vector<Sink>> chains;
    std::vector<Sink> listener;
  };
  using SinkMap = std::map<table::ObjectId, Sinks>;

  const Sinks* find(table::ObjectId listener) const;
  static void write_out(const std::string& path, File& f);
  void run();

  mutable std::mutex mutex_;
  std::mutex writing_;  // one writes at a time: the thread, or flush(); taken before mutex_
  std::condition_variable wake_;
  SinkMap sinks_;
  SinkMap previous_;                                  // records of connections older than the last change still find their format
  std::map<std::string, File> files_;                 // never shrinks: sinks point into it
  table::ObjectId last_listener_ = table::kNoObject;  // of the last record; most are of the same one
  const Sinks* last_sinks_ = nullptr;
  Counters counters_;
  bool stopping_ = false, full_ = false, reopen_ = false;
  std::thread thread_;
};

}  // namespace millrace::control
