#include "lib/bootstrap/dataplane_section.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <set>

#include <yaml-cpp/yaml.h>

#include "lib/bootstrap/section_text.h"

namespace millrace::bootstrap {

std::string SectionError::to_string() const {
  std::string s = file;
  if (line > 0) s += ":" + std::to_string(line) + ":" + std::to_string(column);
  s += ": ";
  if (!path.empty()) s += path + ": ";
  return s + message;
}

namespace {

using base::IpAddress;

constexpr uint32_t kMaxPorts = 16;        // lib/io: kMaxPorts
constexpr uint32_t kMaxMembers = 8;       // of a bond
constexpr uint32_t kMaxVlans = 64;        // of one port
constexpr uint32_t kMaxInterfaces = 128;  // IpLayer::kMaxInterfaces
constexpr size_t kMaxInterfaceName = 15;  // Linux's IFNAMSIZ, less the NUL
constexpr uint32_t kMaxCores = 64;        // lib/stats: kMaxWorkers
constexpr uint32_t kMaxSourceLevels = 4;  // dataplane/admission.h: AdmissionConfig::kMaxLevels
constexpr uint32_t kMaxCore = 1023;
constexpr uint64_t kPayloadPacketBytes = 2'368;  // data room, mbuf, mempool's header
constexpr uint64_t kHeaderPacketBytes = 832;
constexpr uint64_t kIndirectPacketBytes = 192;

std::string quoted(const std::string& s) { return "'" + s + "'"; }

// Letters to change to get from a to b.
size_t distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t next = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = row[j];
      row[j] = next;
    }
  }
  return row.back();
}

bool in_prefix(const IpAddress& a, const Prefix& p) { return a.is_v4() == p.address.is_v4() && a.in_prefix(p.address, p.bits); }
bool is_group(const IpAddress& a) { return a.is_v4() ? (a.bytes[12] >> 4) == 14 : a.bytes[0] == 0xff; }
bool is_loopback(const IpAddress& a) {
  if (a.is_v4()) return a.bytes[12] == 127;
  IpAddress one{};
  one.bytes[15] = 1;
  return a == one;
}

class Reader {
 public:
  Reader(std::string_view file, std::string_view run_dir) : file_(file), run_dir_(run_dir) {}

  SectionResult read(const YAML::Node& root) {
    SectionResult r;
    const std::string path = "dataplane";
    if (!root.IsMap()) return r;
    for (const auto& pair : root) {
      if (!pair.first.IsScalar() || pair.first.Scalar() != path) continue;
      if (r.present) error(pair.first, path, "appears twice; keep one");
      r.present = true;
      section(pair.second, path);
    }
    std::stable_sort(errors_.begin(), errors_.end(), [](const SectionError& a, const SectionError& b) {
      return a.line != b.line ? a.line < b.line : a.column < b.column;
    });
    r.errors = std::move(errors_);
    if (r.present && r.errors.empty()) r.section = std::move(out_);
    return r;
  }

 private:
  // --- places and errors ---------------------------------------------------------------------------------------------------
  void error(const YAML::Node& at, const std::string& path, std::string message) {
    const YAML::Mark m = at.Mark();
    errors_.push_back({file_, m.line + 1, m.column + 1, path, std::move(message)});
  }

  // Calls f(key, value, path of the value) for each key; keys not in `known` and repeated keys are errors. False: not a map.
  template <class F>
  bool map(const YAML::Node& n, const std::string& path, std::initializer_list<const char*> known, F&& f) {
    if (!n.IsMap()) {
      error(n, path, std::string("must be a map of keys, not ") + kind(n));
      return false;
    }
    std::set<std::string> seen;
    for (const auto& pair : n) {
      const std::string key = pair.first.IsScalar() ? pair.first.Scalar() : "";
      if (std::find_if(known.begin(), known.end(), [&](const char* k) { return key == k; }) == known.end()) {
        error(pair.first, path, unknown(key, known));
        continue;
      }
      if (!seen.insert(key).second) {
        error(pair.first, path + "." + key, "appears twice; keep one");
        continue;
      }
      f(key, pair.second, path + "." + key);
    }
    return true;
  }
  static std::string unknown(const std::string& key, std::initializer_list<const char*> known) {
    const char* best = nullptr;
    size_t least = 3;
    for (const char* k : known) {
      const size_t d = distance(key, k);
      if (d < least) least = d, best = k;
    }
    std::string s = "unknown key " + quoted(key);
    if (best != nullptr) return s + "; did you mean " + quoted(best) + "?";
    s += "; known keys are";
    const char* separator = " ";
    for (const char* k : known) s += std::exchange(separator, ", ") + std::string(k);
    return s;
  }
  static const char* kind(const YAML::Node& n) {
    return n.IsMap() ? "a map" : n.IsSequence() ? "a list" : n.IsNull() || !n.IsDefined() ? "nothing" : "a plain value";
  }
  template <class F>
  void list(const YAML::Node& n, const std::string& path, F&& f) {
    if (!n.IsSequence()) return error(n, path, std::string("must be a list, not ") + kind(n));
    for (size_t i = 0; i < n.size(); ++i) f(n[i], path + "[" + std::to_string(i) + "]");
  }

