#include "control/xds_files.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <poll.h>
#include <sstream>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include "control/config_loader.h"
#include "control/monotonic.h"
#include "control/proto_mapper.h"
#include "control/xds_messages.h"
#include "control/yaml_tree.h"
#include "lib/base/assert.h"
#include "lib/base/hash.h"

namespace millrace::control {

namespace {

namespace discovery = envoy::service::discovery::v3;
using Kind = YamlTree::Kind;

constexpr int kLookAgainMs = 1000;  // for directories that are not there

std::string hex(uint64_t value) {
  char out[17];
  std::snprintf(out, sizeof out, "%016llx", static_cast<unsigned long long>(value));
  return out;
}

std::string joined(const ConfigErrors& errors) {
  std::string out;
  for (const ConfigError& e : errors) out += (out.empty() ? "" : "; ") + e.to_string();
  return out;
}

// The text of a DiscoveryResponse. Each resource is read for itself, so that what is wrong with one is not wrong with all.
class TextReader {
 public:
  TextReader(const YamlTree& tree, const std::string& path, FileResources* out)
      : tree_(tree), mapper_(tree, path, &errors_), out_(out) {}

  void read(XdsType type) {
    if (tree_.kind(tree_.root()) != Kind::kMap)
      mapper_.complain(tree_.root(), "", "expected a DiscoveryResponse: a mapping with `resources:`");
    else top(type);
    if (!errors_.empty()) out_->bad = joined(errors_);
  }

 private:
  void top(XdsType type) {
    YamlError bad;
    const auto entries = tree_.entries(tree_.root(), &bad);
    if (!bad.message.empty()) mapper_.complain(tree_.root(), "", bad.message);
    for (const YamlTree::Entry& e : entries) {
      const std::string_view key = tree_.text(e.key);
      const Kind kind = tree_.kind(e.value);
      if (kind == Kind::kNull) continue;
      if (key == "version_info" || key == "versionInfo") {
        if (kind != Kind::kScalar) mapper_.complain(e.value, "version_info", "expected a text");
        else out_->response.version = std::string(tree_.text(e.value));
      } else if (key == "resources") {
        if (kind != Kind::kSequence) mapper_.complain(e.value, "resources", "expected a list of objects with \"@type\"");
        else resources(e.value, type);
      } else if (key == "type_url" || key == "typeUrl") {
        if (kind != Kind::kScalar || tree_.text(e.value) != type_url(type))
          mapper_.complain(e.value, "type_url", "must be " + std::string(type_url(type)) + ", which is what is asked for");
      } else if (key != "nonce" && key != "canary" && key != "@type" && key != "control_plane" && key != "controlPlane") {
        mapper_.unknown_field(e.key, discovery::DiscoveryResponse::descriptor(), "");
      }
    }
  }
  void resources(YamlTree::Id list, XdsType type) {
    int index = 0;
    for (const YamlTree::Id at : tree_.elements(list)) {
      ConfigErrors before;
      before.swap(errors_);
      discovery::DiscoveryResponse one;
      one.set_type_url(std::string(type_url(type)));
      resource(at, "resources[" + std::to_string(index++) + "]", one.add_resources());
      XdsResource r = std::move(from_sotw(one).resources.front());
      if (!errors_.empty()) r.bad = joined(errors_);
      out_->response.resources.push_back(std::move(r));
      errors_.swap(before);
    }
  }
  void resource(YamlTree::Id at, const std::string& path, google::protobuf::Any* any) {
    if (tree_.kind(at) != Kind::kMap) return mapper_.complain(at, path, "expected an object with \"@type\"");
    const auto* type = mapper_.type_of(at, path, true);
    if (type == nullptr) return;
    std::unique_ptr<google::protobuf::Message> message(
        google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
    (void)mapper_.map_object(at, path, message.get());
    any->PackFrom(*message);
  }

  const YamlTree& tree_;
  ConfigErrors errors_;  // of the resource that is read, or of everything else
  ProtoMapper mapper_;
  FileResources* out_;
};

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (text.empty()) text = std::to_string(line + 1) + ":" + std::to_string(column + 1) + ": " + message;
  }
  std::string text;
};

}  // namespace

