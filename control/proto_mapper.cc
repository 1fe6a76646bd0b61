#include "control/proto_mapper.h"

#include <charconv>
#include <cmath>
#include <limits>

#include <google/protobuf/any.pb.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/struct.pb.h>

#include "control/config_loader.h"
#include "control/envoy_names.h"
#include "control/json_text.h"

namespace millrace::control {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using Kind = YamlTree::Kind;

namespace {

bool is(const Descriptor* d, std::string_view full_name) { return d->full_name() == full_name; }
bool is_wrapper(const Descriptor* d) { return d->file()->name() == "google/protobuf/wrappers.proto"; }

// How Envoy's YAML reader (yaml-cpp's conversions) takes a plain scalar.
bool bool_word(std::string_view s, bool* value) {
  std::string lower;
  for (char c : s) lower += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  for (const char* t : {"y", "yes", "true", "on"})
    if (lower == t) return *value = true, true;
  for (const char* f : {"n", "no", "false", "off"})
    if (lower == f) return *value = false, true;
  return false;
}

bool parse_double(std::string_view s, double* value) {
  if (s == "NaN" || s == ".nan" || s == ".NaN") return *value = std::nan(""), true;
  if (s == "Infinity" || s == ".inf") return *value = std::numeric_limits<double>::infinity(), true;
  if (s == "-Infinity" || s == "-.inf") return *value = -std::numeric_limits<double>::infinity(), true;
  if (s.starts_with('+')) s.remove_prefix(1);
  if (s.empty() || !(isdigit(static_cast<unsigned char>(s[0])) || s[0] == '-' || s[0] == '.')) return false;
  const auto r = std::from_chars(s.data(), s.data() + s.size(), *value);
  return r.ec == std::errc() && r.ptr == s.data() + s.size();
}

// An integer in decimal or 0x hexadecimal, or a float without a fraction ("1e3", "5.0").
enum class IntParse { kOk, kNotInteger, kOutOfRange };
template <class T>
IntParse parse_int(std::string_view s, T* value) {
  if (s.starts_with('+')) s.remove_prefix(1);
  int base = 10;
  std::string_view digits = s;
  if (s.starts_with("0x") || s.starts_with("0X")) {
    base = 16;
    digits.remove_prefix(2);
  }
  const auto r = std::from_chars(digits.data(), digits.data() + digits.size(), *value, base);
  if (r.ptr == digits.data() + digits.size() && !digits.empty()) {
    if (r.ec == std::errc()) return IntParse::kOk;
    if (r.ec == std::errc::result_out_of_range) return IntParse::kOutOfRange;
  }
  double d = 0;
  if (!parse_double(s, &d) || std::floor(d) != d) return IntParse::kNotInteger;
  if (d < static_cast<double>(std::numeric_limits<T>::min()) || d >= std::ldexp(1.0, std::numeric_limits<T>::digits))
    return IntParse::kOutOfRange;
  *value = static_cast<T>(d);
  return IntParse::kOk;
}

std::string kind_name(Kind kind) {
  switch (kind) {
    case Kind::kNull:
      return "nothing";
    case Kind::kScalar:
      return "a single value";
    case Kind::kSequence:
      return "a list";
    case Kind::kMap:
      return "a mapping";
    case Kind::kAlias:
      break;
  }
  return "an alias";
}

std::string shown(std::string_view text) {
  constexpr size_t kMost = 80;
  return json_quote(text.size() > kMost ? std::string(text.substr(0, kMost)) + "..." : std::string(text));
}

std::string camel_to_snake(std::string_view name) {
  std::string out;
  for (char c : name) {
    if (c >= 'A' && c <= 'Z') {
      out += '_';
      out += static_cast<char>(c + 32);
    } else {
      out += c;
    }
  }
  return out;
}

// Bytes that do not depend on the order of a hash map, so that equal messages are equal bytes.
std::string serialize(const Message& m) {
  std::string out;
  {
    google::protobuf::io::StringOutputStream stream(&out);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    m.SerializeToCodedStream(&coded);
  }
  return out;
}

}  // namespace

void ProtoMapper::complain(YamlTree::Id at, const std::string& full_path, std::string message) {
  errors_->push_back({file_, tree_.line(at), tree_.column(at), full_path, std::move(message)});
}

void ProtoMapper::error(YamlTree::Id at, const Place& place, std::string message) {
  std::string full = prefix_;
  const std::string rest = place.path.to_string();
  if (!full.empty() && !rest.empty()) full += '.';
  complain(at, full + rest, std::move(message));
}

const FieldDescriptor* ProtoMapper::find_field(const Descriptor* in, std::string_view name) const {
  const std::string n(name);
  if (const FieldDescriptor* f = in->FindFieldByName(n)) return f;
  const FieldDescriptor* f = in->FindFieldByCamelcaseName(n);
  return f != nullptr && f->json_name() == n ? f : nullptr;
}

void ProtoMapper::unknown_field(YamlTree::Id key, const Descriptor* in, const std::string& parent_path) {
  const std::string name(tree_.text(key));
  const std::string path = parent_path.empty() ? name : parent_path + "." + name;
  if (envoy_has(in->full_name(), camel_to_snake(name))) return complain(key, path, "not supported by Millrace yet");
  std::vector<std::string> known;
  for (int i = 0; i < in->field_count(); ++i) known.push_back(in->field(i)->name());
  const std::string near = nearest(name, known);
  complain(key, path, "unknown field" + (near.empty() ? " of " + in->name() : ": did you mean " + near + "?"));
}

const Descriptor* ProtoMapper::type_of(YamlTree::Id node, const std::string& path, bool required) {
  YamlError ignored;
  for (const YamlTree::Entry& e : tree_.entries(node, &ignored)) {
    if (tree_.text(e.key) != "@type") continue;
    const std::string url(tree_.text(e.value));
    const size_t slash = url.rfind('/');
    const std::string name = slash == std::string::npos ? "" : url.substr(slash + 1);
    if (const Descriptor* d = find_message(name)) return d;
    if (slash == std::string::npos)
      complain(e.value, path + ".@type", "must be a type URL such as \"type.googleapis.com/envoy.config.cluster.v3.Cluster\"");
    else complain(e.value, path + ".@type", name + " is not supported by Millrace" + (name.starts_with("envoy.") ? " yet" : ""));
    return nullptr;
  }
  if (required) complain(node, path, "must say what it is with \"@type\"");
  return nullptr;
}

std::vector<YamlTree::Entry> ProtoMapper::entries(YamlTree::Id map, const Place& at) {
  YamlError bad;
  std::vector<YamlTree::Entry> out = tree_.entries(map, &bad);
  if (!bad.message.empty()) error(map, at, bad.message);
  return out;
}

bool ProtoMapper::within_budget(YamlTree::Id node, const Place& at) {
  if (++visited_ <= tree_.size() + kMaxAliasedNodes) return true;
  if (!over_budget_)
    error(node, at, "aliases make this document larger than " + std::to_string(kMaxAliasedNodes) + " nodes beyond its text");
  over_budget_ = true;
  return false;
}

std::shared_ptr<const SourceMap> ProtoMapper::map_object(YamlTree::Id node, const std::string& prefix, Message* message) {
  auto source = std::make_shared<SourceMap>(file_, prefix, tree_.line(node), tree_.column(node));
  source_ = source.get();
  prefix_ = prefix;
  const Path root;
  map_message(node, message, {root, SourceMap::kRoot}, nullptr, true);
  source_ = nullptr;
  return source;
}

void ProtoMapper::map_message(YamlTree::Id node, Message* message, const Place& at, const Field* any_of, bool skip_type) {
  const Descriptor* d = message->GetDescriptor();
  if (!within_budget(node, at)) return;
  if (is(d, "google.protobuf.Duration")) return map_duration(node, message, at);
  if (is(d, "google.protobuf.Any")) return map_any(node, message, at, any_of);
  if (is(d, "google.protobuf.Struct")) return map_struct(node, message, at);
  if (is(d, "google.protobuf.Value")) return map_value(node, message, at);
  if (is_wrapper(d)) {
    set_scalar(node, message, d->field(0), false, at);
    return;
  }
  if (tree_.kind(node) != Kind::kMap)
    return error(node, at, "expected a mapping with the fields of " + d->name() + ", found " + kind_name(tree_.kind(node)));

  struct Seen {
    const FieldDescriptor* field;
    YamlTree::Id key;
  };
  std::vector<Seen> seen;
  for (const YamlTree::Entry& e : entries(node, at)) {
    const std::string_view name = tree_.text(e.key);
    if (tree_.kind(e.key) != Kind::kScalar) {
      error(e.key, at, "a field name must be a single word");
      continue;
    }
    if (skip_type && name == "@type") continue;
    const FieldDescriptor* field = find_field(d, name);
    if (field == nullptr) {
      std::string full = prefix_;
      const std::string rest = at.path.to_string();
      if (!full.empty() && !rest.empty()) full += '.';
      unknown_field(e.key, d, full + rest);
      continue;
    }
    const bool scalar_value = tree_.kind(e.value) == Kind::kScalar;
    const Path path(at.path, field->name());
    const YamlTree::Id mark = scalar_value ? e.value : e.key;
    const Place place{path, source_->add(at.source, {field->name()}, tree_.line(mark), tree_.column(mark))};
    bool usable = true;
    for (const Seen& s : seen) {
      if (s.field == field) {
        error(e.key, place, "given twice; first in line " + std::to_string(tree_.line(s.key)));
        usable = false;
      } else if (field->real_containing_oneof() != nullptr &&
                 s.field->real_containing_oneof() == field->real_containing_oneof()) {
        error(e.key, place,
              "cannot be combined with " + s.field->name() + " (line " + std::to_string(tree_.line(s.key)) +
                  "): only one of them may be set");
        usable = false;
      }
    }
    if (tree_.kind(e.value) == Kind::kNull && !(field->message_type() && is(field->message_type(), "google.protobuf.Value")))
      continue;  // proto3 JSON: null is the field's default
    seen.push_back({field, e.key});
    if (usable) map_field(e.value, message, field, place);
  }
}

void ProtoMapper::map_field(YamlTree::Id value, Message* message, const FieldDescriptor* field, const Place& at) {
  const google::protobuf::Reflection* r = message->GetReflection();
  if (field->is_map()) return map_map(value, message, field, at);
  if (!field->is_repeated()) {
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE)
      map_message(value, r->MutableMessage(message, field), at, field, false);
    else set_scalar(value, message, field, false, at);
    return;
  }
  if (tree_.kind(value) != Kind::kSequence)
    return error(value, at,
                 "expected a list, found " + kind_name(tree_.kind(value)) +
                     (tree_.kind(value) == Kind::kScalar ? ": write [" + std::string(tree_.text(value)) + "]" : ""));
  int32_t index = 0;
  for (YamlTree::Id element : tree_.elements(value)) {
    const Path path(*at.path.parent(), field->name(), index);
    const Place place{path, source_->add(at.source, {field->name(), index}, tree_.line(element), tree_.column(element))};
    ++index;
    if (tree_.kind(element) == Kind::kNull) {
      error(element, place, "an element of a list cannot be null");
      continue;
    }
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE)
      map_message(element, r->AddMessage(message, field), place, field, false);
    else set_scalar(element, message, field, true, place);
  }
}

