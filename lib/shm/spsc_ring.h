// A lock-free ring of variable-length records between one producer and one consumer, in one process or in two. Never blocks,
// never makes a system call, never allocates.
//
//   memory:  RingHeader (3 cache lines: constants | head | tail) then `capacity` bytes of records
//   record:  | size u32 | ~size u32 | payload, padded to 8 |       a pad record (size kPad) fills the end when the next one would
//   not fit
//
// The ordering argument
//  1. `head` counts bytes ever committed and has one writer, the producer. `tail` counts bytes ever consumed and has one writer,
//     the consumer. Both only grow (64 bits do not wrap), both are multiples of 8, and tail <= head <= tail + capacity always.
//  2. Byte i of the stream lies at data[i % capacity]; capacity is a power of two.
//  3. The producer writes only bytes in [head, tail + capacity), the consumer reads only bytes in [tail, head). So no byte is
//     written and read at the same time, provided each side sees the other's counter late, never early. Late only makes it think
//     there is less to do.
//  4. PUBLISH  the producer stores head with release after it has written a record.
//     ACQUIRE  the consumer loads head with acquire before it reads one. Pair: every byte below the head it saw is complete.
//  5. FREE     the consumer stores tail with release after it has read a record for the last time. REUSE    the producer loads
//     tail with acquire before it overwrites. Pair: every byte below the tail it saw will not be read again.
//  6. Each side keeps its own counter in private memory and only ever stores it to the ring: what the other side does to that
//     word cannot mislead it. Each side caches the other's counter and loads it again only when the cached value gives it nothing
//     to do; so a producer that is not full does not touch the consumer's cache line, nor the other way round.
//  7. A counter that comes from the peer is checked against (1) before it is used, and so is every record size (size and its
//     complement must agree, and the record must lie below head and before the end of the buffer). A violation is a RingError
//     that sticks: the side that saw it stops using the ring. Payload bytes are the peer's: whoever parses them must not trust
//     them.
//  8. reserve() may be given up (no commit): nothing was published. front() may be repeated: nothing is consumed before pop().
//
// A new consumer attaches where the last one stopped (tail lies in the ring), a new producer likewise at head.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>

#include "lib/base/assert.h"

namespace millrace::shm {

enum class RingError : uint8_t {
  kNone = 0,
  kTooSmall,          // the memory is smaller than the header or than the capacity it names, or not 64-byte aligned
  kBadMagic,          // not a ring
  kBadVersion,        // a ring of another layout
  kBadCapacity,       // capacity is not a power of two within the limits
  kHeadMisaligned,    // head or tail no multiple of 8
  kHeadBehindTail,    // the producer claims to have written less than was consumed
  kHeadBeyondEnd,     // the producer claims more than the capacity
  kHeadMovedBack,     // head is less than it was
  kTailBeyondHead,    // the consumer claims to have read more than was written
  kTailMovedBack,     // tail is less than it was
  kBadRecordSize,     // a record's size and its complement disagree, or it is larger than half the ring
  kRecordBeyondHead,  // a record or pad runs past what was committed
  kRecordBeyondEnd,   // a record runs past the end of the buffer
};
const char* to_string(RingError e);

inline constexpr uint64_t kRingMagic = 0x474e'4952'524c'4d31;
inline constexpr uint32_t kRingVersion = 1;
inline constexpr uint64_t kMinRingCapacity = 4096, kMaxRingCapacity = 1ull << 32;
inline constexpr uint32_t kRecordHeader = 8;  // bytes in front of each payload

struct RingHeader {
  uint64_t magic;  // maker: rw before the hand-out, then ro for everybody
  uint32_t version;
  uint32_t reserved;
  uint64_t capacity;                       // bytes of the data area
  alignas(64) std::atomic<uint64_t> head;  // producer: rw, consumer: ro
  alignas(64) std::atomic<uint64_t> tail;  // consumer: rw, producer: ro
  alignas(64) uint8_t data[];              // producer: rw, consumer: ro
};
static_assert(sizeof(RingHeader) == 192 && std::atomic<uint64_t>::is_always_lock_free);

// Bytes of memory a ring of that capacity needs. `capacity`: power of two, kMinRingCapacity … kMaxRingCapacity.
constexpr uint64_t ring_bytes(uint64_t capacity) { return sizeof(RingHeader) + capacity; }
// Largest capacity whose ring fits into `bytes` of memory; 0 when none does.
uint64_t ring_capacity_for(uint64_t bytes);
// Makes an empty ring in `memory` (64-byte aligned, at least ring_bytes(capacity)). Before anybody else sees it.
RingError format_ring(std::span<uint8_t> memory, uint64_t capacity);

namespace detail {
inline constexpr uint32_t kPad = 0x8000'0000;  // size of a pad record: kPad | its bytes, header included
constexpr uint64_t record_bytes(uint64_t payload) { return (kRecordHeader + payload + 7) & ~uint64_t{7}; }
RingError check_header(std::span<uint8_t> memory, RingHeader*& header);
}  // namespace detail

// The one producer. Not thread-safe: one thread at a time.
class RingProducer {
 public:
  RingProducer() = default;
  // Takes the ring over at its head. The memory must stay mapped as long as this object is used.
  RingError attach(std::span<uint8_t> memory);
  bool attached() const { return ring_ != nullptr; }

