#include "control/config_loader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "control/envoy_names.h"
#include "control/json_text.h"
#include "control/proto_mapper.h"
#include "control/proto_values.h"
#include "control/validate.h"
#include "control/yaml_tree.h"
#include "lib/api/envoy.config.bootstrap.v3.pb.h"
#include "lib/bootstrap/dataplane_section.h"

namespace millrace::control {

namespace {

using envoy::config::bootstrap::v3::Bootstrap;
using google::protobuf::Descriptor;
using google::protobuf::Message;
using Kind = YamlTree::Kind;

class DocumentLoader {
 public:
  DocumentLoader(const YamlTree& tree, Document* document)
      : tree_(tree), document_(document), mapper_(tree, document->file, &document->errors) {}

  void load() {
    const YamlTree::Id root = tree_.root();
    if (tree_.kind(root) != Kind::kMap)
      return mapper_.complain(root, "", "expected a mapping: a bootstrap, `resources:`, or one object with \"@type\"");
    bool has_type = false, has_resources = false;
    const std::vector<YamlTree::Entry> top = entries(root, "");
    for (const YamlTree::Entry& e : top) {
      has_type = has_type || tree_.text(e.key) == "@type";
      has_resources = has_resources || tree_.text(e.key) == "resources";
      if (tree_.text(e.key) == "apiVersion")
        return mapper_.complain(e.key, "apiVersion",
                                "a Kubernetes manifest: millctl apply -f takes it; a configuration file is a bootstrap");
    }
    document_->shape = has_type || has_resources ? DocumentShape::kResources : DocumentShape::kBootstrap;
    if (has_type) return single(root);
    has_resources ? resources(top) : bootstrap(top);
  }

 private:
  std::vector<YamlTree::Entry> entries(YamlTree::Id map, const std::string& path) {
    YamlError bad;
    std::vector<YamlTree::Entry> all = tree_.entries(map, &bad), out;
    if (!bad.message.empty()) document_->errors.push_back({document_->file, bad.line, bad.column, path, bad.message});
    for (const YamlTree::Entry& e : all) {
      bool twice = false;
      for (const YamlTree::Entry& o : out) twice = twice || tree_.text(o.key) == tree_.text(e.key);
      if (twice) mapper_.complain(e.key, join(path, tree_.text(e.key)), "given twice");
      else out.push_back(e);
    }
    return out;
  }
  static std::string join(const std::string& path, std::string_view word) {
    return path.empty() ? std::string(word) : path + "." + std::string(word);
  }

