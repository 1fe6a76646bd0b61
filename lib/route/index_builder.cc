#include "lib/route/index_builder.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_map>

#include "lib/base/assert.h"
#include "lib/base/hash.h"

namespace millrace::route {

namespace {

// All sections but the header, in the order in which they are appended.
class Blob {
 public:
  template <class T>
  Section<T> append(const std::vector<T>& items) {
    Section<T> s;
    if (items.empty()) return s;
    bytes_.resize((sizeof(IndexHeader) + bytes_.size() + kLineBytes - 1) / kLineBytes * kLineBytes - sizeof(IndexHeader));
    s.offset = static_cast<uint32_t>(sizeof(IndexHeader) + bytes_.size());
    s.count = static_cast<uint32_t>(items.size());
    const auto* p = reinterpret_cast<const uint8_t*>(items.data());
    bytes_.insert(bytes_.end(), p, p + items.size() * sizeof(T));
    return s;
  }
  std::vector<uint8_t> finish(IndexHeader header) {
    bytes_.resize((bytes_.size() + 7) & ~size_t{7});
    header.size = static_cast<uint32_t>(sizeof header + bytes_.size());
    std::vector<uint8_t> out(header.size);
    std::memcpy(out.data(), &header, sizeof header);
    std::memcpy(out.data() + sizeof header, bytes_.data(), bytes_.size());
    return out;
  }

