// A TAP device of Linux: an interface of the host whose wire is a file descriptor. Reads and writes are system calls: for
// ordinary threads only.
//
// A device that is there already (ip tuntap add NAME mode tap) is attached to, and stays with its addresses when we go; one that
// is not is made, and goes with us.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "lib/base/bytes.h"
#include "lib/base/status.h"
#include "lib/io/port_queue.h"

namespace millrace::io {

class Tap {
 public:
  // Longest frame either way: what fits into a ring record of an exception path and 64 KB of IP.
  static constexpr uint32_t kMaxFrame = 65'536 + 64;

  // In the network namespace of the calling thread; sets MAC and MTU, and the interface up. One sentence on failure.
  static base::Result<std::unique_ptr<Tap>> open(const std::string& name, const MacAddress& mac, uint16_t mtu);
  ~Tap();
  Tap(const Tap&) = delete;
  Tap& operator=(const Tap&) = delete;

  // The next frame that the host sends, at most `room` bytes; 0: none now (or it was longer, and is lost).
  uint32_t read(uint8_t* frame, uint32_t room);
  // A frame for the host. `sums_good`: its checksums were verified, or never left the memory of this machine; the host need not
  // look. False: the host does not take it (interface down, queue full).
  bool write(base::ByteSpan frame, bool sums_good);

  int fd() const { return fd_; }
  const std::string& name() const { return name_; }

 private:
  Tap(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}
  int fd_;
  std::string name_;
};

}  // namespace millrace::io
