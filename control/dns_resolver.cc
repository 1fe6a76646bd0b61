#include "control/dns_resolver.h"

#include <ares.h>
#include <arpa/inet.h>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <netdb.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <thread>
#include <unistd.h>

namespace millrace::control {

namespace {

using Cluster = envoy::config::cluster::v3::Cluster;

constexpr int kQueryTimeoutMs = 5000, kQueryTries = 4;  // Envoy's defaults, which are c-ares's
constexpr int kIdlePollMs = 60'000;

struct Channel {
  ares_channel channel = nullptr;
  std::map<ares_socket_t, short> sockets;  // what to poll for
  bool failed = false;
  std::string error;

  Channel() = default;
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  ~Channel() {
    if (channel != nullptr) ares_destroy(channel);
  }
};

void socket_state(void* data, ares_socket_t fd, int readable, int writable) {
  Channel& c = *static_cast<Channel*>(data);
  const short events = static_cast<short>((readable ? POLLIN : 0) | (writable ? POLLOUT : 0));
  if (events == 0) c.sockets.erase(fd);
  else c.sockets[fd] = events;
}

// "10.0.0.1:53,[fd00::1]:53", as ares_set_servers_ports_csv() wants it.
std::string servers(const DnsResolverConfig& config) {
  std::string out;
  for (const auto& r : config.resolvers()) {
    const auto& s = r.socket_address();
    const bool v6 = s.address().find(':') != std::string::npos;
    if (!out.empty()) out += ',';
    out += (v6 ? "[" + s.address() + "]" : s.address()) + ":" + std::to_string(s.port_value());
  }
  return out;
}

std::unique_ptr<Channel> open_channel(const DnsResolverConfig& config) {
  auto out = std::make_unique<Channel>();
  ares_options o{};
  int mask = ARES_OPT_SOCK_STATE_CB | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_FLAGS;
  o.sock_state_cb = socket_state;
  o.sock_state_cb_data = out.get();
  o.timeout =
      config.has_query_timeout_seconds() ? static_cast<int>(config.query_timeout_seconds().value() * 1000) : kQueryTimeoutMs;
  o.tries = config.has_query_tries() ? static_cast<int>(config.query_tries().value()) : kQueryTries;
  o.flags = ARES_FLAG_EDNS;
  if (config.dns_resolver_options().use_tcp_for_dns_lookups()) o.flags |= ARES_FLAG_USEVC;
  if (config.dns_resolver_options().no_default_search_domain()) o.flags |= ARES_FLAG_NOSEARCH;
  mask |= config.rotate_nameservers() ? ARES_OPT_ROTATE : ARES_OPT_NOROTATE;
  int status = ares_init_options(&out->channel, &o, mask);
  if (status == ARES_SUCCESS && config.resolvers_size() > 0) {
    // As a fallback they count only where the host names no server: c-ares then has its default, 127.0.0.1.
    bool use = true;
    if (config.use_resolvers_as_fallback()) {
      ares_addr_port_node* known = nullptr;
      if (ares_get_servers_ports(out->channel, &known) == ARES_SUCCESS) {
        const bool just_the_default = known != nullptr && known->next == nullptr && known->family == AF_INET &&
                                      known->addr.addr4.s_addr == htonl(INADDR_LOOPBACK) && known->udp_port == 0;
        use = known == nullptr || just_the_default;
        ares_free_data(known);
      }
    }
    if (use) status = ares_set_servers_ports_csv(out->channel, servers(config).c_str());
  }
  out->failed = status != ARES_SUCCESS;
  if (out->failed) out->error = ares_strerror(status);
  return out;
}

}  // namespace

struct DnsResolver::Impl {
  struct Lookup {
    Impl* impl;
    Channel* channel;
    DnsQuestion question;
    int family;      // asked for now
    int other = -1;  // to be asked for when there is none; -1: no other
  };

  explicit Impl(Done d) : done(std::move(d)), wake(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    ares_library_init(ARES_LIB_INIT_ALL);
    thread = std::thread([this] { run(); });
  }
  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    poke();
    thread.join();
    channels.clear();  // ends what is under way with ARES_EDESTRUCTION
    close(wake);
    ares_library_cleanup();
  }
  void poke() const {
    const uint64_t one = 1;
    (void)!write(wake, &one, sizeof one);
  }

