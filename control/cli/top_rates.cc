#include "control/cli/top_rates.h"

#include <algorithm>
#include <charconv>
#include <string>

namespace millrace::cli {

namespace pb = control::v1;

namespace {

// What was added between two readings of a counter.
uint64_t delta(uint64_t before, uint64_t now) {
  const uint64_t d = now - before;    // right also when it wrapped in between
  return d > UINT64_MAX / 2 ? 0 : d;  // went backwards: not a counter's doing
}

double ratio(double a, double b) { return b > 0 ? a / b : 0; }

// Sums of what one worker, or all, did between two looks.
struct Sums {
  uint64_t busy_turns = 0, busy_cycles = 0, idle_cycles = 0;
  uint64_t rx_packets = 0, rx_bytes = 0, tx_packets = 0, tx_bytes = 0;
  uint64_t requests = 0, failed = 0, accepted = 0, opened = 0, handshakes = 0;
  uint64_t connections = 0, exchanges = 0, heartbeat_age_ms = 0;
  uint64_t accounted_turns = 0;
  struct Stage {
    std::string name;
    uint64_t cycles = 0, entries = 0;
  };
  std::vector<Stage> stages;
  std::vector<pb::PoolStatus> pools;

  void add(const pb::WorkerSample& a, const pb::WorkerSample& b) {
    busy_turns += delta(a.busy_turns(), b.busy_turns());
    busy_cycles += delta(a.busy_cycles(), b.busy_cycles());
    idle_cycles += delta(a.idle_cycles(), b.idle_cycles());
    rx_packets += delta(a.rx_packets(), b.rx_packets());
    rx_bytes += delta(a.rx_bytes(), b.rx_bytes());
    tx_packets += delta(a.tx_packets(), b.tx_packets());
    tx_bytes += delta(a.tx_bytes(), b.tx_bytes());
    requests += delta(a.requests(), b.requests());
    failed += delta(a.failed(), b.failed());
    accepted += delta(a.accepted(), b.accepted());
    opened += delta(a.opened(), b.opened());
    handshakes += delta(a.handshakes(), b.handshakes());
    accounted_turns += delta(a.accounted_turns(), b.accounted_turns());
    add_gauges(b);
    for (int i = 0; i < b.stages_size(); ++i) {
      const auto at = static_cast<size_t>(i);
      if (stages.size() <= at) stages.push_back({b.stages(i).name()});
      if (i >= a.stages_size()) continue;
      stages[at].cycles += delta(a.stages(i).cycles(), b.stages(i).cycles());
      stages[at].entries += delta(a.stages(i).entries(), b.stages(i).entries());
    }
  }
  void add_gauges(const pb::WorkerSample& b) {
    connections += b.connections();
    exchanges += b.exchanges();
    heartbeat_age_ms = std::max(heartbeat_age_ms, b.heartbeat_age_ms());
    for (const pb::PoolStatus& p : b.pools()) {
      auto it = std::find_if(pools.begin(), pools.end(), [&](const pb::PoolStatus& x) { return x.name() == p.name(); });
      if (it == pools.end()) {
        pools.push_back(p);
        continue;
      }
      it->set_in_use(it->in_use() + p.in_use());
      it->set_capacity(it->capacity() + p.capacity());
      it->set_high_water(it->high_water() + p.high_water());
      it->set_refused(it->refused() + p.refused());
    }
  }

