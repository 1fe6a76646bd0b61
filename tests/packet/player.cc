#include "tests/packet/player.h"

#include <deque>

#include "lib/base/bytes.h"
#include "lib/tcp/seq.h"
#include "lib/tcp/tcb.h"
#include "lib/tcp/tcb_ops.h"
#include "lib/wire/tcp.h"

namespace millrace::packet {
namespace {

constexpr TimeNs kStart = 100 * base::kSecond;  // of script time: 0.000
constexpr uint32_t kIrs = 0xfffffe00;           // the peer's first sequence number, close below where numbers go round
constexpr TimeNs kTolerance = base::kMillisecond;
constexpr TimeNs kAnyTime = 3'600 * base::kSecond;  // how long `*` waits
constexpr uint32_t kEndlessOutput = 10'000;         // segments at one time

struct Came {
  TimeNs at = 0;
  Bytes bytes;
  uint8_t ecn = 0;
};

const char* const kEventNames[] = {"connected", "readable", "send-space", "peer-fin", "reset",
                                   "timed-out", "closed",   "time-wait",  "reopen"};

class Player {
 public:
  Player(const Script& script, Subject& subject) : script_(script), subject_(subject) {}

  std::string play(const std::string& name) {
    for (const auto& [key, value] : script_.config)
      if (std::string why = configure(key, value); !why.empty()) return name + ": config " + key + "=" + value + ": " + why;
    subject_.start(now_);
    for (const Event& e : script_.events) {
      std::string why = step(e);
      if (!why.empty()) return name + ":" + std::to_string(e.line) + ": " + why;
    }
    if (!came_.empty()) return name + ": at the end, unexpected " + show(came_.front());
    std::string why = subject_.finish();
    return why.empty() ? "" : name + ": at the end, " + why;
  }

 private:
  std::string configure(const std::string& key, const std::string& value) {
    uint64_t n = 0;
    if (key == "tolerance_ms" || key == "irs") {
      if (!parse_number(value, n)) return "a number";
      if (key == "irs") irs_ = static_cast<uint32_t>(n);
      else tolerance_ = n * base::kMillisecond;
      return "";
    }
    return subject_.configure(key, value);
  }

  // --- time

  void pump() {
    Came c;
    for (uint32_t i = 0; i < kEndlessOutput && subject_.transmit(now_, c.bytes, c.ecn); ++i) {
      c.at = now_;
      came_.push_back(std::move(c));
      c = Came();
    }
    learn();
  }
  // Up to `until`; with `stop_at_output`, only until something was sent.
  void advance(TimeNs until, bool stop_at_output = false) {
    for (uint32_t i = 0; i < 1'000'000; ++i) {
      if (stop_at_output && !came_.empty()) return;
      const TimeNs at = subject_.next_deadline();
      if (at > until) break;
      now_ = std::max(now_, at);
      events_ |= subject_.on_deadline(now_);
      pump();
    }
    now_ = std::max(now_, until);
  }
  TimeNs begin(const When& w) const { return (w.base == When::Base::kStart ? kStart : previous_) + w.from; }
  TimeNs end(const When& w) const {
    if (w.base == When::Base::kAnyTime) return previous_ + kAnyTime;
    return (w.base == When::Base::kStart ? kStart : previous_) + w.to;
  }

  // --- numbers: the script's and the wire's

  // Our first sequence number and the zero of our timestamps are what our SYN says.
  void learn() {
    for (size_t i = learnt_; i < came_.size(); ++i) {
      const Bytes& b = came_[i].bytes;
      if ((b[13] & wire::kTcpSyn) != 0) iss_ = base::load_be32(b.data() + 4);
      for (const Option& o : decode_options(b))
        if (o.kind == Option::Kind::kTimestamps) {
          if (!timestamps_known_) ts_zero_ = o.value - static_cast<uint32_t>((came_[i].at - kStart) / base::kMillisecond);
          timestamps_known_ = true;
          last_ts_ = o.value;
        } else if (o.kind == Option::Kind::kFastOpen) {
          last_cookie_ = o.bytes;
        }
    }
    learnt_ = came_.size();
  }

