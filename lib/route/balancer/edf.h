// Earliest deadline first over weighted endpoints (Envoy's EdfScheduler): whoever's turn is due next is taken, and is due again
// 1/weight later. Over any stretch each gets its share to within one request. The heap's memory is made when the set is
// published; pick() allocates nothing and costs O(log endpoints).
#pragma once

#include <cstdint>
#include <vector>

namespace millrace::route::balancer {

class Edf {
 public:
  // `weights` > 0. Start phases are spread by `seed`, so that workers (and restarts) do not all begin with the same endpoint.
  void build(const std::vector<uint32_t>& weights, uint64_t seed);
  bool empty() const { return heap_.empty(); }

  // The slot (position in `weights`) whose turn it is. `weight_now(slot)` > 0: its weight from here on.
  template <class WeightNow>
  uint32_t pick(WeightNow&& weight_now) {
    Entry top = heap_.front();
    now_ = top.deadline;
    top.deadline = now_ + 1.0 / static_cast<double>(weight_now(top.slot));
    top.order = ++order_;
    replace_top(top);
    return last_ = top.slot;
  }

 private:
  struct Entry {
    double deadline;
    uint64_t order;  // among equal deadlines, first come first served
    uint32_t slot;
    bool before(const Entry& o) const { return deadline < o.deadline || (deadline == o.deadline && order < o.order); }
  };
  void replace_top(const Entry& e);
  std::vector<Entry> heap_;
  double now_ = 0;
  uint64_t order_ = 0;
  uint32_t last_ = 0;
};

}  // namespace millrace::route::balancer
