// Verbs that show.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <map>
#include <thread>
#include <unistd.h>

#include "control/cli/structured.h"
#include "control/cli/table.h"
#include "control/cli/verbs.h"

namespace millrace::cli {

namespace pb = control::v1;
using Stub = pb::Control::Stub;

int watch(double seconds, const std::function<int()>& show) {
  if (seconds <= 0) return show();
  while (true) {
    if (isatty(STDOUT_FILENO)) std::fputs("\033[H\033[2J", stdout);
    const int code = show();
    std::fflush(stdout);
    if (code != kDone) return code;
    std::this_thread::sleep_for(std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000)));
  }
}

namespace {

int no_dataplane() {
  std::fputs("millctl: no data plane is connected, so there is nothing to count; see millctl status\n", stderr);
  return kNotInForce;
}

void print_status(const pb::StatusReply& s) {
  const bool up = s.dataplane_connected();
  std::printf("%s  %s  process %u, up %s\n", paint("control   ", Color::kBold).c_str(), s.version().c_str(), s.control_pid(),
              duration_ms(s.control_uptime_ms()).c_str());
  if (up)
    std::printf("%s  %s  process %u, up %s\n", paint("data plane", Color::kBold).c_str(), s.dataplane_version().c_str(),
                s.dataplane_pid(), duration_ms(s.dataplane_uptime_ms()).c_str());
  else std::printf("%s  %s\n", paint("data plane", Color::kBold).c_str(), paint(s.dataplane_state(), Color::kRed).c_str());
  const bool in_force = up && s.epoch_in_force() == s.epoch();
  std::printf("%s  epoch %llu %s\n", paint("tables    ", Color::kBold).c_str(), static_cast<unsigned long long>(s.epoch()),
              in_force ? paint("in force on every worker", Color::kGreen).c_str()
                       : paint(up ? "published; in force: epoch " + std::to_string(s.epoch_in_force())
                                  : "published; no data plane to take it",
                               Color::kYellow)
                             .c_str());
  if (s.epoch_rejected() != 0)
    std::printf("            %s\n",
                paint("epoch " + std::to_string(s.epoch_rejected()) + " was refused: " + s.rejection(), Color::kRed).c_str());
  if (const std::string drain = drain_line(s.drain()); up && !drain.empty())
    std::printf("            %s\n", paint(drain, Color::kYellow).c_str());
  std::string objects;
  for (const char* kind : {"listener", "route", "cluster", "endpoint", "secret"}) {
    const auto it = s.objects().find(kind);
    if (it == s.objects().end()) continue;
    objects += (objects.empty() ? "" : ", ") + count(it->second) + " " + kind + (it->second == 1 ? "" : "s");
  }
  std::printf("            %s; %s of %s of table memory%s\n", objects.c_str(), bytes(s.arena_used()).c_str(),
              bytes(s.arena_size()).c_str(), s.arena_ordinary() == 0 && s.arena_huge() != 0 ? ", on huge pages" : "");
  if (s.arena_ordinary() != 0)
    std::printf("            %s\n",
                paint(bytes(s.arena_ordinary()) + " of it on ordinary pages: " + s.arena_note(), Color::kYellow).c_str());
  std::printf("            from %s%s\n", s.config_file().c_str(),
              s.has_edits() ? paint(", edited since", Color::kYellow).c_str() : "");
  if (!up) return;
  std::puts("");
  Table workers({">WORKER", ">EPOCH", ">CONNECTIONS", ">EXCHANGES", ">REQUESTS", ">HANDED IN", ">HANDED OUT", ">BUSY", "",
                 "FULLEST POOL", ""});
  for (const pb::WorkerStatus& w : s.workers()) {
    const pb::PoolStatus* fullest = nullptr;
    double share = -1;
    for (const pb::PoolStatus& p : w.pools()) {
      const double x = p.capacity() == 0 ? 0 : static_cast<double>(p.high_water()) / static_cast<double>(p.capacity());
      if (x > share) {
        share = x;
        fullest = &p;
      }
    }
    const bool stuck = w.heartbeat_age_ms() > 1000;
    workers.row({{std::to_string(w.worker()), stuck ? Color::kRed : Color::kNone},
                 {std::to_string(w.epoch()), w.epoch() == s.epoch() ? Color::kGreen : Color::kYellow},
                 count(w.connections()),
                 count(w.exchanges()),
                 count(w.requests()),
                 count(w.handed_in()),
                 count(w.handed_out()),
                 percent(w.busy()),
                 bar(w.busy(), 10),
                 fullest == nullptr ? ""
                                    : fullest->name() + " " + count(fullest->in_use()) + ", most " +
                                          count(fullest->high_water()) + " of " + count(fullest->capacity()),
                 {stuck ? "no turn of its loop for " + duration_ms(w.heartbeat_age_ms()) : "", Color::kRed}});
  }
  std::fputs(workers.to_string().c_str(), stdout);
  std::puts("");
  Table ports({"PORT", ">RX PACKETS", ">RX", ">TX PACKETS", ">TX", ">LOST"});
  for (const pb::PortStatus& p : s.ports())
    ports.row({p.name(),
               count(p.rx_packets()),
               bytes(p.rx_bytes()),
               count(p.tx_packets()),
               bytes(p.tx_bytes()),
               {count(p.drops()), p.drops() != 0 ? Color::kRed : Color::kNone}});
  std::fputs(ports.to_string().c_str(), stdout);
  if (s.events_lost() != 0)
    std::printf(
        "\n%s\n",
        paint(count(s.events_lost()) + " access log records were lost: control was too slow or away", Color::kYellow).c_str());
}

}  // namespace

