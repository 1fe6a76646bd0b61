#include "control/dynamic_resources.h"

#include <algorithm>
#include <optional>
#include <set>
#include <unordered_map>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include "control/foreign_filters.h"
#include "control/model_builder.h"
#include "control/proto_values.h"
#include "control/validate.h"
#include "lib/base/ip_address.h"

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

// The bytes of a RouteConfiguration: its virtual hosts, and everything else. False: they are no message.
bool split_hosts(std::string_view bytes, std::vector<std::string_view>* hosts, std::string* rest) {
  using google::protobuf::internal::WireFormatLite;
  google::protobuf::io::CodedInputStream in(reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int>(bytes.size()));
  constexpr uint32_t kHost = api::RouteConfiguration::kVirtualHostsFieldNumber << 3 | 2;
  for (;;) {
    const int start = in.CurrentPosition();
    const uint32_t tag = in.ReadTag();
    if (tag == 0) return in.ConsumedEntireMessage();
    if (tag == kHost) {
      uint32_t size = 0;
      if (!in.ReadVarint32(&size)) return false;
      const int at = in.CurrentPosition();
      if (size > bytes.size() || !in.Skip(static_cast<int>(size))) return false;
      hosts->push_back(bytes.substr(static_cast<size_t>(at), size));
    } else {
      if (!WireFormatLite::SkipField(&in, tag)) return false;
      rest->append(bytes.substr(static_cast<size_t>(start), static_cast<size_t>(in.CurrentPosition() - start)));
    }
  }
}

// An endpoint that is there twice counts once, as in Envoy: what is edited by hand may name it once only, a server need not care.
void drop_repeated(api::ClusterLoadAssignment* a) {
  std::set<std::pair<std::string, uint32_t>> seen;
  for (auto& locality : *a->mutable_endpoints()) {
    auto* list = locality.mutable_lb_endpoints();
    for (int i = 0; i < list->size();) {
      const auto& socket = list->Get(i).endpoint().address().socket_address();
      const auto ip = base::IpAddress::parse(socket.address());
      if (!ip || seen.emplace(ip->to_string(), socket.port_value()).second) ++i;
      else list->DeleteSubrange(i, 1);
    }
  }
}

