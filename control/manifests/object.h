// Kubernetes objects as text: YAML (several documents, `---` between them), JSON, or a `List`. What an object may hold is checked
// here, by schema.h, with file, line and path; what it means is translate.h's.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "control/source_map.h"

namespace millrace::control::manifests {

// A tree of text. Reading what is not there gives an empty value: the schema has said what must be there.
struct Value {
  enum class Kind : uint8_t { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  bool quoted = false;                                 // kScalar: a string, whatever it looks like
  uint32_t line = 0, column = 0;                       // from 1
  std::string text;                                    // kScalar
  std::vector<std::pair<std::string, Value>> members;  // kMap; kList: with empty names

  bool has(std::string_view name) const { return (*this)[name].kind != Kind::kNull; }
  const Value& operator[](std::string_view name) const;
  const std::string& or_else(const std::string& fallback) const { return kind == Kind::kScalar ? text : fallback; }
  int64_t number(int64_t fallback) const;
  bool is_true() const { return kind == Kind::kScalar && text == "true"; }
};

// A field that Kubernetes has and Millrace does not act on.
struct Unsupported {
  std::string path;
  uint32_t line = 0;
};

struct Object {
  std::string kind, ns, name;  // ns: "" of kinds that have none
  std::string created;         // metadata.creationTimestamp, as written: RFC 3339 in UTC sorts as text
  std::string file;
  Value root;
  std::vector<Unsupported> unsupported;

  std::string key() const;  // "HTTPRoute/default/web"
  std::string label(const std::string& name) const { return root["metadata"]["labels"][name].text; }
};
using Objects = std::map<std::string, std::shared_ptr<const Object>>;  // by key

struct Parsed {
  std::vector<std::shared_ptr<const Object>> objects;
  ConfigErrors errors;
};

// Does the text look like Kubernetes objects (`apiVersion:`), and not like Envoy's?
bool is_manifests(std::string_view text);
// All objects of a text, and every error of it.
Parsed parse(std::string_view text, const std::string& file);

// "httproute/default/web" and the like, as people write it, to a key of `objects`; "" when there is none.
std::string find_key(const Objects& objects, std::string_view written);

std::string to_json(const Value& value);
// Of a Secret: values become their length and a hash, so that a difference still shows.
Value redacted(const Object& object);

}  // namespace millrace::control::manifests
