// Messages back to text: the counterpart of proto_mapper.cc, declared in config_loader.h.
#include "control/proto_writer.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <google/protobuf/any.pb.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/struct.pb.h>

#include "control/config_loader.h"
#include "control/envoy_names.h"
#include "control/json_text.h"

namespace millrace::control {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

namespace {

bool is(const Descriptor* d, std::string_view full_name) { return d->full_name() == full_name; }

std::string number_text(double v) {
  if (std::isnan(v)) return "\"NaN\"";
  if (std::isinf(v)) return v > 0 ? "\"Infinity\"" : "\"-Infinity\"";
  char buf[40];
  const auto r = std::to_chars(buf, buf + sizeof buf, v);
  return std::string(buf, r.ptr);
}

TextValue scalar(std::string text, bool quoted) {
  TextValue v;
  v.text = std::move(text);
  v.quoted = quoted;
  return v;
}

TextValue from_value(const google::protobuf::Value& v);
TextValue from_struct(const google::protobuf::Struct& s) {
  TextValue out;
  out.kind = TextValue::Kind::kMap;
  std::vector<std::string> keys;
  for (const auto& [key, value] : s.fields()) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  for (const std::string& k : keys) out.members.emplace_back(k, from_value(s.fields().at(k)));
  return out;
}
TextValue from_value(const google::protobuf::Value& v) {
  switch (v.kind_case()) {
    case google::protobuf::Value::kNumberValue:
      return scalar(number_text(v.number_value()), false);
    case google::protobuf::Value::kStringValue:
      return scalar(v.string_value(), true);
    case google::protobuf::Value::kBoolValue:
      return scalar(v.bool_value() ? "true" : "false", false);
    case google::protobuf::Value::kStructValue:
      return from_struct(v.struct_value());
    case google::protobuf::Value::kListValue: {
      TextValue out;
      out.kind = TextValue::Kind::kList;
      for (const auto& e : v.list_value().values()) out.members.emplace_back("", from_value(e));
      return out;
    }
    default:
      return scalar("null", false);
  }
}

// index < 0: the singular field.
TextValue from_field(const Message& m, const FieldDescriptor* f, int index) {
  const Reflection* r = m.GetReflection();
  const bool many = index >= 0;
  switch (f->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return scalar(std::to_string(many ? r->GetRepeatedInt32(m, f, index) : r->GetInt32(m, f)), false);
    case FieldDescriptor::CPPTYPE_INT64:
      return scalar(std::to_string(many ? r->GetRepeatedInt64(m, f, index) : r->GetInt64(m, f)), true);
    case FieldDescriptor::CPPTYPE_UINT32:
      return scalar(std::to_string(many ? r->GetRepeatedUInt32(m, f, index) : r->GetUInt32(m, f)), false);
    case FieldDescriptor::CPPTYPE_UINT64:
      return scalar(std::to_string(many ? r->GetRepeatedUInt64(m, f, index) : r->GetUInt64(m, f)), true);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return scalar(number_text(many ? r->GetRepeatedDouble(m, f, index) : r->GetDouble(m, f)), false);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return scalar(number_text(static_cast<double>(many ? r->GetRepeatedFloat(m, f, index) : r->GetFloat(m, f))), false);
    case FieldDescriptor::CPPTYPE_BOOL:
      return scalar((many ? r->GetRepeatedBool(m, f, index) : r->GetBool(m, f)) ? "true" : "false", false);
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int n = many ? r->GetRepeatedEnumValue(m, f, index) : r->GetEnumValue(m, f);
      const auto* v = f->enum_type()->FindValueByNumber(n);
      return v != nullptr ? scalar(v->name(), true) : scalar(std::to_string(n), false);
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      const std::string s = many ? r->GetRepeatedString(m, f, index) : r->GetString(m, f);
      return scalar(f->type() == FieldDescriptor::TYPE_BYTES ? base64_encode(s) : s, true);
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return to_text_value(many ? r->GetRepeatedMessage(m, f, index) : r->GetMessage(m, f));
  }
  return {};
}

// A duration in proto3 JSON: as few of 0, 3, 6 or 9 fraction digits as say it.
std::string duration_text(const google::protobuf::Duration& d) {
  const bool negative = d.seconds() < 0 || d.nanos() < 0;
  std::string out = (negative ? "-" : "") + std::to_string(std::abs(d.seconds()));
  if (d.nanos() != 0) {
    std::string f = std::to_string(std::abs(d.nanos()));
    f = "." + std::string(9 - std::min<size_t>(9, f.size()), '0') + f;
    while (f.ends_with("000")) f.resize(f.size() - 3);
    out += f;
  }
  return out + "s";
}

// ---- text ---------------------------------------------------------------------------------------------------------------

void write_json(const TextValue& v, bool pretty, int indent, std::string* out) {
  const auto newline = [&](int levels) {
    if (pretty) *out += "\n" + std::string(static_cast<size_t>(levels) * 2, ' ');
  };
  if (v.kind == TextValue::Kind::kScalar) {
    *out += v.quoted ? json_quote(v.text) : v.text;
    return;
  }
  const bool map = v.kind == TextValue::Kind::kMap;
  *out += map ? '{' : '[';
  for (size_t i = 0; i < v.members.size(); ++i) {
    if (i > 0) *out += pretty ? "," : ", ";
    newline(indent + 1);
    if (map) *out += json_quote(v.members[i].first) + ": ";
    write_json(v.members[i].second, pretty, indent + 1, out);
  }
  if (!v.members.empty()) newline(indent);
  *out += map ? '}' : ']';
}

// Words that YAML (1.1 or 1.2, ours or Envoy's reader) takes for text without quotes.
bool plain_in_yaml(const std::string& s) {
  if (s.empty() || s.size() > 200) return false;
  if (!isalpha(static_cast<unsigned char>(s[0])) && s[0] != '/' && s[0] != '_') return false;
  for (char c : s)
    if (!isalnum(static_cast<unsigned char>(c)) && !strchr("/_-.+=~", c)) return false;
  std::string lower;
  for (char c : s) lower += static_cast<char>(tolower(c));
  for (const char* w : {"y", "yes", "n", "no", "true", "false", "on", "off", "null", "nan", "inf", "infinity"})
    if (lower == w) return false;
  return true;
}

void write_yaml(const TextValue& v, int indent, std::string* out) {
  const std::string pad(static_cast<size_t>(indent) * 2, ' ');
  const auto inline_scalar = [](const TextValue& s) {
    return !s.quoted ? s.text : plain_in_yaml(s.text) ? s.text : json_quote(s.text);
  };
  const auto empty = [](const TextValue& c) { return c.kind == TextValue::Kind::kMap ? "{}" : "[]"; };
  for (const auto& [key, value] : v.members) {
    const bool item = v.kind == TextValue::Kind::kList;
    *out += pad + (item ? "-" : (plain_in_yaml(key) ? key : json_quote(key)) + ":");
    if (value.kind == TextValue::Kind::kScalar) {
      *out += " " + inline_scalar(value) + "\n";
    } else if (value.members.empty()) {
      *out += std::string(" ") + empty(value) + "\n";
    } else if (item && value.kind == TextValue::Kind::kMap) {
      std::string block;
      write_yaml(value, indent + 1, &block);
      *out += " " + block.substr(pad.size() + 2);  // the first member on the dash's line
    } else {
      *out += "\n";
      write_yaml(value, item || value.kind == TextValue::Kind::kMap ? indent + 1 : indent, out);
    }
  }
}

}  // namespace

TextValue to_text_value(const Message& m) {
  const Descriptor* d = m.GetDescriptor();
  if (is(d, "google.protobuf.Duration")) return scalar(duration_text(static_cast<const google::protobuf::Duration&>(m)), true);
  if (is(d, "google.protobuf.Struct")) return from_struct(static_cast<const google::protobuf::Struct&>(m));
  if (is(d, "google.protobuf.Value")) return from_value(static_cast<const google::protobuf::Value&>(m));
  if (d->file()->name() == "google/protobuf/wrappers.proto") return from_field(m, d->field(0), -1);
  TextValue out;
  out.kind = TextValue::Kind::kMap;
  if (is(d, "google.protobuf.Any")) {
    const auto& any = static_cast<const google::protobuf::Any&>(m);
    const size_t slash = any.type_url().rfind('/');
    const Descriptor* inner = slash == std::string::npos ? nullptr : find_message(any.type_url().substr(slash + 1));
    if (inner != nullptr) {
      std::unique_ptr<Message> message(google::protobuf::MessageFactory::generated_factory()->GetPrototype(inner)->New());
      if (message->ParseFromString(any.value())) out = to_text_value(*message);
    }
    out.members.insert(out.members.begin(), {"@type", scalar(any.type_url(), true)});
    return out;
  }
  const Reflection* r = m.GetReflection();
  for (int i = 0; i < d->field_count(); ++i) {
    const FieldDescriptor* f = d->field(i);
    TextValue value;
    if (f->is_map()) {
      if (r->FieldSize(m, f) == 0) continue;
      value.kind = TextValue::Kind::kMap;
      for (int k = 0; k < r->FieldSize(m, f); ++k) {
        const Message& entry = r->GetRepeatedMessage(m, f, k);
        value.members.emplace_back(entry.GetReflection()->GetString(entry, f->message_type()->map_key()),
                                   from_field(entry, f->message_type()->map_value(), -1));
      }
      std::sort(value.members.begin(), value.members.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    } else if (f->is_repeated()) {
      if (r->FieldSize(m, f) == 0) continue;
      value.kind = TextValue::Kind::kList;
      for (int k = 0; k < r->FieldSize(m, f); ++k) value.members.emplace_back("", from_field(m, f, k));
    } else {
      if (!r->HasField(m, f)) continue;
      value = from_field(m, f, -1);
    }
    out.members.emplace_back(f->name(), std::move(value));
  }
  return out;
}

TextValue to_text_value(const Message& m, bool with_type) {
  TextValue v = to_text_value(m);
  if (with_type)
    v.members.insert(v.members.begin(), {"@type", scalar("type.googleapis.com/" + m.GetDescriptor()->full_name(), true)});
  return v;
}

void redact(TextValue* value) {
  for (auto& [name, member] : value->members) {
    redact(&member);
    const auto hide = [](TextValue& data_source) {
      for (auto& [how, source] : data_source.members) {
        if (how == "inline_string") source.text = kRedacted;
        if (how == "inline_bytes") source.text = base64_encode(kRedacted);
      }
    };
    if (name == "private_key") hide(member);
    if (name == "session_ticket_keys")
      for (auto& [field, list] : member.members)
        for (auto& [index, key] : list.members) hide(key);
  }
}

std::string to_json(const TextValue& value, bool pretty) {
  std::string out;
  write_json(value, pretty, 0, &out);
  return out;
}

std::string to_yaml(const TextValue& value) {
  if (value.kind == TextValue::Kind::kScalar) return to_json(value, false) + "\n";
  if (value.members.empty()) return value.kind == TextValue::Kind::kMap ? "{}\n" : "[]\n";
  std::string out;
  write_yaml(value, 0, &out);
  return out;
}

std::string to_yaml(const Message& message, bool with_type) { return to_yaml(to_text_value(message, with_type)); }

std::string to_json(const Message& message, bool with_type, bool pretty) {
  return to_json(to_text_value(message, with_type), pretty);
}

}  // namespace millrace::control
