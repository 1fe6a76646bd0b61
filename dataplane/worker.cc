#include "dataplane/worker.h"

#include <cpuid.h>
#include <sched.h>
#include <time.h>
#include <x86intrin.h>

#include "dataplane/core_sharing.h"
#include "dataplane/tsc_clock.h"
#include "lib/io/eal.h"

namespace millrace::dataplane {

using stats::LoopCounter;

namespace {

StackCounters stack_counters(const stats::WorkerStats& s, uint32_t ports, stats::StageClock& stages) {
  StackCounters c{s->drops, &s->tcp, &s->loop, {}, s, &stages};
  for (uint32_t i = 0; i < ports && i < io::kMaxPorts; ++i) c.ports[i] = &s->ports[i];
  return c;
}

TimeNs clock_ns(clockid_t id) {
  timespec t;
  clock_gettime(id, &t);  // vDSO: reads the TSC, no system call
  return static_cast<TimeNs>(t.tv_sec) * base::kSecond + static_cast<TimeNs>(t.tv_nsec);
}

// True when the TSC ticks at one rate whatever the core does (CPUID 80000007h, EDX bit 8).
bool tsc_is_even() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(0x80000007, &a, &b, &c, &d) != 0 && (d & 1u << 8) != 0;
}

}  // namespace

Worker::Worker(const WorkerConfig& config, const WorkerResources& resources, TimeNs now)
    : config_(config),
      resources_(resources),
      stages_(&resources.stats->stages, stats::StageClock::measure_cost(), config.seed),
      random_(config.seed),
      timers_(now),
      stack_(config.stack, resources.ports, *resources.steering, resources.mesh, resources.payload, resources.headers,
             resources.indirect, stack_counters(resources.stats, static_cast<uint32_t>(resources.ports.size()), stages_), now),
      transports_(stack_, config.tls_sessions, resources.stats->tls),
      heads_(config.limits.small_heads, config.limits.large_heads),
      match_scratch_(HeadBufferPool::kMaxHeadBytes),
      write_buffer_(std::make_unique<char[]>(kWriteBufferBytes)),
      ctx_{config.index,
           config.workers,
           config.limits,
           config.upstream_tcp,
           stack_,
           transports_,
           timers_,
           heads_,
           resources.stats,
           resources.events,
           random_,
           match_scratch_,
           std::span<char>(write_buffer_.get(), kWriteBufferBytes),
           stages_},
      http_(ctx_, downstreams_, upstreams_, resources.tls_arena),
      tcp_(ctx_, downstreams_),
      downstreams_(ctx_, http_, tcp_),
      upstreams_(ctx_, http_, resources.tls_arena),
      checker_(ctx_, upstreams_.health(), upstreams_.profile(), upstreams_.http2().context()),
      capture_(config.index, resources.inspection),
      inspector_(ctx_, capture_, resources.inspection) {
  stack_.set_tap(capture_);
  tcp_.set_upstreams(upstreams_);
  downstreams_.set_upstreams(upstreams_);
  upstreams_.set_downstreams(downstreams_);
  ctx_.now = now;
  ctx_.health_mesh = resources.health_mesh;
  set_date(0);
}

Worker::~Worker() = default;

bool Worker::take_tables() {
  const RuntimeSnapshot* t = resources_.tables->take(resources_.stats->seen_epoch);
  if (t == ctx_.tables) return false;
  ctx_.tables = t;
  t->adopt_scratch(config_.index, match_scratch_.patterns);
  stack_.set_listeners(&t->listener_set());
  upstreams_.begin_sweep();
  upstreams_.health().on_tables();
  checker_.on_tables();
  chores_at_ = std::min({chores_at_, upstreams_.health().due(), checker_.due()});
  resources_.stats->loop[LoopCounter::kTableSwaps].add();
  return true;
}

void Worker::take_drain(uint64_t word) {
  if (word != drain_word_) ctx_.drain = DrainState::of(word);
  drain_word_ = word;
  stack_.refuse_connections(ctx_.drain.refuses(ctx_.now));
}

