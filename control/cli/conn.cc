// millctl conn: connections of the data plane, listed, looked at, and ended.
#include <cstdio>

#include "control/cli/client.h"
#include "control/cli/structured.h"
#include "control/cli/table.h"
#include "control/cli/verbs.h"

namespace millrace::cli {

namespace pb = control::v1;

namespace {

using Stub = pb::Control::Stub;

std::string ms(double v) {
  char text[32];
  std::snprintf(text, sizeof text, v < 10 ? "%.3f" : "%.1f", v);
  return text;
}

std::string span(double seconds) { return duration_ms(static_cast<uint64_t>(seconds * 1000)); }

Color state_color(const std::string& state) {
  if (state == "ESTABLISHED") return Color::kGreen;
  return state == "SYN-SENT" || state == "SYN-RECEIVED" ? Color::kYellow : Color::kDim;
}

// The facts of one connection in the order and with the words of `ss -ti`.
std::string ss_line(const pb::Connection& c) {
  std::string out = c.congestion();
  for (const std::string& o : c.options()) {
    out += " " + o;
    if (o == "wscale") out += ":" + std::to_string(c.snd_wscale()) + "," + std::to_string(c.rcv_wscale());
  }
  const auto add = [&](const char* name, const std::string& value) { out += std::string(" ") + name + ":" + value; };
  const auto count = [&](const char* name, uint64_t value, bool always = false) {
    if (value != 0 || always) add(name, std::to_string(value));
  };
  add("rto", ms(c.rto_ms()));
  count("backoff", c.backoff());
  if (c.rtt_ms() > 0) add("rtt", ms(c.rtt_ms()) + "/" + ms(c.rttvar_ms()));
  count("mss", c.mss(), true);
  count("rcvmss", c.rcv_mss(), true);
  count("cwnd", c.cwnd(), true);
  count("ssthresh", c.ssthresh());
  if (c.bytes_known()) {
    count("bytes_sent", c.bytes_sent(), true);
    count("bytes_received", c.bytes_received(), true);
  }
  count("unacked", c.unacked());
  if (c.retransmits() != 0) add("retrans", "0/" + std::to_string(c.retransmits()));
  count("sacked_bytes", c.sacked_bytes());
  count("reord_seen", c.reordering());
  count("snd_wnd", c.snd_wnd(), true);
  count("rcv_wnd", c.rcv_wnd(), true);
  count("rcv_ooo", c.out_of_order());
  if (c.ca_state() != "open") add("ca_state", c.ca_state());
  if (!c.timer().empty()) add("timer", "(" + c.timer() + "," + ms(c.timer_ms()) + "ms)");
  return out;
}

pb::ConnectionsRequest request(const Globals& g, const ConnOptions& o, pb::ConnectionsRequest::Action action) {
  pb::ConnectionsRequest rq;
  rq.set_action(action);
  rq.set_id(o.id);
  rq.set_listener(o.listener);
  rq.set_cluster(o.cluster);
  rq.set_peer(o.peer);
  rq.set_local(o.local);
  for (const std::string& s : o.states) rq.add_states(s);
  for (const uint32_t w : o.workers) rq.add_workers(w);
  rq.set_role(o.role);
  rq.set_wait_ms(static_cast<uint32_t>(g.timeout_s * 1000));
  return rq;
}

// What is wrong with a reply, told; kDone when nothing is.
int complain(const pb::ConnectionsReply& reply) {
  if (!reply.error().empty()) {
    std::fprintf(stderr, "millctl: %s\n", reply.error().c_str());
    return kRefused;
  }
  if (!reply.connected()) {
    std::fputs("millctl: no data plane is connected; see millctl status\n", stderr);
    return kNotInForce;
  }
  if (!reply.complete()) {
    std::fputs("millctl: not every worker has answered in time; give it more with --timeout\n", stderr);
    return kNotInForce;
  }
  return kDone;
}

}  // namespace

int run_conn_list(const Globals& g, const ConnOptions& o) {
  Client client(g);
  pb::ConnectionsRequest rq = request(g, o, pb::ConnectionsRequest::LIST);
  rq.set_sort(o.top != 0 && o.sort.empty() ? "queued" : o.sort);
  rq.set_limit(o.top != 0 ? o.top : o.limit);
  const pb::ConnectionsReply reply = client.call(&Stub::Connections, rq);
  if (const int code = complain(reply); code != kDone) return code;
  if (g.json() || g.yaml()) {
    print_structured(g, reply);
    return kDone;
  }
  if (o.ids_only) {
    for (const pb::Connection& c : reply.connections()) std::puts(c.id().c_str());
    return kDone;
  }
  Table table(
      {"ID", "STATE", "LOCAL", "PEER", "ROLE", "LISTENER / CLUSTER", ">RECV-Q", ">SEND-Q", ">RTT", ">RETR", ">AGE", "SESSION"});
  for (const pb::Connection& c : reply.connections()) {
    std::string of = c.role() == "upstream" ? c.cluster() : c.listener();
    if (c.role() == "downstream" && !c.cluster().empty()) of += " / " + c.cluster();
    table.row({{c.id(), Color::kBold},
               {c.state(), state_color(c.state())},
               c.local(),
               c.remote(),
               {c.role().empty() ? "-" : c.role(), Color::kDim},
               of.empty() ? "-" : of,
               count(c.receive_queue()),
               count(c.send_queue()),
               c.rtt_ms() > 0 ? micros(c.rtt_ms() * 1000) : "-",
               {count(c.retransmits()), c.retransmits() != 0 ? Color::kYellow : Color::kNone},
               c.age_s() > 0 ? span(c.age_s()) : "-",
               {c.session().empty() ? "-" : c.session(), Color::kDim}});
  }
  if (!table.empty()) std::fputs(table.to_string().c_str(), stdout);
  std::string line = count(reply.matched()) + (reply.matched() == 1 ? " connection" : " connections");
  if (static_cast<uint64_t>(reply.connections_size()) < reply.matched())
    line += ", " + count(static_cast<uint64_t>(reply.connections_size())) + " shown (--limit, --top)";
  if (reply.time_wait() != 0) line += "; beside them " + count(reply.time_wait()) + " in TIME-WAIT";
  std::printf("%s\n", paint(line, Color::kDim).c_str());
  return kDone;
}

int run_conn_show(const Globals& g, const ConnOptions& o) {
  Client client(g);
  const pb::ConnectionsReply reply = client.call(&Stub::Connections, request(g, o, pb::ConnectionsRequest::SHOW));
  if (const int code = complain(reply); code != kDone) return code;
  if (g.json() || g.yaml()) {
    print_structured(g, reply);
    return kDone;
  }
  for (const pb::Connection& c : reply.connections()) {
    std::printf("%s  %s  %s <-> %s\n", paint(c.id(), Color::kBold).c_str(), paint(c.state(), state_color(c.state())).c_str(),
                c.local().c_str(), c.remote().c_str());
    std::printf("  %s\n", ss_line(c).c_str());
    Table facts({"", ""});
    const auto fact = [&](const char* name, const std::string& value) {
      if (!value.empty()) facts.row({{name, Color::kDim}, value});
    };
    fact("role", c.role() + (c.session().empty() ? "" : " (" + c.session() + ")"));
    fact("port", c.port());
    fact("listener", c.listener());
    fact("cluster", c.cluster());
    fact("other side", c.peer_id());
    fact("connection id", c.session_id() == 0 ? "" : std::to_string(c.session_id()) + " (in access logs)");
    fact("server name", c.sni());
    fact("alpn", c.alpn());
    char cipher[16] = "";
    if (c.tls_cipher() != 0) std::snprintf(cipher, sizeof cipher, ", 0x%04x", c.tls_cipher());
    fact("tls", c.tls_version().empty() ? "" : c.tls_version() + cipher);
    fact("requests", c.requests() == 0 ? "" : count(c.requests()));
    fact("queues", count(c.receive_queue()) + " bytes not read, " + count(c.send_queue()) + " not acknowledged");
    fact("sequence", "snd_una " + std::to_string(c.snd_una()) + ", snd_nxt " + std::to_string(c.snd_nxt()) + ", rcv_nxt " +
                         std::to_string(c.rcv_nxt()));
    fact("age", c.age_s() > 0 ? span(c.age_s()) : "");
    fact("idle", span(c.idle_s()) + " since the peer's last segment");
    std::fputs(facts.to_string(2).c_str(), stdout);
  }
  if (reply.connections_size() == 0) std::printf("%s is over; what the trace still has of it:\n", o.id.c_str());
  std::printf("\n%s\n", paint("trace", Color::kBold).c_str());
  Table trace({">", "", ""});
  for (const pb::TraceEvent& e : reply.trace()) {
    char ago[32];
    std::snprintf(ago, sizeof ago, "-%.6f s", e.ago_s());
    trace.row({{ago, Color::kDim}, {e.event(), Color::kBold}, e.text()});
  }
  if (trace.empty()) std::printf("  nothing; the worker's trace goes back %s\n", span(reply.trace_begins_ago_s()).c_str());
  else std::fputs(trace.to_string(2).c_str(), stdout);
  return kDone;
}

int run_conn_kill(const Globals& g, const ConnOptions& o) {
  const bool filtered = !o.listener.empty() || !o.cluster.empty() || !o.peer.empty() || !o.local.empty() || !o.states.empty() ||
                        !o.workers.empty() || !o.role.empty();
  if (o.id.empty() == !filtered && !o.all) {
    std::fputs(o.id.empty() ? "millctl: which connections? Give an id (millctl conn list), filters such as --peer, or --all; see "
                              "millctl conn kill --help\n"
                            : "millctl: give either an id or filters, not both\n",
               stderr);
    return kUsage;
  }
  if (o.all && (filtered || !o.id.empty())) {
    std::fputs("millctl: --all goes with neither an id nor filters\n", stderr);
    return kUsage;
  }
  Client client(g);
  const auto action = o.dry_run ? pb::ConnectionsRequest::LIST : pb::ConnectionsRequest::KILL;
  pb::ConnectionsRequest rq = request(g, o, action);
  if (o.dry_run) rq.set_limit(1);
  const pb::ConnectionsReply reply = client.call(&Stub::Connections, rq);
  if (const int code = complain(reply); code != kDone) return code;
  if (g.json() || g.yaml()) {
    print_structured(g, reply);
    return kDone;
  }
  const uint64_t n = o.dry_run ? reply.matched() : reply.killed();
  std::printf("%s%s %s\n", count(n).c_str(), n == 1 ? " connection" : " connections", o.dry_run ? "would be reset" : "reset");
  return kDone;
}

}  // namespace millrace::cli
