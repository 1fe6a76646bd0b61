#include "control/stats_sinks.h"

#include <arpa/inet.h>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace millrace::control {

using stats::RegionView;

namespace {

constexpr int kConnectMs = 1000, kSendMs = 2000;  // a sink that takes longer is one that does not answer

socklen_t to_sockaddr(const base::IpAddress& address, uint16_t port, sockaddr_storage* out) {
  std::memset(out, 0, sizeof *out);
  if (address.is_v4()) {
    auto& in = *reinterpret_cast<sockaddr_in*>(out);
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    in.sin_addr.s_addr = htonl(address.v4_host_order());
    return sizeof in;
  }
  auto& in = *reinterpret_cast<sockaddr_in6*>(out);
  in.sin6_family = AF_INET6;
  in.sin6_port = htons(port);
  std::memcpy(&in.sin6_addr, address.bytes.data(), 16);
  return sizeof in;
}

// A connected socket, or -1 with the reason. The caller closes it.
int connect_to(int type, const base::IpAddress& address, uint16_t port, std::string* why) {
  sockaddr_storage to;
  const socklen_t length = to_sockaddr(address, port, &to);
  const int fd = socket(to.ss_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    *why = std::strerror(errno);
    return -1;
  }
  int error = connect(fd, reinterpret_cast<sockaddr*>(&to), length) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd p{fd, POLLOUT, 0};
    socklen_t size = sizeof error;
    if (poll(&p, 1, kConnectMs) != 1) error = ETIMEDOUT;
    else getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  }
  if (error == 0) return fd;
  *why = std::strerror(error);
  close(fd);
  return -1;
}

// True when the peer of an idle connection has gone: it never says anything, so whatever is readable is its end.
bool has_ended(int fd) {
  char byte;
  const ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
  return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

bool send_all(int fd, std::string_view bytes, std::string* why) {
  while (!bytes.empty()) {
    const ssize_t n = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n > 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    pollfd p{fd, POLLOUT, 0};
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) && poll(&p, 1, kSendMs) == 1) continue;
    *why = n < 0 && errno != EAGAIN && errno != EWOULDBLOCK ? std::strerror(errno) : "does not read";
    return false;
  }
  return true;
}

}  // namespace

// ---- lines -----------------------------------------------------------------------------------------------------------------

std::vector<std::string> StatsdEncoder::lines(const RegionView& view, const Model& model) {
  std::vector<std::string> out;
  if (view.header().incarnation != incarnation_) {  // another data plane: its counters begin at 0
    incarnation_ = view.header().incarnation;
    sent_.clear();
    times_.clear();
  }
  ++flush_;
  pending_times_.clear();
  visit_metrics(view, model, [&](const MetricGroup& g, std::span<const MetricValue> values) {
    if (!g.endpoint) group(g, values, out);
  });
  visit_histograms(view, [&](std::string_view name, const char*, const stats::HistogramSnapshot& h) { histogram(name, h, out); });
  return out;
}

void StatsdEncoder::group(const MetricGroup& g, std::span<const MetricValue> values, std::vector<std::string>& out) {
  if (values.empty()) return;
  // Two groups may share a prefix (a cluster and its health): which list it is shows in its first name.
  Sent& sent = sent_[g.prefix + std::string(values.front().name)];
  sent.values.resize(values.size());
  sent.flush = flush_;
  sent.pending.assign(sent.values.begin(), sent.values.end());
  std::string tags;
  const bool dog = config_.kind == StatsSinkConfig::Kind::kDogStatsd;
  if (dog)
    for (const auto& [key, value] : g.tags) tags += (tags.empty() ? "|#" : ",") + key + ":" + value;
  for (size_t i = 0; i < values.size(); ++i) {
    const MetricValue& v = values[i];
    const uint64_t before = sent.values[i];
    // Of a gauge only whether it was ever sent is kept, as 1: then it is sent for ever.
    uint64_t shown = v.value;
    if (v.gauge) {
      if (v.value == 0 && before == 0) continue;
      sent.pending[i] = 1;
    } else {
      if (v.value == before) continue;
      shown = v.value > before ? v.value - before : v.value;  // smaller: the object is another one
      sent.pending[i] = v.value;
    }
    out.push_back(config_.prefix + "." + (dog ? g.plain : g.prefix) + std::string(v.name) + ":" + std::to_string(shown) +
                  (v.gauge ? "|g" : "|c") + tags + "\n");
  }
}

void StatsdEncoder::histogram(std::string_view name, const stats::HistogramSnapshot& now, std::vector<std::string>& out) {
  const auto before = times_.find(name);
  const stats::HistogramSnapshot fresh = before == times_.end() ? now : now.since(before->second);
  if (fresh.count() == 0) return;
  for (uint32_t i = 0; i < stats::kHistogramBuckets; ++i) {
    const uint64_t n = fresh.bucket(i);
    if (n == 0) continue;
    const double middle_ms =
        (static_cast<double>(stats::histogram_bucket_begin(i)) + static_cast<double>(stats::histogram_bucket_end(i) - 1)) / 2e6;
    char value[64];
    const int length = n == 1 ? std::snprintf(value, sizeof value, ":%.6g|ms\n", middle_ms)
                              : std::snprintf(value, sizeof value, ":%.6g|ms|@%.9g\n", middle_ms, 1.0 / static_cast<double>(n));
    out.push_back(config_.prefix + "." + std::string(name) + std::string(value, static_cast<size_t>(length)));
  }
  pending_times_.emplace(name, now);
}

