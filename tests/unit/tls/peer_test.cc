// What a session says of its peer's certificate; staples; ticket keys from the configuration.
#include <gtest/gtest.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include "lib/tls/openssl_ptr.h"
#include "tests/unit/tls/pair.h"

namespace millrace::tls {
namespace {

using testing::make_certificate;
using testing::Pair;
using testing::server_config;

const CertificatePem& root() {
  static const CertificatePem c = make_certificate({.common_name = "root", .ca = true});
  return c;
}

std::string joined(std::span<const std::string_view> list) {
  std::string out;
  for (const std::string_view s : list) out += std::string(s) + "|";
  return out;
}

TEST(PeerCertificate, SaysWhatTheCertificateSays) {
  ServerConfig s = server_config();
  s.certificates = {make_certificate({.common_name = "edge", .sans = {"URI:spiffe://td/edge", "DNS:x", "URI:spiffe://td/two"}})};
  s.validation.trusted_ca_pem = root().chain;
  ClientConfig k{.max_version = Version::kTls13};
  k.certificate = make_certificate(
      {.common_name = "client",
       .sans = {"DNS:a.example", "URI:spiffe://td/a", "IP:10.0.0.1", "DNS:b.example", "email:x@y.example", "URI:spiffe://td/b"},
       .issuer = &root()});
  const CertificateInfo want = std::move(describe_certificate(k.certificate.chain, 0).value());
  Pair p;
  p.configure(s, k);
  p.open();
  p.handshake();
  ASSERT_TRUE(p.established());
  Session& session = *p.server.session;
  ASSERT_TRUE(session.has_peer_certificate());
  const PeerCertificate* peer = session.peer_certificate();
  ASSERT_NE(peer, nullptr);
  EXPECT_EQ(session.peer_certificate(), peer);  // made once
  EXPECT_EQ(peer->subject, "CN=client");
  EXPECT_EQ(peer->issuer, "CN=root");
  EXPECT_EQ(peer->serial, want.serial);
  EXPECT_EQ(peer->sha256, want.sha256);
  EXPECT_EQ(peer->sha1.size(), 40u);
  EXPECT_EQ(peer->not_before, want.not_before);
  EXPECT_EQ(peer->not_after, want.not_after);
  EXPECT_EQ(joined(peer->uri_sans), "spiffe://td/a|spiffe://td/b|");
  EXPECT_EQ(joined(peer->dns_sans), "a.example|b.example|");
  EXPECT_EQ(joined(peer->ip_sans), "10.0.0.1|");
  EXPECT_EQ(joined(peer->email_sans), "x@y.example|");
  ASSERT_EQ(session.local_uri_sans().size(), 2u);
  EXPECT_EQ(session.local_uri_sans()[0], "spiffe://td/edge");

  const auto decoded = [](std::string_view text) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '%') out += text[i];
      else out += static_cast<char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16)), i += 2;
    }
    return out;
  };
  const std::string leaf = k.certificate.chain.substr(0, k.certificate.chain.find("-----END CERTIFICATE-----\n") + 26);
  EXPECT_EQ(decoded(session.peer_pem(false)), leaf);
  EXPECT_EQ(decoded(session.peer_pem(true)), k.certificate.chain);
  for (const char c : session.peer_pem(true)) EXPECT_EQ(std::string_view("\n +/=;,\"").find(c), std::string_view::npos) << c;
}

TEST(PeerCertificate, IsNotThereWhenNoneWasShown) {
  Pair p;
  p.configure(server_config(), testing::client_config());
  p.open();
  p.handshake();
  EXPECT_FALSE(p.server.session->has_peer_certificate());
  EXPECT_EQ(p.server.session->peer_certificate(), nullptr);
  EXPECT_EQ(p.server.session->peer_pem(false), "");
}

