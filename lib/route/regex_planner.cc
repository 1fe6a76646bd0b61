#include "lib/route/regex_planner.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>

namespace millrace::route {

namespace {

using Groups = std::map<GroupKey, std::vector<uint32_t>>;

class PrefixGrouper {
 public:
  PrefixGrouper(const std::vector<PlannedExpression>& expressions, std::vector<uint32_t> members, Groups* out)
      : expressions_(expressions), members_(std::move(members)), out_(out) {
    std::sort(members_.begin(), members_.end(), [this](uint32_t a, uint32_t b) { return prefix(a) < prefix(b); });
    if (!members_.empty()) split(0, members_.size());
  }

 private:
  std::string_view prefix(uint32_t e) const {
    return std::string_view(expressions_[e].literal_prefix).substr(0, kMaxLiteralPrefixBytes);
  }

  void emit(std::string_view key, size_t from, size_t to) {
    auto& group = (*out_)[GroupKey{table::RegexInput::kPath, "", std::string(key), false}];
    group.insert(group.end(), members_.begin() + static_cast<ptrdiff_t>(from), members_.begin() + static_cast<ptrdiff_t>(to));
  }

  // members_[from, to) are sorted; all begin with what the first and the last have in common.
  void split(size_t from, size_t to) {
    const std::string_view first = prefix(members_[from]), last = prefix(members_[to - 1]);
    const size_t n = std::min(first.size(), last.size());
    const size_t common = static_cast<size_t>(
        std::mismatch(first.begin(), first.begin() + static_cast<ptrdiff_t>(n), last.begin()).first - first.begin());
    if (to - from <= kLeafPatterns) return emit(first.substr(0, common), from, to);
    size_t at = from;
    while (at < to && prefix(members_[at]).size() == common) ++at;  // these sort first
    if (at > from) emit(first.substr(0, common), from, at);
    while (at < to) {
      size_t end = at;
      while (end < to && prefix(members_[end])[common] == prefix(members_[at])[common]) ++end;
      split(at, end);
      at = end;
    }
  }

  const std::vector<PlannedExpression>& expressions_;
  std::vector<uint32_t> members_;
  Groups* out_;
};

void plan_group(const GroupKey& key, const std::vector<uint32_t>& members, const std::vector<PlannedExpression>& expressions,
                const std::vector<PatternSet>* before, std::vector<PlannedDb>* plan) {
  const uint32_t capacity = key.input == table::RegexInput::kPath ? kMaxPathGroupDb : kMaxValueGroupDb;
  std::unordered_map<std::string_view, uint32_t> left;  // expression text -> index, of those without a database
  for (const uint32_t e : members) left.emplace(expressions[e].pattern.expression, e);

  struct Kept {
    PlannedDb db;
    uint32_t live = 0;
  };
  std::vector<Kept> kept;
  if (before != nullptr) {
    for (const PatternSet& set : *before) {
      uint32_t live = 0;
      for (const Pattern& p : set.patterns) live += static_cast<uint32_t>(left.count(p.expression));
      if (live == 0 || live * 2 < set.patterns.size()) continue;
      Kept k{{key, set, {}}, live};
      for (const Pattern& p : set.patterns) {
        const auto it = left.find(p.expression);
        k.db.expressions.push_back(it == left.end() ? UINT32_MAX : it->second);
        if (it != left.end()) left.erase(it);
      }
      kept.push_back(std::move(k));
    }
  }

  std::vector<uint32_t> fresh;
  for (const auto& [text, e] : left) fresh.push_back(e);
  for (bool merged = !fresh.empty(); merged;) {
    merged = false;
    for (size_t i = 0; i < kept.size(); ++i) {
      const size_t size = kept[i].live;
      if (size > 2 * fresh.size() || size + fresh.size() > capacity) continue;
      for (const uint32_t e : kept[i].db.expressions)
        if (e != UINT32_MAX) fresh.push_back(e);
      kept.erase(kept.begin() + static_cast<ptrdiff_t>(i));
      merged = true;
      break;
    }
  }
  for (Kept& k : kept) plan->push_back(std::move(k.db));
  // The best ranks together: a match there makes the scan of the others unnecessary.
  std::sort(fresh.begin(), fresh.end(), [&](uint32_t a, uint32_t b) {
    return std::tie(expressions[a].best_rank, expressions[a].pattern.expression) <
           std::tie(expressions[b].best_rank, expressions[b].pattern.expression);
  });
  for (size_t from = 0; from < fresh.size(); from += capacity) {
    PlannedDb db{key, {}, {}};
    for (size_t i = from; i < std::min<size_t>(from + capacity, fresh.size()); ++i) {
      db.set.patterns.push_back(expressions[fresh[i]].pattern);
      db.expressions.push_back(fresh[i]);
    }
    plan->push_back(std::move(db));
  }
}

}  // namespace

std::vector<PlannedDb> plan_databases(const std::vector<PlannedExpression>& expressions, const PlanMemory& before) {
  Groups groups;
  std::vector<uint32_t> paths;
  for (uint32_t i = 0; i < expressions.size(); ++i) {
    const PlannedExpression& e = expressions[i];
    if (e.input == table::RegexInput::kPath && !e.pattern.matches_empty) {
      paths.push_back(i);
    } else {
      groups[GroupKey{e.input, e.name, "", e.pattern.matches_empty}].push_back(i);
    }
  }
  PrefixGrouper(expressions, std::move(paths), &groups);
  std::vector<PlannedDb> plan;
  for (const auto& [key, members] : groups) {
    const auto it = before.find(key);
    plan_group(key, members, expressions, it == before.end() ? nullptr : &it->second, &plan);
  }
  return plan;
}

PlanMemory remember(const std::vector<PlannedDb>& plan) {
  PlanMemory memory;
  for (const PlannedDb& db : plan) memory[db.group].push_back(db.set);
  return memory;
}

}  // namespace millrace::route
