// Filters of access logs and of local_reply_config, one by one and as trees.
#include "dataplane/log_filter.h"

#include <vector>

#include <gtest/gtest.h>

#include "lib/table/object_writer.h"

namespace millrace::dataplane {
namespace {

using table::LogFilter;
using table::LogFilterKind;
using table::LogFilterOp;
using table::StringMatchKind;

// Nodes as control writes them: strings lie in an object.
class Object {
 public:
  LogFilter node(LogFilterKind kind, uint64_t value = 0, LogFilterOp op = LogFilterOp::kEqual) {
    LogFilter f{};
    f.kind = kind;
    f.value = value;
    f.op = op;
    return f;
  }
  LogFilter header(std::string_view name, StringMatchKind kind, std::string_view value = "", bool invert = false,
                   bool fold = false) {
    LogFilter f = node(LogFilterKind::kHeader);
    f.header.name = writer_.string(name);
    f.header.value = writer_.string(value);
    f.header.kind = kind;
    f.header.invert = invert;
    f.header.ignore_case = fold;
    return f;
  }
  bool holds(const std::vector<LogFilter>& nodes, const LogFacts& facts) {
    table::AccessLog log{};
    table::ObjectWriter w = writer_;
    log.filter = w.array(nodes);
    table::Listener root{};
    root.port = 1;
    const auto blob = w.finish(root);
    EXPECT_TRUE(blob.ok());
    return filter_holds(blob->data(), log.filter, facts);
  }

