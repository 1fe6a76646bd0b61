#include "lib/route/balancer/hash_table.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "lib/base/bytes.h"
#include "lib/base/xxhash64.h"

namespace millrace::route::balancer {

namespace {
constexpr uint32_t kWordBytes = 8;  // owners are read and written by words, so that many lie behind the last
}

void HashTable::start(uint32_t size, const std::vector<Host>& hosts) {
  size_ = size;
  bits_ = std::max<uint32_t>(1, static_cast<uint32_t>(std::bit_width(hosts.size() - 1)));
  packed_.assign((uint64_t{size} * bits_ + 7) / 8 + kWordBytes, 0);
  owners_.reserve(hosts.size());
  for (const Host& h : hosts) owners_.push_back({h.endpoint, h.weight});
}

void HashTable::set_owner(uint32_t slot, uint32_t owner) {
  const uint64_t bit = uint64_t{slot} * bits_;
  uint8_t* at = packed_.data() + bit / 8;
  const uint64_t word = base::load_unaligned<uint64_t>(at) | uint64_t{owner} << bit % 8;
  std::memcpy(at, &word, sizeof word);
}

uint32_t HashTable::owner(uint32_t slot) const {
  const uint64_t bit = uint64_t{slot} * bits_;
  const uint64_t word = base::load_unaligned<uint64_t>(packed_.data() + bit / 8) >> bit % 8;
  return static_cast<uint32_t>(word & ((uint64_t{1} << bits_) - 1));
}

HashTable HashTable::ring(std::vector<Host> hosts, uint64_t least, uint64_t most, bool murmur) {
  HashTable t;
  if (hosts.empty()) return t;
  double lightest = 1;
  for (const Host& h : hosts) lightest = std::min(lightest, h.weight);
  // As many points as give the lightest endpoint a whole number of them. Fractions of the others are carried from one to the
  // next, so the order of the endpoints matters: the configuration's.
  const double scale = std::min(std::ceil(lightest * static_cast<double>(least)) / lightest, static_cast<double>(most));
  std::vector<std::pair<uint64_t, uint32_t>> points;
  points.reserve(static_cast<size_t>(std::ceil(scale)) + 1);
  double made = 0, due = 0;
  std::string text;
  for (uint32_t i = 0; i < hosts.size(); ++i) {
    due += scale * hosts[i].weight;
    for (uint64_t n = 0; made < due; ++n, ++made) {
      text = hosts[i].key;
      text += '_';
      text += std::to_string(n);
      points.emplace_back(murmur ? base::murmurhash2(text) : base::xxhash64(text), i);
    }
  }
  std::sort(points.begin(), points.end());
  t.start(static_cast<uint32_t>(points.size()), hosts);
  t.points_.reserve(points.size());
  for (uint32_t i = 0; i < points.size(); ++i) {
    t.points_.push_back(points[i].first);
    t.set_owner(i, points[i].second);
  }
  return t;
}

HashTable HashTable::maglev(std::vector<Host> hosts, uint32_t size) {
  HashTable t;
  if (hosts.empty()) return t;
  std::sort(hosts.begin(), hosts.end(), [](const Host& a, const Host& b) { return a.key < b.key; });
  t.start(size, hosts);
  struct Walk {
    uint64_t at, step;
    double target = 0;  // how many turns by weight it must have waited for its next slot
  };
  std::vector<Walk> walks;
  walks.reserve(hosts.size());
  double heaviest = 0;
  for (const Host& h : hosts) {
    walks.push_back({base::xxhash64(h.key) % size, base::xxhash64(h.key, 1) % (size - 1) + 1});
    heaviest = std::max(heaviest, h.weight);
  }
  std::vector<bool> taken(size);
  uint32_t filled = 0;
  for (uint64_t turn = 1; filled < size; ++turn) {
    for (uint32_t i = 0; i < walks.size() && filled < size; ++i) {
      Walk& w = walks[i];
      if (static_cast<double>(turn) * hosts[i].weight < w.target) continue;
      w.target += heaviest;
      while (taken[w.at]) w.at = (w.at + w.step) % size;
      taken[w.at] = true;
      t.set_owner(static_cast<uint32_t>(w.at), i);
      ++filled;
      w.at = (w.at + w.step) % size;
    }
  }
  return t;
}

uint32_t HashTable::slot(uint64_t hash, uint32_t attempt) const {
  if (points_.empty()) {
    if (attempt > 0) hash ^= ~uint64_t{0} - attempt + 1;  // far away
    return static_cast<uint32_t>(hash % size_);
  }
  const auto at = std::lower_bound(points_.begin(), points_.end(), hash);
  const auto first = at == points_.end() ? 0 : static_cast<uint64_t>(at - points_.begin());
  return static_cast<uint32_t>((first + attempt) % size_);
}

}  // namespace millrace::route::balancer
