// Each file of manifests/ becomes exactly what FILE.expect says: the errors of the text, or the conditions of its objects and the
// resources made of them, which the model and the compiler must take. @CERT@ and @KEY@ stand for a certificate made for the run,
// indented as the line is. MILLRACE_WRITE_EXPECTED=1 writes what came out, to be read before it is committed.
#include <algorithm>
#include <cstdlib>
#include <ctime>

#include "control/compile.h"
#include "control/json_text.h"
#include "control/manifests/apply.h"
#include "control/manifests/build.h"
#include "tests/unit/control/config_fixture.h"

namespace millrace::control {
namespace {

using manifests::Objects;
using manifests::Parsed;

std::string replace_all(std::string text, const std::string& what, const std::string& with) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size()) text.replace(at, what.size(), with);
  return text;
}

std::string conditions_of(const std::vector<manifests::ObjectStatus>& status) {
  std::string out;
  for (const auto& s : status)
    for (const auto& c : s.conditions)
      out += s.key + (s.about.empty() ? "" : " (" + s.about + ")") + ": " + c.type + "=" + c.status + " " + c.reason +
             (c.message.empty() ? "" : ": " + c.message) + "\n";
  return out;
}

class Manifests : public ConfigTest, public testing::WithParamInterface<std::filesystem::path> {};

std::string outcome(const std::string& text, const std::string& file) {
  const Parsed parsed = manifests::parse(text, file);
  if (!parsed.errors.empty()) return to_text(parsed.errors);
  Objects objects;
  for (const auto& o : parsed.objects) objects[o->key()] = o;
  const auto made = manifests::translate(objects, std::time(nullptr));
  std::string out = conditions_of(made.status) + "---\n";
  for (const LoadedObject& o : made.objects) out += to_yaml(*o.message, true) + "---\n";

  const ModelEdit edit = manifests::edit({}, parsed.objects, {}, false, std::time(nullptr));
  EXPECT_EQ(errors_of(edit), "");
  EXPECT_EQ(to_text(Compiler().compile(edit.model).errors), "");
  return out;
}

TEST_P(Manifests, BecomeWhatIsExpected) {
  const std::filesystem::path file = GetParam();
  if (file.extension() != ".yaml") GTEST_SKIP() << "expected outcome of another file";
  const std::string cert = read_file("cert.pem"), key = read_file("key.pem");
  std::string text = replace_all(read_file(file), "@CERT@", base64_encode(cert));
  text = replace_all(text, "@KEY@", base64_encode(key));
  std::string out = outcome(text, file.filename().string());
  const auto quoted = [](const std::string& pem) { return json_quote(pem).substr(1, json_quote(pem).size() - 2); };
  out = replace_all(replace_all(out, quoted(cert), "@CERT@"), quoted(key), "@KEY@");
  std::filesystem::path expected = file;
  expected.replace_extension(".expect");
  if (std::getenv("MILLRACE_WRITE_EXPECTED") != nullptr) std::ofstream(expected) << out;
  EXPECT_EQ(out, read_file(expected));
}

std::string test_name(const testing::TestParamInfo<std::filesystem::path>& info) {
  std::string name = info.param.filename().string();
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  return name;
}
INSTANTIATE_TEST_SUITE_P(Files, Manifests, testing::ValuesIn(files_in("manifests")), test_name);

// One object more, one less: the rest keeps its pointers, and what nothing is made of any more goes away.
class ManifestEdits : public ConfigTest {
 protected:
  static std::vector<std::shared_ptr<const manifests::Object>> objects(const std::string& yaml) {
    const Parsed parsed = manifests::parse(yaml, "more.yaml");
    EXPECT_EQ(to_text(parsed.errors), "");
    return parsed.objects;
  }
  static Model canary() {
    const ModelEdit e = manifests::edit({}, objects(read_file(data_directory() / "manifests" / "canary.yaml")), {}, false, 0);
    EXPECT_EQ(errors_of(e), "");
    return e.model;
  }
  static constexpr const char* kMore = R"(
apiVersion: v1
kind: Service
metadata: { name: nobody, namespace: store }
spec: { ports: [{ port: 80 }] }
)";
};