int run_status(const Globals& g, const StatusOptions& o) {
  Client client(g);
  return watch(o.watch_s, [&] {
    pb::StatusRequest rq;
    rq.set_wait_ms(static_cast<uint32_t>(o.wait_s * 1000));
    Globals patient = g;
    patient.timeout_s = std::max(g.timeout_s, o.wait_s + 1);
    Client waiting(patient);
    const pb::StatusReply s = waiting.call(&Stub::Status, rq, o.wait_s);
    if (g.json() || g.yaml()) print_structured(g, s);
    else print_status(s);
    if (o.wait_s > 0 && !(s.dataplane_connected() && s.epoch_in_force() == s.epoch())) {
      std::fprintf(stderr, "millctl: epoch %llu was not in force on every worker within %.1f s\n",
                   static_cast<unsigned long long>(s.epoch()), o.wait_s);
      return static_cast<int>(kNotInForce);
    }
    return static_cast<int>(kDone);
  });
}

int run_list(const Globals& g, const ObjectOptions& o) {
  Client client(g);
  pb::ListRequest rq;
  rq.set_kind(o.kind);
  const pb::ListReply reply = client.call(&Stub::List, rq);
  if (!reply.error().empty()) {
    std::fprintf(stderr, "millctl: %s\n", reply.error().c_str());
    return kRefused;
  }
  if (o.names_only) {
    std::string last;
    for (const pb::ObjectSummary& s : reply.objects()) {
      if (s.name() != last) std::puts(s.name().c_str());
      last = s.name();
    }
    return kDone;
  }
  if (g.json() || g.yaml()) {
    print_structured(g, reply);
    return kDone;
  }
  std::vector<std::string> titles = {o.kind.empty() ? "KIND" : "NAME"};
  if (o.kind.empty()) titles.push_back("NAME");
  for (const std::string& t : reply.titles()) titles.push_back(t);
  if (o.kind.empty()) titles.insert(titles.end(), {"", "", ""});
  Table table(titles);
  for (const pb::ObjectSummary& s : reply.objects()) {
    std::vector<Table::Cell> cells;
    if (o.kind.empty()) cells.push_back({s.kind(), Color::kDim});
    cells.push_back({s.name(), Color::kBold});
    for (const std::string& c : s.columns()) cells.push_back({c, c == "DRAINING" ? Color::kYellow : Color::kNone});
    table.row(std::move(cells));
  }
  if (table.empty()) std::printf("no %s\n", o.kind.empty() ? "objects" : o.kind.c_str());
  else std::fputs(table.to_string().c_str(), stdout);
  return kDone;
}

