#include "lib/io/eal.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sched.h>
#include <string_view>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#include <utility>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>

#include "lib/io/eal_log.h"

namespace millrace::io {
namespace {

using base::Error;
using base::Status;

constexpr unsigned kMainLcore = 0;

uint64_t read_number(const char* path) {
  uint64_t v = 0;
  if (FILE* f = std::fopen(path, "r")) {
    if (std::fscanf(f, "%lu", &v) != 1) v = 0;
    std::fclose(f);
  }
  return v;
}

Status check_cores(const EalOptions& o) {
  const long online = sysconf(_SC_NPROCESSORS_CONF);
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  const bool known = sched_getaffinity(0, sizeof allowed, &allowed) == 0;
  auto check = [&](uint32_t core, const char* field) -> Status {
    if (static_cast<long>(core) >= online || core >= CPU_SETSIZE) {
      return Error{"core " + std::to_string(core) + " of " + field + " is out of range: this machine has cores 0 to " +
                   std::to_string(online - 1)};
    }
    if (known && !CPU_ISSET(core, &allowed)) {
      return Error{"core " + std::to_string(core) + " of " + field +
                   " may not be used by this process (taskset or cgroup cpuset); choose another or widen the set"};
    }
    return {};
  };
  if (o.worker_cores.size() > RTE_MAX_LCORE - 1)
    return Error{"dataplane.cores names " + std::to_string(o.worker_cores.size()) + " workers; DPDK takes at most " +
                 std::to_string(RTE_MAX_LCORE - 1)};
  if (o.worker_cores.empty()) return Error{"dataplane.cores is empty: name at least one core for a worker"};
  if (Status s = check(o.main_core, "dataplane.main_core"); !s) return s;
  for (size_t i = 0; i < o.worker_cores.size(); ++i) {
    const uint32_t c = o.worker_cores[i];
    if (Status s = check(c, "dataplane.cores"); !s) return s;
    if (o.share_cores) continue;
    if (c == o.main_core)
      return Error{"core " + std::to_string(c) +
                   " is both dataplane.main_core and in dataplane.cores: a worker needs a core of its own"};
    for (size_t j = 0; j < i; ++j)
      if (o.worker_cores[j] == c) return Error{"core " + std::to_string(c) + " appears twice in dataplane.cores"};
  }
  return {};
}

// Free pages of every size count: EAL takes what fits.
Status check_hugepages(const EalOptions& o) {
  const uint64_t free_2m = read_number("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
  const uint64_t free_1g = read_number("/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages");
  const uint64_t free_mb = free_2m * 2 + free_1g * 1024;
  if (free_mb >= o.memory_mb) return {};
  const uint64_t total_2m = read_number("/proc/sys/vm/nr_hugepages");
  const uint64_t need = total_2m + (o.memory_mb - free_mb + 1) / 2;
  return Error{"no hugepages: dataplane.memory_mb asks for " + std::to_string(o.memory_mb) + " MB and " +
               std::to_string(free_mb) + " MB are free; reserve them with 'sysctl -w vm.nr_hugepages=" + std::to_string(need) +
               "', lower memory_mb, or set dataplane.hugepages: false (slow)"};
}

}  // namespace

bool is_pci_address(const std::string& device) {
  unsigned domain, bus, dev, fn;
  int end = 0;
  const std::string head = device.substr(0, device.find(','));
  if (std::sscanf(head.c_str(), "%x:%x:%x.%x%n", &domain, &bus, &dev, &fn, &end) == 4 && head[static_cast<size_t>(end)] == 0)
    return true;
  end = 0;
  return std::sscanf(head.c_str(), "%x:%x.%x%n", &bus, &dev, &fn, &end) == 3 && head[static_cast<size_t>(end)] == 0;
}

base::Status init_eal(const EalOptions& o) {
  if (Status s = check_cores(o); !s) return s;
  if (o.hugepages)
    if (Status s = check_hugepages(o); !s) return s;

  // Lcore 0 is the main thread, lcore w + 1 worker w, wherever they run: so several may share a core, and a core's number may be
  // beyond RTE_MAX_LCORE.
  std::string lcores = std::to_string(kMainLcore) + "@" + std::to_string(o.main_core);
  for (uint32_t w = 0; w < o.worker_cores.size(); ++w)
    lcores += "," + std::to_string(worker_lcore(o, w)) + "@" + std::to_string(o.worker_cores[w]);
  std::vector<std::string> args = {"millrace-dataplane",
                                   "--lcores",
                                   lcores,
                                   "--main-lcore",
                                   std::to_string(kMainLcore),
                                   "--file-prefix",
                                   o.file_prefix,
                                   "--no-telemetry",
                                   "--log-level",
                                   "*:warning",
                                   "-m",
                                   std::to_string(o.memory_mb)};
  if (o.hugepages) {
    args.insert(args.end(),
                {"--in-memory", "--single-file-segments"});  // memfds: memif and virtio-user can share them, nothing to clean up
  } else {
    args.insert(args.end(), {"--no-huge", "--no-shconf"});
  }
  bool pci = false;
  for (const std::string& d : o.devices) {
    if (!is_pci_address(d)) continue;
    pci = true;
    args.insert(args.end(), {"-a", d});
  }
  if (!pci) args.push_back("--no-pci");

  // af_xdp's rings and maps are locked memory; the default limit of a few MiB makes them fail with "not permitted".
  const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
  (void)setrlimit(RLIMIT_MEMLOCK, &unlimited);

  // virtio_user writes to its socket to take leave of a peer that may be gone; that must not end us.
  std::signal(SIGPIPE, SIG_IGN);

  std::vector<char*> argv;
  for (std::string& a : args) argv.push_back(a.data());
  argv.push_back(nullptr);
  EalLog log;
  const int r = rte_eal_init(static_cast<int>(args.size()), argv.data());
  if (r < 0) {
    return Error{"DPDK did not start: " +
                 std::string(rte_errno == EACCES || rte_errno == EPERM
                                 ? "not enough privileges (run as root, or see README for the capabilities)"
                                 : rte_strerror(rte_errno)) +
                 log.tail()};
  }
  return {};
}

void cleanup_eal() { rte_eal_cleanup(); }

uint64_t tsc_hz() { return rte_get_tsc_hz(); }

unsigned worker_lcore(const EalOptions&, uint32_t index) { return kMainLcore + 1 + index; }

base::Status launch_worker(const EalOptions& o, uint32_t index, int (*function)(void*), void* argument) {
  const int r = rte_eal_remote_launch(function, argument, worker_lcore(o, index));
  if (r != 0)
    return Error{"worker " + std::to_string(index) + " did not start on core " + std::to_string(o.worker_cores[index]) + ": " +
                 rte_strerror(-r)};
  return {};
}

int wait_worker(const EalOptions& o, uint32_t index) { return rte_eal_wait_lcore(worker_lcore(o, index)); }

// --- EalLog -----------------------------------------------------------------------------------------------------------------

static EalLog* current_log = nullptr;  // main thread, at start

void EalLog::on_abort(int signal) {
  if (const EalLog* log = current_log; log != nullptr && log->saved_ >= 0) {
    if (log->stream_ != nullptr) std::fflush(log->stream_);
    char buffer[4096];
    ssize_t n;
    for (off_t at = 0; (n = pread(log->caught_, buffer, sizeof buffer, at)) > 0; at += n)
      (void)!write(log->saved_, buffer, static_cast<size_t>(n));
    if (log->text_ != nullptr) (void)!write(log->saved_, log->text_, log->size_);
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

EalLog::EalLog() {
  outer_ = std::exchange(current_log, this);
  abort_was_ = std::signal(SIGABRT, on_abort);
  stream_ = open_memstream(&text_, &size_);
  if (stream_ != nullptr) rte_openlog_stream(stream_);
  std::fflush(stderr);
  caught_ = memfd_create("log", MFD_CLOEXEC);
  if (caught_ >= 0) saved_ = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
  if (saved_ >= 0) dup2(caught_, STDERR_FILENO);
}

EalLog::~EalLog() {
  current_log = outer_;
  std::signal(SIGABRT, abort_was_);
  std::fflush(stderr);
  if (saved_ >= 0) {
    dup2(saved_, STDERR_FILENO);
    close(saved_);
  }
  if (caught_ >= 0) close(caught_);
  rte_openlog_stream(stderr);
  if (stream_ == nullptr) return;
  std::fclose(stream_);
  // Two lines are no news: memif misses the multi-process channel that we do without, and pages of 1 GB are rarely reserved.
  std::string_view all(text_ == nullptr ? "" : text_, told_ ? 0 : size_);
  while (!all.empty()) {
    const std::string_view line = all.substr(0, all.find('\n'));
    all.remove_prefix(std::min(all.size(), line.size() + 1));
    const bool news = line.find("mp action callback") == std::string_view::npos &&
                      line.find("hugepages reported on node") == std::string_view::npos;
    if (news) std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
  }
  std::free(text_);
}

std::string EalLog::tail() {
  told_ = true;
  if (stream_ == nullptr) return "";
  std::fflush(stream_);
  std::string all;
  if (caught_ >= 0) {
    std::fflush(stderr);
    char buffer[4096];
    for (off_t at = 0;;) {
      const ssize_t n = pread(caught_, buffer, sizeof buffer, at);
      if (n <= 0) break;
      all.append(buffer, static_cast<size_t>(n));
      at += n;
    }
  }
  if (text_ != nullptr) all.append(text_, size_);
  // The last three lines say it; the rest is prelude.
  std::string out;
  for (int lines = 0; lines < 3 && !all.empty();) {
    const size_t end = all.find_last_not_of("\n ");
    if (end == std::string::npos) break;
    const size_t newline = all.rfind('\n', end);
    const size_t from = newline == std::string::npos ? 0 : newline + 1;
    out = all.substr(from, end + 1 - from) + (out.empty() ? "" : "; " + out);
    all.resize(from);
    ++lines;
  }
  return out.empty() ? "" : " (" + out + ")";
}

}  // namespace millrace::io
