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
  // Listens when it returns. `socket_path`: a socket file that nobody answers on is replaced. `quit`: ends this process, soon.
  // Error: an address is taken; says which.
  static base::Result<std::unique_ptr<Server>> start(ControlPlane& plane, const std::string& socket_path,
                                                     const std::string& version, std::function<void()> quit);
  virtual ~Server() = default;
  virtual void stop() = 0;  // no further requests; those under way are answered
};

}  // namespace millrace::control::admin