void ProtoMapper::map_map(YamlTree::Id value, Message* message, const FieldDescriptor* field, const Place& at) {
  if (tree_.kind(value) != Kind::kMap) return error(value, at, "expected a mapping, found " + kind_name(tree_.kind(value)));
  const google::protobuf::Reflection* r = message->GetReflection();
  const FieldDescriptor* key_field = field->message_type()->map_key();
  const FieldDescriptor* value_field = field->message_type()->map_value();
  std::vector<std::string> seen;
  for (const YamlTree::Entry& e : entries(value, at)) {
    const std::string key(tree_.text(e.key));
    const Path path(*at.path.parent(), field->name(), std::string_view(key));
    const Place place{path, source_->add(at.source, {field->name(), -1, key}, tree_.line(e.key), tree_.column(e.key))};
    bool twice = false;
    for (const std::string& s : seen) twice = twice || s == key;
    seen.push_back(key);
    if (twice) {
      error(e.key, place, "given twice");
      continue;
    }
    Message* entry = r->AddMessage(message, field);
    entry->GetReflection()->SetString(entry, key_field, key);  // all our maps have string keys
    if (value_field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE)
      map_message(e.value, entry->GetReflection()->MutableMessage(entry, value_field), place, field, false);
    else set_scalar(e.value, entry, value_field, false, place);
  }
}