int run_get(const Globals& g, const ObjectOptions& o) {
  Client client(g);
  pb::GetRequest rq;
  rq.set_kind(o.kind);
  rq.set_name(o.name);
  const pb::GetReply reply = client.call(&Stub::Get, rq);
  if (!reply.found()) {
    std::fprintf(stderr, "millctl: %s\n", reply.error().c_str());
    return kRefused;
  }
  std::string text = g.json() ? reply.json() : reply.yaml();
  if (text.empty() || text.back() != '\n') text += '\n';
  std::fputs(text.c_str(), stdout);
  return kDone;
}

int show_explanation(const Globals& g, const pb::ExplainReply& reply) {
  if (g.json() || g.yaml()) {
    print_structured(g, reply);
    return kDone;
  }
  Table table({"", "", "", ""});
  for (const pb::ExplainStep& s : reply.steps())
    table.row({{s.chosen() ? "✓" : "·", s.chosen() ? Color::kGreen : Color::kDim},
               {s.what(), Color::kDim},
               {s.name(), s.chosen() ? Color::kBold : Color::kNone},
               {s.why(), s.chosen() ? Color::kNone : Color::kDim}});
  std::fputs(table.to_string().c_str(), stdout);
  if (reply.status() != 0)
    std::printf("\n→ the gateway itself answers %s%s\n", paint(std::to_string(reply.status()), Color::kBold).c_str(),
                reply.response_flag().empty() ? "" : (", response flag " + reply.response_flag()).c_str());
  else if (!reply.cluster().empty()) std::printf("\n→ cluster %s\n", paint(reply.cluster(), Color::kBold).c_str());
  return kDone;
}

int run_stats(const Globals& g, const StatsOptions& o) {
  Client client(g);
  return watch(o.watch_s, [&] {
    pb::StatsRequest rq;
    rq.set_filter(o.filter);
    rq.set_nonzero(!o.all);
    rq.set_per_worker(o.per_worker);
    const pb::StatsReply reply = client.call(&Stub::Stats, rq);
    if (g.json() || g.yaml()) {
      print_structured(g, reply);
      return static_cast<int>(kDone);
    }
    if (!reply.connected()) return no_dataplane();
    // One block an object, in the order control gives them.
    std::vector<std::string> order;
    std::map<std::string, std::vector<const pb::Counter*>> blocks;
    for (const pb::Counter& c : reply.counters()) {
      const std::string key =
          c.scope() + (c.name().empty() ? "" : " " + c.name()) + (c.parent().empty() ? "" : " of " + c.parent());
      auto& block = blocks[key];
      if (block.empty()) order.push_back(key);
      block.push_back(&c);
    }
    for (const std::string& key : order) {
      std::printf("%s\n", paint(key, Color::kBold).c_str());
      Table table({"", ">", ""});
      for (const pb::Counter* c : blocks[key]) {
        const bool size = c->counter().find("bytes") != std::string::npos;
        table.row({c->counter(), size ? bytes(c->value()) : count(c->value()), {c->text(), Color::kDim}});
      }
      std::fputs(table.to_string(2).c_str(), stdout);
    }
    if (reply.histograms_size() != 0) {
      std::printf("%s\n", paint("latency", Color::kBold).c_str());
      Table table({"", ">COUNT", ">MEAN", ">P50", ">P90", ">P99", ">P99.9", ">MAX", ""});
      for (const pb::HistogramSummary& h : reply.histograms())
        table.row({h.name(),
                   count(h.count()),
                   micros(h.mean_us()),
                   micros(h.p50_us()),
                   micros(h.p90_us()),
                   micros(h.p99_us()),
                   micros(h.p999_us()),
                   micros(h.max_us()),
                   {h.text(), Color::kDim}});
      std::fputs(table.to_string(2).c_str(), stdout);
    }
    if (order.empty() && reply.histograms_size() == 0)
      std::puts(o.filter.empty() ? "nothing has been counted yet"
                                 : "no counter has that text; --all shows also those that are zero");
    return static_cast<int>(kDone);
  });
}