  // --- values ----------------------------------------------------------------------------------------------------------------
  bool scalar(const YAML::Node& n, const std::string& path, const char* what, std::string& out) {
    if (!n.IsScalar()) {
      error(n, path, std::string("must be ") + what + ", not " + kind(n));
      return false;
    }
    out = n.Scalar();
    return true;
  }
  template <class T>
  void number(const YAML::Node& n, const std::string& path, uint64_t low, uint64_t high, T& out) {
    const std::string range = "a whole number from " + std::to_string(low) + " to " + std::to_string(high);
    std::string s;
    if (!scalar(n, path, range.c_str(), s)) return;
    uint64_t v = 0;
    const auto [end, ec] = std::from_chars(s.data(), s.data() + s.size(), v);
    if (ec != std::errc() || end != s.data() + s.size() || v < low || v > high)
      return error(n, path, "must be " + range + ", not " + quoted(s));
    out = static_cast<T>(v);
  }
  void boolean(const YAML::Node& n, const std::string& path, bool& out) {
    std::string s;
    if (!scalar(n, path, "true or false", s)) return;
    if (s == "true" || s == "True") out = true;
    else if (s == "false" || s == "False") out = false;
    else error(n, path, "must be true or false, not " + quoted(s));
  }
  bool address(const YAML::Node& n, const std::string& path, IpAddress& out) {
    std::string s;
    if (!scalar(n, path, "an IP address", s)) return false;
    const auto a = IpAddress::parse(s);
    if (!a) {
      error(n, path, quoted(s) + " is no IP address" + (s.find('/') != std::string::npos ? "; leave the prefix length out" : ""));
      return false;
    }
    out = *a;
    return true;
  }
  bool prefix(const YAML::Node& n, const std::string& path, Prefix& out) {
    std::string s;
    if (!scalar(n, path, "an address with prefix length, as in 10.1.0.1/24", s)) return false;
    const size_t slash = s.find('/');
    const auto a = IpAddress::parse(std::string_view(s).substr(0, slash));
    if (!a) {
      error(n, path, quoted(s) + " is no IP address with prefix length, as in 10.1.0.1/24 or fd00:1::1/64");
      return false;
    }
    const unsigned most = a->is_v4() ? 32 : 128;
    unsigned bits = most + 1;
    if (slash != std::string::npos) {
      const auto [end, ec] = std::from_chars(s.data() + slash + 1, s.data() + s.size(), bits);
      if (ec != std::errc() || end != s.data() + s.size()) bits = most + 1;
    }
    if (bits > most) {
      error(n, path,
            quoted(s) + " has no prefix length from 0 to " + std::to_string(most) + "; write " + s.substr(0, slash) +
                (a->is_v4() ? "/24" : "/64"));
      return false;
    }
    out = {*a, static_cast<uint8_t>(bits)};
    return true;
  }
  bool mac(const YAML::Node& n, const std::string& path, std::array<uint8_t, 6>& out) {
    std::string s;
    if (!scalar(n, path, "a MAC address", s)) return false;
    unsigned b[6];
    int end = 0;
    const bool ok = s.size() == 17 &&
                    std::sscanf(s.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) == 6 &&
                    end == 17;
    if (!ok) {
      error(n, path, quoted(s) + " is no MAC address, as in 02:00:00:00:00:01");
      return false;
    }
    if ((b[0] & 1) != 0 || s == "00:00:00:00:00:00") {
      error(n, path, quoted(s) + " is a group or zero address; a port needs one of its own");
      return false;
    }
    for (int i = 0; i < 6; ++i) out[static_cast<size_t>(i)] = static_cast<uint8_t>(b[i]);
    return true;
  }

  // --- the section -------------------------------------------------------------------------------------------------------------
  void section(const YAML::Node& n, const std::string& path) {
    bool main_core_given = false;
    YAML::Node cores, main_core, memory, exception_node;
    bool ports_seen = false;
    const bool is_map = map(n, path,
                            {"cores", "main_core", "share_cores", "hugepages", "memory_mb", "file_prefix", "ports", "limits",
                             "tcp", "stage_accounting", "tls_key_capture", "exception"},
                            [&](const std::string& key, const YAML::Node& v, const std::string& p) {
                              if (key == "cores") cores.reset(v), read_cores(v, p);
                              else if (key == "main_core")
                                main_core_given = true, main_core.reset(v), number(v, p, 0, kMaxCore, out_.main_core);
                              else if (key == "share_cores") boolean(v, p, out_.share_cores);
                              else if (key == "hugepages") boolean(v, p, out_.hugepages);
                              else if (key == "stage_accounting") boolean(v, p, out_.stage_accounting);
                              else if (key == "tls_key_capture") boolean(v, p, out_.tls_key_capture);
                              else if (key == "memory_mb") memory.reset(v), number(v, p, 64, 1024 * 1024, out_.memory_mb);
                              else if (key == "file_prefix") file_prefix(v, p);
                              else if (key == "ports") ports_seen = true, ports(v, p);
                              else if (key == "limits") limits(v, p);
                              else if (key == "exception") exception_node.reset(v), exception(v, p);
                              else tcp(v, p);
                            });
    if (!is_map) return;
    if (out_.share_cores) repeated_core_ = {};
    else if (!repeated_core_.path.empty()) error(repeated_core_.at, repeated_core_.path, repeated_core_.message);
    if (!ports_seen)
      error(n, path,
            "has no `ports`: name at least one, as in ports: [{device: \"af_packet:veth0\", addresses: [\"10.1.0.1/24\"]}]");
    auto is_worker = [&](uint32_t c) { return std::find(out_.cores.begin(), out_.cores.end(), c) != out_.cores.end(); };
    if (!main_core_given) {
      while (is_worker(out_.main_core)) ++out_.main_core;
    } else if (!out_.share_cores && is_worker(out_.main_core)) {
      error(main_core, path + ".main_core",
            "core " + std::to_string(out_.main_core) + " is also in `cores`: a worker needs a core of its own");
    }
    if (out_.file_prefix.empty()) out_.file_prefix = default_prefix();
    const LimitsSection& l = out_.limits;
    const uint64_t need =
        (l.payload_packets * kPayloadPacketBytes + l.header_packets * (kHeaderPacketBytes + kIndirectPacketBytes)) *
        out_.cores.size();
    const uint64_t need_mb = (need * 10 / 9 >> 20) + 1;  // a tenth for DPDK's own
    if (need_mb > out_.memory_mb) {
      error(memory.IsDefined() && !memory.IsNull() ? memory : n, path + ".memory_mb",
            std::to_string(out_.memory_mb) + " MB do not hold the packets of `limits` for " + std::to_string(out_.cores.size()) +
                " worker" + (out_.cores.size() == 1 ? "" : "s") + ": at least " + std::to_string(need_mb) +
                " MB are needed; raise it or lower limits.payload_packets");
    }
    names_and_addresses();
    if (!out_.exception.enable) return;
    for (const PortSection& port : out_.ports) {
      const std::string tap = out_.exception.name + port.name;
      if (tap.size() > kMaxInterfaceName)
        error(exception_node, path + ".exception.name",
              "with the name of port " + quoted(port.name) + " gives " + quoted(tap) + ", which is longer than " +
                  std::to_string(kMaxInterfaceName) + " characters; shorten one of them");
    }
  }