FileResources read_resources(std::string_view content, const std::string& path, XdsType type) {
  FileResources out;
  out.response.type_url = std::string(type_url(type));
  const bool binary = path.ends_with(".pb");
  if (binary || path.ends_with(".pb_text")) {
    discovery::DiscoveryResponse message;
    FirstError error;
    google::protobuf::TextFormat::Parser parser;
    parser.RecordErrorsTo(&error);
    if (binary ? !message.ParseFromArray(content.data(), static_cast<int>(content.size()))
               : !parser.ParseFromString(std::string(content), &message)) {
      out.bad = path + (binary ? ": is no DiscoveryResponse: its bytes cannot be read" : ":" + error.text);
      return out;
    }
    if (!message.type_url().empty() && message.type_url() != type_url(type)) {
      out.bad = path + ": type_url: must be " + std::string(type_url(type)) + ", which is what is asked for";
      return out;
    }
    message.set_type_url(std::string(type_url(type)));
    out.response = from_sotw(message);
  } else {
    YamlTree tree;
    ConfigErrors errors;
    if (parse_document(content, path, &tree, &errors)) TextReader(tree, path, &out).read(type);
    else out.bad = joined(errors);
  }
  if (out.response.version.empty()) out.response.version = hex(base::hash64(content));
  return out;
}

// ---- subscriptions ----

XdsFiles::XdsFiles(const ResourceFile& clusters, const ResourceFile& listeners, XdsSink& sink, Say say)
    : sink_(sink), say_(std::move(say)), clusters_(clusters), listeners_(listeners) {
  inotify_ = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  wake_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  MILLRACE_ASSERT(inotify_ >= 0 && wake_ >= 0, "descriptors to watch files with");
}

XdsFiles::~XdsFiles() {
  stop();
  close(inotify_);
  close(wake_);
}

void XdsFiles::start() {
  thread_ = std::thread([this] {
    while (!stopping_) turn(true);
  });
}

void XdsFiles::stop() {
  if (!thread_.joinable()) return;
  stopping_ = true;
  wanted_changed();
  thread_.join();
}

void XdsFiles::wanted_changed() {
  const uint64_t one = 1;
  (void)!write(wake_, &one, sizeof one);  // full: it will be woken anyway
}

std::string XdsFiles::directory_of(const ResourceFile& file) {
  if (!file.watched_directory.empty()) return file.watched_directory;
  const size_t slash = file.path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : file.path.substr(0, slash);
}

void XdsFiles::take_wanted() {
  const uint64_t generation = sink_.wanted_generation();
  if (wanted_generation_ == generation) return;
  wanted_generation_ = generation;
  std::map<ResourceFile, std::map<XdsType, std::set<std::string>>> wanted;
  if (clusters_.there()) wanted[clusters_][XdsType::kCluster];
  if (listeners_.there()) wanted[listeners_][XdsType::kListener];
  for (const XdsFileWant& w : sink_.wanted_files()) wanted[w.file][w.type].insert(w.name);

  std::set<std::string> directories;
  for (auto it = files_.begin(); it != files_.end();) it = wanted.contains(it->first) ? std::next(it) : files_.erase(it);
  for (const auto& [which, types] : wanted) {
    directories.insert(directory_of(which));
    File& file = files_[which];
    for (auto it = file.subscriptions.begin(); it != file.subscriptions.end();)
      it = types.contains(it->first) ? std::next(it) : file.subscriptions.erase(it);
    for (const auto& [type, names] : types) {
      const auto [it, fresh] = file.subscriptions.try_emplace(type);
      Subscription& s = it->second;
      s.whole = names.empty();
      if (fresh || s.names != names) file.due = true;
      const auto stale = [&](const auto& entry) {
        if constexpr (requires { entry.first; }) return !names.contains(entry.first);
        else return !names.contains(entry);
      };
      if (!s.whole) {
        std::erase_if(s.known, stale);
        std::erase_if(s.refused, stale);
        std::erase_if(s.answered, stale);
      }
      s.names = names;
    }
  }
  for (auto it = watched_.begin(); it != watched_.end();) {
    if (directories.contains(it->first)) {
      ++it;
      continue;
    }
    if (it->second >= 0) inotify_rm_watch(inotify_, it->second);
    it = watched_.erase(it);
  }
  for (const std::string& d : directories) watched_.try_emplace(d, -1);

  const std::lock_guard lock(mutex_);
  std::erase_if(file_status_, [&](const auto& f) { return !wanted.contains(f.first); });
  std::map<std::pair<XdsType, std::string>, XdsStatus::Name> names;
  for (XdsStatus::Type& t : status_.types) t.subscribed = false;
  for (const auto& [which, types] : wanted) {
    FileStatus& f = file_status_[which];
    f.path = which.path;
    f.types.clear();
    for (const auto& [type, asked] : types) {
      f.types.insert(type);
      if (asked.empty()) status_.types[static_cast<size_t>(type)].subscribed = true;
      for (const std::string& n : asked) names[{type, n}] = status_.names[{type, n}];
    }
  }
  status_.names = std::move(names);
}

