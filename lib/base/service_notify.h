// What a service says to the manager that started it (systemd's notify protocol, sd_notify(3)): datagrams on the socket that
// NOTIFY_SOCKET names. The protocol is stable and twenty lines; libsystemd would bring a dozen libraries into both processes.
// Not for poll cores: every call is a system call.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace millrace::base {

class ServiceNotifier {
 public:
  // Of this process' environment, which is cleared of it, so that no child speaks in our name. Without NOTIFY_SOCKET, or when it
  // cannot be used, every call does nothing.
  ServiceNotifier();
  ~ServiceNotifier();
  ServiceNotifier(const ServiceNotifier&) = delete;
  ServiceNotifier& operator=(const ServiceNotifier&) = delete;

  void ready(std::string_view status);  // the service serves; `status` for people, one line
  void stopping();
  void alive();  // WATCHDOG=1
  // How often alive() is to be called: half of what the manager waits for; 0: it does not wait.
  uint64_t alive_every_ns() const { return alive_every_ns_; }

 private:
  void send(std::string_view text) const;

  int fd_ = -1;
  uint64_t alive_every_ns_ = 0;
  std::string path_;
};

}  // namespace millrace::base