 private:
  table::ObjectWriter writer_{table::Kind::kListener, "l"};
};

struct Request {
  http::Header storage[8];
  http::RequestHead head;
  Request() {
    head.method = "GET";
    head.path = "/p?q";
    head.authority = "a.test";
    head.headers = http::HeaderTable(storage, 8);
    head.headers.push({"x-log", "no", http::HeaderId::kOther});
    head.headers.push({"x-log", "Yes please", http::HeaderId::kOther});
    head.headers.push({"x-number", "17", http::HeaderId::kOther});
    head.headers.push({"x-empty", "", http::HeaderId::kOther});
  }
};

TEST(LogFilter, Each) {
  const Request request;
  LogFacts facts;
  facts.status = 503;
  facts.duration_ms = 20;
  facts.flags = 0b0110;
  facts.grpc_status = 14;
  facts.request = &request.head;
  facts.request_id = "0000000a-2222-4333-8444-555555555555";
  facts.random = 99;
  Object o;
  LogFilter sampled = o.node(LogFilterKind::kRuntime, 11);
  sampled.denominator = 100;
  LogFilter less = sampled;
  less.value = 10;
  LogFilter excluded = o.node(LogFilterKind::kGrpcStatus, uint64_t{1} << 14);
  excluded.exclude = 1;
  LogFilter range = o.header("x-number", StringMatchKind::kRange);
  range.header.range_start = 10, range.header.range_end = 18;
  LogFilter below = range;
  below.header.range_end = 17;
  LogFilter as_empty = o.header("x-none", StringMatchKind::kExact);
  as_empty.header.treat_missing_as_empty = 1;
  struct Case {
    const char* name;
    LogFilter filter;
    bool want;
  };
  for (const Case& c : {
           Case{"status at least", o.node(LogFilterKind::kStatus, 503, LogFilterOp::kAtLeast), true},
           Case{"status above", o.node(LogFilterKind::kStatus, 504, LogFilterOp::kAtLeast), false},
           Case{"status at most", o.node(LogFilterKind::kStatus, 502, LogFilterOp::kAtMost), false},
           Case{"status equal", o.node(LogFilterKind::kStatus, 503), true},
           Case{"slow", o.node(LogFilterKind::kDuration, 20, LogFilterOp::kAtLeast), true},
           Case{"slower", o.node(LogFilterKind::kDuration, 21, LogFilterOp::kAtLeast), false},
           Case{"no health check", o.node(LogFilterKind::kNotHealthCheck), true},
           Case{"traceable", o.node(LogFilterKind::kTraceable), false},
           Case{"sampled by id, 10 of 100 < 11", sampled, true},
           Case{"sampled by id, 10 of 100 < 10", less, false},
           Case{"any flag", o.node(LogFilterKind::kResponseFlag), true},
           Case{"this flag", o.node(LogFilterKind::kResponseFlag, 0b0010), true},
           Case{"another flag", o.node(LogFilterKind::kResponseFlag, 0b1001), false},
           Case{"grpc status", o.node(LogFilterKind::kGrpcStatus, uint64_t{1} << 14 | 1), true},
           Case{"another grpc status", o.node(LogFilterKind::kGrpcStatus, uint64_t{1} << 13), false},
           Case{"grpc status excluded", excluded, false},
           Case{"log type", o.node(LogFilterKind::kLogType, uint64_t{1} << 6), true},
           Case{"another log type", o.node(LogFilterKind::kLogType, uint64_t{1} << 3), false},
           Case{"header present", o.header("x-log", StringMatchKind::kPresent), true},
           Case{"header absent", o.header("x-none", StringMatchKind::kPresent), false},
           Case{"header not there, inverted", o.header("x-none", StringMatchKind::kPresent, "", true), true},
           Case{"header there, inverted", o.header("x-log", StringMatchKind::kPresent, "", true), false},
           Case{"second value", o.header("x-log", StringMatchKind::kPrefix, "Yes"), true},
           Case{"case counts", o.header("x-log", StringMatchKind::kPrefix, "yes"), false},
           Case{"case does not count", o.header("x-log", StringMatchKind::kPrefix, "yes", false, true), true},
           Case{"suffix", o.header("x-log", StringMatchKind::kSuffix, "please"), true},
           Case{"contains", o.header("x-log", StringMatchKind::kContains, "s pl", false, true), true},
           Case{"contains not", o.header("x-log", StringMatchKind::kContains, "zz"), false},
           Case{"exact", o.header("x-log", StringMatchKind::kExact, "no"), true},
           Case{"exact inverted", o.header("x-log", StringMatchKind::kExact, "no", true), false},
           Case{"missing does not hold, even inverted", o.header("x-none", StringMatchKind::kExact, "a", true), false},
           Case{"missing as empty", as_empty, true},
           Case{"empty value", o.header("x-empty", StringMatchKind::kExact, ""), true},
           Case{"range", range, true},
           Case{"range ends before", below, false},
           Case{"method", o.header(":method", StringMatchKind::kExact, "GET"), true},
           Case{"host", o.header("host", StringMatchKind::kSuffix, ".test"), true},
       })
    EXPECT_EQ(o.holds({c.filter}, facts), c.want) << c.name;
  EXPECT_TRUE(o.holds({}, facts)) << "no filter";
  facts.request = nullptr;
  EXPECT_FALSE(o.holds({o.header("x-log", StringMatchKind::kPresent)}, facts)) << "a connection has no headers";
}

// Filters that draw for themselves do so each: of two halves a quarter.
TEST(LogFilter, ChanceIsIndependent) {
  Object o;
  LogFilter half = o.node(LogFilterKind::kRuntime, 50);
  half.denominator = 100;
  half.independent = 1;
  LogFilter both = o.node(LogFilterKind::kAnd);
  both.nodes = 3;
  int one = 0, two = 0;
  constexpr int kRequests = 4'000;
  for (int i = 0; i < kRequests; ++i) {
    LogFacts facts;
    facts.request_id = "0000000a-2222-4333-8444-555555555555";
    facts.random = static_cast<uint64_t>(i) * 2654435761u;
    one += o.holds({half}, facts);
    two += o.holds({both, half, half}, facts);
  }
  EXPECT_NEAR(one, kRequests / 2, 150);
  EXPECT_NEAR(two, kRequests / 4, 150);
}

TEST(LogFilter, Trees) {
  Object o;
  const auto group = [&](LogFilterKind kind, uint32_t nodes) {
    LogFilter f = o.node(kind);
    f.nodes = nodes;
    return f;
  };
  const LogFilter yes = o.node(LogFilterKind::kNotHealthCheck), no = o.node(LogFilterKind::kTraceable);
  const LogFacts facts;
  EXPECT_TRUE(o.holds({group(LogFilterKind::kAnd, 3), yes, yes}, facts));
  EXPECT_FALSE(o.holds({group(LogFilterKind::kAnd, 3), yes, no}, facts));
  EXPECT_TRUE(o.holds({group(LogFilterKind::kOr, 3), no, yes}, facts));
  EXPECT_FALSE(o.holds({group(LogFilterKind::kOr, 3), no, no}, facts));
  // yes and (no or (yes and yes)) and yes
  const std::vector<LogFilter> deep{
      group(LogFilterKind::kAnd, 8), yes, group(LogFilterKind::kOr, 5), no, group(LogFilterKind::kAnd, 3), yes, yes, yes};
  EXPECT_TRUE(o.holds(deep, facts));
  std::vector<LogFilter> last = deep;
  last[7] = no;
  EXPECT_FALSE(o.holds(last, facts)) << "what follows a group is looked at";
  std::vector<LogFilter> inner = deep;
  inner[6] = no;
  EXPECT_FALSE(o.holds(inner, facts));
}

}  // namespace
}  // namespace millrace::dataplane
