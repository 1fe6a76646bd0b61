#include "perf/load/report.h"

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cmath>
#include <cstdarg>
#include <cstring>
#include <memory>
#include <unistd.h>
#include <utility>

namespace millrace::load {
namespace {

constexpr double kNsPerSecond = 1e9;

[[gnu::format(printf, 2, 3)]] void append(std::string& out, const char* form, ...) {
  char text[512];
  va_list args;
  va_start(args, form);
  const int n = std::vsnprintf(text, sizeof text, form, args);
  va_end(args);
  out.append(text, static_cast<size_t>(std::clamp<int>(n, 0, sizeof text - 1)));
}

// 1234567 -> "1,234,567"
std::string grouped(uint64_t v) {
  std::string s = std::to_string(v);
  for (size_t i = s.size(); i > 3; i -= 3) s.insert(i - 3, 1, ',');
  return s;
}
std::string grouped(double v) {
  return v < 100 ? [&] {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", v);
  return std::string(text);
}()
                                               : grouped(static_cast<uint64_t>(std::llround(v)));
}

// Nanoseconds in the unit that leaves three or four digits.
std::string time_text(double ns) {
  char text[32];
  if (ns < 1e6) std::snprintf(text, sizeof text, "%.1f µs", ns / 1e3);
  else if (ns < 1e9) std::snprintf(text, sizeof text, "%.2f ms", ns / 1e6);
  else std::snprintf(text, sizeof text, "%.2f s", ns / 1e9);
  return text;
}

// printf pads by bytes, not by letters.
std::string padded(const std::string& s, size_t width) {
  const auto letters = static_cast<size_t>(std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xc0) != 0x80; }));
  return letters >= width ? s : std::string(width - letters, ' ') + s;
}

double per_second(uint64_t n, double seconds) { return seconds <= 0 ? 0 : static_cast<double>(n) / seconds; }
double gbit(uint64_t bytes, double seconds) { return per_second(bytes, seconds) * 8 / 1e9; }

bool has_clients(const Options& o) { return o.role == Role::kBoth || o.role == Role::kClients; }
bool has_servers(const Options& o) { return o.role == Role::kBoth || o.role == Role::kServers; }

const char* role_name(Role r) {
  constexpr const char* kNames[] = {"both", "clients", "servers", "forward"};
  return kNames[static_cast<uint8_t>(r)];
}

uint64_t error_count(const Counters& c) {
  uint64_t n = 0;
  for (const LoadCounterInfo& i : kLoadCounters)
    if (i.kind == CounterKind::kError) n += c.*i.member;
  return n;
}

// What was measured, in the words of the options.
std::string headline(const Options& o) {
  std::string s = std::string("millrace-load: role ") + role_name(o.role);
  if (has_clients(o)) {
    s += o.rate > 0 ? ", open loop, " + grouped(o.rate) + " requests/s offered" : ", closed loop";
    s += ", " + grouped(uint64_t{o.connections}) + " connections";
    if (o.requests_per_connection != 0)
      s += ", " + grouped(uint64_t{o.requests_per_connection}) +
           (o.requests_per_connection == 1 ? " request each" : " requests each");
    if (o.pipeline > 1) s += ", " + std::to_string(o.pipeline) + " in flight on each";
    if (o.idle != 0) s += ", " + grouped(uint64_t{o.idle}) + " idle beside";
    if (o.tls_clients) s += o.tls12 ? ", TLS 1.2" : ", TLS 1.3";
  }
  for (const WireOptions& w : o.wires) s += ", " + w.devargs;
  return s;
}

void row(std::string& out, const char* name, const std::string& total, const std::string& rate, const std::string& more = {}) {
  append(out, "  %-20s %16s %14s%s%s\n", name, total.c_str(), rate.c_str(), more.empty() ? "" : "   ", more.c_str());
}

void latency_rows(std::string& out, const char* name, const Histogram& h) {
  constexpr size_t kWidth = 11;
  append(out, "  %-20s", name);
  for (const char* head : {"mean", "p50", "p90", "p99", "p99.9", "max"}) out += padded(head, kWidth);
  append(out, "\n  %-20s", "");
  out += padded(time_text(h.mean()), kWidth);
  for (const double p : {50.0, 90.0, 99.0, 99.9}) out += padded(time_text(static_cast<double>(h.percentile(p))), kWidth);
  out += padded(time_text(static_cast<double>(h.max())), kWidth) + "\n";
}

