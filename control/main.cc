// millrace-control: reads configuration, compiles and publishes tables, gathers statistics, writes access logs, and answers
// millctl.
#include <cstdio>
#include <cstring>
#include <signal.h>
#include <string>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "control/admin/server.h"
#include "control/config_loader.h"
#include "control/control_plane.h"
#include "control/dynamic_resources.h"
#include "control/route_shadow.h"
#include "control/service.h"
#include "lib/base/service_notify.h"
#include "lib/base/time.h"

namespace millrace::control {
namespace {

// Exit codes, as documented in README.md.
enum Exit : int { kOk = 0, kConfig = 3, kMachine = 4 };

struct LogOptions {
  std::string format = "text", file, level = "info";
};

// For whoever renamed them: SIGUSR1 and POST /reopen_logs.
void reopen_logs(ControlPlane& plane) {
  plane.access_log().reopen();
  if (const base::Status s = log_book().reopen(); !s.ok()) say_as(Logger::kMain, LogLevel::kError, s.error());
}

// Alive is who still takes the locks that every answer takes: a control that hangs in one of them is started again.
int wait_for_signal(const sigset_t& signals, base::ServiceNotifier& manager, ControlPlane& plane) {
  const uint64_t every = manager.alive_every_ns();
  const timespec interval{static_cast<time_t>(every / base::kSecond), static_cast<long>(every % base::kSecond)};
  while (true) {
    if (every != 0) {
      plane.link().with_stats([](const stats::RegionView&) {});
      (void)plane.publisher().status();
      (void)plane.model();
      manager.alive();
    }
    const int signal = every != 0 ? sigtimedwait(&signals, nullptr, &interval) : sigwaitinfo(&signals, nullptr);
    if (signal > 0) return signal;
  }
}

int run(const ControlConfig& config, const LogOptions& logs, bool validate_only) {
  // Blocked before the first thread is made, so that only this thread sees them. SIGUSR1 reopens the logs.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int s : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&signals, s);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  ConfigErrors errors;
  if (validate_only) {
    const Document document = load_document_file(config.config_file);
    const DynamicOptions servers = dynamic_options(document.xds);
    Model empty;
    if (servers.servers) empty.let_servers_answer();
    if (servers.clusters) empty.let_clusters_come();
    ModelEdit edit = empty.replace(document);
    edit.errors.insert(edit.errors.end(), document.errors.begin(), document.errors.end());
    sort_errors(edit.errors);
    if (edit.errors.empty()) {
      Compiler compiler;
      edit.errors = compiler.compile(edit.model).errors;
    }
    std::fputs(to_text(edit.errors).c_str(), stderr);
    if (!edit.errors.empty()) return kConfig;
    for (const ConfigError& w : shadow_warnings(edit.model, nullptr))
      std::fprintf(stderr, "warning: %s\n", w.to_string().c_str());
    std::printf("%s: good\n", config.config_file.c_str());
    return kOk;
  }

  const LogFormat format = logs.format == "json" ? LogFormat::kJson : LogFormat::kText;
  if (const base::Status s = log_book().set_output(format, logs.file); !s.ok()) {
    std::fprintf(stderr, "millrace-control: --log-file: %s\n", s.error().c_str());
    return kMachine;
  }
  log_book().set_every_level(*log_level(logs.level));
  base::ServiceNotifier manager;  // before the first thread: it clears the environment
  auto plane = ControlPlane::start(config, &errors);
  if (!plane.ok()) {
    std::fputs(to_text(errors).c_str(), stderr);
    std::fprintf(stderr, "millrace-control: %s\n", plane.error().c_str());
    return errors.empty() ? kMachine : kConfig;
  }
  auto service = ControlService::start(**plane, config.run_dir + "/control.sock", MILLRACE_VERSION);
  if (!service.ok()) {
    std::fprintf(stderr, "millrace-control: %s\n", service.error().c_str());
    return kMachine;
  }
  auto admin = admin::Server::start(**plane, config.run_dir + "/admin.sock", MILLRACE_VERSION,
                                    {[] { kill(getpid(), SIGTERM); }, [&plane] { reopen_logs(**plane); }});
  if (!admin.ok()) {
    std::fprintf(stderr, "millrace-control: %s\n", admin.error().c_str());
    return kMachine;
  }
  say("serving " + config.run_dir + "/control.sock");
  manager.ready("serving " + config.run_dir + "/control.sock");
  while (true) {
    const int signal = wait_for_signal(signals, manager, **plane);
    if (signal == SIGUSR1) {
      reopen_logs(**plane);
      continue;
    }
    manager.stopping();
    say(std::string(strsignal(signal)) + ", stopping; the data plane goes on with the tables it has");
    (*admin)->stop();
    (*service)->stop();
    return kOk;
  }
}

}  // namespace
}  // namespace millrace::control

int main(int argc, char** argv) {
  using namespace millrace::control;
  ControlConfig config;
  LogOptions logs;
  bool validate = false;
  CLI::App app{"Millrace control: configuration in Envoy's v3 vocabulary to tables for the data plane."};
  app.add_option("-c,--config", config.config_file, "Envoy bootstrap in YAML or JSON, with Millrace's `dataplane:` section")
      ->required();
  app.add_option("--run-dir", config.run_dir, "directory of the sockets")->capture_default_str();
  app.add_option("--store", config.store_file, "file that keeps edits over restarts; default <run-dir>/control.db");
  app.add_flag("--discard-edits", config.discard_edits, "start from the configuration file even if it was edited since");
  app.add_option("--log-format", logs.format, "what the log's lines are: text or json (one object a line)")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  app.add_option("--log-file", logs.file, "file that the log is appended to, reopened at SIGUSR1; default stderr");
  app.add_option("-l,--log-level", logs.level,
                 "what is logged, of every logger, until POST /logging of the admin interface says else")
      ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error", "critical", "off"}))
      ->capture_default_str();
  app.add_flag("--validate", validate, "check the configuration, print every error, and exit (0: good, 3: not)");
  app.set_version_flag("--version", std::string("millrace-control ") + MILLRACE_VERSION);
  CLI11_PARSE(app, argc, argv);
  config.version = MILLRACE_VERSION;
  return run(config, logs, validate);
}
