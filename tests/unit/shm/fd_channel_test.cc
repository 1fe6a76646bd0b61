#include "lib/shm/fd_channel.h"

#include <cstring>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

namespace millrace::shm {
namespace {

struct Place {
  Place() {
    char name[] = "/tmp/millrace-test-XXXXXX";
    directory = ::mkdtemp(name);
    path = directory + "/s.sock";
  }
  ~Place() {
    ::unlink(path.c_str());
    ::rmdir(directory.c_str());
  }
  std::string directory, path;
};

struct Pod {
  uint32_t a, b;
};

TEST(FdChannel, MessagesKeepTheirTypeBoundsAndDescriptors) {
  auto both = FdChannel::pair();
  ASSERT_TRUE(both.ok());
  auto& [a, b] = *both;
  Message m;
  EXPECT_EQ(b.receive(m), ReceiveResult::kNothing);
  auto segment = Segment::create("channel-test", 4096);
  ASSERT_TRUE(segment.ok());
  std::memcpy(segment->data(), "shared", 6);
  const int fds[] = {segment->fd(), segment->fd()};
  ASSERT_TRUE(a.send_struct(7, Pod{1, 2}, fds).ok());
  ASSERT_TRUE(a.send(8, {}).ok());
  EXPECT_TRUE(b.wait_readable(0));
  ASSERT_EQ(b.receive(m), ReceiveResult::kMessage);
  EXPECT_EQ(m.type, 7);
  Pod pod;
  ASSERT_TRUE(m.get(pod));
  EXPECT_EQ(pod.b, 2u);
  uint64_t other;
  EXPECT_FALSE(m.get(other = 0) && sizeof(Pod) != 8);
  ASSERT_EQ(m.fds.size(), 2u);
  EXPECT_EQ(::fcntl(m.fds[0].get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  auto theirs = Segment::map(std::move(m.fds[0]), Access::kReadOnly, 1, 1 << 20);
  ASSERT_TRUE(theirs.ok()) << theirs.error();
  EXPECT_EQ(std::memcmp(theirs->data(), "shared", 6), 0);
  ASSERT_EQ(b.receive(m), ReceiveResult::kMessage);
  EXPECT_EQ(m.type, 8);
  EXPECT_TRUE(m.body.empty());
  a.close();
  EXPECT_EQ(b.receive(m), ReceiveResult::kClosed);
  EXPECT_FALSE(a.send(1, {}).ok());
}

TEST(FdChannel, MalformedMessagesAreNamedAndLeakNoDescriptor) {
  auto both = FdChannel::pair();
  ASSERT_TRUE(both.ok());
  auto& [a, b] = *both;
  const struct {
    const char* what;
    MessageHeader header;
    size_t size;
  } cases[] = {
      {"shorter than a header", {kChannelMagic, 1, 0, 0, 0}, 8},
      {"magic", {1, 1, 0, 0, 0}, sizeof(MessageHeader)},
      {"size too large", {kChannelMagic, 1, 0, 4, 0}, sizeof(MessageHeader)},
      {"descriptors that did not come", {kChannelMagic, 1, 2, 0, 0}, sizeof(MessageHeader)},
  };
  Message m;
  for (const auto& c : cases) {
    ASSERT_EQ(::send(a.fd(), &c.header, c.size, 0), static_cast<ssize_t>(c.size));
    EXPECT_EQ(b.receive(m), ReceiveResult::kMalformed) << c.what;
  }
  // Too long a datagram is cut by the kernel, and recognised.
  const int size = 1 << 20;
  ::setsockopt(a.fd(), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  std::vector<uint8_t> big(kMaxMessageBytes + 1000);
  const MessageHeader h{kChannelMagic, 1, 0, static_cast<uint32_t>(big.size() - sizeof(MessageHeader)), 0};
  std::memcpy(big.data(), &h, sizeof h);
  ASSERT_EQ(::send(a.fd(), big.data(), big.size(), 0), static_cast<ssize_t>(big.size()));
  EXPECT_EQ(b.receive(m), ReceiveResult::kMalformed);

  const int before = ::dup(0);
  ::close(before);
  for (int i = 0; i < 100; ++i) {
    const int fd = a.fd();
    ASSERT_TRUE(a.send(1, {}, std::span(&fd, 1)).ok());
    ASSERT_EQ(b.receive(m), ReceiveResult::kMessage);
    m = Message();
  }
  const int after = ::dup(0);
  ::close(after);
  EXPECT_EQ(before, after) << "descriptors leaked";
  EXPECT_FALSE(a.send(1, std::vector<uint8_t>(kMaxMessageBytes)).ok());
}

TEST(FdListener, OnePathOneListenerAndDeadOnesAreReplaced) {
  Place place;
  {
    auto first = FdListener::bind(place.path, 0600);
    ASSERT_TRUE(first.ok()) << first.error();
    struct stat st;
    ASSERT_EQ(::stat(place.path.c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, 0600u);
    auto second = FdListener::bind(place.path);
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error(), place.path + " is in use by another data plane");
    auto client = FdChannel::connect(place.path);
    ASSERT_TRUE(client.ok()) << client.error();
    (void)first->accept();  // the probe of `second`
    FdChannel server = first->accept();
    ASSERT_TRUE(server.open());
    EXPECT_EQ(server.peer_pid(), static_cast<uint32_t>(::getpid()));
    EXPECT_FALSE(first->accept().open());
  }
  EXPECT_FALSE(FdChannel::connect(place.path).ok()) << "the file goes with its listener";
  // A process that died leaves its file.
  const pid_t child = ::fork();
  if (child == 0) {
    auto l = FdListener::bind(place.path);
    ::_exit(l.ok() ? 0 : 1);
  }
  int status;
  ::waitpid(child, &status, 0);
  ASSERT_EQ(::access(place.path.c_str(), F_OK), 0);
  auto again = FdListener::bind(place.path);
  EXPECT_TRUE(again.ok()) << again.error();
}

TEST(FdListener, BadPaths) {
  EXPECT_FALSE(FdListener::bind("").ok());
  EXPECT_FALSE(FdListener::bind(std::string(200, 'x')).ok());
  EXPECT_FALSE(FdListener::bind("/nonexistent/s.sock").ok());
  EXPECT_FALSE(FdChannel::connect("/nonexistent/s.sock").ok());
  Place place;
  const int fd = ::open(place.path.c_str(), O_CREAT | O_WRONLY, 0600);
  ::close(fd);
  auto l = FdListener::bind(place.path);
  ASSERT_FALSE(l.ok());
  EXPECT_EQ(l.error(), place.path + " exists and is not a socket");
}

// The peer refuses and closes without having read what we sent: its words still arrive.
TEST(FdChannel, ARefusalArrivesThoughOurMessageWasNotRead) {
  Place place;
  auto listener = FdListener::bind(place.path);
  ASSERT_TRUE(listener.ok());
  auto client = FdChannel::connect(place.path);
  ASSERT_TRUE(client.ok());
  ASSERT_TRUE(client->send(1, {}).ok());
  {
    FdChannel server = listener->accept();
    ASSERT_TRUE(server.send(9, {}).ok());
  }
  Message m;
  ASSERT_EQ(client->receive(m), ReceiveResult::kMessage);
  EXPECT_EQ(m.type, 9);
  EXPECT_EQ(client->receive(m), ReceiveResult::kClosed);
}

}  // namespace
}  // namespace millrace::shm