void ProtoMapper::map_any(YamlTree::Id node, Message* any, const Place& at, const Field* any_of) {
  const std::string full = prefix_ + (prefix_.empty() || at.path.parent() == nullptr ? "" : ".") + at.path.to_string();
  if (tree_.kind(node) != Kind::kMap)
    return error(node, at, "expected a mapping with \"@type\", found " + kind_name(tree_.kind(node)));
  const size_t before = errors_->size();
  const Descriptor* d = type_of(node, full, false);
  std::vector<std::string> allowed;
  bool fits = false;
  if (any_of != nullptr) {
    for (const Descriptor* a : extensions_of(any_of)) {
      allowed.push_back(a->full_name());
      fits = fits || a == d;
    }
  }
  if (d == nullptr && errors_->size() == before)
    return error(node, at, "must say what it is with \"@type\": " + list_of(allowed));
  if (d == nullptr || !fits) {
    if (d != nullptr) error(node, at, d->full_name() + " does not belong here");
    errors_->back().message += "; supported here: " + list_of(allowed);
    return;
  }
  std::unique_ptr<Message> inner(google::protobuf::MessageFactory::generated_factory()->GetPrototype(d)->New());
  map_message(node, inner.get(), at, nullptr, true);
  auto* out = static_cast<google::protobuf::Any*>(any);
  out->set_type_url("type.googleapis.com/" + d->full_name());
  out->set_value(serialize(*inner));
}

