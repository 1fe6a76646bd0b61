// The verbs of millctl: options as the command line fills them in, and what runs them. Each returns an exit code (client.h).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "control/cli/client.h"

namespace millrace::cli {

struct StatusOptions {
  double wait_s = 0;   // 0: do not wait
  double watch_s = 0;  // 0: once
};
struct FileOptions {
  std::vector<std::string> files;
  bool replace = false, remove = false;
};
struct ObjectOptions {
  std::string kind, name;
  bool names_only = false;
};
struct RouteOptions {
  std::string route_config, virtual_host, file, name, prefix, path, regex, separated_prefix, cluster, weighted, redirect, direct,
      timeout, prefix_rewrite, before, after;
  std::vector<std::string> headers;
  int64_t index = -1;
  bool first = false, dry_run = false;
};
enum class EndpointAction : uint8_t { kAdd, kRemove, kDrain, kUndrain };
struct EndpointOptions {
  std::string cluster, endpoint;
  uint32_t weight = 0;
  bool dry_run = false;
};
struct ExplainOptions {
  std::vector<std::string> words, headers, alpn;
  std::string listener, address, sni;
  uint32_t port = 0;
};
struct StatsOptions {
  std::string filter;
  bool all = false;
  bool per_worker = false;
  double watch_s = 0;
  double rate_s = 0;  // drops: two looks so far apart; 0: one
};
struct XdsOptions {
  std::string filter;  // of resources: text in type or name
  double watch_s = 0;
};
struct TopOptions {
  double interval_s = 1;
  bool once = false;
  std::string workers;  // "": all; else as parse_workers() reads it
  std::string stages;   // "": as it is; "on", "off", or a number
};
struct ConnOptions {
  std::string id, listener, cluster, peer, local, role, sort;
  std::vector<std::string> states;
  std::vector<uint32_t> workers;
  uint32_t top = 0, limit = 100;  // 0: no order, all
  bool ids_only = false, dry_run = false, all = false;
};
struct DrainOptions {
  uint32_t time_s = 600;  // new connections are accepted so long
  bool now = false, show = false;
  double wait_s = 0;  // 0: do not wait until all clients have gone
};
struct CaptureOptions {
  std::string file, direction;
  std::vector<std::string> filter, ports;
  uint32_t snap = 0;
  uint64_t packets = 0, bytes = 0;
  double seconds = 0;
  bool tls_keys = false;
};
struct HistoryOptions {
  uint64_t revision = 0;  // 0: the list
  uint32_t limit = 20;
};
struct RollbackOptions {
  std::string revision;  // "": the newest edit is undone
  bool dry_run = false;
};
struct DumpOptions {
  std::string file = "-";
  bool all = false;
};
struct LogOptions {
  uint32_t lines = 50;
  bool follow = false;
};
struct BatchOptions {
  std::string file = "-";
  bool keep_going = false;
};

// main.cc: one command line without the program's name; `defaults` are options given further out. Returns the exit code.
int run_words(const std::vector<std::string>& words, Globals defaults, bool in_batch);

// batch.cc
int run_batch(const Globals& g, const BatchOptions& o);
// The words of a line as a shell splits them: blanks, '…', "…" and backslash; # begins a comment at a word's beginning. False
// with *error.
bool split_words(const std::string& line, std::vector<std::string>* words, std::string* error);

// edit.cc
int run_apply(const Globals& g, const FileOptions& o, bool dry_run);
int run_check(const Globals& g, const FileOptions& o);
int run_delete(const Globals& g, const ObjectOptions& o, FileOptions files);
int run_route_add(const Globals& g, const RouteOptions& o);
int run_route_remove(const Globals& g, const RouteOptions& o);
int run_route_weight(const Globals& g, const RouteOptions& o);
int run_endpoint(const Globals& g, const EndpointOptions& o, EndpointAction action);
// The route that the options describe, as JSON for AddRoute; false with *error when they do not describe one.
bool route_text(const RouteOptions& o, std::string* text, std::string* error);
// The request for a URL: "https://host:8443/path?x" with method; false with *error.
bool explain_request(const ExplainOptions& o, control::v1::ExplainRequest* request, std::string* error);

// history.cc
int run_history(const Globals& g, const HistoryOptions& o);
int run_rollback(const Globals& g, const RollbackOptions& o);
int run_dump(const Globals& g, const DumpOptions& o);
int run_log(const Globals& g, const LogOptions& o);

// top.cc
int run_top(const Globals& g, const TopOptions& o);

// conn.cc
int run_conn_list(const Globals& g, const ConnOptions& o);
int run_conn_show(const Globals& g, const ConnOptions& o);
int run_conn_kill(const Globals& g, const ConnOptions& o);

// drain.cc
int run_drain(const Globals& g, const DrainOptions& o);
int run_undrain(const Globals& g);
// Where a drain is, in one line; "" when there is none.
std::string drain_line(const control::v1::DrainReply& r);

// capture.cc
int run_capture(const Globals& g, const CaptureOptions& o);

// show.cc
// Shows once, or again and again on a cleared screen.
int watch(double seconds, const std::function<int()>& show);
int run_status(const Globals& g, const StatusOptions& o);
int run_list(const Globals& g, const ObjectOptions& o);
int run_get(const Globals& g, const ObjectOptions& o);
int run_explain(const Globals& g, const ExplainOptions& o);  // edit.cc
int show_explanation(const Globals& g, const control::v1::ExplainReply& reply);
int run_stats(const Globals& g, const StatsOptions& o);
int run_drops(const Globals& g, const StatsOptions& o);
int run_nstat(const Globals& g, const StatsOptions& o);

// xds.cc
int run_xds(const Globals& g, const XdsOptions& o);

}  // namespace millrace::cli
