// Device names for people, and the arguments that make them work (DPDK 22.11).
#include <cctype>
#include <map>
#include <string>
#include <vector>

#include "lib/bootstrap/dataplane_section.h"

namespace millrace::bootstrap {
namespace {

bool is_pci(std::string_view s) {
  // [domain:]bus:device.function
  size_t digits = 0, colons = 0, dots = 0;
  for (const char c : s) {
    if (std::isxdigit(static_cast<unsigned char>(c))) ++digits;
    else if (c == ':') ++colons;
    else if (c == '.') ++dots;
    else return false;
  }
  return (colons == 1 || colons == 2) && dots == 1 && digits >= 5 && s[s.size() - 2] == '.';
}

struct Form {
  const char* driver;
  const char* target_key;  // what stands behind the colon
  std::vector<std::pair<std::string, std::string>> defaults;
};

}  // namespace

std::optional<std::string> expand_device(std::string_view device, uint32_t index, uint16_t mtu, uint32_t queues,
                                         std::string* why) {
  const std::string_view head = device.substr(0, device.find(','));
  if (is_pci(head)) return std::string(device);
  if (head.starts_with("net_")) {
    if (!std::isdigit(static_cast<unsigned char>(head.back()))) {
      *why = "'" + std::string(head) + "' has no number: DPDK's virtual devices are named like " + std::string(head) + "0";
      return std::nullopt;
    }
    return std::string(device);
  }
  const size_t colon = head.find(':');
  const std::string form(head.substr(0, colon));
  const std::string target(colon == std::string_view::npos ? "" : head.substr(colon + 1));
  const std::string q = std::to_string(queues);
  // Frames of the kernel's ring: the whole frame and TPACKET's header in front; a power of two that divides the block.
  const std::string frame_size = mtu + 18 + 64 <= 2048 ? "2048" : "16384";
  const std::map<std::string, Form> forms = {
      // A larger ring than the default 512 frames; no queueing discipline in the way.
      {"af_packet",
       {"net_af_packet",
        "iface",
        {{"blocksz", frame_size == "2048" ? "4096" : "16384"},
         {"framesz", frame_size},
         {"framecnt", "2048"},
         {"qpairs", q},
         {"qdisc_bypass", "1"}}}},
      // The driver's busy polling receives nothing on veth, and without it poll() may block the worker for a second: off.
      {"af_xdp", {"net_af_xdp", "iface", {{"start_queue", "0"}, {"queue_count", q}, {"busy_budget", "0"}}}},
      // Frames never exceed one buffer: DPDK 22.11's chained descriptors keep stale flags.
      {"memif",
       {"net_memif", "socket", {{"role", "client"}, {"id", "0"}, {"bsize", "2048"}, {"rsize", "11"}, {"socket-abstract", "no"}}}},
      {"tap", {"net_tap", "iface", {}}},
      {"virtio_user", {"net_virtio_user", "path", {{"queues", q}, {"queue_size", "1024"}}}},
      {"vhost", {"net_vhost", "iface", {{"queues", q}, {"tso", "1"}}}},
  };
  const auto it = forms.find(form);
  if (it == forms.end()) {
    *why = "'" + std::string(device) +
           "' is no device: use a PCI address (0000:3b:00.0), af_packet:IFACE, af_xdp:IFACE, memif:SOCKET, tap:IFACE, "
           "virtio_user:SOCKET, vhost:SOCKET, or a DPDK virtual device (net_<driver><n>,arguments)";
    return std::nullopt;
  }
  if (target.empty()) {
    *why = "'" + form + ":' names nothing: say which " +
           (std::string(it->second.target_key) == "iface" && form != "vhost" ? "interface" : "socket") + ", as in " + form + ":" +
           (form == "memif" || form == "virtio_user" || form == "vhost" ? "/run/millrace/" + form + ".sock" : "veth0");
    return std::nullopt;
  }
  // Linux's IFNAMSIZ.
  if (std::string(it->second.target_key) == "iface" && form != "vhost" && target.size() > 15) {
    *why = "interface name '" + target + "' is longer than 15 characters";
    return std::nullopt;
  }
  std::string out = std::string(it->second.driver) + std::to_string(index) + "," + it->second.target_key + "=" + target;
  const std::string_view rest = device.substr(head.size());
  auto given = [&](const std::string& key) { return (std::string(rest) + ",").find("," + key + "=") != std::string::npos; };
  for (const auto& [key, value] : it->second.defaults)
    if (!given(key)) out += "," + key + "=" + value;
  return out + std::string(rest);
}

}  // namespace millrace::bootstrap
