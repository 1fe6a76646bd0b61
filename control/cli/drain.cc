// millctl drain, undrain: out of service without a failed request, and back.
#include <chrono>
#include <cstdio>
#include <thread>
#include <unistd.h>

#include "control/cli/structured.h"
#include "control/cli/table.h"
#include "control/cli/verbs.h"

namespace millrace::cli {

namespace {

namespace pb = control::v1;
using Stub = pb::Control::Stub;

pb::DrainReply ask(Client& client, const Globals& g, pb::DrainRequest::Action action, uint32_t time_s = 0) {
  pb::DrainRequest rq;
  rq.set_action(action);
  rq.set_time_s(time_s);
  rq.set_wait_ms(g.wait_ms());
  return client.call(&Stub::Drain, rq);
}

int show(const Globals& g, const pb::DrainReply& r) {
  if (g.json() || g.yaml()) {
    print_structured(g, r);
  } else if (r.connected()) {
    const std::string line = drain_line(r);
    std::puts(line.empty() ? "in service" : line.c_str());
  }
  if (!r.connected()) {
    std::fprintf(stderr, "millctl: no data plane is connected (%s): nothing was changed\n", r.reason().c_str());
    return kNotInForce;
  }
  return r.in_force() || g.wait_ms() == 0 ? kDone : kNotInForce;
}

// Until no client is connected any more, with a line that changes where a person looks on.
int wait_until_gone(Client& client, const Globals& g, double wait_s) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(wait_s);
  const bool person = isatty(STDOUT_FILENO) != 0 && !g.json() && !g.yaml();
  for (;;) {
    const pb::DrainReply r = ask(client, g, pb::DrainRequest::SHOW);
    const bool gone = r.connected() && r.draining() && !r.accepting() && r.connections() == 0;
    const bool over = gone || !r.connected() || !r.draining() || std::chrono::steady_clock::now() >= end;
    if (person) std::printf("\r\033[K%s", drain_line(r).c_str());
    if (person) std::fflush(stdout);
    if (over) {
      if (person) std::printf("\r\033[K");
      const int code = show(g, r);
      if (!gone && code == kDone)
        std::fputs(!r.draining()   ? "millctl: somebody else took the drain back\n"
                   : r.accepting() ? "millctl: new clients are accepted yet; --wait should be longer than --time\n"
                                   : "millctl: clients are connected yet; --wait waits longer, conn list shows them\n",
                   stderr);
      return gone ? code : kNotInForce;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

}  // namespace

std::string drain_line(const pb::DrainReply& r) {
  if (!r.draining() && !r.health_failed()) return "";
  const std::string left = count(r.connections()) + " connection" + (r.connections() == 1 ? "" : "s") + " and " +
                           count(r.requests()) + " request" + (r.requests() == 1 ? "" : "s") + " left";
  if (!r.draining()) return "health failed: clients are told to go, new ones are accepted; " + left;
  const std::string health = r.health_failed() ? ", health failed" : "";
  if (!r.accepting()) return "drained" + health + ": nothing new is accepted; " + left;
  return "draining" + health + ": " + duration_ms(r.elapsed_ms()) + " of " + duration_ms(uint64_t{r.time_s()} * 1000) + "; " +
         left;
}

int run_drain(const Globals& g, const DrainOptions& o) {
  Client client(g);
  if (o.show) return show(g, ask(client, g, pb::DrainRequest::SHOW));
  const pb::DrainReply r = ask(client, g, pb::DrainRequest::DRAIN, o.now ? 0 : o.time_s);
  if (o.wait_s <= 0 || !r.connected()) return show(g, r);
  return wait_until_gone(client, g, o.wait_s);
}

// Both: whoever asks to be back in service means it, however it was taken out.
int run_undrain(const Globals& g) {
  Client client(g);
  ask(client, g, pb::DrainRequest::RECOVER_HEALTH);
  return show(g, ask(client, g, pb::DrainRequest::UNDRAIN));
}

}  // namespace millrace::cli