void ProtoMapper::map_struct(YamlTree::Id node, Message* message, const Place& at) {
  if (tree_.kind(node) != Kind::kMap) return error(node, at, "expected a mapping, found " + kind_name(tree_.kind(node)));
  auto* fields = static_cast<google::protobuf::Struct*>(message)->mutable_fields();
  for (const YamlTree::Entry& e : entries(node, at)) {
    const std::string key(tree_.text(e.key));
    const Path path(at.path, key);
    const Place place{path, source_->add(at.source, {key}, tree_.line(e.key), tree_.column(e.key))};
    if (fields->contains(key)) {
      error(e.key, place, "given twice");
      continue;
    }
    map_value(e.value, &(*fields)[key], place);
  }
}

void ProtoMapper::map_value(YamlTree::Id node, Message* message, const Place& at) {
  if (!within_budget(node, at)) return;
  auto* value = static_cast<google::protobuf::Value*>(message);
  switch (tree_.kind(node)) {
    case Kind::kMap:
      return map_struct(node, value->mutable_struct_value(), at);
    case Kind::kSequence: {
      value->mutable_list_value();
      for (YamlTree::Id e : tree_.elements(node)) map_value(e, value->mutable_list_value()->add_values(), at);
      return;
    }
    case Kind::kScalar: {
      const std::string_view text = tree_.text(node);
      bool b = false;
      double n = 0;
      if (tree_.quoted(node)) value->set_string_value(std::string(text));
      else if (bool_word(text, &b)) value->set_bool_value(b);
      else if (parse_double(text, &n)) value->set_number_value(n);
      else value->set_string_value(std::string(text));
      return;
    }
    default:
      value->set_null_value(google::protobuf::NULL_VALUE);
  }
}

