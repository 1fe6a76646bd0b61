// What a run counts. The engine is the only writer; the main thread reads a published copy now and then (progress), and the whole
// after the end. Counters only grow; a rate is the difference of two samples by their times.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/time.h"
#include "perf/load/histogram.h"

namespace millrace::load {

// LOAD_COUNTER(name, kind, text): kind is kTraffic, kNote (worth showing, not an error) or kError (makes the run unclean).
#define LOAD_COUNTERS(X)                                                                                        \
  X(requests_sent, kTraffic, "requests sent by clients")                                                        \
  X(responses, kTraffic, "responses that clients received whole and right")                                     \
  X(response_bytes, kTraffic, "bytes of response bodies that clients received")                                 \
  X(response_head_bytes, kTraffic, "bytes of response heads that clients received")                             \
  X(request_bytes, kTraffic, "bytes of request bodies that servers received")                                   \
  X(server_requests, kTraffic, "requests that servers received whole")                                          \
  X(server_responses, kTraffic, "responses that servers sent")                                                  \
  X(connects, kTraffic, "connections that clients began (SYN sent, repeats not counted)")                       \
  X(connected, kTraffic, "connections that clients opened (SYN-ACK received)")                                  \
  X(closed, kTraffic, "client connections that ended as they should")                                           \
  X(accepted, kTraffic, "connections that servers accepted")                                                    \
  X(server_closed, kTraffic, "server connections that ended")                                                   \
  X(handshakes_full, kTraffic, "TLS handshakes of clients without resumption")                                  \
  X(handshakes_resumed, kTraffic, "TLS handshakes of clients with resumption")                                  \
  X(server_handshakes_full, kTraffic, "TLS handshakes of servers without resumption")                           \
  X(server_handshakes_resumed, kTraffic, "TLS handshakes of servers with resumption")                           \
  X(rx_frames, kTraffic, "frames received")                                                                     \
  X(tx_frames, kTraffic, "frames sent")                                                                         \
  X(rx_bytes, kTraffic, "bytes of frames received")                                                             \
  X(tx_bytes, kTraffic, "bytes of frames sent")                                                                 \
  X(flood_frames, kTraffic, "segments of the flood sent")                                                       \
  X(woken, kTraffic, "idle connections that were put to work")                                                  \
  X(forwarded, kTraffic, "frames sent back (role forward)")                                                     \
  X(retired_early, kNote, "connections the peer closed between two requests; opened again")                     \
  X(delayed_acks, kNote, "acknowledgements sent by the delayed-ACK timer")                                      \
  X(window_stalls, kNote, "times that sending waited for the peer's window")                                    \
  X(flood_missed, kNote, "segments of the flood that could not be sent in time")                                \
  X(tx_stalls, kNote, "times that sending waited for the device's transmit queue")                              \
  X(stale_segments, kNote, "segments of connections that have ended; answered by RST where TCP asks for it")    \
  X(other_frames, kNote, "frames that are not for this program (other protocols and addresses)")                \
  X(status, kError, "responses with another status than expected")                                              \
  X(length, kError, "responses with another body length than expected")                                         \
  X(body, kError, "responses with a wrong byte in their body")                                                  \
  X(malformed, kError, "responses, or requests to servers, that are not HTTP/1.1")                              \
  X(reset, kError, "client connections reset by the peer")                                                      \
  X(server_reset, kError, "server connections reset by the peer while a request or response was under way")     \
  X(closed_early, kError, "client connections that the peer closed with requests unanswered")                   \
  X(connect_failed, kError, "client connections that could not be opened (refused, or no answer)")              \
  X(timeout, kError, "requests unanswered for longer than the timeout")                                         \
  X(unanswered, kError, "requests without an answer when the run had ended and drained")                        \
  X(retransmissions, kError, "segments sent again, by timer or by duplicate acknowledgements")                  \
  X(syn_retransmissions, kError, "SYN and SYN-ACK segments sent again")                                         \
  X(duplicates, kError, "segments received again: the peer did not get our acknowledgement in time")            \
  X(rx_out_of_order, kError, "segments received out of order, after a loss or reordering on the wire; dropped") \
  X(rx_bad_checksum, kError, "frames with a wrong checksum, dropped")                                           \
  X(rx_malformed, kError, "frames that are not well-formed TCP/IP, dropped")                                    \
  X(rx_lost, kError, "frames the device received and could not deliver (missed, no buffer, errors)")            \
  X(tx_lost, kError, "frames dropped because a pool was empty or the device refused them")                      \
  X(tls, kError, "TLS sessions that failed")                                                                    \
  X(unexpected, kError, "responses to nothing, data after the end, servers' limits reached")

enum class CounterKind : uint8_t { kTraffic, kNote, kError };

struct Counters {
#define X(name, kind, text) uint64_t name = 0;
  LOAD_COUNTERS(X)
#undef X
};

struct LoadCounterInfo {
  const char* name;
  CounterKind kind;
  const char* text;
  uint64_t Counters::*member;
};
inline constexpr LoadCounterInfo kLoadCounters[] = {
#define X(name, kind, text) {#name, CounterKind::kind, text, &Counters::name},
    LOAD_COUNTERS(X)
#undef X
};
inline constexpr uint32_t kLoadCounterCount = sizeof kLoadCounters / sizeof kLoadCounters[0];

inline Counters operator-(const Counters& a, const Counters& b) {
  Counters d;
  for (const LoadCounterInfo& i : kLoadCounters) d.*i.member = a.*i.member - b.*i.member;
  return d;
}

enum class Phase : uint8_t { kResolving, kProbing, kRamping, kWarmup, kMeasuring, kHolding, kDraining, kDone };
constexpr const char* to_string(Phase p) {
  constexpr const char* kNames[] = {"resolving", "probing", "ramping", "warm-up", "measuring", "holding", "draining", "done"};
  return kNames[static_cast<uint8_t>(p)];
}

// The state of the run at one moment.
struct Sample {
  base::TimeNs now = 0;  // of the engine's clock
  Phase phase = Phase::kResolving;
  Counters counters;
  uint64_t client_connections = 0;  // open now, idle ones included
  uint64_t idle_connections = 0;    // opened for --idle, one request answered, still open
  uint64_t server_connections = 0;  // open now
  uint64_t backlog = 0;             // open loop: requests whose time has come and that wait for a free connection
  uint64_t busy_ns = 0;             // of loop iterations that received or sent something, since the start
  uint64_t busy_measured_ns = 0;    // the same, since the measuring phase began
};

// A sample the engine writes and any thread reads: a seqlock over relaxed words (Boehm 2012). One writer.
class PublishedSample {
 public:
  void publish(const Sample& s);  // engine
  Sample read() const;            // anybody