  // The options as they are on the wire, numbers raw.
  static std::vector<Option> decode_options(const Bytes& b) {
    std::vector<Option> out;
    const size_t end = std::min<size_t>((b[12] >> 4) * 4u, b.size());
    for (size_t at = 20; at < end;) {
      Option o;
      const uint8_t kind = b[at];
      if (kind <= 1) {
        o.kind = kind == 0 ? Option::Kind::kEnd : Option::Kind::kNop;
        out.push_back(o);
        ++at;
        continue;
      }
      const size_t length = at + 1 < end ? b[at + 1] : 0;
      if (length < 2 || at + length > end) {
        o.kind = Option::Kind::kHex;
        o.bytes.assign(b.begin() + static_cast<long>(at), b.begin() + static_cast<long>(end));
        out.push_back(o);
        return out;
      }
      const uint8_t* p = b.data() + at + 2;
      if (kind == 2 && length == 4) {
        o.kind = Option::Kind::kMss;
        o.value = base::load_be16(p);
      } else if (kind == 3 && length == 3) {
        o.kind = Option::Kind::kWindowScale;
        o.value = *p;
      } else if (kind == 4 && length == 2) {
        o.kind = Option::Kind::kSackPermitted;
      } else if (kind == 5 && (length - 2) % 8 == 0) {
        o.kind = Option::Kind::kSack;
        for (size_t i = 0; i + 4 <= length - 2; i += 4) o.edges.push_back(base::load_be32(p + i));
      } else if (kind == 8 && length == 10) {
        o.kind = Option::Kind::kTimestamps;
        o.value = base::load_be32(p);
        o.echo = base::load_be32(p + 4);
      } else if (kind == 34) {
        o.kind = Option::Kind::kFastOpen;
        o.bytes.assign(p, p + length - 2);
      } else {
        o.kind = Option::Kind::kHex;
        o.bytes.assign(p - 2, p + length - 2);
      }
      out.push_back(std::move(o));
      at += length;
    }
    return out;
  }

  // What we sent, as the script would write it.
  Segment translate(const Came& c) const {
    const Bytes& b = c.bytes;
    Segment s;
    if (c.ecn != 0) s.ecn = c.ecn;
    s.flags = b[13];
    s.seq = base::load_be32(b.data() + 4) - iss_;
    s.length = static_cast<uint32_t>(b.size()) - (b[12] >> 4) * 4u;
    if ((s.flags & wire::kTcpAck) != 0) s.ack = base::load_be32(b.data() + 8) - irs_;
    s.window = base::load_be16(b.data() + 14);
    if ((s.flags & wire::kTcpUrg) != 0) s.urgent = base::load_be16(b.data() + 18);
    s.options = decode_options(b);
    for (Option& o : s.options) {
      if (o.kind == Option::Kind::kTimestamps) o.value -= ts_zero_;
      for (uint32_t& edge : o.edges) edge -= irs_;
    }
    return s;
  }
  std::string show(const Came& c) const { return format_time(c.at - kStart) + " > " + format_segment(translate(c)); }

  Bytes encode(const Segment& s) {
    Bytes b(20);
    base::store_be16(b.data(), subject_.peer_port());
    base::store_be16(b.data() + 2, subject_.our_port());
    base::store_be32(b.data() + 4, s.seq + irs_);
    if (s.ack) base::store_be32(b.data() + 8, *s.ack + iss_);
    b[13] = s.flags;
    if (s.window) window_ = *s.window;
    base::store_be16(b.data() + 14, window_);
    base::store_be16(b.data() + 18, s.urgent.value_or(0));
    const auto put8 = [&b](uint32_t v) { b.push_back(static_cast<uint8_t>(v)); };
    const auto put32 = [&](uint32_t v) {
      for (int shift = 24; shift >= 0; shift -= 8) put8(v >> shift);
    };
    for (const Option& o : s.options) {
      switch (o.kind) {
        case Option::Kind::kMss:
          put8(2), put8(4), put8(o.value >> 8), put8(o.value);
          break;
        case Option::Kind::kSackPermitted:
          put8(4), put8(2);
          break;
        case Option::Kind::kTimestamps:
          put8(8), put8(10), put32(o.value);
          put32(o.echo_last ? last_ts_ : s.ack && timestamps_known_ ? o.echo + ts_zero_ : o.echo);
          break;
        case Option::Kind::kNop:
          put8(1);
          break;
        case Option::Kind::kEnd:
          put8(0);
          break;
        case Option::Kind::kWindowScale:
          put8(3), put8(3), put8(o.value);
          break;
        case Option::Kind::kSack:
          put8(5), put8(2 + 4 * static_cast<uint32_t>(o.edges.size()));
          for (uint32_t edge : o.edges) put32(edge + iss_);
          break;
        case Option::Kind::kFastOpen: {
          const std::string& bytes = o.echo_last ? last_cookie_ : o.bytes;
          put8(34), put8(2 + static_cast<uint32_t>(bytes.size()));
          b.insert(b.end(), bytes.begin(), bytes.end());
          break;
        }
        case Option::Kind::kHex:
          b.insert(b.end(), o.bytes.begin(), o.bytes.end());
          break;
      }
    }
    b[12] = static_cast<uint8_t>(b.size() / 4 << 4);
    const uint32_t first = s.seq - 1 + ((s.flags & wire::kTcpSyn) != 0 ? 1 : 0);
    for (uint32_t i = 0; i < s.length; ++i) b.push_back(pattern(first + i));
    return b;
  }

