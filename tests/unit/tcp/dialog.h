// A dialog between one TCB and a scripted peer, written like a tcpdump:
//
//   TcpDialog t;
//   t.listen("S 0 win 65535 <mss 1460,sackOK,wscale 7>");
//   t.expect("S. 0 ack 1 win 65528 <mss 1460,sackOK,wscale 2>");
//   t.recv(". 1 ack 1 win 1000");
//
// FLAGS are letters of S F R P U, E for ECE, W for CWR and '.' for ACK. Then the sequence number, or FIRST:END(LENGTH); `ack N`,
// `win N` (as on the wire) and <options>: mss N, sackOK, wscale N, ts VAL ECR, sack A:B. Numbers are relative: ours to our ISN,
// the peer's to its ISN; both start close below 2^32, so that every test goes round. A number may be a variable and an offset: p
// (the peer's next), o (our next), a (our oldest unacknowledged), as in "P. p:p+10(10) ack a". Byte i of a stream is pattern(i)
// in both directions, and is checked. expect() compares what the line names: ack, win and options only if given; a line without
// '<' says nothing about options.
#pragma once

#include <cctype>
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/tcp/listener.h"
#include "lib/tcp/seq.h"
#include "lib/tcp/tcb.h"
#include "lib/tcp/tcb_ops.h"
#include "lib/tcp/tcp.h"
#include "lib/tcp/time_wait.h"
#include "tests/support/heap_packet_pool.h"

namespace millrace::tcp {

inline constexpr TimeNs ms(uint64_t n) { return n * base::kMillisecond; }
inline constexpr TimeNs sec(uint64_t n) { return n * base::kSecond; }
inline uint8_t pattern(uint64_t i) { return static_cast<uint8_t>(i * 167 + (i >> 8) * 13 + 5); }

inline std::string event_names(uint32_t events) {
  static constexpr const char* kNames[] = {"connected", "readable", "send-space", "peer-fin", "reset",
                                           "timed-out", "closed",   "time-wait",  "reopen"};
  std::string s;
  for (uint32_t i = 0; i < std::size(kNames); ++i)
    if (events & 1u << i) s += (s.empty() ? "" : " ") + std::string(kNames[i]);
  return s;
}

struct TcpDialog {
  static constexpr uint32_t kIss = 0xffffff00, kIrs = 0xfffffe00;
  static constexpr uint32_t kTsOffset = 0xfffff000;

  support::HeapPacketPool pool{1024, 2048};  // first, so that it is checked last
  RepairPool repairs{8};
  Tcb t;
  Config config;
  Profile profile;  // as config was when the connection opened
  TimeNs now = sec(100);
  TimeNs handshake_takes = 0;    // establish(): from our SYN-ACK to its ACK
  uint32_t p = 0, o = 0, a = 0;  // variables of the script
  uint64_t written = 0, read_bytes = 0;
  InputResult last;
  OutSegment sent;  // the last one that expect() or drain() took

  // A configuration in which nothing is delayed and windows are small round numbers, for tests that are about something else.
  static Config plain() {
    Config c;
    c.delayed_ack = false;
    c.timestamps = false;
    c.rcv_buf = c.rcv_wnd_initial = 60'000;
    c.window_scaling = false;
    return c;
  }

  TcpDialog() : TcpDialog(plain()) {}
  explicit TcpDialog(const Config& c) : config(c) {}
  ~TcpDialog() {
    release(t);
    EXPECT_TRUE(pool.balanced()) << pool.in_use() << " packets not returned";
    EXPECT_EQ(repairs.in_use(), 0u);
  }

