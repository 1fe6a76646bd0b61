// Every file of bad/ must be refused with exactly the errors that it announces: one "# expect: TEXT" line for each, TEXT being
// part of that error's line. (JSON has no comments: FILE.expect holds them.) No other error, no crash, and the model that was
// there stays.
#include <algorithm>
#include <sstream>

#include "control/compile.h"
#include "tests/unit/control/config_fixture.h"

namespace millrace::control {
namespace {

class BadConfig : public ConfigTest, public testing::WithParamInterface<std::filesystem::path> {};

std::vector<std::string> expected_errors(const std::filesystem::path& file) {
  std::filesystem::path sidecar = file;
  sidecar += ".expect";
  std::istringstream text(read_file(std::filesystem::exists(sidecar) ? sidecar : file));
  std::vector<std::string> out;
  for (std::string line; std::getline(text, line);)
    if (line.starts_with("# expect: ")) out.push_back(line.substr(10));
  return out;
}

TEST_P(BadConfig, IsRefusedWithExactlyTheseErrors) {
  const std::filesystem::path file = GetParam();
  const Document document = load_document(read_file(file), file.filename().string());
  const Model before = model_of(gateway_yaml("- { match: { prefix: / }, route: { cluster: api } }"));
  const ModelEdit edit = before.replace(document);
  ConfigErrors errors = edit.errors;
  if (errors.empty()) errors = Compiler().compile(edit.model).errors;

  std::vector<std::string> lines;
  for (const ConfigError& e : errors) {
    lines.push_back(e.to_string());
    EXPECT_EQ(e.file, file.filename().string()) << e.to_string();
    EXPECT_GT(e.line, 0u) << e.to_string();
    EXPECT_GT(e.column, 0u) << e.to_string();
  }
  const std::vector<std::string> expected = expected_errors(file);
  ASSERT_FALSE(expected.empty()) << "the file announces nothing";
  for (const std::string& want : expected) {
    const auto found =
        std::find_if(lines.begin(), lines.end(), [&](const std::string& l) { return l.find(want) != std::string::npos; });
    EXPECT_NE(found, lines.end()) << "missing: " << want << "\nfound:\n" << to_text(errors);
    if (found != lines.end()) lines.erase(found);
  }
  for (const std::string& left : lines) ADD_FAILURE() << "not announced: " << left;
}

std::string test_name(const testing::TestParamInfo<std::filesystem::path>& info) {
  std::string name = info.param.filename().string();
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Files, BadConfig, testing::ValuesIn(files_in("bad")), test_name);

// A good object beside a bad one is in the partial result; the bad one is what it was.
TEST_F(ConfigTest, OneBadObjectDoesNotBlockTheGoodOnes) {
  const Model before = model_of(gateway_yaml("- { match: { prefix: / }, route: { cluster: api } }"));
  const Document d = load_document(R"(
resources:
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: fresh
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: canary
  connect_timeout: -1s
)",
                                   "more.yaml");
  const ModelEdit edit = before.apply(d);
  EXPECT_EQ(errors_of(edit), "more.yaml:7:20: resources[1].connect_timeout: must not be negative\n");
  EXPECT_TRUE(edit.model.clusters().contains("fresh"));
  EXPECT_EQ(edit.model.clusters().at("canary"), before.clusters().at("canary"));
  EXPECT_EQ(edit.model.routes().at("main"), before.routes().at("main"));
}

// What depends on a bad object goes with it, without a second complaint.
TEST_F(ConfigTest, DependentsOfABadObjectAreLeftOutQuietly) {
  std::string yaml = gateway_yaml("- { match: { prefix: / }, route: { cluster: canary } }");
  yaml.replace(yaml.find("connect_timeout: 1s"), 19, "connect_timeout: 0s");
  const ModelEdit edit = Model().replace(load_document(yaml, "x.yaml"));
  ASSERT_EQ(edit.errors.size(), 1u) << errors_of(edit);
  EXPECT_TRUE(edit.model.listeners().empty());
  EXPECT_TRUE(edit.model.routes().empty());
  EXPECT_EQ(edit.model.names(ConfigKind::kCluster), std::vector<std::string>{"api"});
  EXPECT_EQ(edit.model.names(ConfigKind::kEndpoints), std::vector<std::string>{"api"});
}

}  // namespace
}  // namespace millrace::control
