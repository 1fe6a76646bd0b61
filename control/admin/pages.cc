#include "control/admin/pages.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <ctime>
#include <malloc.h>
#include <optional>
#include <re2/re2.h>
#include <vector>

#include "control/admin/json.h"
#include "control/admin/prometheus.h"
#include "control/metrics.h"
#include "control/xds_report.h"
#include "lib/tls/certificate.h"

namespace millrace::control::admin {

using stats::RegionView;

struct Pages::Page {
  const char* path;
  const char* text;
  bool post;  // changes something
  Reply (*answer)(const Pages&, const Request&);
};

const Pages::Page Pages::kPages[] = {
    {"/certs", "print certs on machine", false, [](const Pages& p, const Request&) { return p.certs(); }},
    {"/clusters", "upstream cluster status", false, [](const Pages& p, const Request& r) { return p.clusters(r); }},
    {"/config_dump", "dump current configuration", false, [](const Pages& p, const Request& r) { return p.config_dump(r); }},
    {"/drain_listeners", "accept no new connections: ?graceful (tell clients for 600 s first)", true,
     [](const Pages& p, const Request& r) { return p.drain_listeners(r); }},
    {"/healthcheck/fail", "fail the gateway's health: it is not ready, and clients are told to go", true,
     [](const Pages& p, const Request&) { return p.set_health(true); }},
    {"/healthcheck/ok", "the gateway's health is well again", true,
     [](const Pages& p, const Request&) { return p.set_health(false); }},
    {"/help", "print out list of admin commands", false, [](const Pages& p, const Request&) { return p.help(); }},
    {"/hot_restart_version", "print the hot restart compatibility version", false,
     [](const Pages&, const Request&) {
       return Reply{200, "text/plain; charset=UTF-8", "disabled"};
     }},
    {"/listeners", "print listener info", false, [](const Pages& p, const Request& r) { return p.listeners(r); }},
    {"/memory", "print current allocation/heap usage", false, [](const Pages& p, const Request&) { return p.memory(); }},
    {"/quitquitquit", "end control; the data plane goes on with the tables it has", true,
     [](const Pages& p, const Request&) {
       p.s_.quit();
       return Reply{200, "text/plain; charset=UTF-8", "OK\n"};
     }},
    {"/ready", "print server state, return 200 if LIVE, otherwise return 503", false,
     [](const Pages& p, const Request&) {
       const ServerState state = p.s_.state();
       return Reply{state == ServerState::kLive ? 200 : 503, "text/plain; charset=UTF-8", std::string(to_string(state)) + "\n"};
     }},
    {"/server_info", "print server version/status information", false,
     [](const Pages& p, const Request&) { return p.server_info(); }},
    {"/stats", "print server stats: ?filter=REGEX, ?usedonly, ?format=json|prometheus, ?type=Counters|Gauges|Histograms", false,
     [](const Pages& p, const Request& r) { return p.stats(r); }},
    {"/stats/prometheus", "print server stats in prometheus format: ?filter=REGEX, ?usedonly, ?endpoints", false,
     [](const Pages& p, const Request& r) { return p.prometheus(r); }},
};

std::string_view to_string(ServerState s) {
  return s == ServerState::kLive              ? "LIVE"
         : s == ServerState::kDraining        ? "DRAINING"
         : s == ServerState::kPreInitializing ? "PRE_INITIALIZING"
                                              : "INITIALIZING";
}

Reply bad_request(const std::string& why) { return {400, "text/plain; charset=UTF-8", why + "\n"}; }

namespace {

Reply json(const TextValue& value) { return {200, "application/json", to_json(value, true) + "\n"}; }

bool has(const Request& r, const char* name) { return r.query.contains(name); }
std::string value_of(const Request& r, const char* name) {
  const auto found = r.query.find(name);
  return found == r.query.end() ? "" : found->second;
}

// ?filter= and ?name_regex=: RE2, found anywhere. Error: what is wrong with it.
struct Filter {
  std::unique_ptr<re2::RE2> regex;  // null: everything passes
  std::string error;
  bool passes(std::string_view text) const {
    return regex == nullptr || re2::RE2::PartialMatch(re2::StringPiece(text.data(), text.size()), *regex);
  }
};
Filter filter_of(const Request& r, const char* name) {
  Filter f;
  const std::string pattern = value_of(r, name);
  if (pattern.empty()) return f;
  re2::RE2::Options quiet;
  quiet.set_log_errors(false);
  f.regex = std::make_unique<re2::RE2>(pattern, quiet);
  if (!f.regex->ok()) f.error = "Invalid regex: \"" + f.regex->error() + "\"";
  return f;
}

Reply no_dataplane() { return {503, "text/plain; charset=UTF-8", "no data plane is connected: nothing was changed\n"}; }

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

// A time in milliseconds, with Envoy's precision.
std::string milliseconds(uint64_t ns) {
  char buf[40];
  const double ms = std::round(static_cast<double>(ns) / 1e3) / 1e3;
  return {buf, std::to_chars(buf, buf + sizeof buf, ms).ptr};
}

constexpr struct {
  const char* name;
  double percent;
} kQuantiles[] = {{"P0", 0},   {"P25", 25}, {"P50", 50},     {"P75", 75},     {"P90", 90},
                  {"P95", 95}, {"P99", 99}, {"P99.5", 99.5}, {"P99.9", 99.9}, {"P100", 100}};

struct Stat {
  std::string name;
  uint64_t value;
  bool gauge;
};

}  // namespace

Reply Pages::answer(const Request& request) const {
  const std::string path = request.path == "/" || request.path.empty() ? "/" : request.path;
  if (request.method != "GET" && request.method != "POST" && request.method != "HEAD")
    return {405, "text/plain; charset=UTF-8", "Method " + request.method + " not allowed.\n"};
  if (path == "/") return front_page();
  for (const Page& p : kPages) {
    if (path != p.path) continue;
    if (p.post && request.method != "POST")
      return {405, "text/plain; charset=UTF-8", "Method " + request.method + " not allowed, POST required."};
    return p.answer(*this, request);
  }
  Reply r = help();
  r.status = 404;
  r.body = "invalid path. " + r.body;
  return r;
}

Reply Pages::set_health(bool failed) const {
  if (!s_.set_health(failed)) return no_dataplane();
  return {200, "text/plain; charset=UTF-8", "OK\n"};
}

// Envoy's ?inboundonly goes by traffic_direction, which listeners here do not have.
Reply Pages::drain_listeners(const Request& r) const {
  if (has(r, "inboundonly")) return bad_request("inboundonly is not supported: every listener drains");
  if (!s_.drain(has(r, "graceful") ? kDrainTimeS : 0)) return no_dataplane();
  return {200, "text/plain; charset=UTF-8", "OK\n"};
}

Reply Pages::help() const {
  Reply r;
  r.body = "admin commands are:\n  /: Admin home page\n";
  for (const Page& p : kPages) r.body += std::string("  ") + p.path + (p.post ? " (POST)" : "") + ": " + p.text + "\n";
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
    std::string text = p.text;
    if (p.post)
      r.body += std::string("<tr><td><form method=\"post\" action=\"") + (p.path + 1) + "\"><button>" + p.path +
                "</button></form></td><td>" + text + "</td></tr>\n";
    else r.body += std::string("<tr><td><a href=\"") + (p.path + 1) + "\">" + p.path + "</a></td><td>" + text + "</td></tr>\n";
  }
  r.body += "</table></body></html>\n";
  return r;
}

