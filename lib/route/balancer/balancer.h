// One worker's balancer of one cluster, of whichever policy the cluster asks for: what changes with each request, over a Plan
// that all workers share. No virtual calls; pick() allocates nothing.
//
// While everything is healthy and of one priority, a pick is the policy's arithmetic and nothing more. Otherwise: priority by the
// load, group (panic: all endpoints of the priority; else the healthy or degraded ones, of a locality where those are weighted),
// then the policy among the group. An endpoint whose live health does not fit is passed over: by one at random, so that its share
// is not its neighbour's.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "lib/route/balancer/edf.h"
#include "lib/route/balancer/plan.h"

namespace millrace::route::balancer {

struct PickContext {
  uint64_t hash = 0;  // of the request, where its route has hash policies that say something
  bool has_hash = false;
  uint32_t attempt = 0;       // choices for this request that were turned down
  uint32_t total_active = 0;  // requests of the cluster under way, for bounded load
};

class Balancer {
 public:
  // Off the poll core (allocates). `seed`: a random number, different for each worker and set.
  void build(std::shared_ptr<const Plan> plan, uint64_t seed);
  void build(const table::EndpointSet& set, table::LbPolicy policy, uint32_t choice_count, uint64_t seed,
             uint32_t panic_threshold_percent = 0);

  // Index into EndpointSet.endpoints, or kNoEndpoint. active(endpoint): its requests under way. random(): a fresh uint64_t each.
  // health(endpoint): its live Health.
  // context(): the request's PickContext, asked for only where it matters; on_panic() is told of a choice made in panic.
  template <class Context, class Active, class Rng, class Live, class Panic>
  uint32_t pick(Context&& context, Active&& active, Rng&& random, Live&& health, Panic&& on_panic) {
    switch (mode_) {
      case Mode::kTurn:
        return static_cast<uint32_t>(next_++ % count_);
      case Mode::kLeast: {
        uint32_t best = static_cast<uint32_t>(random() % count_);
        uint64_t best_active = active(best);
        for (uint32_t i = 1; i < choices_; ++i) {
          const uint32_t e = static_cast<uint32_t>(random() % count_);
          if (const uint64_t a = active(e); a < best_active) {
            best = e;
            best_active = a;
          }
        }
        return best;
      }
      case Mode::kRandom:
        return static_cast<uint32_t>(random() % count_);
      case Mode::kGeneral:
        return pick_general(context(), active, random, health, on_panic);
      case Mode::kNone:
        break;
    }
    return kNoEndpoint;
  }
  // The round-robin position, to be kept over a swap by whoever does not keep the previous balancer. 0 for the other policies.
  uint64_t position() const { return next_; }
  void set_position(uint64_t p) { next_ = p; }
  bool empty() const { return mode_ == Mode::kNone; }  // there are no endpoints

  // --- live health
  // True when the endpoints' health is no longer what the loads were worked out from.
  bool stale(uint64_t generation) const { return generation != generation_; }
  // Looks at up to `most` endpoints; when all have been looked at, the loads follow. Until then the old ones hold, and endpoints
  // that are not healthy any more are passed over.
  template <class Live>
  void recount(uint64_t generation, Live&& health, uint32_t most = kRecountSlice) {
    if (cursor_ == 0) {
      std::fill(counting_.begin(), counting_.end(), HealthCount{});
      counting_generation_ = generation;
      if (plan_->simple) mode_ = Mode::kGeneral;
    }
    const table::EndpointSet* set = plan_->set;
    const uint32_t end = set->endpoints.count;
    for (; most > 0 && cursor_ < end; --most, ++cursor_) {
      HealthCount& c = counting_[set->endpoints.at(set, cursor_).locality];
      const Health h = health(cursor_);
      ++c.total;
      c.healthy += h == Health::kHealthy;
      c.degraded += h == Health::kDegraded;
    }
    if (cursor_ < end) return;
    cursor_ = 0;
    generation_ = counting_generation_;
    counts_.swap(counting_);
    work_out();
  }
  static constexpr uint32_t kRecountSlice = 512;
  const std::vector<PriorityLoad>& loads() const { return loads_; }

 private:
  enum class Mode : uint8_t { kNone, kTurn, kLeast, kRandom, kGeneral };
  static constexpr uint32_t kRandomTries = 8;  // for another endpoint, before all are looked at in turn
  static constexpr uint32_t kEdfTries = 32;
  static constexpr uint32_t kHashTries = 64;
  static constexpr uint32_t kBoundTries = 64;

  void work_out();                                                                      // loads and shares from counts_
  uint32_t locality_of(const Plan::Priority& p, bool degraded, uint64_t random) const;  // UINT32_MAX: none has a weight

  template <class Active, class Rng, class Live, class Panic>
  [[gnu::noinline]] uint32_t pick_general(const PickContext& context, Active&& active, Rng&& random, Live&& health,
                                          Panic&& on_panic) {
    const Plan& plan = *plan_;
    const bool hashing = plan.options.policy == table::LbPolicy::kRingHash || plan.options.policy == table::LbPolicy::kMaglev;
    const uint64_t hash = hashing && context.has_hash ? context.hash : random();
    const PriorityChoice choice = choose_priority(loads_, hash);
    const Plan::Priority& p = plan.priorities[choice.priority];
    const bool panic = loads_[choice.priority].panic;
    if (panic) on_panic();
    if (hashing) {
      return pick_hash(context, p, hash, active, [&](uint32_t e) { return panic || health(e) == Health::kHealthy; });
    }
    if (panic) {
      if (plan.options.fail_on_panic) return kNoEndpoint;
      return pick_group(p.groups.all, active, random, [](uint32_t) { return true; });
    }
    const Groups* groups = &p.groups;
    if (plan.options.locality_weighted)
      if (const uint32_t l = locality_of(p, choice.degraded, random()); l != UINT32_MAX) groups = &plan.localities[l];
    const Health wanted = choice.degraded ? Health::kDegraded : Health::kHealthy;
    return pick_group(choice.degraded ? groups->degraded : groups->healthy, active, random,
                      [&](uint32_t e) { return health(e) == wanted; });
  }

