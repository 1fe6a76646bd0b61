#include <iterator>

#include "lib/tcp/seq.h"
#include "tests/sim/simulation.h"

namespace millrace::sim {

const char* to_string(Mutant m) {
  constexpr const char* kNames[] = {"none",       "wrong-byte",  "byte-skipped",  "delivered-twice", "ack-too-far",
                                    "ack-unseen", "fin-early",   "fin-lost",      "window-shrinks",  "oversize",
                                    "timer-lost", "no-deadline", "state-skipped", "packet-kept",     "sequence-wrap"};
  static_assert(std::size(kNames) == static_cast<size_t>(Mutant::kCount));
  return kNames[static_cast<size_t>(m)];
}

// What a wrong line in lib/tcp would bring about.
void Simulation::sabotage(Side& s, tcp::OutSegment& out) {
  using namespace tcp;
  wire::TcpRepr& h = out.header;
  switch (mutant_) {
    case Mutant::kWrongByte:
      if (seq_lt(h.seq + out.payload_len, s.tcb.snd_max) && out.payload_len > 1 && h.seq != s.tcb.snd_una)
        --out.payload_len, ++out.payload_offset;
      break;
    case Mutant::kAckTooFar:
      if (state(s.tcb) == State::kEstablished && s.outcome.received > 1'000) ++h.ack;
      break;
    case Mutant::kFinEarly:
      if (out.payload_len > 0 && out.payload_offset + out.payload_len < s.tcb.tx.bytes() && s.close_called)
        h.flags |= wire::kTcpFin;
      break;
    case Mutant::kFinLost:
      h.flags = static_cast<uint8_t>(h.flags & ~wire::kTcpFin);
      break;
    case Mutant::kWindowShrinks:
      if (s.advertised && h.window > 10 && mutations_++ % 16 == 15) h.window = static_cast<uint16_t>(h.window / 2);
      break;
    case Mutant::kOversize:
      if (out.payload_len > 0 && out.payload_offset + out.payload_len + 20 < s.tcb.tx.bytes()) out.payload_len += 13;
      break;
    case Mutant::kTimerLost:
      if (out.payload_len > 0) s.tcb.retransmit_at = base::kNever;
      break;
    default:
      break;
  }
}

}  // namespace millrace::sim
