#include "perf/load/option_values.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>

namespace millrace::load {
namespace {

using base::Error;
using base::IpAddress;
using base::Result;
using base::TimeNs;

constexpr double kLargestExact = 9e15;  // below 2^53: every whole number is a double

struct Unit {
  std::string_view suffix;
  double factor;
};
constexpr Unit kCountUnits[] = {{"", 1}, {"k", 1e3}, {"K", 1e3}, {"M", 1e6}, {"G", 1e9}};
constexpr Unit kByteUnits[] = {{"", 1},
                               {"B", 1},
                               {"K", 1024},
                               {"k", 1024},
                               {"KB", 1024},
                               {"kB", 1024},
                               {"KiB", 1024},
                               {"M", 1024.0 * 1024},
                               {"MB", 1024.0 * 1024},
                               {"MiB", 1024.0 * 1024},
                               {"G", 1073741824.0},
                               {"GB", 1073741824.0},
                               {"GiB", 1073741824.0}};
constexpr Unit kTimeUnits[] = {{"", 1e9}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"min", 60e9}};

std::string quoted(std::string_view s) { return "'" + std::string(s) + "'"; }

// "1500000" is "1.5M" to nobody: limits are printed in full, with no exponent.
std::string plain(double v) {
  char text[64];
  std::snprintf(text, sizeof text, v == std::floor(v) ? "%.0f" : "%g", v);
  return text;
}

// The number and its unit's factor multiplied; nullopt when it is no number or the unit is none of these.
template <size_t N>
std::optional<double> scaled(std::string_view text, const Unit (&units)[N]) {
  double v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v, std::chars_format::fixed);
  if (error != std::errc() || !std::isfinite(v)) return std::nullopt;
  const std::string_view suffix = text.substr(static_cast<size_t>(end - text.data()));
  for (const Unit& u : units)
    if (suffix == u.suffix) return v * u.factor;
  return std::nullopt;
}

template <size_t N>
Result<uint64_t> whole(std::string_view text, uint64_t low, uint64_t high, const Unit (&units)[N], const char* what) {
  const std::optional<double> v = scaled(text, units);
  if (!v || *v != std::floor(*v) || std::fabs(*v) > kLargestExact) return Error{quoted(text) + " is not " + what};
  if (*v < static_cast<double>(low) || *v > static_cast<double>(high)) {
    return Error{quoted(text) + " is out of range: " + std::to_string(low) + " to " + std::to_string(high)};
  }
  return static_cast<uint64_t>(*v);
}

// ADDR or [ADDR] at the front of `text`, which loses it.
std::optional<IpAddress> take_address(std::string_view& text) {
  size_t end = 0;
  std::string_view address;
  if (text.starts_with('[')) {
    end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    address = text.substr(1, end - 1);
    ++end;
  } else {
    end = std::min(text.find_first_of("-:"), text.size());
    address = text.substr(0, end);
  }
  const bool brackets = text.starts_with('[');
  text.remove_prefix(end);
  const std::optional<IpAddress> a = IpAddress::parse(address);
  return a && a->is_v4() == brackets ? std::nullopt : a;  // brackets are for IPv6
}

std::optional<uint16_t> take_port(std::string_view& text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || port == 0) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return port;
}

bool take(std::string_view& text, char c) {
  if (!text.starts_with(c)) return false;
  text.remove_prefix(1);
  return true;
}

}  // namespace

Result<uint64_t> parse_count(std::string_view text, uint64_t low, uint64_t high) {
  return whole(text, low, high, kCountUnits, "a whole number (such as 64, 100k, 2M)");
}

Result<uint64_t> parse_bytes(std::string_view text, uint64_t low, uint64_t high) {
  return whole(text, low, high, kByteUnits, "a number of bytes (such as 64, 16K, 1M)");
}

Result<double> parse_real(std::string_view text, double low, double high) {
  const std::optional<double> v = scaled(text, kCountUnits);
  if (!v) return Error{quoted(text) + " is not a number"};
  if (*v < low || *v > high) return Error{quoted(text) + " is out of range: " + plain(low) + " to " + plain(high)};
  return *v;
}

Result<TimeNs> parse_duration(std::string_view text, TimeNs low, TimeNs high) {
  const std::optional<double> v = scaled(text, kTimeUnits);
  if (!v) return Error{quoted(text) + " is not a time (seconds, or a number with us, ms, s or m)"};
  if (*v < static_cast<double>(low) || *v > static_cast<double>(high)) {
    return Error{quoted(text) + " is out of range: " + plain(static_cast<double>(low) / 1e9) + " to " +
                 plain(static_cast<double>(high) / 1e9) + " seconds"};
  }
  return static_cast<TimeNs>(std::llround(*v));
}

