// Questions to the data plane under way: what workers answer (table/inspect.h), sorted by who asked. The link's thread puts
// records in, the thread that asked takes them out.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "lib/table/inspect.h"

namespace millrace::control {

// One question. Any thread.
class Inspection {
 public:
  struct Record {
    uint32_t worker = 0;
    std::vector<uint8_t> bytes;
    // A copy of the fixed part; false when the record is too short for it.
    template <class T>
    bool get(T& out) const {
      if (bytes.size() < sizeof(T)) return false;
      std::memcpy(&out, bytes.data(), sizeof(T));
      return true;
    }
    std::span<const uint8_t> behind(size_t fixed) const { return std::span(bytes).subspan(std::min(fixed, bytes.size())); }
  };

  uint64_t id() const { return id_; }
  // Waits until there are records, or `until`; gives all that there are. `gone`: the data plane went away.
  std::vector<Record> take(std::chrono::steady_clock::time_point until, bool* gone);
  // Packets that found the queue full, by port.
  std::vector<uint64_t> lost();

  static constexpr size_t kMaxQueuedBytes = 256 << 20;  // beyond: packets are lost, and counted; other records are few enough

 private:
  friend class Inspections;
  explicit Inspection(uint64_t id) : id_(id), lost_(table::kMaxCapturePorts) {}
  void put(uint32_t worker, std::span<const uint8_t> record, const table::InspectHeader& header);

  const uint64_t id_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Record> records_;
  size_t queued_ = 0;
  std::vector<uint64_t> lost_;
  bool gone_ = false;
};

class Inspections {
 public:
  Inspections();
  // A new question with an id of its own. It hears nothing any more when its last owner lets go of it.
  std::shared_ptr<Inspection> open();
  // The link's handler (DataplaneLink::InspectHandler).
  void on_record(uint32_t worker, std::span<const uint8_t> record);

 private:
  std::mutex mutex_;
  std::map<uint64_t, std::weak_ptr<Inspection>> open_;
  uint64_t next_id_;
};

}  // namespace millrace::control
