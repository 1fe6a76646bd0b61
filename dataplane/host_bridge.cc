#include "dataplane/host_bridge.h"

#include <cstdlib>
#include <cstring>
#include <poll.h>

namespace millrace::dataplane {

namespace {
// How long the thread sleeps when nothing moves: it wakes by itself for the host's frames, but not for the workers', who make no
// system calls. Milliseconds; the first while something moved in the last kAwakeTurns turns.
constexpr int kShortSleep = 1, kLongSleep = 10;
constexpr uint32_t kAwakeTurns = 200;
}  // namespace

void HostBridge::Memory::operator()(uint8_t* p) const { std::free(p); }

std::unique_ptr<uint8_t, HostBridge::Memory> HostBridge::make_ring(shm::RingProducer& producer, shm::RingConsumer& consumer) {
  const uint64_t size = (shm::ring_bytes(kRingBytes) + 63) & ~uint64_t{63};
  std::unique_ptr<uint8_t, Memory> memory(static_cast<uint8_t*>(std::aligned_alloc(64, size)));
  MILLRACE_ASSERT(memory != nullptr, "memory for the rings of the exception path");
  const std::span<uint8_t> bytes(memory.get(), size);
  const bool ok = shm::format_ring(bytes, kRingBytes) == shm::RingError::kNone &&
                  producer.attach(bytes) == shm::RingError::kNone && consumer.attach(bytes) == shm::RingError::kNone;
  MILLRACE_ASSERT(ok, "a ring in memory of our own");
  return memory;
}

base::Result<std::unique_ptr<HostBridge>> HostBridge::create(const std::vector<Device>& devices, uint32_t workers) {
  std::unique_ptr<HostBridge> bridge(new HostBridge);
  for (const Device& d : devices) {
    auto tap = io::Tap::open(d.name, d.mac, d.mtu);
    if (!tap.ok()) return base::Error{tap.error()};
    bridge->taps_.push_back(std::move(tap).value());
  }
  bridge->lanes_ = std::vector<Lane>(workers);
  for (Lane& lane : bridge->lanes_) lane.memory = make_ring(lane.producer, lane.consumer);
  bridge->from_host_memory_ = make_ring(bridge->from_host_producer_, bridge->from_host_consumer_);
  bridge->frame_ = std::make_unique<uint8_t[]>(sizeof(HostFrame) + io::Tap::kMaxFrame);
  return bridge;
}

HostBridge::~HostBridge() { stop(); }

void HostBridge::start() {
  thread_ = std::thread([this] { run(); });
}

void HostBridge::stop() {
  stop_.store(true, std::memory_order_relaxed);
  if (thread_.joinable()) thread_.join();
}

bool HostBridge::turn() {
  bool moved = false;
  for (Lane& lane : lanes_) {
    for (uint32_t n = 0; n < kFramesPerTurn; ++n) {
      const std::span<const uint8_t> record = lane.consumer.front();
      if (record.data() == nullptr) break;
      HostFrame header;
      std::memcpy(&header, record.data(), sizeof header);
      if (!taps_[header.device]->write(base::ByteSpan(record).subspan(sizeof header), header.sums_good != 0))
        refused_.fetch_add(1, std::memory_order_relaxed);
      lane.consumer.pop();
      moved = true;
    }
  }
  for (size_t d = 0; d < taps_.size(); ++d) {
    for (uint32_t n = 0; n < kFramesPerTurn; ++n) {
      if (from_host_producer_.backlog() + 2 * io::Tap::kMaxFrame > kRingBytes) return moved;
      const uint32_t size = taps_[d]->read(frame_.get() + sizeof(HostFrame), io::Tap::kMaxFrame);
      if (size == 0) break;
      const HostFrame header{static_cast<uint8_t>(d), 1};
      std::memcpy(frame_.get(), &header, sizeof header);
      (void)from_host_producer_.push({frame_.get(), sizeof header + size});  // there is room: looked at above
      moved = true;
    }
  }
  return moved;
}

void HostBridge::run() {
  std::vector<pollfd> wake;
  for (const auto& tap : taps_) wake.push_back({tap->fd(), POLLIN, 0});
  uint32_t awake = 0;
  while (!stop_.load(std::memory_order_relaxed)) {
    if (turn()) {
      awake = kAwakeTurns;
    } else if (awake > 0) {
      --awake;
    }
    const bool full = from_host_producer_.backlog() + 2 * io::Tap::kMaxFrame > kRingBytes;
    poll(wake.data(), full ? 0 : wake.size(), awake > 0 || full ? kShortSleep : kLongSleep);
  }
}

}  // namespace millrace::dataplane
