// Typed messages with file descriptors over a Unix SOCK_SEQPACKET socket (unix(7), SCM_RIGHTS). For the handshake between control
// and data plane and as a sign of life; never used by a poll core. Non-blocking throughout: the owner polls the descriptor.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lib/base/status.h"
#include "lib/shm/segment.h"

namespace millrace::shm {

inline constexpr uint32_t kChannelMagic = 0x4346'4c4d;
inline constexpr uint32_t kMaxMessageBytes = 64 * 1024;  // header included
inline constexpr uint32_t kMaxMessageFds = 160;  // below the kernel's SCM_MAX_FD (253): 64 workers' rings of two kinds and some

struct MessageHeader {
  uint32_t magic;  // kChannelMagic
  uint16_t type;   // the user's
  uint16_t fds;    // descriptors that come with it
  uint32_t size;   // bytes of the body
  uint32_t reserved;
};
static_assert(sizeof(MessageHeader) == 16);

struct Message {
  uint16_t type = 0;
  std::vector<uint8_t> body;
  std::vector<UniqueFd> fds;

  // The body as a plain struct T; false when its size differs.
  template <class T>
  bool get(T& out) const {
    if (body.size() != sizeof(T)) return false;
    __builtin_memcpy(&out, body.data(), sizeof(T));
    return true;
  }
};

enum class ReceiveResult : uint8_t {
  kMessage,    // `out` holds one
  kNothing,    // none waiting
  kClosed,     // the peer is gone
  kMalformed,  // wrong magic, sizes that disagree, truncated, or wrong number of descriptors: close the channel
};

class FdChannel {
 public:
  FdChannel() = default;
  explicit FdChannel(UniqueFd socket) : fd_(std::move(socket)) {}
  // Connects to a listener's path. Errors say why (no such file, refused).
  static base::Result<FdChannel> connect(const std::string& path);
  // Two connected ends (tests).
  static base::Result<std::pair<FdChannel, FdChannel>> pair();

  bool open() const { return fd_.valid(); }
  int fd() const { return fd_.get(); }
  void close() { fd_.reset(); }

  // Sends one message whole, or fails: the peer is gone, or does not read (its buffer is full). The descriptors are duplicated by
  // the kernel; the caller keeps its own.
  base::Status send(uint16_t type, std::span<const uint8_t> body, std::span<const int> fds = {});
  template <class T>
  base::Status send_struct(uint16_t type, const T& body, std::span<const int> fds = {}) {
    return send(type, {reinterpret_cast<const uint8_t*>(&body), sizeof(T)}, fds);
  }
  // At most one message; received descriptors are close-on-exec and owned by `out`.
  ReceiveResult receive(Message& out);
  // Waits until something can be received or `timeout_ms` is over (-1: for ever); true when something can.
  bool wait_readable(int timeout_ms) const;
  // pid of the process at the other end (SO_PEERCRED); 0 when unknown.
  uint32_t peer_pid() const;

 private:
  UniqueFd fd_;
};

class FdListener {
 public:
  FdListener() = default;
  FdListener(FdListener&&) noexcept = default;
  FdListener& operator=(FdListener&& other) noexcept;
  ~FdListener();
  // Binds and listens. A socket file that nobody listens on any more is replaced; a live one is an error. `mode`: permissions of
  // the file.
  static base::Result<FdListener> bind(const std::string& path, uint32_t mode = 0660);

  int fd() const { return fd_.get(); }
  bool open() const { return fd_.valid(); }
  const std::string& path() const { return path_; }
  // The next waiting peer, or a channel that is not open().
  FdChannel accept();

 private:
  UniqueFd fd_;
  std::string path_;
};

}  // namespace millrace::shm
