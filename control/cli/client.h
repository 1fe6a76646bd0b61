// The connection of millctl to control, and how a call that fails is told: one clear line, and an exit code that scripts can rely
// on.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>

#include "lib/api/millrace.control.v1.grpc.pb.h"

namespace millrace::cli {

// Exit codes of millctl, documented in README.md.
enum Exit : int {
  kDone = 0,
  kRefused = 1,  // validation said no, or the object is not there
  kUsage = 2,
  kNoControl = 3,   // nobody answers on control's socket
  kNotInForce = 4,  // accepted, but the data plane refused it, is not there, or did not take it in time
};

// Ends a verb whose call failed and was reported; thrown by Client::call, caught where the command line is run.
struct CallFailed {
  int code;
};

struct Globals {
  std::string run_dir = "/run/millrace";
  std::string output = "table";  // table, json, yaml
  double timeout_s = 30;         // of a call, and for changes to be in force
  bool no_color = false;
  bool no_wait = false;  // edits return when they are published
  bool json() const { return output == "json"; }
  bool yaml() const { return output == "yaml"; }
  uint32_t wait_ms() const { return no_wait ? 0 : static_cast<uint32_t>(timeout_s * 1000); }
};

class Client {
 public:
  explicit Client(const Globals& globals);
  // Calls `method` of the stub; when control is not there or refuses the call, says so in one line and throws CallFailed.
  // `patience_s`: keeps trying for so long while nobody answers.
  template <class Request, class Reply>
  Reply call(grpc::Status (control::v1::Control::Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
             const Request& request, double patience_s = 0) {
    Reply reply;
    while (true) {
      grpc::ClientContext context;
      prepare(context, patience_s);
      const grpc::Status s = (stub_.get()->*method)(&context, request, &reply);
      if (s.ok()) return reply;
      if (!again(s, &patience_s)) fail(s);
    }
  }
  // Calls once; nullopt, with the sentence that call() would print, when it fails. For verbs that go on and try again.
  template <class Request, class Reply>
  std::optional<Reply> try_call(grpc::Status (control::v1::Control::Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
                                const Request& request, std::string* why) {
    Reply reply;
    grpc::ClientContext context;
    prepare(context, 0);
    const grpc::Status s = (stub_.get()->*method)(&context, request, &reply);
    if (s.ok()) return reply;
    *why = sentence(s);
    if (s.error_code() == grpc::StatusCode::UNAVAILABLE) open(true);
    return std::nullopt;
  }
  // Reads a stream until it ends, `next` or `go_on` (asked every 100 ms) says false. Failures as call() has them. `seconds`: that
  // the stream may last beyond the timeout of a call; 0: an hour.
  template <class Request, class Reply>
  void stream(std::unique_ptr<grpc::ClientReader<Reply>> (control::v1::Control::Stub::*method)(grpc::ClientContext*,
                                                                                               const Request&),
              const Request& request, double seconds, const std::function<bool()>& go_on,
              const std::type_identity_t<std::function<bool(const Reply&)>>& next) {
    grpc::ClientContext context;
    prepare(context, seconds > 0 ? seconds + 10 : 3600);
    std::atomic<bool> over{false}, stopped{false};
    std::thread watcher([&] {
      while (!over) {
        if (!go_on()) {
          stopped = true;
          return context.TryCancel();
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      }
    });
    auto reader = (stub_.get()->*method)(&context, request);
    Reply reply;
    while (reader->Read(&reply)) {
      if (next(reply)) continue;
      stopped = true;
      context.TryCancel();
      break;
    }
    over = true;
    watcher.join();
    const grpc::Status s = reader->Finish();
    if (!s.ok() && !stopped) fail(s);
  }

 private:
  // Deadline, and who asks: for the history of edits.
  void prepare(grpc::ClientContext& context, double extra_s) const;
  bool again(const grpc::Status& s, double* patience_s);
  [[noreturn]] void fail(const grpc::Status& s) const;
  std::string sentence(const grpc::Status& s) const;  // for a person, without "millctl: "

  // The connection is shared by all clients of the process; `fresh` makes a new one.
  void open(bool fresh);

  const Globals& globals_;
  std::string socket_;
  std::unique_ptr<control::v1::Control::Stub> stub_;
};

// Prints what an edit did (changes, errors, epoch) and returns the exit code.
void print_conditions(const control::v1::EditReply& reply);
int report_edit(const Globals& globals, const control::v1::EditReply& reply, bool dry_run);

}  // namespace millrace::cli
