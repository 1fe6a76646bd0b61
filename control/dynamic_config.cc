#include "control/dynamic_config.h"

#include <algorithm>

#include "control/log_book.h"
#include "control/monotonic.h"

namespace millrace::control {

using std::chrono::steady_clock;

namespace {

constexpr std::chrono::milliseconds kLookAgain{200};  // while the first publication waits

int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

ConfigKind kind_of(XdsType type) {
  switch (type) {
    case XdsType::kCluster:
      return ConfigKind::kCluster;
    case XdsType::kEndpoints:
      return ConfigKind::kEndpoints;
    case XdsType::kListener:
      return ConfigKind::kListener;
    case XdsType::kRoute:
      return ConfigKind::kRoute;
    case XdsType::kSecret:
      break;
  }
  return ConfigKind::kSecret;
}

size_t at(XdsType type) { return static_cast<size_t>(type); }

std::string words(XdsType type, const std::string& name) { return std::string(short_name(type)) + " " + name; }

}  // namespace

DynamicConfig::DynamicConfig(ControlPlane& plane, const DynamicOptions& options) : plane_(plane), options_(options) {
  plane_.on_edited([this] { edited(); });
  timer_thread_ = std::thread([this] { keep_time(); });
  settle();
}

DynamicConfig::~DynamicConfig() {
  plane_.on_edited({});
  {
    const std::lock_guard lock(timer_mutex_);
    stopping_ = true;
  }
  timer_.notify_all();
  timer_thread_.join();
}

void DynamicConfig::on_wanted_changed(std::function<void()> call) {
  const std::lock_guard lock(hook_mutex_);
  wanted_changed_ = std::move(call);
}

std::vector<XdsRejection> DynamicConfig::apply(const XdsUpdate& update) {
  heard();
  DynamicResources::Outcome taken;
  const auto changed = plane_.change([&](const Model& model, Warming& warming) {
    const std::lock_guard lock(mutex_);
    taken = resources_.apply(model, update, now_ms());
    for (const std::string& name : taken.gone) warming.given_up(update.type, name);
    return std::optional<Model>(std::move(taken.model));
  });
  answered_[at(update.type)] = true;
  // What does not compile is as bad as what does not parse; it may have waited since an earlier update.
  for (const ConfigKey& key : changed.failed) {
    std::string reason;
    for (const ConfigError& e : changed.errors)
      if (e.path.starts_with(std::string(to_string(key.kind)) + " " + key.name))
        reason += (reason.empty() ? "" : "; ") + e.message;
    say_as(Logger::kConfig, LogLevel::kWarning,
           "xDS: " + std::string(to_string(key.kind)) + " " + key.name + " cannot be compiled and stays as it was: " + reason);
    const bool mine = kind_of(update.type) == key.kind && std::any_of(update.changed.begin(), update.changed.end(),
                                                                      [&](const XdsResource& r) { return r.name == key.name; });
    if (!mine) continue;
    const std::lock_guard lock(mutex_);
    resources_.reject(update.type, key.name, reason, now_ms());
    taken.rejections.push_back({key.name, reason});
  }
  for (const std::string& name : taken.passed_over)
    say_as(Logger::kConfig, LogLevel::kWarning, "xDS: " + words(update.type, name) + " passed over: a static one has this name");
  // Endpoints come and go by the thousand: those for who asks (debug).
  if (!plane_.held_back() && changed.published)
    say_as(Logger::kConfig, update.type == XdsType::kEndpoints ? LogLevel::kDebug : LogLevel::kInfo,
           "epoch " + std::to_string(changed.epoch) + ", by xDS: " + std::string(short_name(update.type)) + " version \"" +
               update.version + "\", " + std::to_string(update.changed.size()) + " changed, " +
               std::to_string(update.removed.size()) + " gone");
  if (!changed.not_published.empty())
    say_as(Logger::kConfig, LogLevel::kError, "xDS: could not be published: " + changed.not_published);
  settle();
  wanted_may_differ();
  return std::move(taken.rejections);
}

void DynamicConfig::expired(XdsType type, std::string_view name) {
  heard();
  if (name.empty()) {
    answered_[at(type)] = true;
  } else {
    plane_.change([&](const Model& model, Warming& warming) {
      warming.given_up(type, name);
      return std::optional<Model>(model);
    });
  }
  settle();
  wanted_may_differ();
}

std::set<std::string> DynamicConfig::wanted(XdsType type) {
  std::set<std::string> names;
  plane_.change([&](const Model& model, Warming& warming) -> std::optional<Model> {
    names = warming.wanted(type);
    const std::set<std::string> gone = warming.take_unwanted(type);
    if (gone.empty()) return std::nullopt;
    const std::lock_guard lock(mutex_);
    return resources_.forget(model, type, gone);
  });
  return names;
}

std::vector<XdsFileWant> DynamicConfig::wanted_files() {
  std::vector<XdsFileWant> wanted;
  plane_.change([&](const Model& model, Warming& warming) -> std::optional<Model> {
    wanted = warming.wanted_files();
    Model left = model;
    bool any = false;
    const std::lock_guard lock(mutex_);
    for (const XdsType type : {XdsType::kEndpoints, XdsType::kRoute, XdsType::kSecret}) {
      const std::set<std::string> gone = warming.take_unwanted(type);
      if (gone.empty()) continue;
      left = resources_.forget(left, type, gone);
      any = true;
    }
    return any ? std::optional<Model>(std::move(left)) : std::nullopt;
  });
  return wanted;
}

DynamicResources::Infos DynamicConfig::infos() const {
  const std::lock_guard lock(mutex_);
  return resources_.infos();
}

std::string DynamicConfig::version(XdsType type) const {
  const std::lock_guard lock(mutex_);
  return resources_.version(type);
}

void DynamicConfig::edited() {
  settle();
  const std::lock_guard lock(hook_mutex_);
  if (wanted_changed_) wanted_changed_();
}

// What servers say may be about files, and what files say about servers.
void DynamicConfig::wanted_may_differ() {
  const uint64_t generation = plane_.wanted_generation();
  if (generation_told_.exchange(generation) == generation) return;
  const std::lock_guard lock(hook_mutex_);
  if (wanted_changed_) wanted_changed_();
}

void DynamicConfig::heard() {
  steady_clock::time_point never{};
  heard_.compare_exchange_strong(never, steady_clock::now());
}

std::optional<steady_clock::time_point> DynamicConfig::limit() const {
  if (options_.fetch_timeout.count() == 0) return std::nullopt;
  if (plane_.inherited_epoch() == 0) return started_ + options_.fetch_timeout;
  const steady_clock::time_point heard = heard_;
  if (heard == steady_clock::time_point{}) return std::nullopt;
  return heard + options_.fetch_timeout;
}

void DynamicConfig::settle() {
  if (plane_.held_back()) {
    const bool clusters = !options_.clusters || answered_[at(XdsType::kCluster)];
    const bool listeners = !options_.listeners || answered_[at(XdsType::kListener)];
    if (clusters && listeners && plane_.waiting() == 0) {
      plane_.release("management servers have said everything");
    } else if (const auto end = limit(); end && *end <= steady_clock::now()) {
      plane_.release("initial_fetch_timeout has passed");
    }
  }
  {
    const std::lock_guard lock(timer_mutex_);
    news_ = true;
  }
  timer_.notify_all();
}

// Waits that end by themselves: those of the first publication, and of objects for clusters.
void DynamicConfig::keep_time() {
  std::unique_lock lock(timer_mutex_);
  while (!stopping_) {
    news_ = false;
    lock.unlock();
    const base::TimeNs due = plane_.next_deadline(), now = monotonic_ns();
    std::optional<steady_clock::time_point> until;
    if (due != base::kNever) until = steady_clock::now() + std::chrono::nanoseconds(due > now ? due - now : 0);
    const std::optional<steady_clock::time_point> first = plane_.held_back() ? limit() : std::nullopt;
    if (due <= now) plane_.change([](const Model& model, Warming&) { return std::optional<Model>(model); });
    if (due <= now || (first && *first <= steady_clock::now())) settle();  // is news
    if (first && (!until || *first < *until)) until = first;
    // A data plane may come, or go and come back with nothing.
    if (plane_.held_back()) until = std::min(until.value_or(steady_clock::time_point::max()), steady_clock::now() + kLookAgain);
    lock.lock();
    const auto woken = [&] { return news_ || stopping_; };
    if (until) timer_.wait_until(lock, *until, woken);
    else timer_.wait(lock, woken);
  }
}

}  // namespace millrace::control