  void start(const DnsQuestion& q) {
    auto& channel = channels[q.resolver];
    if (channel == nullptr || channel->failed) {
      DnsResolverConfig config;
      config.ParseFromString(q.resolver);
      channel = open_channel(config);
      if (channel->failed) return done(q, {.ok = false, .error = channel->error, .addresses = {}, .ttl = 0});
    }
    int family = AF_INET6, other = -1;
    switch (q.family) {
      case Cluster::V4_ONLY:
        family = AF_INET;
        break;
      case Cluster::V6_ONLY:
        break;
      case Cluster::V4_PREFERRED:
        family = AF_INET;
        other = AF_INET6;
        break;
      case Cluster::ALL:
        family = AF_UNSPEC;
        break;
      default:
        other = AF_INET;
    }
    send(new Lookup{this, channel.get(), q, family, other});
  }
  void send(Lookup* lookup) {
    ares_addrinfo_hints hints{};
    hints.ai_family = lookup->family;
    hints.ai_flags = ARES_AI_NOSORT;
    hints.ai_socktype = SOCK_STREAM;
    ares_getaddrinfo(lookup->channel->channel, lookup->question.name.c_str(), nullptr, &hints, answered, lookup);
  }
  static void answered(void* arg, int status, int, ares_addrinfo* info) {
    std::unique_ptr<Lookup> l(static_cast<Lookup*>(arg));
    if (status == ARES_EDESTRUCTION || status == ARES_ECANCELLED) {
      if (info != nullptr) ares_freeaddrinfo(info);
      return;
    }
    DnsAnswer a;
    a.ok = status == ARES_SUCCESS || status == ARES_ENODATA || status == ARES_ENOTFOUND;
    if (!a.ok) a.error = ares_strerror(status);
    for (ares_addrinfo_node* n = info != nullptr ? info->nodes : nullptr; n != nullptr; n = n->ai_next) {
      char text[INET6_ADDRSTRLEN];
      const void* raw = n->ai_family == AF_INET ? static_cast<const void*>(&reinterpret_cast<sockaddr_in*>(n->ai_addr)->sin_addr)
                                                : &reinterpret_cast<sockaddr_in6*>(n->ai_addr)->sin6_addr;
      if (inet_ntop(n->ai_family, raw, text, sizeof text) == nullptr) continue;
      if (const auto ip = base::IpAddress::parse(text)) a.addresses.push_back(*ip);
      const auto ttl = static_cast<uint32_t>(std::max(n->ai_ttl, 0));
      a.ttl = a.addresses.size() == 1 ? ttl : std::min(a.ttl, ttl);
    }
    if (info != nullptr) ares_freeaddrinfo(info);
    if (a.addresses.empty() && l->other >= 0) {
      l->family = std::exchange(l->other, -1);
      Lookup* again = l.release();
      return again->impl->send(again);
    }
    l->impl->done(l->question, a);
  }

  void run() {
    for (;;) {
      std::deque<DnsQuestion> asked;
      {
        const std::lock_guard lock(mutex);
        if (stopping) return;
        asked.swap(queue);
      }
      for (const DnsQuestion& q : asked) start(q);
      std::vector<pollfd> fds = {{wake, POLLIN, 0}};
      std::vector<std::pair<Channel*, ares_socket_t>> owners = {{nullptr, 0}};
      int timeout = kIdlePollMs;
      for (auto& [key, c] : channels) {
        if (c->failed) continue;
        for (const auto& [fd, events] : c->sockets) {
          fds.push_back({fd, events, 0});
          owners.emplace_back(c.get(), fd);
        }
        timeval most{kIdlePollMs / 1000, 0}, tv{};
        const timeval* t = ares_timeout(c->channel, &most, &tv);
        timeout = std::min(timeout, static_cast<int>(t->tv_sec * 1000 + (t->tv_usec + 999) / 1000));
      }
      {
        const std::lock_guard lock(mutex);
        if (stopping) return;
        if (!queue.empty()) timeout = 0;  // asked by an answer
      }
      poll(fds.data(), fds.size(), timeout);
      uint64_t count;
      if (fds[0].revents != 0) (void)!read(wake, &count, sizeof count);
      for (size_t i = 1; i < fds.size(); ++i)
        if (fds[i].revents != 0)
          ares_process_fd(owners[i].first->channel, (fds[i].revents & ~POLLOUT) != 0 ? owners[i].second : ARES_SOCKET_BAD,
                          (fds[i].revents & POLLOUT) != 0 ? owners[i].second : ARES_SOCKET_BAD);
      for (auto& [key, c] : channels)
        if (!c->failed) ares_process_fd(c->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);  // timeouts
    }
  }

  Done done;
  int wake;
  std::mutex mutex;  // guards queue, stopping
  std::deque<DnsQuestion> queue;
  bool stopping = false;
  std::map<std::string, std::unique_ptr<Channel>> channels;  // by resolver configuration; of the thread
  std::thread thread;
};

DnsResolver::DnsResolver(Done done) : impl_(std::make_unique<Impl>(std::move(done))) {}
DnsResolver::~DnsResolver() = default;

void DnsResolver::resolve(const DnsQuestion& question) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->queue.push_back(question);
  }
  impl_->poke();
}

}  // namespace millrace::control
