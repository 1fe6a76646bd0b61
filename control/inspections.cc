#include "control/inspections.h"

#include <algorithm>
#include <cstring>
#include <random>

namespace millrace::control {

std::vector<Inspection::Record> Inspection::take(std::chrono::steady_clock::time_point until, bool* gone) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, until, [this] { return gone_ || !records_.empty(); });
  *gone = gone_ && records_.empty();
  queued_ = 0;
  return std::exchange(records_, {});
}

std::vector<uint64_t> Inspection::lost() {
  std::lock_guard lock(mutex_);
  return lost_;
}

void Inspection::put(uint32_t worker, std::span<const uint8_t> record, const table::InspectHeader& header) {
  std::lock_guard lock(mutex_);
  if (record.data() == nullptr) {
    gone_ = true;
  } else if (header.type == table::InspectType::kPacket && queued_ + record.size() > kMaxQueuedBytes) {
    table::PacketRecord packet;
    if (record.size() < sizeof packet) return;
    std::memcpy(&packet, record.data(), sizeof packet);
    if (packet.port < lost_.size()) ++lost_[packet.port];
    return;
  } else {
    records_.push_back({worker, {record.begin(), record.end()}});
    queued_ += record.size();
  }
  changed_.notify_one();
}

// Random from the start: answers to a question of a control process before this one are nobody's.
Inspections::Inspections() {
  std::random_device random;
  next_id_ = (uint64_t{random()} << 32 | random()) | 1;
}

std::shared_ptr<Inspection> Inspections::open() {
  std::lock_guard lock(mutex_);
  std::erase_if(open_, [](const auto& e) { return e.second.expired(); });
  next_id_ += 2;  // odd, so never 0
  std::shared_ptr<Inspection> made(new Inspection(next_id_));
  open_[next_id_] = made;
  return made;
}

void Inspections::on_record(uint32_t worker, std::span<const uint8_t> record) {
  table::InspectHeader header;
  std::vector<std::shared_ptr<Inspection>> to;
  {
    std::lock_guard lock(mutex_);
    if (record.data() == nullptr) {
      for (const auto& [id, i] : open_)
        if (auto p = i.lock()) to.push_back(std::move(p));
    } else {
      if (record.size() < sizeof header) return;
      std::memcpy(&header, record.data(), sizeof header);
      const auto it = open_.find(header.id);
      if (it == open_.end()) return;
      if (auto p = it->second.lock()) to.push_back(std::move(p));
    }
  }
  for (const auto& i : to) i->put(worker, record, header);
}

}  // namespace millrace::control