  void rates(double seconds, pb::WorkerRates* out) const {
    gauges(out);
    const double busy = static_cast<double>(busy_cycles), rq = static_cast<double>(requests);
    out->set_load(ratio(busy, busy + static_cast<double>(idle_cycles)));
    const auto rate = [&](uint64_t n) { return ratio(static_cast<double>(n), seconds); };
    out->set_requests(rate(requests));
    out->set_failed(rate(failed));
    out->set_accepted(rate(accepted));
    out->set_opened(rate(opened));
    out->set_handshakes(rate(handshakes));
    out->set_rx_packets(rate(rx_packets));
    out->set_tx_packets(rate(tx_packets));
    out->set_rx_gbit(rate(rx_bytes) * 8 / 1e9);
    out->set_tx_gbit(rate(tx_bytes) * 8 / 1e9);
    out->set_cycles_per_request(ratio(busy, rq));
    out->set_cycles_per_packet(ratio(busy, static_cast<double>(rx_packets)));
    out->set_burst(ratio(static_cast<double>(rx_packets), static_cast<double>(busy_turns)));
    out->set_accounted(ratio(static_cast<double>(accounted_turns), static_cast<double>(busy_turns)));
    uint64_t all = 0;
    for (const Stage& s : stages) all += s.cycles;
    if (all == 0) return;
    // Entries of the turns that were accounted stand for those of all busy turns.
    const double scale = ratio(static_cast<double>(busy_turns), static_cast<double>(accounted_turns));
    for (const Stage& s : stages) {
      pb::StageShare& share = *out->add_stages();
      const double cycles = static_cast<double>(s.cycles), entries = static_cast<double>(s.entries);
      share.set_name(s.name);
      share.set_share(cycles / static_cast<double>(all));
      share.set_cycles_per_request(ratio(share.share() * busy, rq));
      share.set_cycles_per_entry(ratio(cycles, entries));
      share.set_entries_per_request(ratio(entries * scale, rq));
    }
  }
  void gauges(pb::WorkerRates* out) const {
    out->set_connections(connections);
    out->set_exchanges(exchanges);
    out->set_heartbeat_age_ms(heartbeat_age_ms);
    for (const pb::PoolStatus& p : pools) *out->add_pools() = p;
  }
};

int weight(const std::string& severity) { return severity == "error" ? 2 : severity == "warning" ? 1 : 0; }

void sort_reasons(google::protobuf::RepeatedPtrField<pb::ReasonRate>* reasons) {
  std::stable_sort(reasons->begin(), reasons->end(), [](const pb::ReasonRate& a, const pb::ReasonRate& b) {
    if (weight(a.severity()) != weight(b.severity())) return weight(a.severity()) > weight(b.severity());
    return a.rate() > b.rate();
  });
}

// Why the two cannot be compared; empty: they can.
std::string no_rates(const pb::TopSample& before, const pb::TopSample& now) {
  if (!before.connected()) return "counting has begun";
  if (before.incarnation() != now.incarnation()) return "the data plane was started anew; counting has begun again";
  if (before.workers_size() != now.workers_size()) return "the number of workers changed; counting has begun again";
  if (now.taken_ns() <= before.taken_ns()) return "no time has passed";
  return "";
}

}  // namespace

pb::TopFrame make_frame(const pb::TopSample& before, const pb::TopSample& now) {
  pb::TopFrame f;
  f.set_connected(now.connected());
  f.set_tsc_hz(now.tsc_hz());
  f.set_stage_period(now.stage_period());
  f.set_uptime_ms(now.uptime_ms());
  if (!now.connected()) {
    f.set_note("no data plane: " + now.dataplane_state());
    return f;
  }
  f.set_note(no_rates(before, now));
  Sums total;
  if (!f.note().empty()) {
    for (const pb::WorkerSample& w : now.workers()) {
      Sums one;
      one.add_gauges(w);
      total.add_gauges(w);
      pb::WorkerRates& out = *f.add_workers();
      out.set_worker(w.worker());
      one.gauges(&out);
    }
    total.gauges(f.mutable_total());
    return f;
  }
  const double seconds = static_cast<double>(now.taken_ns() - before.taken_ns()) / 1e9;
  f.set_seconds(seconds);
  for (int i = 0; i < now.workers_size(); ++i) {
    Sums one;
    one.add(before.workers(i), now.workers(i));
    total.add(before.workers(i), now.workers(i));
    pb::WorkerRates& out = *f.add_workers();
    out.set_worker(now.workers(i).worker());
    one.rates(seconds, &out);
  }
  total.rates(seconds, f.mutable_total());
  for (const pb::Drop& d : now.drops()) {
    uint64_t then = 0;
    for (const pb::Drop& b : before.drops())
      if (b.name() == d.name()) then = b.count();
    const uint64_t n = delta(then, d.count());
    if (n == 0) continue;
    pb::ReasonRate& r = *f.add_drops();
    r.set_name(d.name());
    r.set_severity(d.severity());
    r.set_rate(static_cast<double>(n) / seconds);
    r.set_text(d.text());
  }
  for (const pb::ResponseFlagCount& d : now.flags()) {
    uint64_t then = 0;
    for (const pb::ResponseFlagCount& b : before.flags())
      if (b.flag() == d.flag()) then = b.count();
    const uint64_t n = delta(then, d.count());
    if (n == 0) continue;
    pb::ReasonRate& r = *f.add_flags();
    r.set_name(d.flag());
    r.set_rate(static_cast<double>(n) / seconds);
    r.set_text(d.text());
  }
  sort_reasons(f.mutable_drops());
  sort_reasons(f.mutable_flags());
  return f;
}

bool select_workers(const std::vector<uint32_t>& workers, pb::TopSample* sample, uint32_t* missing) {
  if (workers.empty() || !sample->connected()) return true;
  google::protobuf::RepeatedPtrField<pb::WorkerSample> chosen;
  for (const uint32_t w : workers) {
    const auto it = std::find_if(sample->workers().begin(), sample->workers().end(),
                                 [&](const pb::WorkerSample& s) { return s.worker() == w; });
    if (it == sample->workers().end()) {
      *missing = w;
      return false;
    }
    *chosen.Add() = *it;
  }
  *sample->mutable_workers() = std::move(chosen);
  return true;
}

bool parse_workers(std::string_view text, std::vector<uint32_t>* out) {
  out->clear();
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  const auto number = [&](uint32_t* n) {
    const auto r = std::from_chars(at, end, *n);
    if (r.ec != std::errc() || *n >= kMaxListed) return false;
    at = r.ptr;
    return true;
  };
  while (true) {
    uint32_t first = 0, last = 0;
    if (!number(&first)) return false;
    last = first;
    if (at != end && *at == '-') {
      ++at;
      if (!number(&last) || last < first) return false;
    }
    for (uint32_t w = first; w <= last; ++w) out->push_back(w);
    if (at == end) break;
    if (*at++ != ',') return false;
  }
  std::sort(out->begin(), out->end());
  out->erase(std::unique(out->begin(), out->end()), out->end());
  return true;
}

}  // namespace millrace::cli
