// Where each field of a parsed configuration object was written, and errors that say so. A SourceMap is a side table of one
// object: the protobuf message stays clean, and validation (which walks the message) finds line and column by field path.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace millrace::control {

// One complaint about a configuration. `message` is one sentence: what is wrong and what would be right.
struct ConfigError {
  std::string file;     // as the user named it; "" when the object did not come from a file
  uint32_t line = 0;    // from 1; 0: not known
  uint32_t column = 0;  // from 1
  std::string path;     // full field path from the document's root: "static_resources.listeners[0].name"; "" for the document
  std::string message;

  // "gateway.yaml:12:7: static_resources.listeners[0].name: must not be empty"; parts that are not known are left out.
  std::string to_string() const;
};
using ConfigErrors = std::vector<ConfigError>;

// One error a line, in order of position, with a trailing newline. "" for none.
std::string to_text(const ConfigErrors& errors);
// [{"file":..., "line":..., "column":..., "path":..., "message":...}, ...]
std::string to_json(const ConfigErrors& errors);
// Orders by file, line, column; drops exact repetitions.
void sort_errors(ConfigErrors& errors);

// Errors kept for one document; more are counted and reported as one closing line.
inline constexpr size_t kMaxConfigErrors = 500;

// A step of a path: a field, and for repeated fields (and maps) which element. Names must outlive the step (literals and
// descriptor names do).
struct PathStep {
  std::string_view field;
  int32_t index = -1;        // element of a repeated field; -1: the field itself
  std::string_view map_key;  // element of a map field
};

// A path as a chain on the stack: validation builds one frame per nesting level and pays for text only when there is an error.
//   Path listener(root, "listeners", 3);  Path name(listener, "name");
class Path {
 public:
  Path() = default;  // the object itself
  Path(const Path& parent, std::string_view field, int32_t index = -1) : parent_(&parent), step_{field, index, {}} {}
  Path(const Path& parent, std::string_view map_field, std::string_view map_key)
      : parent_(&parent), step_{map_field, -1, map_key} {}
  Path(Path&&) = delete;
  Path(const Path&) = delete;

  const Path* parent() const { return parent_; }
  const PathStep& step() const { return step_; }
  std::string to_string() const;        // "virtual_hosts[2].routes[5].match"; "" for the object itself
  std::vector<PathStep> steps() const;  // outermost first

 private:
  const Path* parent_ = nullptr;
  PathStep step_;
};

// Positions of one object's fields as a tree, flattened. Built by the loader; immutable afterwards.
class SourceMap {
 public:
  using Node = uint32_t;
  static constexpr Node kRoot = 0;

  SourceMap(std::string file, std::string path_prefix, uint32_t line, uint32_t column);

  // Adds a child; its parent must exist. An element (index or map key) is a child of its field's node. Positions count from 1.
  // `field` is copied.
  Node add(Node parent, const PathStep& step, uint32_t line, uint32_t column);

  // An error at `path` (relative to the object): with the position of the deepest step that is known.
  ConfigError error(const Path& path, std::string message) const;
  // The same for a path in words, "routes[3].match.prefix" (no map keys).
  ConfigError error(std::string_view path, std::string message) const;

  const std::string& file() const { return file_; }
  // Path of the object in its document: "static_resources.listeners[0]"; "" for a document that is one object.
  const std::string& path_prefix() const { return path_prefix_; }
  uint32_t line() const { return nodes_[kRoot].line; }
  uint32_t column() const { return nodes_[kRoot].column; }

 private:
  struct Entry {
    uint32_t line, column;
    uint32_t first_child, next_sibling, last_child;  // 0: none (the root is nobody's child)
    uint32_t name;                                   // index into names_
    int32_t index;                                   // element of a repeated field, or -1
  };
  uint32_t intern(std::string_view text);
  Node child(Node parent, std::string_view name, int32_t index) const;
  Node find(const std::vector<PathStep>& steps) const;
  ConfigError make_error(Node at, std::string_view path, std::string message) const;

  std::string file_, path_prefix_;
  std::vector<Entry> nodes_;
  std::vector<std::string> names_;
  std::map<std::string, uint32_t, std::less<>> name_ids_;
};

// Where validation puts its complaints: an object's positions (or none) and the list.
class ErrorSink {
 public:
  // `map` may be null: then errors carry `fallback_prefix` ("route edge") and the path, without a position. Both outlive the
  // sink.
  ErrorSink(const SourceMap* map, std::string fallback_prefix, ConfigErrors* out)
      : map_(map), fallback_prefix_(std::move(fallback_prefix)), out_(out), before_(out->size()) {}
  void add(const Path& path, std::string message);
  void add(std::string_view path, std::string message);  // a path in words
  bool clean() const { return out_->size() == before_; }

 private:
  const SourceMap* map_;
  std::string fallback_prefix_;
  ConfigErrors* out_;
  size_t before_;
};

}  // namespace millrace::control