std::string json_string(const std::string& s) {
  std::string out = "\"";
  for (const char c : s) {
    if (c == '"' || c == '\\') out += {'\\', c};
    else if (static_cast<unsigned char>(c) < ' ') append(out, "\\u%04x", c);
    else out += c;
  }
  return out + "\"";
}

std::string json_strings(const std::vector<std::string>& list) {
  std::string out = "[";
  for (const std::string& s : list) out += (out.size() > 1 ? ", " : "") + json_string(s);
  return out + "]";
}

std::string json_latency(const Histogram& h) {
  std::string out;
  append(out,
         R"({"mean": %.3f, "p50": %.3f, "p90": %.3f, "p99": %.3f, "p999": %.3f, "p9999": %.3f, "max": %.3f, "count": %)" PRIu64
         "}",
         h.mean() / 1e3, static_cast<double>(h.percentile(50)) / 1e3, static_cast<double>(h.percentile(90)) / 1e3,
         static_cast<double>(h.percentile(99)) / 1e3, static_cast<double>(h.percentile(99.9)) / 1e3,
         static_cast<double>(h.percentile(99.99)) / 1e3, static_cast<double>(h.max()) / 1e3, h.count());
  return out;
}

const char* yes(bool b) { return b ? "true" : "false"; }

base::Status write_file(const std::string& file, const std::string& text) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> out(std::fopen(file.c_str(), "w"), &std::fclose);
  if (out == nullptr || std::fwrite(text.data(), 1, text.size(), out.get()) != text.size() || std::fflush(out.get()) != 0) {
    return base::Error{file + ": " + std::strerror(errno)};
  }
  return {};
}

}  // namespace

std::string progress_line(const Options& o, const Sample& start, const Sample& before, const Sample& now) {
  const Counters d = now.counters - before.counters;
  const double seconds = static_cast<double>(now.now - before.now) / kNsPerSecond;
  std::string out;
  append(out, "%7.1f s  %-10s", static_cast<double>(now.now - start.now) / kNsPerSecond, to_string(now.phase));
  if (has_clients(o)) {
    append(out, " %11s requests/s", grouped(per_second(d.responses, seconds)).c_str());
    append(out, " %10s connections", grouped(now.client_connections).c_str());
    if (o.requests_per_connection != 0 || o.idle != 0 || now.phase == Phase::kRamping) {
      append(out, " (%s/s new)", grouped(per_second(d.connected, seconds)).c_str());
    }
    if (o.rate > 0) append(out, "  %s waiting", grouped(now.backlog).c_str());
  } else if (has_servers(o)) {
    append(out, " %11s requests/s", grouped(per_second(d.server_requests, seconds)).c_str());
    append(out, " %10s connections", grouped(now.server_connections).c_str());
  } else {
    append(out, " %11s frames/s", grouped(per_second(d.forwarded, seconds)).c_str());
  }
  append(out, "  rx %.2f tx %.2f Gbit/s", gbit(d.rx_bytes, seconds), gbit(d.tx_bytes, seconds));
  if (seconds > 0) append(out, "  busy %.0f %%", 100 * per_second(now.busy_ns - before.busy_ns, seconds) / kNsPerSecond);
  if (const uint64_t errors = error_count(now.counters); errors != 0) append(out, "  ERRORS %s", grouped(errors).c_str());
  return out;
}

