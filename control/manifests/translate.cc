#include "control/manifests/translate.h"

#include <algorithm>

#include "control/manifests/build.h"

namespace millrace::control::manifests {

Translation translate(const Objects& objects, int64_t now_unix) { return Builder(objects, now_unix).run(); }

Translation Builder::run() {
  classes();
  gateways();
  conflicts();
  routes();
  ingresses();
  service_status();
  finish_gateways();
  output();
  std::stable_sort(out_.status.begin(), out_.status.end(),
                   [](const ObjectStatus& a, const ObjectStatus& b) { return a.key < b.key; });
  return std::move(out_);
}

std::shared_ptr<const Object> Builder::find(const std::string& kind, const std::string& ns, const std::string& name) const {
  const auto it = objects_.find(kind + "/" + (ns.empty() ? "" : ns + "/") + name);
  return it == objects_.end() ? nullptr : it->second;
}

std::vector<std::shared_ptr<const Object>> Builder::all(const std::string& kind) const {
  std::vector<std::shared_ptr<const Object>> out;
  for (auto it = objects_.lower_bound(kind + "/"); it != objects_.end() && it->second->kind == kind; ++it)
    out.push_back(it->second);
  return out;
}

std::optional<std::string> intersection(const std::string& a, const std::string& b) {
  if (a.empty() || a == "*" || a == b) return b.empty() ? "*" : b;
  if (b.empty() || b == "*") return a;
  const auto covers = [](const std::string& wild, const std::string& host) {
    const std::string_view suffix = std::string_view(wild).substr(1);
    return wild.starts_with("*.") && host.size() > suffix.size() && host.ends_with(suffix);
  };
  if (covers(a, b)) return b;
  if (covers(b, a)) return a;
  return std::nullopt;
}

std::string unsupported_text(const Object& object) {
  std::string out;
  for (const Unsupported& u : object.unsupported)
    out += (out.empty() ? "" : ", ") + u.path + " (line " + std::to_string(u.line) + ")";
  return out.empty() ? "" : "not supported by Millrace: " + out;
}

}  // namespace millrace::control::manifests
