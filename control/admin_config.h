// Bootstrap.admin, read and checked.
#pragma once

#include <cstdint>

#include "lib/base/ip_address.h"

namespace millrace::control {

// Where the admin interface listens besides its Unix socket; always a loopback address.
struct AdminConfig {
  base::IpAddress address;
  uint16_t port = 0;

  friend bool operator==(const AdminConfig&, const AdminConfig&) = default;
};

}  // namespace millrace::control
