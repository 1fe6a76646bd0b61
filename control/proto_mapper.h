// A tree of YAML to a protobuf message, by reflection and the rules of proto3 JSON, with the position of every field and all
// errors.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <google/protobuf/message.h>

#include "control/source_map.h"
#include "control/yaml_tree.h"

namespace millrace::control {

class ProtoMapper {
 public:
  // All outlive the mapper. `errors` takes the complaints.
  ProtoMapper(const YamlTree& tree, std::string file, ConfigErrors* errors)
      : tree_(tree), file_(std::move(file)), errors_(errors) {}

  // Fills the message from a mapping; fields that were wrong stay unset. `prefix` is the object's path in its document. A key
  // "@type" at this level is skipped (the caller has used it). Returns the object's positions.
  std::shared_ptr<const SourceMap> map_object(YamlTree::Id node, const std::string& prefix, google::protobuf::Message* message);

  // For callers that walk the outer shape of a document themselves.
  void complain(YamlTree::Id at, const std::string& full_path, std::string message);
  void unknown_field(YamlTree::Id key, const google::protobuf::Descriptor* in, const std::string& parent_path);
  // The message type that a mapping names by "@type", or null after a complaint (when `required`).
  const google::protobuf::Descriptor* type_of(YamlTree::Id node, const std::string& path, bool required);

 private:
  struct Place {  // where the mapper is: the path for errors and the node of the source map
    const Path& path;
    SourceMap::Node source;
  };
  using Field = google::protobuf::FieldDescriptor;
  using Message = google::protobuf::Message;

  void map_message(YamlTree::Id node, Message* message, const Place& at, const Field* any_of, bool skip_type);
  void map_field(YamlTree::Id value, Message* message, const Field* field, const Place& at);
  void map_map(YamlTree::Id value, Message* message, const Field* field, const Place& at);
  void map_any(YamlTree::Id node, Message* any, const Place& at, const Field* any_of);
  void map_struct(YamlTree::Id node, Message* message, const Place& at);
  void map_value(YamlTree::Id node, Message* message, const Place& at);
  void map_duration(YamlTree::Id node, Message* message, const Place& at);
  bool set_scalar(YamlTree::Id node, Message* message, const Field* field, bool add, const Place& at);
  bool set_enum(YamlTree::Id node, Message* message, const Field* field, bool add, const Place& at);

  const Field* find_field(const google::protobuf::Descriptor* in, std::string_view name) const;
  std::vector<YamlTree::Entry> entries(YamlTree::Id map, const Place& at);
  void error(YamlTree::Id at, const Place& place, std::string message);
  bool within_budget(YamlTree::Id node, const Place& at);

  const YamlTree& tree_;
  std::string file_;
  ConfigErrors* errors_;
  std::string prefix_;
  SourceMap* source_ = nullptr;
  size_t visited_ = 0;
  bool over_budget_ = false;
};

}  // namespace millrace::control
