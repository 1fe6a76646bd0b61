#include "control/explain.h"

#include "tests/unit/control/config_fixture.h"

namespace millrace::control {
namespace {

class ExplainTest : public ConfigTest {
 protected:
  Explanation explain_in(const std::string& file, const ExplainRequest& request) {
    const Model m = model_of(read_file(data_directory() / "good" / file));
    Compiler c;
    EXPECT_EQ(to_text(c.compile(m).errors), "");
    return explain(m, c, request);
  }
};

// "what name" of every chosen step.
std::vector<std::string> chosen(const Explanation& e) {
  std::vector<std::string> out;
  for (const ExplainStep& s : e.steps)
    if (s.chosen) out.push_back(s.what + " " + s.name);
  return out;
}
using Way = std::vector<std::string>;

TEST_F(ExplainTest, RoutesOfEveryKind) {
  ExplainRequest q;
  q.authority = "shop.example:80";
  q.path = "/api/1";
  EXPECT_EQ(chosen(explain_in("routes.yaml", q)),
            (Way{"listener http", "filter chain chain-0", "route table table", "virtual host shop", "route separated",
                 "rewrite host", "cluster api", "answer 503"}));
  q.path = "/cart";
  const Explanation e = explain_in("routes.yaml", q);
  EXPECT_EQ(e.cluster, "api");
  EXPECT_EQ(e.response_flag, "UH") << "the cluster has no endpoints";
  q.path = "/split";
  EXPECT_EQ(explain_in("routes.yaml", q).cluster, "api, canary");
  q.path = "/old/x?y=1";
  const Explanation redirect = explain_in("routes.yaml", q);
  EXPECT_EQ(redirect.status, 308);
  EXPECT_NE(redirect.steps.back().why.find("/new/x"), std::string::npos) << redirect.to_text();
  q.path = "/nothing";
  const Explanation direct = explain_in("routes.yaml", q);
  EXPECT_EQ(direct.status, 503);
  EXPECT_EQ(direct.response_flag, "");
  size_t failed = 0;
  for (const ExplainStep& s : direct.steps) {
    EXPECT_FALSE(s.why.empty()) << s.name;
    failed += s.what == "route" && !s.chosen;
  }
  EXPECT_EQ(failed, 10u) << "each earlier route says why it failed\n" << direct.to_text();
}

TEST_F(ExplainTest, FilterChains) {
  ExplainRequest q;
  q.tls = true;
  const struct {
    const char* sni;
    const char* chain;
  } cases[] = {{"a.example", "a"},       {"A.EXAMPLE", "a"},       {"x.y.a.example", "a"},
               {"b.example", "chain-1"}, {"c.example", "default"}, {"", "default"}};
  for (const auto& c : cases) {
    q.sni = c.sni;
    q.authority = "a.example";
    const Explanation e = explain_in("tls.yaml", q);
    ASSERT_GE(e.steps.size(), 2u);
    EXPECT_EQ(e.steps[1].name, c.chain) << c.sni << "\n" << e.to_text();
  }
  q.sni = "x.pass.example";
  EXPECT_EQ(explain_in("tls.yaml", q).steps[1].name, "default") << "that chain wants an application protocol";
  q.alpn = {"h2"};
  EXPECT_EQ(explain_in("tls.yaml", q).steps[1].name, "passthrough");
  EXPECT_EQ(explain_in("tls.yaml", q).cluster, "api, backup");
}

TEST_F(ExplainTest, Ends) {
  ExplainRequest q;
  q.listener = "nope";
  EXPECT_EQ(explain_in("routes.yaml", q).steps.front().why, "there is no such listener");
  q.listener = "";
  q.port = 81;
  EXPECT_FALSE(explain_in("routes.yaml", q).steps.front().chosen);
  q.port = 80;
  q.authority = "else.example";
  const Explanation none = explain_in("routes.yaml", q);
  EXPECT_EQ(none.status == 404 || none.status == 301, true) << none.to_text();
  EXPECT_NE(none.to_json().find("\"steps\": [{\"what\": \"listener\""), std::string::npos);
}

}  // namespace
}  // namespace millrace::control