Result<IpAddress> parse_address(std::string_view text) {
  const std::optional<IpAddress> a = IpAddress::parse(text);
  if (!a) return Error{quoted(text) + " is not an IP address"};
  if (a->is_unspecified()) return Error{quoted(text) + " is nobody's address"};
  return *a;
}

Result<Network> parse_network(std::string_view text) {
  const size_t slash = text.find('/');
  const std::optional<IpAddress> a = IpAddress::parse(text.substr(0, slash));
  if (!a) return Error{quoted(text) + " is not an address with the length of its prefix (such as 10.64.0.0/16)"};
  if (a->is_unspecified()) return Error{quoted(text) + " is nobody's address"};
  if (slash == std::string_view::npos) return Error{quoted(text) + " lacks the length of its prefix (such as /16)"};
  const std::string_view bits = text.substr(slash + 1);
  uint8_t n = 0;
  const auto [end, error] = std::from_chars(bits.data(), bits.data() + bits.size(), n);
  if (error != std::errc() || end != bits.data() + bits.size() || n > (a->is_v4() ? 32 : 128)) {
    return Error{quoted(text) + ": the prefix is 0 to " + (a->is_v4() ? "32" : "128") + " bits long"};
  }
  return Network{*a, n};
}

Result<Endpoint> parse_endpoint(std::string_view text) {
  std::string_view rest = text;
  const std::optional<IpAddress> a = take_address(rest);
  const bool colon = a && take(rest, ':');
  const std::optional<uint16_t> port = colon ? take_port(rest) : std::nullopt;
  if (!port || !rest.empty()) return Error{quoted(text) + " is not ADDRESS:PORT (IPv6 in brackets: [fd00::1]:80)"};
  if (a->is_unspecified()) return Error{quoted(text) + " is nobody's address"};
  return Endpoint{*a, *port};
}

Result<ServerRange> parse_server_range(std::string_view text) {
  const Error form{quoted(text) + " is not ADDRESS[-ADDRESS]:PORT[-PORT] (IPv6 in brackets: [fd00::1]-[fd00::9]:80)"};
  std::string_view rest = text;
  ServerRange r;
  std::optional<IpAddress> a = take_address(rest);
  if (!a) return form;
  r.first = r.last = *a;
  if (take(rest, '-')) {
    a = take_address(rest);
    if (!a) return form;
    r.last = *a;
  }
  std::optional<uint16_t> port;
  if (!take(rest, ':') || !(port = take_port(rest))) return form;
  r.port_first = r.port_last = *port;
  if (take(rest, '-')) {
    if (!(port = take_port(rest))) return form;
    r.port_last = *port;
  }
  if (!rest.empty()) return form;
  if (r.first.is_unspecified()) return Error{quoted(text) + " is nobody's address"};
  if (r.first.is_v4() != r.last.is_v4()) return Error{quoted(text) + ": from an IPv4 to an IPv6 address is no range"};
  if (r.last < r.first) return Error{quoted(text) + ": the last address comes before the first"};
  if (r.port_last < r.port_first) return Error{quoted(text) + ": the last port comes before the first"};
  return r;
}

uint64_t addresses_between(const IpAddress& first, const IpAddress& last) {
  uint64_t high[2] = {}, low[2] = {};
  const IpAddress* ends[2] = {&first, &last};
  for (int e = 0; e < 2; ++e) {
    for (int i = 0; i < 8; ++i) {
      high[e] = high[e] << 8 | ends[e]->bytes[static_cast<size_t>(i)];
      low[e] = low[e] << 8 | ends[e]->bytes[static_cast<size_t>(i + 8)];
    }
  }
  __extension__ using Wide = unsigned __int128;
  const Wide n = ((Wide{high[1]} << 64) | low[1]) - ((Wide{high[0]} << 64) | low[0]);
  return n >= uint64_t{1} << 63 ? UINT64_MAX : static_cast<uint64_t>(n) + 1;
}

uint64_t addresses_of(const Network& n) {
  const unsigned host_bits = (n.address.is_v4() ? 32u : 128u) - n.bits;
  return host_bits > 63 ? UINT64_MAX : uint64_t{1} << host_bits;
}

bool contains(const Network& n, const IpAddress& a) { return a.in_prefix(n.address, n.bits); }

std::string to_string(const Network& n) { return n.address.to_string() + "/" + std::to_string(n.bits); }

}  // namespace millrace::load
