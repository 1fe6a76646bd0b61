#include "control/source_map.h"

#include <algorithm>
#include <charconv>
#include <tuple>

#include "control/json_text.h"

namespace millrace::control {

std::string ConfigError::to_string() const {
  std::string out;
  if (!file.empty()) out += file + ":";
  if (line > 0) out += std::to_string(line) + ":" + std::to_string(column) + ":";
  if (!out.empty()) out += ' ';
  if (!path.empty()) out += path + ": ";
  return out + message;
}

std::string to_text(const ConfigErrors& errors) {
  std::string out;
  for (const ConfigError& e : errors) out += e.to_string() + "\n";
  return out;
}

std::string to_json(const ConfigErrors& errors) {
  std::string out = "[";
  for (const ConfigError& e : errors) {
    if (out.size() > 1) out += ", ";
    out += "{\"file\": " + json_quote(e.file) + ", \"line\": " + std::to_string(e.line) +
           ", \"column\": " + std::to_string(e.column) + ", \"path\": " + json_quote(e.path) +
           ", \"message\": " + json_quote(e.message) + "}";
  }
  return out + "]";
}

void sort_errors(ConfigErrors& errors) {
  auto key = [](const ConfigError& e) { return std::tie(e.file, e.line, e.column, e.path, e.message); };
  std::stable_sort(errors.begin(), errors.end(), [&](const ConfigError& a, const ConfigError& b) {
    return std::tie(a.file, a.line, a.column) < std::tie(b.file, b.line, b.column);
  });
  errors.erase(
      std::unique(errors.begin(), errors.end(), [&](const ConfigError& a, const ConfigError& b) { return key(a) == key(b); }),
      errors.end());
  if (errors.size() > kMaxConfigErrors) {
    const size_t more = errors.size() - kMaxConfigErrors;
    errors.resize(kMaxConfigErrors);
    errors.push_back({errors.back().file, 0, 0, "", std::to_string(more) + " more errors are not shown"});
  }
}

std::vector<PathStep> Path::steps() const {
  std::vector<PathStep> out;
  for (const Path* p = this; p->parent_ != nullptr; p = p->parent_) out.push_back(p->step_);
  std::reverse(out.begin(), out.end());
  return out;
}

std::string Path::to_string() const {
  std::string out;
  for (const PathStep& s : steps()) {
    if (!out.empty() && !s.field.empty()) out += '.';
    out += s.field;
    if (s.index >= 0) out += "[" + std::to_string(s.index) + "]";
    if (!s.map_key.empty()) out += "[\"" + std::string(s.map_key) + "\"]";
  }
  return out;
}

SourceMap::SourceMap(std::string file, std::string path_prefix, uint32_t line, uint32_t column)
    : file_(std::move(file)), path_prefix_(std::move(path_prefix)) {
  nodes_.push_back({line, column, 0, 0, 0, intern(""), -1});
}

uint32_t SourceMap::intern(std::string_view text) {
  const auto found = name_ids_.find(text);
  if (found != name_ids_.end()) return found->second;
  const uint32_t id = static_cast<uint32_t>(names_.size());
  names_.emplace_back(text);
  name_ids_.emplace(std::string(text), id);
  return id;
}

SourceMap::Node SourceMap::add(Node parent, const PathStep& step, uint32_t line, uint32_t column) {
  const Node id = static_cast<Node>(nodes_.size());
  const uint32_t name = intern(step.map_key.empty() ? step.field : step.map_key);  // an element lies below its field's node
  nodes_.push_back({line, column, 0, 0, 0, name, step.index});
  Entry& p = nodes_[parent];
  if (p.last_child == 0) p.first_child = id;
  else nodes_[p.last_child].next_sibling = id;
  p.last_child = id;
  return id;
}

SourceMap::Node SourceMap::child(Node parent, std::string_view name, int32_t index) const {
  const auto id = name_ids_.find(name);
  if (id == name_ids_.end()) return kRoot;
  for (Node c = nodes_[parent].first_child; c != 0; c = nodes_[c].next_sibling)
    if (nodes_[c].name == id->second && nodes_[c].index == index) return c;
  return kRoot;
}

// The deepest node on the way: elements lie below their field.
SourceMap::Node SourceMap::find(const std::vector<PathStep>& steps) const {
  Node at = kRoot;
  for (const PathStep& step : steps) {
    Node next = child(at, step.field, -1);
    if (next == kRoot) break;
    at = next;
    if (step.index < 0 && step.map_key.empty()) continue;
    next = step.map_key.empty() ? child(at, step.field, step.index) : child(at, step.map_key, -1);
    if (next == kRoot) break;
    at = next;
  }
  return at;
}

ConfigError SourceMap::make_error(Node at, std::string_view path, std::string message) const {
  std::string full = path_prefix_;
  if (!full.empty() && !path.empty()) full += '.';
  full += path;
  return {file_, nodes_[at].line, nodes_[at].column, std::move(full), std::move(message)};
}

ConfigError SourceMap::error(const Path& path, std::string message) const {
  return make_error(find(path.steps()), path.to_string(), std::move(message));
}

ConfigError SourceMap::error(std::string_view path, std::string message) const {
  std::vector<PathStep> steps;
  for (std::string_view rest = path; !rest.empty();) {
    const std::string_view word = rest.substr(0, rest.find('.'));
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    const size_t bracket = word.find('[');
    PathStep step{word.substr(0, bracket), -1, {}};
    if (bracket != std::string_view::npos) std::from_chars(word.data() + bracket + 1, word.data() + word.size(), step.index);
    steps.push_back(step);
  }
  return make_error(find(steps), path, std::move(message));
}

void ErrorSink::add(const Path& path, std::string message) {
  if (map_ != nullptr) out_->push_back(map_->error(path, std::move(message)));
  else add(path.to_string(), std::move(message));
}

void ErrorSink::add(std::string_view path, std::string message) {
  if (map_ != nullptr) {
    out_->push_back(map_->error(path, std::move(message)));
    return;
  }
  std::string full = fallback_prefix_;
  if (!full.empty() && !path.empty()) full += ": ";
  full += path;
  out_->push_back({"", 0, 0, std::move(full), std::move(message)});
}

}  // namespace millrace::control
