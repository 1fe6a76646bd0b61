#include "control/dataplane_link.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <time.h>
#include <unistd.h>

#include "lib/stats/events.h"

namespace millrace::control {

using base::Error;
using base::Status;
using base::TimeNs;
using table::LinkMessage;

table::LinkVersions link_versions(const std::string& regex_platform) {
  table::LinkVersions v;
  v.stats_layout = stats::kRegionLayoutVersion;
  v.events = stats::kEventVersion;
  v.stats_hash = stats::region_layout_hash();
  regex_platform.copy(v.regex_platform, sizeof v.regex_platform - 1);
  return v;
}

namespace {

constexpr uint64_t kMaxRegionBytes = 1ull << 40, kMaxEventRingBytes = shm::ring_bytes(shm::kMaxRingCapacity) + shm::kHugePageSize;

TimeNs monotonic_now() {
  timespec t;
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<TimeNs>(t.tv_sec) * base::kSecond + static_cast<TimeNs>(t.tv_nsec);
}

}  // namespace

DataplaneLink::DataplaneLink(const DataplaneLinkConfig& config, Publisher& publisher, EventHandler on_event, LogHandler log,
                             InspectHandler on_inspect)
    : config_(config),
      publisher_(publisher),
      on_event_(std::move(on_event)),
      log_(std::move(log)),
      on_inspect_(std::move(on_inspect)) {
  info_.state = "waiting for the data plane";
}

DataplaneLink::~DataplaneLink() {
  stop();
  if (phase_ != Phase::kDown) lose(0, "");
}

// One line per change of circumstances: a data plane that is away for an hour is reported once.
void DataplaneLink::say(const std::string& line) {
  {
    std::lock_guard lock(mutex_);
    info_.state = line;
  }
  if (line == last_line_) return;
  last_line_ = line;
  if (log_) log_(line);
}

bool DataplaneLink::step(TimeNs now) {
  if (phase_ == Phase::kDown) return now >= next_try_ && try_connect(now);
  return serve(now);
}

bool DataplaneLink::try_connect(TimeNs now) {
  const auto again = [&](const std::string& why) {
    channel_.close();
    next_try_ = now + retry_step_;
    retry_step_ = std::min(retry_step_ * 2, kRetryMaxNs);
    say("no data plane: " + why);
    return false;
  };
  auto channel = shm::FdChannel::connect(config_.socket_path);
  if (!channel.ok()) return again(channel.error());
  channel_ = std::move(*channel);
  table::LinkHello hello;
  hello.versions = config_.versions;
  hello.incarnation = config_.incarnation;
  hello.pid = static_cast<uint32_t>(::getpid());
  if (Status s = channel_.send_struct(static_cast<uint16_t>(LinkMessage::kHello), hello); !s.ok()) return again(s.error());
  phase_ = Phase::kAwaitWelcome;
  deadline_ = now + kHandshakeNs;
  return true;
}

void DataplaneLink::lose(TimeNs now, const std::string& why) {
  const bool was_up = phase_ == Phase::kUp;
  phase_ = Phase::kDown;
  deadline_ = base::kNever;
  if (was_up) retry_step_ = kRetryFirstNs;
  next_try_ = base::time_add(now, retry_step_);
  retry_step_ = std::min(retry_step_ * 2, kRetryMaxNs);
  channel_.close();
  if (was_up) {
    drain_inspection();
    if (on_inspect_) on_inspect_(0, {});
    drain_events();  // what it left behind: the rings are still mapped
    publisher_.on_unlinked();
  }
  {
    std::lock_guard lock(mutex_);
    view_.reset();
    stats_ = shm::Segment();
    info_.connected = false;
  }
  consumers_.clear();
  inspection_.clear();
  rings_.clear();
  if (!why.empty()) say(why);
}

Status DataplaneLink::on_welcome(shm::Message& message) {
  if (!message.get(welcome_)) return Error{"malformed welcome"};
  if (const char* why = table::link_mismatch(config_.versions, welcome_.versions); why != nullptr) return Error{why};
  if (welcome_.workers == 0 || welcome_.workers > stats::kMaxWorkers || message.fds.size() != 2 * welcome_.workers + 2)
    return Error{"welcome with " + std::to_string(message.fds.size()) + " segments for " + std::to_string(welcome_.workers) +
                 " workers"};
  auto stats = shm::Segment::map(std::move(message.fds[0]), shm::Access::kReadOnly, sizeof(stats::RegionHeader), kMaxRegionBytes);
  if (!stats.ok()) return Error{"statistics region: " + stats.error()};
  auto view = stats::RegionView::attach(stats->bytes());
  if (!view.ok()) return Error{view.error()};
  if (view->workers() != welcome_.workers || view->header().incarnation != welcome_.incarnation)
    return Error{"statistics region of another data plane"};
  rings_.clear();
  consumers_.clear();
  inspection_.clear();
  for (size_t i = 1; i < message.fds.size(); ++i) {
    auto ring = shm::Segment::map(std::move(message.fds[i]), shm::Access::kReadWrite, shm::ring_bytes(shm::kMinRingCapacity),
                                  kMaxEventRingBytes);
    if (!ring.ok()) return Error{"event ring: " + ring.error()};
    rings_.push_back(std::move(*ring));
    auto& consumers = i <= welcome_.workers + 1 ? consumers_ : inspection_;
    consumers.emplace_back();
    if (const auto e = consumers.back().attach(rings_.back().bytes()); e != shm::RingError::kNone)
      return Error{std::string(i <= welcome_.workers + 1 ? "event" : "inspection") + " ring: " + shm::to_string(e)};
  }
  auto handover = publisher_.prepare_link();
  if (!handover.ok()) return Error{handover.error()};
  table::LinkAttach attach;
  attach.arena_size = handover->arena_size;
  attach.command_capacity = handover->command_capacity;
  const int fds[] = {handover->arena.get(), handover->commands};
  if (Status s = channel_.send_struct(static_cast<uint16_t>(LinkMessage::kAttach), attach, fds); !s.ok()) return s;
  std::lock_guard lock(mutex_);
  stats_ = std::move(*stats);
  // The view points into the mapping, which moved with its owner and stayed where it was.
  view_ = *view;
  return {};
}

bool DataplaneLink::serve(TimeNs now) {
  bool did = false;
  shm::Message message;
  switch (channel_.receive(message)) {
    case shm::ReceiveResult::kNothing:
      break;
    case shm::ReceiveResult::kClosed:
      lose(now, phase_ == Phase::kUp ? "lost the data plane (process " + std::to_string(welcome_.pid) + ")"
                                     : "no data plane: it closed the connection");
      return true;
    case shm::ReceiveResult::kMalformed:
      lose(now, "data plane sent a malformed message");
      return true;
    case shm::ReceiveResult::kMessage: {
      did = true;
      const auto type = static_cast<LinkMessage>(message.type);
      if (type == LinkMessage::kRefused) {
        table::LinkRefused refused;
        const bool readable = message.get(refused);
        lose(now,
             "the data plane refused: " +
                 (readable ? std::string(refused.reason, strnlen(refused.reason, sizeof refused.reason)) : "no reason given"));
        return true;
      }
      if (phase_ == Phase::kAwaitWelcome && type == LinkMessage::kWelcome) {
        if (Status s = on_welcome(message); !s.ok()) {
          lose(now, "cannot use the data plane: " + s.error());
          return true;
        }
        phase_ = Phase::kAwaitReady;
      } else if (phase_ == Phase::kAwaitReady && type == LinkMessage::kReady) {
        phase_ = Phase::kUp;
        deadline_ = base::kNever;
        retry_step_ = kRetryFirstNs;
        {
          std::lock_guard lock(mutex_);
          info_.connected = true;
          info_.incarnation = welcome_.incarnation;
          info_.pid = welcome_.pid;
          info_.workers = welcome_.workers;
        }
        publisher_.on_linked(*view_, welcome_.last_epoch);
        say("connected to the data plane: process " + std::to_string(welcome_.pid) + ", " + std::to_string(welcome_.workers) +
            (welcome_.workers == 1 ? " worker" : " workers"));
      } else {
        lose(now, "data plane sent an unexpected message");
        return true;
      }
      break;
    }
  }
  if (phase_ != Phase::kUp) {
    if (now >= deadline_) {
      lose(now, "no data plane: it did not finish the handshake");
      return true;
    }
    return did;
  }
  did |= drain_events();
  did |= drain_inspection();
  if (Status s = publisher_.step(); !s.ok()) {
    lose(now, s.error());
    return true;
  }
  for (const auto* consumers : {&consumers_, &inspection_})
    for (const shm::RingConsumer& c : *consumers) {
      if (c.error() == shm::RingError::kNone) continue;
      lose(now, std::string("a ring of the data plane is corrupt: ") + shm::to_string(c.error()));
      return true;
    }
  return did;
}

bool DataplaneLink::drain_events() {
  uint64_t read = 0;
  // The loader's first: acknowledgements matter more than log records.
  if (!consumers_.empty()) {
    shm::RingConsumer& loader = consumers_.back();
    for (auto record = loader.front(); record.data() != nullptr; record = loader.front()) {
      stats::LoaderEvent event;
      std::string_view text;
      stats::RecordHeader header;
      if (stats::check_record(record, header) == stats::RecordError::kNone &&
          stats::read_loader_event(record, event, text) == stats::RecordError::kNone) {
        publisher_.on_loader_event(event, header.type, text);
        if (header.type == stats::EventType::kSnapshotRejected && event.incarnation == config_.incarnation && log_)
          log_("data plane rejected the tables of epoch " + std::to_string(event.epoch) + ": " + std::string(text));
        else if (header.type == stats::EventType::kLoaderNote && log_) log_("data plane: " + std::string(text));
      }
      loader.pop();
      if (++read == kEventsPerStep) break;
    }
    // Round robin in small portions, so that one busy worker does not starve the others.
    constexpr uint32_t kPortion = 64;
    bool more = true;
    for (uint32_t budget = kEventsPerStep; more && budget >= kPortion;) {
      more = false;
      for (size_t w = 0; w + 1 < consumers_.size() && budget >= kPortion; ++w) {
        uint32_t n = 0;
        for (; n < kPortion; ++n) {
          const auto record = consumers_[w].front();
          if (record.data() == nullptr) break;
          if (on_event_) on_event_(static_cast<uint32_t>(w), record);
          consumers_[w].pop();
        }
        read += n;
        budget -= n == 0 ? 1 : n;
        more |= n == kPortion;
      }
    }
  }
  if (read == 0) return false;
  std::lock_guard lock(mutex_);
  info_.events_read += read;
  return true;
}

bool DataplaneLink::drain_inspection() {
  bool did = false;
  for (size_t w = 0; w < inspection_.size(); ++w) {
    shm::RingConsumer& ring = inspection_[w];
    for (uint32_t n = 0; n < kInspectionsPerStep; ++n) {
      const auto record = ring.front();
      if (record.data() == nullptr) break;
      if (on_inspect_ && !record.empty()) on_inspect_(static_cast<uint32_t>(w), record);
      ring.pop();
      did = true;
    }
  }
  return did;
}

void DataplaneLink::start() {
  stopping_ = false;
  thread_ = std::thread([this] {
    while (!stopping_.load(std::memory_order_relaxed)) {
      const TimeNs now = monotonic_now();
      if (step(now)) continue;
      if (phase_ == Phase::kDown) {
        const TimeNs wait = next_try_ > now ? next_try_ - now : 0;
        std::this_thread::sleep_for(std::chrono::nanoseconds(std::min(wait, kRetryFirstNs)));
      } else {
        // Rings have no bell: look again soon. The socket ends the wait early when the peer dies.
        channel_.wait_readable(static_cast<int>(kEventPollNs / base::kMillisecond));
      }
    }
  });
}

void DataplaneLink::stop() {
  stopping_ = true;
  if (thread_.joinable()) thread_.join();
}

DataplaneInfo DataplaneLink::info() const {
  std::lock_guard lock(mutex_);
  return info_;
}

bool DataplaneLink::with_stats(const std::function<void(const stats::RegionView&)>& f) const {
  std::lock_guard lock(mutex_);
  if (!view_ || !info_.connected) return false;
  f(*view_);
  return true;
}

}  // namespace millrace::control
