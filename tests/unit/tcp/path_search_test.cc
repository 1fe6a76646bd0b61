// The way back up after a black hole (RFC 4821 7.3, 7.4, 7.6): against a receiver behind a path that swallows what is too big.
#include <deque>
#include <map>

#include "tests/unit/tcp/dialog.h"

namespace millrace::tcp {
namespace {

Config with_sack(bool timestamps = false) {
  Config c = TcpDialog::plain();
  c.rto_min_ns = ms(200);
  c.timestamps = timestamps;
  return c;
}

// The sender never runs dry. 100 ms of round trip, so that minutes are not too many segments.
struct SilentPath : TcpDialog {
  uint32_t mtu = 1500;  // IP bytes that get through
  uint32_t swallowed = 0, rounds_of_recovery = 0, lose_next = 0;
  bool bulk = true;

  explicit SilentPath(const Config& c = with_sack(), const std::string& options = "<mss 1460,sackOK>") : TcpDialog(c) {
    handshake_takes = kRtt;
    establish(options);
  }
  const RecoveryCounts& counts() const { return repairs.counts(); }

  void run(TimeNs time) {
    const TimeNs until = now + time;
    for (;;) {
      if (bulk && send_space(t) >= 100'000) write(100'000);
      transmit();
      const TimeNs at = std::min(next_deadline(t), acks_.empty() ? base::kNever : acks_.front().at);
      if (at > until) break;
      now = std::max(now, at);
      if (!acks_.empty() && acks_.front().at <= now) {
        const Recovery before = t.recovery;
        recv(acks_.front().line);
        acks_.pop_front();
        if (before == Recovery::kOpen && t.recovery == Recovery::kFast) ++rounds_of_recovery;
      } else {
        on_deadline(t, now);
      }
    }
    now = until;
  }

