#include "lib/tcp/time_wait.h"

#include <algorithm>

#include "lib/tcp/seq.h"
#include "lib/tcp/tcb.h"
#include "lib/tcp/tcb_ops.h"

namespace millrace::tcp {
namespace {

void acknowledge(const TimeWaitEntry& e, const wire::TcpView& segment, TimeNs now, wire::TcpRepr& reply) {
  reply = wire::TcpRepr{};
  reply.src_port = e.tuple.local_port;
  reply.dst_port = e.tuple.remote_port;
  reply.seq = e.snd_nxt;
  reply.ack = e.rcv_nxt;
  reply.flags = wire::kTcpAck;
  reply.window = e.window;
  if (e.timestamps) reply.timestamps = wire::TcpTimestamps{timestamp_clock(now, e.ts_offset), e.ts_recent};
}

}  // namespace

TimeWaitEntry make_time_wait(const Tcb& t, TimeNs now) {
  MILLRACE_ASSERT(t.state == State::kTimeWait, "a TCB in TIME-WAIT");
  TimeWaitEntry e;
  e.tuple = t.tuple;
  e.snd_nxt = t.snd_max;
  e.rcv_nxt = t.rcv_nxt;
  e.ts_recent = t.ts_recent;
  e.ts_offset = t.ts_offset;
  e.window = static_cast<uint16_t>(std::min<uint32_t>((t.rcv_adv - t.rcv_nxt) >> t.rcv_wscale, 65535));
  e.duration_s =
      static_cast<uint16_t>(std::min<TimeNs>((config(t).time_wait_ns + base::kSecond - 1) / base::kSecond, (1u << 15) - 1));
  e.timestamps = (t.flags & kFlagTimestamps) != 0;
  e.expires_at = t.state_at;
  return e;
}

TimeWaitResult time_wait_input(TimeWaitEntry& e, const wire::TcpView& s, TimeNs now, wire::TcpRepr& reply) {
  using stats::DropReason;
  const bool has_ts = e.timestamps && s.timestamps.has_value();
  if (s.rst()) return {TimeWaitVerdict::kIgnore, DropReason::kTcpResetOutOfWindow};
  if (s.syn()) {
    const bool newer =
        has_ts ? seq_gt(s.timestamps->val, e.ts_recent) || (s.timestamps->val == e.ts_recent && seq_gt(s.seq, e.rcv_nxt))
               : seq_gt(s.seq, e.rcv_nxt);
    if (newer && !s.has_ack()) return {TimeWaitVerdict::kReopen, DropReason::kNone};
    acknowledge(e, s, now, reply);  // RFC 5961 4: a challenge
    return {TimeWaitVerdict::kReply, DropReason::kTcpChallenged};
  }
  if (s.sequence_length() == 0) {
    // A keepalive probe of a peer that missed our last ACK sits one below; it is answered.
    if (s.seq != e.rcv_nxt - 1) return {TimeWaitVerdict::kIgnore, DropReason::kTcpOutOfWindow};
    acknowledge(e, s, now, reply);
    return {TimeWaitVerdict::kReply, DropReason::kTcpOutOfWindow};
  }
  if (has_ts && seq_lt(s.timestamps->val, e.ts_recent)) {
    acknowledge(e, s, now, reply);
    return {TimeWaitVerdict::kReply, DropReason::kTcpPaws};
  }
  const bool fin_again = s.fin() && s.seq + s.sequence_length() == e.rcv_nxt;
  if (fin_again) {
    e.expires_at = base::time_add(now, TimeNs{e.duration_s} * base::kSecond);
    if (has_ts) e.ts_recent = s.timestamps->val;
  }
  acknowledge(e, s, now, reply);
  return {TimeWaitVerdict::kReply, fin_again ? DropReason::kTcpOldDuplicate : DropReason::kTcpOutOfWindow};
}

uint32_t next_isn(const TimeWaitEntry& e, uint32_t proposed) {
  const uint32_t least = e.snd_nxt + 65'535 + 2;  // as BSD and Linux: a full unscaled window beyond
  return seq_lt(proposed, least) ? least : proposed;
}

}  // namespace millrace::tcp
