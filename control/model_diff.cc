// What differs between two models, field by field.
#include <algorithm>

#include "control/json_text.h"
#include "control/manifests/apply.h"
#include "control/model_builder.h"
#include "control/proto_writer.h"

namespace millrace::control {

namespace {

class FieldDiff {
 public:
  explicit FieldDiff(std::vector<FieldChange>* out) : out_(out) {}

  void compare(const std::string& path, const TextValue* a, const TextValue* b) {
    if (out_->size() >= kMaxFieldChanges) return;
    if (a == nullptr || b == nullptr || a->kind != b->kind || a->kind == TextValue::Kind::kScalar) {
      const std::string before = a ? to_json(*a, false) : "", after = b ? to_json(*b, false) : "";
      if (before != after) out_->push_back({path, shown(path, a), shown(path, b)});
      return;
    }
    if (a->kind == TextValue::Kind::kMap) return maps(path, *a, *b);
    lists(path, *a, *b);
  }

 private:
  using Members = std::vector<std::pair<std::string, TextValue>>;

  // As people may see it: differences of private keys are told, the keys are not.
  static std::string shown(const std::string& path, const TextValue* v) {
    if (v == nullptr) return "";
    if (v->kind == TextValue::Kind::kScalar && path.find("private_key.inline_") != std::string::npos)
      return json_quote(kRedacted);
    TextValue copy = *v;
    redact(&copy);
    if (path.ends_with("private_key")) {
      TextValue whole;
      whole.kind = TextValue::Kind::kMap;
      whole.members.emplace_back("private_key", std::move(copy));
      redact(&whole);
      copy = std::move(whole.members[0].second);
    }
    return to_json(copy, false);
  }

  static const TextValue* member(const Members& m, const std::string& name) {
    for (const auto& [n, v] : m)
      if (n == name) return &v;
    return nullptr;
  }
  void maps(const std::string& path, const TextValue& a, const TextValue& b) {
    const std::string base = path.empty() ? "" : path + ".";
    for (const auto& [name, value] : a.members) compare(base + name, &value, member(b.members, name));
    for (const auto& [name, value] : b.members)
      if (member(a.members, name) == nullptr) compare(base + name, nullptr, &value);
  }
  // What is equal at both ends is cut off; in what is left, elements are paired when there are as many on both sides. So an
  // element that was put in or taken out shows as that, not as a change of everything behind it.
  void lists(const std::string& path, const TextValue& a, const TextValue& b) {
    const auto texts = [](const TextValue& v) {
      std::vector<std::string> out;
      for (const auto& [n, e] : v.members) out.push_back(to_json(e, false));
      return out;
    };
    const std::vector<std::string> x = texts(a), y = texts(b);
    size_t front = 0, back = 0;
    while (front < x.size() && front < y.size() && x[front] == y[front]) ++front;
    while (back < x.size() - front && back < y.size() - front && x[x.size() - 1 - back] == y[y.size() - 1 - back]) ++back;
    const size_t left = x.size() - front - back, right = y.size() - front - back;
    const auto at = [&](size_t i) { return path + "[" + std::to_string(i) + "]"; };
    for (size_t i = 0; left == right && i < left; ++i)
      compare(at(front + i), &a.members[front + i].second, &b.members[front + i].second);
    if (left == right) return;
    for (size_t i = 0; i < left; ++i) compare(at(front + i), &a.members[front + i].second, nullptr);
    for (size_t i = 0; i < right; ++i) compare(at(front + i), nullptr, &b.members[front + i].second);
  }