  std::string check_payload(const Came& c) const {
    const Bytes& b = c.bytes;
    const size_t header = (b[12] >> 4) * 4u;
    const uint32_t first = base::load_be32(b.data() + 4) - iss_ - 1 + ((b[13] & wire::kTcpSyn) != 0 ? 1 : 0);
    if (b.size() == header + 1 && (b[13] & wire::kTcpSyn) == 0 && first == UINT32_MAX) return "";
    for (size_t i = header; i < b.size(); ++i)
      if (b[i] != pattern(first + (i - header))) return "wrong byte " + std::to_string(first + (i - header)) + " in " + show(c);
    return "";
  }

  // --- events

  std::string step(const Event& e) {
    if (e.kind == Event::Kind::kExpect) return expect(e);
    advance(begin(e.when));
    previous_ = begin(e.when);
    const bool looks = e.kind == Event::Kind::kEvents || e.kind == Event::Kind::kDrop || e.kind == Event::Kind::kTcpi;
    if (!looks && !came_.empty()) return "before this, unexpected " + show(came_.front());
    std::string why = act(e);
    pump();
    return why;
  }

  std::string expect(const Event& e) {
    const TimeNs from = e.when.base == When::Base::kAnyTime ? 0 : begin(e.when) - std::min(begin(e.when), tolerance_);
    const TimeNs to = end(e.when) + tolerance_;
    advance(to, true);
    const std::string wanted = "> " + format_segment(e.segment);
    const std::string when = e.when.base == When::Base::kAnyTime ? "*" : format_time(begin(e.when) - kStart);
    if (came_.empty())
      return "expected  " + when + " " + wanted + "\n  nothing came until " + format_time(to - kStart) + state_text();
    const Came c = std::move(came_.front());
    came_.pop_front();
    learnt_ = came_.size();
    Segment got = translate(c);
    if (!e.segment.window) got.window.reset();
    if (!e.segment.urgent) got.urgent.reset();
    got.ecn = e.segment.ecn ? std::optional(c.ecn) : std::nullopt;
    if (e.segment.any_options) got.any_options = true;
    for (size_t i = 0; i < std::min(got.options.size(), e.segment.options.size()); ++i)
      if (e.segment.options[i].echo_last && got.options[i].kind == Option::Kind::kFastOpen && !got.options[i].bytes.empty())
        got.options[i] = e.segment.options[i];
    if (format_segment(got) != format_segment(e.segment) || c.at < from || c.at > to)
      return "expected  " + when + " " + wanted + "\n  came      " + show(c) + state_text();
    previous_ = e.when.base == When::Base::kAnyTime || e.when.from != e.when.to ? c.at : begin(e.when);
    return check_payload(c);
  }
  std::string state_text() const {
    return std::string("\n  in state  ") + (subject_.tcb() == nullptr ? "CLOSED" : tcp::to_string(tcp::state(*subject_.tcb())));
  }