  void add(YamlTree::Id node, const std::string& path, const Descriptor* type) {
    LoadedObject object;
    object.kind = *kind_of(type);
    const size_t before = document_->errors.size();
    object.message.reset(google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
    object.source = mapper_.map_object(node, path, object.message.get());
    object.bad = document_->errors.size() != before;
    document_->objects.push_back(std::move(object));
  }
  void typed(YamlTree::Id node, const std::string& path) {
    if (tree_.kind(node) != Kind::kMap) return mapper_.complain(node, path, "expected an object with \"@type\"");
    const Descriptor* type = mapper_.type_of(node, path, true);
    if (type == nullptr) return;
    if (!kind_of(type))
      return mapper_.complain(
          node, path,
          type->full_name() +
              " is no object of its own: expected Listener, RouteConfiguration, Cluster, ClusterLoadAssignment or Secret");
    add(node, path, type);
  }
  void single(YamlTree::Id root) {
    const Descriptor* type = mapper_.type_of(root, "", true);
    if (type == Bootstrap::descriptor()) {
      document_->shape = DocumentShape::kBootstrap;
      return bootstrap(entries(root, ""));
    }
    if (type != nullptr) typed(root, "");
  }
  void resources(const std::vector<YamlTree::Entry>& top) {
    for (const YamlTree::Entry& e : top) {
      if (tree_.text(e.key) != "resources") {
        mapper_.complain(e.key, std::string(tree_.text(e.key)), "a document with `resources:` holds nothing else");
      } else if (tree_.kind(e.value) == Kind::kSequence) {
        int index = 0;
        for (YamlTree::Id o : tree_.elements(e.value)) typed(o, "resources[" + std::to_string(index++) + "]");
      } else if (tree_.kind(e.value) != Kind::kNull) {
        mapper_.complain(e.value, "resources", "expected a list of objects");
      }
    }
  }
  void bootstrap(const std::vector<YamlTree::Entry>& top) {
    for (const YamlTree::Entry& e : top) {
      const std::string_view name = tree_.text(e.key);
      if (name == "dataplane") document_->has_dataplane = true;
      else if (name == "static_resources" || name == "staticResources") static_resources(e.value);
      else if (name == "node" && tree_.kind(e.value) != Kind::kNull) node(e.value);
      else if (name == "stats_sinks" || name == "statsSinks") stats_sinks(e.value);
      else if (name == "stats_flush_interval" || name == "statsFlushInterval") stats_flush_interval(e.value);
      else if (name == "admin") admin(e.value);
      else if (name == "dynamic_resources" || name == "dynamicResources") dynamic_resources(e.value);
      else if (name != "node" && name != "@type") mapper_.unknown_field(e.key, Bootstrap::descriptor(), "");
    }
    if (dynamic_resources_ != nullptr) check_servers();
    // A sink may stand before the clusters.
    for (const auto& [source, cluster] : sink_clusters_) {
      if (!has_cluster(cluster))
        document_->errors.push_back(source->error("typed_config.tcp_cluster_name",
                                                  "unknown cluster \"" + cluster + "\": sinks use static_resources.clusters"));
    }
  }
  bool has_cluster(const std::string& name) const {
    return std::any_of(document_->objects.begin(), document_->objects.end(), [&](const LoadedObject& o) {
      return o.kind == ConfigKind::kCluster && static_cast<const api::Cluster&>(*o.message).name() == name;
    });
  }
  void stats_sinks(YamlTree::Id at) {
    if (tree_.kind(at) == Kind::kNull) return;
    if (tree_.kind(at) != Kind::kSequence) return mapper_.complain(at, "stats_sinks", "expected a list");
    if (!document_->stats_sinks) document_->stats_sinks.emplace();
    int index = 0;
    for (YamlTree::Id o : tree_.elements(at)) {
      const std::string here = "stats_sinks[" + std::to_string(index++) + "]";
      if (tree_.kind(o) == Kind::kNull) {
        mapper_.complain(o, here, "an element of a list cannot be null");
        continue;
      }
      envoy::config::metrics::v3::StatsSink sink;
      const size_t before = document_->errors.size();
      const auto source = mapper_.map_object(o, here, &sink);
      if (document_->errors.size() != before) continue;
      ErrorSink errors(source.get(), here, &document_->errors);
      auto config = read_stats_sink(sink, errors);
      if (!config) continue;
      if (!config->cluster.empty()) sink_clusters_.emplace_back(source, config->cluster);
      document_->stats_sinks->sinks.push_back(std::move(*config));
    }
  }
  void stats_flush_interval(YamlTree::Id at) {
    if (tree_.kind(at) == Kind::kNull) return;
    const std::string path = "stats_flush_interval";
    google::protobuf::Duration interval;
    const size_t before = document_->errors.size();
    const auto source = mapper_.map_object(at, path, &interval);
    if (document_->errors.size() != before) return;
    ErrorSink errors(source.get(), path, &document_->errors);
    const int64_t ms = to_ms(interval);
    if (ms < 1 || ms >= 300'000) return errors.add(Path(), "must be at least 0.001s and less than 300s");
    if (!document_->stats_sinks) document_->stats_sinks.emplace();
    document_->stats_sinks->flush_interval = std::chrono::milliseconds(ms);
  }
  void admin(YamlTree::Id at) {
    if (tree_.kind(at) == Kind::kNull) return;
    envoy::config::bootstrap::v3::Admin message;
    const size_t before = document_->errors.size();
    const auto source = mapper_.map_object(at, "admin", &message);
    if (document_->errors.size() != before) return;
    ErrorSink errors(source.get(), "admin", &document_->errors);
    document_->admin = read_admin(message, errors);
  }
  void node(YamlTree::Id at) {
    envoy::config::core::v3::Node n;
    mapper_.map_object(at, "node", &n);
    document_->node_id = n.id();
    document_->node_cluster = n.cluster();
    document_->xds.node = std::move(n);
  }
  void dynamic_resources(YamlTree::Id at) {
    if (tree_.kind(at) == Kind::kNull) return;
    Bootstrap::DynamicResources message;
    const size_t before = document_->errors.size();
    dynamic_resources_ = mapper_.map_object(at, "dynamic_resources", &message);
    if (document_->errors.size() != before) return;
    ErrorSink errors(dynamic_resources_.get(), "dynamic_resources", &document_->errors);
    (void)read_dynamic_resources(message, errors, &document_->xds);
  }
  // Clusters may stand behind. Management servers are asked for clusters, so theirs must be there without them.
  void check_servers() {
    using envoy::config::core::v3::ApiConfigSource;
    const auto check = [&](const ApiConfigSource& source, const std::string& path) {
      for (int i = 0; i < source.grpc_services_size(); ++i) {
        const std::string& cluster = source.grpc_services(i).envoy_grpc().cluster_name();
        if (!cluster.empty() && !has_cluster(cluster))
          document_->errors.push_back(dynamic_resources_->error(
              path + ".grpc_services[" + std::to_string(i) + "].envoy_grpc.cluster_name",
              "unknown cluster \"" + cluster + "\": management servers are endpoints of static_resources.clusters"));
      }
    };
    const XdsConfig& xds = document_->xds;
    if (xds.ads) check(*xds.ads, "ads_config");
    if (xds.lds) check(xds.lds->api_config_source(), "lds_config.api_config_source");
    if (xds.cds) check(xds.cds->api_config_source(), "cds_config.api_config_source");
    if (xds.dynamic() && document_->node_id.empty())  // as Envoy: servers know gateways by it
      document_->errors.push_back(dynamic_resources_->error("", "needs node.id: management servers tell gateways apart by it"));
  }
  void static_resources(YamlTree::Id at) {
    const std::string path = "static_resources";
    if (tree_.kind(at) == Kind::kNull) return;
    if (tree_.kind(at) != Kind::kMap)
      return mapper_.complain(at, path, "expected a mapping with listeners, clusters and secrets");
    for (const YamlTree::Entry& e : entries(at, path)) {
      const std::string name(tree_.text(e.key));
      const auto* field = Bootstrap::StaticResources::descriptor()->FindFieldByName(name);
      if (field == nullptr) {
        mapper_.unknown_field(e.key, Bootstrap::StaticResources::descriptor(), path);
      } else if (tree_.kind(e.value) == Kind::kSequence) {
        int index = 0;
        for (YamlTree::Id o : tree_.elements(e.value)) {
          const std::string here = path + "." + name + "[" + std::to_string(index++) + "]";
          if (tree_.kind(o) == Kind::kNull) mapper_.complain(o, here, "an element of a list cannot be null");
          else add(o, here, field->message_type());
        }
      } else if (tree_.kind(e.value) != Kind::kNull) {
        mapper_.complain(e.value, path + "." + name, "expected a list");
      }
    }
  }

  const YamlTree& tree_;
  Document* document_;
  ProtoMapper mapper_;
  std::shared_ptr<const SourceMap> dynamic_resources_;
  std::vector<std::pair<std::shared_ptr<const SourceMap>, std::string>> sink_clusters_;  // where named, by name
};

}  // namespace

bool parse_document(std::string_view text, const std::string& file, YamlTree* tree, ConfigErrors* errors) {
  YamlError bad;
  if (text.size() > kMaxDocumentBytes) bad = {1, 1, "larger than " + std::to_string(kMaxDocumentBytes >> 20) + " MiB"};
  else if (const size_t at = first_bad_utf8(text); at < text.size()) {
    const std::string_view before = text.substr(0, at);
    const size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
    bad = {static_cast<uint32_t>(std::count(before.begin(), before.end(), '\n') + 1), static_cast<uint32_t>(at - line_start + 1),
           "a byte that is not UTF-8"};
  } else if (tree->parse(text, file.ends_with(".json"), kMaxDocumentDepth, &bad)) return true;
  errors->push_back({file, bad.line, bad.column, "", bad.message});
  return false;
}

Document load_document(std::string_view text, std::string file) {
  Document document;
  document.file = std::move(file);
  YamlTree tree;
  if (!parse_document(text, document.file, &tree, &document.errors)) return document;
  DocumentLoader(tree, &document).load();
  if (document.has_dataplane) {
    for (const bootstrap::SectionError& e : bootstrap::read_dataplane_section(text, document.file).errors)
      document.errors.push_back({e.file, static_cast<uint32_t>(e.line), static_cast<uint32_t>(e.column), e.path, e.message});
  }
  sort_errors(document.errors);
  return document;
}

Document load_document_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  if (in && !(in.peek() == std::ifstream::traits_type::eof() && !in.eof())) text << in.rdbuf();
  if (!in.is_open() || in.bad()) {
    Document document;
    document.file = path;
    document.errors.push_back({path, 0, 0, "", std::string("cannot be read: ") + std::strerror(errno)});
    return document;
  }
  return load_document(text.str(), path);
}

ConfigErrors load_message(std::string_view text, std::string file, Message* message, std::shared_ptr<const SourceMap>* source) {
  ConfigErrors errors;
  YamlTree tree;
  if (!parse_document(text, file, &tree, &errors)) return errors;
  ProtoMapper mapper(tree, std::move(file), &errors);
  std::shared_ptr<const SourceMap> map = mapper.map_object(tree.root(), "", message);
  if (source != nullptr) *source = std::move(map);
  sort_errors(errors);
  return errors;
}

}  // namespace millrace::control
