// What net_bonding leaves to its user. DPDK's bond moves traffic to another member when a member's driver says that its link is
// down; some drivers never say it, and nobody tells the network where the bond's address went. Used by the supervisor's thread.
//
//   link of a member ── its driver, or the kernel's flags where that says nothing ──▶ active member ──▶ news: announce, a line
//
// Which drivers can be members of which bond is decided where the configuration is read (bootstrap/dataplane_section.cc).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/status.h"

namespace millrace::io {

class Bond {
 public:
  // How often look() wants to be called: what a failed member costs, at most, where its driver says nothing.
  static constexpr uint32_t kLookEveryMs = 100;

  // `port`: the bond, started; `members`: devargs of its members, in their order.
  static base::Result<Bond> open(uint16_t port, const std::vector<std::string>& members);

  // Looks at the links. A sentence when traffic goes over other members than before: the port's addresses are to be announced
  // anew.
  std::optional<std::string> look();

 private:
  struct Member {
    uint16_t port = 0;
    std::string name;   // of the interface where there is one, else DPDK's
    std::string iface;  // whose flags are looked at, because the driver does not; empty: the driver says it
  };
  bool running(const Member& m) const;
  void steer_by_flags();
  std::vector<uint16_t> active() const;
  const std::string& name_of(uint16_t port) const;

  uint16_t port_ = 0;
  bool active_backup_ = false;
  std::vector<Member> members_;
  std::vector<uint16_t> active_;
};

}  // namespace millrace::io