 private:
  static constexpr size_t kWords = (sizeof(Sample) + 7) / 8;
  std::atomic<uint64_t> sequence_{0};
  std::atomic<uint64_t> words_[kWords]{};
};

// The run as a whole.
struct RunResult {
  Sample start, end;          // of the measuring phase
  Sample last;                // after draining: errors are counted over the whole run (since the start), rates over start … end
  Histogram latency;          // ns, of responses in the measuring phase; from the intended time of sending in an open loop
  Histogram connect_latency;  // ns, SYN to SYN-ACK, in the measuring phase
  double offered_rate = 0;    // requests/s asked for; 0: closed loop
  bool interrupted = false;   // ended by a signal
  std::string failure;        // why there was no measurement (the peer's MAC did not resolve, …); empty: there was one
  std::vector<std::string> drivers;  // of the devices
  std::vector<std::string> notes;    // what ports do in software, and the like

  double seconds() const { return static_cast<double>(end.now - start.now) / 1e9; }
  double busy() const {
    return end.now == start.now
               ? 0
               : static_cast<double>(end.busy_measured_ns - start.busy_measured_ns) / static_cast<double>(end.now - start.now);
  }
  // No error counter moved in the whole run, and there was a measurement.
  bool clean() const {
    if (!failure.empty()) return false;
    for (const LoadCounterInfo& i : kLoadCounters)
      if (i.kind == CounterKind::kError && last.counters.*i.member != 0) return false;
    return true;
  }
};

}  // namespace millrace::load
