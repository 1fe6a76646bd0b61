// Against another program: openssl s_client and curl talk to our server over loopback, openssl s_server answers our client. The
// only test of this folder with sockets and processes; skipped, with a word, where the programs are missing.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>

#include "tests/unit/tls/pair.h"

namespace millrace::tls {
namespace {

using namespace testing;

bool have(const char* program) { return std::system((std::string("command -v ") + program + " >/dev/null 2>&1").c_str()) == 0; }

int listen_on_loopback(uint16_t& port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t n = sizeof a;
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&a), n), 0);
  EXPECT_EQ(::listen(fd, 8), 0);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&a), &n);
  port = ntohs(a.sin_port);
  return fd;
}

bool readable(int fd, int ms) {
  pollfd p{fd, POLLIN, 0};
  return ::poll(&p, 1, ms) == 1;
}

// Moves bytes between a socket and one end, until `done` or silence. Returns what came in as plaintext.
template <class Done>
std::string run(int fd, End& e, Done&& done) {
  std::string got;
  for (int quiet = 0; quiet < 50;) {
    e.receive();
    got += e.take();
    e.send();
    if (done(got) && e.plain_in.empty()) e.session->close_notify(e.wire());
    while (!e.cipher_out.empty()) {
      const auto s = e.cipher_out.front();
      const ssize_t n = ::send(fd, s.data(), s.size(), MSG_NOSIGNAL);
      if (n <= 0) return got;
      e.cipher_out.consume(static_cast<uint64_t>(n));
    }
    if (e.session->close_sent() || e.session->state() == Session::State::kFailed) break;
    if (!readable(fd, 100)) {
      ++quiet;
      continue;
    }
    char buffer[8192];
    const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
    if (n <= 0) {
      e.eof = true;
      e.receive();
      got += e.take();
      break;
    }
    quiet = 0;
    e.cipher_in.append_copy(std::string_view(buffer, static_cast<size_t>(n)), *e.pool);
  }
  return got;
}

