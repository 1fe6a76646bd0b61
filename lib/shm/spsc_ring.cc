#include "lib/shm/spsc_ring.h"

namespace millrace::shm {

const char* to_string(RingError e) {
  switch (e) {
    case RingError::kNone:
      return "none";
    case RingError::kTooSmall:
      return "ring_too_small";
    case RingError::kBadMagic:
      return "ring_bad_magic";
    case RingError::kBadVersion:
      return "ring_bad_version";
    case RingError::kBadCapacity:
      return "ring_bad_capacity";
    case RingError::kHeadMisaligned:
      return "ring_index_misaligned";
    case RingError::kHeadBehindTail:
      return "ring_head_behind_tail";
    case RingError::kHeadBeyondEnd:
      return "ring_head_beyond_capacity";
    case RingError::kHeadMovedBack:
      return "ring_head_moved_back";
    case RingError::kTailBeyondHead:
      return "ring_tail_beyond_head";
    case RingError::kTailMovedBack:
      return "ring_tail_moved_back";
    case RingError::kBadRecordSize:
      return "ring_bad_record_size";
    case RingError::kRecordBeyondHead:
      return "ring_record_beyond_head";
    case RingError::kRecordBeyondEnd:
      return "ring_record_beyond_end";
  }
  return "unknown";
}

namespace {
constexpr bool capacity_ok(uint64_t c) { return c >= kMinRingCapacity && c <= kMaxRingCapacity && std::has_single_bit(c); }
}  // namespace

uint64_t ring_capacity_for(uint64_t bytes) {
  if (bytes < ring_bytes(kMinRingCapacity)) return 0;
  const uint64_t c = std::bit_floor(bytes - sizeof(RingHeader));
  return c < kMaxRingCapacity ? c : kMaxRingCapacity;
}

RingError format_ring(std::span<uint8_t> memory, uint64_t capacity) {
  if (!capacity_ok(capacity)) return RingError::kBadCapacity;
  if (memory.size() < ring_bytes(capacity) || reinterpret_cast<uintptr_t>(memory.data()) % 64 != 0) return RingError::kTooSmall;
  RingHeader* h = reinterpret_cast<RingHeader*>(memory.data());
  h->magic = kRingMagic;
  h->version = kRingVersion;
  h->reserved = 0;
  h->capacity = capacity;
  h->head.store(0, std::memory_order_relaxed);  // the hand-out of the memory orders these before any use
  h->tail.store(0, std::memory_order_relaxed);
  return RingError::kNone;
}

RingError detail::check_header(std::span<uint8_t> memory, RingHeader*& header) {
  if (memory.size() < sizeof(RingHeader) || reinterpret_cast<uintptr_t>(memory.data()) % 64 != 0) return RingError::kTooSmall;
  RingHeader* h = reinterpret_cast<RingHeader*>(memory.data());
  if (h->magic != kRingMagic) return RingError::kBadMagic;
  if (h->version != kRingVersion) return RingError::kBadVersion;
  const uint64_t capacity = h->capacity;
  if (!capacity_ok(capacity)) return RingError::kBadCapacity;
  if (memory.size() < ring_bytes(capacity)) return RingError::kTooSmall;
  header = h;
  return RingError::kNone;
}

namespace {

// Both counters, at attach: the peer's and what a predecessor of ours left behind are equally untrusted.
RingError check_counters(uint64_t head, uint64_t tail, uint64_t capacity) {
  if (head % 8 != 0 || tail % 8 != 0) return RingError::kHeadMisaligned;
  if (tail > head) return RingError::kHeadBehindTail;
  if (head - tail > capacity) return RingError::kHeadBeyondEnd;
  return RingError::kNone;
}

}  // namespace

// ---- producer -------------------------------------------------------------------------------------------------------------

RingError RingProducer::attach(std::span<uint8_t> memory) {
  *this = RingProducer();
  RingHeader* h = nullptr;
  if (error_ = detail::check_header(memory, h); error_ != RingError::kNone) return error_;
  capacity_ = h->capacity;
  mask_ = capacity_ - 1;
  head_ = h->head.load(std::memory_order_acquire);        // a predecessor's PUBLISH
  tail_cache_ = h->tail.load(std::memory_order_acquire);  // REUSE (5), pairs with FREE in RingConsumer::pop
  if (error_ = check_counters(head_, tail_cache_, capacity_); error_ != RingError::kNone) return error_;
  ring_ = h;
  return RingError::kNone;
}

// Loads and checks the consumer's counter; true when `need` more bytes fit behind head_.
bool RingProducer::refresh_tail(uint64_t need) {
  const uint64_t tail = ring_->tail.load(std::memory_order_acquire);  // REUSE (5), pairs with FREE in RingConsumer::pop
  if (tail % 8 != 0) error_ = RingError::kHeadMisaligned;
  else if (tail > head_) error_ = RingError::kTailBeyondHead;
  else if (tail < tail_cache_) error_ = RingError::kTailMovedBack;
  if (error_ != RingError::kNone) return false;
  tail_cache_ = tail;
  return head_ + need - tail <= capacity_;
}

bool RingProducer::push(std::span<const uint8_t> record) {
  const auto room = reserve(static_cast<uint32_t>(record.size()));
  if (room.data() == nullptr) return false;
  if (!record.empty()) std::memcpy(room.data(), record.data(), record.size());
  commit(static_cast<uint32_t>(record.size()));
  return true;
}

uint64_t RingProducer::backlog() {
  if (ring_ == nullptr || error_ != RingError::kNone) return 0;
  refresh_tail(0);
  return head_ - tail_cache_;
}

// ---- consumer -------------------------------------------------------------------------------------------------------------

RingError RingConsumer::attach(std::span<uint8_t> memory) {
  *this = RingConsumer();
  RingHeader* h = nullptr;
  if (error_ = detail::check_header(memory, h); error_ != RingError::kNone) return error_;
  capacity_ = h->capacity;
  mask_ = capacity_ - 1;
  tail_ = h->tail.load(std::memory_order_acquire);        // a predecessor's FREE
  head_cache_ = h->head.load(std::memory_order_acquire);  // ACQUIRE (4), pairs with PUBLISH in RingProducer::commit
  if (error_ = check_counters(head_cache_, tail_, capacity_); error_ != RingError::kNone) return error_;
  ring_ = h;
  return RingError::kNone;
}

// Loads and checks the producer's counter; true when there is something behind tail_.
bool RingConsumer::refresh_head() {
  const uint64_t head = ring_->head.load(std::memory_order_acquire);  // ACQUIRE (4), pairs with PUBLISH in RingProducer::commit
  if (head % 8 != 0) error_ = RingError::kHeadMisaligned;
  else if (head < tail_) error_ = RingError::kHeadBehindTail;
  else if (head - tail_ > capacity_) error_ = RingError::kHeadBeyondEnd;
  else if (head < head_cache_) error_ = RingError::kHeadMovedBack;
  if (error_ != RingError::kNone) return false;
  head_cache_ = head;
  return head != tail_;
}

std::span<const uint8_t> RingConsumer::front() {
  if (ring_ == nullptr || error_ != RingError::kNone) return {};
  const auto fail = [&](RingError e) {
    error_ = e;
    current_ = 0;
    return std::span<const uint8_t>();
  };
  for (;;) {
    if (tail_ == head_cache_ && !refresh_head()) return {};
    const uint64_t at = tail_ & mask_;
    uint64_t word;
    std::memcpy(&word, ring_->data + at, sizeof word);
    const uint32_t size = static_cast<uint32_t>(word);
    if (static_cast<uint32_t>(word >> 32) != static_cast<uint32_t>(~size)) return fail(RingError::kBadRecordSize);
    if ((size & detail::kPad) != 0) {
      // A pad ends exactly at the end of the buffer, and a record follows it in the same commit.
      const uint64_t pad = size & ~detail::kPad;
      if (pad != capacity_ - at) return fail(RingError::kRecordBeyondEnd);
      if (pad >= head_cache_ - tail_) return fail(RingError::kRecordBeyondHead);
      tail_ += pad;  // private until the record behind it is popped
      continue;
    }
    const uint64_t bytes = detail::record_bytes(size);
    if (bytes > capacity_ / 2) return fail(RingError::kBadRecordSize);
    if (bytes > head_cache_ - tail_) return fail(RingError::kRecordBeyondHead);
    if (bytes > capacity_ - at) return fail(RingError::kRecordBeyondEnd);
    current_ = bytes;
    return {ring_->data + at + kRecordHeader, size};
  }
}

uint64_t RingConsumer::backlog() {
  if (ring_ == nullptr || error_ != RingError::kNone) return 0;
  refresh_head();
  return error_ == RingError::kNone ? head_cache_ - tail_ : 0;
}

}  // namespace millrace::shm
