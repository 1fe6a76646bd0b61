// /config_dump: what was accepted, static and dynamic, as Envoy's ConfigDump of admin.v3. Private keys are never in it.
#include <algorithm>
#include <ctime>

#include "control/admin/field_mask.h"
#include "control/admin/json.h"
#include "control/admin/query.h"

namespace millrace::control::admin {

namespace {

// A message of the dump and its lists.
struct Part {
  const char* dump;  // the message
  ConfigKind kind;
  XdsType type;
  const char* member;  // of an element: the object
  const char *fixed, *fixed_element, *dynamic, *dynamic_element;
  const char* warming;  // "": they are with the dynamic ones
  bool eds;             // only with ?include_eds
};
constexpr Part kParts[] = {
    {"ClustersConfigDump", ConfigKind::kCluster, XdsType::kCluster, "cluster", "static_clusters", "StaticCluster",
     "dynamic_active_clusters", "DynamicCluster", "dynamic_warming_clusters", false},
    {"EndpointsConfigDump", ConfigKind::kEndpoints, XdsType::kEndpoints, "endpoint_config", "static_endpoint_configs",
     "StaticEndpointConfig", "dynamic_endpoint_configs", "DynamicEndpointConfig", "", true},
    {"ListenersConfigDump", ConfigKind::kListener, XdsType::kListener, "listener", "static_listeners", "StaticListener",
     "dynamic_listeners", "DynamicListener", "", false},
    {"RoutesConfigDump", ConfigKind::kRoute, XdsType::kRoute, "route_config", "static_route_configs", "StaticRouteConfig",
     "dynamic_route_configs", "DynamicRouteConfig", "", false},
    {"SecretsConfigDump", ConfigKind::kSecret, XdsType::kSecret, "secret", "static_secrets", "StaticSecret",
     "dynamic_active_secrets", "DynamicSecret", "", false},
};

const std::string kPackage = "type.googleapis.com/envoy.admin.v3.";

std::string timestamp(int64_t ms) {
  const std::time_t seconds = ms / 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32], out[48];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(out, sizeof out, "%s.%03dZ", text, static_cast<int>(ms % 1000));
  return out;
}

TextValue object_of(const google::protobuf::Message& message) {
  TextValue object = to_text_value(message, true);
  redact(&object);
  return object;
}

// The lists of one part, filled object by object.
class PartLists {
 public:
  PartLists(const Part& part, const Model& accepted, const DynamicView& view, const re2::RE2* only)
      : part_(part), accepted_(accepted), view_(view), only_(only) {}

  void fill() {
    if (part_.kind == ConfigKind::kEndpoints) return endpoints();
    for (const std::string& name : accepted_.names(part_.kind)) {
      // A route configuration that is written in a listener is static, whoever wrote it; of certificates likewise.
      const ConfigKey key{part_.kind, name};
      if (accepted_.is_dynamic(key) && accepted_.owner(key) == key) dynamic(name);
      else fixed(name);
    }
    // What was refused and was never there, and clusters and listeners that are about to go.
    for (const auto& [key, info] : view_.infos)
      if (key.first == part_.type && !accepted_.has({part_.kind, key.second}) && !info.error.empty()) dynamic(key.second);
  }
  TextValue fixed_ = list(), dynamic_ = list(), warming_ = list();

 private:
  bool wanted(const std::string& name) const { return only_ == nullptr || re2::RE2::FullMatch(name, *only_); }
  const DynamicResources::Info* info(const std::string& name) const {
    const auto it = view_.infos.find({part_.type, name});
    return it == view_.infos.end() ? nullptr : &it->second;
  }
  void fixed(const std::string& name) {
    const auto message = wanted(name) ? accepted_.message({part_.kind, name}) : nullptr;
    if (message == nullptr) return;
    TextValue element = map();
    if (part_.kind == ConfigKind::kSecret) put(element, "name", text(name));
    put(element, part_.member, object_of(*message));
    append(fixed_, std::move(element));
  }
  // version_info, the object, last_updated.
  TextValue state(const Model& model, const std::string& name, bool newest) const {
    TextValue out = map();
    const auto* known = info(name);
    if (part_.kind == ConfigKind::kSecret) put(out, "name", text(name));
    if (newest && known != nullptr && !known->version.empty()) put(out, "version_info", text(known->version));
    if (const auto message = model.message({part_.kind, name})) put(out, part_.member, object_of(*message));
    if (newest && known != nullptr && known->updated_ms != 0) put(out, "last_updated", text(timestamp(known->updated_ms)));
    return out;
  }
  void add_error(TextValue& to, const std::string& name) const {
    const auto* known = info(name);
    if (known == nullptr || known->error.empty()) return;
    put(to, "error_state",
        map({{"last_update_attempt", text(timestamp(known->error_ms))},
             {"details", text(known->error)},
             {"version_info", text(known->error_version)}}));
  }
  void dynamic(const std::string& name) {
    if (!wanted(name)) return;
    const ConfigKey key{part_.kind, name};
    const bool there = accepted_.has(key), waits = there && view_.waiting.contains(key);
    const bool in_force = view_.in_force != nullptr && view_.in_force->has(key);
    if (part_.kind == ConfigKind::kListener) {
      TextValue element = map({{"name", text(name)}});
      if (there && !waits) put(element, "active_state", state(accepted_, name, true));
      if (waits && in_force) put(element, "active_state", state(*view_.in_force, name, false));
      if (waits) put(element, "warming_state", state(accepted_, name, true));
      add_error(element, name);
      return append(dynamic_, std::move(element));
    }
    TextValue element = there ? state(accepted_, name, true) : map();
    add_error(element, name);
    if (waits && part_.warming[0] != 0) {
      append(warming_, std::move(element));
      if (in_force) append(dynamic_, state(*view_.in_force, name, false));
      return;
    }
    append(dynamic_, std::move(element));
  }
  void endpoints() {
    for (const auto& [name, cluster] : accepted_.clusters())
      if (cluster->eds_service.empty()) fixed(name);
    for (const auto& [name, assignment] : accepted_.assignments()) {
      if (!wanted(name)) continue;
      TextValue element = map();
      const auto* known = info(name);
      if (known != nullptr) put(element, "version_info", text(known->version));
      put(element, part_.member, object_of(*assignment->config));
      if (known != nullptr) put(element, "last_updated", text(timestamp(known->updated_ms)));
      add_error(element, name);
      append(dynamic_, std::move(element));
    }
  }

