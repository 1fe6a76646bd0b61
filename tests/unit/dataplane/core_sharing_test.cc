// Who shares a core: every history of turns has its pause.
#include "dataplane/core_sharing.h"

#include <string>

#include <gtest/gtest.h>

namespace millrace::dataplane {
namespace {

// One letter a turn: B with work, i without. What came of each: . goes on, y lets others run, z sleeps.
std::string pauses(const std::string& turns) {
  CoreSharing sharing;
  std::string out;
  for (const char c : turns) out += ".yz"[static_cast<uint8_t>(sharing.after(c == 'B'))];
  return out;
}

TEST(CoreSharing, EveryHistoryHasItsPause) {
  const std::string idle(CoreSharing::kIdleTurns, 'i'), yields(CoreSharing::kIdleTurns, 'y');
  const struct {
    const char* what;
    std::string turns, pauses;
  } cases[] = {
      {"work: the others get the core now and then", "BBBBBBBBBBBBBBBBB", ".......y.......y."},
      {"nothing to do: they get it at once", "iii", "yyy"},
      {"work in between: counted anew", "BBBBBBBiBBBBBBBB", ".......y.......y"},
      {"nothing for long: sleeps, as long as that goes on", idle + "iii", yields + "zzz"},
      {"not quite so long", idle + "Bi", yields + ".y"},
      {"a single turn with work wakes it up for as many", idle + "iB" + idle + "i", yields + "z." + yields + "z"},
      {"rare work: mostly asleep, never long busy", idle + "iBiiB", yields + "z.yy."},
  };
  for (const auto& c : cases) EXPECT_EQ(pauses(c.turns), c.pauses) << c.what;
}

}  // namespace
}  // namespace millrace::dataplane
