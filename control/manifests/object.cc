#include "control/manifests/object.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "control/config_loader.h"
#include "control/json_text.h"
#include "control/manifests/schema.h"
#include "control/yaml_tree.h"
#include "lib/base/hash.h"

namespace millrace::control::manifests {

namespace {

using Tree = YamlTree;

Value to_value(const Tree& tree, Tree::Id id, const std::string& file, ConfigErrors* errors, size_t* budget) {
  Value out;
  out.line = tree.line(id);
  out.column = tree.column(id);
  if (*budget == 0) return out;
  --*budget;
  switch (tree.kind(id)) {
    case Tree::Kind::kScalar:
      out.kind = Value::Kind::kScalar;
      out.text = tree.text(id);
      out.quoted = tree.quoted(id);
      break;
    case Tree::Kind::kSequence:
      out.kind = Value::Kind::kList;
      for (const Tree::Id e : tree.elements(id)) out.members.emplace_back("", to_value(tree, e, file, errors, budget));
      break;
    case Tree::Kind::kMap: {
      out.kind = Value::Kind::kMap;
      YamlError bad;
      for (const Tree::Entry& e : tree.entries(id, &bad)) {
        if (out.has(tree.text(e.key)))
          errors->push_back({file, tree.line(e.key), tree.column(e.key), std::string(tree.text(e.key)), "given twice"});
        else out.members.emplace_back(tree.text(e.key), to_value(tree, e.value, file, errors, budget));
      }
      if (!bad.message.empty()) errors->push_back({file, bad.line, bad.column, "", bad.message});
      break;
    }
    default:
      break;
  }
  return out;
}

// Documents of a YAML stream (YAML 1.2 9.2), each with as many empty lines before it as make its line numbers the text's.
std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> out;
  std::string current;
  size_t lines = 0;
  bool content = false;
  const auto end = [&] {
    if (content) out.push_back(std::move(current));
    current.assign(lines, '\n');
    content = false;
  };
  while (!text.empty()) {
    const size_t eol = text.find('\n');
    const std::string_view line = text.substr(0, eol);
    text.remove_prefix(eol == std::string_view::npos ? text.size() : eol + 1);
    ++lines;
    const std::string_view mark = line.substr(0, 3);
    if ((mark == "---" || mark == "...") &&
        (line.size() == 3 || std::string_view(" \t\r").find(line[3]) != std::string_view::npos)) {
      end();
      const size_t rest = line.find_first_not_of(" \t\r", 3);
      if (mark == "..." || rest == std::string_view::npos || line[rest] == '#') continue;
      current.pop_back();  // what follows stands on this line
      current += std::string(rest, ' ') + std::string(line.substr(rest)) + "\n";
      content = true;
      continue;
    }
    const size_t first = line.find_first_not_of(" \t\r");
    content = content || (first != std::string_view::npos && line[first] != '#');
    current += line;
    current += '\n';
  }
  end();
  return out;
}

class Reader {
 public:
  Reader(std::string file, Parsed* out) : file_(std::move(file)), out_(*out) {}

  void document(const std::string& text) {
    Tree tree;
    YamlError error;
    if (!tree.parse(text, false, kMaxDocumentDepth, &error)) return complain(error.line, error.column, "", error.message);
    size_t budget = tree.size() + kMaxAliasedNodes;
    const Value root = to_value(tree, tree.root(), file_, &out_.errors, &budget);
    if (budget == 0) return complain(0, 0, "", "aliases make it larger than " + std::to_string(kMaxAliasedNodes) + " values");
    if (root["kind"].text == "List" && root["apiVersion"].text == "v1") {
      for (const auto& [unused, item] : root["items"].members) object(item);
      return;
    }
    object(root);
  }

