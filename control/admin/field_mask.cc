#include "control/admin/field_mask.h"

#include <algorithm>

namespace millrace::control::admin {

using google::protobuf::FieldDescriptor;

std::vector<FieldPath> parse_mask(std::string_view mask) {
  std::vector<FieldPath> out;
  FieldPath path(1);
  for (const char c : mask) {
    if (c == ',') out.push_back(std::exchange(path, FieldPath(1)));
    else if (c == '.') path.emplace_back();
    else path.back() += c;
  }
  out.push_back(std::move(path));
  std::erase_if(out, [](const FieldPath& p) { return p.size() == 1 && p[0].empty(); });
  return out;
}

bool names_field(const google::protobuf::Descriptor* type, const FieldPath& path, size_t from) {
  for (size_t i = from; i < path.size(); ++i) {
    const FieldDescriptor* field = type == nullptr ? nullptr : type->FindFieldByName(path[i]);
    if (field == nullptr || (i + 1 < path.size() && field->is_repeated())) return false;
    type = field->message_type();
  }
  return from < path.size();
}

void trim(TextValue* value, const std::vector<FieldPath>& paths, size_t from) {
  if (value->kind != TextValue::Kind::kMap) return;
  std::erase_if(value->members, [&](auto& member) {
    if (member.first == "@type") return false;
    std::vector<FieldPath> below;
    for (const FieldPath& p : paths) {
      if (p.size() <= from || p[from] != member.first) continue;
      if (p.size() == from + 1) return false;  // all of it
      below.push_back(p);
    }
    if (below.empty()) return true;
    trim(&member.second, below, from + 1);
    return false;
  });
}

}  // namespace millrace::control::admin
