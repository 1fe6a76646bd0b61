#include "control/manifests/apply.h"

#include <set>

namespace millrace::control::manifests {

Objects objects_of(const Model& model) {
  Objects out;
  for (const auto& [name, m] : model.manifests()) out.emplace(name, m->object);
  return out;
}

namespace {

LoadedObject stored(const Object& object) {
  auto message = std::make_shared<manifest::v1::Manifest>();
  message->set_name(object.key());
  message->set_json(to_json(object.root));
  LoadedObject out;
  out.kind = ConfigKind::kManifest;
  out.message = std::move(message);
  return out;
}

TextValue text_of(const Value& v) {
  TextValue out;
  if (v.kind == Value::Kind::kMap) out.kind = TextValue::Kind::kMap;
  if (v.kind == Value::Kind::kList) out.kind = TextValue::Kind::kList;
  if (v.kind == Value::Kind::kNull) out.text = "null";
  if (v.kind == Value::Kind::kScalar) {
    const std::string json = to_json(v);
    out.quoted = json.starts_with('"');
    out.text = v.text;
  }
  for (const auto& [name, member] : v.members) out.members.emplace_back(name, text_of(member));
  return out;
}

}  // namespace

ModelEdit edit(const Model& model, const std::vector<std::shared_ptr<const Object>>& put, const std::vector<std::string>& removed,
               bool replace, int64_t now_unix, std::vector<ObjectStatus>* status) {
  const Objects before = objects_of(model);
  Objects after = replace ? Objects() : before;
  for (const auto& o : put) after[o->key()] = o;
  for (const std::string& key : removed) after.erase(key);

  Translation made = translate(after, now_unix);
  std::set<ConfigKey> names;
  for (const LoadedObject& o : made.objects) {
    const auto* name = o.message->GetDescriptor()->FindFieldByName("name");
    names.insert({o.kind, o.message->GetReflection()->GetString(*o.message, name)});
  }
  if (status != nullptr) *status = std::move(made.status);
  for (const auto& o : put) made.objects.push_back(stored(*o));
  ModelEdit out = model.apply(made.objects);
  // What refers goes before what it refers to.
  std::vector<ConfigKey> gone;
  for (const ConfigKind kind : {ConfigKind::kListener, ConfigKind::kCluster})
    for (const std::string& name : out.model.names(kind))
      if (name.starts_with(kPrefix) && !names.contains({kind, name})) gone.push_back({kind, name});
  for (const auto& [key, object] : before)
    if (!after.contains(key)) gone.push_back({ConfigKind::kManifest, key});
  for (const ConfigKey& key : gone) {
    if (!out.errors.empty()) return out;
    out = out.model.erase(key);
  }
  return out;
}

TextValue to_text_value(const Object& object, const std::vector<ObjectStatus>* status) {
  TextValue out = text_of(redacted(object));
  if (status == nullptr) return out;
  std::erase_if(out.members, [](const auto& m) { return m.first == "status"; });
  TextValue list;
  list.kind = TextValue::Kind::kList;
  for (const ObjectStatus& s : *status) {
    if (s.key != object.key()) continue;
    for (const Condition& c : s.conditions) {
      TextValue one;
      one.kind = TextValue::Kind::kMap;
      for (const auto& [name, text] : {std::pair("of", &s.about), std::pair("type", &c.type), std::pair("status", &c.status),
                                       std::pair("reason", &c.reason), std::pair("message", &c.message)})
        if (!text->empty())
          one.members.emplace_back(name, text_of({.kind = Value::Kind::kScalar, .quoted = true, .text = *text}));
      list.members.emplace_back("", std::move(one));
    }
  }
  if (list.members.empty()) return out;
  TextValue conditions;
  conditions.kind = TextValue::Kind::kMap;
  conditions.members.emplace_back("conditions", std::move(list));
  out.members.emplace_back("status", std::move(conditions));
  return out;
}

std::string summary(const std::vector<ObjectStatus>& status, const std::string& key) {
  std::string good, bad;
  for (const ObjectStatus& s : status) {
    if (s.key != key) continue;
    for (const Condition& c : s.conditions) {
      const bool fine = c.type == "Conflicted" ? c.status == "False" : c.status == "True";
      if (!fine) bad += (bad.empty() ? "" : ", ") + c.type + "=" + c.status + " (" + c.reason + ")";
      else if (c.type != "Conflicted" && good.find(c.type) == std::string::npos) good += (good.empty() ? "" : ", ") + c.type;
    }
  }
  return bad.empty() ? (good.empty() ? "-" : good) : bad;
}

}  // namespace millrace::control::manifests