  void exception(const YAML::Node& n, const std::string& path) {
    ExceptionSection& e = out_.exception;
    map(n, path, {"enable", "name", "rate", "to_host"}, [&](const std::string& key, const YAML::Node& v, const std::string& p) {
      if (key == "enable") boolean(v, p, e.enable);
      else if (key == "rate") number(v, p, 1, 1'000'000, e.rate);
      else if (key == "name") name(v, p, e.name);
      else
        list(v, p, [&](const YAML::Node& r, const std::string& q) {
          std::string s;
          if (scalar(r, q, "a rule like tcp:179 or udp", s)) host_rule(r, q, s);
        });
    });
  }
  // "tcp", "udp:3784", "tcp:7000-7010"
  void host_rule(const YAML::Node& at, const std::string& path, const std::string& s) {
    HostRule rule;
    const size_t colon = std::min(s.find(':'), s.size());
    const std::string protocol = s.substr(0, colon);
    rule.protocol = protocol == "tcp" ? 6 : protocol == "udp" ? 17 : 0;
    bool ok = rule.protocol != 0;
    if (ok && colon < s.size()) {
      const char* end = s.data() + s.size();
      auto r = std::from_chars(s.data() + colon + 1, end, rule.first);
      ok = r.ec == std::errc();
      rule.last = rule.first;
      if (ok && r.ptr != end) {
        ok = *r.ptr == '-';
        if (ok) r = std::from_chars(r.ptr + 1, end, rule.last);
        ok = ok && r.ec == std::errc() && r.ptr == end;
      }
      ok = ok && rule.first != 0 && rule.first <= rule.last;
    }
    if (!ok) return error(at, path, quoted(s) + " is no rule: write tcp or udp, and ports as in tcp:179 or udp:3784-3785");
    out_.exception.to_host.push_back(rule);
  }

  std::string default_prefix() const {
    if (run_dir_ == "/run/millrace") return "millrace";
    uint32_t h = 2166136261;  // FNV-1a
    for (const char c : run_dir_) h = (h ^ static_cast<uint8_t>(c)) * 16777619;
    char text[24];
    std::snprintf(text, sizeof text, "millrace-%08x", h);
    return text;
  }

  // "1", "1-3", "1,3-5", or a list of these.
  void read_cores(const YAML::Node& n, const std::string& path) {
    out_.cores.clear();
    auto add = [&](const YAML::Node& at, const std::string& p) {
      std::string s;
      if (!scalar(at, p, "a core number or a range like 1-3", s)) return;
      for (size_t from = 0; from <= s.size();) {
        const size_t comma = std::min(s.find(',', from), s.size());
        unsigned low = 0, high = 0;
        const char* begin = s.data() + from;
        const char* end = s.data() + comma;
        auto r = std::from_chars(begin, end, low);
        bool ok = r.ec == std::errc();
        high = low;
        if (ok && r.ptr != end) {
          ok = *r.ptr == '-';
          if (ok) r = std::from_chars(r.ptr + 1, end, high);
          ok = ok && r.ec == std::errc() && r.ptr == end;
        }
        if (!ok || low > high || high > kMaxCore)
          return error(at, p, quoted(s) + " is no core number from 0 to " + std::to_string(kMaxCore) + " and no range like 1-3");
        for (unsigned c = low; c <= high; ++c) {
          if (std::find(out_.cores.begin(), out_.cores.end(), c) != out_.cores.end())
            if (repeated_core_.path.empty())
              repeated_core_ = {at, p, "core " + std::to_string(c) + " is named twice; share_cores: true allows it, for tests"};
          out_.cores.push_back(c);
        }
        from = comma + 1;
      }
    };
    if (n.IsSequence()) list(n, path, add);
    else add(n, path);
    if (n.IsSequence() && n.size() == 0) error(n, path, "names no core: a gateway needs at least one worker");
    if (out_.cores.size() > kMaxCores)
      error(n, path,
            "names " + std::to_string(out_.cores.size()) + " cores; at most " + std::to_string(kMaxCores) +
                " workers are supported");
    if (out_.cores.empty()) out_.cores = {1};
  }

  void file_prefix(const YAML::Node& n, const std::string& path) {
    std::string s;
    if (!scalar(n, path, "a name", s)) return;
    const bool ok = !s.empty() && s.size() <= 64 && std::all_of(s.begin(), s.end(), [](unsigned char c) {
      return std::isalnum(c) || c == '-' || c == '_' || c == '.';
    });
    if (!ok) return error(n, path, quoted(s) + " must be 1 to 64 letters, digits, '-', '_' or '.'");
    out_.file_prefix = s;
  }

