// Proportional rate reduction (RFC 6937, with the conservative and slow start bounds as draft-ietf-tcpm-prr-rfc6937bis has them):
// during a recovery cwnd comes down to ssthresh in step with what is delivered, neither in one halt nor in bursts.
#pragma once

#include <algorithm>
#include <cstdint>

namespace millrace::tcp {

struct Prr {
  uint32_t delivered = 0;  // bytes since the recovery began (prr_delivered)
  uint32_t out = 0;        // bytes sent since (prr_out)
  uint32_t flight = 0;     // bytes outstanding and not reported when it began (RecoverFS)
};

// cwnd after an ACK that delivered `delivered` > 0 bytes, with `pipe` in flight. `safe`: snd_una moved and nothing more was found
// lost.
inline uint32_t prr_cwnd(Prr& p, uint32_t ssthresh, uint32_t pipe, uint32_t delivered, bool safe, uint32_t mss) {
  p.delivered += delivered;
  uint64_t send;
  if (pipe > ssthresh) {
    const uint64_t due = (uint64_t{p.delivered} * ssthresh + std::max(p.flight, 1u) - 1) / std::max(p.flight, 1u);
    send = due > p.out ? due - p.out : 0;
  } else {
    send = std::max<uint64_t>(p.delivered > p.out ? p.delivered - p.out : 0, delivered);
    if (safe) send += mss;
    send = std::min<uint64_t>(ssthresh - pipe, send);
  }
  if (p.out == 0 && send < mss) send = mss;  // the fast retransmit goes in any case
  return static_cast<uint32_t>(pipe + send);
}

}  // namespace millrace::tcp
