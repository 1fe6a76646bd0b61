// The language itself: what is refused and how it is said, and that a script that is wrong about the TCP fails, where it should.
#include <gtest/gtest.h>

#include "tests/packet/player.h"

namespace millrace::packet {
namespace {

std::string outcome(const std::string& text) {
  Script script;
  ScriptError error;
  if (!parse_script(text, script, error)) return "parse:" + std::to_string(error.line) + ": " + error.why;
  return play(script, "t", *make_tcp_subject());
}

TEST(Language, Refused) {
  const struct {
    const char* text;
    const char* why;
  } rows[] = {
      {"", "parse:1: nothing happens in this script"},
      {"// only a comment\n", "parse:1: nothing happens in this script"},
      {"0 listen\n", "parse:1: a script begins with `shows CLAUSE: what`"},
      {"shows\n", "parse:1: a script begins with `shows CLAUSE: what`"},
      {"shows x\n0 dance\n", "parse:2: unknown verb at 'dance'"},
      {"shows x\n\n0 > Q 0:0(0)\n", "parse:3: unknown flag 'Q': S F R P . U E W, or - for none"},
      {"shows x\n0 < . 1:2(0) ack 1\n", "parse:2: FIRST:END(LENGTH) do not agree"},
      {"shows x\n0 < . 1:1(0)\n", "parse:2: '.' and `ack N` go together"},
      {"shows x\n0 < S 1:1(0) ack 1\n", "parse:2: '.' and `ack N` go together"},
      {"shows x\n0 < S 0:0(0) win 70000\n", "parse:2: expected a number up to 65535 at '70000'"},
      {"shows x\n0 < S 0:0(0) <wscale 7>\n", "parse:2: options are 3 bytes; pad them with nop or eol"},
      {"shows x\n0 < S 0:0(0) <mss 1460\n", "parse:2: expected '>' at ''"},
      {"shows x\n0 < S 0:0(0) <cake 7>\n", "parse:2: unknown option at 'cake 7>'"},
      {"shows x\n0 < S 0:0(0) <hex 0>\n", "parse:2: expected pairs of hexadecimal digits"},
      {"shows x\n* < S 0:0(0)\n", "parse:2: only `>` may have a range of time"},
      {"shows x\n0~1 listen\n", "parse:2: only `>` may have a range of time"},
      {"shows x\n2~1 > S 0:0(0)\n", "parse:2: the range is empty"},
      {"shows x\n+1~2 > S 0:0(0)\n", "parse:2: both ends of a range are relative, or none"},
      {"shows x\n0. listen\n", "parse:2: a time has one to nine decimals"},
      {"shows x\n0 listen\nconfig mss=100\n", "parse:3: config comes before the first event"},
      {"shows x\nconfig mss\n0 listen\n", "parse:2: config NAME=VALUE ..."},
      {"shows x\n0 close now\n", "parse:2: too much: 'now'"},
      {"shows x\n0 tcpi state = ESTABLISHED\n", "parse:2: a comparison: == != < <= > >="},
  };
  for (const auto& r : rows) EXPECT_EQ(outcome(r.text), r.why) << r.text;
}

TEST(Language, AScriptThatIsWrongFails) {
  const std::string head = "shows x\nconfig delayed_ack=0\n0 handshake <mss 1460>\n0.1 < P. 1:11(10) ack 1\n";
  const struct {
    const char* rest;
    const char* why;
  } rows[] = {
      {"0.1 > . 1:1(0) ack 11\n", ""},
      {"", "t: at the end, unexpected 0.100 > . 1:1(0) ack 11 win 65525"},
      {"0.2 read 10\n", "t:5: before this, unexpected 0.100 > . 1:1(0) ack 11 win 65525"},
      {"0.1 > . 1:1(0) ack 12\n",
       "t:5: expected  0.100 > . 1:1(0) ack 12\n  came      0.100 > . 1:1(0) ack 11 win 65525\n  in state  ESTABLISHED"},
      {"0.1 > . 1:1(0) ack 11 win 7\n",
       "t:5: expected  0.100 > . 1:1(0) ack 11 win 7\n  came      0.100 > . 1:1(0) ack 11 win 65525\n  in state  ESTABLISHED"},
      {"0.2 > . 1:1(0) ack 11\n",
       "t:5: expected  0.200 > . 1:1(0) ack 11\n  came      0.100 > . 1:1(0) ack 11 win 65525\n  in state  ESTABLISHED"},
      {"0.1 > . 1:1(0) ack 11\n0.1 > . 1:1(0) ack 11\n",
       "t:6: expected  0.100 > . 1:1(0) ack 11\n  nothing came until 0.101\n  in state  ESTABLISHED"},
      {"0.1 > . 1:1(0) ack 11\n0.1 read 11\n", "t:6: 10 bytes are there to read"},
      {"0.1 > . 1:1(0) ack 11\n0.1 eof\n", "t:6: 10 bytes are still to be read"},
      {"0.1 > . 1:1(0) ack 11\n0.1 events closed\n", "t:6: events were: readable\n  in state  ESTABLISHED"},
      {"0.1 > . 1:1(0) ack 11\n0.1 drop tcp_paws\n", "t:6: expected drop tcp_paws, was none"},
      {"0.1 > . 1:1(0) ack 11\n0.1 tcpi state == CLOSED\n", "t:6: tcpi: state is ESTABLISHED, compared with CLOSED"},
      {"0.1 > . 1:1(0) ack 11\n0.1 tcpi unread < 10\n", "t:6: tcpi: unread is 10, compared with 10"},
      {"0.1 > . 1:1(0) ack 11\n0.1 tcpi happiness == 10\n", "t:6: tcpi: no happiness"},
      {"0.1 > . 1:1(0) ack 11\n0.1 write 1000000\n", "t:6: write took 262144 bytes, not 1000000"},
  };
  for (const auto& r : rows) EXPECT_EQ(outcome(head + r.rest), r.why) << r.rest;
  EXPECT_EQ(outcome("shows x\nconfig speed=9\n0 listen\n"), "t: config speed=9: no such name, or not a value of it");
}

TEST(Language, SegmentsAreWrittenAsTheyAreRead) {
  for (const char* line : {"S 0:0(0) win 65535 <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7>", "FP. 1:1001(1000) ack 1",
                           "R 7:7(0) win 0", "PU. 1:2(1) ack 1 win 10 urg 1", "- 0:0(0)", "[ce] E. 1:1(0) ack 1",
                           ". -5:5(10) ack -10 <nop,nop,sack 1:2 3:4>", "S 0:0(0) <FO 0011aabb,eol,hex fd00ff,nop,nop>",
                           "S. 0:0(0) ack 1 <...>", ". 1:1(0) ack 1 <nop,nop,TS val 5 ecr last>"}) {
    Script s;
    ScriptError e;
    ASSERT_TRUE(parse_script("shows x\n0 > " + std::string(line), s, e)) << line << ": " << e.why;
    EXPECT_EQ(format_segment(s.events[0].segment), line);
  }
}

TEST(Language, Times) {
  Script s;
  ScriptError e;
  ASSERT_TRUE(parse_script("shows x\n1.5 quiet\n+.001 quiet\n* > S 0:0(0)\n+0.1~+0.25 > S 0:0(0)\n", s, e)) << e.why;
  EXPECT_EQ(s.events[0].when.from, 1'500 * base::kMillisecond);
  EXPECT_EQ(s.events[0].when.base, When::Base::kStart);
  EXPECT_EQ(s.events[1].when.from, base::kMillisecond);
  EXPECT_EQ(s.events[1].when.base, When::Base::kPrevious);
  EXPECT_EQ(s.events[2].when.base, When::Base::kAnyTime);
  EXPECT_EQ(s.events[3].when.to, 250 * base::kMillisecond);
  EXPECT_EQ(format_time(1'500'000'000), "1.500");
  EXPECT_EQ(format_time(1'500'001'000), "1.500001");
}

}  // namespace
}  // namespace millrace::packet
