#include "dataplane/control_link.h"

#include <cstdio>
#include <cstring>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "lib/table/inspect.h"

namespace millrace::dataplane {

using base::Error;
using base::Result;
using base::Status;
using base::TimeNs;
using stats::LoaderCounter;
using table::LinkMessage;

namespace {

TimeNs monotonic_now() {
  timespec t;
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<TimeNs>(t.tv_sec) * base::kSecond + static_cast<TimeNs>(t.tv_nsec);
}

Result<shm::Segment> make_ring(const std::string& name, uint64_t capacity) {
  auto s = shm::Segment::create(name, shm::ring_bytes(capacity));
  if (!s.ok()) return s;
  if (const auto e = shm::format_ring(s->bytes(), capacity); e != shm::RingError::kNone)
    return Error{name + ": " + shm::to_string(e) + " (capacity " + std::to_string(capacity) + ")"};
  return s;
}

}  // namespace

table::LinkVersions link_versions(const std::string& regex_platform) {
  table::LinkVersions v;
  v.stats_layout = stats::kRegionLayoutVersion;
  v.events = stats::kEventVersion;
  v.stats_hash = stats::region_layout_hash();
  regex_platform.copy(v.regex_platform, sizeof v.regex_platform - 1);
  return v;
}

Result<SharedSegments> SharedSegments::create(const stats::RegionConfig& region, uint64_t event_ring_bytes) {
  SharedSegments s;
  if (region.workers == 0 || region.workers > stats::kMaxWorkers)
    return Error{"1 to " + std::to_string(stats::kMaxWorkers) + " workers"};
  if (event_ring_bytes / 2 < stats::kMaxAccessLogRecord + shm::kRecordHeader)
    return Error{"event rings are too small for an access log record"};
  auto stats_segment = shm::Segment::create("millrace-stats", stats::region_size(region));
  if (!stats_segment.ok()) return Error{stats_segment.error()};
  s.stats = std::move(*stats_segment);
  for (uint32_t w = 0; w < region.workers; ++w) {
    auto ring = make_ring("millrace-events-" + std::to_string(w), event_ring_bytes);
    if (!ring.ok()) return Error{ring.error()};
    s.worker_events.push_back(std::move(*ring));
    auto inspection = make_ring("millrace-inspect-" + std::to_string(w), table::kInspectRing);
    if (!inspection.ok()) return Error{inspection.error()};
    s.inspection.push_back(std::move(*inspection));
  }
  auto ring = make_ring("millrace-events-loader", kLoaderEventRing);
  if (!ring.ok()) return Error{ring.error()};
  s.loader_events = std::move(*ring);
  return s;
}

ControlLink::ControlLink(const ControlLinkConfig& config, const SharedSegments& segments, stats::Region region,
                         TableLoader& loader)
    : config_(config), segments_(segments), region_(region), loader_(loader) {}

ControlLink::~ControlLink() {
  stop();
  if (phase_ == Phase::kConnected) loader_.detach();
}

Result<std::unique_ptr<ControlLink>> ControlLink::create(const ControlLinkConfig& config, const SharedSegments& segments,
                                                         stats::Region region, TableLoader& loader) {
  std::unique_ptr<ControlLink> link(new ControlLink(config, segments, region, loader));
  auto listener = shm::FdListener::bind(config.socket_path, config.socket_mode);
  if (!listener.ok()) return Error{listener.error()};
  link->listener_ = std::move(*listener);
  return link;
}

bool ControlLink::step(TimeNs now) {
  // The peer first: a control process that died and was started again finds its place free.
  bool did = phase_ != Phase::kIdle && serve_peer(now);
  did |= accept_peers(now);
  did |= loader_.step(now);
  return did;
}

bool ControlLink::accept_peers(TimeNs now) {
  bool did = false;
  for (;;) {
    shm::FdChannel channel = listener_.accept();
    if (!channel.open()) return did;
    did = true;
    if (phase_ != Phase::kIdle) {
      refuse(channel,
             "this data plane already serves the control process " + std::to_string(peer_.peer_pid()) + "; stop that one first");
      continue;
    }
    peer_ = std::move(channel);
    phase_ = Phase::kAwaitHello;
    handshake_deadline_ = base::time_add(now, kHandshakeNs);
    serve_peer(now);
  }
}

void ControlLink::refuse(shm::FdChannel& channel, const std::string& reason) {
  table::LinkRefused refused;
  reason.copy(refused.reason, sizeof refused.reason - 1);
  (void)channel.send_struct(static_cast<uint16_t>(LinkMessage::kRefused), refused);
  region_.loader()[LoaderCounter::kControlRefused].add();
  std::fprintf(stderr, "control process refused: %s\n", reason.c_str());
}

void ControlLink::drop(const char* why) {
  if (phase_ == Phase::kConnected) {
    loader_.detach();
    std::fprintf(stderr, "control process %u is gone (%s); serving on with the tables of epoch %llu\n", control_pid(), why,
                 static_cast<unsigned long long>(loader_.last_epoch()));
  }
  peer_.close();
  phase_ = Phase::kIdle;
  handshake_deadline_ = base::kNever;
  connected_.store(false, std::memory_order_relaxed);
  control_pid_.store(0, std::memory_order_relaxed);
  region_.loader()[LoaderCounter::kControlConnected].set(0);
}

bool ControlLink::serve_peer(TimeNs now) {
  bool did = false;
  while (phase_ != Phase::kIdle) {
    shm::Message message;
    const shm::ReceiveResult result = peer_.receive(message);
    if (result == shm::ReceiveResult::kNothing) break;
    did = true;
    if (result == shm::ReceiveResult::kClosed) {
      drop("it closed the connection");
    } else if (result == shm::ReceiveResult::kMalformed) {
      drop("it sent a malformed message");
    } else {
      handle(message);
    }
  }
  if ((phase_ == Phase::kAwaitHello || phase_ == Phase::kAwaitAttach) && now >= handshake_deadline_) {
    refuse(peer_, "the handshake took too long");
    drop("handshake timeout");
    did = true;
  }
  return did;
}

void ControlLink::handle(shm::Message& message) {
  const auto type = static_cast<LinkMessage>(message.type);
  if (phase_ == Phase::kAwaitHello && type == LinkMessage::kHello) return on_hello(message);
  if (phase_ == Phase::kAwaitAttach && type == LinkMessage::kAttach) return on_attach(message);
  refuse(peer_, "unexpected message");
  drop("it sent an unexpected message");
}

void ControlLink::on_hello(const shm::Message& message) {
  table::LinkHello hello;
  const auto reject = [&](const std::string& reason) {
    refuse(peer_, reason);
    drop("refused");
  };
  if (!message.get(hello)) return reject("malformed hello: use millrace-control and millrace-dataplane of the same build");
  if (const char* why = table::link_mismatch(config_.versions, hello.versions); why != nullptr) return reject(why);
  if (hello.incarnation == 0) return reject("hello without an incarnation");
  peer_incarnation_ = hello.incarnation;

  table::LinkWelcome welcome;
  welcome.versions = config_.versions;
  welcome.incarnation = config_.incarnation;
  welcome.last_epoch = loader_.last_epoch();
  welcome.pid = static_cast<uint32_t>(::getpid());
  welcome.workers = region_.workers();
  auto stats_fd = segments_.stats.read_only_fd();
  if (!stats_fd.ok()) return reject(stats_fd.error());
  std::vector<int> fds{stats_fd->get()};
  for (const shm::Segment& s : segments_.worker_events) fds.push_back(s.fd());
  fds.push_back(segments_.loader_events.fd());
  for (const shm::Segment& s : segments_.inspection) fds.push_back(s.fd());
  if (Status s = peer_.send_struct(static_cast<uint16_t>(LinkMessage::kWelcome), welcome, fds); !s.ok())
    return drop("welcome could not be sent");
  phase_ = Phase::kAwaitAttach;
}

void ControlLink::on_attach(shm::Message& message) {
  table::LinkAttach attach;
  const auto reject = [&](const std::string& reason) {
    refuse(peer_, reason);
    drop("refused");
  };
  if (!message.get(attach) || message.fds.size() != 2) return reject("malformed attach");
  auto arena = shm::Segment::map(std::move(message.fds[0]), shm::Access::kReadOnly, table::kMinArenaSize, table::kMaxArenaSize);
  if (!arena.ok()) return reject("arena: " + arena.error());
  if (arena->size() != attach.arena_size) return reject("arena: not of the announced size");
  auto commands = shm::Segment::map(std::move(message.fds[1]), shm::Access::kReadWrite, shm::ring_bytes(shm::kMinRingCapacity),
                                    shm::ring_bytes(shm::kMaxRingCapacity));
  if (!commands.ok()) return reject("command ring: " + commands.error());
  if (Status s = loader_.attach(std::move(*arena), std::move(*commands), peer_incarnation_); !s.ok()) return reject(s.error());
  if (Status s = peer_.send_struct(static_cast<uint16_t>(LinkMessage::kReady), table::LinkReady{}); !s.ok()) {
    loader_.detach();
    return drop("ready could not be sent");
  }
  phase_ = Phase::kConnected;
  handshake_deadline_ = base::kNever;
  control_pid_.store(peer_.peer_pid(), std::memory_order_relaxed);
  connected_.store(true, std::memory_order_relaxed);
  region_.loader()[LoaderCounter::kControlConnects].add();
  region_.loader()[LoaderCounter::kControlConnected].set(1);
  std::fprintf(stderr, "control process %u connected\n", control_pid());
}

void ControlLink::start() {
  stopping_ = false;
  thread_ = std::thread([this] {
    while (!stopping_.load(std::memory_order_relaxed)) {
      if (step(monotonic_now())) continue;
      // Rings have no bell: look again soon. Without a control process only its coming matters, and freeing what workers have
      // passed.
      pollfd fds[2] = {{listener_.fd(), POLLIN, 0}, {peer_.fd(), POLLIN, 0}};
      ::poll(fds, phase_ == Phase::kIdle ? 1 : 2, phase_ == Phase::kConnected ? kPollMs : kIdlePollMs);
    }
  });
}

void ControlLink::stop() {
  stopping_ = true;
  if (thread_.joinable()) thread_.join();
}

}  // namespace millrace::dataplane
