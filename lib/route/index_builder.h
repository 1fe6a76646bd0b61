// Writes the blob of index_format.h. Control only.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/route/index_format.h"

namespace millrace::route {

class IndexBuilder {
 public:
  explicit IndexBuilder(uint32_t routes) : meta_(routes) {}

  // In ascending order of rank. `literal`: lower case when `folded`; views stay valid until finish().
  void add_exact(std::string_view literal, bool folded, uint32_t rank) { exact_[folded].push_back({literal, rank}); }
  void add_prefix(std::string_view literal, bool folded, bool separated, uint32_t rank) {
    prefix_[folded].push_back({literal, rank, separated ? Use::kSeparated : Use::kPlain, rank});
  }
  void add_db(std::string_view literal, uint32_t db, uint32_t best_rank) {
    prefix_[0].push_back({literal, db, Use::kDb, best_rank});
  }
  void set_meta(uint32_t rank, const RouteMeta& meta) { meta_[rank] = meta; }
  // Of a route whose action is no more than that.
  void set_action(uint32_t rank, const RouteAction& action);

  std::vector<uint8_t> finish();

 private:
  enum class Use : uint8_t { kPlain, kSeparated, kDb };
  struct Exact {
    std::string_view literal;
    uint32_t rank;
  };
  struct Prefix {
    std::string_view literal;
    uint32_t number;  // rank or database
    Use use;
    uint32_t best_rank;
  };
  std::vector<RouteMeta> meta_;
  std::vector<RouteAction> actions_;
  std::unordered_multimap<uint64_t, uint32_t> action_of_;  // hash of its content -> index
  std::vector<Exact> exact_[2];
  std::vector<Prefix> prefix_[2];
};

}  // namespace millrace::route