  std::string act(const Event& e) {
    switch (e.kind) {
      case Event::Kind::kReceive:
        if (e.segment.length > kMostPayload) return "a segment holds at most " + std::to_string(kMostPayload) + " bytes";
        receive(e.segment);
        return "";
      case Event::Kind::kIcmp:
        return subject_.icmp(e.code, static_cast<uint16_t>(e.number), e.segment.seq + iss_, now_, events_);
      case Event::Kind::kListen:
        return subject_.listen(static_cast<uint32_t>(e.number));
      case Event::Kind::kConnect:
        return subject_.connect(now_);
      case Event::Kind::kHandshake:
        return handshake(e);
      case Event::Kind::kWrite: {
        const uint64_t taken = subject_.write(e.number, now_);
        const uint64_t wanted = e.accepted.value_or(e.number);
        return taken == wanted ? "" : "write took " + std::to_string(taken) + " bytes, not " + std::to_string(wanted);
      }
      case Event::Kind::kRead:
        return subject_.read(e.number, now_);
      case Event::Kind::kEof:
        return subject_.eof();
      case Event::Kind::kShutdown:
        subject_.shutdown(now_);
        return "";
      case Event::Kind::kClose:
        subject_.close(now_);
        return "";
      case Event::Kind::kAbort:
        subject_.abort(now_);
        return "";
      case Event::Kind::kPressure:
        subject_.pressure(e.number != 0);
        return "";
      case Event::Kind::kPool:
        subject_.limit_pool(static_cast<uint32_t>(e.number));
        return "";
      case Event::Kind::kEvents:
        return check_events(e.words);
      case Event::Kind::kDrop: {
        const std::string got = drop_ == stats::DropReason::kNone ? "none" : stats::info(drop_).name;
        return got == e.words[0] ? "" : "expected drop " + e.words[0] + ", was " + got;
      }
      case Event::Kind::kTcpi:
        for (const Assertion& a : e.assertions)
          if (std::string why = check(a); !why.empty()) return why;
        return "";
      case Event::Kind::kQuiet:
      case Event::Kind::kExpect:
        return "";
    }
    return "";
  }

  void receive(const Segment& s) {
    const Reaction r = subject_.deliver(encode(s), s.ecn.value_or(0), now_);
    events_ |= r.events;
    drop_ = r.drop;
  }

  // `segment` is the peer's SYN or, active, its SYN-ACK.
  std::string handshake(const Event& e) {
    Segment syn = e.segment;
    if (!syn.window) syn.window = 60'000;
    std::string why = e.active ? subject_.connect(now_) : subject_.listen(1024);
    if (!why.empty()) return why;
    if (!e.active) receive(syn);
    pump();
    if (came_.empty()) return "the handshake: nothing was sent";
    clear();
    advance(now_ + e.rtt);
    previous_ = now_;
    Segment last;
    last.flags = e.active ? wire::kTcpSyn | wire::kTcpAck : wire::kTcpAck;
    last.seq = e.active ? 0 : 1;
    last.ack = 1;
    last.window = syn.window;
    for (const Option& o : syn.options) {
      if (e.active) {
        last.options.push_back(o);
        last.options.back().echo_last = true;
      } else if (o.kind == Option::Kind::kTimestamps && timestamps_known_) {
        last.options = {Option(), Option(), o};
        last.options.back().value += static_cast<uint32_t>(e.rtt / base::kMillisecond);
        last.options.back().echo_last = true;
      }
    }
    receive(last);
    pump();
    if (!e.active && !came_.empty()) return "the handshake: unexpected " + show(came_.front());
    clear();
    events_ = 0;
    if (subject_.tcb() == nullptr || tcp::state(*subject_.tcb()) != tcp::State::kEstablished)
      return "the handshake did not end in ESTABLISHED";
    return "";
  }
  void clear() {
    came_.clear();
    learnt_ = 0;
  }

  std::string check_events(const std::vector<std::string>& words) {
    uint32_t wanted = 0;
    for (const std::string& w : words) {
      if (w == "none") continue;
      uint32_t bit = 0;
      for (uint32_t i = 0; i < std::size(kEventNames); ++i)
        if (w == kEventNames[i]) bit = 1u << i;
      if (bit == 0) return "no event is called " + w;
      wanted |= bit;
    }
    const uint32_t got = std::exchange(events_, 0u);
    if (got == wanted) return "";
    std::string names;
    for (uint32_t i = 0; i < std::size(kEventNames); ++i)
      if ((got & 1u << i) != 0) names += std::string(" ") + kEventNames[i];
    return "events were:" + (names.empty() ? " none" : names) + state_text();
  }

  // --- tcpi

