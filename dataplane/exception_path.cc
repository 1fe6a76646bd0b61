#include "dataplane/exception_path.h"

#include <cstring>

#include <rte_mbuf.h>

namespace millrace::dataplane {

using stats::DropReason;

void ExceptionPath::offer(uint16_t device, const rte_mbuf* frame, bool sums_good, const StackCounters& counters,
                          base::TimeNs now) {
  if (!out_.take(now)) return counters.drop(DropReason::kToHostRateLimited);
  const std::span<uint8_t> record = to_host_.reserve(static_cast<uint32_t>(sizeof(HostFrame)) + frame->pkt_len);
  if (record.data() == nullptr) return counters.drop(DropReason::kToHostFull);
  const HostFrame header{static_cast<uint8_t>(device), sums_good};
  std::memcpy(record.data(), &header, sizeof header);
  uint8_t* at = record.data() + sizeof header;
  for (const rte_mbuf* s = frame; s != nullptr; s = s->next) {
    std::memcpy(at, rte_pktmbuf_mtod(s, const uint8_t*), s->data_len);
    at += s->data_len;
  }
  to_host_.commit(static_cast<uint32_t>(record.size()));
  (*counters.ports[device])[PortCounter::kToKernel].add();
}

ExceptionPath::Taken ExceptionPath::take(const StackCounters& counters, base::TimeNs now) {
  for (;;) {
    const std::span<const uint8_t> record = from_host_->front();
    if (record.data() == nullptr) return {};
    HostFrame header;
    if (record.size() <= sizeof header) {
      from_host_->pop();
      continue;
    }
    std::memcpy(&header, record.data(), sizeof header);
    if (in_.take(now)) return {header.device, base::ByteSpan(record).subspan(sizeof header)};
    counters.drop(DropReason::kFromHostRateLimited);
    from_host_->pop();
  }
}

}  // namespace millrace::dataplane
