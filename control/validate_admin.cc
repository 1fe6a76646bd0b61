// Bootstrap.admin.
#include "control/validate.h"
#include "control/validate_rules.h"

namespace millrace::control {

using namespace rules;

namespace {

bool is_loopback(const base::IpAddress& a) {
  if (a.is_v4()) return a.v4_host_order() >> 24 == 127;  // 127.0.0.0/8 (RFC 1122 3.2.1.3)
  return a == *base::IpAddress::parse("::1");
}

}  // namespace

std::optional<AdminConfig> read_admin(const envoy::config::bootstrap::v3::Admin& admin, ErrorSink& e) {
  const Path root, at(root, "address"), socket(at, "socket_address"), ip(socket, "address"), log(root, "access_log_path");
  bool ok = address(true, admin.address(), at, e);
  if (!admin.access_log_path().empty() && admin.access_log_path() != "/dev/null") {
    e.add(log, "an access log of the admin interface is not supported by Millrace yet; the only choice is \"/dev/null\"");
    ok = false;
  }
  if (!ok) return std::nullopt;
  AdminConfig out;
  out.address = *base::IpAddress::parse(admin.address().socket_address().address());
  out.port = static_cast<uint16_t>(admin.address().socket_address().port_value());
  if (is_loopback(out.address)) return out;
  e.add(ip, "\"" + admin.address().socket_address().address() +
                "\" is not on loopback: whoever reaches the admin interface may end control "
                "and read the configuration; use 127.0.0.1 or ::1, or the Unix socket <run-dir>/admin.sock");
  return std::nullopt;
}

}  // namespace millrace::control
