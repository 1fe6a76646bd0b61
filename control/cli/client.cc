#include "control/cli/client.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <pwd.h>
#include <thread>
#include <unistd.h>

#include <grpcpp/grpcpp.h>

#include "control/cli/structured.h"
#include "control/cli/table.h"

namespace millrace::cli {

namespace pb = control::v1;

namespace {

// One connection for all verbs of a batch.
struct SharedChannel {
  std::string socket;
  std::shared_ptr<grpc::Channel> channel;
} g_shared;

// Whoever sits there: behind sudo, the user before it.
std::string user_name() {
  if (const char* sudo = std::getenv("SUDO_USER"); sudo != nullptr && *sudo != 0) return sudo;
  const passwd* entry = getpwuid(getuid());
  return entry != nullptr ? entry->pw_name : "uid-" + std::to_string(getuid());
}

}  // namespace

Client::Client(const Globals& globals) : globals_(globals), socket_(globals.run_dir + "/control.sock") { open(false); }

void Client::open(bool fresh) {
  if (fresh || g_shared.channel == nullptr || g_shared.socket != socket_) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(512 << 20);
    arguments.SetMaxSendMessageSize(512 << 20);
    // Its own subchannel: a fresh channel must not inherit the back-off of one that found nobody.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    g_shared = {socket_, grpc::CreateCustomChannel("unix:" + socket_, grpc::InsecureChannelCredentials(), arguments)};
  }
  stub_ = pb::Control::NewStub(g_shared.channel);
}

void Client::prepare(grpc::ClientContext& context, double extra_s) const {
  // Two seconds beyond the wait that control itself observes.
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(static_cast<int64_t>((globals_.timeout_s + extra_s + 2) * 1000)));
  context.AddMetadata("millrace-author", user_name());
}

bool Client::again(const grpc::Status& s, double* patience_s) {
  if (s.error_code() != grpc::StatusCode::UNAVAILABLE || *patience_s <= 0) return false;
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  *patience_s -= 0.05;
  open(true);
  return true;
}

std::string Client::sentence(const grpc::Status& s) const {
  if (s.error_code() == grpc::StatusCode::UNAVAILABLE)
    return "millrace-control does not answer on " + socket_ + (access(socket_.c_str(), F_OK) == 0 ? "" : " (no such socket)") +
           "; start it with millrace-control --config FILE --run-dir " + globals_.run_dir + ", or name another --run-dir";
  if (s.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    char seconds[32];
    std::snprintf(seconds, sizeof seconds, "%.0f", globals_.timeout_s + 2);
    return std::string("no answer from millrace-control within ") + seconds + " s; give it more with --timeout";
  }
  if (s.error_code() == grpc::StatusCode::UNIMPLEMENTED)
    return "millrace-control does not know this verb: it is of another version than millctl";
  return s.error_message();
}

void Client::fail(const grpc::Status& s) const {
  std::fprintf(stderr, "millctl: %s\n", sentence(s).c_str());
  switch (s.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      g_shared.channel = nullptr;
      throw CallFailed{kNoControl};
    case grpc::StatusCode::INVALID_ARGUMENT:
      throw CallFailed{kUsage};
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      throw CallFailed{kNotInForce};
    default:
      throw CallFailed{kRefused};
  }
}

