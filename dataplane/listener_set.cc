#include "dataplane/listener_set.h"

#include "dataplane/flow_table.h"

namespace millrace::dataplane {
namespace {

uint32_t hash(const base::IpAddress& address, uint16_t port) {
  return static_cast<uint32_t>(flow_hash(0x6d696c6c, address, port, address, 0));
}

}  // namespace

ListenerSet::ListenerSet(std::span<const Entry> entries) {
  size_t size = 2;
  while (size < entries.size() * 2) size *= 2;
  slots_.resize(size);
  mask_ = static_cast<uint32_t>(size) - 1;
  for (const Entry& e : entries) {
    if (probe(e.address, e.port) != nullptr) continue;
    uint32_t i = hash(e.address, e.port) & mask_;
    while (slots_[i].port != 0) i = (i + 1) & mask_;
    slots_[i] = e;
    ++count_;
  }
}

const ListenerSet::Entry* ListenerSet::probe(const base::IpAddress& address, uint16_t port) const {
  for (uint32_t i = hash(address, port) & mask_; slots_[i].port != 0; i = (i + 1) & mask_)
    if (slots_[i].port == port && slots_[i].address == address) return &slots_[i];
  return nullptr;
}

const ListenerSet::Entry* ListenerSet::find(const base::IpAddress& local, uint16_t port) const {
  if (count_ == 0 || port == 0) return nullptr;
  if (const Entry* e = probe(local, port)) return e;
  return probe(local.is_v4() ? base::IpAddress::v4(0) : base::IpAddress{}, port);
}

}  // namespace millrace::dataplane
