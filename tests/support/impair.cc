// impair: a wire between two network interfaces that loses, repeats, reorders, damages and delays frames, by seed.
//
//   impair A B [--seed N] [--drop P] [--duplicate P] [--reorder P] [--corrupt P] [--delay-ms D] [--reorder-ms D] [--json FILE]
//
// Frames that come in on A leave by B and the other way round. Probabilities are 0..1 of one frame and direction; each direction
// draws from its own generator, so that equal traffic meets equal faults. Corruption changes one byte behind the IP header of a
// TCP segment (everything else is protected by the link's own checksum in real life). Runs until SIGTERM or SIGINT, then writes
// what it did. For tests: the interfaces are in a namespace that the test made, with checksums and segmentation offloads off.
#include <arpa/inet.h>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <queue>
#include <string>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

#include "lib/base/prng.h"
#include "lib/base/time.h"

namespace {

using namespace millrace;
using base::TimeNs;

constexpr size_t kLargestFrame = 65'600;
constexpr int kBurst = 64;                       // frames taken from one interface before the other has its turn
constexpr int kSocketBuffer = 64 * 1024 * 1024;  // bytes: what waits while this process does not run
constexpr size_t kMostWaiting = 200'000;         // frames; more are dropped (and counted): a delay times a rate beyond reason

volatile std::sig_atomic_t g_end = 0;

struct Options {
  const char* interface[2] = {};
  uint64_t seed = 1;
  double drop = 0, duplicate = 0, reorder = 0, corrupt = 0;
  TimeNs delay = 0, reorder_by = 5 * base::kMillisecond;
  const char* json = nullptr;
};

struct Counts {
  uint64_t frames = 0, bytes = 0, dropped = 0, duplicated = 0, reordered = 0, corrupted = 0, not_sent = 0;
};

struct Frame {
  TimeNs at;
  uint64_t order;
  int to;
  std::vector<uint8_t> bytes;
};
struct Later {
  bool operator()(const Frame& a, const Frame& b) const { return a.at != b.at ? a.at > b.at : a.order > b.order; }
};

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "impair: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

TimeNs now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<TimeNs>(t.tv_sec) * base::kSecond + static_cast<TimeNs>(t.tv_nsec);
}

int open_interface(const char* name) {
  const int s = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL));
  if (s < 0) die("packet socket");
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(if_nametoindex(name));
  if (address.sll_ifindex == 0) die(name);
  if (bind(s, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) die(std::string("bind ") + name);
  packet_mreq promiscuous{};
  promiscuous.mr_ifindex = address.sll_ifindex;
  promiscuous.mr_type = PACKET_MR_PROMISC;
  if (setsockopt(s, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous) != 0) die("promiscuous mode");
  const int on = 1;
  setsockopt(s, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on);
  setsockopt(s, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on);
  setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &kSocketBuffer, sizeof kSocketBuffer);
  setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &kSocketBuffer, sizeof kSocketBuffer);
  return s;
}

// Where the TCP segment of a frame begins; 0: there is none.
size_t tcp_offset(const std::vector<uint8_t>& f) {
  if (f.size() < 54) return 0;
  const unsigned type = f[12] << 8 | f[13];
  if (type == ETHERTYPE_IP && f[23] == IPPROTO_TCP) return 14 + (f[14] & 15u) * 4;
  if (type == ETHERTYPE_IPV6 && f.size() > 74 && f[20] == IPPROTO_TCP) return 54;
  return 0;
}

class Wire {
 public:
  explicit Wire(const Options& o) : options_(o), random_{base::Prng(o.seed * 2), base::Prng(o.seed * 2 + 1)} {
    for (int i = 0; i < 2; ++i) sockets_[i] = open_interface(o.interface[i]);
  }

  void run() {
    while (!g_end) {
      const TimeNs t = now();
      while (!waiting_.empty() && waiting_.top().at <= t) {
        send(waiting_.top());
        waiting_.pop();
      }
      TimeNs pause = 200 * base::kMillisecond;
      if (!waiting_.empty()) pause = std::min(pause, waiting_.top().at - std::min(t, waiting_.top().at));
      const timespec wait{0, static_cast<long>(pause)};
      pollfd p[2] = {{sockets_[0], POLLIN, 0}, {sockets_[1], POLLIN, 0}};
      if (ppoll(p, 2, &wait, nullptr) < 0 && errno != EINTR) die("poll");
      for (int i = 0; i < 2; ++i)
        if (p[i].revents != 0) receive(i);
    }
  }

