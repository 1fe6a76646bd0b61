// millctl capture: packets of the gateway's ports into a pcapng file. Control makes the bytes; this writes them.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

#include "control/cli/client.h"
#include "control/cli/table.h"
#include "control/cli/verbs.h"

namespace millrace::cli {

namespace pb = control::v1;

namespace {

volatile std::sig_atomic_t g_interrupted = 0;
void on_interrupt(int) { g_interrupted = 1; }

bool write_all(int fd, const std::string& data) {
  for (size_t at = 0; at < data.size();) {
    const ssize_t n = write(fd, data.data() + at, data.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += static_cast<size_t>(n);
  }
  return true;
}

}  // namespace

int run_capture(const Globals& g, const CaptureOptions& o) {
  const bool to_stdout = o.file == "-";
  if (to_stdout && isatty(STDOUT_FILENO) != 0) {
    std::fputs(
        "millctl: a capture is no text for a terminal: name a file with -w FILE, or pipe it: millctl capture -w - | tshark -r "
        "-\n",
        stderr);
    return kUsage;
  }
  pb::CaptureRequest rq;
  std::string filter;
  for (const std::string& word : o.filter) filter += (filter.empty() ? "" : " ") + word;
  rq.set_filter(filter);
  rq.set_snap(o.snap);
  rq.set_packets(o.packets);
  rq.set_bytes(o.bytes);
  rq.set_seconds(o.seconds);
  for (const std::string& p : o.ports) rq.add_ports(p);
  rq.set_direction(o.direction);
  rq.set_tls_keys(o.tls_keys);

  // The file is made when the first bytes have come: a filter that is refused leaves an old capture alone.
  int fd = to_stdout ? STDOUT_FILENO : -1;
  uint64_t packets = 0, dropped = 0;
  std::string ended, error;
  bool complete = false;
  g_interrupted = 0;
  struct sigaction catch_it {
  }, before{}, before_term{};
  catch_it.sa_handler = on_interrupt;
  sigaction(SIGINT, &catch_it, &before);
  sigaction(SIGTERM, &catch_it, &before_term);
  Client client(g);
  client.stream(
      &pb::Control::Stub::Capture, rq, o.seconds, [] { return g_interrupted == 0; },
      [&](const pb::CaptureChunk& chunk) {
        if (!chunk.error().empty()) {
          error = chunk.error();
          return false;
        }
        if (fd < 0) {
          // Keys and plaintext are for their owner only.
          fd = open(o.file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
          if (fd < 0) {
            error = o.file + ": " + std::strerror(errno);
            return false;
          }
        }
        if (!write_all(fd, chunk.data())) {
          error = (to_stdout ? "standard output" : o.file) + ": " + std::strerror(errno);
          return false;
        }
        packets = chunk.packets();
        dropped = chunk.dropped();
        ended = chunk.ended();
        complete = chunk.complete();
        return true;
      });
  sigaction(SIGINT, &before, nullptr);
  sigaction(SIGTERM, &before_term, nullptr);
  if (fd >= 0 && !to_stdout) close(fd);
  if (!error.empty()) {
    std::fprintf(stderr, "millctl: %s\n", error.c_str());
    return kRefused;
  }
  if (g_interrupted != 0) ended = "interrupted";
  else if (!complete) ended = "control went away";
  std::fprintf(stderr, "%s %s%s%s: %s\n", count(packets).c_str(), packets == 1 ? "packet" : "packets",
               to_stdout ? "" : (" in " + o.file).c_str(), dropped != 0 ? (", " + count(dropped) + " lost").c_str() : "",
               ended.c_str());
  return complete || g_interrupted != 0 ? kDone : kNotInForce;
}

}  // namespace millrace::cli