// A response of the root for the certificate, good for `seconds` from an hour ago.
std::string make_staple(const CertificatePem& leaf_pem, long seconds) {
  const auto read = [](const std::string& pem) {
    BioPtr in(BIO_new_mem_buf(pem.data(), -1));
    return X509Ptr(PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr));
  };
  const X509Ptr leaf = read(leaf_pem.chain), ca = read(root().chain);
  BioPtr in(BIO_new_mem_buf(root().key.data(), -1));
  const PkeyPtr key(PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, nullptr));
  OCSP_BASICRESP* basic = OCSP_BASICRESP_new();
  ASN1_TIME* from = X509_gmtime_adj(nullptr, -3600);
  ASN1_TIME* to = X509_gmtime_adj(nullptr, -3600 + seconds);
  OCSP_basic_add1_status(basic, OCSP_cert_to_id(EVP_sha1(), leaf.get(), ca.get()), V_OCSP_CERTSTATUS_GOOD, 0, nullptr, from, to);
  OCSP_basic_sign(basic, ca.get(), key.get(), EVP_sha256(), nullptr, 0);
  OCSP_RESPONSE* response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
  unsigned char* der = nullptr;
  const int size = i2d_OCSP_RESPONSE(response, &der);
  std::string out(reinterpret_cast<char*>(der), static_cast<size_t>(size));
  OPENSSL_free(der);
  OCSP_RESPONSE_free(response);
  OCSP_BASICRESP_free(basic);
  ASN1_TIME_free(from);
  ASN1_TIME_free(to);
  return out;
}

TEST(OcspStaple, IsCheckedAgainstItsCertificate) {
  const CertificatePem one = make_certificate({.common_name = "one", .issuer = &root()});
  const CertificatePem two = make_certificate({.common_name = "two", .issuer = &root()});
  const std::string staple = make_staple(one, 7200);
  EXPECT_TRUE(check_ocsp_staple(staple, one.chain).ok());
  EXPECT_TRUE(check_ocsp_staple(make_staple(one, 60), one.chain).ok());  // expired ones, too
  EXPECT_EQ(check_ocsp_staple(staple, two.chain).error(), "the OCSP response is of another certificate (serial numbers differ)");
  EXPECT_EQ(check_ocsp_staple("x", one.chain).error(), "no OCSP response in DER");
  ServerConfig s{.certificates = {two}};
  s.certificates[0].ocsp_der = staple;
  auto library = std::move(LibraryContext::create().value());
  auto context = ServerContext::create(*library, s);
  ASSERT_FALSE(context.ok());
  EXPECT_EQ(context.error(), "certificate 1: ocsp_staple: the OCSP response is of another certificate (serial numbers differ)");
}

TEST(TicketKeys, OfTheConfigurationEachDecryptsTheFirstEncrypts) {
  TicketKey keys[3];
  for (uint8_t i = 0; i < 3; ++i) keys[i].fill(static_cast<uint8_t>(i + 1));
  struct {
    std::vector<int> before, after;
    bool resumed;
  } cases[] = {{{0}, {0}, true}, {{0}, {1, 0}, true}, {{0}, {1, 2, 0}, true}, {{0}, {1, 2}, false}, {{1, 0}, {0}, false}};
  for (const auto& c : cases) {
    const auto config = [&](const std::vector<int>& which) {
      ServerConfig s = server_config();
      for (const int i : which) s.ticket_keys.push_back(keys[i]);
      return s;
    };
    Pair p;
    p.configure(config(c.before), testing::client_config(Version::kTls12));
    p.open("www.example.com");
    p.handshake();
    ASSERT_TRUE(p.established());
    p.sessions.close(std::exchange(p.server.session, nullptr));
    p.sessions.close(std::exchange(p.client.session, nullptr));
    // The client keeps its ticket; the server comes back with other keys.
    auto again = ServerContext::create(*p.library, config(c.after));
    ASSERT_TRUE(again.ok());
    p.server_context = std::move(*again);
    for (testing::End* e : {&p.client, &p.server}) {
      e->cipher_in.clear();
      e->cipher_out.clear();
    }
    p.open("www.example.com");
    p.handshake();
    EXPECT_TRUE(p.established());
    EXPECT_EQ(p.server.session->negotiated().resumed, c.resumed) << c.after.size();
  }
}

}  // namespace
}  // namespace millrace::tls