// Runs `command` (sh) with @PORT@ replaced while one connection is served: answers "HTTP/1.0 200 OK" with a body to whatever ends
// in a blank line.
struct Served {
  int exit_status = -1;
  std::string output, request;
  Negotiated negotiated;
  std::string sni, alpn;
};
Served serve(Pair& p, std::string command, const std::string& body) {
  uint16_t port = 0;
  const int listener = listen_on_loopback(port);
  for (size_t at; (at = command.find("@PORT@")) != std::string::npos;) command.replace(at, 6, std::to_string(port));
  Served s;
  std::thread client([&] {
    FILE* f = ::popen((command + " 2>&1").c_str(), "r");
    char buffer[65536];
    for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, f)) > 0;) s.output.append(buffer, n);
    s.exit_status = WEXITSTATUS(::pclose(f));
  });
  if (readable(listener, 10'000)) {
    const int fd = ::accept(listener, nullptr, nullptr);
    p.server.session = p.sessions.open_server(*p.server_context);
    bool answered = false;
    s.request = run(fd, p.server, [&](const std::string& got) {
      if (!answered && got.find("\r\n\r\n") != std::string::npos) {
        answered = true;
        p.server.queue("HTTP/1.0 200 OK\r\ncontent-length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
        p.server.send();
      }
      return answered;
    });
    s.negotiated = p.server.session->negotiated();
    s.sni = s.negotiated.server_name;
    s.alpn = s.negotiated.alpn;
    p.close();
    ::shutdown(fd, SHUT_WR);
    char sink[4096];
    while (readable(fd, 2000) && ::recv(fd, sink, sizeof sink, 0) > 0) {
    }
    ::close(fd);
  }
  client.join();
  ::close(listener);
  return s;
}

TEST(Interop, OpensslClient) {
  if (!have("openssl")) GTEST_SKIP() << "openssl is not installed";
  for (const bool tls13 : {false, true}) {
    Pair p;
    ServerConfig c = server_config();
    c.certificates.push_back(rsa_certificate());
    c.alpn = {"http/1.1"};
    p.configure(c, client_config());
    const Served s =
        serve(p,
              std::string("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 10 openssl s_client -ign_eof -connect 127.0.0.1:@PORT@ "
                          "-servername www.example.com -alpn h2,http/1.1 ") +
                  (tls13 ? "-tls1_3" : "-tls1_2"),
              "the body");
    EXPECT_EQ(s.request, "GET / HTTP/1.0\r\n\r\n");
    EXPECT_NE(s.output.find("the body"), std::string::npos) << s.output;
    EXPECT_NE(s.output.find("ALPN protocol: http/1.1"), std::string::npos) << s.output;
    EXPECT_EQ(s.sni, "www.example.com");
    EXPECT_EQ(s.negotiated.version, tls13 ? Version::kTls13 : Version::kTls12);
  }
}

TEST(Interop, CurlGetsALargeBody) {
  if (!have("curl")) GTEST_SKIP() << "curl is not installed";
  Pair p;
  ServerConfig c = server_config();
  c.alpn = {"http/1.1"};
  p.configure(c, client_config());
  const std::string body(2'000'000, 'b');
  const Served s =
      serve(p, "curl -sk --max-time 20 --resolve www.example.com:@PORT@:127.0.0.1 https://www.example.com:@PORT@/path", body);
  EXPECT_EQ(s.exit_status, 0);
  EXPECT_EQ(s.output, body);
  EXPECT_TRUE(s.request.starts_with("GET /path HTTP/1.1\r\n"));
}

TEST(Interop, OpensslClientOfAnOldVersionIsTurnedAway) {
  if (!have("openssl")) GTEST_SKIP() << "openssl is not installed";
  Pair p;
  p.configure(server_config(), client_config());
  const Served s = serve(p, "echo | timeout 10 openssl s_client -connect 127.0.0.1:@PORT@ -tls1_1 -cipher ALL:@SECLEVEL=0", "");
  EXPECT_NE(s.output.find("alert protocol version"), std::string::npos) << s.output;
  EXPECT_EQ(p.sessions.counters().errors[static_cast<unsigned>(TlsError::kUnsupportedVersion)], 1u);
}

TEST(Interop, OurClientAndOpensslServer) {
  if (!have("openssl")) GTEST_SKIP() << "openssl is not installed";
  const auto dir = std::filesystem::temp_directory_path() / ("millrace-tls-" + std::to_string(::getpid()));
  std::filesystem::create_directories(dir);
  const CertificatePem ca = make_certificate({.common_name = "ca", .ca = true});
  const CertificatePem leaf = make_certificate({.sans = {"DNS:upstream.example"}, .issuer = &ca});
  std::ofstream(dir / "cert.pem") << leaf.chain;
  std::ofstream(dir / "key.pem") << leaf.key;
  for (Version v : {Version::kTls12, Version::kTls13}) {
    uint16_t port = 0;
    ::close(listen_on_loopback(port));  // a port that is free now
    const pid_t server = ::fork();
    if (server == 0) {
      const std::string accept = "127.0.0.1:" + std::to_string(port), cert = dir / "cert.pem", key = dir / "key.pem";
      (void)!std::freopen("/dev/null", "w", stdout);
      (void)!std::freopen("/dev/null", "w", stderr);
      ::execlp("openssl", "openssl", "s_server", "-accept", accept.c_str(), "-cert", cert.c_str(), "-key", key.c_str(), "-www",
               nullptr);
      ::_exit(127);
    }
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a.sin_port = htons(port);
    int fd = -1;
    for (int i = 0; i < 100; ++i) {
      fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (::connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0) break;
      ::close(std::exchange(fd, -1));
      ::usleep(50'000);
    }
    if (fd >= 0) {
      Pair p;
      p.configure(server_config(), {.validation = {.trusted_ca_pem = ca.chain, .match_sni = true}, .max_version = v});
      p.client.session = p.sessions.open_client(*p.client_context, "upstream.example");
      p.client.queue("GET / HTTP/1.0\r\n\r\n");
      const std::string got = run(fd, p.client, [](const std::string& s) {
        return s.find("</html>") != std::string::npos || s.find("</HTML>") != std::string::npos;
      });
      EXPECT_TRUE(got.starts_with("HTTP/1.0 200 ok")) << name(p.client.session->error()) << got;
      EXPECT_EQ(p.client.session->negotiated().version, v);
      ::close(fd);
    }
    EXPECT_GE(fd, 0);
    ::kill(server, SIGTERM);
    ::waitpid(server, nullptr, 0);
  }
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace millrace::tls
