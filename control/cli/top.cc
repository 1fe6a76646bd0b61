// millctl top: where the gateway's time goes, again and again.
#include <charconv>
#include <chrono>
#include <cstdio>
#include <optional>
#include <thread>
#include <time.h>
#include <unistd.h>

#include "control/cli/structured.h"
#include "control/cli/table.h"
#include "control/cli/terminal.h"
#include "control/cli/top_rates.h"
#include "control/cli/top_screen.h"
#include "control/cli/verbs.h"

namespace millrace::cli {

namespace pb = control::v1;
using Stub = pb::Control::Stub;
using Clock = std::chrono::steady_clock;

namespace {

// What "--stages on" means (stats::StageClock::kDefaultPeriod): dear enough to be exact, cheap enough to stay on.
constexpr uint32_t kStagePeriod = 16;

// "on", "off" or N: one turn in N is accounted.
std::optional<uint32_t> stage_period(const std::string& text) {
  if (text == "on") return kStagePeriod;
  if (text == "off") return 0;
  uint32_t n = 0;
  const auto r = std::from_chars(text.data(), text.data() + text.size(), n);
  if (r.ec != std::errc() || r.ptr != text.data() + text.size() || n == 0) return std::nullopt;
  return n;
}

std::string clock_text(double interval_s) {
  const time_t now = time(nullptr);
  tm parts;
  localtime_r(&now, &parts);
  char out[64];
  const size_t n = strftime(out, sizeof out, "%H:%M:%S", &parts);
  std::snprintf(out + n, sizeof out - n, ", every %g s", interval_s);
  return out;
}

class Top {
 public:
  Top(const Globals& g, const TopOptions& o) : g_(g), o_(o), client_(g) {}

  int run() {
    if (!o_.workers.empty() && !parse_workers(o_.workers, &workers_)) {
      std::fprintf(stderr, "millctl: --workers: \"%s\" is no list of workers like 0,2-3\n", o_.workers.c_str());
      return kUsage;
    }
    std::optional<uint32_t> period;
    if (!o_.stages.empty()) {
      period = stage_period(o_.stages);
      if (!period) {
        std::fprintf(stderr, "millctl: --stages: \"%s\" is neither on, off nor a number (one turn in so many is accounted)\n",
                     o_.stages.c_str());
        return kUsage;
      }
    }
    before_ = client_.call(&Stub::Top, pb::TopRequest());  // control that is not there is told at once
    if (period) {
      if (const int code = switch_stages(*period); code != kDone) return code;
      before_ = client_.call(&Stub::Top, pb::TopRequest());  // no frame has turns of both kinds
    }
    uint32_t missing = 0;
    if (!select_workers(workers_, &before_, &missing)) {
      std::fprintf(stderr, "millctl: there is no worker %u; millctl status shows those that are\n", missing);
      return kRefused;
    }
    if (o_.once) return once();
    return isatty(STDOUT_FILENO) != 0 && !g_.json() && !g_.yaml() ? interactive() : stream();
  }

 private:
  int switch_stages(uint32_t period) {
    pb::SetStagesRequest rq;
    rq.set_period(period);
    rq.set_wait_ms(g_.wait_ms());
    const pb::SetStagesReply reply = client_.call(&Stub::SetStages, rq);
    if (!reply.connected()) {
      std::fprintf(stderr, "millctl: no data plane is connected, so there are no stages to account; see millctl status\n");
      return kNotInForce;
    }
    if (reply.in_force() || g_.no_wait) return kDone;
    std::fprintf(stderr, "millctl: the data plane did not change its stage accounting within %.0f s\n", g_.timeout_s);
    return kNotInForce;
  }

  // The frame since the last look. Control that went away is a note; it may come back.
  pb::TopFrame look() {
    std::string why;
    const std::optional<pb::TopSample> now = client_.try_call(&Stub::Top, pb::TopRequest(), &why);
    pb::TopFrame frame;
    if (!now) {
      frame.set_note(why);
      before_ = pb::TopSample();
      return frame;
    }
    pb::TopSample sample = *now;
    uint32_t missing = 0;
    if (!select_workers(workers_, &sample, &missing)) {
      frame.set_note("there is no worker " + std::to_string(missing) + " any more");
      before_ = pb::TopSample();
      return frame;
    }
    frame = make_frame(before_, sample);
    before_ = std::move(sample);
    return frame;
  }

  std::string text(const pb::TopFrame& frame, const ScreenOptions& screen) const {
    if (g_.json()) return to_json(frame, o_.once) + (o_.once ? "" : "\n");
    if (g_.yaml()) return (o_.once ? "" : "---\n") + yaml_of_json(to_json(frame, false));
    return render(frame, screen);
  }

  int once() {
    if (!before_.connected()) {
      std::fputs("millctl: no data plane is connected, so there is nothing to count; see millctl status\n", stderr);
      return kNotInForce;
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(o_.interval_s));
    const pb::TopFrame frame = look();
    ScreenOptions screen;
    if (isatty(STDOUT_FILENO) != 0) screen.width = Terminal::stdout_size().width;
    std::fputs(text(frame, screen).c_str(), stdout);
    return frame.seconds() > 0 ? kDone : kNotInForce;
  }

  // One frame after another, for a pipe or a file; ends when nobody reads.
  int stream() {
    const auto step = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(o_.interval_s));
    for (Clock::time_point due = Clock::now() + step;; due += step) {
      std::this_thread::sleep_until(due);
      ScreenOptions screen;
      screen.clock = clock_text(o_.interval_s);
      std::string frame = text(look(), screen);
      if (!g_.json() && !g_.yaml()) frame += '\n';
      if (std::fputs(frame.c_str(), stdout) < 0 || std::fflush(stdout) != 0) return kDone;
    }
  }

  int interactive() {
    Terminal terminal;
    const auto step = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(o_.interval_s));
    Clock::time_point due = Clock::now();
    pb::TopFrame frame = make_frame(pb::TopSample(), before_);
    while (true) {
      ScreenOptions screen;
      const Terminal::Size size = Terminal::stdout_size();
      screen.width = size.width;
      screen.height = size.height;
      screen.keys = terminal.has_keys();
      screen.clock = clock_text(o_.interval_s);
      if (!terminal.show(text(frame, screen))) return kDone;
      if (Clock::now() >= due) due = Clock::now() + step;
      const int key = terminal.wait(std::chrono::duration<double>(due - Clock::now()).count());
      if (key == Terminal::kQuit) return kDone;
      if (key == 's') {
        pb::SetStagesRequest rq;
        rq.set_period(before_.stage_period() == 0 ? kStagePeriod : 0);
        rq.set_wait_ms(1'000);
        std::string why;
        const auto reply = client_.try_call(&Stub::SetStages, rq, &why);
        if (!reply) frame.set_note(why);
        else if (reply->in_force()) frame.set_stage_period(reply->period());
        else frame.set_note("the data plane did not change its stage accounting");
        if (reply && reply->in_force()) before_.set_stage_period(reply->period());  // the next press is its opposite
        continue;
      }
      if (key == Terminal::kNothing || Clock::now() >= due) frame = look();
    }
  }

  const Globals& g_;
  const TopOptions& o_;
  Client client_;
  std::vector<uint32_t> workers_;
  pb::TopSample before_;
};

}  // namespace

int run_top(const Globals& g, const TopOptions& o) { return Top(g, o).run(); }

}  // namespace millrace::cli
