// The life of our own addresses: asked for (duplicate address detection), used, announced, defended.
//
//   IPv6  tentative ── kDadInterval after the last of dad_transmits solicitations, nobody objected ──▶ used ──▶ announced twice
//             └── somebody has it, or asks for it at the same time ──▶ duplicate: never used, kAddressDuplicate
//   IPv4  used ──▶ announced twice (RFC 5227 3); it is not asked for first: an edge's addresses are moved, not chanced upon
//
// An address that may not be used is not in the table that local() looks at: the path of a frame knows nothing of this.
#include "dataplane/ip_layer.h"
#include "lib/wire/arp.h"
#include "lib/wire/ipv6.h"

namespace millrace::dataplane {

using base::IpAddress;
using stats::DropReason;

void IpLayer::add_addresses(TimeNs now) {
  for (uint16_t p = 0; p < interfaces_.size(); ++p)
    for (const InterfaceAddress& a : interfaces_[p]->config.addresses)
      addresses_.push_back({a.address, p, AddressState::kTentative});
  address_timers_.resize(addresses_.size());
  locals_.resize(std::bit_ceil(std::max<size_t>(4, addresses_.size() * 2)));
  locals_mask_ = static_cast<uint32_t>(locals_.size() - 1);
  for (uint32_t n = 0; n < addresses_.size(); ++n) {
    const uint8_t probes = interfaces_[addresses_[n].port]->config.dad_transmits;
    if (config_.worker == 0) address_timers_[n].announcements_left = kAnnouncements;
    if (addresses_[n].address.is_v4() || probes == 0) {
      use(n);
      if (config_.worker == 0) set_due(n, now);
    } else {
      address_timers_[n].probes_left = probes;
      set_due(n, now);
    }
  }
}

// From here on the address is ours.
void IpLayer::use(uint32_t n) {
  AddressStatus& a = addresses_[n];
  a.state = AddressState::kUsed;
  uint32_t i = local_slot(a.address);
  while (locals_[i].used && !(locals_[i].address == a.address)) i = (i + 1) & locals_mask_;
  if (!locals_[i].used) locals_[i] = {a.address, a.port, true};
  locals_filter_ |= uint64_t{1} << (a.address.word(1) >> 56 & 63);
}

void IpLayer::set_due(uint32_t n, TimeNs due) {
  address_timers_[n].due = due;
  next_timer_ = std::min(next_timer_, due);
}

uint32_t IpLayer::address_index(uint16_t port, const IpAddress& a, AddressState state) const {
  for (uint32_t n = 0; n < addresses_.size(); ++n)
    if (addresses_[n].port == port && addresses_[n].state == state && addresses_[n].address == a) return n;
  return UINT32_MAX;
}

// What is due for addresses, and for routers that did not answer.
void IpLayer::address_timers(TimeNs now) {
  next_timer_ = base::kNever;
  for (uint32_t n = 0; n < addresses_.size(); ++n) {
    AddressTimer& t = address_timers_[n];
    if (now >= t.due) {
      t.due = base::kNever;
      if (t.probes_left > 0) {
        --t.probes_left;
        if (config_.worker == 0) probe(n);  // one worker asks for all; the others wait as long
        t.due = now + kDadInterval;
      } else {
        if (addresses_[n].state == AddressState::kTentative) use(n);
        if (t.announcements_left > 0) {
          announce(n);
          if (--t.announcements_left > 0) t.due = now + kAnnounceInterval;
        }
      }
    }
    next_timer_ = std::min(next_timer_, t.due);
  }
  expire_fragments(now);
  if (routers_down_ == 0) return;
  for (Route& r : routes_) {
    if (!r.down) continue;
    if (now >= r.ask_again) {
      neighbors_.find_or_create(r.port, r.via, now);  // its solicitation is due at once
      r.ask_again = now + kDeadRouterInterval;
    }
    next_timer_ = std::min(next_timer_, r.ask_again);
  }
}

// Tells the neighbours an address, so that those that knew another MAC for it (a gateway before us) learn ours at once: ARP
// announcement (RFC 5227 3), unsolicited advertisement (RFC 4861 7.2.6).
void IpLayer::announce(uint32_t n) {
  const AddressStatus& a = addresses_[n];
  Interface& i = *interfaces_[a.port];
  if (a.address.is_v4()) {
    rte_mbuf* frame = nullptr;
    uint8_t* at = control_frame(a.port, wire::kBroadcastMac, wire::kEtherArp, wire::kArpLength, &frame);
    if (at == nullptr) return;
    wire::ArpRepr arp;
    arp.operation = wire::ArpOperation::kRequest;
    arp.sender_mac = i.capabilities.mac;
    arp.sender_ip = arp.target_ip = a.address.v4_host_order();
    arp.emit(at);
    i.tx.send(frame);
    return;
  }
  wire::NdRepr na;
  na.type = wire::NdType::kNeighborAdvertisement;
  na.target = a.address;
  na.override_flag = true;
  na.mac = i.capabilities.mac;
  send_nd(a.port, na, a.address, wire::all_nodes_group(), wire::multicast_mac_v6(wire::all_nodes_group()));
}

// RFC 4862 5.4.2: from the unspecified address, without our link-layer address.
void IpLayer::probe(uint32_t n) {
  wire::NdRepr ns;
  ns.type = wire::NdType::kNeighborSolicitation;
  ns.target = addresses_[n].address;
  const IpAddress group = wire::solicited_node_group(ns.target);
  send_nd(addresses_[n].port, ns, IpAddress{}, group, wire::multicast_mac_v6(group));
}

// RFC 4862 5.4.5, less turning the interface off: its other addresses are good.
void IpLayer::found_duplicate(uint32_t n) {
  addresses_[n].state = AddressState::kDuplicate;
  address_timers_[n] = {};
  if (config_.worker == 0) counters_.drop(DropReason::kAddressDuplicate);
}

// Somebody claims an address that we use. It stays ours (RFC 5227 2.4 b): the neighbours are told so, at most once in
// kDefendInterval, so that two who defend do not flood the link.
void IpLayer::defend(const IpAddress& a, TimeNs now) {
  if (config_.worker != 0) return;
  for (uint32_t n = 0; n < addresses_.size(); ++n) {
    AddressTimer& t = address_timers_[n];
    if (addresses_[n].state != AddressState::kUsed || !(addresses_[n].address == a)) continue;
    if (t.defended != 0 && now - t.defended < kDefendInterval) return;
    t.defended = now;
    announce(n);
  }
}

void IpLayer::link_came_up(uint16_t port, TimeNs now) {
  if (config_.worker != 0) return;
  for (uint32_t n = 0; n < addresses_.size(); ++n) {
    if (interfaces_[addresses_[n].port]->device != port || addresses_[n].state != AddressState::kUsed) continue;
    address_timers_[n].announcements_left = kAnnouncements;
    set_due(n, now);
  }
}

// A neighbour that did not answer: routes through it come last among their equals until it does.
void IpLayer::router_lost(uint16_t port, const IpAddress& router, TimeNs now) {
  for (Route& r : routes_) {
    if (r.direct || r.port != port || !(r.via == router)) continue;
    routers_down_ += !r.down;
    r.down = true;
    r.ask_again = now + kDeadRouterInterval;
    next_timer_ = std::min(next_timer_, r.ask_again);
  }
}

void IpLayer::router_found(uint16_t port, const IpAddress& router) {
  for (Route& r : routes_) {
    if (!r.down || r.port != port || !(r.via == router)) continue;
    r.down = false;
    --routers_down_;
  }
}

}  // namespace millrace::dataplane
