// What a listener answers to segments that belong to no connection. It owns no TCB and no table: it decides, the caller does.
//
//   SYN ──▶ draining? ── RST
//           half-open < backlog ── kOpen: the caller takes a TCB, open_passive(tcb, .., decision.isn, .., decision.ts_offset)
//           else ── kCookie: the caller sends decision.reply and keeps nothing
//           a fast open cookie with it: a good one ── open_fast() instead, with the SYN's data; else the SYN-ACK brings one
//   ACK ──▶ cookies sent lately and a good one? ── kAcceptCookie: the caller takes a TCB, open_cookie(..), then input(segment)
//           cookies sent lately, but not a good one ── ignored: it may have overtaken the good one
//           else ── RST
#pragma once

#include <cstdint>

#include "lib/tcp/fast_open.h"
#include "lib/tcp/isn.h"
#include "lib/tcp/syn_cookie.h"
#include "lib/tcp/tcp.h"

namespace millrace::tcp {

struct ListenerDecision {
  enum class Action : uint8_t {
    kIgnore,  // nothing to send; `drop` says why
    kReply,   // send `reply` (a RST)
    kOpen,    // open_passive() with isn and ts_offset; note half_open_ended() when the TCB leaves SYN-RECEIVED, whichever way
    kCookie,  // send `reply` (a SYN-ACK)
    kAcceptCookie,  // open_cookie() with cookie and ts_offset, then input() of the same segment
  };
  enum class FastOpen : uint8_t {  // with kOpen, where the listener does fast open and the SYN has its option
    kNone,
    kRequested,  // asked for a cookie: the first SYN-ACK carries one
    kAccepted,   // a good one: open_fast(); note fast_open_ended() when the TCB leaves SYN-RECEIVED, whichever way
    kRenewed,    // likewise, and the first SYN-ACK carries a newer one
    kBad,        // none of ours, or too old: the first SYN-ACK carries a good one
    kOverflow,   // as many as there may be are pending: as if there had been no option
  };
  Action action = Action::kIgnore;
  FastOpen fast_open = FastOpen::kNone;
  bool accepts_data() const { return fast_open == FastOpen::kAccepted || fast_open == FastOpen::kRenewed; }
  bool gives_cookie() const {
    return fast_open == FastOpen::kRequested || fast_open == FastOpen::kRenewed || fast_open == FastOpen::kBad;
  }
  stats::DropReason drop = stats::DropReason::kNone;
  uint32_t isn = 0, ts_offset = 0;
  CookieOptions cookie{};
  wire::TcpRepr reply;
};

class Listener {
 public:
  // `backlog`: connections in SYN-RECEIVED before cookies take over; 0: always cookies. `secret`: shared by all listeners of the
  // process.
  Listener(const Config& config, uint32_t backlog, const base::HashKey& secret)
      : config_(config),
        backlog_(backlog),
        isn_(secret),
        cookies_({~secret.k0, secret.k1}),
        fast_open_({secret.k0, ~secret.k1}) {}

  // `segment` is checked and addressed to this listener; `tuple` is its tuple, local being us. `can_open`: false when the caller
  // has no TCB to give, which makes a cookie of every SYN.
  ListenerDecision input(const FourTuple& tuple, const wire::TcpView& segment, TimeNs now, bool can_open = true) {
    return input(tuple, segment, config_, now, can_open);
  }
  // The same where the address that was dialled has a configuration of its own.
  ListenerDecision input(const FourTuple& tuple, const wire::TcpView& segment, const Config& config, TimeNs now,
                         bool can_open = true);

  // A TCB that kOpen made is established, failed or gone. Once for each kOpen.
  void half_open_ended() {
    MILLRACE_ASSERT(half_open_ > 0, "one end for each kOpen");
    --half_open_;
  }
  uint32_t half_open() const { return half_open_; }

  // A TCB of accepts_data() left SYN-RECEIVED. `reset`: by the peer. Such a one counts for a minute or two more, so that who
  // holds a cookie cannot empty the queue with resets that name its victim (RFC 7413 5.1).
  void fast_open_ended(bool reset) {
    MILLRACE_ASSERT(fast_opens_ > 0, "one end for each fast open");
    --fast_opens_;
    if (reset) ++resets_[0];
  }
  uint32_t fast_opens() const { return fast_opens_; }  // pending
  const FastOpenCookies& fast_open_cookies() const { return fast_open_; }

  // Accept nothing new, for good; connections that are open, or half open, are not touched. ACKs of cookies already sent still
  // are accepted.
  void drain() { draining_ = true; }
  bool draining() const { return draining_; }

  const Config& config() const { return config_; }
  const IsnGenerator& isn() const { return isn_; }

 private:
  ListenerDecision on_syn(const FourTuple&, const wire::TcpView& syn, const Config&, TimeNs now, bool can_open);
  ListenerDecision::FastOpen fast_open(const FourTuple&, const wire::TcpView& syn, const Config&, TimeNs now);
  ListenerDecision on_ack(const FourTuple&, const wire::TcpView& ack, const Config&, TimeNs now);

  Config config_;
  uint32_t backlog_;
  uint32_t half_open_ = 0;
  bool draining_ = false;
  TimeNs cookies_until_ = 0;  // a cookie sent before can still come back until then
  IsnGenerator isn_;
  SynCookies cookies_;
  FastOpenCookies fast_open_;
  uint32_t fast_opens_ = 0;
  uint32_t resets_[2] = {0, 0};  // that ended fast opens, in this minute and in the one before
  uint64_t minute_ = 0;
};

}  // namespace millrace::tcp
