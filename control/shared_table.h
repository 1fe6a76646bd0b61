// A sorted map from names to shared pointers as a value that is cheap to copy: what two copies have in common they share, in
// chunks of at most kMost entries. A copy costs a pointer a chunk, a change copies one chunk, and differences() of two tables
// looks only at chunks that are not shared. What a model with 100,000 objects is made of, so that an edit of one costs what it
// changes.
//
// The interface is std::map's where it has one. A table that others read must not be changed; a copy of it may.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace millrace::control {

template <class T>
class SharedTable {
 public:
  using mapped_type = std::shared_ptr<const T>;
  using value_type = std::pair<std::string, mapped_type>;
  static constexpr size_t kMost = 128;  // entries of a chunk

 private:
  using Chunk = std::vector<value_type>;  // sorted, never empty
  using Chunks = std::vector<std::shared_ptr<Chunk>>;

 public:
  class const_iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = SharedTable::value_type;
    using difference_type = std::ptrdiff_t;
    using pointer = const value_type*;
    using reference = const value_type&;

    const_iterator() = default;
    reference operator*() const { return (*(*chunks_)[chunk_])[entry_]; }
    pointer operator->() const { return &**this; }
    const_iterator& operator++() {
      if (++entry_ == (*chunks_)[chunk_]->size()) ++chunk_, entry_ = 0;
      return *this;
    }
    const_iterator operator++(int) {
      const_iterator was = *this;
      ++*this;
      return was;
    }
    friend bool operator==(const const_iterator& a, const const_iterator& b) {
      return a.chunk_ == b.chunk_ && a.entry_ == b.entry_;
    }

   private:
    friend class SharedTable;
    const_iterator(const Chunks* chunks, size_t chunk, size_t entry) : chunks_(chunks), chunk_(chunk), entry_(entry) {}
    const Chunks* chunks_ = nullptr;
    size_t chunk_ = 0, entry_ = 0;
  };
  using iterator = const_iterator;

  const_iterator begin() const { return {&chunks_, 0, 0}; }
  const_iterator end() const { return {&chunks_, chunks_.size(), 0}; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  const_iterator find(std::string_view name) const {
    const size_t c = chunk_of(name);
    if (c == chunks_.size()) return end();
    const size_t e = place(*chunks_[c], name);
    return e < chunks_[c]->size() && (*chunks_[c])[e].first == name ? const_iterator(&chunks_, c, e) : end();
  }
  bool contains(std::string_view name) const { return find(name) != end(); }
  size_t count(std::string_view name) const { return contains(name) ? 1 : 0; }
  // The name must be there.
  const mapped_type& at(std::string_view name) const { return find(name)->second; }

  // The pointer of the name, null when it is new.
  mapped_type& operator[](std::string_view name) {
    const size_t found = chunk_of(name);
    if (chunks_.empty()) chunks_.push_back(std::make_shared<Chunk>());  // for the entry that comes
    size_t c = std::min(found, chunks_.size() - 1);
    Chunk* chunk = &own(c);
    size_t e = place(*chunk, name);
    if (e == chunk->size() || (*chunk)[e].first != name) {
      if (chunk->size() == kMost) {
        auto back =
            std::make_shared<Chunk>(std::make_move_iterator(chunk->begin() + kMost / 2), std::make_move_iterator(chunk->end()));
        chunk->resize(kMost / 2);
        chunks_.insert(chunks_.begin() + static_cast<std::ptrdiff_t>(c) + 1, std::move(back));
        if (e > kMost / 2) ++c, e -= kMost / 2;
        chunk = chunks_[c].get();
      }
      chunk->emplace(chunk->begin() + static_cast<std::ptrdiff_t>(e), std::string(name), nullptr);
      ++size_;
    }
    return (*chunk)[e].second;
  }
  size_t erase(std::string_view name) {
    const const_iterator it = find(name);
    if (it == end()) return 0;
    erase(it);
    return 1;
  }
  void erase(const_iterator it) {
    Chunk& chunk = own(it.chunk_);
    chunk.erase(chunk.begin() + static_cast<std::ptrdiff_t>(it.entry_));
    if (chunk.empty()) chunks_.erase(chunks_.begin() + static_cast<std::ptrdiff_t>(it.chunk_));
    --size_;
  }
  template <class Predicate>
  void erase_if(Predicate&& gone) {
    for (size_t c = 0; c < chunks_.size();) {
      if (std::none_of(chunks_[c]->begin(), chunks_[c]->end(), gone)) {
        ++c;
        continue;
      }
      Chunk& chunk = own(c);
      size_ -= std::erase_if(chunk, gone);
      if (chunk.empty()) chunks_.erase(chunks_.begin() + static_cast<std::ptrdiff_t>(c));
      else ++c;
    }
  }

  friend bool operator==(const SharedTable& a, const SharedTable& b) {
    bool same = a.size_ == b.size_;
    if (same) differences(a, b, [&](const std::string&, const mapped_type&, const mapped_type&) { same = false; });
    return same;
  }

  // Calls see(name, before, after) for each name whose pointer differs, in order; null where there is none.
  template <class See>
  static void differences(const SharedTable& a, const SharedTable& b, See&& see) {
    static const mapped_type none;
    const_iterator x = a.begin(), y = b.begin();
    while (x != a.end() || y != b.end()) {
      if (x != a.end() && y != b.end() && x.entry_ == 0 && y.entry_ == 0 && a.chunks_[x.chunk_] == b.chunks_[y.chunk_]) {
        ++x.chunk_, ++y.chunk_;
        continue;
      }
      const int order = x == a.end() ? 1 : y == b.end() ? -1 : x->first.compare(y->first);
      if (order < 0) {
        see(x->first, x->second, none);
        ++x;
      } else if (order > 0) {
        see(y->first, none, y->second);
        ++y;
      } else {
        if (x->second != y->second) see(x->first, x->second, y->second);
        ++x, ++y;
      }
    }
  }

 private:
  // The chunk that has the name or would have it; the number of chunks when the table is empty.
  size_t chunk_of(std::string_view name) const {
    const auto after = std::upper_bound(chunks_.begin(), chunks_.end(), name,
                                        [](std::string_view n, const std::shared_ptr<Chunk>& c) { return n < c->front().first; });
    return after == chunks_.begin() ? 0 : static_cast<size_t>(after - chunks_.begin()) - 1;
  }
  static size_t place(const Chunk& chunk, std::string_view name) {
    return static_cast<size_t>(
        std::lower_bound(chunk.begin(), chunk.end(), name, [](const value_type& v, std::string_view n) { return v.first < n; }) -
        chunk.begin());
  }
  Chunk& own(size_t c) {
    if (chunks_[c].use_count() != 1) chunks_[c] = std::make_shared<Chunk>(*chunks_[c]);
    return *chunks_[c];
  }

  Chunks chunks_;
  size_t size_ = 0;
};

template <class T, class Predicate>
void erase_if(SharedTable<T>& table, Predicate&& gone) {
  table.erase_if(gone);
}

}  // namespace millrace::control