// ---- watching ----

void XdsFiles::watch() {
  for (auto& [directory, wd] : watched_) {
    if (wd >= 0) continue;
    wd =
        inotify_add_watch(inotify_, directory.c_str(), IN_MOVED_TO | IN_CLOSE_WRITE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR);
    if (wd < 0) continue;
    for (auto& [which, file] : files_)
      if (directory_of(which) == directory) file.due = true;
  }
}

void XdsFiles::take_events() {
  alignas(inotify_event) char buffer[16384];
  while (true) {
    const ssize_t size = ::read(inotify_, buffer, sizeof buffer);
    if (size <= 0) return;
    for (ssize_t at = 0; at < size;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
      at += static_cast<ssize_t>(sizeof *event + event->len);
      const std::string name = event->len == 0 ? "" : event->name;
      if ((event->mask & IN_Q_OVERFLOW) != 0) {  // some are lost: anything may have changed
        for (auto& [which, file] : files_) file.due = true;
        continue;
      }
      for (auto& [directory, wd] : watched_) {
        if (wd != event->wd) continue;
        if ((event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED)) != 0) {
          if ((event->mask & IN_MOVE_SELF) != 0) inotify_rm_watch(inotify_, wd);
          wd = -1;  // another one of this name may come
          continue;
        }
        for (auto& [which, file] : files_) {
          if (directory_of(which) != directory) continue;
          const bool own = which.path.substr(which.path.rfind('/') + 1) == name;
          if (which.watched_directory.empty() ? own : (event->mask & IN_MOVED_TO) != 0) file.due = true;
        }
      }
    }
  }
}

void XdsFiles::turn(bool block) {
  if (block) {
    bool missing = !wanted_generation_.has_value();
    for (const auto& [directory, wd] : watched_) missing = missing || wd < 0;
    pollfd fds[] = {{inotify_, POLLIN, 0}, {wake_, POLLIN, 0}};
    if (poll(fds, 2, wanted_generation_ ? (missing ? kLookAgainMs : -1) : 0) < 0 && errno != EINTR) return;
  }
  uint64_t count = 0;
  (void)!::read(wake_, &count, sizeof count);
  take_events();
  // What is read may ask for more.
  bool again = true;
  while (again && !stopping_) {
    take_wanted();
    watch();
    again = false;
    for (auto& [which, file] : files_) {
      if (!file.due || stopping_) continue;
      file.due = false;
      again = true;
      read(which, file);
    }
  }
}

// ---- reading ----

void XdsFiles::read(const ResourceFile& which, File& file) {
  std::string content, why;
  {
    std::stringstream all;
    errno = 0;
    std::ifstream in(which.path, std::ios::binary);
    if (in.is_open()) all << in.rdbuf();
    if (!in.is_open() || in.bad()) why = which.path + ": cannot be read: " + std::strerror(errno == 0 ? EIO : errno);
    content = std::move(all).str();
  }
  std::string version;
  const std::string directory = directory_of(which);
  for (auto& [type, s] : file.subscriptions) {
    FileResources r;
    if (why.empty()) r = read_resources(content, which.path, type);
    if (!why.empty()) r.bad = why;
    if (!r.bad.empty()) {
      failed(which, type, s, r.bad);
      if (why.empty()) why = r.bad;
      continue;
    }
    version = r.response.version;
    deliver(which, type, s, std::move(r));
  }
  if (why.empty() && watched_[directory] < 0) why = "not watched: there is no directory " + directory;
  const std::lock_guard lock(mutex_);
  FileStatus& f = file_status_[which];
  f.error = why;
  f.since_ns = monotonic_ns();
  if (!version.empty()) f.version = version;
}

// Nobody answers any more than this: who waits goes on without.
void XdsFiles::give_up(XdsType type, Subscription& s) {
  if (s.whole) {
    if (s.answered.insert("").second) sink_.expired(type, "");
    return;
  }
  for (const std::string& name : s.names)
    if (!s.known.contains(name) && s.answered.insert(name).second) sink_.expired(type, name);
}

void XdsFiles::failed(const ResourceFile&, XdsType type, Subscription& s, const std::string& why) {
  if (s.said != why) say_("xDS: " + std::string(short_name(type)) + " from a file failed: " + why);
  s.said = why;
  {
    const std::lock_guard lock(mutex_);
    if (s.whole) {
      XdsTypeStats& t = status_.types[static_cast<size_t>(type)].stats;
      ++t.update_attempt;
      ++t.update_failure;
      t.last_error = why;
    }
    for (const std::string& name : s.names) {
      XdsStatus::Name& n = status_.names[{type, name}];
      ++n.update_attempt;
      ++n.update_failure;
      n.given_up = n.given_up || !s.known.contains(name);
    }
  }
  give_up(type, s);
}

