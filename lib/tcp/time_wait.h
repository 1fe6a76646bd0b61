// TIME-WAIT without a TCB: what is left of a connection for 2 MSL, in 64 bytes, and the one function that answers for it.
#pragma once

#include <cstdint>

#include "lib/tcp/tcp.h"

namespace millrace::tcp {

struct TimeWaitEntry {
  FourTuple tuple;
  uint32_t snd_nxt = 0;  // behind our FIN
  uint32_t rcv_nxt = 0;  // behind the peer's FIN
  uint32_t ts_recent = 0;
  uint32_t ts_offset = 0;
  uint16_t window = 0;           // as on the wire
  uint16_t duration_s : 15 = 0;  // 2 MSL, rounded up
  uint16_t timestamps : 1 = 0;
  TimeNs expires_at = 0;  // absolute; the owner frees the entry then
};
static_assert(sizeof(TimeWaitEntry) == 64, "memory per connection in TIME-WAIT");

// What a TCB in TIME-WAIT comes down to. Precondition: state(tcb) == kTimeWait.
TimeWaitEntry make_time_wait(const Tcb&, TimeNs now);

enum class TimeWaitVerdict : uint8_t {
  kIgnore,  // nothing to send
  kReply,   // send `reply`
  kReopen,  // the SYN may open a new connection: drop the entry and hand the SYN to the listener, with an ISN from next_isn()
};
struct TimeWaitResult {
  TimeWaitVerdict verdict = TimeWaitVerdict::kIgnore;
  stats::DropReason drop = stats::DropReason::kNone;
};
// A segment for the entry's tuple. A repeated FIN is acknowledged and starts the 2 MSL again (RFC 9293 3.10.7.4, eighth step); a
// SYN is accepted if its timestamp, or without timestamps its sequence number, is newer than the old connection's (RFC 6191, RFC
// 9293 MAY-2); RST is ignored (RFC 1337 3, the first fix); anything else with data, SYN or FIN is acknowledged. A bare ACK is
// not, so that two ends in TIME-WAIT cannot keep each other busy.
TimeWaitResult time_wait_input(TimeWaitEntry&, const wire::TcpView& segment, TimeNs now, wire::TcpRepr& reply);

// The smallest ISN for a connection that follows this one at once: beyond anything the old one can still have in the network.
uint32_t next_isn(const TimeWaitEntry&, uint32_t proposed);

}  // namespace millrace::tcp