// TCP/IP as nstat shows a kernel's: a name, a number, and from the second look on its rate.
int run_nstat(const Globals& g, const StatsOptions& o) {
  Client client(g);
  std::map<std::string, uint64_t> before;
  auto looked = std::chrono::steady_clock::now();
  return watch(o.watch_s, [&] {
    pb::StatsRequest rq;
    rq.set_filter(o.filter);
    rq.set_nonzero(!o.all);
    rq.set_kernel(true);
    const pb::StatsReply reply = client.call(&Stub::Stats, rq);
    if (g.json() || g.yaml()) {
      print_structured(g, reply);
      return static_cast<int>(kDone);
    }
    if (!reply.connected()) return no_dataplane();
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - looked).count();
    Table table({"", ">", ">", ""});
    for (const pb::Counter& c : reply.counters()) {
      const auto it = before.find(c.counter());
      const bool rated = !c.gauge() && !before.empty() && seconds > 0;
      const uint64_t last = it == before.end() ? 0 : it->second;
      table.row(
          {c.counter(),
           std::to_string(c.value()),
           rated ? count(static_cast<uint64_t>(static_cast<double>(c.value() - std::min(last, c.value())) / seconds)) + "/s" : "",
           {c.text(), Color::kDim}});
    }
    before.clear();
    for (const pb::Counter& c : reply.counters()) before[c.counter()] = c.value();
    looked = now;
    if (table.empty()) std::puts("no counter has that text; --all shows also those that are zero");
    else std::fputs(table.to_string().c_str(), stdout);
    return static_cast<int>(kDone);
  });
}

int run_drops(const Globals& g, const StatsOptions& o) {
  Client client(g);
  std::map<std::string, uint64_t> before;
  auto looked = std::chrono::steady_clock::now();
  bool rated = false;
  const auto look = [&] {
    pb::DropsRequest rq;
    rq.set_all(o.all);
    pb::DropsReply reply = client.call(&Stub::Drops, rq);
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - looked).count();
    for (pb::Drop& d : *reply.mutable_drops()) {
      uint64_t& last = before[d.name()];
      if (rated && seconds > 0) d.set_rate(static_cast<double>(d.count() - std::min(last, d.count())) / seconds);
      last = d.count();
    }
    looked = now;
    return reply;
  };
  if (o.rate_s > 0) {
    look();
    rated = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(static_cast<int64_t>(o.rate_s * 1000)));
  }
  return watch(o.watch_s, [&] {
    const pb::DropsReply reply = look();
    const bool rates = std::exchange(rated, true);
    if (g.json() || g.yaml()) {
      print_structured(g, reply);
      return static_cast<int>(kDone);
    }
    if (!reply.connected()) return no_dataplane();
    std::printf("%s\n", paint("packets", Color::kBold).c_str());
    Table drops({"", ">", ">", "", ""});
    for (const pb::Drop& d : reply.drops()) {
      const Color color = d.severity() == "error" ? Color::kRed : d.severity() == "warning" ? Color::kYellow : Color::kDim;
      char rate[32] = "";
      if (rates && d.rate() > 0) std::snprintf(rate, sizeof rate, d.rate() < 10 ? "%.1f/s" : "%.0f/s", d.rate());
      drops.row({{d.severity(), color}, count(d.count()), rate, d.name(), {d.text(), Color::kDim}});
    }
    std::fputs(drops.empty() ? "  none was dropped\n" : drops.to_string(2).c_str(), stdout);
    std::printf("%s\n", paint("requests", Color::kBold).c_str());
    Table flags({"", ">", "", ""});
    for (const pb::ResponseFlagCount& f : reply.flags())
      flags.row({{f.flag(), Color::kYellow}, count(f.count()), f.name(), {f.text(), Color::kDim}});
    std::fputs(flags.empty() ? "  every request ended well\n" : flags.to_string(2).c_str(), stdout);
    return static_cast<int>(kDone);
  });
}

}  // namespace millrace::cli
