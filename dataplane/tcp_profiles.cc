#include "dataplane/tcp_profiles.h"

#include <algorithm>

namespace millrace::dataplane {

tcp::Config with_options(tcp::Config c, const table::TcpOptions& o, uint32_t buffer_limit) {
  const uint32_t most = std::max(buffer_limit, kLeastBufferBytes);
  c.rcv_buf = std::min(c.rcv_buf, most);
  c.rcv_wnd_initial = std::min(c.rcv_wnd_initial, most);
  c.snd_buf = std::min(c.snd_buf, most);
  switch (o.congestion) {
    case table::TcpCongestion::kDefault:
      break;
    case table::TcpCongestion::kCubic:
      c.congestion = tcp::CongestionAlgorithm::kCubic;
      break;
    case table::TcpCongestion::kReno:
      c.congestion = tcp::CongestionAlgorithm::kReno;
      break;
    case table::TcpCongestion::kBbr:
      c.congestion = tcp::CongestionAlgorithm::kBbr;
      break;
  }
  if (o.keepalive == table::TcpKeepalive::kOff) c.keepalive_idle_ns = 0;
  if (o.keepalive == table::TcpKeepalive::kOn && c.keepalive_idle_ns == 0) c.keepalive_idle_ns = tcp::Config{}.keepalive_idle_ns;
  // TCP_KEEPIDLE alone does not switch on what is off, as on Linux.
  if (o.keepalive_idle_s != 0 && c.keepalive_idle_ns != 0) c.keepalive_idle_ns = o.keepalive_idle_s * base::kSecond;
  if (o.keepalive_interval_s != 0) c.keepalive_interval_ns = o.keepalive_interval_s * base::kSecond;
  if (o.keepalive_probes != 0) c.keepalive_probes = o.keepalive_probes;
  if (o.user_timeout_ms != 0) c.user_timeout_ns = o.user_timeout_ms * base::kMillisecond;
  c.fast_open_queue = o.fast_open_queue;
  if (o.max_segment != 0) c.mss = std::min(c.mss, o.max_segment);
  return c;
}

const tcp::Profile& TcpProfiles::derive(const tcp::Profile& base, const table::TcpOptions& options, uint32_t buffer_limit) {
  const uint32_t limit = buffer_limit >= kPlentyBytes ? kNoBufferLimit : std::max(buffer_limit, kLeastBufferBytes);
  Derived* place = made_ < kMost ? &derived_[made_] : nullptr;
  for (uint32_t i = 0; i < made_; ++i) {
    Derived& d = derived_[i];
    if (d.base == &base && d.options == options && d.buffer_limit == limit) return d.profile;
  }
  for (uint32_t i = 0; i < made_ && place == nullptr; ++i) {
    next_ = (next_ + 1) % made_;
    if (derived_[next_].users == 0) place = &derived_[next_];
  }
  if (place == nullptr) {
    ++refused_;
    return base;
  }
  if (place == &derived_[made_]) ++made_;
  *place = {.profile = {with_options(base.config, options, limit), &repairs_},
            .base = &base,
            .options = options,
            .buffer_limit = limit,
            .users = 0};
  return place->profile;
}

uint32_t TcpProfiles::in_use() const {
  uint32_t n = 0;
  for (uint32_t i = 0; i < made_; ++i) n += derived_[i].users != 0;
  return n;
}

}  // namespace millrace::dataplane