 private:
  static constexpr TimeNs kRtt = ms(100);
  struct Ack {
    TimeNs at;
    std::string line;
  };
  void transmit() {
    OutSegment out;
    while (poll_output(t, now, out)) {
      const uint32_t space = out.payload_len + ((out.header.flags & wire::kTcpFin) != 0 ? 1 : 0);
      if (space == 0) continue;
      check_payload(out);
      if (out.payload_len + out.header.header_length() + 20 > mtu) {
        ++swallowed;
        continue;
      }
      if (lose_next > 0) {
        --lose_next;
        continue;
      }
      receive(out.header.seq - kIss, out.header.seq - kIss + space,
              out.header.timestamps ? out.header.timestamps->val - kTsOffset : 0);
    }
  }
  void receive(uint32_t left, uint32_t right, uint32_t ts) {
    if (left <= next_) {
      next_ = std::max(next_, right);
    } else {
      held_[left] = std::max(held_[left], right);
    }
    while (!held_.empty() && held_.begin()->first <= next_) {
      next_ = std::max(next_, held_.begin()->second);
      held_.erase(held_.begin());
    }
    for (auto i = held_.begin(); i != held_.end();) {  // neighbours become one
      const auto following = std::next(i);
      if (following == held_.end() || following->first > i->second) {
        ++i;
        continue;
      }
      i->second = std::max(i->second, following->second);
      held_.erase(following);
    }
    std::string options = has(t, kFlagTimestamps) ? "ts " + std::to_string(2000 + ts) + " " + std::to_string(ts) : "";
    uint32_t blocks = 0;
    for (auto i = held_.rbegin(); i != held_.rend() && blocks < 3; ++i, ++blocks)
      options += (options.empty() ? "sack " : ",sack ") + std::to_string(i->first) + ":" + std::to_string(i->second);
    std::string line = ". 1 ack " + std::to_string(next_) + " win 60000";
    if (!options.empty()) line += " <" + options + ">";
    acks_.push_back({now + kRtt, line});
  }
  uint32_t next_ = 1;
  std::map<uint32_t, uint32_t> held_;
  std::deque<Ack> acks_;
};

TEST(PathSearch, FindsWhatGetsThrough) {
  for (const bool timestamps : {false, true}) {
    for (const uint32_t mtu : {1'300u, 1'400u, 1'492u}) {
      SilentPath p(with_sack(timestamps), timestamps ? "<mss 1460,sackOK,ts 1000 0>" : "<mss 1460,sackOK>");
      p.run(ms(500));
      ASSERT_EQ(p.t.snd_mss, 1460);
      p.mtu = mtu;
      p.run(sec(20));
      EXPECT_LE(p.t.snd_mss + 40u, mtu) << mtu;
      EXPECT_GT(p.t.snd_mss + 40u, mtu - kPathSearchGrain) << mtu;
      EXPECT_LE(p.counts().larger_lost, 6u) << mtu;
      EXPECT_GE(p.counts().larger_lost, 1u) << mtu;  // what was right before
      EXPECT_EQ(p.rounds_of_recovery, 0u) << mtu << ": the loss of a probe is no congestion (7.6.1)";
      EXPECT_GT(info(p.t).cwnd, 20'000u) << mtu;
    }
  }
}

TEST(PathSearch, AFalseAlarmIsOverWithTheFirstProbe) {
  SilentPath p;
  p.run(ms(500));
  p.mtu = 0;  // nothing gets through: no question of size
  p.run(sec(5));
  ASSERT_LT(p.t.snd_mss, 1460);
  p.mtu = 1500;
  p.run(sec(20));
  EXPECT_EQ(p.t.snd_mss, 1460);
  EXPECT_EQ(p.counts().larger_segments, 1u);
  EXPECT_EQ(p.counts().larger_lost, 0u);
  EXPECT_EQ(p.t.repair == nullptr ? 0 : p.t.repair->path.most, 0);
}

TEST(PathSearch, BeginsAnewAfterTenMinutes) {  // 7.3
  SilentPath p;
  p.run(ms(500));
  p.mtu = 1400;
  p.run(sec(20));
  const uint16_t found = p.t.snd_mss;
  p.mtu = 1500;
  p.run(sec(500));
  EXPECT_EQ(p.t.snd_mss, found);
  p.run(sec(120));
  EXPECT_EQ(p.t.snd_mss, 1460);
}

TEST(PathSearch, IdleConnectionsForget) {  // what was borrowed goes back; the size stays
  SilentPath p;
  p.run(ms(500));
  p.mtu = 1400;
  p.run(sec(4));
  p.bulk = false;
  p.run(sec(60));
  EXPECT_EQ(bytes_unacked(p.t), 0u);
  EXPECT_EQ(p.t.repair, nullptr);
  EXPECT_LE(p.t.snd_mss + 40u, 1400u);
}

TEST(PathSearch, SmallWindowsAndMessagesAreNotTried) {  // 7.4: nothing behind a probe would tell its loss
  SilentPath p;
  p.run(ms(500));
  p.bulk = false;
  p.run(sec(5));
  ASSERT_EQ(bytes_unacked(p.t), 0u);
  p.mtu = 1400;
  for (int i = 0; i < 20; ++i) {
    p.write(3'000);
    p.run(sec(5));
  }
  EXPECT_LT(p.t.snd_mss, 1400 - 40);
  EXPECT_EQ(p.counts().larger_lost, 0u);
  EXPECT_EQ(p.counts().larger_segments, 0u);
}

TEST(PathSearch, NoneWithoutSack) {
  SilentPath p(with_sack(), "<mss 1460>");
  p.run(ms(500));
  p.mtu = 1400;
  p.run(sec(30));
  EXPECT_EQ(p.t.snd_mss, 1240);
  EXPECT_EQ(p.counts().larger_lost, 0u);
}

TEST(PathSearch, ARoutersWordEndsIt) {  // RFC 1191: it knows
  SilentPath p;
  p.run(ms(500));
  p.mtu = 1400;
  p.run(sec(20));
  const uint64_t lost = p.counts().larger_lost;
  p.mtu = 1300;
  on_path_mtu(p.t, 1300, p.t.snd_una, p.now);
  p.run(sec(20));
  EXPECT_EQ(p.t.snd_mss, 1260);
  EXPECT_EQ(p.counts().larger_lost, lost);
}

TEST(PathSearch, AProbeLostWithOthersHasFailed) {  // and what is repeated of it, in segments that fit, does not speak for it
  SilentPath p;
  p.run(ms(500));
  p.mtu = 1400;
  for (int i = 0; i < 4000 && (p.t.repair == nullptr || p.t.repair->path.size == 0); ++i) p.run(ms(1));
  ASSERT_NE(p.t.repair, nullptr);
  ASSERT_NE(p.t.repair->path.size, 0);
  p.lose_next = 3;  // behind the probe
  p.run(sec(2));
  EXPECT_GE(p.rounds_of_recovery, 1u);
  p.run(sec(20));
  EXPECT_LE(p.t.snd_mss + 40u, 1400u);
  EXPECT_GT(p.t.snd_mss + 40u, 1400u - kPathSearchGrain);
}

TEST(PathSearch, ACloseWithAProbeOutGivesEverythingBack) {  // ~TcpDialog looks
  SilentPath p;
  p.run(ms(500));
  p.mtu = 1400;
  for (int i = 0; i < 400 && (p.t.repair == nullptr || p.t.repair->path.size == 0); ++i) p.run(ms(10));
  ASSERT_NE(p.t.repair, nullptr);
  ASSERT_NE(p.t.repair->path.size, 0);
  p.bulk = false;
  p.close();
  p.run(sec(30));
  EXPECT_EQ(state(p.t), State::kFinWait2);
}

}  // namespace
}  // namespace millrace::tcp