namespace {

void print_errors(const google::protobuf::RepeatedPtrField<pb::ConfigError>& errors, const std::string& before) {
  for (const pb::ConfigError& e : errors) {
    std::string line = before;
    if (!e.file().empty()) line += e.file() + ":";
    if (e.line() != 0) line += std::to_string(e.line()) + ":" + std::to_string(e.column()) + ":";
    if (!e.file().empty() || e.line() != 0) line += " ";
    if (!e.path().empty()) line += e.path() + ": ";
    std::fprintf(stderr, "%s%s\n", line.c_str(), e.message().c_str());
  }
}

void print_changes(const pb::EditReply& reply) {
  for (const pb::ObjectChange& c : reply.changes()) {
    const bool added = c.change() == "added", removed = c.change() == "removed";
    const Color color = added ? Color::kGreen : removed ? Color::kRed : Color::kYellow;
    std::printf("%s %s %s\n",
                paint(added     ? "+"
                      : removed ? "-"
                                : "~",
                      color)
                    .c_str(),
                c.kind().c_str(), paint(c.name(), Color::kBold).c_str());
    int shown = 0;
    for (const pb::FieldChange& f : c.fields()) {
      if (++shown > 40) {
        std::printf("    … and %d more fields\n", c.fields_size() - 40);
        break;
      }
      if (f.before().empty()) std::printf("    %s: %s\n", f.path().c_str(), paint(f.after(), Color::kGreen).c_str());
      else if (f.after().empty())
        std::printf("    %s: %s\n", f.path().c_str(), paint(f.before() + "  (removed)", Color::kRed).c_str());
      else
        std::printf("    %s: %s → %s\n", f.path().c_str(), paint(f.before(), Color::kRed).c_str(),
                    paint(f.after(), Color::kGreen).c_str());
    }
  }
}

}  // namespace

void print_conditions(const pb::EditReply& reply) {
  if (reply.manifests().empty()) return;
  Table table({"OBJECT", "OF", "CONDITION", "STATUS", "REASON", "MESSAGE"});
  for (const pb::ManifestStatus& s : reply.manifests())
    for (const pb::ManifestCondition& c : s.conditions()) {
      const bool good = c.status() == (c.type() == "Conflicted" ? "False" : "True");
      table.row({s.object(), s.of(), c.type(), paint(c.status(), good ? Color::kGreen : Color::kRed), c.reason(), c.message()});
    }
  std::fputs(table.to_string().c_str(), stdout);
}

int report_edit(const Globals& globals, const pb::EditReply& reply, bool dry_run) {
  if (!globals.json() && !globals.yaml()) {
    print_errors(reply.errors(), "");
    print_errors(reply.warnings(), paint("warning: ", Color::kYellow));
    if (!reply.ok()) {
      std::fprintf(stderr, "%d error%s; nothing was changed\n", reply.errors_size(), reply.errors_size() == 1 ? "" : "s");
      return kRefused;
    }
    print_changes(reply);
    print_conditions(reply);
  } else {
    print_structured(globals, reply);
  }
  if (!reply.ok()) return kRefused;
  const bool quiet = globals.json() || globals.yaml();
  if (dry_run) {
    if (!quiet && reply.changes_size() == 0) std::puts("no difference");
    return kDone;
  }
  const std::string epoch = "epoch " + std::to_string(reply.epoch());
  const std::string revision = reply.revision() == 0 ? "" : "revision " + std::to_string(reply.revision()) + ", ";
  switch (reply.acknowledgement()) {
    case pb::IN_FORCE:
      if (!quiet)
        std::printf("%s %s, in force on every worker after %s\n", paint("✓", Color::kGreen).c_str(),
                    reply.changes_size() == 0 ? ("no difference, " + epoch).c_str() : (revision + epoch).c_str(),
                    micros(static_cast<double>(reply.live_us())).c_str());
      return kDone;
    case pb::REJECTED:
      std::fprintf(stderr, "millctl: the data plane refused %s: %s; its tables are as before\n", epoch.c_str(),
                   reply.reason().c_str());
      return kNotInForce;
    case pb::NOT_CONNECTED:
      if (!quiet)
        std::printf("%s %s is published; no data plane is connected, it gets the tables when it comes\n",
                    paint("!", Color::kYellow).c_str(), epoch.c_str());
      return globals.no_wait ? kDone : kNotInForce;
    default:
      if (globals.no_wait) {
        if (!quiet) std::printf("%s published\n", epoch.c_str());
        return kDone;
      }
      std::fprintf(stderr, "millctl: %s is published, but not every worker had taken it after %.0f s; see millctl status\n",
                   epoch.c_str(), globals.timeout_s);
      return kNotInForce;
  }
}

}  // namespace millrace::cli
