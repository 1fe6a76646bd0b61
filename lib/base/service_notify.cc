#include "lib/base/service_notify.h"

#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace millrace::base {

namespace {

uint64_t number(const char* text) {
  uint64_t n = 0;
  if (text != nullptr) std::from_chars(text, text + std::strlen(text), n);
  return n;
}

}  // namespace

ServiceNotifier::ServiceNotifier() {
  const char* const socket_path = std::getenv("NOTIFY_SOCKET");
  const char* const watchdog_pid = std::getenv("WATCHDOG_PID");
  if (socket_path != nullptr) path_ = socket_path;
  // WATCHDOG_PID says which process of the service is meant.
  if (watchdog_pid == nullptr || number(watchdog_pid) == static_cast<uint64_t>(getpid()))
    alive_every_ns_ = number(std::getenv("WATCHDOG_USEC")) * 1000 / 2;
  for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"}) unsetenv(name);
  const bool fits = path_.size() > 1 && path_.size() < sizeof(sockaddr_un::sun_path) && (path_[0] == '/' || path_[0] == '@');
  if (fits) fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd_ < 0) alive_every_ns_ = 0;
}

ServiceNotifier::~ServiceNotifier() {
  if (fd_ >= 0) close(fd_);
}

// A manager that does not read loses a message; the service never waits for it.
void ServiceNotifier::send(std::string_view text) const {
  if (fd_ < 0) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path_.data(), path_.size());
  if (path_[0] == '@') address.sun_path[0] = '\0';  // the abstract name space
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path_.size());
  (void)sendto(fd_, text.data(), text.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address), size);
}

void ServiceNotifier::ready(std::string_view status) {
  send("READY=1\nMAINPID=" + std::to_string(getpid()) + "\nSTATUS=" + std::string(status));
}
void ServiceNotifier::stopping() { send("STOPPING=1"); }
void ServiceNotifier::alive() { send("WATCHDOG=1"); }

}  // namespace millrace::base
