#include "control/yaml_tree.h"

#include <istream>
#include <streambuf>

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

namespace millrace::control {

namespace {

struct ViewBuffer : std::streambuf {
  explicit ViewBuffer(std::string_view text) {
    char* p = const_cast<char*>(text.data());  // streambuf's interface; never written
    setg(p, p, p + text.size());
  }
};

}  // namespace

YamlTree::Id YamlTree::append(Id parent, Kind kind, uint32_t line, uint32_t column) {
  const Id id = static_cast<Id>(nodes_.size());
  Node n;
  n.kind = kind;
  n.line = line;
  n.column = column;
  nodes_.push_back(n);
  if (parent == kNone) {
    root_ = id;
  } else {
    Node& p = nodes_[parent];
    if (p.last == kNone) p.first = id;
    else nodes_[p.last].next = id;
    p.last = id;
  }
  return id;
}

void YamlTree::set_text(Id id, std::string_view text) {
  nodes_[id].text = static_cast<uint32_t>(buffer_.size());
  nodes_[id].text_size = static_cast<uint32_t>(text.size());
  buffer_.append(text);
}

std::string_view YamlTree::text(Id id) const {
  const Node& n = nodes_[resolve(id)];
  return n.kind == Kind::kScalar ? std::string_view(buffer_).substr(n.text, n.text_size) : std::string_view();
}

std::vector<YamlTree::Id> YamlTree::elements(Id sequence) const {
  std::vector<Id> out;
  for (Id c = nodes_[resolve(sequence)].first; c != kNone; c = nodes_[c].next) out.push_back(c);
  return out;
}

// Merges of merges are followed this deep, and may bring this many entries in all: against merge bombs.
static constexpr int kMaxMergeDepth = 20;
static constexpr size_t kMaxMergedEntries = 10'000;

std::vector<YamlTree::Entry> YamlTree::entries(Id map, YamlError* error) const {
  std::vector<Entry> out;
  size_t budget = kMaxMergedEntries;
  collect(map, 0, &budget, &out, error);
  return out;
}

void YamlTree::collect(Id map, int depth, size_t* budget, std::vector<Entry>* out, YamlError* error) const {
  std::vector<Id> merged;  // maps, most important first
  const size_t own = out->size();
  for (Id key = nodes_[resolve(map)].first; key != kNone;) {
    const Id value = nodes_[key].next;
    if (kind(key) == Kind::kScalar && text(key) == "<<" && !quoted(key)) {
      auto take = [&](Id m) {
        if (kind(m) == Kind::kMap) merged.push_back(m);
        else *error = {line(m), column(m), "a merge key (<<) needs a mapping or a list of mappings"};
      };
      if (kind(value) == Kind::kSequence)
        for (Id e : elements(value)) take(e);
      else take(value);
    } else if (!ignored(key)) {
      bool known = false;  // a merged entry yields to one that is there; the map's own duplicates are the reader's to report
      for (size_t i = 0; depth > 0 && i < own && !known; ++i) known = text((*out)[i].key) == text(key);
      if (!known) out->push_back({key, value});
      if (depth > 0 && (*budget)-- == 0) {
        *error = {line(map), column(map), "merge keys bring in more than " + std::to_string(kMaxMergedEntries) + " entries"};
        *budget = 0;
        return;
      }
    }
    key = nodes_[value].next;
  }
  for (Id m : merged) {
    if (depth == kMaxMergeDepth)
      *error = {line(m), column(m), "merge keys nested deeper than " + std::to_string(kMaxMergeDepth) + " levels"};
    if (depth == kMaxMergeDepth || *budget == 0) return;
    --*budget;
    collect(m, depth + 1, budget, out, error);
  }
}

// ---- YAML -------------------------------------------------------------------------------------------------------------

class YamlBuilder : public YAML::EventHandler {
 public:
  YamlBuilder(YamlTree* tree, int max_depth) : tree_(tree), max_depth_(max_depth) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { add(mark, anchor, YamlTree::Kind::kNull); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (failed()) return;
    const YamlTree::Id target = anchor < anchors_.size() ? anchors_[anchor] : YamlTree::kNone;
    for (YamlTree::Id open : stack_) {
      if (open != target) continue;
      return fail(mark, "this alias refers to a node that contains it");
    }
    if (target == YamlTree::kNone) return fail(mark, "this alias refers to an anchor that does not exist");
    const YamlTree::Id id = add(mark, 0, YamlTree::Kind::kAlias);
    if (id != YamlTree::kNone) tree_->nodes_[id].text = tree_->resolve(target);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& value) override {
    const YamlTree::Id id = add(mark, anchor, YamlTree::Kind::kScalar);
    if (id == YamlTree::kNone) return;
    tree_->set_text(id, value);
    // yaml-cpp: "?" is a plain scalar, "!" a quoted one.
    tree_->nodes_[id].quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
    tree_->nodes_[id].ignored = tag == "!ignore";
    if (tag == "!") last_quoted_ = id;
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    open(add(mark, anchor, YamlTree::Kind::kSequence), mark);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    open(add(mark, anchor, YamlTree::Kind::kMap), mark);
  }
  void OnMapEnd() override { close(); }

