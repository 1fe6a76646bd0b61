#include "lib/base/list.h"

#include <memory>
#include <vector>

#include <gtest/gtest.h>

namespace millrace::base {
namespace {

struct Item {
  int id = 0;
  ListNode first, second;
};
using FirstList = List<Item, &Item::first>;
using SecondList = List<Item, &Item::second>;

template <class L>
std::vector<int> ids(L& list) {
  std::vector<int> v;
  for (Item& i : list) v.push_back(i.id);
  return v;
}
using Ids = std::vector<int>;

TEST(List, KeepsOrder) {
  Item a{1, {}, {}}, b{2, {}, {}}, c{3, {}, {}};
  FirstList list;
  EXPECT_TRUE(list.empty());
  EXPECT_EQ(list.front(), nullptr);
  EXPECT_EQ(list.pop_back(), nullptr);
  list.push_back(b);
  list.push_back(c);
  list.push_front(a);
  EXPECT_EQ(ids(list), (Ids{1, 2, 3}));
  EXPECT_EQ(list.count(), 3u);
  EXPECT_EQ(list.front(), &a);
  EXPECT_EQ(list.back(), &c);
  EXPECT_EQ(list.next(a), &b);
  EXPECT_EQ(list.next(c), nullptr);
  EXPECT_EQ(list.pop_front(), &a);
  EXPECT_EQ(list.pop_back(), &c);
  EXPECT_EQ(ids(list), (Ids{2}));
}

TEST(List, ElementIsInOneListPerNode) {
  Item a{1, {}, {}};
  FirstList first;
  SecondList second;
  first.push_back(a);
  second.push_back(a);
  a.first.unlink();
  EXPECT_TRUE(first.empty());
  EXPECT_EQ(second.front(), &a);
  EXPECT_DEATH(second.push_back(a), "one list at most");
}

TEST(List, UnlinksDuringIteration) {
  Item items[5];
  FirstList list;
  for (int i = 0; i < 5; ++i) {
    items[i].id = i;
    list.push_back(items[i]);
  }
  for (Item& i : list)
    if (i.id % 2 == 0) i.first.unlink();
  EXPECT_EQ(ids(list), (Ids{1, 3}));
}

TEST(List, SplicesAllAndLeavesTheOtherUsable) {
  Item a{1, {}, {}}, b{2, {}, {}}, c{3, {}, {}};
  FirstList one, two;
  one.push_back(a);
  two.push_back(b);
  two.push_back(c);
  one.splice_back(two);
  one.splice_back(two);
  EXPECT_EQ(ids(one), (Ids{1, 2, 3}));
  EXPECT_TRUE(two.empty());
  b.first.unlink();
  two.push_back(b);
  EXPECT_EQ(ids(one), (Ids{1, 3}));
  EXPECT_EQ(ids(two), (Ids{2}));
}

TEST(List, NobodyPointsIntoFreedMemory) {
  FirstList list;
  Item stays{1, {}, {}};
  list.push_back(stays);
  {
    Item goes{2, {}, {}};
    list.push_back(goes);
  }
  EXPECT_EQ(ids(list), (Ids{1}));
  {
    FirstList shorter;
    stays.first.unlink();
    shorter.push_back(stays);
  }
  EXPECT_FALSE(stays.first.linked());
}

TEST(ContainerOf, FindsTheObjectAroundAnyMember) {
  Item a;
  EXPECT_EQ(&member_owner<&Item::first>(a.first), &a);
  EXPECT_EQ(&member_owner<&Item::second>(a.second), &a);
}

}  // namespace
}  // namespace millrace::base
