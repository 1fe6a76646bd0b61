#include "tests/sim/states.h"

#include <cstdio>

namespace millrace::sim {
namespace {

using tcp::State;

struct Edge {
  State from, to;
  const char* why;
};

// LISTEN is not a state of a TCB here: what begins there begins in CLOSED.
constexpr Edge kLegal[] = {
    {State::kClosed, State::kSynSent, "active OPEN (3.10.1)"},
    {State::kClosed, State::kSynReceived, "LISTEN, SYN (3.10.7.2)"},
    {State::kClosed, State::kEstablished, "LISTEN, ACK of a SYN cookie (RFC 4987 3.6)"},
    {State::kSynSent, State::kEstablished, "SYN-ACK (3.10.7.3)"},
    {State::kSynSent, State::kSynReceived, "SYN without ACK: simultaneous open (3.10.7.3)"},
    {State::kSynSent, State::kClosed, "RST, CLOSE, ABORT, time-out (3.10.4, 3.10.5, 3.10.7.3)"},
    {State::kSynReceived, State::kEstablished, "ACK (3.10.7.4, fifth)"},
    {State::kSynReceived, State::kFinWait1, "CLOSE (3.10.4), also ACK when CLOSE was queued"},
    {State::kSynReceived, State::kCloseWait, "ACK and FIN in one segment (3.10.7.4, fifth and eighth)"},
    {State::kSynReceived, State::kClosing, "the same when CLOSE was queued"},
    {State::kSynReceived, State::kClosed, "RST, ABORT, time-out (3.10.7.4, second)"},
    {State::kEstablished, State::kFinWait1, "CLOSE (3.10.4)"},
    {State::kEstablished, State::kCloseWait, "FIN (3.10.7.4, eighth)"},
    {State::kEstablished, State::kClosed, "RST, ABORT, time-out"},
    {State::kFinWait1, State::kFinWait2, "ACK of our FIN (3.10.7.4, fifth)"},
    {State::kFinWait1, State::kClosing, "FIN: simultaneous close (3.10.7.4, eighth)"},
    {State::kFinWait1, State::kTimeWait, "FIN with the ACK of ours (3.10.7.4, eighth)"},
    {State::kFinWait1, State::kClosed, "RST, ABORT, time-out"},
    {State::kFinWait2, State::kTimeWait, "FIN (3.10.7.4, eighth)"},
    {State::kFinWait2, State::kClosed, "RST, ABORT, time-out"},
    {State::kCloseWait, State::kLastAck, "CLOSE (3.10.4)"},
    {State::kCloseWait, State::kClosed, "RST, ABORT, time-out"},
    {State::kClosing, State::kTimeWait, "ACK of our FIN (3.10.7.4, fifth)"},
    {State::kClosing, State::kClosed, "RST, ABORT, time-out"},
    {State::kLastAck, State::kClosed, "ACK of our FIN, RST, time-out (3.10.7.4, fifth)"},
    {State::kTimeWait, State::kClosed, "2 MSL, RST, a new SYN (3.10.7.4, 3.10.8; RFC 6191)"},
};

size_t at(State s) { return static_cast<size_t>(s); }

}  // namespace

bool StateOracle::change(State from, State to) {
  if (from == to) return true;
  ++seen_[at(from)][at(to)];
  for (const Edge& e : kLegal)
    if (e.from == from && e.to == to) return true;
  return false;
}

std::string StateOracle::missing() const {
  std::string text;
  for (const Edge& e : kLegal)
    if (seen_[at(e.from)][at(e.to)] == 0)
      text += std::string("  ") + tcp::to_string(e.from) + " to " + tcp::to_string(e.to) + ": " + e.why + "\n";
  return text;
}

std::string StateOracle::report() const {
  std::string text;
  for (const Edge& e : kLegal) {
    char line[160];
    std::snprintf(line, sizeof line, "  %10lu  %-12s to %-12s %s\n", seen_[at(e.from)][at(e.to)], tcp::to_string(e.from),
                  tcp::to_string(e.to), e.why);
    text += line;
  }
  return text;
}

void StateOracle::add(const StateOracle& other) {
  for (size_t i = 0; i < kStates; ++i)
    for (size_t j = 0; j < kStates; ++j) seen_[i][j] += other.seen_[i][j];
}

}  // namespace millrace::sim
