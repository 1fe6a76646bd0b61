// objects.h promises: a reference field that is not listed in refs() fails a test. This reads the header as text, finds every
// Str, Blob and Array member of every struct, and compares with what refs() lists and with the names that the validator prints
// (ref_names.h).
#include <fstream>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/table/ref_names.h"

namespace millrace::table {
namespace {

struct Parsed {
  std::vector<std::string> references;        // members in order: Str, Blob, Array, and structs that hold such
  std::vector<std::string> listed;            // in refs(), in order
  std::map<std::string, std::string> nested;  // member -> struct type
};

std::map<std::string, Parsed> parse(const std::string& path) {
  std::stringstream all;
  for (const std::string& file : {path.substr(0, path.rfind('/') + 1) + "health_check.h", path}) {  // which it includes
    std::ifstream in(file);
    EXPECT_TRUE(in || file != path) << path;
    if (in) all << in.rdbuf();
  }
  // Comments and layout are nothing to go by.
  const std::string text = std::regex_replace(std::regex_replace(all.str(), std::regex("//[^\n]*"), ""), std::regex("\\s+"), " ");
  std::map<std::string, Parsed> out;
  std::vector<std::string> with_refs;
  static const std::regex head(R"(struct\s+(\w+)\s*\{)");
  for (std::sregex_iterator it(text.begin(), text.end(), head), end; it != end; ++it) {
    const std::string name = (*it)[1];
    size_t at = static_cast<size_t>(it->position() + it->length());
    std::string body;
    for (int depth = 1; depth > 0 && at < text.size(); ++at) {
      if (text[at] == '{') ++depth;
      if (text[at] == '}') --depth;
      body += text[at];
    }
    Parsed p;
    const size_t refs = body.find("template <class V> void refs");
    const std::string members = body.substr(0, refs);
    static const std::regex member(
        R"(([A-Za-z_][\w:]*(?:<[^;{}]*>)?)\s+(\w+(?:\s*=\s*[^;,]+)?(?:\s*,\s*\w+(?:\s*=\s*[^;,]+)?)*)\s*;)");
    for (std::sregex_iterator m(members.begin(), members.end(), member); m != std::sregex_iterator(); ++m) {
      const std::string type = (*m)[1], names = (*m)[2];
      const bool direct = type == "Str" || type == "Blob" || type.rfind("Array<", 0) == 0;
      const bool holds = out.count(type) != 0 && !out[type].references.empty();
      if (!direct && !holds) continue;
      static const std::regex word(R"((\w+)(?:\s*=\s*[^;,]+)?)");
      for (std::sregex_iterator w(names.begin(), names.end(), word); w != std::sregex_iterator(); ++w) {
        p.references.push_back((*w)[1]);
        if (holds) p.nested[(*w)[1]] = type;
      }
    }
    if (refs != std::string::npos) {
      static const std::regex call(R"(v\((\w+)\)|(\w+)\.refs\(v\))");
      const std::string list = body.substr(body.find('{', refs));
      for (std::sregex_iterator c(list.begin(), list.end(), call); c != std::sregex_iterator(); ++c)
        p.listed.push_back((*c)[1].matched ? (*c)[1].str() : (*c)[2].str());
    }
    out[name] = p;
  }
  return out;
}

// refs() of a struct with those of its nested structs put in, as the validator sees them.
std::vector<std::string> flatten(const std::map<std::string, Parsed>& all, const std::string& name) {
  std::vector<std::string> out;
  const Parsed& p = all.at(name);
  for (const std::string& member : p.listed) {
    const auto nested = p.nested.find(member);
    if (nested == p.nested.end()) {
      out.push_back(member);
      continue;
    }
    for (const std::string& inner : flatten(all, nested->second)) out.push_back(member + "." + inner);
  }
  return out;
}

struct Counter {
  int n = 0;
  template <class T>
  void operator()(const Array<T>&) {
    ++n;
  }
};

template <class T>
void compare(const std::map<std::string, Parsed>& all, const char* name) {
  const std::vector<std::string> named(std::begin(RefNames<T>::kNames), std::end(RefNames<T>::kNames));
  EXPECT_EQ(flatten(all, name), named) << "ref_names.h is not in step with refs() of " << name;
  Counter c;
  T{}.refs(c);
  EXPECT_EQ(static_cast<size_t>(c.n), named.size()) << name;
}

TEST(ObjectsHeader, EveryReferenceIsListed) {
  const auto all = parse(MILLRACE_OBJECTS_H);
  ASSERT_GE(all.size(), 20u) << "the parser of this test understood too little";
  size_t references = 0;
  for (const auto& [name, p] : all) {
    auto want = p.references, got = p.listed;
    std::sort(want.begin(), want.end());
    std::sort(got.begin(), got.end());
    EXPECT_EQ(want, got) << "struct " << name << ": its Str, Blob, Array members and refs() differ";
    references += want.size();
  }
  EXPECT_GE(references, 80u);
}

TEST(ObjectsHeader, TheParserSeesAMissingReference) {
  const std::string path = ::testing::TempDir() + "/objects_with_a_hole.h";
  std::ofstream(path) << "struct A { Str x; // Str comment;\n Array<Str> y, z; uint32_t n = 0; template <class V> void refs(V& "
                         "v) const { v(x); v(z); } };\n"
                         "struct B { A a; template <class V> void refs(V& v) const { } };\n";
  const auto all = parse(path);
  EXPECT_EQ(all.at("A").references, (std::vector<std::string>{"x", "y", "z"}));
  EXPECT_EQ(all.at("A").listed, (std::vector<std::string>{"x", "z"}));
  EXPECT_EQ(all.at("B").references, (std::vector<std::string>{"a"}));
  EXPECT_TRUE(all.at("B").listed.empty());
}

TEST(ObjectsHeader, NamesAreThoseOfRefs) {
  const auto all = parse(MILLRACE_OBJECTS_H);
  compare<ValueMatch>(all, "ValueMatch");
  compare<HeaderOption>(all, "HeaderOption");
  compare<WeightedCluster>(all, "WeightedCluster");
  compare<CorsPolicy>(all, "CorsPolicy");
  compare<RouteFilters>(all, "RouteFilters");
  compare<Route>(all, "Route");
  compare<RegexDb>(all, "RegexDb");
  compare<Regex>(all, "Regex");
  compare<VirtualHost>(all, "VirtualHost");
  compare<DomainEntry>(all, "DomainEntry");
  compare<RouteTable>(all, "RouteTable");
  compare<AccessLog>(all, "AccessLog");
  compare<FilterChain>(all, "FilterChain");
  compare<ServerNameEntry>(all, "ServerNameEntry");
  compare<Listener>(all, "Listener");
  compare<Cluster>(all, "Cluster");
  compare<Endpoint>(all, "Endpoint");
  compare<EndpointSet>(all, "EndpointSet");
  compare<Secret>(all, "Secret");
}

}  // namespace
}  // namespace millrace::table
