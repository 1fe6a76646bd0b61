// Resources out of files (ConfigSource.path_config_source, Envoy's "filesystem" subscriptions): a thread that reads them, watches
// them and hands what they say to an XdsSink.
//
// A file holds a DiscoveryResponse: `version_info`, and `resources` with "@type" each. Its name says how it is written: *.pb is
// binary, *.pb_text protobuf's text; all others are YAML or JSON.
//
// * Read again when something is renamed to its name, or was written to it and closed (Envoy looks at renames only); with a
//   watched directory, when anything is moved into that one (Kubernetes swaps whole directories that way).
// * Of clusters and listeners the file is the whole world: what it holds no longer is removed. Of other types it is asked for
//   names; one file may hold what several objects ask for. (Envoy takes one resource a file there.)
// * A bad resource does not block the good ones of its file. A file that cannot be read leaves everything as it was; who waits
//   for its first answer goes on without.
// * A directory that is not there, or goes, is looked for once a second.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "control/xds_engine.h"
#include "control/xds_sink.h"
#include "control/xds_stream.h"

namespace millrace::control {

// What a file's content says.
struct FileResources {
  std::string bad;  // why nothing of it can be used, with the place; "": it can
  XdsResponse response;
};
// `path` says what format it is and stands in reasons. Resources of another type than `type` come out as bad. Without
// version_info the version is a hash of the content. Pure.
FileResources read_resources(std::string_view content, const std::string& path, XdsType type);

class XdsFiles {
 public:
  using Say = std::function<void(const std::string&)>;  // one line for the log
  // `clusters`, `listeners`: where these come from as a whole, if from files. `sink` outlives it.
  XdsFiles(const ResourceFile& clusters, const ResourceFile& listeners, XdsSink& sink, Say say);
  ~XdsFiles();  // stops
  XdsFiles(const XdsFiles&) = delete;
  XdsFiles& operator=(const XdsFiles&) = delete;

  void start();
  void stop();
  // The sink's wanted_files() may answer otherwise. Any thread, until stop() has returned.
  void wanted_changed();

  // What was read: counters by type, where files say everything of a type, and by name.
  XdsStatus status() const;
  struct FileStatus {
    std::string path;
    std::string version;      // read last
    std::string error;        // why it could not be read, or is not watched; "": it is and could
    uint64_t since_ns = 0;    // monotonic; of the last reading
    std::set<XdsType> types;  // that it is asked for
  };
  std::vector<FileStatus> files() const;

  // One step of the thread, for tests: what has changed is read. `block`: until something happens.
  void turn(bool block);

 private:
  // One type that a file is asked for.
  struct Subscription {
    bool whole = false;
    std::set<std::string> names;            // when not whole
    std::map<std::string, uint64_t> known;  // hashes of bodies that were accepted
    std::set<std::string> refused;          // and not accepted before
    std::set<std::string> answered;         // names that nobody waits for any more; "" for a whole type
    std::string said;                       // the last complaint
  };
  struct File {
    std::map<XdsType, Subscription> subscriptions;
    bool due = true;  // is to be read
  };
  void take_wanted();
  void watch();
  void take_events();
  void read(const ResourceFile& which, File& file);
  void deliver(const ResourceFile& which, XdsType type, Subscription& s, FileResources read);
  void failed(const ResourceFile& which, XdsType type, Subscription& s, const std::string& why);
  void give_up(XdsType type, Subscription& s);
  void count(XdsType type, Subscription& s, const std::string& version, const std::vector<XdsRejection>& bad,
             const std::set<std::string>& came);
  static std::string directory_of(const ResourceFile& file);

  XdsSink& sink_;
  const Say say_;
  const ResourceFile clusters_, listeners_;
  std::map<ResourceFile, File> files_;
  std::map<std::string, int> watched_;  // directories: the watch, or -1 while there is none
  std::optional<uint64_t> wanted_generation_;
  int inotify_ = -1, wake_ = -1;
  mutable std::mutex mutex_;  // guards what follows
  XdsStatus status_;
  std::map<ResourceFile, FileStatus> file_status_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace millrace::control
