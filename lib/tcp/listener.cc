#include "lib/tcp/listener.h"

#include "lib/tcp/tcb.h"
#include "lib/tcp/tcb_ops.h"

namespace millrace::tcp {

using Action = ListenerDecision::Action;
using stats::DropReason;

// RFC 9293 3.10.7.2: first RST, second ACK, third SYN, fourth anything else.
ListenerDecision Listener::input(const FourTuple& tuple, const wire::TcpView& s, const Config& config, TimeNs now,
                                 bool can_open) {
  if (s.rst()) return {.action = Action::kIgnore, .drop = DropReason::kTcpNoConnection};
  if (s.has_ack()) return on_ack(tuple, s, config, now);
  if (s.syn()) return on_syn(tuple, s, config, now, can_open);
  return {.action = Action::kIgnore, .drop = DropReason::kTcpNoAck};
}

ListenerDecision Listener::on_syn(const FourTuple& tuple, const wire::TcpView& syn, const Config& config, TimeNs now,
                                  bool can_open) {
  ListenerDecision d;
  if (draining_) {
    make_reset(syn, d.reply);
    d.action = Action::kReply;
    d.drop = DropReason::kTcpListenerDraining;
    return d;
  }
  d.ts_offset = isn_.timestamp_offset(tuple);
  if (can_open && half_open_ < backlog_) {
    d.action = Action::kOpen;
    d.isn = isn_.isn(tuple, now);
    ++half_open_;
    if (config.fast_open_queue != 0 && syn.fast_open) d.fast_open = fast_open(tuple, syn, config, now);
    return d;
  }
  d.action = Action::kCookie;
  d.isn = cookies_.make(tuple, syn, now);
  cookies_until_ = now + 2 * SynCookies::kEpochNs;
  wire::TcpRepr& r = d.reply;
  r.src_port = tuple.local_port;
  r.dst_port = tuple.remote_port;
  r.seq = d.isn;
  r.ack = syn.seq + 1;
  r.flags = wire::kTcpSyn | wire::kTcpAck;
  r.window = first_window(config);
  r.mss = config.mss;
  if (config.timestamps && syn.timestamps) {
    r.timestamps =
        wire::TcpTimestamps{SynCookies::encode_timestamp(syn, config, timestamp_clock(now, d.ts_offset)), syn.timestamps->val};
    // Without timestamps there is no place to remember these.
    if (config.window_scaling && syn.wscale) r.wscale = window_shift(config.rcv_buf);
    r.sack_permitted = config.sack && syn.sack_permitted;
    if (accepts_ecn(config, syn)) r.flags |= wire::kTcpEce;
  }
  return d;
}

// RFC 7413 4.2.2, 5.1.
ListenerDecision::FastOpen Listener::fast_open(const FourTuple& tuple, const wire::TcpView& syn, const Config& config,
                                               TimeNs now) {
  using FastOpen = ListenerDecision::FastOpen;
  if (syn.fast_open->length == 0) return FastOpen::kRequested;
  const FastOpenCookies::Verdict verdict = fast_open_.check(tuple, *syn.fast_open, now);
  if (verdict == FastOpenCookies::Verdict::kBad) return FastOpen::kBad;
  const uint64_t minute = now / (60 * base::kSecond);
  if (minute != minute_) {
    resets_[1] = minute == minute_ + 1 ? resets_[0] : 0;
    resets_[0] = 0;
    minute_ = minute;
  }
  if (fast_opens_ + resets_[0] + resets_[1] >= config.fast_open_queue) return FastOpen::kOverflow;
  ++fast_opens_;
  return verdict == FastOpenCookies::Verdict::kOld ? FastOpen::kRenewed : FastOpen::kAccepted;
}

ListenerDecision Listener::on_ack(const FourTuple& tuple, const wire::TcpView& ack, const Config& config, TimeNs now) {
  ListenerDecision d;
  if (!ack.syn() && now < cookies_until_) {
    if (const auto options = cookies_.check(tuple, ack, config, now)) {
      d.action = Action::kAcceptCookie;
      d.cookie = *options;
      d.isn = ack.ack - 1;
      d.ts_offset = isn_.timestamp_offset(tuple);
      return d;
    }
    // Not one of ours, or a later segment that overtook the one that completes the handshake: a RST would kill the latter's
    // connection, so while cookies are out we stay silent (RFC 9293 3.10.7.2 would reset). The peer repeats its first segment and
    // that one is good.
    d.drop = DropReason::kTcpCookieInvalid;
    return d;
  }
  d.drop = DropReason::kTcpNoConnection;
  make_reset(ack, d.reply);
  d.action = Action::kReply;
  return d;
}

}  // namespace millrace::tcp
