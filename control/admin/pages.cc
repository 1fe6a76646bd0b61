#include "control/admin/pages.h"

#include <algorithm>
#include <ctime>
#include <malloc.h>

#include "control/admin/json.h"
#include "control/admin/query.h"
#include "lib/tls/certificate.h"

namespace millrace::control::admin {

struct Pages::Page {
  const char* path;
  const char* text;
  bool post;  // changes something
  Reply (*answer)(const Pages&, const Request&);
  const char* parameters = "";  // a line each
};

const Pages::Page Pages::kPages[] = {
    {"/allocprofiler", "enable/disable the allocation profiler (there is none)", true,
     [](const Pages& p, const Request& r) { return p.profiler(r); }, "enable: One of (y, n)\n"},
    {"/certs", "print certs on machine", false, [](const Pages& p, const Request&) { return p.certs(); }},
    {"/clusters", "upstream cluster status", false, [](const Pages& p, const Request& r) { return p.clusters(r); },
     "filter: Regular expression (Google re2) for clusters by name\nformat: One of (text, json)\n"},
    {"/config_dump", "dump current configuration", false, [](const Pages& p, const Request& r) { return p.config_dump(r); },
     "resource: The list to dump, such as static_clusters\n"
     "mask: Fields to dump, separated by commas; with resource, fields of every element (cluster.name)\n"
     "name_regex: Only what has names that match the regular expression (Google re2) as a whole\n"
     "include_eds: Endpoints too\n"},
    {"/contention", "dump mutex contention stats (there are none)", false,
     [](const Pages&, const Request&) {
       return Reply{200, kPlain, "Mutex contention tracing is not enabled. (It is not built in; see perf lock.)\n"};
     }},
    {"/cpuprofiler", "enable/disable the CPU profiler (there is none)", true,
     [](const Pages& p, const Request& r) { return p.profiler(r); }, "enable: One of (y, n)\n"},
    {"/drain_listeners", "accept no new connections", true, [](const Pages& p, const Request& r) { return p.drain_listeners(r); },
     "graceful: Tell clients for 600 s first\nskip_exit: Taken, and changes nothing: a drained gateway never ends by itself\n"},
    {"/healthcheck/fail", "fail the gateway's health: it is not ready, and clients are told to go", true,
     [](const Pages& p, const Request&) { return p.set_health(true); }},
    {"/healthcheck/ok", "the gateway's health is well again", true,
     [](const Pages& p, const Request&) { return p.set_health(false); }},
    {"/heap_dump", "dump the heap (not supported)", false, [](const Pages& p, const Request& r) { return p.profiler(r); }},
    {"/heapprofiler", "enable/disable the heap profiler (there is none)", true,
     [](const Pages& p, const Request& r) { return p.profiler(r); }, "enable: One of (y, n)\n"},
    {"/help", "print out list of admin commands", false, [](const Pages& p, const Request&) { return p.help(); }},
    {"/hot_restart_version", "print the hot restart compatibility version", false,
     [](const Pages&, const Request&) {
       return Reply{200, kPlain, "disabled"};
     }},
    {"/init_dump", "what waits for others before it goes into force", false,
     [](const Pages& p, const Request& r) { return p.init_dump(r); }, "mask: listener, or what else is to be shown alone\n"},
    {"/listeners", "print listener info", false, [](const Pages& p, const Request& r) { return p.listeners(r); },
     "format: One of (text, json)\n"},
    {"/logging", "query/change logging levels of control", true, [](const Pages& p, const Request& r) { return p.logging(r); },
     "paths: Several loggers, <logger>:<level>,<logger>:<level>\n"
     "level: Every logger's; One of (, trace, debug, info, warning, error, "
     "critical, off)\n<logger>: Its level\n"},
    {"/memory", "print current allocation/heap usage", false, [](const Pages& p, const Request&) { return p.memory(); }},
    {"/peak_heap_dump", "dump the heap at its peak (not supported)", false,
     [](const Pages& p, const Request& r) { return p.profiler(r); }},
    {"/quitquitquit", "end control; the data plane goes on with the tables it has", true,
     [](const Pages& p, const Request&) {
       p.s_.quit();
       return Reply{200, kPlain, "OK\n"};
     }},
    {"/ready", "print server state, return 200 if LIVE, otherwise return 503", false,
     [](const Pages& p, const Request&) {
       const ServerState state = p.s_.state();
       return Reply{state == ServerState::kLive ? 200 : 503, kPlain, std::string(to_string(state)) + "\n"};
     }},
    {"/reopen_logs", "reopen access logs, and control's own log file", true,
     [](const Pages& p, const Request&) {
       p.s_.reopen_logs();
       return Reply{200, kPlain, "OK\n"};
     }},
    {"/reset_counters", "counters of these pages begin at zero", true,
     [](const Pages& p, const Request&) { return p.reset_counters(); }},
    {"/runtime", "print runtime values", false,
     [](const Pages&, const Request&) {
       return Reply{200, "application/json", "{\n \"layers\": [],\n \"entries\": {}\n}\n"};
     }},
    {"/runtime_modify", "refused: there is no runtime layer that could be changed", true,
     [](const Pages& p, const Request& r) { return p.runtime_modify(r); }},
    {"/server_info", "print server version/status information", false,
     [](const Pages& p, const Request&) { return p.server_info(); }},
    {"/stats", "print server stats", false, [](const Pages& p, const Request& r) { return p.stats(r); },
     "usedonly: Only what is not 0\nfilter: Regular expression (Google re2) for names\ninvert_filter: What the filter does not "
     "find\nformat: One of (text, json, prometheus)\ntype: One of (All, Counters, Histograms, Gauges, "
     "TextReadouts)\nhistogram_buckets: One of (cumulative, disjoint, detailed, summary)\n"},
    {"/stats/prometheus", "print server stats in prometheus format", false,
     [](const Pages& p, const Request& r) { return p.prometheus(r); },
     "usedonly: Only what is not 0\nfilter: Regular expression (Google re2) for names\ninvert_filter: What the filter does not "
     "find\nendpoints: Endpoints too\nhistogram_buckets: One of (cumulative, summary)\n"},
};

std::string_view to_string(ServerState s) {
  return s == ServerState::kLive              ? "LIVE"
         : s == ServerState::kDraining        ? "DRAINING"
         : s == ServerState::kPreInitializing ? "PRE_INITIALIZING"
                                              : "INITIALIZING";
}

Reply bad_request(const std::string& why) { return {400, kPlain, why + "\n"}; }

namespace {

Reply json(const TextValue& value) { return {200, "application/json", to_json(value, true) + "\n"}; }

Reply no_dataplane() { return {503, kPlain, "no data plane is connected: nothing was changed\n"}; }

std::string utc(int64_t unix_seconds) {
  const time_t t = unix_seconds;
  tm parts{};
  gmtime_r(&t, &parts);
  char buf[32];
  return {buf, std::strftime(buf, sizeof buf, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

std::string seconds_since(std::chrono::steady_clock::time_point t) {
  return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - t).count()) + "s";
}

}  // namespace

Reply Pages::answer(const Request& request) const {
  const std::string path = request.path == "/" || request.path.empty() ? "/" : request.path;
  if (request.method != "GET" && request.method != "POST" && request.method != "HEAD")
    return {405, kPlain, "Method " + request.method + " not allowed.\n"};
  if (path == "/") return front_page();
  for (const Page& p : kPages) {
    if (path != p.path) continue;
    if (p.post && request.method != "POST") return {405, kPlain, "Method " + request.method + " not allowed, POST required."};
    return p.answer(*this, request);
  }
  Reply r = help();
  r.status = 404;
  r.body = "invalid path. " + r.body;
  return r;
}

Reply Pages::set_health(bool failed) const {
  if (!s_.set_health(failed)) return no_dataplane();
  return {200, kPlain, "OK\n"};
}

// Envoy's ?inboundonly goes by traffic_direction, which listeners here do not have.
Reply Pages::drain_listeners(const Request& r) const {
  if (has(r, "inboundonly")) return bad_request("inboundonly is not supported: every listener drains");
  if (!s_.drain(has(r, "graceful") ? kDrainTimeS : 0)) return no_dataplane();
  return {200, kPlain, "OK\n"};
}

Reply Pages::help() const {
  Reply r;
  r.body = "admin commands are:\n  /: Admin home page\n";
  for (const Page& p : kPages) {
    r.body += std::string("  ") + p.path + (p.post ? " (POST)" : "") + ": " + p.text + "\n";
    for (std::string_view rest = p.parameters; !rest.empty(); rest.remove_prefix(rest.find('\n') + 1))
      (r.body += "      ") += rest.substr(0, rest.find('\n') + 1);
  }
  return r;
}

Reply Pages::front_page() const {
  Reply r{200, "text/html; charset=UTF-8", ""};
  r.body =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Millrace admin</title><style>\n"
      "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:56rem;padding:0 1rem;color:#1c2733;background:#fff}\n"
      "table{border-collapse:collapse;width:100%}td{padding:.4rem .8rem .4rem 0;border-top:1px solid "
      "#d9e0e6;vertical-align:top}\n"
      "code,a{font-family:ui-monospace,monospace}a{color:#0b5cad}.state{font-weight:600}button{font:inherit}\n"
      "@media(prefers-color-scheme:dark){body{background:#11161c;color:#dbe3ea}td{border-color:#2a3541}a{color:#7db7ff}}\n"
      "</style></head><body>\n<h1>Millrace</h1>\n<p>Version " +
      s_.version + ", <span class=\"state\">" + std::string(to_string(s_.state())) + "</span>, control up for " +
      seconds_since(s_.started) + ".</p>\n<table>\n";
  for (const Page& p : kPages) {
    const std::string path = p.path + 1;
    r.body += p.post ? "<tr><td><form method=\"post\" action=\"" + path + "\"><button>/" + path + "</button></form></td><td>"
                     : "<tr><td><a href=\"" + path + "\">/" + path + "</a></td><td>";
    for (const char c : std::string(p.text) + "\n" + p.parameters)
      r.body += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '\n' ? "<br>" : std::string(1, c);
    r.body += "</td></tr>\n";
  }
  r.body += "</table></body></html>\n";
  return r;
}

Reply Pages::listeners(const Request& r) const {
  const std::string format = value_of(r, "format");
  const auto model = s_.resolved();
  TextValue statuses = list();
  Reply out;
  for (const auto& [name, l] : model->listeners()) {
    const auto& a = l->config->address().socket_address();
    const bool v6 = a.address().find(':') != std::string::npos;
    out.body += name + "::" + (v6 ? "[" + a.address() + "]" : a.address()) + ":" + std::to_string(a.port_value()) + "\n";
    append(statuses, map({{"name", text(name)}, {"local_address", socket_address(a.address(), a.port_value())}}));
  }
  if (format == "json") return json(map({{"listener_statuses", statuses}}));
  return out;
}

Reply Pages::server_info() const {
  const std::string uptime = seconds_since(s_.started);
  return json(map({{"version", text("millrace/" + s_.version)},
                   {"state", text(std::string(to_string(s_.state())))},
                   {"hot_restart_version", text("disabled")},
                   {"hot_restart_initializing", boolean(false)},
                   {"command_line_options", map({{"config_path", text(s_.config_file)}})},
                   {"node", map({{"id", text(s_.node_id)}, {"cluster", text(s_.node_cluster)}})},
                   {"uptime_current_epoch", text(uptime)},
                   {"uptime_all_epochs", text(uptime)}}));
}

Reply Pages::certs() const {
  constexpr int64_t kDay = 86'400;
  const int64_t now = s_.unix_time();
  TextValue all = list();
  const auto model = s_.resolved();
  const auto describe = [&](const std::string& pem, const std::string& file) {
    const std::string path = file.empty() ? "<inline>" : file;
    TextValue one = list();
    if (pem.empty()) return one;
    if (const auto info = tls::describe_certificate(pem, now); info.ok()) {
      TextValue names = list();
      for (const std::string& n : info->dns_names) append(names, map({{"dns", text(n)}}));
      for (const std::string& n : info->uri_names) append(names, map({{"uri", text(n)}}));
      for (const std::string& n : info->ip_names) append(names, map({{"ip_address", text(n)}}));
      append(one, map({{"path", text(path)},
                       {"serial_number", text(info->serial)},
                       {"subject_alt_names", names},
                       {"days_until_expiration", text(std::to_string(std::max<int64_t>((info->not_after - now) / kDay, 0)))},
                       {"valid_from", text(utc(info->not_before))},
                       {"expiration_time", text(utc(info->not_after))}}));
    }
    return one;
  };
  for (const auto& [name, secret] : model->secrets()) {
    const auto& chain = secret->config->tls_certificate().certificate_chain().filename();
    const auto& ca = secret->config->validation_context().trusted_ca().filename();
    if (secret->trusted_ca_pem.empty() && secret->certificate_chain_pem.empty()) continue;
    append(all, map({{"ca_cert", describe(secret->trusted_ca_pem, ca)},
                     {"cert_chain", describe(secret->certificate_chain_pem, chain)}}));
  }
  return json(map({{"certificates", all}}));
}

Reply Pages::memory() const {
  const struct mallinfo2 m = mallinfo2();
  const auto bytes = [](uint64_t n) { return text(std::to_string(n)); };
  return json(map({{"allocated", bytes(m.uordblks + m.hblkhd)},
                   {"heap_size", bytes(m.arena + m.hblkhd)},
                   {"pageheap_unmapped", bytes(0)},
                   {"pageheap_free", bytes(m.fordblks)},
                   {"total_thread_cache", bytes(0)},
                   {"total_physical_bytes", bytes(m.arena + m.hblkhd)},
                   {"millrace_tables", bytes(s_.arena_bytes())}}));
}

}  // namespace millrace::control::admin
