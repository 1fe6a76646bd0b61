// Both ends of the link in one process, stepped by hand in virtual time: a data plane (loader, control link, fake workers) and a
// control (publisher, data plane link). The only place where both sides meet outside the programs.
#pragma once

#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "control/dataplane_link.h"
#include "control/publisher.h"
#include "dataplane/control_link.h"
#include "dataplane/table_loader.h"
#include "lib/stats/region.h"
#include "lib/table/validate.h"
#include "tests/unit/table/sample_objects.h"

namespace millrace::testing {

namespace sample = table::sample;
using Blob = std::vector<uint8_t>;

struct RunDir {
  RunDir() {
    char name[] = "/tmp/millrace-link-XXXXXX";
    path = ::mkdtemp(name);
    socket = path + "/dataplane.sock";
  }
  ~RunDir() {
    ::unlink(socket.c_str());
    ::rmdir(path.c_str());
  }
  std::string path, socket;
};

// A poll core without packets: takes tables, and reads all it is shown.
struct FakeWorker {
  uint32_t index = 0;
  dataplane::WorkerTableSlot* slot = nullptr;
  stats::WorkerStats stats;
  route::PatternScratch scratch;
  const dataplane::RuntimeSnapshot* tables = nullptr;

  bool turn() {
    const dataplane::RuntimeSnapshot* t = slot->take(stats->seen_epoch);
    if (t == tables) return false;
    tables = t;
    t->adopt_scratch(index, scratch);
    return true;
  }
};

struct FakeDataplane {
  explicit FakeDataplane(const std::string& socket, uint32_t workers = 2, uint64_t incarnation = 77,
                         std::vector<tls::LibraryContext*> libraries = {}, const std::string& platform = "test")
      : slots(workers) {
    config.workers = workers;
    config.scopes = 256;
    config.incarnation = incarnation;
    auto made = dataplane::SharedSegments::create(config, 64 * 1024);
    EXPECT_TRUE(made.ok()) << made.error();
    segments = std::move(*made);
    auto r = stats::Region::create(segments.stats.bytes(), config);
    EXPECT_TRUE(r.ok()) << r.error();
    region = std::make_unique<stats::Region>(*r);
    EXPECT_EQ(loader_events.attach(segments.loader_events.bytes()), shm::RingError::kNone);
    dataplane::TableLoaderConfig c;
    c.tls_libraries = std::move(libraries);
    c.scope_linger_ns = base::kSecond;
    loader = std::make_unique<dataplane::TableLoader>(c, *region, slots, &loader_events);
    dataplane::ControlLinkConfig l;
    l.socket_path = socket;
    l.versions = dataplane::link_versions(platform);
    l.incarnation = incarnation;
    auto made_link = dataplane::ControlLink::create(l, segments, *region, *loader);
    EXPECT_TRUE(made_link.ok()) << made_link.error();
    link = std::move(*made_link);
    event_rings.resize(workers);
    this->workers.resize(workers);
    for (uint32_t w = 0; w < workers; ++w) {
      EXPECT_EQ(event_rings[w].attach(segments.worker_events[w].bytes()), shm::RingError::kNone);
      this->workers[w].index = w;
      this->workers[w].slot = &slots[w];
      this->workers[w].stats = region->worker_stats(w);
      this->workers[w].turn();
    }
  }
  void turn_all() {
    for (FakeWorker& w : workers) w.turn();
  }
  uint64_t count(stats::LoaderCounter c) const { return region->loader()[c].read(); }

  stats::RegionConfig config;
  dataplane::SharedSegments segments;
  std::unique_ptr<stats::Region> region;
  std::vector<dataplane::WorkerTableSlot> slots;
  shm::RingProducer loader_events;
  std::vector<shm::RingProducer> event_rings;
  std::unique_ptr<dataplane::TableLoader> loader;
  std::unique_ptr<dataplane::ControlLink> link;
  std::vector<FakeWorker> workers;
};

struct FakeControl {
  explicit FakeControl(const std::string& socket, uint64_t incarnation = 1, control::PublisherConfig config = {},
                       const std::string& platform = "test") {
    config.incarnation = incarnation;
    if (config.arena_size == table::kDefaultArenaSize) config.arena_size = 64 << 20;
    auto made = control::Publisher::create(config);
    EXPECT_TRUE(made.ok()) << made.error();
    publisher = std::move(*made);
    control::DataplaneLinkConfig l;
    l.socket_path = socket;
    l.versions = control::link_versions(platform);
    l.incarnation = incarnation;
    link = std::make_unique<control::DataplaneLink>(
        l, *publisher,
        [this](uint32_t worker, std::span<const uint8_t> record) {
          events.emplace_back(worker, Blob(record.begin(), record.end()));
        },
        [this](const std::string& line) { log.push_back(line); });
  }
  // Names as the compiler gives them: here the blob's own.
  uint64_t publish(const std::vector<std::pair<std::string, Blob>>& changed, const std::vector<table::ObjectId>& removed = {}) {
    std::vector<control::PublishObject> objects;
    for (const auto& [name, blob] : changed) objects.push_back({name, blob});
    auto epoch = publisher->publish(objects, removed);
    EXPECT_TRUE(epoch.ok()) << epoch.error();
    return epoch.ok() ? *epoch : 0;
  }

  std::vector<std::pair<uint32_t, Blob>> events;
  std::vector<std::string> log;
  std::unique_ptr<control::Publisher> publisher;
  std::unique_ptr<control::DataplaneLink> link;
};

// Steps both sides until nothing happens any more; `now` goes on by a millisecond a round.
inline void settle(FakeDataplane* d, FakeControl* c, base::TimeNs& now, bool workers = true) {
  int quiet = 0;
  for (int i = 0; i < 2000 && quiet < 5; ++i) {
    now += base::kMillisecond;
    bool did = false;
    if (c != nullptr) did |= c->link->step(now);
    if (d != nullptr) {
      did |= d->link->step(now);
      if (workers)
        for (FakeWorker& w : d->workers) did |= w.turn();
    }
    const bool waiting = c != nullptr && d != nullptr && !c->link->info().connected;  // between two tries
    quiet = did || waiting ? 0 : quiet + 1;
    if (waiting && i > 300) return;
  }
}

inline std::string state(control::AckState s) {
  switch (s) {
    case control::AckState::kAcknowledged:
      return "acknowledged";
    case control::AckState::kRejected:
      return "rejected";
    case control::AckState::kPending:
      return "pending";
    case control::AckState::kNotConnected:
      return "not connected";
  }
  return "?";
}

}  // namespace millrace::testing
