// Splits the regular expressions of a virtual host over databases so that (a) a lookup scans few of them, (b) an edit recompiles
// few expressions. Control only. How, and why so (figures in README):
//
//   Path expressions are grouped under the literal text they begin with: a subtree of the tree of literal prefixes with at most
//   kLeafPatterns expressions is one group, found through the prefix index like any prefix route; expressions that end at a
//   fuller node form that node's own group. Header and query expressions form one group for each name. Within a group,
//   expressions stay in the databases they were in (a database may hold expressions nobody uses any more, up to half of it); new
//   ones go into a new database, which swallows older ones of at most twice its size: as in a log-structured store, n additions
//   one by one recompile O(n log n) expressions in all, and a group has O(log n) databases.
//   Expressions that match the empty text have groups of their own: one of them would cost its whole database the small-write
//   engine.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "lib/route/pattern_db.h"
#include "lib/table/objects.h"

namespace millrace::route {

inline constexpr uint32_t kLeafPatterns = 4;             // in one subtree's database
inline constexpr uint32_t kMaxPathGroupDb = 1'024;       // expressions under one prefix: several databases beyond that
inline constexpr uint32_t kMaxValueGroupDb = 4;          // header and query: one expression is asked about at a time
inline constexpr uint32_t kMaxLiteralPrefixBytes = 256;  // of a group's key

struct PlannedExpression {
  table::RegexInput input = table::RegexInput::kPath;
  std::string name;            // header or parameter
  std::string literal_prefix;  // kPath
  Pattern pattern;
  uint32_t best_rank = UINT32_MAX;  // kPath
};

struct GroupKey {
  table::RegexInput input = table::RegexInput::kPath;
  std::string name, prefix;
  bool matches_empty = false;
  auto operator<=>(const GroupKey&) const = default;
};
struct PlannedDb {
  GroupKey group;
  PatternSet set;
  std::vector<uint32_t> expressions;  // position -> index of the input; UINT32_MAX: not used any more
};
// What is remembered between plans: by group, the databases there are.
using PlanMemory = std::map<GroupKey, std::vector<PatternSet>>;

std::vector<PlannedDb> plan_databases(const std::vector<PlannedExpression>& expressions, const PlanMemory& before);
PlanMemory remember(const std::vector<PlannedDb>& plan);

}  // namespace millrace::route
