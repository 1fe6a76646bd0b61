// What a service manager hears.
#include "lib/base/service_notify.h"

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <gtest/gtest.h>

namespace millrace::base {
namespace {

// A manager that listens on `name`: a path, or "@…" in the abstract name space.
struct Manager {
  explicit Manager(const std::string& name) {
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    if (name[0] == '@') address.sun_path[0] = 0;
    else unlink(name.c_str());
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    EXPECT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), size), 0);
    setenv("NOTIFY_SOCKET", name.c_str(), 1);
  }
  ~Manager() { close(fd); }
  std::string hears() const {
    char buf[256];
    const ssize_t n = recv(fd, buf, sizeof buf, 0);
    return n < 0 ? "" : std::string(buf, static_cast<size_t>(n));
  }
  int fd;
};

TEST(ServiceNotifier, SaysWhatHappens) {
  for (const std::string& name : {::testing::TempDir() + "notify.sock", "@millrace-notify-" + std::to_string(getpid())}) {
    Manager m(name);
    setenv("WATCHDOG_USEC", "3000000", 1);
    setenv("WATCHDOG_PID", std::to_string(getpid()).c_str(), 1);
    ServiceNotifier n;
    EXPECT_EQ(std::getenv("NOTIFY_SOCKET"), nullptr) << "no child speaks in our name";
    EXPECT_EQ(n.alive_every_ns(), 1'500'000'000u);
    n.ready("serving");
    EXPECT_EQ(m.hears(), "READY=1\nMAINPID=" + std::to_string(getpid()) + "\nSTATUS=serving");
    n.alive();
    EXPECT_EQ(m.hears(), "WATCHDOG=1");
    n.stopping();
    EXPECT_EQ(m.hears(), "STOPPING=1");
    EXPECT_EQ(m.hears(), "");
  }
}

TEST(ServiceNotifier, AnotherProcessWatchdogIsNotOurs) {
  Manager m(::testing::TempDir() + "notify.sock");
  setenv("WATCHDOG_USEC", "3000000", 1);
  setenv("WATCHDOG_PID", "1", 1);
  EXPECT_EQ(ServiceNotifier().alive_every_ns(), 0u);
}

TEST(ServiceNotifier, WithoutAManagerNothingIsSaid) {
  for (const char* name : {"", "relative/path", "/no/such/folder/socket"}) {
    setenv("NOTIFY_SOCKET", name, 1);
    setenv("WATCHDOG_USEC", "3000000", 1);
    ServiceNotifier n;
    n.ready("serving");  // must neither fail nor wait
    n.alive();
    if (name[0] != '/') {
      EXPECT_EQ(n.alive_every_ns(), 0u) << name;
    }
  }
}

}  // namespace
}  // namespace millrace::base
