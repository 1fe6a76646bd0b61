// The gRPC service of control (lib/api/millrace.control.v1.proto) on <run-dir>/control.sock. A thin skin: text in, ControlPlane's
// answer out; no rule of its own.
#pragma once

#include <memory>
#include <string>

#include "control/control_plane.h"
#include "lib/base/status.h"

namespace millrace::control {

class ControlService {
 public:
  // Listens on `socket_path` (mode 0660; a socket file that nobody answers on is replaced). `version`: of the program.
  static base::Result<std::unique_ptr<ControlService>> start(ControlPlane& plane, const std::string& socket_path,
                                                             const std::string& version);
  virtual ~ControlService() = default;
  virtual void stop() = 0;  // refuses new calls, gives running ones a second
};

}  // namespace millrace::control