std::string result_table(const Options& o, const RunResult& r) {
  std::string out = headline(o) + "\n";
  for (const std::string& n : r.notes) out += "  note: " + n + "\n";
  if (!r.failure.empty()) return out + "  NOTHING WAS MEASURED: " + r.failure + "\n";
  const Counters d = r.end.counters - r.start.counters;
  const double s = r.seconds();
  append(out, "  %-20s %16s %14s   %.2f s measured, generator busy %.0f %%\n", "", "total", "a second", s, 100 * r.busy());
  if (has_clients(o)) {
    row(out, "requests", grouped(d.responses), grouped(per_second(d.responses, s)));
    row(out, "connections", grouped(d.connected), grouped(per_second(d.connected, s)));
    if (o.tls_clients) {
      row(out, "handshakes, full", grouped(d.handshakes_full), grouped(per_second(d.handshakes_full, s)));
      row(out, "handshakes, resumed", grouped(d.handshakes_resumed), grouped(per_second(d.handshakes_resumed, s)));
    }
    std::string rate;
    append(rate, "%.3f Gbit/s", gbit(d.response_bytes, s));
    row(out, "response bodies", grouped(d.response_bytes) + " B", rate);
    if (o.idle != 0) row(out, "idle connections", grouped(r.end.idle_connections), "");
  }
  if (has_servers(o)) {
    row(out, "server requests", grouped(d.server_requests), grouped(per_second(d.server_requests, s)));
    row(out, "server connections", grouped(d.accepted), grouped(per_second(d.accepted, s)));
    if (o.tls_servers) {
      row(out, "server handshakes", grouped(d.server_handshakes_full), grouped(per_second(d.server_handshakes_full, s)), "full");
      row(out, "", grouped(d.server_handshakes_resumed), grouped(per_second(d.server_handshakes_resumed, s)), "resumed");
    }
  }
  if (o.role == Role::kForward) row(out, "frames sent back", grouped(d.forwarded), grouped(per_second(d.forwarded, s)));
  std::string wire;
  append(wire, "%.3f Gbit/s", gbit(d.rx_bytes, s));
  row(out, "frames received", grouped(d.rx_frames), grouped(per_second(d.rx_frames, s)), wire);
  wire.clear();
  append(wire, "%.3f Gbit/s", gbit(d.tx_bytes, s));
  row(out, "frames sent", grouped(d.tx_frames), grouped(per_second(d.tx_frames, s)), wire);
  if (has_clients(o)) {
    if (r.latency.count() != 0) latency_rows(out, o.rate > 0 ? "latency, from due" : "latency", r.latency);
    if (r.connect_latency.count() != 0) latency_rows(out, "connecting", r.connect_latency);
    if (r.latency.clipped() != 0)
      out += "  " + grouped(r.latency.clipped()) + " latencies of more than 60 s are recorded as 60 s\n";
  }
  bool head = false;
  for (const LoadCounterInfo& i : kLoadCounters) {
    if (i.kind != CounterKind::kNote || r.last.counters.*i.member == 0) continue;
    if (!std::exchange(head, true)) out += "  to be noted\n";
    append(out, "    %-18s %14s   %s\n", i.name, grouped(r.last.counters.*i.member).c_str(), i.text);
  }
  if (error_count(r.last.counters) != 0) out += "  ERRORS\n";
  for (const LoadCounterInfo& i : kLoadCounters) {
    if (i.kind != CounterKind::kError || r.last.counters.*i.member == 0) continue;
    append(out, "    %-18s %14s   %s\n", i.name, grouped(r.last.counters.*i.member).c_str(), i.text);
  }
  if (!r.clean()) out += "  NOT CLEAN: these figures are of a run with errors\n";
  else if (has_clients(o))
    out += o.body_check == BodyCheck::kPattern ? "  clean: every answer's status, length and bytes were right\n"
                                               : "  clean: every answer's status and length were right\n";
  else out += "  clean\n";
  return out;
}

std::string result_warnings(const Options& o, const RunResult& r) {
  std::string out;
  const auto say = [&](const std::string& s) { out += "millrace-load: " + s + "\n"; };
  if (!r.failure.empty()) {
    say("NOTHING WAS MEASURED: " + r.failure);
    return out;
  }
  if (r.interrupted)
    say("interrupted: measured for " + grouped(r.seconds()) + " s of " +
        grouped(static_cast<double>(o.duration_ns) / kNsPerSecond));
  if (!r.clean()) {
    std::string list;
    for (const LoadCounterInfo& i : kLoadCounters) {
      if (i.kind == CounterKind::kError && r.last.counters.*i.member != 0)
        list += (list.empty() ? "" : ", ") + std::string(i.name) + " " + grouped(r.last.counters.*i.member);
    }
    say("A RUN WITH ERRORS (" + list + "): do not quote its figures");
  }
  if (r.busy() > kBusyWarning) {
    char text[160];
    std::snprintf(text, sizeof text,
                  "the generator was busy for %.0f %% of the time: it may have been the limit, not what it measures",
                  100 * r.busy());
    say(text);
  }
  if (has_clients(o) && r.latency.count() == 0 && o.connections != 0) say("no request was answered while it was measured");
  else if (o.rate > 0 && !r.interrupted) {
    const double reached = per_second(r.end.counters.responses - r.start.counters.responses, r.seconds());
    if (reached < kRateReached * o.rate) {
      say("of " + grouped(o.rate) + " requests/s offered " + grouped(reached) +
          " were answered: latencies are those of a growing queue");
    }
  }
  return out;
}