bool Worker::iterate(TimeNs now, uint64_t wall_ns) {
  ctx_.now = now;
  ctx_.wall_ns = wall_ns;
  if (wall_ns / base::kSecond != date_second_) set_date(wall_ns / base::kSecond);
  stats::StageScope stage(stages_, stats::Stage::kTables);
  bool busy = take_tables();
  if (const uint64_t drain = resources_.tables->drain(); (drain | drain_word_) != 0) [[unlikely]]
    take_drain(drain);
  transports_.begin_iteration();
  if (inspector_.due(resources_.tables->posted())) [[unlikely]] {
    capture_.set_wall(wall_ns);
    busy |= inspector_.step(*resources_.tables);
  }

  const uint32_t received = stack_.receive(now);
  busy |= received != 0;
  stage.next(stats::Stage::kSession, received);
  while (Connection* c = stack_.pop_ready()) dispatch(*c);
  for (uint32_t i = 0; i < kDeferredPerLoop && transports_.has_deferred(); ++i) {
    dispatch(*transports_.pop_deferred(), tcp::kEventReadable);
    busy = true;
  }
  if (http_.has_wakeups()) {
    http_.run_wake_list();
    busy = true;
  }
  stage.next(stats::Stage::kTimers);
  const uint32_t fired =
      timers_.advance(now, kMaxTimersPerLoop, [this](base::TimerNode& n) { fire(base::member_owner<&SessionTimer::node>(n)); });
  if (fired != 0) {
    resources_.stats->loop[LoopCounter::kTimersFired].add(fired);
    if (timers_.backlog()) resources_.stats->loop[LoopCounter::kTimersDeferred].add();
    busy = true;
  }
  if (stack_.run_timers(now, kMaxTimersPerLoop) != 0) {
    while (Connection* c = stack_.pop_ready()) dispatch(*c);
    busy = true;
  }
  stage.next(stats::Stage::kTables, 0);
  upstreams_.sweep_retired(16);
  stage.next(stats::Stage::kLoop, 0);
  upstreams_.http2().flush();
  http_.http2().flush();
  transports_.flush_records(now);
  stack_.flush(now);
  if (now >= chores_at_) do_chores(now);
  resources_.stats->loop[LoopCounter::kIterations].add();
  if (busy) resources_.stats->loop[LoopCounter::kBusyIterations].add();
  return busy;
}

void Worker::dispatch(Connection& c) {
  const uint32_t events = TcpStack::take_events(c);
  if (c.owner == nullptr) {
    if (c.role != Role::kDownstream) return;
    downstreams_.accept(c);
    if (c.owner == nullptr) return;  // refused
    if ((events & ~uint32_t{tcp::kEventConnected}) == 0) return;
  }
  dispatch(*static_cast<Session*>(c.owner), events);
}

void Worker::dispatch(Session& s, uint32_t events) {
  switch (s.kind) {
    case SessionKind::kDownstream:
      return downstreams_.on_ready(static_cast<DownstreamSession&>(s), events);
    case SessionKind::kUpstreamHttp:
      return upstreams_.on_ready(static_cast<UpstreamSession&>(s), events);
    case SessionKind::kUpstreamTcp:
      return tcp_.on_upstream(static_cast<Tunnel&>(s), events);
    case SessionKind::kHealthCheck:
      return checker_.on_ready(static_cast<CheckSession&>(s), events);
  }
}

void Worker::fire(SessionTimer& t) {
  switch (t.kind) {
    case TimerKind::kDownstream:
      return downstreams_.on_timer(base::member_owner<&DownstreamSession::timer>(t));
    case TimerKind::kExchange:
      return http_.on_timer(base::member_owner<&Exchange::timer>(t));
    case TimerKind::kUpstream:
      return upstreams_.on_timer(base::member_owner<&UpstreamSession::timer>(t));
    case TimerKind::kTunnel:
      return tcp_.on_timer(base::member_owner<&Tunnel::timer>(t));
    case TimerKind::kRetry:
      return http_.on_retry_timer(*base::member_owner<&RetryState::timer>(t).exchange);
    case TimerKind::kHealthCheck:
      return checker_.on_timer(base::member_owner<&CheckSession::timer>(t));
  }
}

TimeNs Worker::next_deadline() {
  return std::min({timers_.next_wakeup(), stack_.next_deadline(), upstreams_.health().due(), checker_.due()});
}

void Worker::set_date(uint64_t wall_seconds) {
  date_second_ = wall_seconds;
  http::format_date(wall_seconds, date_);
  ctx_.date = {date_, sizeof date_};
}

void Worker::do_chores(TimeNs now) {
  if (now >= gauges_at_) publish_gauges(now);
  upstreams_.health().step();
  checker_.step();
  chores_at_ = std::min({gauges_at_, upstreams_.health().due(), checker_.due()});
}