  void report(std::FILE* out) const {
    std::fprintf(out, "[");
    for (int i = 0; i < 2; ++i) {
      const Counts& c = counts_[i];
      std::fprintf(
          out,
          "%s{\"from\": \"%s\", \"frames\": %lu, \"bytes\": %lu, \"dropped\": %lu, \"duplicated\": %lu, \"reordered\": %lu, "
          "\"corrupted\": %lu, \"not_sent\": %lu}",
          i == 0 ? "" : ", ", options_.interface[i], c.frames, c.bytes, c.dropped, c.duplicated, c.reordered, c.corrupted,
          c.not_sent);
    }
    std::fprintf(out, "]\n");
  }

 private:
  void receive(int from) {
    for (int i = 0; i < kBurst; ++i) {
      const ssize_t n = recv(sockets_[from], buffer_, sizeof buffer_, 0);
      if (n <= 0) return;
      pass(from, {buffer_, buffer_ + n});
    }
  }

  void pass(int from, std::vector<uint8_t> bytes) {
    const Options& o = options_;
    base::Prng& random = random_[from];
    Counts& c = counts_[from];
    ++c.frames;
    c.bytes += bytes.size();
    // Each frame draws the same amount of chance, so that what happens to one does not move the next one's.
    const bool drop = random.unit() < o.drop, duplicate = random.unit() < o.duplicate, late = random.unit() < o.reorder,
               corrupt = random.unit() < o.corrupt;
    const uint64_t where = random.next();
    if (drop || waiting_.size() > kMostWaiting) {
      ++c.dropped;
      return;
    }
    const size_t tcp = tcp_offset(bytes);
    if (corrupt && tcp != 0) {
      bytes[tcp + where % (bytes.size() - tcp)] ^= static_cast<uint8_t>(1 + (where >> 32) % 255);
      ++c.corrupted;
    }
    const TimeNs t = now() + o.delay;
    if (duplicate) {
      ++c.duplicated;
      waiting_.push({t, order_++, 1 - from, bytes});
    }
    c.reordered += late;
    waiting_.push({t + (late ? o.reorder_by : 0), order_++, 1 - from, std::move(bytes)});
  }

  void send(const Frame& f) {
    for (int tries = 0; tries < 1000; ++tries) {
      if (::send(sockets_[f.to], f.bytes.data(), f.bytes.size(), 0) >= 0) return;
      if (errno != EAGAIN && errno != ENOBUFS) break;
      pollfd p{sockets_[f.to], POLLOUT, 0};
      poll(&p, 1, 1);
    }
    ++counts_[1 - f.to].not_sent;
  }

  Options options_;
  base::Prng random_[2];
  int sockets_[2];
  Counts counts_[2];
  uint64_t order_ = 0;
  std::priority_queue<Frame, std::vector<Frame>, Later> waiting_;
  uint8_t buffer_[kLargestFrame];
};

Options parse(int argc, char** argv) {
  Options o;
  int interfaces = 0;
  const auto usage = [](const char* what) {
    std::fprintf(stderr,
                 "impair: %s\nusage: impair A B [--seed N] [--drop P] [--duplicate P] [--reorder P] [--corrupt P] "
                 "[--delay-ms D] [--reorder-ms D] [--json FILE]\n",
                 what);
    std::exit(2);
  };
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (!name.starts_with("--")) {
      if (interfaces == 2) usage("two interfaces");
      o.interface[interfaces++] = argv[i];
      continue;
    }
    if (i + 1 >= argc) usage((name + " wants a value").c_str());
    const char* text = argv[++i];
    const double value = std::strtod(text, nullptr);
    const auto milliseconds = [&] { return static_cast<TimeNs>(value * 1e6); };
    if (name == "--seed") o.seed = std::strtoull(text, nullptr, 10);
    else if (name == "--drop") o.drop = value;
    else if (name == "--duplicate") o.duplicate = value;
    else if (name == "--reorder") o.reorder = value;
    else if (name == "--corrupt") o.corrupt = value;
    else if (name == "--delay-ms") o.delay = milliseconds();
    else if (name == "--reorder-ms") o.reorder_by = milliseconds();
    else if (name == "--json") o.json = text;
    else usage(("unknown option " + name).c_str());
  }
  if (interfaces != 2) usage("two interfaces");
  return o;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  for (const int s : {SIGTERM, SIGINT}) std::signal(s, [](int) { g_end = 1; });
  static Wire wire(options);
  std::printf("impair: %s and %s are connected, seed %lu\n", options.interface[0], options.interface[1], options.seed);
  std::fflush(stdout);
  wire.run();
  wire.report(stdout);
  if (options.json != nullptr) {
    std::FILE* f = std::fopen(options.json, "w");
    if (f == nullptr) die(options.json);
    wire.report(f);
    std::fclose(f);
  }
  return 0;
}
