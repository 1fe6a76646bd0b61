#include "lib/bootstrap/section_text.h"

#include <cctype>

namespace millrace::bootstrap {

namespace {

constexpr size_t kLarge = 1 << 20;

void blank(std::string& text, size_t from, size_t to) {
  for (size_t i = from; i < to; ++i)
    if (text[i] != '\n' && text[i] != '\r') text[i] = ' ';
}

// Behind the JSON value (or YAML flow value) that begins at `at`; npos when it does not end.
size_t behind_value(std::string_view text, size_t at) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = at; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      else if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return i;  // of what holds the value
      --depth;
    } else if (c == ',' && depth == 0) {
      return i;
    }
  }
  return std::string_view::npos;
}

// {"static_resources": …, "dataplane": …}
bool only_section_json(std::string& text) {
  size_t at = text.find('{') + 1;
  while (true) {
    at = text.find_first_not_of(" \t\r\n,", at);
    if (at == std::string::npos) return false;
    if (text[at] == '}') return true;
    if (text[at] != '"') return false;
    const size_t name_end = text.find('"', at + 1), colon = name_end == std::string::npos ? name_end : text.find(':', name_end);
    if (colon == std::string::npos) return false;
    const size_t end = behind_value(text, colon + 1);
    if (end == std::string::npos) return false;
    const bool mine = std::string_view(text).substr(at + 1, name_end - at - 1) == "dataplane";
    if (!mine) blank(text, at, text[end] == ',' ? end + 1 : end);
    at = end;
  }
}

// Block YAML: the section is its line at column 0 and the deeper (or empty) ones below.
bool only_section_block(std::string& text) {
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    const std::string_view line = std::string_view(text).substr(at, end - at);
    if (!line.empty() && line[0] != ' ' && line[0] != '#' && line[0] != '\r' && line[0] != '\t') {
      if (!isalpha(static_cast<unsigned char>(line[0])) && line[0] != '_') return false;  // markers, directives, quotes, lists
      inside = line.starts_with("dataplane:");
      if (inside && line.find_first_of("|>") != std::string_view::npos) return false;
    }
    if (!inside) blank(text, at, end);
    else if (line.find('*') != std::string_view::npos || line.find("<<") != std::string_view::npos) return false;
    at = end + 1;
  }
  return true;
}

}  // namespace

std::string section_text(std::string_view text) {
  std::string out(text);
  if (text.size() < kLarge) return out;
  const size_t first = text.find_first_not_of(" \t\r\n");
  const bool json = first != std::string_view::npos && text[first] == '{';
  if (json ? only_section_json(out) : only_section_block(out)) return out;
  return std::string(text);
}

}  // namespace millrace::bootstrap
