// Pages about the process itself: its loggers, what it waits for, and what Envoy has and Millrace has not, which says so.
#include <optional>
#include <vector>

#include "control/admin/json.h"
#include "control/admin/query.h"
#include "control/log_book.h"

namespace millrace::control::admin {

namespace {

struct LevelChange {
  std::optional<Logger> logger;  // nullopt: every one
  LogLevel level;
};

// Envoy's LogsHandler: the first mistake is what is said, and then nothing is changed. Empty changes: it was only asked.
std::string read_changes(const Request& r, std::vector<LevelChange>* changes) {
  if (r.query.size() > 1) return "invalid number of parameters";
  if (r.query.empty()) return "";
  const auto& [key, value] = *r.query.begin();
  if (key == "group") return "group parameter requires fine-grain logging to be enabled";
  if ((key == "level" || key == "paths") && value.empty()) return "";
  const auto add = [&](std::string_view name, std::string_view level_name) -> std::string {
    if (name.empty() || level_name.empty()) return "empty logger name or empty logger level";
    const auto level = log_level(level_name);
    if (!level) return "unknown logger level";
    const auto which = logger(name);
    if (!which) return "unknown logger name";
    changes->push_back({which, *level});
    return "";
  };
  if (key == "level") {
    const auto level = log_level(value);
    if (!level) return "unknown logger level";
    changes->push_back({std::nullopt, *level});
    return "";
  }
  if (key != "paths") return add(key, value);
  for (std::string_view rest = value; !rest.empty();) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view one = rest.substr(0, comma);
    const size_t colon = std::min(one.find(':'), one.size());
    if (std::string error = add(one.substr(0, colon), colon < one.size() ? one.substr(colon + 1) : ""); !error.empty())
      return error;
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return "";
}

}  // namespace

Reply Pages::logging(const Request& r) const {
  std::vector<LevelChange> changes;
  Reply out;
  LogBook& book = log_book();
  if (const std::string error = read_changes(r, &changes); !error.empty()) {
    out.status = 400;
    out.body = "error: " + error +
               "\n\nusage: /logging?<name>=<level> (change single level)\n"
               "usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n"
               "usage: /logging?level=<level> (change all levels)\n"
               "levels: trace debug info warning error critical off\n";
  } else {
    for (const LevelChange& c : changes) {
      if (c.logger) book.set_level(*c.logger, c.level);
      else book.set_every_level(c.level);
    }
  }
  out.body += "active loggers:\n";
  for (size_t i = 0; i < static_cast<size_t>(Logger::kCount); ++i)
    (((out.body += "  ") += to_string(static_cast<Logger>(i))) += ": ") +=
        std::string(to_string(book.level(static_cast<Logger>(i)))) + "\n";
  return out;
}

// What Envoy answers where it was built without. Profilers of the system see both processes: perf(1), heaptrack(1).
Reply Pages::profiler(const Request& r) const {
  const std::string enable = value_of(r, "enable");
  if (r.path == "/heapprofiler") return {501, kPlain, "The current build does not support heap profiler"};
  if (r.path == "/heap_dump" || r.path == "/peak_heap_dump") return {501, kPlain, "Heap dump is not supported in current build"};
  if (enable != "y" && enable != "n") return bad_request("?enable=<y|n>");
  if (r.path == "/allocprofiler") return {501, kPlain, "The current build does not support allocation profiler"};
  if (enable == "y") return {500, kPlain, "failure to start the profiler: this build has none"};
  return {200, kPlain, "OK\n"};
}

Reply Pages::runtime_modify(const Request& r) const {
  if (r.query.empty())
    return bad_request(
        "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\nuse an empty value to remove a previously added override");
  return {503, kPlain, "No admin layer specified"};  // layered_runtime is refused when the configuration is read
}

// admin.v3.UnreadyTargetsDumps. The one list there is: objects that were accepted and wait for others (control/warming.h).
Reply Pages::init_dump(const Request& r) const {
  const std::string mask = value_of(r, "mask");
  TextValue waiting = list(), dumps = list();
  const DynamicView view = s_.dynamic ? s_.dynamic() : DynamicView{};
  for (const ConfigKey& key : view.waiting)
    if (mask.empty() || mask == to_string(key.kind)) append(waiting, text(std::string(to_string(key.kind)) + " " + key.name));
  if (!waiting.members.empty()) append(dumps, map({{"name", text("init manager Server")}, {"target_names", waiting}}));
  const TextValue whole = dumps.members.empty() ? map() : map({{"unready_targets_dumps", dumps}});
  return {200, "application/json", to_json(whole, true) + "\n"};
}

}  // namespace millrace::control::admin
