// millctl xds: management servers, subscriptions and resources.
#include <cstdio>

#include "control/cli/structured.h"
#include "control/cli/table.h"
#include "control/cli/verbs.h"

namespace millrace::cli {

namespace pb = control::v1;
using Stub = pb::Control::Stub;

namespace {

Color state_color(const std::string& state) {
  if (state == "in force" || state == "connected") return Color::kGreen;
  if (state == "refused" || state == "given up") return Color::kRed;
  return state == "standby" || state == "idle" ? Color::kDim : Color::kYellow;
}

void print_streams(const pb::XdsReply& x) {
  Table servers({"SERVER", "STATE", ">FOR", "IDENTIFIER", "LAST ERROR"});
  for (const pb::XdsServer& s : x.servers())
    servers.row({s.name(),
                 {s.state(), state_color(s.state())},
                 s.current() ? duration_ms(s.since_ms()) : "",
                 s.identifier(),
                 {s.last_error(), s.state() == "connected" ? Color::kDim : Color::kRed}});
  std::fputs(servers.to_string().c_str(), stdout);
  std::printf("%s; %s streams so far, %s requests, %s responses\n\n", x.delta() ? "delta" : "state of the world",
              count(x.streams()).c_str(), count(x.requests()).c_str(), count(x.responses()).c_str());
}

void print_files(const pb::XdsReply& x) {
  Table files({"FILE", "FOR", "VERSION", ">READ", "ERROR"});
  for (const pb::XdsFile& f : x.files()) {
    std::string types;
    for (const std::string& t : f.types()) types += (types.empty() ? "" : " ") + t;
    files.row({f.path(), types, f.version(), duration_ms(f.since_ms()), {f.error(), Color::kRed}});
  }
  std::printf("%s\n", files.to_string().c_str());
}

void print_xds(const pb::XdsReply& x) {
  if (x.streaming()) print_streams(x);
  if (x.files_size() > 0) print_files(x);
  Table subscriptions(
      {"TYPE", ">ASKED", ">KNOWN", ">WAITING", "VERSION", ">ATTEMPTS", ">ACCEPTED", ">REFUSED", ">FAILED", ">GIVEN UP"});
  for (const pb::XdsSubscription& s : x.subscriptions())
    subscriptions.row({s.type(),
                       s.whole() ? "all" : count(s.asked()),
                       count(s.known()),
                       {count(s.outstanding()), s.outstanding() != 0 ? Color::kYellow : Color::kNone},
                       s.version(),
                       count(s.update_attempt()),
                       count(s.update_success()),
                       {count(s.update_rejected()), s.update_rejected() != 0 ? Color::kRed : Color::kNone},
                       count(s.update_failure()),
                       count(s.init_fetch_timeout())});
  if (subscriptions.empty()) std::puts("nothing is asked for");
  else std::fputs(subscriptions.to_string().c_str(), stdout);
  for (const pb::XdsSubscription& s : x.subscriptions())
    if (!s.last_nack().empty())
      std::printf("last refusal of %s: %s\n", s.type().c_str(), paint(s.last_nack(), Color::kRed).c_str());
  std::puts("");
  Table resources({"TYPE", "NAME", "VERSION", "STATE", ">AGE", "SERVER", ""});
  for (const pb::XdsResource& r : x.resources())
    resources.row({r.type(),
                   r.name(),
                   r.version(),
                   {r.state(), state_color(r.state())},
                   r.server().empty() ? "" : duration_ms(r.age_ms()),
                   r.server(),
                   {r.reason().empty() ? "" : "version " + r.refused_version() + ": " + r.reason(), Color::kRed}});
  if (resources.empty()) std::puts("no resource has come or is waited for");
  else std::fputs(resources.to_string().c_str(), stdout);
}

}  // namespace

int run_xds(const Globals& g, const XdsOptions& o) {
  Client client(g);
  return watch(o.watch_s, [&] {
    pb::XdsReply reply = client.call(&Stub::Xds, pb::XdsRequest());
    if (!o.filter.empty()) {
      pb::XdsReply kept = reply;
      kept.clear_resources();
      for (const pb::XdsResource& r : reply.resources())
        if ((r.type() + " " + r.name()).find(o.filter) != std::string::npos) *kept.add_resources() = r;
      reply = std::move(kept);
    }
    if (g.json() || g.yaml()) print_structured(g, reply);
    else if (!reply.configured())
      std::puts("the configuration asks no management server and no file (dynamic_resources, path_config_source)");
    else print_xds(reply);
    return static_cast<int>(kDone);
  });
}

}  // namespace millrace::cli