  template <class Active, class Rng, class Fits>
  uint32_t pick_group(const Group& g, Active&& active, Rng&& random, Fits&& fits) {
    if (g.count == 0) return kNoEndpoint;
    const uint32_t* list = plan_->members.data() + g.first;
    const auto any = [&]() -> uint32_t {
      for (uint32_t i = 0; i < kRandomTries; ++i)
        if (const uint32_t e = list[random() % g.count]; fits(e)) return e;
      const uint64_t start = random() % g.count;
      for (uint64_t i = 0; i < g.count; ++i)
        if (const uint32_t e = list[(start + i) % g.count]; fits(e)) return e;
      return kNoEndpoint;
    };
    Turn& turn = turns_[g.scheduler];
    switch (plan_->options.policy) {
      case table::LbPolicy::kRoundRobin: {
        if (g.equal_weights) {
          const uint32_t e = list[next_++ % g.count];
          return fits(e) ? e : any();
        }
        for (uint32_t i = 0; i < kEdfTries; ++i) {
          const uint32_t e = list[turn.edf.pick([&](uint32_t slot) { return plan_->weight(list[slot]); })];
          if (fits(e)) return e;
        }
        return any();
      }
      case table::LbPolicy::kLeastRequest: {
        if (!g.equal_weights) {
          for (uint32_t i = 0; i < kEdfTries; ++i) {
            const uint32_t e = list[turn.edf.pick([&](uint32_t slot) {
              return static_cast<double>(plan_->weight(list[slot])) / (static_cast<double>(active(list[slot])) + 1.0);
            })];
            if (fits(e)) return e;
          }
          return any();
        }
        uint32_t best = kNoEndpoint;
        uint64_t best_active = 0;
        for (uint32_t i = 0; i < choices_; ++i) {
          const uint32_t e = list[random() % g.count];
          if (!fits(e)) continue;
          const uint64_t a = active(e);
          if (best == kNoEndpoint || a < best_active) {
            best = e;
            best_active = a;
          }
        }
        return best != kNoEndpoint ? best : any();
      }
      default:
        return any();
    }
  }

  // BoundedLoadHashingLoadBalancer: nobody gets more than hash_balance_factor percent of its share of what is under way.
  template <class Active>
  double overload(const PickContext& context, uint32_t endpoint, double weight, Active&& active) const {
    const uint64_t slots = ((uint64_t{context.total_active} + 1) * plan_->options.hash_balance_factor + 99) / 100;
    const double own = std::max(1.0, std::ceil(static_cast<double>(slots) * weight));
    return static_cast<double>(active(endpoint)) / own;
  }

  template <class Active, class Fits>
  uint32_t pick_hash(const PickContext& context, const Plan::Priority& p, uint64_t hash, Active&& active, Fits&& fits) const {
    const HashTable& table = p.table;
    if (table.empty()) return kNoEndpoint;
    uint32_t slot = table.slot(hash, context.attempt);
    if (!fits(table.endpoint(slot))) {
      // The next ones on the ring; in Maglev's table those that the hash leads to again and again.
      bool found = false;
      for (uint32_t i = 1; i < kHashTries && !found; ++i) {
        slot = table.slot(hash, context.attempt + i);
        found = fits(table.endpoint(slot));
      }
      if (!found) {
        const auto& owners = table.owners();
        const uint64_t start = hash % owners.size();
        for (uint64_t i = 0; i < owners.size(); ++i)
          if (const uint32_t e = owners[(start + i) % owners.size()].endpoint; fits(e)) return e;
        return kNoEndpoint;
      }
    }
    const uint32_t first = table.endpoint(slot);
    if (plan_->options.hash_balance_factor == 0) return first;
    double least = overload(context, first, table.weight(slot), active);
    if (least <= 1.0) return first;
    uint32_t best = first;
    // Others in an order that the hash decides on, so that requests of one hash overflow to the same ones.
    uint64_t state = hash;
    for (uint32_t i = 0; i < kBoundTries; ++i) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      const HashTable::Owner& o = table.owners()[(state >> 33) % table.owners().size()];
      if (o.endpoint == first || !fits(o.endpoint)) continue;
      const double load = overload(context, o.endpoint, o.weight, active);
      if (load <= 1.0) return o.endpoint;
      if (load < least) {
        least = load;
        best = o.endpoint;
      }
    }
    return best;
  }

  Mode mode_ = Mode::kNone;
  uint32_t count_ = 0, choices_ = 2;
  uint64_t next_ = 0;
  struct Turn {
    Edf edf;
  };
  std::shared_ptr<const Plan> plan_;
  std::vector<Turn> turns_;                               // by scheduler
  std::vector<HealthCount> counts_, counting_;            // by locality: what holds, and what is being counted
  std::vector<HealthCount> by_priority_;                  // work_out()'s
  std::vector<PriorityLoad> loads_;                       // by priority
  std::vector<uint64_t> healthy_share_, degraded_share_;  // by locality: sums of effective weights up to it, within its priority
  uint64_t generation_ = 0, counting_generation_ = 0;
  uint32_t cursor_ = 0;  // of recount()
};

}  // namespace millrace::route::balancer