void StatsdEncoder::commit() {
  for (auto it = sent_.begin(); it != sent_.end();) {
    if (it->second.flush != flush_) {
      it = sent_.erase(it);  // the object is gone
    } else {
      it->second.values.swap(it->second.pending);
      ++it;
    }
  }
  for (auto& [name, h] : pending_times_) times_.insert_or_assign(name, h);
  pending_times_.clear();
}

// ---- peers -----------------------------------------------------------------------------------------------------------------

class StatsSinks::Peer {
 public:
  Peer(const StatsSinkConfig& config, const Sources& sources) : config_(config), sources_(sources), encoder_(config) {}
  ~Peer() { drop(); }

  // Counters wait while nobody can be reached.
  bool ready(const Model& model, Counters& counters) {
    if (reachable(model)) return true;
    ++counters.failures;
    return false;
  }
  std::vector<std::string> take(const RegionView& view, const Model& model) {
    std::vector<std::string> lines = encoder_.lines(view, model);
    encoder_.commit();
    return lines;
  }
  void send(const std::vector<std::string>& lines, Counters& counters) {
    const size_t bytes = config_.cluster.empty() ? config_.datagram_bytes : 64 * 1024;
    std::string why, batch;
    size_t in_batch = 0;
    for (size_t i = 0; i <= lines.size(); ++i) {
      const bool end = i == lines.size();
      if (!batch.empty() && (end || batch.size() + lines[i].size() > bytes)) {
        if (send_all(fd_, batch, &why)) {
          counters.lines += in_batch;
        } else {
          ++counters.failures;
          counters.lost_lines += in_batch + (config_.cluster.empty() ? 0 : lines.size() - i);
          trouble(why);
          // A datagram that nobody takes says nothing about the next one; a broken connection does.
          if (!config_.cluster.empty()) return drop();
        }
        batch.clear();
        in_batch = 0;
      }
      if (end) break;
      batch += lines[i];
      ++in_batch;
    }
    if (why.empty()) well();
  }

 private:
  bool reachable(const Model& model) {
    if (fd_ >= 0 && !config_.cluster.empty() && has_ended(fd_)) drop();
    if (fd_ >= 0) return true;
    std::string why;
    if (config_.cluster.empty()) {
      where_ = text(config_.address, config_.port);
      fd_ = connect_to(SOCK_DGRAM, config_.address, config_.port, &why);
      if (fd_ < 0) trouble(why);
      return fd_ >= 0;
    }
    where_ = "cluster " + config_.cluster;
    why = "has no endpoint";
    const auto endpoints = model.endpoints().find(config_.cluster);
    if (endpoints != model.endpoints().end())
      for (const auto& group : endpoints->second->config->endpoints())
        for (const auto& e : group.lb_endpoints()) {
          const auto& s = e.endpoint().address().socket_address();
          const auto address = base::IpAddress::parse(s.address());
          if (!address || e.health_status() == envoy::config::core::v3::DRAINING) continue;
          where_ = text(*address, static_cast<uint16_t>(s.port_value()));
          fd_ = connect_to(SOCK_STREAM, *address, static_cast<uint16_t>(s.port_value()), &why);
          if (fd_ >= 0) return true;
        }
    trouble(why);
    return false;
  }
  static std::string text(const base::IpAddress& address, uint16_t port) {
    return (address.is_v4() ? address.to_string() : "[" + address.to_string() + "]") + ":" + std::to_string(port);
  }
  // Said when it begins and when it ends, not with every flush.
  void trouble(const std::string& why) {
    if (why == trouble_) return;
    trouble_ = why;
    sources_.say("stats sink " + config_.name + ": " + where_ + ": " + why + "; tried again with every flush");
  }
  void well() {
    if (!trouble_.empty() || !said_) sources_.say("stats sink " + config_.name + ": sends to " + where_);
    trouble_.clear();
    said_ = true;
  }
  void drop() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

  const StatsSinkConfig& config_;
  const Sources& sources_;
  StatsdEncoder encoder_;
  int fd_ = -1;
  std::string where_, trouble_;
  bool said_ = false;
};

StatsSinks::StatsSinks(StatsSinksConfig config, Sources sources) : config_(std::move(config)), sources_(std::move(sources)) {
  for (const StatsSinkConfig& c : config_.sinks) peers_.push_back(std::make_unique<Peer>(c, sources_));
}

StatsSinks::~StatsSinks() { stop(); }

void StatsSinks::start() {
  if (!config_.sinks.empty()) thread_ = std::thread([this] { run(); });
}

void StatsSinks::stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(stop_mutex_);
    stopping_ = true;
  }
  stop_signal_.notify_all();
  thread_.join();
  flush();
}

void StatsSinks::run() {
  std::unique_lock lock(stop_mutex_);
  while (!stop_signal_.wait_for(lock, config_.flush_interval, [this] { return stopping_; })) {
    lock.unlock();
    flush();
    lock.lock();
  }
}

void StatsSinks::flush() {
  const std::lock_guard lock(mutex_);
  const auto model = sources_.model();
  // The region is held only while it is read: a sink that is slow to take the lines must not hold up its other readers.
  std::vector<std::vector<std::string>> lines(peers_.size());
  std::vector<bool> ready;
  for (const auto& peer : peers_) ready.push_back(peer->ready(*model, counters_));
  const bool connected = sources_.with_stats([&](const RegionView& view) {
    for (size_t i = 0; i < peers_.size(); ++i)
      if (ready[i]) lines[i] = peers_[i]->take(view, *model);
  });
  if (!connected) return;
  ++counters_.flushes;
  for (size_t i = 0; i < peers_.size(); ++i)
    if (ready[i]) peers_[i]->send(lines[i], counters_);
}

StatsSinks::Counters StatsSinks::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

}  // namespace millrace::control
