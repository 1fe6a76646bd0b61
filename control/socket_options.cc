#include "control/socket_options.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>

namespace millrace::control {

namespace {

namespace core = envoy::config::core::v3;
using table::TcpOptions;

constexpr int64_t kSocketLevel = 1, kTcpLevel = 6;                                   // SOL_SOCKET, IPPROTO_TCP
constexpr uint32_t kMostSeconds = 32'767, kMostProbes = 127, kMostSegment = 32'767;  // of Linux (MAX_TCP_KEEPIDLE and others)
constexpr int64_t kCongestionName = 13;

enum class Side : uint8_t { kListener, kCluster };

bool complain(const Path& at, ErrorSink* e, std::string message) {
  if (e != nullptr) e->add(at, std::move(message));
  return false;
}

// An option whose value is a number: what it may be, and what it does.
struct Numeric {
  int64_t level, name;
  const char* symbol;
  int64_t least, most;
  bool zero;  // 0 is allowed too: as if it had not been written
  bool listeners_only;
  void (*set)(TcpOptions&, uint32_t);
};
constexpr Numeric kNumeric[] = {
    {kSocketLevel, 9, "SO_KEEPALIVE", 0, 1, false, false,
     [](TcpOptions& o, uint32_t v) { o.keepalive = v != 0 ? table::TcpKeepalive::kOn : table::TcpKeepalive::kOff; }},
    {kTcpLevel, 1, "TCP_NODELAY", 1, 1, false, false, [](TcpOptions&, uint32_t) {}},
    {kTcpLevel, 2, "TCP_MAXSEG", table::kLeastMaxSegment, kMostSegment, true, false,
     [](TcpOptions& o, uint32_t v) { o.max_segment = static_cast<uint16_t>(v); }},
    {kTcpLevel, 4, "TCP_KEEPIDLE", 1, kMostSeconds, false, false,
     [](TcpOptions& o, uint32_t v) { o.keepalive_idle_s = static_cast<uint16_t>(v); }},
    {kTcpLevel, 5, "TCP_KEEPINTVL", 1, kMostSeconds, false, false,
     [](TcpOptions& o, uint32_t v) { o.keepalive_interval_s = static_cast<uint16_t>(v); }},
    {kTcpLevel, 6, "TCP_KEEPCNT", 1, kMostProbes, false, false,
     [](TcpOptions& o, uint32_t v) { o.keepalive_probes = static_cast<uint8_t>(v); }},
    {kTcpLevel, 18, "TCP_USER_TIMEOUT", 0, INT32_MAX, false, false, [](TcpOptions& o, uint32_t v) { o.user_timeout_ms = v; }},
    {kTcpLevel, 23, "TCP_FASTOPEN", 0, INT32_MAX, false, true,
     [](TcpOptions& o, uint32_t v) { o.fast_open_queue = static_cast<uint16_t>(std::min<uint32_t>(v, UINT16_MAX)); }},
};

// The number that setsockopt() would read.
std::optional<int64_t> number(const core::SocketOption& o) {
  if (o.value_case() == core::SocketOption::kIntValue) return static_cast<int32_t>(o.int_value());  // as Envoy casts it
  int32_t v = 0;
  if (o.buf_value().size() != sizeof v) return std::nullopt;
  std::memcpy(&v, o.buf_value().data(), sizeof v);
  return v;
}

bool congestion(const core::SocketOption& o, const Path& at, TcpOptions& out, ErrorSink* e) {
  if (o.value_case() != core::SocketOption::kBufValue)
    return complain(Path(at, "int_value"), e, "TCP_CONGESTION takes a name, in buf_value (as base64: Y3ViaWM= is \"cubic\")");
  const std::string_view name(o.buf_value().c_str());  // the kernel too stops at a NUL
  if (name == "cubic") out.congestion = table::TcpCongestion::kCubic;
  else if (name == "reno") out.congestion = table::TcpCongestion::kReno;
  else if (name == "bbr") out.congestion = table::TcpCongestion::kBbr;
  else return complain(Path(at, "buf_value"), e, "there is no controller \"" + std::string(name) + "\": cubic, reno or bbr");
  return true;
}

bool socket_option(const core::SocketOption& o, Side side, const Path& at, TcpOptions& out, ErrorSink* e) {
  if (o.value_case() == core::SocketOption::VALUE_NOT_SET) return complain(at, e, "needs int_value or buf_value");
  if (side == Side::kCluster && o.state() == core::SocketOption::STATE_LISTENING)
    return complain(Path(at, "state"), e, "nobody listens here: Envoy would never set it");
  if (o.level() == kTcpLevel && o.name() == kCongestionName) return congestion(o, at, out, e);
  const Numeric* n = std::find_if(std::begin(kNumeric), std::end(kNumeric),
                                  [&](const Numeric& k) { return k.level == o.level() && k.name == o.name(); });
  if (n == std::end(kNumeric))
    return complain(
        Path(at, "name"), e,
        "option " + std::to_string(o.name()) + " of level " + std::to_string(o.level()) +
            " is not supported by Millrace, which has no sockets; supported are SO_KEEPALIVE and TCP_NODELAY, MAXSEG, "
            "KEEPIDLE, KEEPINTVL, KEEPCNT, CONGESTION, USER_TIMEOUT, FASTOPEN");
  if (n->listeners_only && side != Side::kListener)
    return complain(Path(at, "name"), e, std::string(n->symbol) + " is an option of listeners");
  const bool buffer = o.value_case() == core::SocketOption::kBufValue;
  const Path value(at, buffer ? "buf_value" : "int_value");
  const std::optional<int64_t> v = number(o);
  if (!v) return complain(value, e, std::string(n->symbol) + " takes four bytes, or int_value");
  if (n->least == n->most && *v != n->least)
    return complain(value, e, std::string(n->symbol) + " is always " + std::to_string(n->least) + " here, as in Envoy");
  if ((*v < n->least || *v > n->most) && !(n->zero && *v == 0))
    return complain(value, e,
                    std::string(n->symbol) + " must be " + (n->zero ? "0, or " : "") + "from " + std::to_string(n->least) +
                        " to " + std::to_string(n->most) + ", not " + std::to_string(*v));
  n->set(out, static_cast<uint32_t>(*v));
  return true;
}

bool socket_options(const google::protobuf::RepeatedPtrField<core::SocketOption>& options, Side side, const Path& at,
                    TcpOptions& out, ErrorSink* e) {
  bool ok = true;
  for (int i = 0; i < options.size(); ++i) ok = socket_option(options[i], side, Path(at, "socket_options", i), out, e) && ok;
  return ok;
}

// A field that is 0 turns all of it off (Envoy: isTcpKeepaliveConfigDisabled).
bool keepalive(const core::TcpKeepalive& k, const Path& at, TcpOptions& out, ErrorSink* e) {
  bool ok = true, off = false;
  const auto field = [&](bool has, uint32_t value, const char* name, uint32_t most, auto& to) {
    if (!has) return;
    off = off || value == 0;
    if (value > most) ok = complain(Path(at, name), e, "must be at most " + std::to_string(most));
    else to = static_cast<std::remove_reference_t<decltype(to)>>(value);
  };
  field(k.has_keepalive_probes(), k.keepalive_probes().value(), "keepalive_probes", kMostProbes, out.keepalive_probes);
  field(k.has_keepalive_time(), k.keepalive_time().value(), "keepalive_time", kMostSeconds, out.keepalive_idle_s);
  field(k.has_keepalive_interval(), k.keepalive_interval().value(), "keepalive_interval", kMostSeconds, out.keepalive_interval_s);
  out.keepalive = off ? table::TcpKeepalive::kOff : table::TcpKeepalive::kOn;
  return ok;
}

// What a connection without keepalive remembers of it would only make another profile.
void settle(TcpOptions& o) {
  if (o.keepalive != table::TcpKeepalive::kOff) return;
  o.keepalive_idle_s = o.keepalive_interval_s = 0;
  o.keepalive_probes = 0;
}

}  // namespace

bool listener_tcp_options(const api::Listener& l, const Path& at, TcpOptions& out, ErrorSink* e) {
  out = {};
  if (l.has_tcp_fast_open_queue_length())
    out.fast_open_queue = static_cast<uint16_t>(std::min<uint32_t>(l.tcp_fast_open_queue_length().value(), UINT16_MAX));
  const bool ok = socket_options(l.socket_options(), Side::kListener, at, out, e);
  settle(out);
  return ok;
}

bool cluster_tcp_options(const api::Cluster& c, const Path& at, TcpOptions& out, ErrorSink* e) {
  out = {};
  bool ok = true;
  const Path connection(at, "upstream_connection_options");
  if (c.upstream_connection_options().has_tcp_keepalive())
    ok = keepalive(c.upstream_connection_options().tcp_keepalive(), Path(connection, "tcp_keepalive"), out, e);
  const Path bind(at, "upstream_bind_config");  // set after it, as Envoy does
  ok = socket_options(c.upstream_bind_config().socket_options(), Side::kCluster, bind, out, e) && ok;
  settle(out);
  return ok;
}

}  // namespace millrace::control
