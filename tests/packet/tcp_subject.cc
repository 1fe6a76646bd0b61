// lib/tcp alone: a Listener, a TCB and what is left of it in TIME-WAIT, as an owner would hold them.
#include <charconv>
#include <deque>

#include "lib/tcp/listener.h"
#include "lib/tcp/tcb.h"
#include "lib/tcp/time_wait.h"
#include "tests/packet/subject.h"
#include "tests/support/heap_packet_pool.h"

namespace millrace::packet {

bool parse_number(const std::string& text, uint64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

bool configure_tcp(tcp::Config& c, const std::string& name, const std::string& value) {
  if (name == "congestion") {
    if (value == "cubic") c.congestion = tcp::CongestionAlgorithm::kCubic;
    else if (value == "reno") c.congestion = tcp::CongestionAlgorithm::kReno;
    else if (value == "bbr") c.congestion = tcp::CongestionAlgorithm::kBbr;
    else return false;
    return true;
  }
  if (name == "ecn") {
    if (value == "off") c.ecn = tcp::EcnMode::kOff;
    else if (value == "accept") c.ecn = tcp::EcnMode::kAccept;
    else if (value == "request") c.ecn = tcp::EcnMode::kRequest;
    else return false;
    return true;
  }
  uint64_t n = 0;
  if (!parse_number(value, n)) return false;
  const struct {
    const char* name;
    bool* flag;
  } flags[] = {{"sack", &c.sack},
               {"timestamps", &c.timestamps},
               {"window_scaling", &c.window_scaling},
               {"delayed_ack", &c.delayed_ack},
               {"nodelay", &c.nodelay}};
  for (const auto& f : flags)
    if (name == f.name) return n <= 1 && (*f.flag = n != 0, true);
  const struct {
    const char* name;
    uint32_t* number;
  } numbers[] = {{"rcv_buf", &c.rcv_buf}, {"rcv_wnd_initial", &c.rcv_wnd_initial}, {"snd_buf", &c.snd_buf}};
  for (const auto& f : numbers)
    if (name == f.name) return n <= UINT32_MAX && (*f.number = static_cast<uint32_t>(n), true);
  const struct {
    const char* name;
    TimeNs* time;
  } times[] = {{"delayed_ack_ms", &c.delayed_ack_ns},         {"rto_min_ms", &c.rto_min_ns},
               {"rto_initial_ms", &c.rto_initial_ns},         {"rto_max_ms", &c.rto_max_ns},
               {"connect_timeout_ms", &c.connect_timeout_ns}, {"user_timeout_ms", &c.user_timeout_ns},
               {"keepalive_idle_ms", &c.keepalive_idle_ns},   {"keepalive_interval_ms", &c.keepalive_interval_ns},
               {"fin_wait_2_ms", &c.fin_wait_2_ns},           {"time_wait_ms", &c.time_wait_ns}};
  for (const auto& f : times)
    if (name == f.name) return n <= 1'000'000'000 && (*f.time = n * base::kMillisecond, true);
  if (name == "mss") return n <= UINT16_MAX && (c.mss = static_cast<uint16_t>(n), true);
  if (name == "fast_open_queue") return n <= UINT16_MAX && (c.fast_open_queue = static_cast<uint16_t>(n), true);
  if (name == "keepalive_probes") return n <= UINT8_MAX && (c.keepalive_probes = static_cast<uint8_t>(n), true);
  return false;
}

namespace {

using stats::DropReason;

class TcpSubject final : public Subject {
 public:
  std::string configure(const std::string& name, const std::string& value) override {
    uint64_t n = 0;
    if (configure_tcp(config_, name, value)) return "";
    if (name == "iss" || name == "repairs" || name == "compact_time_wait" || name == "draining" || name == "ipv6") {
      if (!parse_number(value, n) || n > UINT32_MAX) return "a number";
      if (name == "iss") iss_ = static_cast<uint32_t>(n);
      else if (name == "repairs") repair_count_ = static_cast<uint32_t>(std::min<uint64_t>(n, 64));
      else if (name == "compact_time_wait") compact_ = n != 0;
      else if (name == "ipv6") ipv6_ = n != 0;
      else draining_ = n != 0;
      return "";
    }
    return "no such name, or not a value of it";
  }
  void start(TimeNs) override {
    if (repair_count_ != 0) repairs_.emplace(repair_count_);
    profile_ = {config_, repairs_ ? &*repairs_ : nullptr};
  }

  std::string listen(uint32_t backlog) override {
    if (listener_) return "a listener is there";
    listener_.emplace(config_, backlog, base::HashKey{0x0706050403020100, 0x0f0e0d0c0b0a0908});
    if (draining_) listener_->drain();
    return "";
  }
  std::string connect(TimeNs now) override {
    if (!gone()) return "a connection is there";
    tcp::release(t_);
    entry_.reset();
    read_ = written_ = 0;
    tcp::open_active(t_, tuple(), profile_, iss_, now, kTsOffset);
    return "";
  }
  uint16_t our_port() const override { return 80; }
  uint16_t peer_port() const override { return 40'000; }

  Reaction deliver(const Bytes& segment, uint8_t ecn, TimeNs now) override {
    wire::TcpView v;
    marked_ = ecn == kCongestionExperienced;
    switch (wire::TcpView::parse(segment, v)) {
      case wire::ParseError::kNone:
        break;
      case wire::ParseError::kBadFlags:
        return {0, DropReason::kTcpBadFlags};
      default:
        return {0, DropReason::kTcpTruncated};
    }
    if (entry_) return deliver_to_entry(v, segment, now);
    if (gone()) return deliver_to_listener(v, segment, now);
    return deliver_to_tcb(v, segment, now);
  }

  std::string icmp(uint32_t code, uint16_t mtu, uint32_t seq, TimeNs now, uint32_t&) override {
    if (code != 0) return "only too_big without the IP layer";
    tcp::on_path_mtu(t_, mtu, seq, now);
    return "";
  }

  bool transmit(TimeNs now, Bytes& out, uint8_t& ecn) override {
    ecn = 0;
    wire::TcpRepr header;
    Bytes payload;
    if (!replies_.empty()) {
      header = replies_.front();
      replies_.pop_front();
    } else {
      tcp::OutSegment o;
      if (t_.profile == nullptr || !tcp::poll_output(t_, now, o)) {
        compact(now);
        return false;
      }
      header = o.header;
      if (o.ecn_capable) ecn = kEct0;
      payload.resize(o.payload_len);
      t_.tx.peek(o.payload_offset, payload.data(), payload.size());
    }
    out.assign(wire::kTcpMaxHeader, 0);
    out.resize(header.emit(out.data()));
    out.insert(out.end(), payload.begin(), payload.end());
    return true;
  }
  TimeNs next_deadline() override {
    if (entry_) return entry_->expires_at;
    return gone() ? base::kNever : tcp::next_deadline(t_);
  }
  uint32_t on_deadline(TimeNs now) override {
    if (entry_) {
      entry_.reset();
      return tcp::kEventClosed;
    }
    return note(tcp::on_deadline(t_, now));
  }

  uint64_t write(uint64_t n, TimeNs) override {
    Bytes b(n);
    for (uint64_t i = 0; i < n; ++i) b[i] = pattern(written_ + i);
    const uint64_t taken = tcp::state(t_) == tcp::State::kClosed ? 0 : tcp::send_copy(t_, b, pool_);
    written_ += taken;
    return taken;
  }
  std::string read(uint64_t n, TimeNs now) override {
    if (t_.rx.bytes() < n) return std::to_string(t_.rx.bytes()) + " bytes are there to read";
    while (n > 0) {
      const auto bytes = t_.rx.front();
      const size_t take = std::min<size_t>(bytes.size(), n);
      for (size_t i = 0; i < take; ++i)
        if (bytes[i] != pattern(read_ + i)) return "byte " + std::to_string(read_ + i) + " is not what was sent";
      t_.rx.consume(static_cast<uint32_t>(take));
      read_ += take;
      n -= take;
    }
    if (tcp::state(t_) != tcp::State::kClosed) tcp::window_update(t_, now, !pressure_);
    return "";
  }
  std::string eof() override {
    if (!t_.rx.empty()) return std::to_string(t_.rx.bytes()) + " bytes are still to be read";
    return (t_.flags & tcp::kFlagPeerFinDone) != 0 ? "" : "the peer has not sent its FIN";
  }
  void shutdown(TimeNs now) override { tcp::close(t_, now); }
  void close(TimeNs now) override {
    tcp::close(t_, now);
    if (t_.profile != nullptr) tcp::set_orphan(t_, now);
    note(0);
  }
  void abort(TimeNs now) override {
    tcp::abort(t_, now);
    note(0);
  }
  void pressure(bool on) override { pressure_ = on; }
  void limit_pool(uint32_t more) override { pool_.set_limit(more == UINT32_MAX ? pool_.capacity() : pool_.in_use() + more); }

  const tcp::Tcb* tcb() const override { return t_.profile == nullptr ? nullptr : &t_; }
  std::optional<uint64_t> query(const std::string& name) const override {
    if (name == "half_open" && listener_) return listener_->half_open();
    if (name == "fast_opens" && listener_) return listener_->fast_opens();
    if (name == "packets") return pool_.in_use();
    if (name == "time_wait") return entry_.has_value();
    const struct {
      const char* name;
      uint64_t tcp::RecoveryCounts::*count;
    } counts[] = {{"reno_recoveries", &tcp::RecoveryCounts::reno_recoveries},
                  {"loss_probes", &tcp::RecoveryCounts::loss_probes},
                  {"probes_repaired", &tcp::RecoveryCounts::probes_repaired},
                  {"duplicates_below", &tcp::RecoveryCounts::duplicates_below},
                  {"duplicates_above", &tcp::RecoveryCounts::duplicates_above},
                  {"reported_below", &tcp::RecoveryCounts::reported_below},
                  {"reported_above", &tcp::RecoveryCounts::reported_above},
                  {"spurious_timeouts", &tcp::RecoveryCounts::spurious_timeouts},
                  {"undone_by_duplicates", &tcp::RecoveryCounts::undone_by_duplicates},
                  {"undone_by_echoes", &tcp::RecoveryCounts::undone_by_echoes},
                  {"undone_timeouts", &tcp::RecoveryCounts::undone_timeouts},
                  {"reorderings", &tcp::RecoveryCounts::reorderings},
                  {"lost_again", &tcp::RecoveryCounts::lost_again},
                  {"reneged", &tcp::RecoveryCounts::reneged},
                  {"larger_segments", &tcp::RecoveryCounts::larger_segments},
                  {"larger_lost", &tcp::RecoveryCounts::larger_lost},
                  {"delay_exits", &tcp::RecoveryCounts::delay_exits}};
    for (const auto& c : counts)
      if (repairs_ && name == c.name) return repairs_->counts().*c.count;
    return std::nullopt;
  }

  std::string finish() override {
    if (std::exchange(fast_open_, false)) listener_->fast_open_ended(false);
    if (std::exchange(half_open_, false)) listener_->half_open_ended();
    tcp::release(t_);
    if (!pool_.balanced()) return std::to_string(pool_.in_use()) + " packets are not returned";
    if (repairs_ && repairs_->in_use() != 0) return "what was borrowed for repair is not returned";
    if (listener_ && listener_->half_open() != 0) return "half-open connections are not accounted for";
    return "";
  }

 private:
  static constexpr uint8_t kEct0 = 2, kCongestionExperienced = 3;  // RFC 3168 5
  static constexpr uint32_t kTsOffset = 0xfffe5000;                // 100 s later, timestamps are close below where they go round

  tcp::FourTuple tuple() const {
    const auto addresses = ipv6_ ? std::pair(*base::IpAddress::parse("fd00::1"), *base::IpAddress::parse("fd00::2"))
                                 : std::pair(base::IpAddress::v4(0x0a000001), base::IpAddress::v4(0x0a000002));
    return {addresses.first, addresses.second, 80, 40'000};
  }
  bool gone() const { return t_.profile == nullptr || tcp::state(t_) == tcp::State::kClosed; }

  io::PacketPtr payload_of(const wire::TcpView& v, const Bytes& segment) {
    return v.payload_length == 0 ? io::PacketPtr() : pool_.make(base::ByteSpan(segment).subspan(v.payload_offset));
  }

  uint32_t note(uint32_t events) {
    if (half_open_ && tcp::state(t_) != tcp::State::kSynReceived) {
      half_open_ = false;
      listener_->half_open_ended();
      if (std::exchange(fast_open_, false)) listener_->fast_open_ended((events & tcp::kEventReset) != 0);
    }
    return events;
  }
  void compact(TimeNs now) {
    if (!compact_ || t_.profile == nullptr || tcp::state(t_) != tcp::State::kTimeWait) return;
    entry_ = tcp::make_time_wait(t_, now);
    tcp::release(t_);
  }

  Reaction deliver_to_tcb(const wire::TcpView& v, const Bytes& segment, TimeNs now) {
    const tcp::InputResult r = tcp::input(t_, v, payload_of(v, segment), now, marked_);
    note(r.events);
    if ((r.events & tcp::kEventReopen) == 0) return {r.events, r.drop};
    Reaction again = deliver_to_listener(v, segment, now);
    again.events |= r.events;
    return again;
  }
  Reaction deliver_to_entry(const wire::TcpView& v, const Bytes& segment, TimeNs now) {
    wire::TcpRepr reply;
    const tcp::TimeWaitResult r = tcp::time_wait_input(*entry_, v, now, reply);
    switch (r.verdict) {
      case tcp::TimeWaitVerdict::kIgnore:
        break;
      case tcp::TimeWaitVerdict::kReply:
        replies_.push_back(reply);
        break;
      case tcp::TimeWaitVerdict::kReopen: {
        const tcp::TimeWaitEntry before = *entry_;
        entry_.reset();
        Reaction again = deliver_to_listener(v, segment, now, &before);
        again.events |= tcp::kEventReopen;
        return again;
      }
    }
    return {0, r.drop};
  }
  Reaction open(const tcp::ListenerDecision& d, const wire::TcpView& v, const Bytes& segment, uint32_t iss, TimeNs now) {
    Reaction r;
    fast_open_ = d.accepts_data();
    if (fast_open_) r.events = tcp::open_fast(t_, tuple(), profile_, v, payload_of(v, segment), iss, now, kTsOffset);
    else tcp::open_passive(t_, tuple(), profile_, v, iss, now, kTsOffset);
    tcp::OutSegment o;
    if (d.gives_cookie() && tcp::poll_output(t_, now, o)) {
      cookie_ = listener_->fast_open_cookies().make(tuple(), now);
      o.header.fast_open = &cookie_;
      replies_.push_back(o.header);
    }
    return r;
  }
  Reaction deliver_to_listener(const wire::TcpView& v, const Bytes& segment, TimeNs now,
                               const tcp::TimeWaitEntry* before = nullptr) {
    if (!listener_) {
      wire::TcpRepr rst;
      if (tcp::make_reset(v, rst)) replies_.push_back(rst);
      return {0, v.syn() && !v.has_ack() ? DropReason::kTcpNoListener : DropReason::kTcpNoConnection};
    }
    const tcp::ListenerDecision d = listener_->input(tuple(), v, now);
    using Action = tcp::ListenerDecision::Action;
    switch (d.action) {
      case Action::kIgnore:
        break;
      case Action::kReply:
      case Action::kCookie:
        replies_.push_back(d.reply);
        break;
      case Action::kOpen:
        tcp::release(t_);
        read_ = written_ = 0;
        half_open_ = true;
        return open(d, v, segment, before == nullptr ? iss_ : tcp::next_isn(*before, iss_), now);
      case Action::kAcceptCookie: {
        tcp::release(t_);
        read_ = written_ = 0;
        tcp::open_cookie(t_, tuple(), profile_, v, d.cookie, now, d.ts_offset);
        Reaction r = deliver_to_tcb(v, segment, now);
        r.events |= tcp::kEventConnected;
        return r;
      }
    }
    return {0, d.drop};
  }

  support::HeapPacketPool pool_{512, kMostPayload};  // first, so that it is checked last
  std::optional<tcp::RepairPool> repairs_;
  tcp::Config config_;
  tcp::Profile profile_;
  std::optional<tcp::Listener> listener_;
  tcp::Tcb t_;
  std::optional<tcp::TimeWaitEntry> entry_;
  std::deque<wire::TcpRepr> replies_;
  wire::TcpCookie cookie_;
  bool fast_open_ = false;
  uint32_t iss_ = 0xffffff00, repair_count_ = 8;
  bool compact_ = false, draining_ = false, ipv6_ = false, pressure_ = false, half_open_ = false, marked_ = false;
  uint64_t written_ = 0, read_ = 0;
};

}  // namespace

std::unique_ptr<Subject> make_tcp_subject() { return std::make_unique<TcpSubject>(); }

}  // namespace millrace::packet
