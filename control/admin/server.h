// Who listens for the admin interface (pages.h): always a Unix socket (mode 0660, like control.sock), and the loopback address of
// Bootstrap.admin where there is one. HTTP/1.1 by cpp-httplib, a few threads of its own; a slow client holds one of them for at
// most some seconds.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "control/control_plane.h"
#include "lib/base/status.h"

namespace millrace::control::admin {

class Server {
 public:
  struct Acts {
    std::function<void()> quit;         // ends this process, soon
    std::function<void()> reopen_logs;  // access logs and its own
  };
  // Listens when it returns. `socket_path`: a socket file that nobody answers on is replaced. `acts`: on this process.
  // Error: an address is taken; says which.
  static base::Result<std::unique_ptr<Server>> start(ControlPlane& plane, const std::string& socket_path,
                                                     const std::string& version, Acts acts);
  virtual ~Server() = default;
  virtual void stop() = 0;  // no further requests; those under way are answered
};

}  // namespace millrace::control::admin
