#include "lib/io/bond.h"

#include <algorithm>
#include <cstring>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <rte_eth_bond.h>
#include <rte_ethdev.h>

#include "lib/io/eal_log.h"

namespace millrace::io {

namespace {

std::string device_name(const std::string& devargs) { return devargs.substr(0, devargs.find(',')); }

std::string argument(const std::string& devargs, const std::string& key) {
  const size_t at = devargs.find("," + key + "=");
  if (at == std::string::npos) return "";
  const size_t from = at + key.size() + 2;
  return devargs.substr(from, devargs.find(',', from) - from);
}

}  // namespace

base::Result<Bond> Bond::open(uint16_t port, const std::vector<std::string>& members) {
  Bond b;
  b.port_ = port;
  b.active_backup_ = rte_eth_bond_mode_get(port) == BONDING_MODE_ACTIVE_BACKUP;
  for (const std::string& devargs : members) {
    Member m;
    if (rte_eth_dev_get_port_by_name(device_name(devargs).c_str(), &m.port) != 0)
      return base::Error{"member '" + devargs + "' of the bond is no port"};
    const std::string iface = argument(devargs, "iface");
    m.name = iface.empty() ? device_name(devargs) : iface;
    // net_af_packet says that every link is up, net_tap raises no event when one goes down.
    const bool silent = devargs.starts_with("net_af_packet") || devargs.starts_with("net_tap");
    if (silent && iface.size() < IFNAMSIZ) m.iface = iface;
    b.members_.push_back(std::move(m));
  }
  b.active_ = b.active();
  return b;
}

// Administratively up and with a carrier. An interface that cannot be asked is gone.
bool Bond::running(const Member& m) const {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return true;
  ifreq request{};
  std::memcpy(request.ifr_name, m.iface.c_str(), m.iface.size());
  const bool known = ioctl(fd, SIOCGIFFLAGS, &request) == 0;
  close(fd);
  return known && (request.ifr_flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING);
}

// Of an active-backup bond whose drivers say that every link is up: the first member whose interface runs becomes the primary
// when the one that is does not.
void Bond::steer_by_flags() {
  const int primary = rte_eth_bond_primary_get(port_);
  const auto is_primary = [&](const Member& m) { return m.port == primary; };
  const auto now = std::find_if(members_.begin(), members_.end(), is_primary);
  if (now == members_.end() || now->iface.empty() || running(*now)) return;
  for (const Member& m : members_) {
    if (m.iface.empty() || is_primary(m) || !running(m)) continue;
    EalLog log;
    rte_ether_addr mac{};  // frames to the bond's address must pass this interface's filter from now on
    if (rte_eth_macaddr_get(port_, &mac) == 0) rte_eth_dev_default_mac_addr_set(m.port, &mac);
    rte_eth_bond_primary_set(port_, m.port);
    return;
  }
}

std::vector<uint16_t> Bond::active() const {
  if (active_backup_) {
    const int primary = rte_eth_bond_primary_get(port_);
    return primary < 0 ? std::vector<uint16_t>{} : std::vector{static_cast<uint16_t>(primary)};
  }
  std::vector<uint16_t> out(RTE_MAX_ETHPORTS);
  const int n = rte_eth_bond_active_slaves_get(port_, out.data(), static_cast<uint16_t>(out.size()));
  out.resize(static_cast<size_t>(std::max(n, 0)));
  std::sort(out.begin(), out.end());
  return out;
}

const std::string& Bond::name_of(uint16_t port) const {
  static const std::string unknown = "?";
  for (const Member& m : members_)
    if (m.port == port) return m.name;
  return unknown;
}

std::optional<std::string> Bond::look() {
  if (active_backup_) steer_by_flags();
  std::vector<uint16_t> now = active();
  if (now == active_) return std::nullopt;
  active_ = std::move(now);
  if (active_.empty()) return "no member of the bond has a link";
  std::string names;
  for (const uint16_t p : active_) names += (names.empty() ? "" : ", ") + name_of(p);
  return "traffic goes over " + names;
}

}  // namespace millrace::io
