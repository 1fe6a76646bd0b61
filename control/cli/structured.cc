#include "control/cli/structured.h"

#include <cstdio>

#include <google/protobuf/util/json_util.h>

#include "control/proto_writer.h"
#include "control/yaml_tree.h"

namespace millrace::cli {

using control::TextValue;
using control::YamlTree;

namespace {

constexpr int kMaxDepth = 100;  // of a reply; protobuf's own limit

TextValue value_of(const YamlTree& tree, YamlTree::Id id) {
  TextValue v;
  switch (tree.kind(id)) {
    case YamlTree::Kind::kMap: {
      v.kind = TextValue::Kind::kMap;
      for (const YamlTree::Entry& e : tree.entries(id, nullptr))
        v.members.emplace_back(std::string(tree.text(e.key)), value_of(tree, e.value));
      break;
    }
    case YamlTree::Kind::kSequence:
      v.kind = TextValue::Kind::kList;
      for (const YamlTree::Id e : tree.elements(id)) v.members.emplace_back("", value_of(tree, e));
      break;
    case YamlTree::Kind::kNull:
      v.text = "null";
      break;
    default:
      v.text = std::string(tree.text(id));
      v.quoted = tree.quoted(id);
  }
  return v;
}

}  // namespace

std::string to_json(const google::protobuf::Message& message, bool pretty) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = pretty;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  (void)google::protobuf::util::MessageToJsonString(message, &text, options);
  return text;
}

std::string yaml_of_json(std::string_view json) {
  YamlTree tree;
  control::YamlError error;
  if (!tree.parse(json, true, kMaxDepth, &error)) return std::string(json);
  return control::to_yaml(value_of(tree, tree.root()));
}

void print_structured(const Globals& globals, std::string_view json) {
  std::string text = globals.yaml() ? yaml_of_json(json) : std::string(json);
  if (text.empty() || text.back() != '\n') text += '\n';
  std::fwrite(text.data(), 1, text.size(), stdout);
}

void print_structured(const Globals& globals, const google::protobuf::Message& message) {
  print_structured(globals, to_json(message, true));
}

}  // namespace millrace::cli