  // What `name` is now, as text; a number when it is one.
  std::optional<std::string> look(const std::string& name) const {
    const tcp::Tcb* t = subject_.tcb();
    if (name == "state") return std::string(t == nullptr ? "CLOSED" : tcp::to_string(tcp::state(*t)));
    if (name == "timer_ms") {
      const TimeNs at = const_cast<Subject&>(subject_).next_deadline();
      return at == base::kNever ? "none" : std::to_string((std::max(at, now_) - now_) / base::kMillisecond);
    }
    if (const auto v = subject_.query(name)) return std::to_string(*v);
    if (t == nullptr) return std::nullopt;
    const tcp::Info i = tcp::info(*t);
    if (name == "cwnd") return std::to_string(i.cwnd);
    if (name == "ssthresh") return i.ssthresh == UINT32_MAX ? "none" : std::to_string(i.ssthresh);
    if (name == "snd_una") return std::to_string(i.snd_una - iss_);
    if (name == "snd_nxt") return std::to_string(i.snd_nxt - iss_);
    if (name == "snd_wnd") return std::to_string(i.snd_wnd);
    if (name == "rcv_nxt") return std::to_string(i.rcv_nxt - irs_);
    if (name == "rcv_wnd") return std::to_string(i.rcv_wnd);
    if (name == "in_flight") return std::to_string(i.bytes_in_flight);
    if (name == "srtt_ms") return std::to_string(i.srtt_us / 1000);
    if (name == "rttvar_ms") return std::to_string(i.rttvar_us / 1000);
    if (name == "rto_ms") return std::to_string(i.rto_ms);
    if (name == "retransmits") return std::to_string(i.retransmits);
    if (name == "repairing") return std::to_string(i.repairing);
    if (name == "mss") return std::to_string(tcp::effective_mss(*t));
    if (name == "unacked") return std::to_string(tcp::bytes_unacked(*t));
    if (name == "send_space") return std::to_string(tcp::send_space(*t));
    if (name == "unread") return std::to_string(tcp::rx_queue(const_cast<tcp::Tcb&>(*t)).bytes());
    if (name == "snd_wscale") return std::to_string(t->snd_wscale);
    if (name == "rcv_wscale") return std::to_string(t->rcv_wscale);
    if (name == "sack") return std::to_string(tcp::has(*t, tcp::kFlagSack));
    if (name == "timestamps") return std::to_string(tcp::has(*t, tcp::kFlagTimestamps));
    if (name == "ecn") return std::to_string(tcp::has(*t, tcp::kFlagEcn));
    if (name == "rcv_cap") return std::to_string(t->rcv_cap);
    return std::nullopt;
  }
  std::string check(const Assertion& a) const {
    const auto got = look(a.name);
    if (!got) return "tcpi: no " + a.name + (subject_.tcb() == nullptr ? " without a connection" : "");
    uint64_t left = 0, right = 0;
    const bool numbers = parse_number(*got, left) && parse_number(a.value, right);
    bool holds = false;
    switch (a.op) {
      case Assertion::Op::kEqual:
        holds = *got == a.value;
        break;
      case Assertion::Op::kNotEqual:
        holds = *got != a.value;
        break;
      case Assertion::Op::kLess:
        holds = numbers && left < right;
        break;
      case Assertion::Op::kLessEqual:
        holds = numbers && left <= right;
        break;
      case Assertion::Op::kGreater:
        holds = numbers && left > right;
        break;
      case Assertion::Op::kGreaterEqual:
        holds = numbers && left >= right;
        break;
    }
    return holds ? "" : "tcpi: " + a.name + " is " + *got + ", compared with " + a.value;
  }

  const Script& script_;
  Subject& subject_;
  TimeNs now_ = kStart, previous_ = kStart, tolerance_ = kTolerance;
  std::deque<Came> came_;  // sent and not yet expected
  size_t learnt_ = 0;      // of came_
  uint32_t iss_ = 0, irs_ = kIrs;
  std::string last_cookie_;
  uint32_t ts_zero_ = 0, last_ts_ = 0;
  bool timestamps_known_ = false;
  uint16_t window_ = 60'000;  // of the peer's last segment
  uint32_t events_ = 0;
  stats::DropReason drop_ = stats::DropReason::kNone;
};

}  // namespace

std::string play(const Script& script, const std::string& name, Subject& subject) { return Player(script, subject).play(name); }

}  // namespace millrace::packet