  void ports(const YAML::Node& n, const std::string& path) {
    list(n, path, [&](const YAML::Node& p, const std::string& at) { port(p, at); });
    if (n.IsSequence() && n.size() == 0) error(n, path, "is empty: name at least one port");
    if (n.IsSequence() && n.size() > kMaxPorts)
      error(n, path, "has " + std::to_string(n.size()) + " ports; at most " + std::to_string(kMaxPorts) + " are supported");
  }

  // Where things of a port stand, for the checks that need all of it.
  struct PortPlaces {
    std::string path;
    YAML::Node node, name, device;
    std::vector<YAML::Node> addresses, gateways, vias;
    std::vector<PortPlaces> vlans;
  };

  // The keys that a port and its further VLANs have in common. False: not one of them.
  bool link_key(const std::string& key, const YAML::Node& v, const std::string& f, LinkSection& p, PortPlaces& at) {
    if (key == "vlan") number(v, f, 0, 4094, p.vlan);
    else if (key == "dad") number(v, f, 0, 5, p.dad);
    else if (key == "addresses") list(v, f, [&](const YAML::Node& a, const std::string& g) { own_address(a, g, p, at); });
    else if (key == "gateways")
      list(v, f, [&](const YAML::Node& a, const std::string& g) {
        IpAddress ip;
        if (address(a, g, ip)) p.gateways.push_back(ip), at.gateways.push_back(a);
      });
    else if (key == "routes") list(v, f, [&](const YAML::Node& a, const std::string& g) { route(a, g, p, at); });
    else if (key == "neighbors") list(v, f, [&](const YAML::Node& a, const std::string& g) { neighbor(a, g, p); });
    else return false;
    return true;
  }

  // What must hold of addresses and next hops of one link.
  void check_link(const LinkSection& p, const PortPlaces& at, const YAML::Node& mtu_node, uint16_t mtu) {
    if (p.addresses.empty() && at.addresses.empty())
      error(at.node, at.path, "has no `addresses`: a port needs at least one, as in addresses: [\"10.1.0.1/24\"]");
    const bool v6 = std::any_of(p.addresses.begin(), p.addresses.end(), [](const Prefix& a) { return !a.address.is_v4(); });
    if (v6 && mtu < 1280)
      error(mtu_node, at.path.substr(0, at.path.find(".vlans")) + ".mtu",
            "must be at least 1280 on a port with IPv6 addresses (RFC 8200 5), not '" + std::to_string(mtu) + "'");
    auto on_link = [&](const IpAddress& a) {
      return std::any_of(p.addresses.begin(), p.addresses.end(), [&](const Prefix& x) { return in_prefix(a, x); });
    };
    auto check_next_hop = [&](const YAML::Node& node, const std::string& f, const IpAddress& a) {
      if (std::any_of(p.addresses.begin(), p.addresses.end(), [&](const Prefix& x) { return x.address == a; })) {
        error(node, f, a.to_string() + " is this port's own address; name the router's");
      } else if (!on_link(a)) {
        error(node, f, a.to_string() + " is not within the prefix of any address of this port, so it cannot be reached");
      }
    };
    for (size_t i = 0; i < p.gateways.size(); ++i) {
      const std::string f = at.path + ".gateways[" + std::to_string(i) + "]";
      check_next_hop(at.gateways[i], f, p.gateways[i]);
      for (size_t j = 0; j < i; ++j)
        if (p.gateways[i] == p.gateways[j]) error(at.gateways[i], f, p.gateways[i].to_string() + " is named twice");
    }
    for (size_t i = 0; i < p.routes.size(); ++i)
      check_next_hop(at.vias[i], at.path + ".routes[" + std::to_string(i) + "].via", p.routes[i].via);
  }

  void vlan(const YAML::Node& n, const std::string& path, PortSection& p, PortPlaces& port) {
    LinkSection link;
    PortPlaces at;
    at.path = path;
    at.node.reset(n);
    const bool is_map =
        map(n, path, {"vlan", "addresses", "gateways", "routes", "neighbors", "dad"},
            [&](const std::string& key, const YAML::Node& v, const std::string& f) { link_key(key, v, f, link, at); });
    if (!is_map) return;
    if (!n["vlan"].IsDefined()) return error(n, path, "needs `vlan`, a tag from 1 to 4094");
    p.vlans.push_back(std::move(link));
    port.vlans.push_back(std::move(at));
  }

  // Why this device can be in no bond; null: it can. net_bonding gives its members the bond's MAC address.
  static const char* no_member(const std::string& devargs) {
    for (const char* driver : {"net_memif", "net_vhost", "net_af_xdp"})
      if (devargs.starts_with(driver))
        return "cannot be a member of a bond: DPDK's driver does not take another MAC address; use PCI devices, tap:, "
               "virtio_user: "
               "or af_packet:";
    return nullptr;
  }

