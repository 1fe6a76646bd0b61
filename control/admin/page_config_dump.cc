// /config_dump: the objects in force, as Envoy's ConfigDump of admin.v3. Private keys are never in it.
#include <re2/re2.h>

#include "control/admin/json.h"
#include "control/admin/pages.h"

namespace millrace::control::admin {

namespace {

struct Section {
  const char* resource;  // ?resource=
  const char* dump;      // the message
  const char* element;   // the message of an element in it
  ConfigKind kind;
  const char* member;  // of an element
  bool eds;            // only with ?include_eds
};
constexpr Section kSections[] = {
    {"static_clusters", "ClustersConfigDump", "StaticCluster", ConfigKind::kCluster, "cluster", false},
    {"static_endpoint_configs", "EndpointsConfigDump", "StaticEndpointConfig", ConfigKind::kEndpoints, "endpoint_config", true},
    {"static_listeners", "ListenersConfigDump", "StaticListener", ConfigKind::kListener, "listener", false},
    {"static_route_configs", "RoutesConfigDump", "StaticRouteConfig", ConfigKind::kRoute, "route_config", false},
    {"static_secrets", "SecretsConfigDump", "StaticSecret", ConfigKind::kSecret, "secret", false},
};

const std::string kPackage = "type.googleapis.com/envoy.admin.v3.";

}  // namespace

Reply Pages::config_dump(const Request& r) const {
  if (r.query.contains("mask")) return bad_request("?mask= is not supported; ask for ?resource= and choose fields there");
  const auto asked = r.query.find("resource"), pattern = r.query.find("name_regex");
  re2::RE2::Options quiet;
  quiet.set_log_errors(false);
  const re2::RE2 regex(pattern == r.query.end() ? "" : pattern->second, quiet);
  if (!regex.ok()) return bad_request("Error while parsing name_regex from \"" + pattern->second + "\": " + regex.error());
  const bool some = asked != r.query.end();
  const auto model = s_.model();
  TextValue configs = list();
  bool known = false;
  for (const Section& s : kSections) {
    if (some ? asked->second != s.resource : s.eds && !r.query.contains("include_eds")) continue;
    known = true;
    TextValue elements = list();
    for (const std::string& name : model->names(s.kind)) {
      if (pattern != r.query.end() && !re2::RE2::PartialMatch(name, regex)) continue;
      const auto message = model->message({s.kind, name});
      if (message == nullptr) continue;
      TextValue object = to_text_value(*message, true);
      redact(&object);
      TextValue element = map();
      if (s.kind == ConfigKind::kSecret) put(element, "name", text(name));
      put(element, s.member, std::move(object));
      if (some) element.members.insert(element.members.begin(), {"@type", text(kPackage + s.dump + "." + s.element)});
      append(some ? configs : elements, std::move(element));
    }
    if (!some) append(configs, map({{"@type", text(kPackage + s.dump)}, {s.resource, elements}}));
  }
  if (!known) {
    std::string all;
    for (const Section& s : kSections) all += std::string(all.empty() ? "" : ", ") + s.resource;
    return {404, "text/plain; charset=UTF-8", "no resource \"" + asked->second + "\"; there are " + all + "\n"};
  }
  return {200, "application/json", to_json(map({{"configs", configs}}), true) + "\n"};
}

}  // namespace millrace::control::admin
