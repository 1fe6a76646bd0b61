#include "lib/io/tap.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace millrace::io {

using base::Error;

namespace {
// struct virtio_net_hdr of linux/virtio_net.h, which C++ does not take.
struct VnetHeader {
  uint8_t flags = 0, gso_type = 0;
  uint16_t header_length = 0, gso_size = 0, sum_start = 0, sum_offset = 0;
};
static_assert(sizeof(VnetHeader) == 10);
constexpr uint8_t kDataValid = 2;  // VIRTIO_NET_HDR_F_DATA_VALID
}  // namespace

base::Result<std::unique_ptr<Tap>> Tap::open(const std::string& name, const MacAddress& mac, uint16_t mtu) {
  const auto failed = [&](const std::string& what, int error) {
    const char* hint = error == EPERM || error == EACCES ? " (it takes CAP_NET_ADMIN)"
                       : error == EBUSY                  ? " (another process uses it)"
                       : error == EINVAL                 ? " (an interface of this name is there and is no single-queue TAP)"
                                                         : "";
    return Error{"exception interface '" + name + "': " + what + ": " + std::strerror(error) + hint};
  };
  ifreq request{};
  if (name.empty() || name.size() >= sizeof request.ifr_name) return failed("its name does not fit", EINVAL);
  const int fd = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return failed("/dev/net/tun", errno);
  std::unique_ptr<Tap> tap(new Tap(fd, name));
  std::memcpy(request.ifr_name, name.data(), name.size());
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (ioctl(fd, TUNSETIFF, &request) != 0) return failed("cannot be made", errno);
  const int header = sizeof(VnetHeader);
  if (ioctl(fd, TUNSETVNETHDRSZ, &header) != 0) return failed("its header cannot be set", errno);
  if (ioctl(fd, TUNSETOFFLOAD, 0) != 0)  // the host sums and cuts what it sends itself
    return failed("its offloads cannot be set", errno);

  const int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (control < 0) return failed("no socket", errno);
  int error = 0;
  const auto set = [&](unsigned long what) {
    if (error == 0 && ioctl(control, what, &request) != 0) error = errno;
  };
  std::memset(&request.ifr_ifru, 0, sizeof request.ifr_ifru);
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  std::memcpy(request.ifr_hwaddr.sa_data, mac.data(), mac.size());
  set(SIOCSIFHWADDR);
  request.ifr_mtu = mtu;
  set(SIOCSIFMTU);
  set(SIOCGIFFLAGS);
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  set(SIOCSIFFLAGS);
  close(control);
  if (error != 0) return failed("MAC, MTU or state cannot be set", error);
  return tap;
}

Tap::~Tap() { close(fd_); }

uint32_t Tap::read(uint8_t* frame, uint32_t room) {
  VnetHeader header;
  iovec parts[] = {{&header, sizeof header}, {frame, room}};
  const ssize_t n = readv(fd_, parts, 2);
  return n > static_cast<ssize_t>(sizeof header) ? static_cast<uint32_t>(n) - sizeof header : 0;
}

bool Tap::write(base::ByteSpan frame, bool sums_good) {
  VnetHeader header;
  if (sums_good) header.flags = kDataValid;
  iovec parts[] = {{&header, sizeof header}, {const_cast<uint8_t*>(frame.data()), frame.size()}};
  return writev(fd_, parts, 2) == static_cast<ssize_t>(sizeof header + frame.size());
}

}  // namespace millrace::io