void ProtoMapper::map_duration(YamlTree::Id node, Message* message, const Place& at) {
  constexpr int64_t kMaxSeconds = 315'576'000'000;  // google.protobuf.Duration: about 10,000 years
  const std::string_view text = tree_.text(node);
  const char* form = "expected a duration in seconds such as \"5s\" or \"0.25s\"";
  std::string_view s = text;
  const bool negative = s.starts_with('-');
  if (negative) s.remove_prefix(1);
  if (tree_.kind(node) != Kind::kScalar) return error(node, at, std::string(form) + ", found " + kind_name(tree_.kind(node)));
  std::string hint;
  int64_t seconds = 0;
  int32_t nanos = 0;
  double number = 0;
  if (parse_double(text, &number)) hint = ": the unit is missing, write " + std::string(text) + "s";
  else if (s.ends_with("ms") && parse_double(s.substr(0, s.size() - 2), &number)) {
    char buf[40];
    snprintf(buf, sizeof buf, "%.9g", number / 1000);
    hint = ": write " + std::string(negative ? "-" : "") + buf + "s";
  }
  if (!s.ends_with('s')) return error(node, at, form + (", not " + shown(text)) + hint);
  s.remove_suffix(1);
  const size_t dot = s.find('.');
  const std::string_view whole = s.substr(0, dot);
  const auto w = std::from_chars(whole.data(), whole.data() + whole.size(), seconds);
  bool ok = !whole.empty() && isdigit(static_cast<unsigned char>(whole[0])) && w.ptr == whole.data() + whole.size();
  if (ok && dot != std::string_view::npos) {
    const std::string_view fraction = s.substr(dot + 1);
    ok = !fraction.empty() && fraction.size() <= 9;
    int32_t scale = 100'000'000;
    for (char c : fraction) {
      ok = ok && c >= '0' && c <= '9';
      nanos += (c - '0') * scale;
      scale /= 10;
    }
  }
  if (!ok) return error(node, at, form + (", not " + shown(text)) + hint);
  if (w.ec != std::errc() || seconds > kMaxSeconds)
    return error(node, at,
                 "a duration of " + std::string(text) + " is out of range: at most " + std::to_string(kMaxSeconds) + "s");
  auto* duration = static_cast<google::protobuf::Duration*>(message);
  duration->set_seconds(negative ? -seconds : seconds);
  duration->set_nanos(negative ? -nanos : nanos);
}

bool ProtoMapper::set_enum(YamlTree::Id node, Message* message, const FieldDescriptor* field, bool add, const Place& at) {
  const google::protobuf::EnumDescriptor* type = field->enum_type();
  const std::string_view text = tree_.text(node);
  const google::protobuf::EnumValueDescriptor* value = nullptr;
  int32_t number = 0;
  for (int i = 0; i < type->value_count() && value == nullptr; ++i) {
    const std::string& name = type->value(i)->name();
    const bool same = name.size() == text.size() &&
                      std::equal(name.begin(), name.end(), text.begin(), [](char a, char b) { return toupper(a) == toupper(b); });
    if (same) value = type->value(i);  // Envoy takes enum names in any case
  }
  if (value == nullptr && !tree_.quoted(node) && parse_int(text, &number) == IntParse::kOk)
    value = type->FindValueByNumber(number);
  if (value == nullptr) {
    std::vector<std::string> names;
    for (int i = 0; i < type->value_count(); ++i) names.push_back(type->value(i)->name());
    std::string upper;
    for (char c : text) upper += static_cast<char>(toupper(c));
    error(node, at,
          shown(text) +
              (envoy_has(type->full_name(), upper) || envoy_has(type->full_name(), text) ? " is not supported by Millrace yet"
                                                                                         : " is no value of " + type->name()) +
              "; " + (names.size() == 1 ? "the only choice is " : "use ") + list_of(names));
    return false;
  }
  const google::protobuf::Reflection* r = message->GetReflection();
  if (add) r->AddEnum(message, field, value);
  else r->SetEnum(message, field, value);
  return true;
}