void XdsFiles::deliver(const ResourceFile& which, XdsType type, Subscription& s, FileResources read) {
  XdsUpdate update;
  update.type = type;
  update.version = read.response.version;
  update.server = "file " + which.path;
  std::vector<XdsRejection> bad;
  std::set<std::string> present;
  std::map<std::string, uint64_t> hashes;
  bool nameless = false;
  for (XdsResource& r : read.response.resources) {
    if (r.name.empty()) {
      nameless = true;
      bad.push_back({"", r.bad.empty() ? "a resource has no name" : r.bad});
      continue;
    }
    if (!s.whole && !s.names.contains(r.name)) continue;
    if (r.heartbeat) continue;
    if (!present.insert(r.name).second) {
      bad.push_back({r.name, "is in the file more than once"});
      continue;
    }
    const uint64_t hash = base::hash64(r.body);
    const auto known = s.known.find(r.name);
    if (r.bad.empty() && known != s.known.end() && known->second == hash && !s.refused.contains(r.name)) continue;
    if (r.bad.empty()) hashes.emplace(r.name, hash);
    update.changed.push_back(std::move(r));
  }
  if (s.whole) {
    std::set<std::string> before = s.refused;
    for (const auto& [name, hash] : s.known) before.insert(name);
    for (const std::string& name : before)
      if (!nameless && !present.contains(name)) update.removed.push_back(name);
  } else {
    for (const std::string& name : s.names) {
      if (present.contains(name)) continue;
      XdsResource& none = update.changed.emplace_back();
      none.name = name;
      none.bad = which.path + " holds no resource of this name";
    }
  }
  if (s.whole || !update.changed.empty()) {
    std::vector<XdsRejection> refused = sink_.apply(update);
    bad.insert(bad.end(), std::make_move_iterator(refused.begin()), std::make_move_iterator(refused.end()));
  }
  std::set<std::string> refused;
  for (const XdsRejection& r : bad) refused.insert(r.name);
  for (const std::string& name : update.removed) {
    if (refused.contains(name)) continue;
    s.known.erase(name);
    s.refused.erase(name);
  }
  for (const auto& [name, hash] : hashes) {
    if (refused.contains(name)) continue;
    s.known[name] = hash;
    s.refused.erase(name);
    s.answered.insert(name);
  }
  for (const std::string& name : refused)
    if (!name.empty()) s.refused.insert(name);
  if (s.whole) s.answered.insert("");  // apply() has heard it
  count(type, s, update.version, bad, present);
  std::string text;
  for (const XdsRejection& r : bad) text += (text.empty() ? "" : "; ") + (r.name.empty() ? "" : r.name + ": ") + r.reason;
  if (!text.empty() && s.said != text)
    say_("xDS: " + std::string(short_name(type)) + " of " + update.server + " refused: " + text);
  s.said = text;
  give_up(type, s);
}

void XdsFiles::count(XdsType type, Subscription& s, const std::string& version, const std::vector<XdsRejection>& bad,
                     const std::set<std::string>& came) {
  const std::lock_guard lock(mutex_);
  if (s.whole) {
    XdsStatus::Type& t = status_.types[static_cast<size_t>(type)];
    ++t.stats.update_attempt;
    ++(bad.empty() ? t.stats.update_success : t.stats.update_rejected);
    if (bad.empty()) t.stats.version = version;
    else t.stats.last_error = (bad.front().name.empty() ? "" : bad.front().name + ": ") + bad.front().reason;
    t.known = s.known.size();
    t.last_response_ns = monotonic_ns();
  }
  for (const std::string& name : s.names) {
    XdsStatus::Name& n = status_.names[{type, name}];
    ++n.update_attempt;
    if (s.refused.contains(name) || !came.contains(name)) {
      ++n.update_rejected;
    } else {
      ++n.update_success;
      n.version = version;
      n.given_up = false;
    }
  }
}

XdsStatus XdsFiles::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

std::vector<XdsFiles::FileStatus> XdsFiles::files() const {
  const std::lock_guard lock(mutex_);
  std::vector<FileStatus> out;
  for (const auto& [which, f] : file_status_) out.push_back(f);
  return out;
}

}  // namespace millrace::control
