// The body of a request as it has gone to an endpoint, kept so that it can be sent once more. Packets are kept by reference: they
// go on their way, and stay here as well; what is smaller than kLeastReference is copied, so that small segments do not pin a
// packet each. The list of what is kept lies in packets too: no heap.
//
//   relay ─▶ packet ─┬▶ the endpoint's send queue          index_:  {packet, from where, bytes} {…} {…}   in packets of the pool
//                    └▶ add(): one more reference                        │
//   retry ─▶ send(at): the packet itself where nobody else holds it any more, else a copy of its bytes
#pragma once

#include <cstdint>
#include <utility>

#include "lib/base/assert.h"
#include "lib/io/packet.h"
#include "lib/io/packet_queue.h"

namespace millrace::dataplane {

class KeptBody {
 public:
  static constexpr uint32_t kLeastReference = 512;  // payload bytes of a packet that is kept by reference

  KeptBody() = default;
  KeptBody(const KeptBody&) = delete;
  KeptBody& operator=(const KeptBody&) = delete;
  ~KeptBody() { clear(); }

  uint64_t bytes() const { return bytes_; }
  uint32_t pieces() const { return pieces_ + (open_.packet != nullptr ? 1 : 0); }

  // One more reference on `p`, or a copy of its bytes. False: packet memory is spent; what is kept then has a hole and is of no
  // use.
  bool add(const io::PacketPtr& p, io::PacketPool& pool) {
    if (p.size() < kLeastReference) return copy(p.bytes(), pool);
    if (!close(pool)) return false;
    rte_mbuf* const m = p.raw();
    rte_mbuf_refcnt_update(m, 1);
    open_ = {m, m->data_off, m->data_len, false};
    bytes_ += m->data_len;
    return true;
  }
  bool copy(base::ByteSpan bytes, io::PacketPool& pool) {
    while (!bytes.empty()) {
      if (!open_.own || rte_pktmbuf_tailroom(open_.packet) == 0) {
        if (!close(pool)) return false;
        io::PacketPtr fresh = pool.alloc();
        if (!fresh) return false;
        open_ = {nullptr, fresh.raw()->data_off, 0, true};
        open_.packet = fresh.release();
      }
      const uint32_t n = static_cast<uint32_t>(std::min<size_t>(bytes.size(), rte_pktmbuf_tailroom(open_.packet)));
      std::memcpy(rte_pktmbuf_append(open_.packet, static_cast<uint16_t>(n)), bytes.data(), n);
      open_.length = static_cast<uint16_t>(open_.length + n);
      bytes_ += n;
      bytes = bytes.subspan(n);
    }
    return true;
  }

  // The bytes of a piece, valid until clear().
  base::ByteSpan piece(uint32_t at) const {
    const Piece p = get(at);
    return {static_cast<const uint8_t*>(p.packet->buf_addr) + p.offset, p.length};
  }
  // A packet that holds a piece and may be queued: the kept one, if nobody else holds it, else null: copy piece(at). Nothing may
  // be added to an own packet that is on its way: it is closed.
  io::PacketPtr packet(uint32_t at, io::PacketPool& pool) {
    if (at >= pieces_ && !close(pool)) return {};
    const Piece p = get(at);
    if (rte_mbuf_refcnt_read(p.packet) != 1 || p.packet->next != nullptr) return {};
    p.packet->data_off = p.offset;
    p.packet->data_len = p.length;
    p.packet->pkt_len = p.length;
    rte_mbuf_refcnt_update(p.packet, 1);
    return io::PacketPtr(p.packet);
  }

  void clear() {
    for (uint32_t i = 0; i < pieces(); ++i) io::PacketPtr(get(i).packet).reset();
    open_ = {};
    index_.clear();
    pieces_ = 0;
    bytes_ = 0;
  }

 private:
  struct Piece {
    rte_mbuf* packet = nullptr;  // a reference of ours
    uint16_t offset = 0, length = 0;
    bool own = false;  // made here, and nobody else has seen it
  };
  static_assert(sizeof(Piece) == 16);

  Piece get(uint32_t at) const {
    if (at == pieces_) return open_;
    MILLRACE_ASSERT(at < pieces_, "a piece that is kept");
    Piece p;
    index_.peek(uint64_t{at} * sizeof p, reinterpret_cast<uint8_t*>(&p), sizeof p);
    return p;
  }
  // The last piece into the index.
  bool close(io::PacketPool& pool) {
    if (open_.packet == nullptr) return true;
    uint8_t raw[sizeof(Piece)];
    std::memcpy(raw, &open_, sizeof raw);
    if (index_.append_copy(base::ByteSpan(raw, sizeof raw), pool) != sizeof raw) return false;
    ++pieces_;
    open_ = {};
    return true;
  }

  io::PacketQueue index_;
  Piece open_;  // the last one, not in the index yet
  uint64_t bytes_ = 0;
  uint32_t pieces_ = 0;  // in the index
};

}  // namespace millrace::dataplane
