// Data that came ahead of its turn: received packets in sequence order, linked through their own `next` field, the sequence
// number kept in the mbuf's user tag (hash.usr). The first packet of a range without gaps knows the last one (in tx_offload,
// which a received packet has no use for), so that a search goes range by range.
//
//   head ─▶ [1000 │ last ─┐] ─▶ [2460] ─▶ [3920] ─▶ │ gap │ ─▶ [8300 │ last: itself] ◀─ tail
//                         └────────────────▲
//
// As many ranges as the packets' cost allows: a queue on the way that overflows loses every second packet of a large window. What
// the peer sends again comes in the order of sequence numbers, so a search starts where the last one ended, or at the head, and
// is given up after kMaxWalk ranges: more is an attack, and that segment has to come again.
// Also remembers what to report in SACK blocks: the latest ranges first (RFC 2018 4) and one duplicate (RFC 2883).
#pragma once

#include <array>
#include <cstdint>

#include "lib/io/packet.h"
#include "lib/io/packet_queue.h"
#include "lib/wire/tcp.h"

namespace millrace::tcp {

class Reassembly {
 public:
  static constexpr uint32_t kMaxWalk = 64;   // ranges that a search passes
  static constexpr uint32_t kMaxRecent = 3;  // ranges remembered for SACK: as many as fit beside timestamps

  Reassembly() = default;
  Reassembly(const Reassembly&) = delete;
  Reassembly& operator=(const Reassembly&) = delete;
  ~Reassembly() { clear(); }

  bool empty() const { return head_ == nullptr; }
  uint32_t bytes() const { return bytes_; }
  uint32_t truesize() const { return truesize_; }  // what the held packets cost their pool, in bytes
  uint32_t ranges() const { return ranges_; }
  uint32_t end() const { return end_of(tail_); }  // behind the highest byte held; not when empty()

  enum class Outcome : uint8_t {
    kStored,     // at least one new byte is held
    kDuplicate,  // every byte was held before; freed
    kFull,       // over `max_truesize` or kMaxWalk; freed
  };
  // Takes `p`, the bytes from `seq` on, not empty. Bytes held already win over the same bytes in `p`.
  Outcome insert(uint32_t seq, io::PacketPtr p, uint32_t max_truesize);
  // Moves what follows rcv_nxt without a gap to `out`; returns how many bytes that were.
  uint32_t deliver(uint32_t rcv_nxt, io::PacketQueue& out);
  void clear();

  // A segment [left, right) arrived that had been received before: the next SACK option says so first (RFC 2883 4).
  void note_duplicate(uint32_t left, uint32_t right) {
    duplicate_ = {left, right};
    has_duplicate_ = true;
  }
  bool has_report() const { return has_duplicate_ || recent_count_ > 0; }
  // Fills `out` with at most `max_blocks` blocks and forgets the duplicate.
  void report(wire::SackBlocks& out, uint32_t max_blocks);
  // The blocks report() would give now.
  uint32_t report_size() const { return recent_count_ + (has_duplicate_ ? 1u : 0u); }

 private:
  static uint32_t seq_of(const rte_mbuf* m) { return m->hash.usr; }
  static uint32_t end_of(const rte_mbuf* m) { return m->hash.usr + m->data_len; }
  // Of a range, by its first packet.
  static rte_mbuf* last_of(const rte_mbuf* first) { return reinterpret_cast<rte_mbuf*>(first->tx_offload); }
  static void set_last(rte_mbuf* first, rte_mbuf* last) { first->tx_offload = reinterpret_cast<uintptr_t>(last); }
  static rte_mbuf* range_after(const rte_mbuf* first) { return last_of(first)->next; }
  bool find(uint32_t seq, rte_mbuf*& range) const;
  void link_after(rte_mbuf* prev, rte_mbuf* m);
  void drop_range_after(rte_mbuf* prev);
  static bool appendable(const rte_mbuf* m, uint32_t n);
  void append_to(rte_mbuf* m, base::ByteSpan bytes);
  void note_recent(uint32_t left, uint32_t right);

  rte_mbuf* head_ = nullptr;
  rte_mbuf* tail_ = nullptr;
  rte_mbuf* highest_ = nullptr;  // first packets: of the highest range, which ends at tail_,
  rte_mbuf* latest_ = nullptr;   // and of the one that was changed last; null when it is gone
  uint32_t bytes_ = 0;
  uint32_t truesize_ = 0;
  uint32_t ranges_ = 0;
  uint8_t recent_count_ = 0;
  bool has_duplicate_ = false;
  wire::SackBlock duplicate_;
  std::array<wire::SackBlock, kMaxRecent> recent_;
};

}  // namespace millrace::tcp