  // yaml-cpp takes a quoted scalar that runs into the end of the text for complete. Only the last one can be such.
  void require_closing_quote(std::string_view text) {
    if (failed() || last_quoted_ == YamlTree::kNone) return;
    const YamlTree::Node& n = tree_->nodes_[last_quoted_];
    size_t at = 0;
    for (uint32_t line = 1; line < n.line && at != std::string_view::npos; ++line)
      at = text.find('\n', at) == std::string_view::npos ? std::string_view::npos : text.find('\n', at) + 1;
    if (at == std::string_view::npos || at + n.column > text.size()) return;
    at += n.column - 1;
    const char quote = text[at];
    if (quote != '"' && quote != '\'') return;
    for (++at; at < text.size(); ++at) {
      if (quote == '"' && text[at] == '\\') ++at;
      else if (text[at] == quote && quote == '\'' && text.substr(at + 1, 1) == "'") ++at;
      else if (text[at] == quote) return;
    }
    error_ = {n.line, n.column, "not well-formed YAML: this quoted text does not end"};
  }

  bool failed() const { return !error_.message.empty(); }
  const YamlError& error() const { return error_; }
  void fail(const YAML::Mark& mark, std::string message) {
    if (!failed()) error_ = {static_cast<uint32_t>(mark.line + 1), static_cast<uint32_t>(mark.column + 1), std::move(message)};
  }

 private:
  YamlTree::Id add(const YAML::Mark& mark, YAML::anchor_t anchor, YamlTree::Kind kind) {
    if (failed()) return YamlTree::kNone;
    const YamlTree::Id parent = stack_.empty() ? YamlTree::kNone : stack_.back();
    const YamlTree::Id id =
        tree_->append(parent, kind, static_cast<uint32_t>(mark.line + 1), static_cast<uint32_t>(mark.column + 1));
    if (anchor != 0) {
      if (anchors_.size() <= anchor) anchors_.resize(anchor + 1, YamlTree::kNone);
      anchors_[anchor] = id;
    }
    return id;
  }
  void open(YamlTree::Id id, const YAML::Mark& mark) {
    if (static_cast<int>(stack_.size()) >= max_depth_) fail(mark, "nested deeper than " + std::to_string(max_depth_) + " levels");
    stack_.push_back(id);
  }
  void close() {
    if (!stack_.empty()) stack_.pop_back();
  }

  YamlTree* tree_;
  int max_depth_;
  std::vector<YamlTree::Id> stack_;
  std::vector<YamlTree::Id> anchors_;
  YamlTree::Id last_quoted_ = YamlTree::kNone;
  YamlError error_;
};

// ---- JSON (RFC 8259) ----------------------------------------------------------------------------------------------------

class JsonReader {
 public:
  JsonReader(YamlTree* tree, std::string_view text, int max_depth) : tree_(tree), text_(text), max_depth_(max_depth) {}

