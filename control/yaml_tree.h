// YAML or JSON text as a flat tree with positions: the only place that knows a parser (yaml-cpp for YAML; JSON is read directly,
// because it is what programs write, large). Nodes are indices; text lives in one buffer. Anchors, aliases and merge keys are
// resolved here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace millrace::control {

struct YamlError {
  uint32_t line = 0, column = 0;  // from 1
  std::string message;
};

class YamlTree {
 public:
  using Id = uint32_t;
  static constexpr Id kNone = UINT32_MAX;
  enum class Kind : uint8_t { kNull, kScalar, kSequence, kMap, kAlias };
  struct Entry {
    Id key, value;
  };

  // False, with the reason, when the text is not one well-formed document, or nests deeper than `max_depth`.
  // `json` says that it must be JSON; otherwise JSON is tried first when the text begins with a brace, then YAML.
  bool parse(std::string_view text, bool json, int max_depth, YamlError* error);

  Id root() const { return root_; }
  size_t size() const { return nodes_.size(); }

  // All of these see through aliases; line and column (from 1) are of the place where the node is used.
  Kind kind(Id id) const { return nodes_[resolve(id)].kind; }
  std::string_view text(Id id) const;  // of a scalar
  bool quoted(Id id) const { return nodes_[resolve(id)].quoted; }
  bool ignored(Id id) const { return nodes_[id].ignored; }  // tagged !ignore
  uint32_t line(Id id) const { return nodes_[id].line; }
  uint32_t column(Id id) const { return nodes_[id].column; }
  bool is_alias(Id id) const { return nodes_[id].kind == Kind::kAlias; }

  std::vector<Id> elements(Id sequence) const;
  // Key and value pairs in order of appearance; those merged in by `<<` come last, without the keys that the map has itself.
  // A malformed merge is an error of the map: *error is set.
  std::vector<Entry> entries(Id map, YamlError* error) const;

 private:
  friend class YamlBuilder;
  friend class JsonReader;
  struct Node {
    uint32_t line = 0, column = 0;
    uint32_t text = 0, text_size = 0;  // kScalar: in buffer_; kAlias: text is the target
    Id first = kNone, last = kNone;    // children: elements, or key, value, key, value
    Id next = kNone;
    Kind kind = Kind::kNull;
    bool quoted = false, ignored = false;
  };
  Id resolve(Id id) const { return nodes_[id].kind == Kind::kAlias ? nodes_[id].text : id; }
  void collect(Id map, int depth, size_t* budget, std::vector<Entry>* out, YamlError* error) const;
  Id append(Id parent, Kind kind, uint32_t line, uint32_t column);
  void set_text(Id id, std::string_view text);

  std::vector<Node> nodes_;
  std::string buffer_;
  Id root_ = kNone;
};

}  // namespace millrace::control
