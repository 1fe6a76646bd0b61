#include "lib/shm/fd_channel.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <utility>

namespace millrace::shm {

namespace {

std::string reason(const std::string& what) { return what + ": " + std::strerror(errno); }

bool make_address(const std::string& path, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.data(), path.size());
  return true;
}

base::Result<UniqueFd> new_socket() {
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return base::Error{reason("socket")};
  return fd;
}

}  // namespace

base::Result<FdChannel> FdChannel::connect(const std::string& path) {
  sockaddr_un address;
  if (!make_address(path, address))
    return base::Error{"socket path '" + path + "' is empty or longer than " + std::to_string(sizeof address.sun_path - 1) +
                       " bytes"};
  auto fd = new_socket();
  if (!fd.ok()) return base::Error{fd.error()};
  if (::connect(fd->get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return base::Error{reason("connecting to " + path)};
  return FdChannel(std::move(*fd));
}

base::Result<std::pair<FdChannel, FdChannel>> FdChannel::pair() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0) return base::Error{reason("socketpair")};
  return std::pair<FdChannel, FdChannel>(FdChannel(UniqueFd(fds[0])), FdChannel(UniqueFd(fds[1])));
}

base::Status FdChannel::send(uint16_t type, std::span<const uint8_t> body, std::span<const int> fds) {
  if (!open()) return base::Error{"the channel is closed"};
  if (body.size() + sizeof(MessageHeader) > kMaxMessageBytes) return base::Error{"message too large"};
  if (fds.size() > kMaxMessageFds) return base::Error{"too many descriptors in a message"};
  MessageHeader header{kChannelMagic, type, static_cast<uint16_t>(fds.size()), static_cast<uint32_t>(body.size()), 0};
  iovec parts[2] = {{&header, sizeof header}, {const_cast<uint8_t*>(body.data()), body.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = body.empty() ? 1 : 2;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxMessageFds)];
  if (!fds.empty()) {
    std::memset(control, 0, sizeof control);
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(c), fds.data(), sizeof(int) * fds.size());
  }
  ssize_t n;
  do n = ::sendmsg(fd(), &message, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  if (n < 0) return base::Error{reason("sendmsg")};
  return {};
}

ReceiveResult FdChannel::receive(Message& out) {
  out = Message();
  if (!open()) return ReceiveResult::kClosed;
  MessageHeader header{};
  out.body.resize(kMaxMessageBytes - sizeof header);
  iovec parts[2] = {{&header, sizeof header}, {out.body.data(), out.body.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxMessageFds)];
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t n;
  // A peer that closed without reading all we sent shows first as ECONNRESET, once; what it sent before (a refusal) comes behind
  // it.
  bool reset_seen = false;
  for (;;) {
    n = ::recvmsg(fd(), &message, MSG_CMSG_CLOEXEC);
    if (n >= 0) break;
    if (errno == ECONNRESET && !reset_seen) reset_seen = true;
    else if (errno != EINTR) break;
  }
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return ReceiveResult::kNothing;
  // Descriptors first: whatever else is wrong with the message, they are ours to close.
  if (n >= 0) {
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
      if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
      const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t i = 0; i < count; ++i) {
        int received;
        std::memcpy(&received, CMSG_DATA(c) + i * sizeof(int), sizeof received);
        out.fds.emplace_back(received);
      }
    }
  }
  if (n <= 0) return ReceiveResult::kClosed;
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || static_cast<size_t>(n) < sizeof header ||
      header.magic != kChannelMagic || header.size != static_cast<size_t>(n) - sizeof header || header.fds != out.fds.size()) {
    out = Message();
    return ReceiveResult::kMalformed;
  }
  out.type = header.type;
  out.body.resize(header.size);
  return ReceiveResult::kMessage;
}

bool FdChannel::wait_readable(int timeout_ms) const {
  pollfd p{fd(), POLLIN, 0};
  return ::poll(&p, 1, timeout_ms) > 0;
}

uint32_t FdChannel::peer_pid() const {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(fd(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return 0;
  return static_cast<uint32_t>(credentials.pid);
}

FdListener& FdListener::operator=(FdListener&& other) noexcept {
  if (this != &other) {
    if (open()) ::unlink(path_.c_str());
    fd_ = std::move(other.fd_);
    path_ = std::move(other.path_);
  }
  return *this;
}

FdListener::~FdListener() {
  if (open()) ::unlink(path_.c_str());
}

base::Result<FdListener> FdListener::bind(const std::string& path, uint32_t mode) {
  sockaddr_un address;
  if (!make_address(path, address))
    return base::Error{"socket path '" + path + "' is empty or longer than " + std::to_string(sizeof address.sun_path - 1) +
                       " bytes"};
  auto fd = new_socket();
  if (!fd.ok()) return base::Error{fd.error()};
  if (::bind(fd->get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno != EADDRINUSE) return base::Error{reason("binding " + path)};
    // A file is there. Somebody answers: it is his. Nobody does: a dead process left it.
    struct stat st;
    if (::lstat(path.c_str(), &st) == 0 && !S_ISSOCK(st.st_mode)) return base::Error{path + " exists and is not a socket"};
    if (FdChannel::connect(path).ok()) return base::Error{path + " is in use by another data plane"};
    if (::unlink(path.c_str()) != 0) return base::Error{reason("removing the old " + path)};
    if (::bind(fd->get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
      return base::Error{reason("binding " + path)};
  }
  FdListener l;
  l.fd_ = std::move(*fd);
  l.path_ = path;
  if (::chmod(path.c_str(), static_cast<mode_t>(mode)) != 0) return base::Error{reason("setting the mode of " + path)};
  if (::listen(l.fd_.get(), 8) != 0) return base::Error{reason("listening on " + path)};
  return l;
}

FdChannel FdListener::accept() {
  int fd;
  do fd = ::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  while (fd < 0 && errno == EINTR);
  return FdChannel(UniqueFd(fd));
}

}  // namespace millrace::shm