  static FourTuple tuple() { return {base::IpAddress::v4(0x0a000001), base::IpAddress::v4(0x0a000002), 80, 40'000}; }

  // --- opening
  const Profile& settle() { return profile = {config, &repairs}; }
  void listen(const std::string& syn) { open_passive(t, tuple(), settle(), parse(syn), kIss, now, kTsOffset); }
  void connect() { open_active(t, tuple(), settle(), kIss, now, kTsOffset); }
  // A finished handshake, passive. `options` of the peer's SYN; `window` as on the wire, of the last ACK.
  void establish(const std::string& options = "<mss 1460>", uint32_t window = 60'000) {
    listen("S 0 win " + std::to_string(window) + " " + options);
    drain();
    p = o = a = 1;
    now += handshake_takes;
    std::string ts = has(t, kFlagTimestamps) ? " <ts 1001 " + std::to_string(ts_now()) + ">" : "";
    recv(". 1 ack 1 win " + std::to_string(window) + ts);
    ASSERT_EQ(state(t), State::kEstablished);
  }
  void establish_sack(uint32_t window = 60'000) { establish("<mss 1460,sackOK>", window); }
  uint32_t ts_now() const { return timestamp_clock(now, 0); }  // as scripts see our TSval

  // --- segments
  // `marked`: the IP header said CE.
  InputResult recv(const std::string& line, bool marked = false) {
    const wire::TcpView v = parse(line);
    io::PacketPtr payload;
    if (v.payload_length > 0) {
      std::vector<uint8_t> bytes(v.payload_length);
      const uint32_t first = v.seq - kIrs - 1 + (v.syn() ? 1 : 0);
      for (uint32_t i = 0; i < v.payload_length; ++i) bytes[i] = pattern(first + i);
      payload = pool.make(bytes);
      EXPECT_TRUE(static_cast<bool>(payload));
    }
    last = input(t, v, std::move(payload), now, marked);
    return last;
  }
  // The next segment must be this one.
  void expect(const std::string& line, uint32_t max_payload = 0) {
    OutSegment out;
    if (!poll_output(t, now, out, max_payload)) {
      ADD_FAILURE() << "expected " << line << ", nothing is due";
      return;
    }
    check_payload(out);
    sent = out;
    EXPECT_TRUE(matches(out, line)) << "expected " << line << "\n     got " << format(out);
  }
  void expect_nothing() {
    OutSegment out;
    const bool more = poll_output(t, now, out);
    EXPECT_FALSE(more) << "unexpected " << format(out);
    EXPECT_FALSE(output_pending(t));
  }
  // All that is due, in the script's form.
  std::vector<std::string> drain(uint32_t max_payload = 0) {
    std::vector<std::string> lines;
    OutSegment out;
    while (poll_output(t, now, out, max_payload)) {
      check_payload(out);
      sent = out;
      lines.push_back(format(out));
      if (lines.size() > 10'000) ADD_FAILURE() << "output never ends";
    }
    return lines;
  }

  // --- application
  void write(uint32_t n) {
    std::vector<uint8_t> bytes(n);
    for (uint32_t i = 0; i < n; ++i) bytes[i] = pattern(written + i);
    ASSERT_EQ(send_copy(t, bytes, pool), n);
    written += n;
  }
  // Reads up to n bytes and checks them; returns how many there were.
  uint32_t read(uint32_t n = UINT32_MAX, bool may_grow = true) {
    uint32_t got = 0;
    while (!t.rx.empty() && got < n) {
      const auto bytes = t.rx.front();
      const uint32_t take = std::min<uint32_t>(static_cast<uint32_t>(bytes.size()), n - got);
      for (uint32_t i = 0; i < take; ++i) EXPECT_EQ(bytes[i], pattern(read_bytes + i)) << "byte " << read_bytes + i;
      t.rx.consume(take);
      got += take;
      read_bytes += take;
    }
    window_update(t, now, may_grow);
    return got;
  }
  void close() { tcp::close(t, now); }
  void abort() { tcp::abort(t, now); }

  // --- time
  // Lets time pass up to the next deadline, which must be `after` from now, and handles it; returns its events.
  uint32_t deadline(TimeNs after, TimeNs tolerance = 0) {
    const TimeNs at = next_deadline(t);
    EXPECT_NE(at, base::kNever);
    EXPECT_LE(at > now + after ? at - now - after : now + after - at, tolerance)
        << "deadline in " << static_cast<double>(at - now) * 1e-6 << " ms";
    now = at;
    return on_deadline(t, now);
  }
  // Lets time pass, handling what is due, without looking at segments; returns all events.
  uint32_t pass(TimeNs time) {
    const TimeNs until = now + time;
    uint32_t events = 0;
    while (next_deadline(t) <= until) {
      now = next_deadline(t);
      events |= on_deadline(t, now);
      drain();
    }
    now = until;
    return events;
  }

  // --- the language
  static std::string flag_letters(uint8_t flags) {
    std::string s;
    if (flags & wire::kTcpSyn) s += 'S';
    if (flags & wire::kTcpFin) s += 'F';
    if (flags & wire::kTcpRst) s += 'R';
    if (flags & wire::kTcpPsh) s += 'P';
    if (flags & wire::kTcpUrg) s += 'U';
    if (flags & wire::kTcpEce) s += 'E';
    if (flags & wire::kTcpCwr) s += 'W';
    if (flags & wire::kTcpAck) s += '.';
    return s;
  }

  std::string format(const OutSegment& out) const { return format(out.header, out.payload_len); }
  std::string format(const wire::TcpRepr& h, uint32_t length) const {
    const uint32_t seq = h.seq - kIss;
    std::string s = flag_letters(h.flags) + ' ' + std::to_string(seq);
    if (length > 0) s += ':' + std::to_string(seq + length) + '(' + std::to_string(length) + ')';
    if (h.flags & wire::kTcpAck) s += " ack " + std::to_string(h.ack - kIrs);
    s += " win " + std::to_string(h.window);
    std::string opts;
    const auto add = [&opts](const std::string& x) { opts += (opts.empty() ? "" : ",") + x; };
    if (h.mss) add("mss " + std::to_string(*h.mss));
    if (h.sack_permitted) add("sackOK");
    if (h.timestamps) add("ts " + std::to_string(h.timestamps->val - kTsOffset) + " " + std::to_string(h.timestamps->ecr));
    if (h.wscale) add("wscale " + std::to_string(*h.wscale));
    for (const auto& b : h.sack) add("sack " + std::to_string(b.left - kIrs) + ":" + std::to_string(b.right - kIrs));
    return opts.empty() ? s : s + " <" + opts + ">";
  }

  uint32_t number(const std::string& text) const {
    uint32_t base = 0;
    size_t at = 0;
    if (!text.empty() && std::isalpha(static_cast<unsigned char>(text[0]))) {
      switch (text[0]) {
        case 'p':
          base = p;
          break;
        case 'o':
          base = o;
          break;
        case 'a':
          base = a;
          break;
        default:
          ADD_FAILURE() << "unknown variable in " << text;
      }
      at = 1;
    }
    return base + static_cast<uint32_t>(std::strtol(text.c_str() + at, nullptr, 10));
  }

  struct Line {
    uint8_t flags = 0;
    uint32_t seq = 0, length = 0;
    std::optional<uint32_t> ack, win;
    bool has_options = false;
    std::vector<std::vector<std::string>> options;
  };
  Line scan(const std::string& text) const {
    Line l;
    std::string head = text.substr(0, text.find('<'));
    const auto words = split(head, ' ');
    for (char c : words.at(0)) {
      switch (c) {
        case 'S':
          l.flags |= wire::kTcpSyn;
          break;
        case 'F':
          l.flags |= wire::kTcpFin;
          break;
        case 'R':
          l.flags |= wire::kTcpRst;
          break;
        case 'P':
          l.flags |= wire::kTcpPsh;
          break;
        case 'U':
          l.flags |= wire::kTcpUrg;
          break;
        case 'E':
          l.flags |= wire::kTcpEce;
          break;
        case 'W':
          l.flags |= wire::kTcpCwr;
          break;
        case '.':
          l.flags |= wire::kTcpAck;
          break;
        case '-':
          break;  // no flag at all
        default:
          ADD_FAILURE() << "unknown flag in " << text;
      }
    }
    const std::string& range = words.at(1);
    l.seq = number(range.substr(0, range.find(':')));
    if (const size_t open = range.find('('); open != std::string::npos) l.length = number(range.substr(open + 1));
    for (size_t i = 2; i + 1 < words.size(); i += 2) {
      if (words[i] == "ack") l.ack = number(words[i + 1]);
      else if (words[i] == "win") l.win = number(words[i + 1]);
      else ADD_FAILURE() << "unknown word in " << text;
    }
    if (const size_t open = text.find('<'); open != std::string::npos) {
      l.has_options = true;
      for (const auto& option : split(text.substr(open + 1, text.find('>') - open - 1), ','))
        l.options.push_back(split(option, ' '));
    }
    return l;
  }
  static std::vector<std::string> split(const std::string& s, char by) {
    std::vector<std::string> out;
    std::string word;
    for (char c : s + by) {
      if (c != by) word += c;
      else if (!word.empty()) out.push_back(std::exchange(word, {}));
    }
    return out;
  }

  wire::TcpView parse(const std::string& text) const {
    const Line l = scan(text);
    wire::TcpView v;
    v.src_port = 40'000;
    v.dst_port = 80;
    v.seq = l.seq + kIrs;
    v.flags = l.flags;
    if (l.ack) v.ack = *l.ack + kIss;
    v.window = static_cast<uint16_t>(l.win.value_or(60'000));
    v.payload_length = l.length;
    v.payload_offset = 20;
    for (const auto& words : l.options) {
      if (words[0] == "mss") v.mss = static_cast<uint16_t>(number(words.at(1)));
      else if (words[0] == "sackOK") v.sack_permitted = true;
      else if (words[0] == "wscale") v.wscale = static_cast<uint8_t>(number(words.at(1)));
      else if (words[0] == "ts") v.timestamps = wire::TcpTimestamps{number(words.at(1)), number(words.at(2)) + kTsOffset};
      else if (words[0] == "sack") {
        const auto ends = split(words.at(1), ':');
        v.sack.push({number(ends.at(0)) + kIss, number(ends.at(1)) + kIss});
      } else ADD_FAILURE() << "unknown option in " << text;
    }
    return v;
  }

  bool matches(const OutSegment& out, const std::string& line) const {
    const Line l = scan(line);
    const wire::TcpRepr& h = out.header;
    if (h.flags != l.flags || h.seq - kIss != l.seq || out.payload_len != l.length) return false;
    if (l.ack && h.ack - kIrs != *l.ack) return false;
    if (l.win && h.window != *l.win) return false;
    if (!l.has_options) return true;
    const std::string got = format(out);
    return got.find('<') == std::string::npos ? l.options.empty() : got.substr(got.find('<')) == line.substr(line.find('<'));
  }

  void check_payload(const OutSegment& out) {
    if (out.payload_len == 0) return;
    ASSERT_LE(out.payload_offset + uint64_t{out.payload_len}, t.tx.bytes());
    std::vector<uint8_t> bytes(out.payload_len);
    ASSERT_EQ(t.tx.peek(out.payload_offset, bytes.data(), bytes.size()), bytes.size());
    const uint32_t first = out.header.seq - kIss - 1;
    for (uint32_t i = 0; i < out.payload_len; ++i) ASSERT_EQ(bytes[i], pattern(first + i)) << "byte " << first + i;
  }
};

}  // namespace millrace::tcp
