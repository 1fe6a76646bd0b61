#include "tests/sim/coverage.h"

#include <iterator>
#include <string_view>
#include <vector>

namespace millrace::sim {

void Coverage::count(const Passage& way) {
  const std::string_view fate = way.fate;
  lost += fate == "lost", late += fate == "late", twice += way.copies == 2, corrupt += way.corrupt,
      queue_full += fate == "queue full";
  too_big += fate == "too big", partition += fate == "partition", burst += fate == "burst", squeezed += way.squeeze;
}

namespace {

// Each number of a Coverage with its name.
template <class C, class F>
void each(C& c, F&& f) {
  f("lost", c.lost), f("lost in a burst", c.burst), f("late", c.late), f("twice", c.twice), f("corrupt", c.corrupt);
  f("queue full", c.queue_full), f("marked as congested", c.marked), f("too big", c.too_big), f("partition", c.partition);
  f("window squeezed", c.squeezed), f("path MTU told", c.path_mtu), f("no packet for a segment", c.no_packet);
  for (size_t i = 0; i < std::size(c.host_faults); ++i) f(to_string(static_cast<HostFault::Kind>(i)), c.host_faults[i]);
  f("four-tuple again in TIME-WAIT", c.reopened_in_time_wait), f("four-tuple again over an old connection", c.reopened_over_old);
  f("simultaneous open", c.simultaneous), f("sequence numbers near the wrap", c.wrapped);
}

}  // namespace

void Coverage::add(const Coverage& o) {
  states.add(o.states);
  packets += o.packets;
  std::vector<uint64_t> theirs;
  each(o, [&](const char*, uint64_t n) { theirs.push_back(n); });
  size_t i = 0;
  each(*this, [&](const char*, uint64_t& n) { n += theirs[i++]; });
}

std::string Coverage::report() const {
  std::string text = std::to_string(packets) + " packets\n" + states.report();
  each(*this, [&](const char* name, uint64_t n) { text += "  " + std::to_string(n) + " " + name + "\n"; });
  return text;
}

std::string Coverage::missing() const {
  std::string text = states.missing();
  each(*this, [&](const char* name, uint64_t n) {
    if (n == 0) text += std::string("  ") + name + "\n";
  });
  return text;
}

}  // namespace millrace::sim