Reply Pages::stats(const Request& r) const {
  const std::string format = value_of(r, "format");
  if (format == "prometheus") return prometheus(r);
  if (!format.empty() && format != "json" && format != "text")
    return bad_request("usage: /stats?format=json  or /stats?format=prometheus");
  const std::string type = value_of(r, "type");
  if (!type.empty() && type != "Counters" && type != "Gauges" && type != "Histograms" && type != "TextReadouts" && type != "All")
    return bad_request("invalid &type= choice: All, Counters, Gauges, Histograms or TextReadouts");
  const Filter filter = filter_of(r, "filter");
  if (!filter.error.empty()) return bad_request(filter.error);
  const bool used = has(r, "usedonly"), as_json = format == "json";
  const bool counters = type.empty() || type == "All" || type == "Counters",
             gauges = type.empty() || type == "All" || type == "Gauges";
  const bool times = type.empty() || type == "All" || type == "Histograms";

  std::vector<Stat> all;
  std::vector<std::pair<std::string, stats::HistogramSnapshot>> histograms;
  const auto model = s_.resolved();
  const MetricVisit add = [&](const MetricGroup& g, std::span<const MetricValue> values) {
    for (const MetricValue& v : values) {
      if ((used && v.value == 0) || !(v.gauge ? gauges : counters)) continue;
      std::string name = g.prefix + std::string(v.name);
      if (filter.passes(name)) all.push_back({std::move(name), v.value, v.gauge});
    }
  };
  std::vector<std::pair<std::string, std::string>> texts;
  if (const std::optional<XdsStatus> xds = s_.discovery ? s_.discovery() : std::nullopt) {
    const auto accepted = s_.model();
    visit_discovery(*xds, *accepted, add);
    if (type.empty() || type == "All" || type == "TextReadouts") texts = discovery_texts(*xds, *accepted);
    std::erase_if(texts, [&](const auto& t) { return (used && t.second.empty()) || !filter.passes(t.first); });
    std::sort(texts.begin(), texts.end());
  }
  const bool there = s_.with_stats([&](const RegionView& view) {
    visit_metrics(view, *model, add);
    if (times)
      visit_histograms(view, [&](std::string_view name, const char*, const stats::HistogramSnapshot& h) {
        if ((!used || h.count() != 0) && filter.passes(name)) histograms.emplace_back(std::string(name), h);
      });
  });
  if (!there && gauges && filter.passes("server.live")) all.push_back({"server.live", 0, true});
  std::sort(all.begin(), all.end(), [](const Stat& a, const Stat& b) { return a.name < b.name; });
  std::sort(histograms.begin(), histograms.end(), [](const auto& a, const auto& b) { return a.first < b.first; });

  if (as_json) {
    TextValue stats = list();
    for (const auto& [name, value] : texts) append(stats, map({{"name", text(name)}, {"value", text(value)}}));
    for (const Stat& s : all) append(stats, map({{"name", text(s.name)}, {"value", number(s.value)}}));
    if (!histograms.empty()) {
      TextValue quantiles = list(), computed = list();
      for (const auto& q : kQuantiles) {
        TextValue percent;
        char buf[24];
        percent.text.assign(buf, std::to_chars(buf, buf + sizeof buf, q.percent).ptr);
        append(quantiles, percent);
      }
      for (const auto& [name, h] : histograms) {
        TextValue values = list();
        for (const auto& q : kQuantiles) {
          TextValue ms;
          ms.text = h.count() == 0 ? "null" : milliseconds(h.percentile(q.percent));
          append(values, map({{"interval", TextValue{TextValue::Kind::kScalar, "null", false, {}}}, {"cumulative", ms}}));
        }
        append(computed, map({{"name", text(name)}, {"values", values}}));
      }
      append(stats, map({{"histograms", map({{"supported_quantiles", quantiles}, {"computed_quantiles", computed}})}}));
    }
    return json(map({{"stats", stats}}));
  }
  Reply out;
  for (const auto& [name, value] : texts) out.body += name + ": \"" + value + "\"\n";
  for (const Stat& s : all) out.body += s.name + ": " + std::to_string(s.value) + "\n";
  for (const auto& [name, h] : histograms) {
    out.body += name + ":";
    if (h.count() == 0) out.body += " No recorded values";
    else
      for (const auto& q : kQuantiles)
        out.body += std::string(" ") + q.name + "(nan," + milliseconds(h.percentile(q.percent)) + ")";
    out.body += "\n";
  }
  return out;
}

Reply Pages::prometheus(const Request& r) const {
  const Filter filter = filter_of(r, "filter");
  if (!filter.error.empty()) return bad_request(filter.error);
  PrometheusOptions options;
  options.used_only = has(r, "usedonly");
  options.endpoints = has(r, "endpoints");
  if (filter.regex != nullptr) options.wanted = [&](std::string_view name) { return filter.passes(name); };
  const std::optional<XdsStatus> xds = s_.discovery ? s_.discovery() : std::nullopt;
  const auto accepted = s_.model();
  if (xds) options.also = [&](const PrometheusOptions::Visit& visit) { visit_discovery(*xds, *accepted, visit); };
  Reply out{200, "text/plain; version=0.0.4; charset=utf-8", ""};
  const auto model = s_.resolved();
  if (!s_.with_stats([&](const RegionView& view) { out.body = prometheus_text(view, *model, options); }))
    out.body =
        "# HELP envoy_server_live 1 while the data plane is connected to control\n# TYPE envoy_server_live gauge\n"
        "envoy_server_live 0\n" +
        prometheus_text_of_control(options);
  return out;
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