bool ProtoMapper::set_scalar(YamlTree::Id node, Message* message, const FieldDescriptor* field, bool add, const Place& at) {
  ++visited_;
  const google::protobuf::Reflection* r = message->GetReflection();
  const std::string_view text = tree_.text(node);
  auto expected = [&](const std::string& what) {
    error(node, at,
          "expected " + what + ", found " + (tree_.kind(node) == Kind::kScalar ? shown(text) : kind_name(tree_.kind(node))));
    return false;
  };
  auto integer = [&](auto zero, auto set) {
    using T = decltype(zero);
    T v = 0;
    const std::string range = "an integer from " + std::to_string(std::numeric_limits<T>::min()) + " to " +
                              std::to_string(std::numeric_limits<T>::max());
    if (tree_.kind(node) != Kind::kScalar || parse_int(text, &v) != IntParse::kOk) return expected(range);
    set(v);
    return true;
  };
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL: {
      bool v = false;
      const bool plain = !tree_.quoted(node) || text == "true" || text == "false";
      if (tree_.kind(node) != Kind::kScalar || !plain || !bool_word(text, &v)) return expected("true or false");
      if (add) r->AddBool(message, field, v);
      else r->SetBool(message, field, v);
      return true;
    }
    case FieldDescriptor::CPPTYPE_INT32:
      return integer(int32_t{}, [&](int32_t v) { add ? r->AddInt32(message, field, v) : r->SetInt32(message, field, v); });
    case FieldDescriptor::CPPTYPE_INT64:
      return integer(int64_t{}, [&](int64_t v) { add ? r->AddInt64(message, field, v) : r->SetInt64(message, field, v); });
    case FieldDescriptor::CPPTYPE_UINT32:
      return integer(uint32_t{}, [&](uint32_t v) { add ? r->AddUInt32(message, field, v) : r->SetUInt32(message, field, v); });
    case FieldDescriptor::CPPTYPE_UINT64:
      return integer(uint64_t{}, [&](uint64_t v) { add ? r->AddUInt64(message, field, v) : r->SetUInt64(message, field, v); });
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double v = 0;
      if (tree_.kind(node) != Kind::kScalar || !parse_double(text, &v)) return expected("a number");
      if (add) r->AddDouble(message, field, v);
      else r->SetDouble(message, field, v);
      return true;
    }
    case FieldDescriptor::CPPTYPE_FLOAT: {
      double v = 0;
      if (tree_.kind(node) != Kind::kScalar || !parse_double(text, &v)) return expected("a number");
      if (add) r->AddFloat(message, field, static_cast<float>(v));
      else r->SetFloat(message, field, static_cast<float>(v));
      return true;
    }
    case FieldDescriptor::CPPTYPE_ENUM:
      if (tree_.kind(node) != Kind::kScalar) return expected("one word");
      return set_enum(node, message, field, add, at);
    case FieldDescriptor::CPPTYPE_STRING: {
      if (tree_.kind(node) != Kind::kScalar) return expected("a string");
      std::string v(text);
      bool b = false;
      double n = 0;
      if (!tree_.quoted(node) && (bool_word(text, &b) || parse_double(text, &n))) {  // Envoy refuses these too
        error(node, at,
              "expected a string, but a plain " + v + " is a " + (bool_word(text, &b) ? "boolean" : "number") +
                  " in YAML: write \"" + v + "\"");
        return false;
      }
      if (field->type() == FieldDescriptor::TYPE_BYTES) {
        if (!base64_decode(text, &v)) return expected("base64");
      } else if (v.find('\0') != std::string::npos) {
        error(node, at, "must not contain a NUL character");
        return false;
      } else if (!is_utf8(v)) {
        error(node, at, "must be UTF-8");
        return false;
      }
      if (add) r->AddString(message, field, v);
      else r->SetString(message, field, v);
      return true;
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
  return false;
}

}  // namespace millrace::control
