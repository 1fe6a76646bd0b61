#include "control/dynamic_resources.h"

#include "control/model_builder.h"
#include "control/validate.h"

namespace millrace::control {

namespace {

struct TypeOf {
  ConfigKind kind;
  bool by_name;
};
TypeOf type_of(XdsType type) {
  switch (type) {
    case XdsType::kCluster:
      return {ConfigKind::kCluster, false};
    case XdsType::kEndpoints:
      return {ConfigKind::kEndpoints, true};
    case XdsType::kListener:
      return {ConfigKind::kListener, false};
    case XdsType::kRoute:
      return {ConfigKind::kRoute, true};
    case XdsType::kSecret:
      return {ConfigKind::kSecret, true};
  }
  return {};
}

// "path: message" of each, without the words that say which object it is.
std::string reason_of(const ConfigErrors& errors, const std::string& object) {
  std::string out;
  for (const ConfigError& e : errors) {
    std::string path = e.path;
    if (path == object) path.clear();
    else if (path.starts_with(object + ": ")) path.erase(0, object.size() + 2);
    out += (out.empty() ? "" : "; ") + path + (path.empty() ? "" : ": ") + e.message;
  }
  return out;
}

std::string object_words(ConfigKind kind, const std::string& name) { return std::string(to_string(kind)) + " " + name; }

std::shared_ptr<google::protobuf::Message> new_message(ConfigKind kind) {
  return std::shared_ptr<google::protobuf::Message>(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(descriptor_of(kind))->New());
}

std::string name_of(const google::protobuf::Message& m, ConfigKind kind) {
  const auto* f = m.GetDescriptor()->FindFieldByName(kind == ConfigKind::kEndpoints ? "cluster_name" : "name");
  return m.GetReflection()->GetString(m, f);
}

}  // namespace

// One update on its way into the model.
class DynamicResources::Batch {
 public:
  Batch(DynamicResources& resources, const Model& before, const XdsUpdate& update, int64_t now_ms)
      : resources_(resources), before_(before), update_(update), now_ms_(now_ms), type_(type_of(update.type)), builder_(before) {}

  Outcome run() {
    for (const std::string& name : update_.removed) remove(name);
    for (const XdsResource& r : update_.changed) take(r);
    builder_.put(objects_);
    builder_.check_references();
    for (const auto& [key, errors] : builder_.blamed())
      if (key.kind == type_.kind) refuse(key.name, reason_of(errors, object_words(key.kind, key.name)));
    for (const auto& [name, version] : taken_)
      if (!refused_.contains(name)) accept(name, version);
    out_.model = builder_.finish().model;
    return std::move(out_);
  }

 private:
  void remove(const std::string& name) {
    const ConfigKey key{type_.kind, name};
    if (type_.by_name) {
      out_.gone.push_back(name);
    } else if (before_.has(key) && before_.is_dynamic(key)) {
      builder_.erase(key);
      resources_.infos_.erase({update_.type, name});
    } else {
      resources_.infos_.erase({update_.type, name});
    }
  }
  void take(const XdsResource& r) {
    const std::string& version = r.version.empty() ? update_.version : r.version;
    if (!r.bad.empty()) return refuse(r.name, r.bad);
    std::shared_ptr<google::protobuf::Message> message = new_message(type_.kind);
    if (!message->ParseFromString(r.body))
      return refuse(r.name, "is no " + message->GetDescriptor()->full_name() + ": its bytes cannot be read");
    if (const std::string name = name_of(*message, type_.kind); name != r.name)
      return refuse(r.name, (type_.kind == ConfigKind::kEndpoints ? "cluster_name" : "name") + std::string(": is \"") + name +
                                "\", and it was sent as \"" + r.name + "\"");
    const ConfigKey key{type_.kind, r.name};
    if (!type_.by_name && before_.has(key) && !before_.is_dynamic(key)) return out_.passed_over.push_back(r.name);
    taken_.emplace_back(r.name, version);
    if (type_.kind == ConfigKind::kEndpoints) return assign(r.name, std::move(message));
    objects_.push_back({type_.kind, std::move(message), nullptr, false, true});
  }
  void assign(const std::string& name, std::shared_ptr<google::protobuf::Message> message) {
    auto config = std::static_pointer_cast<api::ClusterLoadAssignment>(std::move(message));
    ConfigErrors errors;
    ErrorSink sink(nullptr, object_words(type_.kind, name), &errors);
    if (!validate_load_assignment(*config, Path(), sink, false))
      return refuse(name, reason_of(errors, object_words(type_.kind, name)));
    const auto old = before_.assignments().find(name);
    if (old != before_.assignments().end() && same_bytes(*old->second->config, *config)) return;
    builder_.set_assignment(std::make_shared<const EndpointsObject>(EndpointsObject{name, std::move(config), nullptr, true}));
  }
  void refuse(const std::string& name, std::string reason) {
    refused_.insert(name);
    resources_.reject(update_.type, name, reason, now_ms_);
    out_.rejections.push_back({name, std::move(reason)});
  }
  void accept(const std::string& name, const std::string& version) {
    Info& info = resources_.infos_[{update_.type, name}];
    info = {version, now_ms_, "", "", 0};
  }

  DynamicResources& resources_;
  const Model& before_;
  const XdsUpdate& update_;
  const int64_t now_ms_;
  const TypeOf type_;
  ModelBuilder builder_;
  std::vector<LoadedObject> objects_;
  std::vector<std::pair<std::string, std::string>> taken_;  // names and versions
  std::set<std::string> refused_;
  Outcome out_;
};

DynamicResources::Outcome DynamicResources::apply(const Model& model, const XdsUpdate& update, int64_t now_ms) {
  versions_[static_cast<size_t>(update.type)] = update.version;
  return Batch(*this, model, update, now_ms).run();
}

void DynamicResources::reject(XdsType type, const std::string& name, std::string reason, int64_t now_ms) {
  Info& info = infos_[{type, name}];
  info.error = std::move(reason);
  info.error_version = versions_[static_cast<size_t>(type)];
  info.error_ms = now_ms;
}

Model DynamicResources::forget(const Model& model, XdsType type, const std::set<std::string>& names) {
  ModelBuilder b(model);
  const ConfigKind kind = type_of(type).kind;
  for (const std::string& name : names) {
    infos_.erase({type, name});
    const ConfigKey key{kind, name};
    if (kind == ConfigKind::kEndpoints) {
      if (model.assignments().contains(name)) b.erase_assignment(name);
    } else if (model.is_dynamic(key) && model.owner(key) == key) {
      b.erase(key);
    }
  }
  return b.finish().model;
}

}  // namespace millrace::control