  // Room for `size` payload bytes (8-aligned), or an empty span: the ring is too full for it, or error() is set, or size >
  // max_record(). Replaces an earlier reservation that was not committed.
  std::span<uint8_t> reserve(uint32_t size) {
    const uint64_t need = detail::record_bytes(size);
    if (__builtin_expect(error_ != RingError::kNone || ring_ == nullptr || need > capacity_ / 2, 0)) return {};
    const uint64_t at = head_ & mask_;
    const uint64_t pad = at + need > capacity_ ? capacity_ - at : 0;
    if (head_ + pad + need - tail_cache_ > capacity_ && !refresh_tail(pad + need)) return {};
    pad_ = pad;
    reserved_ = size;
    return {ring_->data + (pad != 0 ? 0 : at) + kRecordHeader, size};
  }
  // Publishes the reserved record with its first `size` bytes (0 … reserved).
  void commit(uint32_t size) {
    MILLRACE_ASSERT(size <= reserved_, "commit within the reservation");
    uint64_t at = head_ & mask_;
    if (pad_ != 0) {
      write_header(at, detail::kPad | static_cast<uint32_t>(pad_));
      at = 0;
    }
    write_header(at, size);
    head_ += pad_ + detail::record_bytes(size);
    pad_ = 0;
    reserved_ = kNothing;
    ring_->head.store(head_, std::memory_order_release);  // PUBLISH (4), pairs with ACQUIRE in RingConsumer::refresh_head
  }
  // reserve, copy, commit. False when there is no room.
  bool push(std::span<const uint8_t> record);

  uint32_t max_record() const { return static_cast<uint32_t>(capacity_ / 2 - kRecordHeader); }
  uint64_t capacity() const { return capacity_; }
  // Bytes not yet consumed, as last seen of the consumer; loads its counter.
  uint64_t backlog();
  RingError error() const { return error_; }

 private:
  static constexpr int64_t kNothing = -1;
  void write_header(uint64_t at, uint32_t size) {
    const uint64_t word = uint64_t{static_cast<uint32_t>(~size)} << 32 | size;
    std::memcpy(ring_->data + at, &word, sizeof word);
  }
  bool refresh_tail(uint64_t need);

  RingHeader* ring_ = nullptr;
  uint64_t capacity_ = 0, mask_ = 0;
  uint64_t head_ = 0;        // ours; ring_->head follows it
  uint64_t tail_cache_ = 0;  // the consumer's, as last seen and checked
  uint64_t pad_ = 0;
  int64_t reserved_ = kNothing;
  RingError error_ = RingError::kNone;
};

// The one consumer. Not thread-safe: one thread at a time.
class RingConsumer {
 public:
  RingConsumer() = default;
  // Goes on at the ring's tail. The memory must stay mapped as long as this object is used.
  RingError attach(std::span<uint8_t> memory);
  bool attached() const { return ring_ != nullptr; }

  // The oldest record (8-aligned; may be of size 0), valid until pop(). data() is null when the ring is empty or error() is set.
  // The producer is another process: it could still change the bytes, so read each value once and check it after reading.
  std::span<const uint8_t> front();
  // Consumes what front() returned.
  void pop() {
    MILLRACE_ASSERT(current_ != 0, "pop what front() returned");
    tail_ += current_;
    current_ = 0;
    ring_->tail.store(tail_, std::memory_order_release);  // FREE (5), pairs with REUSE in RingProducer::refresh_tail
  }
  uint64_t capacity() const { return capacity_; }
  // Bytes waiting, as last published by the producer; loads its counter. 0 on error.
  uint64_t backlog();
  RingError error() const { return error_; }

 private:
  bool refresh_head();

  RingHeader* ring_ = nullptr;
  uint64_t capacity_ = 0, mask_ = 0;
  uint64_t tail_ = 0;        // ours; ring_->tail follows it
  uint64_t head_cache_ = 0;  // the producer's, as last seen and checked
  uint64_t current_ = 0;     // bytes of the record at tail_, once front() has seen it; 0: none
  RingError error_ = RingError::kNone;
};

}  // namespace millrace::shm
