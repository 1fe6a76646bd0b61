// The whole TcpStack on a port of memory: frames in, frames out, over IPv4 or IPv6, with a session layer of one connection.
#include <optional>

#include "tests/packet/subject.h"
#include "tests/unit/dataplane/stack_fixture.h"

namespace millrace::packet {
namespace {

using namespace dataplane;
using namespace dataplane::test;

constexpr uint32_t kTimersAtATime = 64;
constexpr TimeNs kLazyTimer = base::kMillisecond / 10;  // the wheel's deadlines are lower bounds: looked at so often at most

class StackSubject final : public Subject {
 public:
  explicit StackSubject(bool v6)
      : v6_(v6),
        ours_(ip(v6 ? "fd00:1::1" : "10.1.0.1")),
        peers_(ip(v6 ? "fd00:1::2" : "10.1.0.2")),
        port_(kOurMac),
        steering_(1, 7) {}

  std::string configure(const std::string& name, const std::string& value) override {
    uint64_t n = 0;
    if (configure_tcp(config_.downstream, name, value)) return "";
    if (!parse_number(value, n) || n > UINT16_MAX) return "no such name, or not a value of it";
    if (name == "max_half_open") config_.max_half_open = static_cast<uint32_t>(n);
    else if (name == "mtu") interface_.mtu = static_cast<uint16_t>(n);
    else return "no such name, or not a value of it";
    return "";
  }
  void start(TimeNs now) override {
    now_ = now;
    interface_.addresses = {{ours_, static_cast<uint8_t>(v6_ ? 64 : 24)}};
    interface_.neighbors = {{peers_, kPeerMac}};
    config_.ip.ports = {interface_};
    config_.ip.worker = 1;  // announces nothing
    config_.max_connections = 16;
    config_.max_time_wait = 16;
    config_.local_port_first = 40'000;
    config_.local_port_last = 40'063;
    config_.max_port_maps = 4;
    for (uint64_t i = 0; i < 4; ++i) config_.secret[i] = i + 1;
    io::PortQueue* queues[] = {&port_};
    stack_.emplace(config_, queues, steering_, nullptr, pool_.pool(), headers_.pool(), io::PacketPool(), counters_.view(), now);
  }

  std::string listen(uint32_t) override {
    const ListenerSet::Entry entries[] = {{ours_, 80, 11, false}};
    listeners_ = ListenerSet(entries);
    stack_->set_listeners(&listeners_);
    return "";
  }
  std::string connect(TimeNs now) override {
    now_ = now;
    ConnectError why;
    connection_ = stack_->connect(peers_, 8080, stack_->downstream_profile(), now, nullptr, &why);
    if (connection_ == nullptr) return to_string(why);
    our_port_ = connection_->tuple().local_port;
    peer_port_ = 8080;
    return "";
  }
  uint16_t our_port() const override { return our_port_; }
  uint16_t peer_port() const override { return peer_port_; }

  Reaction deliver(const millrace::packet::Bytes& segment, uint8_t ecn, TimeNs now) override {
    millrace::packet::Bytes tcp = segment;
    const auto sum =
        wire::pseudo_header(peers_, ours_, wire::kIpTcp, static_cast<uint32_t>(tcp.size())) + wire::checksum_sum(tcp);
    wire::store_checksum(tcp.data() + wire::kTcpChecksumOffset, wire::checksum_finish(sum));
    millrace::packet::Bytes packet = ip_packet(peers_, ours_, wire::kIpTcp, tcp);
    if (v6_) {
      packet[1] = static_cast<uint8_t>(packet[1] | ecn << 4);
    } else {
      packet[1] = ecn;
      packet[10] = packet[11] = 0;
      wire::store_checksum(packet.data() + 10, wire::checksum_finish(wire::checksum_sum({packet.data(), 20})));
    }
    return input(packet, now);
  }

  std::string icmp(uint32_t code, uint16_t mtu, uint32_t seq, TimeNs now, uint32_t& events) override {
    Segment quoted{ours_, peers_, {}, ""};
    quoted.header.src_port = our_port_;
    quoted.header.dst_port = peer_port_;
    quoted.header.seq = seq;
    quoted.header.flags = wire::kTcpAck;
    const millrace::packet::Bytes inner = ip_packet(ours_, peers_, wire::kIpTcp, tcp_bytes(quoted));
    wire::IcmpErrorRepr e;
    e.packet = inner;
    if (code != 0) {
      e.type = v6_ ? 1 : 3;
      e.code = static_cast<uint8_t>(code - 1);
    } else {
      e.type = v6_ ? 2 : 3;
      e.code = v6_ ? 0 : 4;
      e.parameter = mtu;
    }
    millrace::packet::Bytes body(v6_ ? e.length_v6() : e.length_v4());
    if (v6_) e.emit_v6(body.data(), peers_, ours_);
    else e.emit_v4(body.data());
    events |= input(ip_packet(peers_, ours_, v6_ ? wire::kIpIcmpv6 : wire::kIpIcmp, body), now).events;
    return "";
  }