 private:
  void complain(uint32_t line, uint32_t column, std::string path, std::string message) {
    out_.errors.push_back({file_, line, column, std::move(path), std::move(message)});
  }
  void object(const Value& root) {
    if (root.kind == Value::Kind::kNull) return;
    if (!root.has("apiVersion") || !root.has("kind"))
      return complain(root.line, root.column, "", "expected a Kubernetes object, with apiVersion and kind");
    std::string why;
    const KindSchema* schema = find_schema(root["apiVersion"].text, root["kind"].text, &why);
    if (schema == nullptr) return complain(root["kind"].line, root["kind"].column, "kind", why);
    auto o = std::make_shared<Object>();
    o->file = file_;
    o->root = root;
    o->kind = schema->kind;
    const size_t before = out_.errors.size();
    check(*schema, o.get(), &out_.errors);
    const Value& meta = root["metadata"];
    o->name = meta["name"].text;
    o->created = meta["creationTimestamp"].text;
    const Value& ns = meta["namespace"];
    if (schema->namespaced) o->ns = ns.or_else("default");
    else if (ns.kind == Value::Kind::kScalar) complain(ns.line, ns.column, "metadata.namespace", o->kind + " has no namespace");
    for (const auto& [what, value] : {std::pair("metadata.name", &meta["name"]), std::pair("metadata.namespace", &ns)})
      if (value->kind == Value::Kind::kScalar && !is_name(value->text))
        complain(value->line, value->column, what, "\"" + value->text + "\" is no name: small letters, digits, - and . only");
    if (out_.errors.size() != before) return;
    if (!seen_.insert(o->key()).second)
      return complain(root.line, root.column, "metadata.name", "a second " + o->key() + " in one file");
    out_.objects.push_back(std::move(o));
  }
  // RFC 1123 subdomain.
  static bool is_name(const std::string& n) {
    return !n.empty() && n.size() <= 253 && n.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-.") == std::string::npos;
  }

  const std::string file_;
  Parsed& out_;
  std::set<std::string> seen_;
};

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

}  // namespace

const Value& Value::operator[](std::string_view name) const {
  static const Value none;
  for (const auto& [n, v] : members)
    if (n == name) return v;
  return none;
}

int64_t Value::number(int64_t fallback) const {
  int64_t n = 0;
  const auto r = std::from_chars(text.data(), text.data() + text.size(), n);
  return kind == Kind::kScalar && r.ec == std::errc() ? n : fallback;
}

std::string Object::key() const { return kind + "/" + (ns.empty() ? "" : ns + "/") + name; }

bool is_manifests(std::string_view text) {
  if (text.find("apiVersion") == std::string_view::npos) return false;
  const std::vector<std::string> documents = split(text);
  Tree tree;
  YamlError error;
  if (documents.empty()) return false;
  // What cannot be read is whose it looks like: the error comes from there.
  if (!tree.parse(documents.front(), false, kMaxDocumentDepth, &error))
    return text.starts_with("apiVersion:") || text.find("\napiVersion:") != std::string_view::npos;
  if (tree.kind(tree.root()) != Tree::Kind::kMap) return false;
  for (const Tree::Entry& e : tree.entries(tree.root(), &error))
    if (tree.text(e.key) == "apiVersion") return true;
  return false;
}

Parsed parse(std::string_view text, const std::string& file) {
  Parsed out;
  Reader reader(file, &out);
  if (text.size() > kMaxDocumentBytes) {
    out.errors.push_back({file, 0, 0, "", "larger than " + std::to_string(kMaxDocumentBytes >> 20) + " MiB"});
  } else {
    for (const std::string& document : split(text)) reader.document(document);
  }
  sort_errors(out.errors);
  return out;
}

std::string find_key(const Objects& objects, std::string_view written) {
  const std::string wanted = lower(written);
  for (const auto& [key, object] : objects)
    if (lower(key) == wanted) return key;
  return "";
}

std::string to_json(const Value& v) {
  std::string out;
  switch (v.kind) {
    case Value::Kind::kNull:
      return "null";
    case Value::Kind::kScalar: {
      int64_t n = 0;
      const auto r = std::from_chars(v.text.data(), v.text.data() + v.text.size(), n);
      const bool number = r.ec == std::errc() && r.ptr == v.text.data() + v.text.size() && std::to_string(n) == v.text;
      return !v.quoted && (number || v.text == "true" || v.text == "false") ? v.text : json_quote(v.text);
    }
    case Value::Kind::kList:
      for (const auto& [unused, e] : v.members) out += (out.empty() ? "" : ", ") + to_json(e);
      return "[" + out + "]";
    case Value::Kind::kMap:
      for (const auto& [name, e] : v.members) out += (out.empty() ? "" : ", ") + json_quote(name) + ": " + to_json(e);
      return "{" + out + "}";
  }
  return out;
}

Value redacted(const Object& object) {
  Value out = object.root;
  if (object.kind != "Secret") return out;
  for (auto& [name, value] : out.members) {
    if (name != "data" && name != "stringData") continue;
    for (auto& [key, secret] : value.members) {
      char hash[20];
      const int n = std::snprintf(hash, sizeof hash, "%016llx",
                                  static_cast<unsigned long long>(base::hash64(std::string_view(secret.text))));
      secret.text =
          "[redacted] " + std::to_string(secret.text.size()) + " bytes, hash " + std::string(hash, static_cast<size_t>(n));
      secret.quoted = true;
    }
  }
  return out;
}

}  // namespace millrace::control::manifests
