// Verbs that look back: the history of edits and the way back, everything that is in force, what control has said.
#include <charconv>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iostream>
#include <sstream>

#include "control/cli/structured.h"
#include "control/cli/table.h"
#include "control/cli/verbs.h"
#include "control/json_text.h"

namespace millrace::cli {

namespace pb = control::v1;
using Stub = pb::Control::Stub;

namespace {

// In the reader's time zone, to the second.
std::string local_time(int64_t ms) {
  const std::time_t seconds = ms / 1000;
  std::tm parts{};
  localtime_r(&seconds, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts)};
}

std::string summary(const pb::RevisionRecord& r) {
  if (r.loaded()) return "";
  if (r.changes_size() == 0) return "-";
  const std::string& first = r.changes(0);
  const std::string more = r.changes_size() == 1 ? "" : ", and " + std::to_string(r.changes_size() - 1) + " more";
  constexpr size_t kWide = 70;
  return (first.size() > kWide ? first.substr(0, kWide) + "…" : first) + more;
}

Color color_of(const std::string& change) {
  return change.starts_with('+') ? Color::kGreen : change.starts_with('-') ? Color::kRed : Color::kNone;
}

}  // namespace

int run_history(const Globals& g, const HistoryOptions& o) {
  Client client(g);
  pb::HistoryRequest rq;
  rq.set_limit(o.revision != 0 ? 0 : o.limit);
  pb::HistoryReply reply = client.call(&Stub::History, rq);
  if (o.revision != 0) {
    for (const pb::RevisionRecord& r : reply.revisions()) {
      if (r.revision() != o.revision) continue;
      if (g.json() || g.yaml()) return print_structured(g, r), kDone;
      std::printf("revision %llu  %s  %s  %s\n", static_cast<unsigned long long>(r.revision()), local_time(r.time_ms()).c_str(),
                  r.author().empty() ? "-" : r.author().c_str(), paint(r.what(), Color::kBold).c_str());
      for (const std::string& c : r.changes()) std::printf("  %s\n", paint(c, color_of(c)).c_str());
      return kDone;
    }
    std::fprintf(stderr, "millctl: no revision %llu; millctl history --limit 0 shows all that are kept\n",
                 static_cast<unsigned long long>(o.revision));
    return kRefused;
  }
  if (g.json() || g.yaml()) return print_structured(g, reply), kDone;
  Table table({">REVISION", "TIME", "AUTHOR", "WHAT", "CHANGES"});
  for (const pb::RevisionRecord& r : reply.revisions())
    table.row(
        {std::to_string(r.revision()), local_time(r.time_ms()), r.author().empty() ? "-" : r.author(), r.what(), summary(r)});
  std::fputs(table.to_string().c_str(), stdout);
  return kDone;
}

int run_rollback(const Globals& g, const RollbackOptions& o) {
  pb::RollbackRequest rq;
  if (!o.revision.empty()) {
    uint64_t number = 0;
    const char* end = o.revision.data() + o.revision.size();
    const auto [at, error] = std::from_chars(o.revision.data(), end, number);
    if (error != std::errc() || at != end) {
      std::fprintf(stderr, "millctl: \"%s\" is no revision; millctl history shows their numbers\n", o.revision.c_str());
      return kUsage;
    }
    rq.set_revision(number);
  }
  rq.set_wait_ms(g.wait_ms());
  rq.set_dry_run(o.dry_run);
  Client client(g);
  return report_edit(g, client.call(&Stub::Rollback, rq), o.dry_run);
}

int run_dump(const Globals& g, const DumpOptions& o) {
  Client client(g);
  std::ofstream file;
  if (o.file != "-") {
    file.open(o.file, std::ios::binary | std::ios::trunc);
    if (!file) {
      std::fprintf(stderr, "millctl: %s: cannot be written\n", o.file.c_str());
      return kRefused;
    }
  }
  std::ostream& out = o.file == "-" ? std::cout : file;
  const bool json = g.json() || o.all;
  pb::DumpRequest rq;
  rq.set_json(json);
  uint64_t objects = 0;
  if (o.all) {
    pb::StatsRequest stats;
    stats.set_nonzero(true);
    out << "{\"status\": " << to_json(client.call(&Stub::Status, pb::StatusRequest()), false)
        << ",\n \"history\": " << to_json(client.call(&Stub::History, pb::HistoryRequest()), false)
        << ",\n \"stats\": " << to_json(client.call(&Stub::Stats, stats), false)
        << ",\n \"drops\": " << to_json(client.call(&Stub::Drops, pb::DropsRequest()), false) << ",\n \"log\": [";
    pb::LogRequest log;
    log.set_lines(1000);
    bool first = true;
    client.stream(
        &Stub::Log, log, 0, [] { return true; },
        [&](const pb::LogLine& line) {
          out << (first ? "\n  " : ",\n  ") << to_json(line, false);
          first = false;
          return true;
        });
    out << "],\n \"resources\": [";
  } else {
    out << (json ? "{\"resources\": [" : "resources:\n");
  }
  client.stream(
      &Stub::Dump, rq, 0, [] { return true; },
      [&](const pb::DumpedObject& object) {
        if (json) {
          out << (objects == 0 ? "\n  " : ",\n  ") << object.text();
        } else {
          std::istringstream lines(object.text());
          bool first = true;
          for (std::string line; std::getline(lines, line); first = false) out << (first ? "- " : "  ") << line << "\n";
        }
        ++objects;
        return true;
      });
  if (json) out << "]}\n";
  else if (objects == 0) out << "  []\n";
  out.flush();
  if (!out) {
    std::fprintf(stderr, "millctl: %s: could not be written to its end\n", o.file.c_str());
    return kRefused;
  }
  return kDone;
}

int run_log(const Globals& g, const LogOptions& o) {
  Client client(g);
  pb::LogRequest rq;
  rq.set_lines(o.lines);
  rq.set_follow(o.follow);
  client.stream(
      &Stub::Log, rq, 0, [] { return true; },
      [&](const pb::LogLine& line) {
        if (g.json() || g.yaml()) std::printf("%s\n", to_json(line, false).c_str());
        else
          std::printf("%s.%03d  %s\n", local_time(line.time_ms()).c_str(), static_cast<int>(line.time_ms() % 1000),
                      line.text().c_str());
        std::fflush(stdout);
        return true;
      });
  return kDone;
}

}  // namespace millrace::cli
