// A message as a tree of text, from which YAML, JSON and field-by-field differences are made. Fields in order of declaration,
// defaults left out, maps sorted by key.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <google/protobuf/message.h>

namespace millrace::control {

struct TextValue {
  enum class Kind : uint8_t { kScalar, kMap, kList };
  Kind kind = Kind::kScalar;
  std::string text;                                        // kScalar
  bool quoted = false;                                     // kScalar: a string in JSON
  std::vector<std::pair<std::string, TextValue>> members;  // kMap; kList: with empty names
};

TextValue to_text_value(const google::protobuf::Message& message);
TextValue to_text_value(const google::protobuf::Message& message, bool with_type);
// Private keys that are written inline become kRedacted, as in Envoy's config_dump (which hides file names as well; we show
// those, they are no secret).
inline constexpr const char* kRedacted = "[redacted]";
void redact(TextValue* value);
std::string to_json(const TextValue& value, bool pretty);
std::string to_yaml(const TextValue& value);

}  // namespace millrace::control