  void bond(const YAML::Node& n, const std::string& path, PortSection& p) {
    const bool is_map = map(n, path, {"mode", "members"}, [&](const std::string& key, const YAML::Node& v, const std::string& f) {
      if (key == "members") {
        list(v, f, [&](const YAML::Node& m, const std::string& g) {
          std::string s, why;
          if (!scalar(m, g, "a device", s)) return;
          const uint32_t index =
              kMaxPorts + static_cast<uint32_t>(out_.ports.size()) * kMaxMembers + static_cast<uint32_t>(p.members.size());
          const auto args = expand_device(s, index, p.mtu, 1, &why);
          if (!args) error(m, g, why);
          else if (const char* no = no_member(*args)) error(m, g, no);
          p.members.push_back(s);
        });
        return;
      }
      std::string s;
      if (!scalar(v, f, "active-backup, balance or lacp", s)) return;
      p.bond = s == "active-backup" ? BondMode::kActiveBackup
               : s == "balance"     ? BondMode::kBalance
               : s == "lacp"        ? BondMode::kLacp
                                    : BondMode::kNone;
      if (p.bond == BondMode::kNone) error(v, f, "must be active-backup, balance or lacp, not " + quoted(s));
    });
    if (!is_map) return;
    if (!n["mode"].IsDefined()) error(n, path, "needs `mode`: active-backup, balance or lacp");
    if (p.members.empty()) error(n, path, "needs `members`: the devices that it is made of");
    // DPDK's drivers of these do not raise an event when their link goes down: balance would go on sending there.
    for (size_t i = 0; p.bond == BondMode::kBalance && i < p.members.size(); ++i)
      for (const char* driver : {"af_packet:", "net_af_packet", "tap:", "net_tap"})
        if (p.members[i].starts_with(driver))
          error(n["members"][i], path + ".members[" + std::to_string(i) + "]",
                "its driver does not tell when the link is down, and balance would go on sending there; use active-backup, PCI "
                "devices, or a bond of the kernel's as af_packet:bond0");
    if (p.members.size() > kMaxMembers) error(n, path + ".members", "has more than " + std::to_string(kMaxMembers) + " devices");
  }

  void offloads(const YAML::Node& v, const std::string& path, Offloads& out) {
    constexpr const char* kForm = "auto, off or a list of checksum, tso, lro and scatter";
    constexpr Offloads kNone{false, false, false, false};
    if (v.IsSequence()) {
      out = kNone;
      list(v, path, [&](const YAML::Node& e, const std::string& g) {
        std::string s;
        if (!scalar(e, g, "checksum, tso, lro or scatter", s)) return;
        if (s == "checksum") out.checksum = true;
        else if (s == "tso") out.tso = true;
        else if (s == "lro") out.lro = true;
        else if (s == "scatter") out.scatter = true;
        else error(e, g, "must be checksum, tso, lro or scatter, not " + quoted(s));
      });
      return;
    }
    std::string s;
    if (!scalar(v, path, kForm, s)) return;
    if (s == "auto") out = {};
    else if (s == "off" || s == "false") out = kNone;  // `off` is false to some YAML readers
    else error(v, path, std::string("must be ") + kForm + ", not " + quoted(s));
  }

  void port(const YAML::Node& n, const std::string& path) {
    PortSection p;
    PortPlaces at;
    at.path = path;
    at.node.reset(n);
    YAML::Node mtu, bond_node;
    const bool is_map = map(n, path,
                            {"name", "device", "bond", "queues", "mtu", "vlan", "vlans", "addresses", "gateways", "routes",
                             "neighbors", "dad", "offloads", "mac"},
                            [&](const std::string& key, const YAML::Node& v, const std::string& f) {
                              if (link_key(key, v, f, p, at)) return;
                              if (key == "name") at.name.reset(v), name(v, f, p.name);
                              else if (key == "device") at.device.reset(v), scalar(v, f, "a device", p.device);
                              else if (key == "bond") bond_node.reset(v), bond(v, f, p);
                              else if (key == "queues") number(v, f, 1, kMaxCores, p.queues);
                              else if (key == "mtu") mtu.reset(v), number(v, f, 576, 9216, p.mtu);
                              else if (key == "vlans")
                                list(v, f, [&](const YAML::Node& a, const std::string& g) { vlan(a, g, p, at); });
                              else if (key == "offloads") offloads(v, f, p.offloads);
                              else {
                                std::array<uint8_t, 6> m{};
                                if (mac(v, f, m)) p.mac = m;
                              }
                            });
    if (!is_map) return;
    if (p.name.empty()) p.name = "port" + std::to_string(out_.ports.size());
    const bool no_device = !at.device.IsDefined() || at.device.IsNull();
    const bool bonded = bond_node.IsDefined() && !bond_node.IsNull();
    if (bonded) {
      if (!no_device) error(at.device, path + ".device", "is given beside `bond`, which is a device of its own; keep one");
    } else if (p.device.empty() && (no_device || at.device.IsScalar())) {
      error(n, path, "has no `device`: name a PCI address, af_packet:IFACE, af_xdp:IFACE, memif:SOCKET or another DPDK device");
    } else if (!p.device.empty()) {
      std::string why;
      const auto args = expand_device(p.device, static_cast<uint32_t>(out_.ports.size()), p.mtu, 1, &why);
      if (!args) error(at.device, path + ".device", why);
    }
    check_link(p, at, mtu, p.mtu);
    for (size_t i = 0; i < p.vlans.size(); ++i) {
      const PortPlaces& place = at.vlans[i];
      check_link(p.vlans[i], place, mtu.IsDefined() && !mtu.IsNull() ? mtu : place.node, p.mtu);
      bool taken = p.vlans[i].vlan == p.vlan;
      for (size_t j = 0; j < i; ++j) taken = taken || p.vlans[i].vlan == p.vlans[j].vlan;
      if (taken)
        error(place.node, place.path + ".vlan",
              "VLAN " + std::to_string(p.vlans[i].vlan) + " of this port is already configured; put the addresses together");
    }
    if (p.vlans.size() > kMaxVlans) error(n, path + ".vlans", "has more than " + std::to_string(kMaxVlans) + " VLANs");
    out_.ports.push_back(std::move(p));
    places_.push_back(std::move(at));
  }