std::string result_json(const Options& o, const RunResult& r) {
  const Counters d = r.end.counters - r.start.counters;
  const double s = r.seconds();
  std::string out;
  append(out, R"({"version": 1, "clean": %s, "role": "%s", "loop": "%s", "offered_rate": %.3f, "seconds": %.6f, )",
         yes(r.clean()), role_name(o.role), o.rate > 0 ? "open" : "closed", r.offered_rate, s);
  append(out, R"("requests": %)" PRIu64 R"(, "requests_per_s": %.3f, "connections": %)" PRIu64 R"(, "connections_per_s": %.3f, )",
         d.responses, per_second(d.responses, s), d.connected, per_second(d.connected, s));
  append(out, R"("handshakes_full_per_s": %.3f, "handshakes_resumed_per_s": %.3f, "response_gbit_per_s": %.6f, )",
         per_second(d.handshakes_full, s), per_second(d.handshakes_resumed, s), gbit(d.response_bytes, s));
  append(out, R"("frames_per_s": {"rx": %.3f, "tx": %.3f}, "wire_gbit_per_s": {"rx": %.6f, "tx": %.6f}, )",
         per_second(d.rx_frames, s), per_second(d.tx_frames, s), gbit(d.rx_bytes, s), gbit(d.tx_bytes, s));
  out += "\"latency_us\": " + json_latency(r.latency) + ", \"connect_latency_us\": " + json_latency(r.connect_latency) + ", ";
  append(out,
         R"("idle_connections": %)" PRIu64 R"(, "server_requests": %)" PRIu64
         R"(, "server_requests_per_s": %.3f, "forwarded_per_s": %.3f, "flood_per_s": %.3f, "woken": %)" PRIu64
         R"(, "busy": %.4f, )",
         r.end.idle_connections, d.server_requests, per_second(d.server_requests, s), per_second(d.forwarded, s),
         per_second(d.flood_frames, s), r.last.counters.woken, r.busy());
  for (const auto& [name, kind] : {std::pair{"errors", CounterKind::kError}, std::pair{"notes_counted", CounterKind::kNote}}) {
    append(out, "\"%s\": {", name);
    bool first = true;
    for (const LoadCounterInfo& i : kLoadCounters) {
      if (i.kind == kind)
        append(out, "%s\"%s\": %" PRIu64, std::exchange(first, false) ? "" : ", ", i.name, r.last.counters.*i.member);
    }
    out += "}, ";
  }
  append(out, "\"interrupted\": %s, \"failure\": ", yes(r.interrupted));
  out += json_string(r.failure) + ", \"drivers\": " + json_strings(r.drivers) + ", \"notes\": " + json_strings(r.notes) + "}\n";
  return out;
}

bool report(const Options& o, const RunResult& r) {
  bool written = true;
  const bool json_on_stdout = o.json_file == "-";
  if (!o.quiet) {
    std::FILE* out = json_on_stdout ? stderr : stdout;
    std::fputs(result_table(o, r).c_str(), out);
    std::fflush(out);
  }
  std::fputs(result_warnings(o, r).c_str(), stderr);
  const auto complain = [&](const char* option, const std::string& what) {
    std::fprintf(stderr, "millrace-load: %s: %s\n", option, what.c_str());
    written = false;
  };
  if (json_on_stdout) {
    const std::string text = result_json(o, r);
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
      complain("--json", std::string("standard output: ") + std::strerror(errno));
  } else if (!o.json_file.empty()) {
    if (base::Status s = write_file(o.json_file, result_json(o, r)); !s) complain("--json", s.error());
  }
  if (!o.histogram_file.empty()) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> out(std::fopen(o.histogram_file.c_str(), "w"), &std::fclose);
    if (out == nullptr || !r.latency.write_percentiles(out.get()))
      complain("--histogram", o.histogram_file + ": " + std::strerror(errno));
  }
  return written;
}

Progress::Progress(const Options& options, std::FILE* out) : options_(options), out_(out), terminal_(isatty(fileno(out)) == 1) {}

void Progress::line(const Sample& now) {
  if (!terminal_ || now.now == 0) return;
  if (!std::exchange(begun_, true)) {
    start_ = before_ = now;
    return;
  }
  std::fprintf(out_, "%s\n", progress_line(options_, start_, before_, now).c_str());
  before_ = now;
}

}  // namespace millrace::load