  bool transmit(TimeNs now, millrace::packet::Bytes& segment, uint8_t& ecn) override {
    now_ = now;
    stack_->flush(now);
    for (;;) {
      const millrace::packet::Bytes frame = port_.pop_sent_bytes();
      if (frame.empty()) return false;
      const std::optional<Seen> seen = parse_tcp(frame);  // checks the sums
      if (!seen) continue;
      const size_t l3 = seen->ethernet.payload_offset;
      ecn = v6_ ? frame[l3 + 1] >> 4 & 3 : frame[l3 + 1] & 3;
      const size_t l4 = l3 + (v6_ ? 40 : 20);
      segment.assign(frame.begin() + static_cast<long>(l4),
                     frame.begin() + static_cast<long>(l4 + seen->tcp.payload_offset + seen->tcp.payload_length));
      return true;
    }
  }
  TimeNs next_deadline() override {
    const TimeNs at = stack_->next_deadline();
    return at == base::kNever ? at : std::max(at, timers_ran_ + kLazyTimer);
  }
  uint32_t on_deadline(TimeNs now) override {
    now_ = timers_ran_ = now;
    while (stack_->run_timers(now, kTimersAtATime) != 0) {
    }
    stack_->flush(now);
    return gather();
  }

  uint64_t write(uint64_t n, TimeNs) override {
    if (connection_ == nullptr) return 0;
    millrace::packet::Bytes b(n);
    for (uint64_t i = 0; i < n; ++i) b[i] = pattern(written_ + i);
    const uint64_t taken = tcp::send_copy(connection_->tcb, b, stack_->pool());
    written_ += taken;
    stack_->touch(*connection_);
    return taken;
  }
  std::string read(uint64_t n, TimeNs now) override {
    if (connection_ == nullptr) return "there is no connection";
    io::PacketQueue& rx = tcp::rx_queue(connection_->tcb);
    if (rx.bytes() < n) return std::to_string(rx.bytes()) + " bytes are there to read";
    millrace::packet::Bytes b(n);
    rx.peek(0, b.data(), b.size());
    for (uint64_t i = 0; i < n; ++i)
      if (b[i] != pattern(read_ + i)) return "byte " + std::to_string(read_ + i) + " is not what was sent";
    read_ += n;
    rx.consume(static_cast<uint32_t>(n));
    tcp::window_update(connection_->tcb, now);
    stack_->touch(*connection_);
    return "";
  }
  std::string eof() override {
    if (connection_ == nullptr) return "there is no connection";
    if (!tcp::rx_queue(connection_->tcb).empty()) return "there is more to read";
    return (connection_->tcb.flags & tcp::kFlagPeerFinDone) != 0 ? "" : "the peer has not sent its FIN";
  }
  void shutdown(TimeNs now) override {
    if (connection_ == nullptr) return;
    tcp::close(connection_->tcb, now);
    stack_->touch(*connection_);
  }
  void close(TimeNs now) override {
    if (connection_ != nullptr) stack_->detach(*std::exchange(connection_, nullptr), now);
  }
  void abort(TimeNs now) override {
    if (connection_ != nullptr) stack_->abort(*std::exchange(connection_, nullptr), now);
  }
  void pressure(bool) override {}
  void limit_pool(uint32_t more) override { pool_.set_limit(more == UINT32_MAX ? pool_.capacity() : pool_.in_use() + more); }

  const tcp::Tcb* tcb() const override {
    const tcp::Tcb* found = connection_ == nullptr ? nullptr : &connection_->tcb;
    if (found == nullptr) stack_->for_each_connection([&](const Connection& c) { found = &c.tcb; });
    return found;
  }
  std::optional<uint64_t> query(const std::string& name) const override {
    if (name == "packets") return pool_.in_use();
    if (name == "connections") return stack_->active_connections();
    if (name == "time_wait") return stack_->time_wait_entries();
    return std::nullopt;
  }
  std::string finish() override {
    stack_.reset();
    port_.clear();
    return pool_.balanced() && headers_.balanced() ? "" : "packets are not returned";
  }

 private:
  Reaction input(const millrace::packet::Bytes& packet, TimeNs now) {
    now_ = now;
    uint64_t before[stats::kDropReasonCount];
    for (uint32_t i = 0; i < stats::kDropReasonCount; ++i) before[i] = counters_.drops[i].read();
    port_.deliver(pool_.make(ethernet_frame(kOurMac, kPeerMac, v6_ ? wire::kEtherIpv6 : wire::kEtherIpv4, packet)));
    stack_->receive(now);
    stack_->flush(now);
    Reaction r{gather(), stats::DropReason::kNone};
    for (uint32_t i = 0; i < stats::kDropReasonCount; ++i)
      if (counters_.drops[i].read() != before[i]) r.drop = static_cast<stats::DropReason>(i);
    return r;
  }
  uint32_t gather() {
    uint32_t events = 0;
    while (Connection* c = stack_->pop_ready()) {
      if (connection_ == nullptr) {
        connection_ = c;
        read_ = written_ = 0;
      }
      events |= TcpStack::take_events(*c);
    }
    return events;
  }

  const bool v6_;
  const IpAddress ours_, peers_;
  support::HeapPacketPool pool_{512, kMostPayload}, headers_{512, 128};
  support::FakePort port_;
  io::Steering steering_;
  LocalCounters counters_;
  InterfaceConfig interface_;
  TcpStackConfig config_;
  ListenerSet listeners_;
  std::optional<TcpStack> stack_;
  Connection* connection_ = nullptr;  // of the session layer
  uint16_t our_port_ = 80, peer_port_ = 40'000;
  TimeNs now_ = 0, timers_ran_ = 0;
  uint64_t written_ = 0, read_ = 0;
};

}  // namespace

std::unique_ptr<Subject> make_stack_subject(bool v6) { return std::make_unique<StackSubject>(v6); }

}  // namespace millrace::packet
