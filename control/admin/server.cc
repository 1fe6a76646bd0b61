#include "control/admin/server.h"

#include <cstring>
#include <ctime>
#include <httplib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>

#include "control/admin/pages.h"
#include "control/dynamic_config.h"
#include "control/xds_report.h"

namespace millrace::control::admin {

namespace {

constexpr size_t kThreads = 4;  // of each address
constexpr size_t kMaxBody = 64 * 1024;
constexpr time_t kReadSeconds = 5, kWriteSeconds = 10;

bool answers(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool there = fd >= 0 && connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  if (fd >= 0) close(fd);
  return there;
}

DynamicView dynamic_view(ControlPlane& plane) {
  DynamicView view;
  view.infos = plane.dynamic_config().infos();
  for (size_t i = 0; i < kXdsTypes; ++i) view.versions[i] = plane.dynamic_config().version(static_cast<XdsType>(i));
  view.waiting = plane.waiting_objects();
  view.in_force = plane.in_force();
  return view;
}

bool drains(ControlPlane& plane) {
  bool is = false;
  plane.link().with_stats([&](const stats::RegionView& view) {
    using stats::LoaderCounter;
    is = view.loader()[LoaderCounter::kDraining].read() != 0 || view.loader()[LoaderCounter::kHealthFailed].read() != 0;
  });
  return is;
}

class Listening final : public Server {
 public:
  Listening(ControlPlane& plane, const std::string& version, Acts acts)
      : pages_({.with_stats = [&plane](const auto& f) { return plane.link().with_stats(f); },
                .model = [&plane] { return plane.model(); },
                .resolved = [&plane] { return plane.resolved_model(); },
                .dynamic = [&plane] { return dynamic_view(plane); },
                .discovery = [&plane]() -> std::optional<XdsStatus> { return discovery_status(plane); },
                .state =
                    [&plane] {
                      const PublisherStatus s = plane.publisher().status();
                      if (!s.connected) return ServerState::kPreInitializing;
                      if (s.acknowledged == 0) return ServerState::kInitializing;
                      return drains(plane) ? ServerState::kDraining : ServerState::kLive;
                    },
                .set_health =
                    [&plane](bool failed) {
                      return plane.publisher().set_drain({.fields = table::SetDrain::kHealth, .health_failed = failed});
                    },
                .drain =
                    [&plane](uint32_t time_s) {
                      return plane.publisher().set_drain({.fields = table::SetDrain::kDrain, .draining = 1, .time_s = time_s});
                    },
                .quit = std::move(acts.quit),
                .reopen_logs = std::move(acts.reopen_logs),
                .arena_bytes = [&plane] { return plane.publisher().status().arena_used; },
                .version = version,
                .node_id = plane.node_id(),
                .node_cluster = plane.node_cluster(),
                .config_file = plane.config().config_file,
                .started = plane.started(),
                .unix_time = [] { return static_cast<int64_t>(std::time(nullptr)); }}) {}
  ~Listening() override { stop(); }

  base::Status listen_unix(const std::string& path) {
    if (answers(path)) return base::Error{path + " is in use: another control runs with this --run-dir"};
    unlink(path.c_str());
    socket_path_ = path;
    unix_.set_address_family(AF_UNIX);
    const mode_t before = umask(0117);                        // 0660 from the first moment
    const bool bound = unix_.bind_to_port(path.c_str(), 80);  // the port means nothing to a Unix socket
    umask(before);
    if (!bound) return base::Error{path + ": the admin interface cannot listen there: " + std::strerror(errno)};
    run(unix_, unix_thread_);
    return {};
  }
  base::Status listen_tcp(const AdminConfig& config) {
    if (!tcp_.bind_to_port(config.address.to_string().c_str(), config.port))
      return base::Error{"admin.address: cannot listen on " + config.address.to_string() + " port " +
                         std::to_string(config.port) + ": " + std::strerror(errno) + "; is another program there?"};
    run(tcp_, tcp_thread_);
    return {};
  }
  void stop() override {
    for (auto* s : {&unix_, &tcp_}) s->stop();
    for (auto* t : {&unix_thread_, &tcp_thread_})
      if (t->joinable()) t->join();
    if (!socket_path_.empty()) unlink(socket_path_.c_str());
    socket_path_.clear();
  }

 private:
  void run(httplib::Server& server, std::thread& thread) {
    server.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
    server.set_payload_max_length(kMaxBody);
    server.set_read_timeout(kReadSeconds);
    server.set_write_timeout(kWriteSeconds);
    const auto handle = [this](const httplib::Request& in, httplib::Response& out) { answer(in, out); };
    server.Get(".*", handle).Post(".*", handle).Put(".*", handle).Delete(".*", handle).Patch(".*", handle).Options(".*", handle);
    thread = std::thread([&server] { server.listen_after_bind(); });
    while (!server.is_running()) std::this_thread::yield();  // stop() does nothing before
  }
  void answer(const httplib::Request& in, httplib::Response& out) const {
    // A page of another site that a browser of this machine shows must not end us.
    const std::string origin = in.get_header_value("Origin"), host = in.get_header_value("Host");
    if (in.method != "GET" && !origin.empty() && origin != "http://" + host) {
      out.status = 403;
      out.set_content("a page of " + origin + " may not ask for this\n", "text/plain; charset=UTF-8");
      return;
    }
    Request r;
    r.method = in.method;
    r.path = in.path;
    for (const auto& [name, value] : in.params) r.query[name] = value;
    Reply reply = pages_.answer(r);
    if (log_book().wants(Logger::kAdmin, LogLevel::kDebug))
      say_as(Logger::kAdmin, LogLevel::kDebug, in.method + " " + in.target + ": " + std::to_string(reply.status));
    out.status = reply.status;
    out.set_header("Cache-Control", "no-cache, max-age=0");
    out.set_header("X-Content-Type-Options", "nosniff");
    out.set_content(std::move(reply.body), reply.type);
  }

  const Pages pages_;
  httplib::Server unix_, tcp_;
  std::thread unix_thread_, tcp_thread_;
  std::string socket_path_;
};

}  // namespace

base::Result<std::unique_ptr<Server>> Server::start(ControlPlane& plane, const std::string& socket_path,
                                                    const std::string& version, Acts acts) {
  auto s = std::make_unique<Listening>(plane, version, std::move(acts));
  if (const base::Status unix_socket = s->listen_unix(socket_path); !unix_socket.ok()) return base::Error{unix_socket.error()};
  if (plane.admin_config())
    if (const base::Status tcp = s->listen_tcp(*plane.admin_config()); !tcp.ok()) return base::Error{tcp.error()};
  return std::unique_ptr<Server>(std::move(s));
}

}  // namespace millrace::control::admin
