// What can be said about a virtual host without compiling it. Control only.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/route/compiler.h"
#include "lib/route/regex_syntax.h"

namespace millrace::route {

// Translations, remembered: RE2 is asked about an expression once.
class TranslationCache {
 public:
  const TranslatedRegex& get(const std::string& expression) {
    const auto it = cache_.find(expression);
    return it != cache_.end() ? it->second : cache_.emplace(expression, translate_re2(expression)).first->second;
  }
  size_t size() const { return cache_.size(); }
  void clear() { cache_.clear(); }

 private:
  std::unordered_map<std::string, TranslatedRegex> cache_;
};

std::vector<SpecError> check_spec(const VirtualHostSpec& spec, TranslationCache& translations);

// Where an expression stands: "routes[3].match.headers[0].string_match.safe_regex.regex".
std::string path_field(uint32_t route, const RouteSpec& spec);
std::string matcher_field(uint32_t route, bool query, uint32_t matcher);
std::string origin_field(uint32_t route, const CorsSpec& cors, uint32_t origin);
std::string route_label(uint32_t index, const RouteSpec& route);

}  // namespace millrace::route