  bool read(YamlError* error) {
    bool ok = value(YamlTree::kNone, 0);
    if (ok) {
      skip_space();
      if (at_ < text_.size()) ok = fail("unexpected text after the end of the JSON document");
    }
    if (!ok) *error = error_;
    return ok;
  }

 private:
  bool fail(const char* message) {
    error_ = {line_, column(), message};
    return false;
  }
  uint32_t column() const { return static_cast<uint32_t>(at_ - line_start_ + 1); }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void skip_space() {
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '\n') {
        ++line_;
        line_start_ = at_ + 1;
      } else if (c != ' ' && c != '\t' && c != '\r') {
        return;
      }
    }
  }

  bool value(YamlTree::Id parent, int depth) {
    if (depth > max_depth_) return fail("nested too deeply");
    skip_space();
    switch (peek()) {
      case '{':
        return container(parent, depth, YamlTree::Kind::kMap, '}');
      case '[':
        return container(parent, depth, YamlTree::Kind::kSequence, ']');
      case '"':
        return string(parent);
      default:
        return word(parent);
    }
  }
  bool container(YamlTree::Id parent, int depth, YamlTree::Kind kind, char end) {
    const YamlTree::Id id = tree_->append(parent, kind, line_, column());
    ++at_;
    skip_space();
    if (peek() == end) return ++at_, true;
    for (;;) {
      if (kind == YamlTree::Kind::kMap) {
        skip_space();
        if (peek() != '"') return fail("expected a field name in double quotes");
        if (!string(id)) return false;
        skip_space();
        if (peek() != ':') return fail("expected ':' after the field name");
        ++at_;
      }
      if (!value(id, depth + 1)) return false;
      skip_space();
      const char c = peek();
      if (c == end) return ++at_, true;
      if (c != ',') return fail(end == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
      ++at_;
    }
  }
  bool word(YamlTree::Id parent) {
    const size_t start = at_;
    const uint32_t column_of_word = column();
    while (at_ < text_.size() &&
           (isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '-' || text_[at_] == '+' || text_[at_] == '.'))
      ++at_;
    const std::string_view w = text_.substr(start, at_ - start);
    if (w == "null") {
      tree_->append(parent, YamlTree::Kind::kNull, line_, column_of_word);
      return true;
    }
    const bool number = !w.empty() && (isdigit(static_cast<unsigned char>(w[0])) || (w[0] == '-' && w.size() > 1));
    if (!number && w != "true" && w != "false") {
      at_ = start;
      return fail("expected a JSON value");
    }
    tree_->set_text(tree_->append(parent, YamlTree::Kind::kScalar, line_, column_of_word), w);
    return true;
  }
  bool string(YamlTree::Id parent) {
    const YamlTree::Id id = tree_->append(parent, YamlTree::Kind::kScalar, line_, column());
    tree_->nodes_[id].quoted = true;
    scratch_.clear();
    for (++at_; at_ < text_.size();) {
      const size_t plain = text_.find_first_of("\"\\\n", at_);
      if (plain == std::string_view::npos) break;
      scratch_.append(text_.substr(at_, plain - at_));
      at_ = plain;
      if (text_[at_] == '"') {
        ++at_;
        tree_->set_text(id, scratch_);
        return true;
      }
      if (text_[at_] == '\n') return fail("a JSON string must end on its line");
      if (!escape()) return false;
    }
    return fail("this JSON string does not end");
  }
  bool escape() {
    ++at_;
    const char c = peek();
    switch (c) {
      case '"':
      case '\\':
      case '/':
        scratch_ += c;
        break;
      case 'b':
        scratch_ += '\b';
        break;
      case 'f':
        scratch_ += '\f';
        break;
      case 'n':
        scratch_ += '\n';
        break;
      case 'r':
        scratch_ += '\r';
        break;
      case 't':
        scratch_ += '\t';
        break;
      case 'u':
        return unicode();
      default:
        return fail("unknown escape in a JSON string");
    }
    ++at_;
    return true;
  }
  bool hex4(uint32_t* out) {  // at_ is on the 'u'
    if (at_ + 4 >= text_.size()) return fail("a \\u escape needs four hexadecimal digits");
    uint32_t v = 0;
    for (int i = 1; i <= 4; ++i) {
      const char c = text_[at_ + i];
      if (!isxdigit(static_cast<unsigned char>(c))) return fail("a \\u escape needs four hexadecimal digits");
      v = v * 16 + static_cast<uint32_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    at_ += 5;
    *out = v;
    return true;
  }
  bool unicode() {
    uint32_t u = 0;
    if (!hex4(&u)) return false;
    if (u >= 0xd800 && u < 0xdc00) {  // a surrogate pair (RFC 8259 section 7)
      uint32_t low = 0;
      if (text_.substr(at_, 2) != "\\u") return fail("half of a surrogate pair");
      ++at_;
      if (!hex4(&low)) return false;
      if (low < 0xdc00 || low > 0xdfff) return fail("half of a surrogate pair");
      u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
    } else if (u >= 0xdc00 && u < 0xe000) {
      return fail("half of a surrogate pair");
    }
    if (u < 0x80) {
      scratch_ += static_cast<char>(u);
    } else if (u < 0x800) {
      scratch_ += static_cast<char>(0xc0 | u >> 6);
      scratch_ += static_cast<char>(0x80 | (u & 0x3f));
    } else if (u < 0x10000) {
      scratch_ += static_cast<char>(0xe0 | u >> 12);
      scratch_ += static_cast<char>(0x80 | (u >> 6 & 0x3f));
      scratch_ += static_cast<char>(0x80 | (u & 0x3f));
    } else {
      scratch_ += static_cast<char>(0xf0 | u >> 18);
      scratch_ += static_cast<char>(0x80 | (u >> 12 & 0x3f));
      scratch_ += static_cast<char>(0x80 | (u >> 6 & 0x3f));
      scratch_ += static_cast<char>(0x80 | (u & 0x3f));
    }
    return true;
  }

  YamlTree* tree_;
  std::string_view text_;
  size_t at_ = 0, line_start_ = 0;
  uint32_t line_ = 1;
  int max_depth_;
  std::string scratch_;
  YamlError error_;
};

bool YamlTree::parse(std::string_view text, bool json, int max_depth, YamlError* error) {
  nodes_.clear();
  buffer_.clear();
  root_ = kNone;
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (json || (first != std::string_view::npos && text[first] == '{')) {
    if (JsonReader(this, text, max_depth).read(error)) return true;
    if (json) return false;
    nodes_.clear();
    buffer_.clear();
    root_ = kNone;
  }
  ViewBuffer buffer(text);
  std::istream stream(&buffer);
  YamlBuilder builder(this, max_depth);
  try {
    YAML::Parser parser(stream);
    const bool any = parser.HandleNextDocument(builder);
    builder.require_closing_quote(text);
    if (!any || (root_ == kNone && !builder.failed())) {
      *error = {1, 1, "the document is empty"};
      return false;
    }
    if (!builder.failed()) {
      class Second : public YamlBuilder {
       public:
        using YamlBuilder::YamlBuilder;
        void OnDocumentStart(const YAML::Mark& mark) override { fail(mark, "a second document in one file: only one is read"); }
      } second(this, max_depth);
      parser.HandleNextDocument(second);
      if (second.failed()) {
        *error = second.error();
        return false;
      }
    }
  } catch (const YAML::Exception& e) {
    *error = {static_cast<uint32_t>(e.mark.line + 1), static_cast<uint32_t>(e.mark.column + 1), "not well-formed YAML: " + e.msg};
    return false;
  } catch (const std::exception& e) {
    *error = {1, 1, std::string("cannot be read: ") + e.what()};
    return false;
  }
  if (builder.failed()) {
    *error = builder.error();
    return false;
  }
  return true;
}

}  // namespace millrace::control