void Worker::publish_gauges(TimeNs now) {
  gauges_at_ = now + kGaugeInterval;
  if (resources_.links != nullptr) watch_links(*resources_.links, now);
  const stats::WorkerStats& s = resources_.stats;
  const auto pool = [&](stats::Pool which, uint64_t in_use, uint64_t capacity) {
    stats::PoolGauge& g = s->pool(which);
    g.in_use.set(in_use);
    g.capacity.set(capacity);
    if (in_use > g.high_water.read()) g.high_water.set(in_use);
  };
  const io::PacketPool& payload = resources_.payload;
  pool(stats::Pool::kPackets, payload.capacity() - payload.available(), payload.capacity());
  pool(stats::Pool::kTcbs, stack_.active_connections(), config_.stack.max_connections);
  pool(stats::Pool::kTimeWait, stack_.time_wait_entries(), config_.stack.max_time_wait);
  pool(stats::Pool::kConnections, downstreams_.in_use(), downstreams_.capacity());
  pool(stats::Pool::kExchanges, http_.exchanges_in_use(), http_.exchanges_capacity());
  pool(stats::Pool::kHeadBuffers, heads_.in_use(), heads_.small_capacity() + heads_.large_capacity());
  pool(stats::Pool::kTlsSessions, transports_.tls_in_use(), config_.tls_sessions);
  pool(stats::Pool::kUpstreamConnections, upstreams_.connections_in_use(), upstreams_.connections_capacity());
  s->heartbeat_ns.set(now);
}

void Worker::watch_links(LinkWatch& links, TimeNs now) {
  for (uint16_t p = 0; p < resources_.ports.size(); ++p) {
    const uint32_t seen = links.came_up[p].load(std::memory_order_relaxed);
    if (std::exchange(links_seen_[p], seen) != seen) stack_.ip().link_came_up(p, now);
  }
  const std::span<const IpLayer::AddressStatus> addresses = stack_.ip().addresses();
  uint64_t duplicates = 0;
  for (size_t n = 0; n < std::min<size_t>(64, addresses.size()); ++n)
    if (addresses[n].state == IpLayer::AddressState::kDuplicate) duplicates |= uint64_t{1} << n;
  if (duplicates != links.duplicates.load(std::memory_order_relaxed))
    links.duplicates.store(duplicates, std::memory_order_relaxed);
}

void Worker::run(const std::atomic<bool>& stop) {
  if (resources_.tls_arena != nullptr) tls::Arena::register_thread(resources_.tls_arena);
  if (resources_.tls_library != nullptr) resources_.tls_library->warm_up_thread();
  // Time is the TSC's where that runs evenly, set by the monotonic clock once a second; wall time is read then too and carried
  // on: a step of the system's clock shows within a second.
  uint64_t tsc = __rdtsc();
  TimeNs now = clock_ns(CLOCK_MONOTONIC);
  const bool even = tsc_is_even() && io::tsc_hz() != 0;
  TscClock clock(even ? io::tsc_hz() : base::kSecond, tsc, now);
  uint64_t wall_offset = clock_ns(CLOCK_REALTIME) - now;
  TimeNs wall_at = now;
  stats::CounterBlock<LoopCounter>& loop = resources_.stats->loop;
  CoreSharing sharing;
  while (!stop.load(std::memory_order_relaxed)) {
    now = even ? clock.at(tsc) : clock_ns(CLOCK_MONOTONIC);
    if (now - wall_at >= TscClock::kInterval) {
      const uint64_t ticks = __rdtsc();
      const TimeNs truth = clock_ns(CLOCK_MONOTONIC);
      if (even) clock.adjust(ticks, truth);
      now = even ? clock.at(ticks) : truth;
      wall_offset = clock_ns(CLOCK_REALTIME) - truth;
      wall_at = now;
    }
    stages_.begin_turn(tsc, resources_.tables->stage_period());
    const bool busy = iterate(now, now + wall_offset);
    const uint64_t end = __rdtsc();
    stages_.end_turn(end, busy);
    loop[busy ? LoopCounter::kBusyCycles : LoopCounter::kIdleCycles].add(end - tsc);
    tsc = end;
    if (config_.shares_core) [[unlikely]] {
      const Pause pause = sharing.after(busy);
      if (pause == Pause::kNap) {
        const timespec nap{0, CoreSharing::kNapNs};
        nanosleep(&nap, nullptr);
      } else if (pause == Pause::kYield) {
        sched_yield();
      }
      if (pause != Pause::kNone) tsc = __rdtsc();
    }
  }
}

}  // namespace millrace::dataplane