  void name(const YAML::Node& n, const std::string& path, std::string& out) {
    if (!scalar(n, path, "a name", out)) return;
    const bool ok = !out.empty() && out.size() <= 31 && std::all_of(out.begin(), out.end(), [](unsigned char c) {
      return std::isalnum(c) || c == '-' || c == '_' || c == '.';
    });
    if (!ok) error(n, path, quoted(out) + " must be 1 to 31 letters, digits, '-', '_' or '.'");
  }

  void own_address(const YAML::Node& n, const std::string& path, LinkSection& p, PortPlaces& at) {
    Prefix a;
    const bool ok = prefix(n, path, a);
    at.addresses.push_back(n);
    p.addresses.push_back(a);  // also a bad one, as ::/0, so that indices agree; the section is refused anyway
    if (!ok) return;
    const std::string text = a.address.to_string();
    if (a.address.is_unspecified() || is_group(a.address) || is_loopback(a.address))
      return error(n, path, text + " cannot be a port's address (unspecified, group or loopback)");
    if (a.address.is_v4() && a.bits <= 30) {
      const uint32_t host = a.address.v4_host_order() & (a.bits == 0 ? UINT32_MAX : UINT32_MAX >> a.bits);
      const uint32_t all = a.bits == 0 ? UINT32_MAX : UINT32_MAX >> a.bits;
      if (host == 0) error(n, path, text + " is the network's own address; use one with host bits");
      else if (host == all) error(n, path, text + " is the network's broadcast address");
    }
  }

  void route(const YAML::Node& n, const std::string& path, LinkSection& p, PortPlaces& at) {
    RouteSection r;
    bool to = false, via = false;
    YAML::Node via_node;
    const bool is_map = map(n, path, {"to", "via"}, [&](const std::string& key, const YAML::Node& v, const std::string& f) {
      if (key == "via") {
        via_node.reset(v);
        via = address(v, f, r.via);
        return;
      }
      to = prefix(v, f, r.to);
      if (!to) return;
      IpAddress network = r.to.address;
      for (unsigned bit = r.to.bits + (network.is_v4() ? 96u : 0u); bit < 128; ++bit)
        network.bytes[bit / 8] &= static_cast<uint8_t>(~(0x80 >> bit % 8));
      if (network != r.to.address)
        error(v, f,
              r.to.address.to_string() + "/" + std::to_string(r.to.bits) + " has host bits; did you mean " + network.to_string() +
                  "/" + std::to_string(r.to.bits) + "?");
    });
    if (!is_map) return;
    if (n["to"].IsDefined() && n["via"].IsDefined()) {
      if (!to || !via) return;
      if (r.to.address.is_v4() != r.via.is_v4()) return error(via_node, path + ".via", "is not of the same family as `to`");
      p.routes.push_back(r);
      at.vias.push_back(via_node);
    } else {
      error(n, path, "needs both `to` (a prefix) and `via` (the router's address)");
    }
  }

  void neighbor(const YAML::Node& n, const std::string& path, LinkSection& p) {
    NeighborSection s;
    bool a = false, m = false;
    if (!map(n, path, {"address", "mac"}, [&](const std::string& key, const YAML::Node& v, const std::string& f) {
          (key == "mac" ? m : a) = key == "mac" ? mac(v, f, s.mac) : address(v, f, s.address);
        }))
      return;
    if (!n["address"].IsDefined() || !n["mac"].IsDefined()) return error(n, path, "needs both `address` and `mac`");
    if (a && m) p.neighbors.push_back(s);
  }

