// Text to messages. A document is YAML or JSON (YAML's flow style covers it) in one of three shapes:
//   * an Envoy bootstrap (`static_resources:`, `node:`), plus Millrace's own top-level key `dataplane:`;
//   * `resources:` with a list of objects, each with "@type" (Listener, RouteConfiguration, Cluster, ClusterLoadAssignment,
//   Secret);
//   * a single such object with "@type" at the top.
// The mapping is proto3 JSON (camelCase and snake_case names, "5s" durations, wrappers, enums by name, base64 bytes, Any by
// "@type"), read by reflection from our descriptors, so an unknown field is an error with its full path, never ignored. All
// errors of the document are collected. YAML anchors, aliases and merge keys (`<<`) work; a key tagged `!ignore` is dropped, as
// in Envoy.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <google/protobuf/message.h>

#include "control/admin_config.h"
#include "control/config_kind.h"
#include "control/source_map.h"
#include "control/stats_sinks_config.h"
#include "control/xds_config.h"
#include "lib/base/status.h"

namespace millrace::control {

class YamlTree;

struct LoadedObject {
  ConfigKind kind;
  std::shared_ptr<google::protobuf::Message> message;  // of descriptor_of(kind)
  std::shared_ptr<const SourceMap> source;             // null when it did not come from text (xDS)
  bool bad = false;                                    // the loader complained about it: not to be used
  bool dynamic = false;                                // a management server's
};

enum class DocumentShape : uint8_t { kBootstrap, kResources };

struct Document {
  std::string file;
  DocumentShape shape = DocumentShape::kBootstrap;
  std::vector<LoadedObject> objects;  // in document order
  std::string node_id, node_cluster;  // Bootstrap.node
  // Bootstrap.stats_sinks and stats_flush_interval; nullopt when the document has neither.
  std::optional<StatsSinksConfig> stats_sinks;
  std::optional<AdminConfig> admin;  // Bootstrap.admin
  XdsConfig xds;                     // Bootstrap.node and Bootstrap.dynamic_resources
  // The text under `dataplane:`, and whether there was such a key; parsed by lib/bootstrap, which both programs use. Its errors
  // are among `errors` already.
  bool has_dataplane = false;
  ConfigErrors errors;  // ordered by position; empty: every object is well formed (not yet: valid)

  bool ok() const { return errors.empty(); }
};

// Bounds on what a document may make us build, against alias bombs and runaway nesting.
inline constexpr size_t kMaxDocumentBytes = 256u << 20;
inline constexpr size_t kMaxAliasedNodes = 1'000'000;  // that aliases add beyond the text
inline constexpr int kMaxDocumentDepth = 100;

// Never throws. `file` is what errors call the document.
Document load_document(std::string_view text, std::string file);
// Reads the file; an unreadable file is a Document with one error.
Document load_document_file(const std::string& path);

// Text to a tree, within the bounds above. False, with an error: it is none. `file` says that it is JSON, and stands in errors.
bool parse_document(std::string_view text, const std::string& file, YamlTree* tree, ConfigErrors* errors);

// One object of a known kind from text without "@type" (used by `millctl route add` for a Route and by tests): fills `message` by
// the same rules. Errors as in load_document.
ConfigErrors load_message(std::string_view text, std::string file, google::protobuf::Message* message,
                          std::shared_ptr<const SourceMap>* source = nullptr);

// The other direction: snake_case names, "@type" for Any, defaults left out, order of the fields by number; stable, and read back
// by load_message to an equal message. `with_type` puts "@type" first, so that the text is a document of its own.
std::string to_yaml(const google::protobuf::Message& message, bool with_type = false);
std::string to_json(const google::protobuf::Message& message, bool with_type = false, bool pretty = true);

}  // namespace millrace::control
