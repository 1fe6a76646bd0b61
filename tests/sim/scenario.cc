#include "tests/sim/scenario.h"

#include <algorithm>
#include <cstdio>

#include "lib/base/prng.h"

namespace millrace::sim {
namespace {

using base::kMicrosecond;
using base::kMillisecond;
using base::kSecond;

tcp::Config random_config(base::Prng& r, bool stack) {
  tcp::Config c;
  using tcp::CongestionAlgorithm;
  constexpr CongestionAlgorithm kControllers[] = {CongestionAlgorithm::kCubic, CongestionAlgorithm::kReno,
                                                  CongestionAlgorithm::kBbr};
  constexpr uint16_t kMss[] = {100, 536, 1220, 1460, 1460, 8960};
  constexpr uint32_t kBuffers[] = {2'000, 8'192, 65'535, 65'536, 262'144, 1'000'000};
  c.mss = kMss[r.below(std::size(kMss))];
  if (stack) c.mss = std::clamp<uint16_t>(c.mss, 536, 1460);
  c.rcv_buf = kBuffers[r.below(std::size(kBuffers))];
  c.rcv_wnd_initial = static_cast<uint32_t>(r.between(1'000, 65'536));
  c.snd_buf = kBuffers[r.below(std::size(kBuffers))];
  c.sack = !r.chance(1, 4);
  c.timestamps = !r.chance(1, 4);
  c.window_scaling = !r.chance(1, 5);
  c.delayed_ack = !r.chance(1, 5);
  c.nodelay = !r.chance(1, 4);
  c.congestion = kControllers[r.below(std::size(kControllers))];
  constexpr tcp::EcnMode kEcn[] = {tcp::EcnMode::kOff, tcp::EcnMode::kAccept, tcp::EcnMode::kRequest};
  c.ecn = kEcn[r.below(std::size(kEcn))];
  if (r.chance(1, 4)) c.keepalive_idle_ns = 2 * kSecond, c.keepalive_interval_ns = kSecond, c.keepalive_probes = 30;
  constexpr TimeNs kTimeWait[] = {kSecond, 10 * kSecond, 60 * kSecond};
  c.time_wait_ns = kTimeWait[r.below(std::size(kTimeWait))];
  return c;
}

Plan random_plan(base::Prng& r) {
  Plan p;
  constexpr uint64_t kSizes[] = {0, 1, 100, 1'460, 10'000, 100'000, 400'000};
  p.send_bytes = kSizes[r.below(std::size(kSizes))];
  if (p.send_bytes > 1) p.send_bytes = r.between(p.send_bytes / 2, p.send_bytes);
  p.write_size = static_cast<uint32_t>(r.chance(1, 3) ? r.between(1, 600) : r.between(600, 70'000));
  if (p.send_bytes > 20'000) p.write_size = std::max(p.write_size, 200u);
  if (r.chance(1, 4)) {
    p.read_interval = r.between(1, 200) * kMillisecond;
    p.read_size = static_cast<uint32_t>(r.between(2'000, 100'000));
  }
  if (r.chance(1, 6)) p.write_interval = r.between(1, 20) * kMillisecond;
  if (p.write_interval > 0) p.write_size = std::max<uint32_t>(p.write_size, static_cast<uint32_t>(p.send_bytes / 1000 + 1));
  if (r.chance(1, 12)) {
    p.stalled.from = r.below(5'000) * kMillisecond;
    p.stalled.until = p.stalled.from + r.between(1, 90) * kSecond;
  }
  p.mini_time_wait = r.chance(1, 2);
  return p;
}

// Up to three intervals before `end`.
std::vector<Interval> random_intervals(base::Prng& r, TimeNs end) {
  std::vector<Interval> all;
  for (uint64_t n = r.between(1, 3); n > 0; --n) {
    Interval i;
    i.from = r.below(end);
    i.until = i.from + r.below(r.chance(1, 3) ? end : 500 * kMillisecond) + 1;
    all.push_back(i);
  }
  return all;
}

Link random_link(base::Prng& r, TimeNs heal_at) {
  Link l;
  constexpr double kLoss[] = {0, 0, 0.001, 0.01, 0.05, 0.15, 0.30};
  l.loss = kLoss[r.below(std::size(kLoss))];
  if (r.chance(1, 4)) {
    l.burst_begin = r.unit() * 0.05;
    l.burst_end = 0.05 + r.unit() * 0.5;
    l.burst_loss = 0.5 + r.unit() * 0.5;
  }
  if (r.chance(1, 3)) l.duplicate = r.unit() * 0.1;
  if (r.chance(1, 3)) l.corrupt = r.unit() * 0.05;
  constexpr TimeNs kDelay[] = {20 * kMicrosecond, kMillisecond, 10 * kMillisecond, 80 * kMillisecond, 300 * kMillisecond};
  l.delay = kDelay[r.below(std::size(kDelay))];
  if (r.chance(1, 3)) l.jitter = r.below(l.delay * 2 + 1);
  if (r.chance(1, 3)) {
    l.reorder = r.unit() * (r.chance(1, 4) ? 0.5 : 0.05);
    l.reorder_by = r.chance(1, 2) ? 10 * kMillisecond : r.below(2 * kSecond);
  }
  if (r.chance(1, 2)) {
    constexpr uint64_t kRates[] = {50'000, 1'000'000, 12'500'000, 125'000'000};
    l.bytes_per_second = kRates[r.below(std::size(kRates))];
    l.queue_bytes = static_cast<uint32_t>(r.between(12'000, 300'000));
    if (r.chance(1, 2)) l.mark_bytes = l.queue_bytes / 4;
  }
  if (r.chance(1, 8)) {
    constexpr uint16_t kMtu[] = {1280, 1400, 1492, 4000};
    for (uint64_t n = r.between(1, 3); n > 0; --n) l.mtu.push_back({r.below(heal_at), kMtu[r.below(std::size(kMtu))]});
    std::sort(l.mtu.begin(), l.mtu.end(), [](const auto& a, const auto& b) { return a.at < b.at; });
    l.icmp = r.chance(2, 3);
  }
  if (r.chance(1, 10)) l.down = random_intervals(r, heal_at);
  if (r.chance(1, 10)) {
    l.squeeze = random_intervals(r, heal_at);
    constexpr uint16_t kWindow[] = {0, 1, 50, 1'000, 8'000};
    l.squeeze_window = kWindow[r.below(std::size(kWindow))];
  }
  return l;
}

HostFault random_fault(base::Prng& r, TimeNs heal_at) {
  HostFault f;
  using Kind = HostFault::Kind;
  constexpr Kind kKinds[] = {Kind::kPause, Kind::kClockStep, Kind::kDeath, Kind::kNoPackets, Kind::kNoRepairs};
  f.kind = kKinds[r.below(std::size(kKinds))];
  f.side = static_cast<int>(r.below(2));
  f.at = r.below(heal_at);
  const TimeNs left = heal_at - f.at;
  f.lasts = 1 + r.below(r.chance(1, 2) ? left : std::min<TimeNs>(left, 300 * kMillisecond));
  if (f.kind == Kind::kClockStep) f.lasts = r.chance(1, 4) ? r.below(400 * kSecond) : r.below(2 * kSecond);
  return f;
}

}  // namespace

const char* to_string(HostFault::Kind k) {
  switch (k) {
    case HostFault::Kind::kPause:
      return "pause";
    case HostFault::Kind::kClockStep:
      return "clock step";
    case HostFault::Kind::kDeath:
      return "death";
    case HostFault::Kind::kNoPackets:
      return "no packets";
    case HostFault::Kind::kNoRepairs:
      return "no repairs";
  }
  return "?";
}

Scenario random_scenario(uint64_t seed, bool stack) {
  base::Prng r(stack ? seed ^ 0x5ac5'ac5a'0000'0000 : seed);
  Scenario s;
  s.seed = seed;
  s.heal_at = r.between(1, 15) * kSecond;
  s.link[0] = random_link(r, s.heal_at);
  s.link[1] = random_link(r, s.heal_at);
  if (r.chance(1, 2)) s.link[1].down = s.link[0].down;  // both ways at once, as often as one way
  s.end_at = 1'500 * kSecond;
  s.backlog = r.chance(1, 3) ? 0 : 16;  // 0: SYN cookies for everybody
  s.chain = r.chance(1, 2);
  const uint64_t n = r.between(1, 4);
  const tcp::Config server = random_config(r, stack);
  for (uint64_t i = 0; i < n; ++i) {
    ConnectionPlan c;
    c.client_port = static_cast<uint16_t>(40'000 + i);
    c.start = r.below(2'000) * kMillisecond;
    c.v6 = r.chance(1, 2);
    c.simultaneous = !stack && r.chance(1, 8);
    c.client = random_plan(r);
    c.server = random_plan(r);
    c.client_config = random_config(r, stack);
    c.server_config = server;
    if (r.chance(1, 10)) c.client.abort_at = r.below(5'000) * kMillisecond;
    if (r.chance(1, 10)) c.server.abort_at = r.below(5'000) * kMillisecond;
    c.server.close_when_sent = r.chance(1, 2);
    for (uint32_t& near : c.near_wrap)
      if (r.chance(1, 4)) near = static_cast<uint32_t>(r.between(1, 200'000));
    s.connections.push_back(c);
    // With cookies a repeated ACK of the old connection could open a new one: nothing that TCP could know better.
    if (s.backlog > 0 && !c.simultaneous && r.chance(1, 5)) {
      ConnectionPlan again = c;
      again.after = s.connections.size() - 1;
      again.start = r.below(r.chance(1, 2) ? 3 * kMillisecond : 2 * kSecond);
      again.client = random_plan(r);
      again.server = random_plan(r);
      again.near_wrap[0] = again.near_wrap[1] = 0;  // what follows a connection must not begin behind it
      s.connections.push_back(again);
    }
  }
  if (r.chance(1, 4)) s.repairs = static_cast<uint32_t>(r.between(1, 2));  // nearly never one to be had
  if (r.chance(1, 3))
    for (uint64_t k = r.between(1, 3); k > 0; --k) s.faults.push_back(random_fault(r, s.heal_at));
  return s;
}

std::string describe(const Scenario& s) {
  std::string text;
  char line[300];
  const auto seconds = [](TimeNs t) { return static_cast<double>(t) * 1e-9; };
  for (int i = 0; i < 2; ++i) {
    const Link& l = s.link[i];
    std::snprintf(line, sizeof line, "  %s: delay %.3f ms", i == 0 ? "to server" : "to client", seconds(l.delay) * 1e3);
    text += line;
    const auto put = [&](const char* what, double value) {
      if (value == 0) return;
      std::snprintf(line, sizeof line, ", %s %.4g", what, value);
      text += line;
    };
    put("loss", l.loss), put("duplicate", l.duplicate), put("corrupt", l.corrupt), put("bursts", l.burst_begin);
    put("reorder", l.reorder), put("jitter ms", seconds(l.jitter) * 1e3);
    put("bytes/s", static_cast<double>(l.bytes_per_second));
    if (l.bytes_per_second != 0) put("queue", l.queue_bytes);
    for (const auto& m : l.mtu) {
      std::snprintf(line, sizeof line, ", mtu %u at %.3f s%s", m.mtu, seconds(m.at), l.icmp ? "" : " unsaid");
      text += line;
    }
    for (const auto& d : l.down) {
      std::snprintf(line, sizeof line, ", down %.3f to %.3f s", seconds(d.from), seconds(d.until));
      text += line;
    }
    for (const auto& d : l.squeeze) {
      std::snprintf(line, sizeof line, ", window %u from %.3f to %.3f s", l.squeeze_window, seconds(d.from), seconds(d.until));
      text += line;
    }
    text += "\n";
  }
  for (const HostFault& f : s.faults) {
    std::snprintf(line, sizeof line, "  %s of the %s at %.6f s for %.6f s\n", to_string(f.kind),
                  f.side == 0 ? "client" : "server", seconds(f.at), seconds(f.lasts));
    text += line;
  }
  for (size_t i = 0; i < s.connections.size(); ++i) {
    const ConnectionPlan& c = s.connections[i];
    if (!c.used) continue;
    std::snprintf(line, sizeof line, "  connection %zu at %.3f s%s%s%s: %lu bytes there, %lu back\n", i, seconds(c.start),
                  c.v6 ? ", v6" : "", c.simultaneous ? ", simultaneous" : "", c.after != ConnectionPlan::kNone ? ", again" : "",
                  c.client.send_bytes, c.server.send_bytes);
    text += line;
  }
  std::snprintf(line, sizeof line, "  heals at %.3f s, backlog %u, repairs %u\n", seconds(s.heal_at), s.backlog, s.repairs);
  return text + line;
}

Scenario reduce(const Scenario& scenario, const std::function<bool(const Scenario&)>& fails, int tries) {
  using Step = std::function<bool(Scenario&)>;  // false: there is nothing to leave out
  std::vector<Step> steps;
  for (size_t i = scenario.connections.size(); i-- > 0;) {
    steps.push_back([i](Scenario& s) {
      for (const ConnectionPlan& c : s.connections)
        if (c.used && c.after == i) return false;
      return std::exchange(s.connections[i].used, false) &&
             std::any_of(s.connections.begin(), s.connections.end(), [](const auto& c) { return c.used; });
    });
  }
  for (size_t i = scenario.faults.size(); i-- > 0;) {
    steps.push_back([i, n = scenario.faults.size()](Scenario& s) {
      if (s.faults.size() != n && i >= s.faults.size()) return false;
      s.faults.erase(s.faults.begin() + static_cast<std::ptrdiff_t>(i));
      return true;
    });
  }
  for (int k = 0; k < 2; ++k) {
    const auto list = [&](auto member) {
      steps.push_back([k, member](Scenario& s) {
        const bool some = !(s.link[k].*member).empty();
        (s.link[k].*member).clear();
        return some;
      });
    };
    list(&Link::down), list(&Link::squeeze), list(&Link::mtu);
    steps.push_back([k](Scenario& s) { return std::exchange(s.link[k].burst_begin, 0) != 0; });
    steps.push_back([k](Scenario& s) { return std::exchange(s.link[k].reorder, 0) != 0; });
    steps.push_back([k](Scenario& s) { return std::exchange(s.link[k].duplicate, 0) != 0; });
    steps.push_back([k](Scenario& s) { return std::exchange(s.link[k].corrupt, 0) != 0; });
    steps.push_back([k](Scenario& s) { return std::exchange(s.link[k].loss, 0) != 0; });
    steps.push_back([k](Scenario& s) { return std::exchange(s.link[k].jitter, 0) != 0; });
    steps.push_back([k](Scenario& s) { return std::exchange(s.link[k].bytes_per_second, 0) != 0; });
  }
  Scenario best = scenario;
  for (bool again = true; again;) {
    again = false;
    for (const Step& step : steps) {
      Scenario next = best;
      if (!step(next)) continue;
      if (--tries < 0) return best;
      if (!fails(next)) continue;
      best = next;
      again = true;
    }
  }
  return best;
}

}  // namespace millrace::sim
