#include "perf/micro/template_peers.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "lib/wire/checksum.h"
#include "lib/wire/ethernet.h"
#include "lib/wire/ipv4.h"
#include "perf/micro/http2_template.h"

namespace millrace::bench {

using wire::kTcpAck;
using wire::kTcpFin;
using wire::kTcpPsh;
using wire::kTcpRst;
using wire::kTcpSyn;

namespace {

constexpr uint64_t kLargestBody = 4 << 20;
constexpr uint16_t kFirstPort = 1024;
constexpr uint32_t kClientAddresses = 16;  // connections of one request each walk through the ports of all of them

uint32_t tsval(TimeNs now) { return static_cast<uint32_t>(now / base::kMillisecond); }

}  // namespace

std::string_view body_text(uint64_t bytes) {
  static const std::string text = [] {
    std::string s(kLargestBody, '\0');
    for (size_t i = 0; i < s.size(); ++i) s[i] = static_cast<char>('a' + (i * 2654435761u >> 16) % 26);
    return s;
  }();
  return std::string_view(text).substr(0, bytes);
}

// ---- frames -------------------------------------------------------------------------------------------------------------------

bool TemplateHost::next(Segment& s) {
  while (rte_mbuf* m = wire_.port.tx.pop()) {
    const base::ByteSpan bytes{rte_pktmbuf_mtod(m, const uint8_t*), m->data_len};
    wire::EthernetView e;
    wire::Ipv4View ip;
    if (wire::EthernetView::parse(bytes, e) == wire::ParseError::kNone && e.ether_type == wire::kEtherIpv4) {
      // Of a frame for TSO, as of a chain, only the headers are where a parser may look; lengths are the frame's.
      const base::ByteSpan l3 = bytes.subspan(e.payload_offset);
      const uint32_t header = (l3[0] & 15u) * 4;
      if (l3.size() >= header + wire::kTcpMinHeader && l3[9] == wire::kIpTcp) {
        s.src = IpAddress::v4(__builtin_bswap32(base::load_unaligned<uint32_t>(l3.data() + 12)));
        s.dst = IpAddress::v4(__builtin_bswap32(base::load_unaligned<uint32_t>(l3.data() + 16)));
        const base::ByteSpan l4 = l3.subspan(header);
        if (wire::TcpView::parse(l4, s.tcp) == wire::ParseError::kNone) {
          s.frame = m;
          s.payload_at = e.payload_offset + header + s.tcp.payload_offset;
          s.payload_length = m->pkt_len - s.payload_at;
          return true;
        }
      }
      errors.add("a frame of the worker is no TCP segment");
    }
    rte_pktmbuf_free(m);  // ARP announcements and the like
  }
  return false;
}

void TemplateHost::send(Flow& f, uint8_t flags, std::string_view payload, TimeNs now) {
  io::PacketPtr p = wire_.pool.alloc();
  if (!p) return errors.add("the worker's packet pool is empty");
  wire::TcpRepr t;
  t.src_port = f.local_port;
  t.dst_port = f.remote_port;
  t.seq = f.snd_nxt;
  t.ack = f.rcv_nxt;
  t.flags = flags;
  t.window = static_cast<uint16_t>((flags & kTcpSyn) != 0 ? 65535 : kWindow >> kWindowShift);
  if ((flags & kTcpSyn) != 0) {
    t.mss = kMss;
    t.sack_permitted = true;
    t.wscale = kWindowShift;
  }
  if (wire_.timestamps && (f.timestamps || flags == kTcpSyn)) t.timestamps = {tsval(now), f.ts_recent};
  const uint32_t l4_header = t.header_length();
  const auto l4_length = static_cast<uint32_t>(l4_header + payload.size());

  uint8_t* at = p.append(wire::kEthernetHeader + wire::kIpv4Header + l4_length);
  at += wire::EthernetRepr{wire_.worker_mac, wire_.mac, wire::kEtherIpv4, 0}.emit(at);
  wire::Ipv4Repr ip;
  ip.src = f.local.v4_host_order();
  ip.dst = f.remote.v4_host_order();
  ip.protocol = wire::kIpTcp;
  ip.identification = ++identification_;
  ip.payload_length = static_cast<uint16_t>(l4_length);
  at += ip.emit(at);
  t.emit(at);
  if (!payload.empty()) std::memcpy(at + l4_header, payload.data(), payload.size());
  const wire::ChecksumSum sum =
      wire::pseudo_header(f.local, f.remote, wire::kIpTcp, l4_length) + wire::checksum_sum({at, l4_length});
  wire::store_checksum(at + wire::kTcpChecksumOffset, wire::checksum_finish(sum));

  rte_mbuf* m = p.release();
  m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD;
  if (!wire_.port.rx.push(m)) {
    rte_pktmbuf_free(m);
    return errors.add("the worker's receive queue is full");
  }
  f.snd_nxt += static_cast<uint32_t>(payload.size()) + ((flags & (kTcpSyn | kTcpFin)) != 0 ? 1 : 0);
}

bool TemplateHost::accept(Flow& f, const Segment& s) {
  if (s.tcp.rst()) {
    errors.add("the worker reset a connection");
    return false;
  }
  if (s.tcp.has_ack()) {
    f.snd_una = s.tcp.ack;
    f.snd_wnd = uint32_t{s.tcp.window} << (s.tcp.syn() ? 0 : f.snd_wscale);
  }
  if (s.tcp.timestamps) f.ts_recent = s.tcp.timestamps->val;
  if (s.tcp.syn()) {
    f.rcv_nxt = s.tcp.seq + 1;
    f.snd_wscale = s.tcp.wscale.value_or(0);
    f.timestamps = s.tcp.timestamps.has_value();
    return true;
  }
  if (s.tcp.seq != f.rcv_nxt) {
    errors.add("a segment of the worker is not the next one (port " + std::to_string(f.local_port) + ")");
    return false;
  }
  f.rcv_nxt += s.payload_length + (s.tcp.fin() ? 1 : 0);
  return true;
}

// ---- clients ------------------------------------------------------------------------------------------------------------------

TemplateClients::TemplateClients(const PeerWire& wire, const ClientOptions& options) : TemplateHost(wire), options_(options) {
  if (options_.http2)
    for (std::string& text : options_.requests) text = http2::request_block(text);
  if (options_.tls != nullptr) sessions_ = std::make_unique<tls::SessionPool>(options_.connections);
}

TemplateClients::~TemplateClients() {
  for (auto& c : clients_)
    if (c->session != nullptr) sessions_->close(c->session);
}

void TemplateClients::start(TimeNs now) {
  for (uint32_t i = 0; i < options_.connections; ++i) {
    clients_.push_back(std::make_unique<Client>());
    open(*clients_.back(), now);
  }
}

void TemplateClients::open(Client& c, TimeNs now) {
  if (c.flow.local_port != 0) by_port_.erase((c.flow.local.v4_host_order() & 0xff) << 16 | c.flow.local_port);
  constexpr uint32_t kPorts = 65536 - kFirstPort;
  uint64_t n = 0;
  do {
    n = opened_++;
    c.flow = {};
    c.flow.local = IpAddress::v4(0x0a010002 + static_cast<uint32_t>(n / kPorts % kClientAddresses));
    c.flow.local_port = static_cast<uint16_t>(kFirstPort + n % kPorts);
    c.flow.remote = options_.target;
    c.flow.remote_port = options_.target_port;
  } while (options_.mine && !options_.mine(c.flow));
  c.flow.snd_nxt = static_cast<uint32_t>(n * 0x9e3779b1u);
  c.state = State::kSynSent;
  c.head.clear();
  c.stream = 0;
  c.in_body = c.waiting = false;
  by_port_[(c.flow.local.v4_host_order() & 0xff) << 16 | c.flow.local_port] = &c;
  send(c.flow, kTcpSyn, {}, now);
}

void TemplateClients::receive(TimeNs now) {
  Segment s;
  while (next(s)) {
    const auto found = by_port_.find((s.dst.v4_host_order() & 0xff) << 16 | s.tcp.dst_port);
    if (found == by_port_.end()) errors.add("a segment for a client that is not there");
    else on_segment(*found->second, s, now);
    rte_pktmbuf_free(s.frame);
  }
}

void TemplateClients::on_segment(Client& c, const Segment& s, TimeNs now) {
  if (!accept(c.flow, s)) return;
  if (c.state == State::kSynSent) {
    if (!s.tcp.syn() || !s.tcp.has_ack()) return errors.add("no SYN-ACK for a client's SYN");
    c.state = State::kOpen;
    ++connected_;
    send(c.flow, kTcpAck, {}, now);
    if (options_.tls != nullptr) {
      c.session = sessions_->open_client(*options_.tls, "bench.example");
      if (c.session == nullptr) return errors.add("no TLS session for a client");
      pull_tls(c, now);
    } else {
      request(c, now);
    }
    return;
  }
  if (c.state == State::kLastAck) {
    if (c.flow.snd_una == c.flow.snd_nxt) open(c, now);
    return;
  }
  bool complete = false;
  const uint32_t sent_before = c.flow.snd_nxt;
  if (options_.tls == nullptr) {
    for_payload(s, [&](std::string_view bytes) { complete |= on_bytes(c, bytes); });
  } else if (s.payload_length > 0) {
    for_payload(s, [&](std::string_view bytes) { c.cipher_in.append_copy(bytes, wire_.pool); });
    complete = pull_tls(c, now);
  }
  if (s.tcp.fin()) {
    if (!options_.one_request_each || c.waiting) return errors.add("the worker closed a connection unasked");
    c.state = State::kLastAck;
    return send(c.flow, kTcpFin | kTcpAck, {}, now);
  }
  if (complete && !options_.one_request_each) request(c, now);
  if (s.payload_length > 0 && c.flow.snd_nxt == sent_before) send(c.flow, kTcpAck, {}, now);
}

void TemplateClients::request(Client& c, TimeNs now) {
  const std::string& text = options_.requests[next_request_++ % options_.requests.size()];
  c.waiting = true;
  if (options_.http2) {
    std::string frame = c.stream == 0 ? http2::client_hello() : std::string();
    c.stream = c.stream == 0 ? 1 : c.stream + 2;
    http2::put_frame(frame, http2::kHeaders, http2::kEndHeaders | http2::kEndStream, c.stream, text);
    return send(c.flow, kTcpPsh | kTcpAck, frame, now);
  }
  if (c.session == nullptr) return send(c.flow, kTcpPsh | kTcpAck, text, now);
  c.plain_in.append_copy(text, wire_.pool);
  const tls::Progress p = c.session->send({c.cipher_in, c.cipher_out, wire_.pool, 256 * 1024}, c.plain_in, UINT64_MAX, now);
  if (p.error != tls::TlsError::kNone) errors.add("TLS of a client failed while sending");
  send_cipher(c, now);
}

bool TemplateClients::pull_tls(Client& c, TimeNs now) {
  const tls::Progress p = c.session->receive({c.cipher_in, c.cipher_out, wire_.pool, 256 * 1024}, c.plain_out, UINT64_MAX);
  if (p.error != tls::TlsError::kNone) errors.add("TLS of a client failed");
  send_cipher(c, now);
  if (p.handshake_done) request(c, now);
  bool complete = false;
  for (io::PacketPtr packet = c.plain_out.pop(); packet; packet = c.plain_out.pop())
    complete |= on_bytes(c, base::as_chars(packet.bytes()));
  return complete;
}

void TemplateClients::send_cipher(Client& c, TimeNs now) {
  char bytes[kMss];
  while (!c.cipher_out.empty()) {
    const size_t n = c.cipher_out.peek(0, reinterpret_cast<uint8_t*>(bytes), kMss - wire::kTcpTimestampsLength);
    c.cipher_out.consume(n);
    send(c.flow, kTcpPsh | kTcpAck, {bytes, n}, now);
  }
}

bool TemplateClients::on_frames(Client& c, std::string_view bytes) {
  bool complete = false;
  c.head.append(bytes);
  http2::for_frames(c.head, [&](uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
    if (type == http2::kReset || type == http2::kGoAway) return errors.add("the worker ended a stream or its connection");
    if (type != http2::kHeaders && type != http2::kData) return;
    if (!c.waiting || stream != c.stream) return errors.add("a frame of a stream that is not open");
    if (type == http2::kHeaders) {
      c.body_done = 0;
      if (payload.empty() || payload[0] != '\x88') errors.add("not the answer expected");
      return;
    }
    if (payload.size() > options_.body_bytes - c.body_done ||
        payload != body_text(options_.body_bytes).substr(c.body_done, payload.size()))
      return errors.add("the body of an answer is wrong");
    c.body_done += payload.size();
    if ((flags & http2::kEndStream) == 0) return;
    if (c.body_done != options_.body_bytes) return errors.add("the body of an answer is short");
    c.waiting = false;
    complete = true;
    ++answered_;
  });
  return complete;
}

bool TemplateClients::on_bytes(Client& c, std::string_view bytes) {
  if (options_.http2) return on_frames(c, bytes);
  if (!c.waiting) {
    errors.add("bytes that no request asked for");
    return false;
  }
  if (!c.in_body) {
    const size_t before = c.head.size();
    c.head.append(bytes);
    const size_t end = c.head.find("\r\n\r\n", before > 3 ? before - 3 : 0);
    if (end == std::string::npos) return false;
    constexpr std::string_view kName = "content-length: ";
    const size_t at = c.head.find(kName);
    uint64_t length = 0;
    if (at != std::string::npos) std::from_chars(c.head.data() + at + kName.size(), c.head.data() + end, length);
    if (!c.head.starts_with("HTTP/1.1 200 ") || length != options_.body_bytes) {
      errors.add("not the answer expected: " + c.head.substr(0, end));
      return false;
    }
    bytes.remove_prefix(end + 4 - before);
    c.head.clear();
    c.in_body = true;
    c.body_done = 0;
  }
  if (bytes.size() > options_.body_bytes - c.body_done ||
      bytes != body_text(options_.body_bytes).substr(c.body_done, bytes.size())) {
    errors.add("the body of an answer is wrong");
    return false;
  }
  c.body_done += bytes.size();
  if (c.body_done < options_.body_bytes) return false;
  c.in_body = c.waiting = false;
  ++answered_;
  return true;
}

// ---- servers ------------------------------------------------------------------------------------------------------------------

TemplateServers::TemplateServers(const PeerWire& wire, const ServerOptions& options) : TemplateHost(wire), options_(options) {
  block_ = "\x88";
  http2::put_field(block_, "server", "nginx/1.22.1");
  http2::put_field(block_, "date", "Mon, 23 Nov 2026 06:00:00 GMT");
  http2::put_field(block_, "content-type", "text/plain");
  http2::put_field(block_, "content-length", std::to_string(options.body_bytes));
  response_ =
      "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 06:00:00 GMT\r\nContent-Type: text/plain\r\n"
      "Content-Length: " +
      std::to_string(options.body_bytes) + "\r\nConnection: keep-alive\r\n\r\n";
  response_ += body_text(options.body_bytes);
}

void TemplateServers::on_frames(Server& c) {
  if (!c.greeted) {
    constexpr size_t kPreface = 24;
    if (c.head.size() < kPreface) return;
    c.head.erase(0, kPreface);
    c.greeted = true;
    http2::put_frame(c.out, http2::kSettings, 0, 0, {});
  }
  http2::for_frames(c.head, [&](uint8_t type, uint8_t flags, uint32_t stream, std::string_view) {
    if (type == http2::kReset || type == http2::kGoAway) return errors.add("the worker gave a stream or the connection up");
    if (type != http2::kHeaders) return;
    if ((flags & http2::kEndStream) == 0) return errors.add("a request with a body");
    http2::put_frame(c.out, http2::kHeaders, http2::kEndHeaders, stream, block_);
    http2::put_frame(c.out, http2::kData, http2::kEndStream, stream, body_text(options_.body_bytes));
    ++requests_;
  });
  c.to_send = c.out.size();
}

void TemplateServers::receive(TimeNs now) {
  Segment s;
  while (next(s)) {
    const uint64_t key = uint64_t{s.dst.v4_host_order()} << 16 | s.tcp.src_port;
    std::unique_ptr<Server>& slot = by_tuple_[key];
    if (s.tcp.syn()) {
      slot = std::make_unique<Server>();
      Flow& f = slot->flow;
      f.local = s.dst;
      f.remote = s.src;
      f.local_port = s.tcp.dst_port;
      f.remote_port = s.tcp.src_port;
      f.snd_nxt = static_cast<uint32_t>(++connections_ * 0x85ebca6bu);
      accept(f, s);
      send(f, kTcpSyn | kTcpAck, {}, now);
      f.snd_wnd = 0;  // until the handshake's ACK says it with its scale
    } else if (slot == nullptr) {
      errors.add("a segment for a server's connection that is not there");
    } else if (accept(slot->flow, s)) {
      for_payload(s, [&](std::string_view bytes) { slot->head.append(bytes); });
      if (options_.http2) on_frames(*slot);
      for (size_t end = options_.http2 ? std::string::npos : slot->head.find("\r\n\r\n"); end != std::string::npos;
           end = slot->head.find("\r\n\r\n")) {
        slot->head.erase(0, end + 4);
        slot->to_send += response_.size();
        ++requests_;
      }
      if (s.tcp.fin()) {
        send(slot->flow, kTcpFin | kTcpAck, {}, now);
      } else if (slot->to_send > 0 && !slot->queued) {
        slot->queued = true;
        sending_.push_back(slot.get());
      }
    }
    rte_pktmbuf_free(s.frame);
  }
}

void TemplateServers::pump(TimeNs now) {
  const uint32_t overhead = wire_.timestamps ? wire::kTcpTimestampsLength : 0;
  for (size_t n = sending_.size(); n > 0 && wire_.port.rx.size() < kQueueLimit; --n) {
    Server& c = *sending_.front();
    sending_.pop_front();
    // A connection at a time as far as its window goes, as a driver delivers trains of segments.
    while (c.to_send > 0 && wire_.port.rx.size() < kQueueLimit) {
      // Of the response that is being sent; HTTP/2: of all.
      const uint64_t left = options_.http2 ? c.to_send : (c.to_send - 1) % response_.size() + 1;
      const uint64_t take = std::min<uint64_t>({left, kMss - overhead, c.flow.room()});
      if (take == 0) break;
      const uint8_t psh = take == left ? kTcpPsh : 0;
      const std::string_view text = options_.http2 ? c.out : response_;
      send(c.flow, psh | kTcpAck, text.substr(text.size() - left, take), now);
      c.to_send -= take;
    }
    c.out.erase(0, c.out.size() - (options_.http2 ? c.to_send : 0));
    c.queued = c.to_send > 0;
    if (c.queued) sending_.push_back(&c);
  }
}

}  // namespace millrace::bench
