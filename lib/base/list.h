// An intrusive, circular, doubly linked list: the element carries the links, so linking and unlinking are a few stores, never
// allocate, and an element can leave without knowing which list it is in.
//
//   struct Waiter { base::ListNode link; int id; };
//   base::List<Waiter, &Waiter::link> waiters;
//
// The list does not own its elements. An element is in at most one list per node; one that is destroyed leaves its list.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/base/assert.h"

namespace millrace::base {

namespace detail {
template <class M>
struct MemberPointer;
template <class T, class M>
struct MemberPointer<M T::*> {
  using Owner = T;
  using Member = M;
};
}  // namespace detail

// The object whose member `Member` is `m`: member_owner<&Session::timer>(node). (Not container_of: DPDK has a macro of that
// name.)
template <auto Member>
auto& member_owner(typename detail::MemberPointer<decltype(Member)>::Member& m) {
  using T = typename detail::MemberPointer<decltype(Member)>::Owner;
  // The offset of a member is not a constant expression in C++20, but it is a constant: measured on an address that is never
  // read.
  constexpr uintptr_t kSomewhere = uintptr_t{1} << 30;
  const uintptr_t offset = reinterpret_cast<uintptr_t>(&(reinterpret_cast<T*>(kSomewhere)->*Member)) - kSomewhere;
  return *reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(&m) - offset);
}

struct ListNode {
  ListNode* prev = nullptr;
  ListNode* next = nullptr;

  ListNode() = default;
  ~ListNode() { unlink(); }
  ListNode(const ListNode&) = delete;
  ListNode& operator=(const ListNode&) = delete;

  bool linked() const { return next != nullptr; }
  // Takes the node out of whatever list it is in; nothing when it is in none.
  void unlink() {
    if (next == nullptr) return;
    prev->next = next;
    next->prev = prev;
    prev = next = nullptr;
  }
  // Puts this unlinked node in front of `at`, which is linked (or a list's head).
  void link_before(ListNode& at) {
    MILLRACE_ASSERT(next == nullptr, "a node is in one list at most");
    prev = at.prev;
    next = &at;
    at.prev->next = this;
    at.prev = this;
  }
};

template <class T, ListNode T::*Member>
class List {
 public:
  List() { head_.prev = head_.next = &head_; }
  // What is still linked is unlinked, so that no element points into freed memory.
  ~List() { clear(); }
  List(const List&) = delete;
  List& operator=(const List&) = delete;

  bool empty() const { return head_.next == &head_; }
  void push_back(T& t) { (t.*Member).link_before(head_); }
  void push_front(T& t) { (t.*Member).link_before(*head_.next); }
  // Null when empty.
  T* front() { return empty() ? nullptr : owner(head_.next); }
  T* back() { return empty() ? nullptr : owner(head_.prev); }
  T* pop_front() {
    T* t = front();
    if (t != nullptr) (t->*Member).unlink();
    return t;
  }
  T* pop_back() {
    T* t = back();
    if (t != nullptr) (t->*Member).unlink();
    return t;
  }
  // `t` is in this list. Null at the end.
  T* next(T& t) { return (t.*Member).next == &head_ ? nullptr : owner((t.*Member).next); }
  // Moves all elements of `other`, in order, behind ours. O(1).
  void splice_back(List& other) {
    if (other.empty()) return;
    ListNode* first = other.head_.next;
    ListNode* last = other.head_.prev;
    other.head_.prev = other.head_.next = &other.head_;
    first->prev = head_.prev;
    head_.prev->next = first;
    last->next = &head_;
    head_.prev = last;
  }
  // Unlinks all. O(size).
  void clear() {
    while (pop_front() != nullptr) {
    }
  }
  // O(size): for tests and gauges read once in a while.
  size_t count() const {
    size_t n = 0;
    for (const ListNode* p = head_.next; p != &head_; p = p->next) ++n;
    return n;
  }

  // Iteration in order. The element under the iterator may be unlinked in the loop's body; its successor may not.
  class Iterator {
   public:
    explicit Iterator(ListNode* at) : at_(at), next_(at->next) {}
    T& operator*() const { return *owner(at_); }
    T* operator->() const { return owner(at_); }
    Iterator& operator++() {
      at_ = next_;
      next_ = at_->next;
      return *this;
    }
    bool operator!=(const Iterator& o) const { return at_ != o.at_; }

   private:
    ListNode* at_;
    ListNode* next_;
  };
  Iterator begin() { return Iterator(head_.next); }
  Iterator end() { return Iterator(&head_); }

 private:
  static T* owner(ListNode* node) { return &member_owner<Member>(*node); }

  ListNode head_;
};

}  // namespace millrace::base