  void names_and_addresses() {
    for (size_t i = 0; i < out_.ports.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        const PortSection &a = out_.ports[j], &b = out_.ports[i];
        if (a.name == b.name)
          error(places_[i].name.IsDefined() && !places_[i].name.IsNull() ? places_[i].name : places_[i].node,
                places_[i].path + ".name", quoted(b.name) + " is already the name of " + places_[j].path);
        if (!a.device.empty() && a.device == b.device)
          error(places_[i].device, places_[i].path + ".device",
                quoted(b.device) + " is already the device of " + places_[j].path);
      }
    }
    size_t interfaces = out_.ports.size();
    for (const PortSection& p : out_.ports) interfaces += p.vlans.size();
    if (interfaces > kMaxInterfaces)
      error(
          places_[0].node, "dataplane.ports",
          "have " + std::to_string(interfaces) + " VLANs together; at most " + std::to_string(kMaxInterfaces) + " are supported");
    // An address belongs to one interface.
    std::vector<std::pair<const LinkSection*, const PortPlaces*>> links;
    for (size_t i = 0; i < out_.ports.size(); ++i) {
      links.emplace_back(&out_.ports[i], &places_[i]);
      for (size_t v = 0; v < out_.ports[i].vlans.size(); ++v) links.emplace_back(&out_.ports[i].vlans[v], &places_[i].vlans[v]);
    }
    for (size_t i = 0; i < links.size(); ++i) {
      for (size_t x = 0; x < links[i].first->addresses.size(); ++x) {
        const Prefix& p = links[i].first->addresses[x];
        if (p.address == IpAddress{}) continue;
        for (size_t j = 0; j <= i; ++j) {
          for (size_t y = 0; y < (j == i ? x : links[j].first->addresses.size()); ++y) {
            if (links[j].first->addresses[y].address == p.address) {
              error(links[i].second->addresses[x], links[i].second->path + ".addresses[" + std::to_string(x) + "]",
                    p.address.to_string() + " is already an address of " + links[j].second->path);
            }
          }
        }
      }
    }
    // The devices in full: every worker gets a queue.
    for (size_t i = 0; i < out_.ports.size(); ++i) {
      PortSection& p = out_.ports[i];
      std::string why;
      // A memif's rings are the peer's to grant, and DPDK does not say how many it did: frames for one that is not there are
      // lost.
      if (p.queues == 0 && (p.device.starts_with("memif:") || p.device.starts_with("net_memif"))) p.queues = 1;
      const auto workers = static_cast<uint32_t>(out_.cores.size());
      const uint32_t queues = p.queues == 0 ? workers : std::min<uint32_t>(p.queues, workers);
      if (p.bond == BondMode::kNone) {
        if (const auto args = expand_device(p.device, static_cast<uint32_t>(i), p.mtu, queues, &why)) p.devargs = *args;
        continue;
      }
      // DPDK's modes: 1 active-backup, 2 balance, 4 802.3ad. Flows are spread over members by addresses and ports (l34).
      const char* mode = p.bond == BondMode::kActiveBackup ? "1" : p.bond == BondMode::kBalance ? "2" : "4";
      p.devargs = "net_bonding" + std::to_string(i) + ",mode=" + mode;
      if (p.bond != BondMode::kActiveBackup) p.devargs += ",xmit_policy=l34";
      for (size_t m = 0; m < p.members.size(); ++m) {
        const auto args =
            expand_device(p.members[m], static_cast<uint32_t>(kMaxPorts + i * kMaxMembers + m), p.mtu, queues, &why);
        if (!args) continue;
        p.member_devargs.push_back(*args);
        p.devargs += ",slave=" + args->substr(0, args->find(','));
      }
    }
  }

  void limits(const YAML::Node& n, const std::string& path) {
    LimitsSection& l = out_.limits;
    YAML::Node range;
    map(n, path,
        {"connections", "half_open", "time_wait", "neighbors", "payload_packets", "header_packets", "rx_descriptors",
         "tx_descriptors", "upstream_ports", "resets_per_second", "icmp_per_second", "fragments",
         "max_active_downstream_connections", "connection_limit", "listener_connection_limits", "sources", "source_table"},
        [&](const std::string& key, const YAML::Node& v, const std::string& p) {
          if (key == "connections") number(v, p, 16, 10'000'000, l.connections);
          else if (key == "half_open") number(v, p, 0, 10'000'000, l.half_open);
          else if (key == "time_wait") number(v, p, 16, 10'000'000, l.time_wait);
          else if (key == "neighbors") number(v, p, 16, 65'536, l.neighbors);
          else if (key == "payload_packets") number(v, p, 4'096, 16'777'216, l.payload_packets);
          else if (key == "header_packets") number(v, p, 1'024, 16'777'216, l.header_packets);
          else if (key == "rx_descriptors") number(v, p, 64, 32'768, l.rx_descriptors);
          else if (key == "tx_descriptors") number(v, p, 64, 32'768, l.tx_descriptors);
          else if (key == "upstream_ports") port_range(v, p);
          else if (key == "resets_per_second") number(v, p, 0, 10'000'000, l.resets_per_second);
          else if (key == "icmp_per_second") number(v, p, 0, 10'000'000, l.icmp_per_second);
          else if (key == "fragments") number(v, p, 0, 4'096, l.fragments);
          else if (key == "max_active_downstream_connections") number(v, p, 0, 100'000'000, l.max_active_downstream_connections);
          else if (key == "connection_limit") number(v, p, 0, 100'000'000, l.connection_limit);
          else if (key == "listener_connection_limits") listener_limits(v, p);
          else if (key == "sources") list(v, p, [&](const YAML::Node& s, const std::string& at) { source(s, at); });
          else number(v, p, 1'024, 16'777'216, l.source_table);
        });
    if (l.sources.size() > kMaxSourceLevels)
      error(n, path + ".sources",
            "has " + std::to_string(l.sources.size()) + " entries; at most " + std::to_string(kMaxSourceLevels) +
                " lengths of prefixes are supported");
  }

  // Any name is a key: listeners come and go, and one that is not there yet has its limit already.
  void listener_limits(const YAML::Node& n, const std::string& path) {
    if (!n.IsMap()) return error(n, path, "must be a map from names of listeners to numbers");
    for (const auto& item : n) {
      std::string name;
      if (!scalar(item.first, path, "a listener's name", name)) continue;
      uint32_t limit = 0;
      number(item.second, path + "." + name, 0, 100'000'000, limit);
      if (!out_.limits.listener_connection_limits.emplace(name, limit).second)
        error(item.first, path, "names " + quoted(name) + " twice");
    }
  }

  void source(const YAML::Node& n, const std::string& path) {
    SourceSection s;
    const bool is_map = map(n, path, {"ipv4_prefix", "ipv6_prefix", "syns_per_second", "burst", "connections"},
                            [&](const std::string& key, const YAML::Node& v, const std::string& p) {
                              if (key == "ipv4_prefix") number(v, p, 8, 32, s.ipv4_prefix);
                              else if (key == "ipv6_prefix") number(v, p, 16, 128, s.ipv6_prefix);
                              else if (key == "syns_per_second") number(v, p, 0, 10'000'000, s.syns_per_second);
                              else if (key == "burst") number(v, p, 0, 10'000'000, s.burst);
                              else number(v, p, 0, 10'000'000, s.connections);
                            });
    if (!is_map) return;
    if (s.syns_per_second == 0 && s.connections == 0)
      error(n, path, "limits nothing: give `syns_per_second`, `connections` or both");
    if (s.burst != 0 && s.syns_per_second == 0) error(n, path + ".burst", "needs `syns_per_second`");
    out_.limits.sources.push_back(s);
  }

  void port_range(const YAML::Node& n, const std::string& path) {
    std::string s;
    if (!scalar(n, path, "a range like 16384-65535", s)) return;
    unsigned low = 0, high = 0;
    const char* end = s.data() + s.size();
    auto r = std::from_chars(s.data(), end, low);
    bool ok = r.ec == std::errc() && r.ptr != end && *r.ptr == '-';
    if (ok) r = std::from_chars(r.ptr + 1, end, high);
    ok = ok && r.ec == std::errc() && r.ptr == end && low >= 1024 && low <= high && high <= 65'535;
    if (!ok) return error(n, path, quoted(s) + " is no range of ports within 1024-65535, as in 16384-65535");
    out_.limits.upstream_port_first = static_cast<uint16_t>(low);
    out_.limits.upstream_port_last = static_cast<uint16_t>(high);
  }

  void congestion(const YAML::Node& n, const std::string& path, CongestionControl& out) {
    std::string s;
    if (!scalar(n, path, "cubic, reno or bbr", s)) return;
    if (s == "cubic") out = CongestionControl::kCubic;
    else if (s == "reno") out = CongestionControl::kReno;
    else if (s == "bbr") out = CongestionControl::kBbr;
    else error(n, path, "must be cubic, reno or bbr, not " + quoted(s));
  }
  void ecn(const YAML::Node& n, const std::string& path, EcnUse& out) {
    std::string s;
    if (!scalar(n, path, "off, accept or request", s)) return;
    if (s == "off" || s == "false") out = EcnUse::kOff;  // `off` is false to some YAML readers
    else if (s == "accept") out = EcnUse::kAccept;
    else if (s == "request") out = EcnUse::kRequest;
    else error(n, path, "must be off, accept or request, not " + quoted(s));
  }

  void tcp(const YAML::Node& n, const std::string& path) {
    TcpSection& t = out_.tcp;
    YAML::Node rto_max, window;
    map(n, path,
        {"rcv_buf",
         "rcv_wnd_initial",
         "snd_buf",
         "sack",
         "timestamps",
         "window_scaling",
         "delayed_ack",
         "delayed_ack_ms",
         "rto_min_ms",
         "rto_initial_ms",
         "rto_max_ms",
         "connect_timeout_ms",
         "user_timeout_ms",
         "keepalive_idle_ms",
         "keepalive_interval_ms",
         "keepalive_probes",
         "fin_wait_2_ms",
         "time_wait_ms",
         "congestion",
         "ecn"},
        [&](const std::string& key, const YAML::Node& v, const std::string& p) {
          constexpr uint64_t kHour = 3'600'000;
          if (key == "rcv_buf") number(v, p, 4'096, 64 << 20, t.rcv_buf);
          else if (key == "rcv_wnd_initial") window.reset(v), number(v, p, 2'048, 64 << 20, t.rcv_wnd_initial);
          else if (key == "snd_buf") number(v, p, 4'096, 64 << 20, t.snd_buf);
          else if (key == "sack") boolean(v, p, t.sack);
          else if (key == "timestamps") boolean(v, p, t.timestamps);
          else if (key == "window_scaling") boolean(v, p, t.window_scaling);
          else if (key == "delayed_ack") boolean(v, p, t.delayed_ack);
          else if (key == "congestion") congestion(v, p, t.congestion);
          else if (key == "ecn") ecn(v, p, t.ecn);
          else if (key == "delayed_ack_ms") number(v, p, 1, 500, t.delayed_ack_ms);  // RFC 9293 3.8.6.3: below half a second
          else if (key == "rto_min_ms") number(v, p, 1, 60'000, t.rto_min_ms);
          else if (key == "rto_initial_ms") number(v, p, 10, 60'000, t.rto_initial_ms);
          else if (key == "rto_max_ms") rto_max.reset(v), number(v, p, 1'000, 600'000, t.rto_max_ms);
          else if (key == "connect_timeout_ms") number(v, p, 100, kHour, t.connect_timeout_ms);
          else if (key == "user_timeout_ms") number(v, p, 1'000, kHour, t.user_timeout_ms);
          else if (key == "keepalive_idle_ms") number(v, p, 0, 24 * kHour, t.keepalive_idle_ms);
          else if (key == "keepalive_interval_ms") number(v, p, 100, kHour, t.keepalive_interval_ms);
          else if (key == "keepalive_probes") number(v, p, 1, 255, t.keepalive_probes);
          else if (key == "fin_wait_2_ms") number(v, p, 100, kHour, t.fin_wait_2_ms);
          else number(v, p, 1'000, 240'000, t.time_wait_ms);
        });
    if (t.rto_min_ms > t.rto_max_ms)
      error(rto_max.IsDefined() && !rto_max.IsNull() ? rto_max : n, path + ".rto_max_ms", "must not be below rto_min_ms");
    if (t.rcv_wnd_initial > t.rcv_buf)
      error(window.IsDefined() && !window.IsNull() ? window : n, path + ".rcv_wnd_initial", "must not be above rcv_buf");
  }

  std::string file_, run_dir_;
  DataplaneSection out_{.file_prefix = ""};
  struct {
    YAML::Node at;
    std::string path, message;
  } repeated_core_;  // an error unless the section shares cores
  std::vector<PortPlaces> places_;
  std::vector<SectionError> errors_;
};

}  // namespace

SectionResult read_dataplane_section(std::string_view text, std::string_view file, std::string_view run_dir) {
  // yaml-cpp reports with exceptions; they end here.
  try {
    return Reader(file, run_dir).read(YAML::Load(section_text(text)));
  } catch (const YAML::Exception& e) {
    SectionResult r;
    r.errors.push_back({std::string(file), e.mark.line + 1, e.mark.column + 1, "", "not YAML: " + e.msg});
    return r;
  }
}

}  // namespace millrace::bootstrap
