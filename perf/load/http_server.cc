#include "perf/load/http_server.h"

#include <algorithm>
#include <cstdio>

#include "perf/load/http_chunks.h"
#include "perf/load/http_scan.h"
#include "perf/load/pattern.h"

namespace millrace::load {

HttpServer::HttpServer(Shared& shared, TcpPeer& tcp)
    : shared_(shared),
      counters_(shared.counters),
      table_(shared.table),
      tcp_(tcp),
      body_(shared.options.response_body.value_or(0)) {
  head_ = "HTTP/1.1 200 OK\r\nServer: millrace-load\r\nContent-Type: application/octet-stream\r\n";
  std::string framing;
  if (shared.options.server_chunked && body_ != 0) {
    char size[16];
    std::snprintf(size, sizeof size, "%x\r\n", body_);
    framing = "Transfer-Encoding: chunked\r\n\r\n" + std::string(size);
    tail_ = "\r\n0\r\n\r\n";
  } else {
    framing = "Content-Length: " + std::to_string(body_) + "\r\n\r\n";
  }
  close_head_ = head_ + "Connection: close\r\n" + framing;
  head_ += framing;
}

void HttpServer::prepare(std::vector<Range> ranges) { ranges_ = std::move(ranges); }

bool HttpServer::listens(bool v6, AddressId a, uint16_t port) const {
  return std::any_of(ranges_.begin(), ranges_.end(), [&](const Range& r) {
    return r.v6 == v6 && a >= r.first && a <= r.last && port >= r.port_first && port <= r.port_last;
  });
}

bool HttpServer::has_address(bool v6, AddressId a) const {
  return std::any_of(ranges_.begin(), ranges_.end(), [&](const Range& r) { return r.v6 == v6 && a >= r.first && a <= r.last; });
}

bool HttpServer::close_some(bool at_once) {
  for (uint32_t n = 0; (at_once || n < kResetsPerLoop) && closing_ < table_.servers_used(); ++closing_) {
    const Connection& c = table_[table_.clients() + closing_];
    if (c.state == State::kFree) continue;
    if (!at_once && shared_.wires[c.wire]->congested()) return false;
    tcp_.abort(table_.clients() + closing_);
    ++n;
  }
  return closing_ == table_.servers_used();
}

void HttpServer::on_open(uint32_t, Connection& c) {
  ++counters_.accepted;
  c.requests_left = shared_.options.server_close_after == 0 ? UINT32_MAX : shared_.options.server_close_after;
}

void HttpServer::on_peer_fin(uint32_t i, Connection& c) {
  if (c.parse != Parse::kHead || c.carry != kNone) ++counters_.malformed;  // half a request
  tcp_.close(i);
}

void HttpServer::on_reset(uint32_t, Connection& c) {
  if (c.in_flight != 0 || c.parse != Parse::kHead || c.carry != kNone) ++counters_.server_reset;
}

MessageBytes HttpServer::bytes(const Message& m) const {
  const std::string& head = (m.what & kCloseBit) != 0 ? close_head_ : head_;
  MessageBytes b;
  b.piece[0] = reinterpret_cast<const uint8_t*>(head.data());
  b.piece_bytes[0] = static_cast<uint32_t>(head.size());
  if ((m.what & kNoBodyBit) != 0) return b;
  b.rotation = m.what & 0xffff;
  b.body = body_;
  b.tail = reinterpret_cast<const uint8_t*>(tail_.data());
  b.tail_bytes = static_cast<uint32_t>(tail_.size());
  return b;
}

void HttpServer::fail(uint32_t i, uint64_t& counter) {
  ++counter;
  tcp_.abort(i);
}

void HttpServer::on_bytes(uint32_t i, Connection& c, const uint8_t* p, uint32_t n) {
  while (n != 0) {
    uint32_t took;
    if ((c.flags & kLastAnswer) != 0) return fail(i, counters_.unexpected);  // a request after "Connection: close"
    if (c.parse == Parse::kHead) [[likely]] {
      took = take_head(i, c, p, n);
    } else if (c.parse == Parse::kBody) {
      took = std::min(n, c.body_left);
      counters_.request_bytes += took;
      c.body_left -= took;
      if (c.body_left == 0) end_request(i, c);
    } else {
      took = take_chunked(i, c, p, n);
    }
    if (c.state != State::kOpen || took == 0) return;
    p += took;
    n -= took;
  }
}

uint32_t HttpServer::take_head(uint32_t i, Connection& c, const uint8_t* p, uint32_t n) {
  HeadScan scan;
  ConnectionTable::Carry* carry = table_.carry(c);
  if (carry == nullptr) [[likely]] {
    scan_head(p, n, scan);
    if (scan.length != 0) [[likely]]
      return begin_request(i, c, p, scan) ? scan.length : 0;
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
  if (!begin_request(i, c, carry->bytes, scan)) return 0;
  table_.drop_carry(c);
  return scan.length - before;
}

bool HttpServer::begin_request(uint32_t i, Connection& c, const uint8_t* head, const HeadScan& scan) {
  // method SP target SP version (RFC 9112 3)
  const char* p = reinterpret_cast<const char*>(head);
  const auto* blank = static_cast<const char*>(std::memchr(p, ' ', std::min(scan.length, 16u)));
  const auto* end =
      blank == nullptr ? nullptr : static_cast<const char*>(std::memchr(blank + 1, ' ', scan.length - (blank + 1 - p)));
  if (end == nullptr || scan.bad) {
    fail(i, counters_.malformed);
    return false;
  }
  c.rotation = static_cast<uint16_t>(rotation_of({blank + 1, static_cast<size_t>(end - blank - 1)}));
  c.flags &= static_cast<uint16_t>(~kBodyless);
  if (blank - p == 4 && std::memcmp(p, "HEAD", 4) == 0) c.flags |= kBodyless;
  const bool old = p + scan.length - end >= 9 && std::memcmp(end + 1, "HTTP/1.0", 8) == 0;
  if (scan.close || (old && !scan.keep_alive)) c.requests_left = 1;
  if (scan.chunked) {
    c.parse = Parse::kChunkSize;
    c.body_left = 0;
  } else if (scan.content_length != kNoLength && scan.content_length != 0) {
    if (scan.content_length > kMaxBody) {
      fail(i, counters_.unexpected);
      return false;
    }
    c.parse = Parse::kBody;
    c.body_left = static_cast<uint32_t>(scan.content_length);
  } else {
    end_request(i, c);
  }
  return c.state == State::kOpen;
}

uint32_t HttpServer::take_chunked(uint32_t i, Connection& c, const uint8_t* p, uint32_t n) {
  const ChunkStep step = scan_chunked(c.parse, c.body_left, p, n);
  if (step.bad) {
    fail(i, counters_.malformed);
    return 0;
  }
  counters_.request_bytes += step.data;
  if (step.end) end_request(i, c);
  return step.took;
}

void HttpServer::end_request(uint32_t i, Connection& c) {
  c.parse = Parse::kHead;
  ++counters_.server_requests;
  const bool last = c.requests_left == 1;
  const Message answer{0, c.rotation | (last ? kCloseBit : 0) | ((c.flags & kBodyless) != 0 ? kNoBodyBit : 0), 0};
  if (tcp_.append(c, shared_.now, answer.what, bytes(answer)) == nullptr)
    return fail(i, counters_.unexpected);  // more pipelined requests than we hold
  if (c.requests_left != UINT32_MAX) --c.requests_left;
  ++counters_.server_responses;
  tcp_.touch(i);
  if (last) {
    c.flags |= kLastAnswer;
    tcp_.close(i);
  }
}

}  // namespace millrace::load