TEST_F(ManifestEdits, ASecondFileAddsToTheFirst) {
  const Model before = canary();
  const ModelEdit after = manifests::edit(before, objects(kMore), {}, false, 0);
  EXPECT_EQ(errors_of(after), "");
  EXPECT_EQ(after.model.manifests().size(), before.manifests().size() + 1);
  EXPECT_TRUE(after.model.clusters().contains("k8s/store/nobody:80"));
  EXPECT_EQ(after.model.clusters().at("k8s/store/web:80"), before.clusters().at("k8s/store/web:80"));
  const ModelEdit back = manifests::edit(after.model, {}, {"Service/store/nobody"}, false, 0);
  EXPECT_EQ(errors_of(back), "");
  EXPECT_TRUE(Model::diff(before, back.model).empty()) << to_text(Model::diff(before, back.model));
}

TEST_F(ManifestEdits, NothingIsLeftOfTheLast) {
  const Model before = canary();
  std::vector<std::string> all;
  for (const auto& [name, m] : before.manifests()) all.push_back(name);
  const ModelEdit after = manifests::edit(before, {}, all, false, 0);
  EXPECT_EQ(errors_of(after), "");
  EXPECT_TRUE(Model::diff(Model(), after.model).empty()) << to_text(Model::diff(Model(), after.model));
}

TEST_F(ManifestEdits, ReplaceLeavesObjectsOfOtherOrigin) {
  Model mixed = model_of(gateway_yaml("- { match: { prefix: / }, route: { cluster: api } }"));
  const ModelEdit first =
      manifests::edit(mixed, objects(read_file(data_directory() / "manifests" / "canary.yaml")), {}, false, 0);
  const ModelEdit second = manifests::edit(first.model, objects(kMore), {}, true, 0);
  EXPECT_EQ(errors_of(second), "");
  EXPECT_EQ(second.model.manifests().size(), 1u);
  EXPECT_EQ(second.model.listeners().at("edge"), mixed.listeners().at("edge"));
  EXPECT_FALSE(second.model.listeners().contains("k8s/10.0.0.1:80"));
}

TEST_F(ManifestEdits, ADifferenceShowsFieldsAndNoSecrets) {
  const char* secret = "apiVersion: v1\nkind: Secret\nmetadata: { name: x }\nstringData: { password: \"%\" }\n";
  const ModelEdit a = manifests::edit({}, objects(replace_all(secret, "%", "hunter2")), {}, false, 0);
  const ModelEdit b = manifests::edit(a.model, objects(replace_all(secret, "%", "hunter3")), {}, false, 0);
  const std::string text = to_text(Model::diff(a.model, b.model));
  EXPECT_NE(text.find("~ manifest Secret/default/x: stringData.password: "), std::string::npos) << text;
  EXPECT_EQ(text.find("hunter"), std::string::npos) << text;
}

TEST_F(ManifestEdits, LinesAreThoseOfTheWholeText) {
  const Parsed parsed = manifests::parse(
      "# first\n---\napiVersion: v1\nkind: Service\nmetadata: { name: a }\nspec:\n  prots: []\n---\n---\nkind: x\n", "f.yaml");
  EXPECT_EQ(to_text(parsed.errors),
            "f.yaml:7:10: spec.prots: unknown field; did you mean \"ports\"?\n"
            "f.yaml:10:1: expected a Kubernetes object, with apiVersion and kind\n");
}

TEST(GatewayDurations, AreThoseOfGep2257) {
  EXPECT_EQ(manifests::duration_ms("1h30m"), 5'400'000);
  EXPECT_EQ(manifests::duration_ms("0s"), 0);
  EXPECT_EQ(manifests::duration_ms("2s500ms"), 2'500);
  for (const char* bad : {"", "1", "s", "1.5s", "-1s", "10 s", "123456s", "1d"}) EXPECT_FALSE(manifests::duration_ms(bad)) << bad;
}

TEST(Hostnames, MeetAsTheGatewayApiSays) {
  const auto meet = [](const char* a, const char* b) { return manifests::intersection(a, b).value_or("nothing"); };
  EXPECT_EQ(meet("", ""), "*");
  EXPECT_EQ(meet("", "a.test"), "a.test");
  EXPECT_EQ(meet("*.test", "a.b.test"), "a.b.test");
  EXPECT_EQ(meet("a.test", "*.test"), "a.test");
  EXPECT_EQ(meet("*.test", "test"), "nothing");
  EXPECT_EQ(meet("*.a.test", "*.test"), "*.a.test");
  EXPECT_EQ(meet("a.test", "b.test"), "nothing");
}

}  // namespace
}  // namespace millrace::control
