// Bootstrap.stats_sinks.
#include "control/metric_name.h"
#include "control/metrics.h"
#include "control/validate.h"
#include "control/validate_rules.h"

namespace millrace::control {

namespace {

using namespace rules;
namespace metrics = envoy::config::metrics::v3;

constexpr uint64_t kMostDatagramBytes = 65'507;  // what UDP over IPv4 carries

// The prefix stands in front of every name, so what separates name and value may not be in it.
bool take_prefix(const std::string& prefix, const Path& at, ErrorSink& e, StatsSinkConfig* out) {
  if (prefix.empty()) return true;  // Envoy: its own
  out->prefix = prefix;
  if (metric_safe(prefix) == prefix) return true;
  e.add(at, "\"" + prefix + "\" holds a character that separates names, values and tags; use letters, digits, '.', '_' and '-'");
  return false;
}

bool take_address(const core::Address& a, const Path& at, ErrorSink& e, StatsSinkConfig* out) {
  if (!address(true, a, at, e, /*udp=*/true)) return false;
  out->address = *base::IpAddress::parse(a.socket_address().address());
  out->port = static_cast<uint16_t>(a.socket_address().port_value());
  return true;
}

}  // namespace

std::optional<StatsSinkConfig> read_stats_sink(const metrics::StatsSink& sink, ErrorSink& e) {
  const Path root, config(root, "typed_config");
  StatsSinkConfig out;
  out.name = sink.name();
  bool ok = not_empty(sink.name(), Path(root, "name"), e);
  metrics::StatsdSink statsd;
  metrics::DogStatsdSink dog;
  if (!sink.has_typed_config()) {
    e.add(config, "is required");
    return std::nullopt;
  }
  if (sink.typed_config().UnpackTo(&statsd)) {
    if (!known_fields_only(statsd, config, e)) return std::nullopt;
    ok = take_prefix(statsd.prefix(), Path(config, "prefix"), e, &out) && ok;
    if (statsd.has_address()) ok = take_address(statsd.address(), Path(config, "address"), e, &out) && ok;
    else if (!statsd.tcp_cluster_name().empty()) out.cluster = statsd.tcp_cluster_name();
    else {
      e.add(config, "needs address or tcp_cluster_name");
      ok = false;
    }
  } else if (sink.typed_config().UnpackTo(&dog)) {
    if (!known_fields_only(dog, config, e)) return std::nullopt;
    out.kind = StatsSinkConfig::Kind::kDogStatsd;
    const Path bytes(config, "max_bytes_per_datagram");
    ok = take_prefix(dog.prefix(), Path(config, "prefix"), e, &out) && ok;
    if (dog.has_address()) ok = take_address(dog.address(), Path(config, "address"), e, &out) && ok;
    else {
      e.add(Path(config, "address"), "is required");
      ok = false;
    }
    if (dog.has_max_bytes_per_datagram()) {
      out.datagram_bytes = dog.max_bytes_per_datagram().value();
      if (out.datagram_bytes == 0 || out.datagram_bytes > kMostDatagramBytes) {
        e.add(bytes, "must be from 1 to " + std::to_string(kMostDatagramBytes));
        ok = false;
      }
    }
  } else {
    e.add(config, "only StatsdSink and DogStatsdSink are supported here by Millrace yet");
    return std::nullopt;
  }
  if (!ok) return std::nullopt;
  return out;
}

}  // namespace millrace::control