 private:
  std::vector<uint8_t> bytes_;
};

template <class Node>
void put_text(Node& node, std::string_view literal, std::vector<char>& text) {
  node.length = static_cast<uint32_t>(literal.size());
  std::memcpy(node.head, literal.data(), std::min<size_t>(literal.size(), Node::kHeadBytes));
  if (literal.size() <= Node::kHeadBytes) return;
  node.rest = static_cast<uint32_t>(text.size());
  text.insert(text.end(), literal.begin() + Node::kHeadBytes, literal.end());
}

// Slots for nodes [0, hashes.size()).
std::vector<Slot> make_slots(const std::vector<uint64_t>& hashes) {
  std::vector<Slot> slots;
  if (hashes.empty()) return slots;
  slots.resize(std::bit_ceil(hashes.size() * 2));
  const uint64_t mask = slots.size() - 1;
  for (uint32_t i = 0; i < hashes.size(); ++i) {
    uint64_t at = hashes[i] & mask;
    while (slots[at].node != 0) at = (at + 1) & mask;
    slots[at] = {static_cast<uint32_t>(hashes[i] >> 32), i + 1};
  }
  return slots;
}

struct HashedText {
  std::string_view text;
  uint64_t hash;
  bool operator==(const HashedText& o) const { return hash == o.hash && text == o.text; }
};
struct TakeHash {
  size_t operator()(const HashedText& t) const { return t.hash; }
};
using NodeMap = std::unordered_map<HashedText, uint32_t, TakeHash>;

}  // namespace

void IndexBuilder::set_action(uint32_t rank, const RouteAction& action) {
  const uint64_t hash = base::hash64(reinterpret_cast<const uint8_t*>(&action), sizeof action);
  const auto [begin, end] = action_of_.equal_range(hash);
  const auto same = std::find_if(begin, end, [&](const auto& entry) { return actions_[entry.second] == action; });
  uint32_t index = static_cast<uint32_t>(actions_.size());
  if (same != end) {
    index = same->second;
  } else {
    actions_.push_back(action);
    action_of_.emplace(hash, index);
  }
  meta_[rank].action = index + 1;
}

std::vector<uint8_t> IndexBuilder::finish() {
  IndexHeader header;
  Blob blob;
  std::vector<uint32_t> numbers;
  std::vector<char> text;
  const auto put_run = [&numbers](const std::vector<uint32_t>& v) {
    if (v.size() <= 1) return v.empty() ? Run{} : Run{v[0], 1};
    const Run r{static_cast<uint32_t>(numbers.size()), static_cast<uint32_t>(v.size())};
    numbers.insert(numbers.end(), v.begin(), v.end());
    return r;
  };
  const auto marked = [this](uint32_t rank) { return meta_[rank].needs == 0 ? rank | kUnconditional : rank; };
  const auto action_of = [this](const std::vector<uint32_t>& ranks) {
    return ranks.size() == 1 ? meta_[ranks[0] & ~kUnconditional].action : 0;
  };

  for (int folded = 0; folded < 2; ++folded) {
    std::vector<std::vector<uint32_t>> ranks;
    std::vector<ExactNode> nodes;
    std::vector<uint64_t> hashes;
    NodeMap map;
    map.reserve(exact_[folded].size());
    for (const Exact& e : exact_[folded]) {
      const HashedText key{e.literal, base::hash64(e.literal)};
      const auto [it, fresh] = map.try_emplace(key, static_cast<uint32_t>(nodes.size()));
      if (fresh) {
        put_text(nodes.emplace_back(), e.literal, text);
        hashes.push_back(key.hash);
        ranks.emplace_back();
        if (folded == 1) header.longest_folded = std::max(header.longest_folded, nodes.back().length);
      }
      ranks[it->second].push_back(marked(e.rank));
    }
    for (size_t i = 0; i < nodes.size(); ++i) {
      nodes[i].ranks = put_run(ranks[i]);
      nodes[i].action = action_of(ranks[i]);
    }
    header.exact[folded] = {blob.append(nodes), blob.append(make_slots(hashes))};
  }

  for (int folded = 0; folded < 2; ++folded) {
    struct Build {
      std::string_view literal;
      std::vector<uint32_t> plain, separated;
      std::vector<std::pair<uint32_t, uint32_t>> dbs;  // best rank, database
      uint32_t own_best = UINT32_MAX;
      bool real = false;  // not a bare marker
    };
    std::vector<Build> builds;
    std::vector<PrefixNode> nodes;
    std::vector<PrefixMore> more;
    std::vector<uint64_t> hashes;
    NodeMap map;
    map.reserve(prefix_[folded].size() * 3);
    const auto node_of = [&](std::string_view literal, const PrefixNode* longer) {
      const HashedText key{literal, base::hash64(literal)};
      const auto [it, fresh] = map.try_emplace(key, static_cast<uint32_t>(builds.size()));
      if (fresh) {
        builds.push_back({literal, {}, {}, {}, UINT32_MAX, false});
        PrefixNode node;
        node.best_rank = UINT32_MAX;
        if (longer == nullptr) {
          put_text(node, literal, text);
        } else {  // its text begins the longer one's, which is there already
          node.length = static_cast<uint32_t>(literal.size());
          node.rest = longer->rest;
          std::memcpy(node.head, literal.data(), std::min<size_t>(literal.size(), PrefixNode::kHeadBytes));
        }
        nodes.push_back(node);
        hashes.push_back(key.hash);
      }
      return it->second;
    };
    for (const Prefix& p : prefix_[folded]) {
      Build& b = builds[node_of(p.literal, nullptr)];
      b.real = true;
      b.own_best = std::min(b.own_best, p.best_rank);
      if (p.use == Use::kPlain) b.plain.push_back(marked(p.number));
      if (p.use == Use::kSeparated) b.separated.push_back(marked(p.number));
      if (p.use == Use::kDb) b.dbs.emplace_back(p.best_rank, p.number);
      if (folded == 1) header.longest_folded = std::max(header.longest_folded, static_cast<uint32_t>(p.literal.size()));
    }

    std::vector<uint32_t> lengths;
    for (const PrefixNode& n : nodes) lengths.push_back(n.length);
    std::sort(lengths.begin(), lengths.end());
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());

    // Markers: the lengths at which the search for each literal must turn to longer ones.
    const size_t literals = builds.size();
    for (size_t i = 0; i < literals; ++i) {
      const std::string_view literal = builds[i].literal;
      const PrefixNode whole = nodes[i];
      for (size_t low = 0, high = lengths.size(); low < high;) {
        const size_t mid = (low + high) / 2;
        if (lengths[mid] == literal.size()) break;
        if (lengths[mid] < literal.size()) {
          node_of(literal.substr(0, lengths[mid]), &whole);
          low = mid + 1;
        } else {
          high = mid;
        }
      }
    }

    // Parents: in lexicographic order, the literals that are prefixes of the present one form a stack.
    std::vector<uint32_t> order(builds.size());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return builds[a].literal < builds[b].literal; });
    std::vector<uint32_t> stack;
    for (const uint32_t i : order) {
      while (!stack.empty() && !builds[i].literal.starts_with(builds[stack.back()].literal)) stack.pop_back();
      nodes[i].parent = stack.empty() ? 0 : stack.back() + 1;
      nodes[i].best_rank = std::min(builds[i].own_best, stack.empty() ? UINT32_MAX : nodes[stack.back()].best_rank);
      if (builds[i].real) stack.push_back(i);
    }

    for (size_t i = 0; i < nodes.size(); ++i) {
      nodes[i].ranks = put_run(builds[i].plain);
      nodes[i].action = action_of(builds[i].plain);
      if (builds[i].separated.empty() && builds[i].dbs.empty()) continue;
      std::sort(builds[i].dbs.begin(), builds[i].dbs.end());
      std::vector<uint32_t> dbs;
      for (const auto& [rank, db] : builds[i].dbs) dbs.push_back(db);
      more.push_back({put_run(builds[i].separated), put_run(dbs)});
      nodes[i].more = static_cast<uint32_t>(more.size());
    }
    header.prefix[folded] = {blob.append(nodes), blob.append(make_slots(hashes)), blob.append(lengths), blob.append(more)};
  }

  header.header_ids = header_id_fingerprint();
  header.meta = blob.append(meta_);
  header.actions = blob.append(actions_);
  header.numbers = blob.append(numbers);
  header.text = blob.append(text);
  return blob.finish(header);
}

}  // namespace millrace::route