bool same_domains(const api::VirtualHost& a, const api::VirtualHost& b) {
  return a.name() == b.name() && std::equal(a.domains().begin(), a.domains().end(), b.domains().begin(), b.domains().end());
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
    for (const XdsResource& r : update_.changed) {
      if (update_.type != XdsType::kRoute || refused_.contains(r.name)) continue;
      if (const auto object = out_.model.routes().find(r.name); object != out_.model.routes().end())
        resources_.route_bodies_[r.name] = {r.body, object->second};
    }
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
    if (update_.type == XdsType::kRoute && take_hosts(r)) return taken_.emplace_back(r.name, version), void();
    std::shared_ptr<google::protobuf::Message> message = new_message(type_.kind);
    if (!message->ParseFromString(r.body))
      return refuse(r.name, "is no " + message->GetDescriptor()->full_name() + ": its bytes cannot be read");
    if (const std::string name = name_of(*message, type_.kind); name != r.name)
      return refuse(r.name, (type_.kind == ConfigKind::kEndpoints ? "cluster_name" : "name") + std::string(": is \"") + name +
                                "\", and it was sent as \"" + r.name + "\"");
    const ConfigKey key{type_.kind, r.name};
    if (!type_.by_name && before_.has(key) && !before_.is_dynamic(key)) return out_.passed_over.push_back(r.name);
    taken_.emplace_back(r.name, version);
    if (type_.kind == ConfigKind::kListener) take_out_harmless_filters(static_cast<api::Listener*>(message.get()));
    if (type_.kind == ConfigKind::kEndpoints) return assign(r.name, std::move(message));
    objects_.push_back({type_.kind, std::move(message), nullptr, false, true});
  }
  // A route configuration of which some virtual hosts have changed, and not what they are called. False: it is to be looked at as
  // a whole, also because something in it is wrong.
  bool take_hosts(const XdsResource& r) {
    const auto last = resources_.route_bodies_.find(r.name);
    const auto there = before_.routes().find(r.name);
    if (last == resources_.route_bodies_.end() || there == before_.routes().end() || last->second.object != there->second)
      return false;
    const RouteObject& old = *there->second;
    if (old.config->validate_clusters().value()) return false;
    std::vector<std::string_view> was, is;
    std::string other_was, other_is;
    if (!split_hosts(last->second.bytes, &was, &other_was) || !split_hosts(r.body, &is, &other_is)) return false;
    if (was.size() != old.virtual_hosts.size() || other_was != other_is) return false;
    // Nearly all are where they were; others are found by their bytes.
    std::unordered_map<std::string_view, size_t> elsewhere;
    if (was.size() != is.size())
      for (size_t i = 0; i < was.size(); ++i) elsewhere.emplace(was[i], i);
    std::vector<std::shared_ptr<const api::VirtualHost>> hosts;
    hosts.reserve(is.size());
    bool same_names = was.size() == is.size();
    for (size_t i = 0; i < is.size(); ++i) {
      size_t at = i;
      if (i >= was.size() || was[i] != is[i]) {
        const auto found = elsewhere.find(is[i]);
        at = found == elsewhere.end() ? was.size() : found->second;
      }
      if (at < was.size()) {
        hosts.push_back(old.virtual_hosts[at]);
        continue;
      }
      auto host = std::make_shared<api::VirtualHost>();
      ConfigErrors errors;
      ErrorSink sink(nullptr, "", &errors);
      if (!host->ParseFromArray(is[i].data(), static_cast<int>(is[i].size())) ||
          !validate_virtual_host(*host, max_direct_response_body(*old.config), Path(), sink))
        return false;
      same_names = same_names && same_domains(*host, *old.virtual_hosts[i]);
      hosts.push_back(std::move(host));
    }
    if (!same_names && !common_names(hosts).empty()) return false;
    if (hosts == old.virtual_hosts) return true;
    auto made = std::make_shared<RouteObject>(old);
    made->virtual_hosts = std::move(hosts);
    builder_.set_route(std::move(made));
    return true;
  }
  void assign(const std::string& name, std::shared_ptr<google::protobuf::Message> message) {
    auto config = std::static_pointer_cast<api::ClusterLoadAssignment>(std::move(message));
    drop_repeated(config.get());
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
    resources_.infos_[{update_.type, name}].server = update_.server;
    out_.rejections.push_back({name, std::move(reason)});
  }
  void accept(const std::string& name, const std::string& version) {
    Info& info = resources_.infos_[{update_.type, name}];
    info = {version, now_ms_, "", "", 0, update_.server};
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
    if (type == XdsType::kRoute) route_bodies_.erase(name);
    const ConfigKey key{kind, name};
    if (kind == ConfigKind::kEndpoints) {
      if (model.assignments().contains(name)) b.erase_assignment(name);
    } else if (model.is_dynamic(key) && model.owner(key) == key) {
      b.erase(key);
    }
  }
  return b.finish().model;
}

DynamicOptions dynamic_options(const XdsConfig& config) {
  DynamicOptions out;
  out.servers = config.ads.has_value();
  out.clusters = config.cds.has_value();
  out.listeners = config.lds.has_value();
  // One limit for all: the longer of the two, and none when either has none.
  bool endless = false;
  std::optional<std::chrono::milliseconds> longest;
  for (const auto* source : {&config.cds, &config.lds}) {
    if (!source->has_value() || !(*source)->has_initial_fetch_timeout()) continue;
    const std::chrono::milliseconds limit(to_ms((*source)->initial_fetch_timeout()));
    endless = endless || limit.count() == 0;
    longest = std::max(longest.value_or(limit), limit);
  }
  if (longest) out.fetch_timeout = endless ? std::chrono::milliseconds(0) : *longest;
  return out;
}

}  // namespace millrace::control