  const Part& part_;
  const Model& accepted_;
  const DynamicView& view_;
  const re2::RE2* const only_;
};

// Envoy's trimResourceMessage(): the object in an element is an Any, whose fields are named behind it; what else there is are
// plain fields.
bool is_mask_of_element(const Part& part, size_t list, const std::vector<FieldPath>& mask) {
  const bool states = part.kind == ConfigKind::kListener && list != 0;
  return std::all_of(mask.begin(), mask.end(), [&](const FieldPath& path) {
    if (!states && path[0] == part.member) return names_field(descriptor_of(part.kind), path, 1);
    const auto one_of = [](std::string_view name, std::initializer_list<std::string_view> names) {
      return std::find(names.begin(), names.end(), name) != names.end();
    };
    if (one_of(path[0], {"error_state"}) && path.size() == 2)
      return one_of(path[1], {"failed_configuration", "last_update_attempt", "details", "version_info"});
    if (states && one_of(path[0], {"active_state", "warming_state", "draining_state"}) && path.size() == 2)
      return one_of(path[1], {"version_info", part.member, "last_updated"});
    if (path.size() != 1) return false;
    if (states)
      return one_of(path[0], {"name", "active_state", "warming_state", "draining_state", "error_state", "client_status"});
    return one_of(path[0], {"version_info", "last_updated", "error_state", "client_status"}) ||
           (part.kind == ConfigKind::kSecret && path[0] == "name");
  });
}

}  // namespace

Reply Pages::config_dump(const Request& r) const {
  const auto asked = r.query.find("resource"), pattern = r.query.find("name_regex");
  re2::RE2::Options quiet;
  quiet.set_log_errors(false);
  const re2::RE2 regex(pattern == r.query.end() ? "" : pattern->second, quiet);
  if (!regex.ok()) return bad_request("Error while parsing name_regex from \"" + pattern->second + "\": " + regex.error());
  const std::string mask_text = value_of(r, "mask");
  const std::vector<FieldPath> mask = parse_mask(mask_text);
  const bool some = asked != r.query.end();
  const auto model = s_.model();
  const DynamicView view = s_.dynamic ? s_.dynamic() : DynamicView{};
  TextValue configs = list();
  bool known = false;
  std::string all;
  for (const Part& p : kParts) {
    const std::string names[] = {p.fixed, p.dynamic, p.warming};
    bool mine = !some;
    for (const std::string& n : names) {
      if (n.empty()) continue;
      all += (all.empty() ? "" : ", ") + n;
      mine = mine || asked->second == n;
    }
    if (!mine) continue;
    known = true;
    if (!some && p.eds && !r.query.contains("include_eds")) continue;
    PartLists lists(p, *model, view, pattern == r.query.end() ? nullptr : &regex);
    lists.fill();
    TextValue* const filled[] = {&lists.fixed_, &lists.dynamic_, &lists.warming_};
    if (!some) {
      // A mask that does not fit this dump may fit another.
      const auto fits = [&](const FieldPath& path) {
        return path.size() == 1 && (path[0] == "version_info" || std::find(names, std::end(names), path[0]) != std::end(names));
      };
      if (!std::all_of(mask.begin(), mask.end(), fits)) continue;
      TextValue dump = map({{"@type", text(kPackage + p.dump)}});
      const std::string& version = view.versions[static_cast<size_t>(p.type)];
      const bool whole = p.type == XdsType::kCluster || p.type == XdsType::kListener;
      if (whole && !version.empty()) put(dump, "version_info", text(version));
      for (size_t i = 0; i < std::size(names); ++i)
        if (i == 0 || !filled[i]->members.empty()) put(dump, names[i], std::move(*filled[i]));
      if (!mask.empty()) trim(&dump, mask);
      append(configs, std::move(dump));
      continue;
    }
    for (size_t i = 0; i < std::size(names); ++i) {
      if (asked->second != names[i]) continue;
      if (!mask.empty() && !is_mask_of_element(p, i, mask))
        return bad_request("FieldMask paths: \"" + mask_text + "\" could not be successfully used.");
      const std::string type = kPackage + p.dump + "." + (i == 0 ? p.fixed_element : p.dynamic_element);
      for (auto& [none, element] : filled[i]->members) {
        if (!mask.empty()) trim(&element, mask);
        element.members.insert(element.members.begin(), {"@type", text(type)});
        append(configs, std::move(element));
      }
    }
  }
  if (!some && !mask.empty() && configs.members.empty())
    return bad_request("FieldMask " + mask_text + " could not be successfully applied to any configs.");
  if (!known) return {404, "text/plain; charset=UTF-8", "no resource \"" + asked->second + "\"; there are " + all + "\n"};
  return {200, "application/json", to_json(map({{"configs", configs}}), true) + "\n"};
}

}  // namespace millrace::control::admin