  std::vector<FieldChange>* out_;
};

void compare_messages(const std::string& path, const google::protobuf::Message& a, const google::protobuf::Message& b,
                      std::vector<FieldChange>* out) {
  const TextValue x = to_text_value(a), y = to_text_value(b);
  FieldDiff(out).compare(path, &x, &y);
}

void compare_routes(const RouteObject& a, const RouteObject& b, std::vector<FieldChange>* out) {
  if (a.config != b.config) compare_messages("", *a.config, *b.config, out);
  const auto path = [](size_t i) { return "virtual_hosts[" + std::to_string(i) + "]"; };
  // Hosts at the same place, as nearly all are, need not be found by name.
  const auto same_place = [&](size_t i) {
    return i < a.virtual_hosts.size() && i < b.virtual_hosts.size() &&
           (a.virtual_hosts[i] == b.virtual_hosts[i] || a.virtual_hosts[i]->name() == b.virtual_hosts[i]->name());
  };
  for (size_t i = 0; i < a.virtual_hosts.size(); ++i)
    if (!same_place(i) && b.find_virtual_host(a.virtual_hosts[i]->name()) < 0)
      out->push_back({path(i), to_json(*a.virtual_hosts[i], false, false), ""});
  for (size_t i = 0; i < b.virtual_hosts.size(); ++i) {
    if (same_place(i) && a.virtual_hosts[i] == b.virtual_hosts[i]) continue;
    const int was = same_place(i) ? static_cast<int>(i) : a.find_virtual_host(b.virtual_hosts[i]->name());
    if (was < 0) out->push_back({path(i), "", to_json(*b.virtual_hosts[i], false, false)});
    else if (a.virtual_hosts[static_cast<size_t>(was)] != b.virtual_hosts[i])
      compare_messages(path(i), *a.virtual_hosts[static_cast<size_t>(was)], *b.virtual_hosts[i], out);
  }
}

template <class T, class Compare>
void compare_tables(ConfigKind kind, const Model::Table<T>& a, const Model::Table<T>& b, Compare compare,
                    std::vector<ObjectChange>* out) {
  Model::Table<T>::differences(a, b, [&](const std::string& name, const auto& before, const auto& after) {
    if (after == nullptr) return out->push_back({{kind, name}, ObjectChange::Kind::kRemoved, {}});
    if (before == nullptr) return out->push_back({{kind, name}, ObjectChange::Kind::kAdded, {}});
    ObjectChange change{{kind, name}, ObjectChange::Kind::kChanged, {}};
    compare(*before, *after, &change.fields);
    if (!change.fields.empty()) out->push_back(std::move(change));
  });
}

}  // namespace

std::vector<ObjectChange> Model::diff(const Model& a, const Model& b) {
  std::vector<ObjectChange> out;
  compare_tables(
      ConfigKind::kSecret, a.secrets_, b.secrets_,
      [](const SecretObject& x, const SecretObject& y, std::vector<FieldChange>* f) {
        compare_messages("", *x.config, *y.config, f);
        if (f->empty() && !(static_cast<const SecretFiles&>(x) == y))
          f->push_back({x.config->has_validation_context() ? "validation_context" : "tls_certificate",
                        "\"(file content before)\"", "\"(file content now)\""});
      },
      &out);
  const auto whole = [](const auto& x, const auto& y, std::vector<FieldChange>* f) {
    compare_messages("", *x.config, *y.config, f);
  };
  compare_tables(ConfigKind::kEndpoints, a.endpoints_, b.endpoints_, whole, &out);
  compare_tables(ConfigKind::kCluster, a.clusters_, b.clusters_, whole, &out);
  compare_tables(ConfigKind::kRoute, a.routes_, b.routes_, compare_routes, &out);
  compare_tables(ConfigKind::kListener, a.listeners_, b.listeners_, whole, &out);
  compare_tables(
      ConfigKind::kManifest, a.manifests_, b.manifests_,
      [](const ManifestObject& x, const ManifestObject& y, std::vector<FieldChange>* f) {
        const TextValue before = manifests::to_text_value(*x.object), after = manifests::to_text_value(*y.object);
        FieldDiff(f).compare("", &before, &after);
      },
      &out);
  std::stable_sort(out.begin(), out.end(), [](const ObjectChange& x, const ObjectChange& y) { return x.key < y.key; });
  return out;
}

std::string to_text(const std::vector<ObjectChange>& changes) {
  std::string out;
  for (const ObjectChange& c : changes) {
    const std::string what = std::string(to_string(c.key.kind)) + " " + c.key.name;
    if (c.change == ObjectChange::Kind::kAdded) out += "+ " + what + "\n";
    if (c.change == ObjectChange::Kind::kRemoved) out += "- " + what + "\n";
    for (const FieldChange& f : c.fields) {
      if (f.before.empty()) out += "~ " + what + ": + " + f.path + ": " + f.after + "\n";
      else if (f.after.empty()) out += "~ " + what + ": - " + f.path + ": " + f.before + "\n";
      else out += "~ " + what + ": " + f.path + ": " + f.before + " -> " + f.after + "\n";
    }
    if (c.fields.size() >= kMaxFieldChanges) out += "~ " + what + ": more changes are not shown\n";
  }
  return out;
}

std::string to_json(const std::vector<ObjectChange>& changes) {
  static constexpr const char* kWords[] = {"added", "removed", "changed"};
  std::string out = "[";
  for (const ObjectChange& c : changes) {
    if (out.size() > 1) out += ", ";
    out += "{\"kind\": " + json_quote(to_string(c.key.kind)) + ", \"name\": " + json_quote(c.key.name) + ", \"change\": \"" +
           kWords[static_cast<size_t>(c.change)] + "\", \"fields\": [";
    for (size_t i = 0; i < c.fields.size(); ++i) {
      const FieldChange& f = c.fields[i];
      out += std::string(i > 0 ? ", " : "") + "{\"path\": " + json_quote(f.path) +
             ", \"before\": " + (f.before.empty() ? "null" : f.before) + ", \"after\": " + (f.after.empty() ? "null" : f.after) +
             "}";
    }
    out += "]}";
  }
  return out + "]";
}

}  // namespace millrace::control
