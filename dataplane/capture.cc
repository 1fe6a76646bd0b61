#include "dataplane/capture.h"

#include <algorithm>
#include <cstring>

#include <rte_mbuf.h>

namespace millrace::dataplane {

void Capture::start(const table::StartCapture& command, TimeNs now) {
  if (ring_ == nullptr) return;
  if (on || done_due_ || command.tls_keys == 2) {
    table::CaptureDone no;
    no.header = {table::InspectType::kCaptureDone, worker_, command.id};
    no.refused = command.tls_keys == 2 ? 2 : 1;
    say_done(no);  // without room nobody hears, and who asked gives up by himself
    return;
  }
  command_ = command;
  done_ = {};
  done_.header = {table::InspectType::kCaptureDone, worker_, command.id};
  ends_at_ = command.duration_ns == 0 ? base::kNever : base::time_add(now, command.duration_ns);
  packets_ = bytes_ = 0;
  on = true;
}

void Capture::stop(uint64_t id) {
  if (on && (id == 0 || id == command_.id)) end();
}

bool Capture::step(TimeNs now) {
  if (on && now >= ends_at_) end();
  if (done_due_ && say_done(done_)) done_due_ = false;
  return on || done_due_;
}

bool Capture::say_done(const table::CaptureDone& done) {
  const auto room = ring_->reserve(sizeof done);
  if (room.data() == nullptr) return ring_->error() != shm::RingError::kNone;
  std::memcpy(room.data(), &done, sizeof done);
  ring_->commit(sizeof done);
  return true;
}

void Capture::frames(uint16_t port, table::FrameDirection direction, rte_mbuf* const* frames, uint32_t n) {
  if (port >= table::kMaxCapturePorts || (command_.ports >> port & 1) == 0) return;
  for (uint32_t i = 0; i < n && on; ++i) packet(port, direction, frames[i]);
}

void Capture::packet(uint16_t port, table::FrameDirection direction, const rte_mbuf* m) {
  ++done_.seen[port];
  table::PacketFields fields;
  fields.length = m->pkt_len;
  fields.outbound = direction == table::FrameDirection::kOutbound;
  // A filter without terms looks at nothing.
  if (command_.filter.count != 0) {
    table::read_fields({rte_pktmbuf_mtod(m, const uint8_t*), m->data_len}, fields);
    if (!table::matches(command_.filter, fields)) return;
  }
  ++done_.taken[port];
  table::PacketRecord r;
  r.header = {table::InspectType::kPacket, worker_, command_.id};
  r.wall_ns = wall_ns_;
  r.port = port;
  r.length = m->pkt_len;
  r.kept = std::min(m->pkt_len, command_.snap);
  r.direction = direction;
  const auto room = ring_->reserve(static_cast<uint32_t>(sizeof r) + r.kept);
  if (room.data() == nullptr) {
    ++done_.dropped[port];
    return;
  }
  std::memcpy(room.data(), &r, sizeof r);
  uint8_t* at = room.data() + sizeof r;
  for (uint32_t left = r.kept; left > 0 && m != nullptr; m = m->next) {
    const uint32_t take = std::min<uint32_t>(left, m->data_len);
    std::memcpy(at, rte_pktmbuf_mtod(m, const uint8_t*), take);
    at += take;
    left -= take;
  }
  ring_->commit(static_cast<uint32_t>(sizeof r) + r.kept);
  ++packets_;
  bytes_ += r.kept;
  if (packets_ >= command_.max_packets || bytes_ >= command_.max_bytes) end();
}

void Capture::tls_key(const char* line, size_t size) {
  if (!wants_tls_keys()) return;
  table::TlsKeyRecord r;
  r.header = {table::InspectType::kTlsKey, worker_, command_.id};
  r.size = static_cast<uint32_t>(size);
  const auto room = ring_->reserve(static_cast<uint32_t>(sizeof r + size));
  if (room.data() == nullptr) return;  // the file lacks the key: its packets stay ciphertext
  std::memcpy(room.data(), &r, sizeof r);
  std::memcpy(room.data() + sizeof r, line, size);
  ring_->commit(static_cast<uint32_t>(sizeof r + size));
}

}  // namespace millrace::dataplane
