#include "perf/load/http_client.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "lib/base/assert.h"
#include "perf/load/http_chunks.h"
#include "perf/load/http_scan.h"
#include "perf/load/pattern.h"

namespace millrace::load {
namespace {

constexpr std::string_view kEnd = "\r\n";
constexpr std::string_view kCloseEnd = "Connection: close\r\n\r\n";

uint64_t since(base::TimeNs now, uint64_t then) { return now > then ? now - then : 0; }

}  // namespace

HttpClient::HttpClient(Shared& shared, TcpPeer& tcp, const TargetTable& targets)
    : shared_(shared),
      counters_(shared.counters),
      table_(shared.table),
      tcp_(tcp),
      targets_(targets),
      draw_(targets.size(), shared.options.zipf, shared.options.seed),
      random_(shared.options.seed ^ 0x5bd1e995),
      slots_(shared.table.clients()),
      check_body_(shared.options.body_check == BodyCheck::kPattern),
      head_method_(shared.options.method == "HEAD"),
      requests_left_(shared.options.requests == 0 ? UINT64_MAX : shared.options.requests),
      open_loop_(shared.options.rate > 0),
      ready_(std::bit_ceil(std::max<size_t>(slots_, 1))) {
  const Options& o = shared.options;
  if (o.response_body) expected_length_ = *o.response_body;
  if (open_loop_) gap_ns_ = 1e9 / o.rate;
}

void HttpClient::prepare(uint8_t wire, bool v6, std::vector<AddressId> remotes, uint64_t seed) {
  wire_ = wire;
  v6_ = v6;
  remotes_ = std::move(remotes);
  const Options& o = shared_.options;
  std::string fields;
  for (const std::string& h : o.headers) fields += h + "\r\n";
  const bool length = o.request_body != 0 || o.method == "POST" || o.method == "PUT" || o.method == "PATCH";
  if (length) fields += "Content-Length: " + std::to_string(o.request_body) + "\r\n";
  const bool own_host = std::any_of(o.headers.begin(), o.headers.end(), [](const std::string& h) {
    return h.size() > 5 && (h[0] | 0x20) == 'h' && (h[1] | 0x20) == 'o' && (h[2] | 0x20) == 's' && (h[3] | 0x20) == 't' &&
           h[4] == ':';
  });
  heads_of_.reserve(targets_.size());
  for (uint32_t t = 0; t < targets_.size(); ++t) {
    const RequestTarget target = targets_[t];
    const uint64_t at = heads_.size();
    heads_.append(o.method).append(" ").append(target.path).append(" HTTP/1.1\r\n");
    if (!own_host) heads_.append("Host: ").append(target.host).append("\r\n");
    heads_.append(fields);
    heads_of_.push_back({at, static_cast<uint32_t>(heads_.size() - at), rotation_of(target.path)});
  }
  // A new run begins elsewhere, so that it does not meet the device under test's memory of the last one (TIME-WAIT).
  first_generation_ = static_cast<uint32_t>(base::Prng(seed).below(std::max(table_.generations(), 1u)));
  for (uint32_t i = 0; i < slots_; ++i) table_[i].generation = first_generation_;
}

// --- connections ------------------------------------------------------------------------------------------------------------

void HttpClient::open_slot(uint32_t i) {
  Connection& c = table_[i];
  c.generation = c.generation + 1 >= table_.generations() ? 0 : c.generation + 1;
  table_.place_client(c, i);
  const uint32_t target = target_of(i, c);
  c.tls = shared_.options.tls_clients ? kNoSession : kNone;
  c.plain_sent = 0;
  c.remote = remotes_[target];
  c.remote_port = shared_.options.targets[target].port;
  c.wire = wire_;
  const bool idle = i >= shared_.options.connections;
  c.flags = static_cast<uint16_t>((c.flags & (kReady | kSettled)) | (v6_ ? kV6 : 0) | (idle ? kIdle : 0));
  c.in_flight = 0;
  c.parse = Parse::kHead;
  c.requests_left = idle                                           ? 1
                    : shared_.options.requests_per_connection == 0 ? UINT32_MAX
                                                                   : shared_.options.requests_per_connection;
  ++open_;
  tcp_.connect(i);
  c.began_us = static_cast<uint32_t>(shared_.now / base::kMicrosecond);
  // The first request waits in its message for the connection: its latency counts from here.
  if (probe_ == Probe::kNone && (idle || !open_loop_)) refill(i, c);
}

bool HttpClient::probe() {
  Connection& c = table_[0];
  switch (probe_) {
    case Probe::kRetry:
      if (shared_.now_ms < c.rto_at_ms) return false;
      [[fallthrough]];
    case Probe::kNone:
      probe_ = Probe::kTrying;
      open_slot(0);
      return false;
    case Probe::kTrying:
      return false;
    case Probe::kGood:
      break;
  }
  tcp_.abort(0);
  probe_ = Probe::kNone;
  connect_latency_.clear();
  return true;
}

void HttpClient::advance() {
  if (shared_.stopping) return;
  if (ramp_start_ == 0) ramp_start_ = shared_.now;
  if (begun_ < slots_) {
    const double due = static_cast<double>(shared_.now - ramp_start_) * shared_.options.ramp / 1e9 + 1;
    const auto end = static_cast<uint32_t>(std::min<double>(due, slots_));
    for (uint32_t n = 0; begun_ < end && n < kOpensPerLoop && !shared_.wires[wire_]->congested(); ++n) {
      const uint32_t i = begun_++;
      if (open_loop_ && shared_.options.requests_per_connection == 1 && i < shared_.options.connections) {
        ++settled_;  // opens when a request is due
        make_ready(i, table_[i]);
      } else {
        open_slot(i);
      }
    }
  }
  if (woken_ < to_wake_) wake_some();
  if (loaded_) issue_due();
}

void HttpClient::begin_waking() { to_wake_ = static_cast<uint32_t>(shared_.options.wake * shared_.options.idle); }

void HttpClient::wake_some() {
  for (uint32_t n = 0; woken_ < to_wake_ && n < kOpensPerLoop && !shared_.wires[wire_]->congested(); ++n, ++woken_) {
    const uint32_t i = shared_.options.connections + static_cast<uint32_t>(uint64_t{woken_} * shared_.options.idle / to_wake_);
    Connection& c = table_[i];
    if ((c.flags & (kIdle | kIdleDone)) != (kIdle | kIdleDone)) continue;  // it ended meanwhile, which was counted
    c.flags &= static_cast<uint16_t>(~(kIdle | kIdleDone));
    --idle_;
    ++counters_.woken;
    c.requests_left = UINT32_MAX;
    if (open_loop_) make_ready(i, c);
    else refill(i, c);
  }
}

void HttpClient::start_load(base::TimeNs now) {
  loaded_ = open_loop_;
  load_start_ = now;
  next_due_ = 0;
}

uint64_t HttpClient::backlog() const {
  if (!loaded_) return 0;
  const double late = static_cast<double>(shared_.now - load_start_) - next_due_;
  return late <= 0 ? 0 : static_cast<uint64_t>(late / gap_ns_);
}

void HttpClient::settle(Connection& c) {
  if ((c.flags & kSettled) != 0) return;
  c.flags |= kSettled;
  ++settled_;
}

void HttpClient::on_connected(uint32_t i, Connection& c) {
  if (probe_ != Probe::kNone) {
    probe_ = Probe::kGood;
    return;
  }
  connect_latency_.record(uint64_t{static_cast<uint32_t>(shared_.now / base::kMicrosecond) - c.began_us} * base::kMicrosecond);
  if ((c.flags & kIdle) == 0) settle(c);
  if (open_loop_ && (c.flags & kIdle) == 0 && c.in_flight == 0) make_ready(i, c);
}

void HttpClient::on_forgotten(uint32_t i, Connection& c, bool opened) {
  --open_;
  if (probe_ != Probe::kNone) {  // refused, or taken back by probe() itself
    probe_ = Probe::kRetry;
    c.rto_at_ms = shared_.now_ms + kRetryMs;
    return;
  }
  if ((c.flags & (kIdle | kIdleDone)) == (kIdle | kIdleDone)) {
    --idle_;
    counters_.retired_early += !shared_.stopping;
  }
  if (shared_.stopping) return;
  if ((c.flags & kIdle) != 0 || !opened) {
    settle(c);
    if (opened) return;  // an idle connection that ended stays so
    c.state = State::kWaiting;
    c.rto_at_ms = shared_.now_ms + kRetryMs;
    table_.deadlines.arm(i, c.rto_at_ms);
    return;
  }
  if (open_loop_ && shared_.options.requests_per_connection == 1) return make_ready(i, c);
  if (requests_left_ == 0) return;
  if (shared_.wires[wire_]->congested()) {
    c.state = State::kWaiting;
    c.rto_at_ms = shared_.now_ms + 1;
    table_.deadlines.arm(i, c.rto_at_ms);
    return;
  }
  open_slot(i);
}

void HttpClient::reopen(uint32_t i) {
  table_[i].state = State::kFree;
  table_[i].rto_at_ms = 0;
  if (!shared_.stopping) open_slot(i);
}

void HttpClient::on_peer_fin(uint32_t i, Connection& c) {
  if (c.in_flight != 0) {
    if (c.parse == Parse::kUntilClose) {
      end_response(i, c);
      if (c.state != State::kOpen) return;
    }
    if (c.in_flight != 0) {
      counters_.closed_early += c.in_flight;
      c.in_flight = 0;
      return tcp_.abort(i);
    }
  } else if ((c.flags & (kLastAnswer | kFinQueued)) == 0 && (c.flags & kIdle) == 0) {
    ++counters_.retired_early;
  }
  c.flags |= kLastAnswer;
  tcp_.close(i);
}

void HttpClient::on_reset(uint32_t, Connection& c) {
  // The peer has answered everything, ended its side and closed its socket, which then meets our close_notify (nginx does so).
  // Nothing is lost.
  if (c.in_flight == 0 && (c.flags & kPeerFin) != 0) {
    ++counters_.closed;
    return;
  }
  // Idle, and between two requests, a peer may do that; but it is not how HTTP ends.
  ++counters_.reset;
  if (c.in_flight > 1) counters_.reset += c.in_flight - 1u;
}

bool HttpClient::check_timeout(uint32_t i, Connection& c) {
  if (c.in_flight == 0) return false;
  const uint64_t end = table_.message(c, 0).time_ns + shared_.options.timeout_ns;
  if (shared_.now >= end) {
    counters_.timeout += c.in_flight;
    c.in_flight = 0;
    tcp_.abort(i);
    return true;
  }
  table_.deadlines.arm(i, shared_.now_ms + static_cast<uint32_t>((end - shared_.now) / base::kMillisecond) + 1);
  return false;
}

bool HttpClient::quiet() const {
  // Cheap enough: only asked while draining.
  for (uint32_t i = 0; i < begun_; ++i) {
    const Connection& c = const_cast<ConnectionTable&>(table_)[i];
    if (c.state >= State::kSynSent && c.in_flight != 0) return false;
  }
  return true;
}

bool HttpClient::close_some(bool at_once) {
  for (uint32_t n = 0; (at_once || n < kOpensPerLoop) && closing_ < begun_; ++closing_) {
    if (!at_once && shared_.wires[wire_]->congested()) return false;
    Connection& c = table_[closing_];
    if (c.state < State::kSynSent) continue;
    counters_.unanswered += c.in_flight;
    c.in_flight = 0;
    tcp_.abort(closing_);
    ++n;
  }
  return closing_ == begun_;
}

// --- requests ---------------------------------------------------------------------------------------------------------------

MessageBytes HttpClient::bytes(const Message& m) const {
  const Head& h = heads_of_[m.what & ~kCloseBit];
  const std::string_view end = (m.what & kCloseBit) != 0 ? kCloseEnd : kEnd;
  MessageBytes b;
  b.piece[0] = reinterpret_cast<const uint8_t*>(heads_.data()) + h.at;
  b.piece_bytes[0] = h.bytes;
  b.piece[1] = reinterpret_cast<const uint8_t*>(end.data());
  b.piece_bytes[1] = static_cast<uint32_t>(end.size());
  b.rotation = h.rotation;
  b.body = shared_.options.request_body;
  return b;
}

bool HttpClient::can_start(const Connection& c) const {
  return !shared_.stopping && c.requests_left != 0 && (c.flags & (kLastAnswer | kFinQueued | kPeerFin)) == 0 &&
         requests_left_ != 0;
}

bool HttpClient::start_request(uint32_t i, Connection& c, base::TimeNs counted_from) {
  const uint32_t line = draw_.next();
  const uint32_t left = c.requests_left == UINT32_MAX ? UINT32_MAX : c.requests_left - 1;
  const bool last = left == 0 && (c.flags & kIdle) == 0 && shared_.options.close == CloseMode::kHeader;
  const Message probe{0, line | (last ? kCloseBit : 0), 0};
  if (tcp_.append(c, counted_from, probe.what, bytes(probe)) == nullptr) return false;
  c.requests_left = left;
  if (requests_left_ != UINT64_MAX && (c.flags & kIdle) == 0) --requests_left_;
  ++counters_.requests_sent;
  tcp_.touch(i);
  return true;
}

void HttpClient::refill(uint32_t i, Connection& c) {
  const uint32_t depth = (c.flags & kIdle) != 0 ? 1 : shared_.options.pipeline;
  while (c.in_flight < depth && can_start(c))
    if (!start_request(i, c, shared_.now)) return;
}

void HttpClient::make_ready(uint32_t i, Connection& c) {
  if ((c.flags & kReady) != 0) return;
  c.flags |= kReady;
  ready_[ready_tail_++ & (ready_.size() - 1)] = i;
}

void HttpClient::issue_due() {
  const double late = static_cast<double>(shared_.now - load_start_);
  for (uint32_t n = 0; next_due_ <= late && n < kOpensPerLoop; ++n) {
    Connection* c = nullptr;
    uint32_t i = 0;
    while (ready_head_ != ready_tail_) {
      i = ready_[ready_head_++ & (ready_.size() - 1)];
      c = &table_[i];
      c->flags &= static_cast<uint16_t>(~kReady);
      const bool usable = c->state == State::kFree
                              ? shared_.options.requests_per_connection == 1
                              : c->state == State::kOpen && can_start(*c) && c->in_flight < shared_.options.pipeline;
      if (usable) break;
      c = nullptr;
    }
    if (c == nullptr || requests_left_ == 0) return;
    if (c->state == State::kFree) open_slot(i);
    start_request(i, *c, load_start_ + static_cast<base::TimeNs>(next_due_));
    if (c->in_flight < shared_.options.pipeline && c->requests_left != 0) make_ready(i, *c);
    next_due_ += shared_.options.poisson ? -std::log(1.0 - random_.unit()) * gap_ns_ : gap_ns_;
  }
}

// --- answers ----------------------------------------------------------------------------------------------------------------

void HttpClient::fail(uint32_t i, uint64_t& counter) {
  ++counter;
  table_[i].in_flight = 0;
  tcp_.abort(i);
}

void HttpClient::on_bytes(uint32_t i, Connection& c, const uint8_t* p, uint32_t n) {
  while (n != 0) {
    uint32_t took = n;
    switch (c.parse) {
      case Parse::kHead:
        if (c.in_flight == 0) return fail(i, counters_.unexpected);
        took = take_head(i, c, p, n);
        break;
      case Parse::kBody:
        took = std::min(n, c.body_left);
        take_body(c, p, took);
        c.body_left -= took;
        if (c.body_left == 0) end_response(i, c);
        break;
      case Parse::kUntilClose:
        take_body(c, p, n);
        break;
      default:
        took = take_chunked(i, c, p, n);
        break;
    }
    if (c.state != State::kOpen || took == 0) return;
    p += took;
    n -= took;
  }
}

uint32_t HttpClient::take_head(uint32_t i, Connection& c, const uint8_t* p, uint32_t n) {
  HeadScan scan;
  ConnectionTable::Carry* carry = table_.carry(c);
  if (carry == nullptr) [[likely]] {
    scan_head(p, n, scan);
    if (scan.length != 0) [[likely]]
      return begin_response(i, c, p, scan) ? scan.length : 0;
    carry = table_.take_carry(c);
    if (carry == nullptr || n > kCarryBytes) {
      fail(i, counters_.malformed);
      return 0;
    }
    std::memcpy(carry->bytes, p, n);
    carry->length = n;
    return n;
  }
  const uint32_t before = carry->length;
  const uint32_t add = std::min(n, kCarryBytes - before);
  std::memcpy(carry->bytes + before, p, add);
  carry->length += add;
  scan_head(carry->bytes, carry->length, scan);
  if (scan.length == 0) {
    if (carry->length == kCarryBytes) {
      fail(i, counters_.malformed);
      return 0;
    }
    return add;
  }
  const bool good = begin_response(i, c, carry->bytes, scan);
  if (!good) return 0;
  table_.drop_carry(c);
  return scan.length - before;
}

bool HttpClient::begin_response(uint32_t i, Connection& c, const uint8_t* head, const HeadScan& scan) {
  const bool http =
      scan.length >= 14 && std::memcmp(head, "HTTP/1.", 7) == 0 && head[8] == ' ' && head[9] >= '1' && head[9] <= '5';
  if (!http || scan.bad) {
    fail(i, counters_.malformed);
    return false;
  }
  const auto status = static_cast<uint16_t>((head[9] - '0') * 100 + (head[10] - '0') * 10 + (head[11] - '0'));
  counters_.response_head_bytes += scan.length;
  if (status < 200) return true;  // 100 Continue: the answer is still to come
  c.status = status;
  if (scan.close || (head[7] == '0' && !scan.keep_alive)) c.flags |= kLastAnswer;
  c.rotation = static_cast<uint16_t>(heads_of_[table_.message(c, 0).what & ~kCloseBit].rotation);
  c.body_done = 0;
  c.flags &= static_cast<uint16_t>(~kBadBody);
  if (head_method_ || status == 204 || status == 304) {
    if (head_method_ && scan.content_length != kNoLength) c.body_done = static_cast<uint32_t>(scan.content_length);
    end_response(i, c);
  } else if (scan.chunked) {
    c.parse = Parse::kChunkSize;
    c.body_left = 0;
  } else if (scan.content_length == kNoLength) {
    c.parse = Parse::kUntilClose;
    c.flags |= kLastAnswer;
  } else if (scan.content_length == 0) {
    end_response(i, c);
  } else if (scan.content_length > kMaxBody) {
    fail(i, counters_.length);
    return false;
  } else {
    c.parse = Parse::kBody;
    c.body_left = static_cast<uint32_t>(scan.content_length);
  }
  return c.state == State::kOpen;
}

void HttpClient::take_body(Connection& c, const uint8_t* p, uint32_t n) {
  // Another status has another body (a local reply of the gateway): its status is the error.
  if (check_body_ && c.status == shared_.options.expect_status && !matches_pattern(p, c.rotation, c.body_done, n))
    c.flags |= kBadBody;
  c.body_done += n;
}

uint32_t HttpClient::take_chunked(uint32_t i, Connection& c, const uint8_t* p, uint32_t n) {
  const ChunkStep step = scan_chunked(c.parse, c.body_left, p, n);
  if (step.bad) {
    fail(i, counters_.malformed);
    return 0;
  }
  if (step.data != 0) take_body(c, p, step.data);
  if (step.end) end_response(i, c);
  return step.took;
}

void HttpClient::end_response(uint32_t i, Connection& c) {
  const Message m = table_.message(c, 0);
  c.parse = Parse::kHead;
  if (!tcp_.was_sent(c, m)) {
    // Answered before it was heard out: a peer may (RFC 9112 7.5.1), but what follows on this connection is no measurement.
    if (c.status == shared_.options.expect_status) ++counters_.unexpected;
    else ++counters_.status;
    c.in_flight = 0;
    return tcp_.abort(i);
  }
  if (!head_method_) counters_.response_bytes += c.body_done;
  if (c.status != shared_.options.expect_status) ++counters_.status;
  else if (expected_length_ != kNone && c.body_done != expected_length_) ++counters_.length;
  else if ((c.flags & kBadBody) != 0) ++counters_.body;
  else ++counters_.responses;
  latency_.record(since(shared_.now, m.time_ns));
  table_.pop_message(c);
  if ((c.flags & kIdle) != 0) {
    c.flags |= kIdleDone;
    settle(c);
    ++idle_;
    return;
  }
  if ((c.flags & kLastAnswer) != 0) {
    if (c.in_flight != 0) {
      counters_.closed_early += c.in_flight;
      c.in_flight = 0;
      return tcp_.abort(i);
    }
    return tcp_.close(i);
  }
  if (c.in_flight == 0 && c.requests_left == 0) {
    if (shared_.options.close == CloseMode::kReset) {
      ++counters_.closed;
      return tcp_.abort(i);
    }
    if (shared_.options.close == CloseMode::kFin) tcp_.close(i);
    return;  // kHeader: the peer closes
  }
  if (!open_loop_) refill(i, c);
  else if (can_start(c)) make_ready(i, c);
}

}  // namespace millrace::load
