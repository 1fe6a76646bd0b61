// What is said of certificates, and which of them answers.
#include "lib/tls/certificate.h"

#include <ctime>

#include <gtest/gtest.h>

#include "lib/tls/self_signed.h"
#include "tests/unit/tls/pair.h"

namespace millrace::tls {
namespace {

using namespace testing;

const int64_t kNow = static_cast<int64_t>(std::time(nullptr));

TEST(Certificate, IsDescribed) {
  const CertificatePem ca = make_certificate({.common_name = "The CA", .ca = true});
  const CertificatePem c = make_certificate(
      {.common_name = "Leaf",
       .sans = {"DNS:WWW.Example.com", "DNS:*.example.org", "URI:spiffe://td/ns/a", "IP:10.1.2.3", "IP:2001:db8::1"},
       .key = "P-384",
       .issuer = &ca});
  auto r = check_certificate(c.chain, c.key, kNow);
  ASSERT_TRUE(r.ok()) << r.error();
  EXPECT_EQ(r->subject, "CN=Leaf");
  EXPECT_EQ(r->issuer, "CN=The CA");
  EXPECT_EQ(r->dns_names, (std::vector<std::string>{"WWW.Example.com", "*.example.org"}));
  EXPECT_EQ(r->server_names, (std::vector<std::string>{"www.example.com", "*.example.org"}));
  EXPECT_EQ(r->uri_names, (std::vector<std::string>{"spiffe://td/ns/a"}));
  EXPECT_EQ(r->ip_names, (std::vector<std::string>{"10.1.2.3", "2001:db8::1"}));
  EXPECT_EQ(r->key_type, KeyType::kEcdsaP384);
  EXPECT_EQ(r->key_bits, 384u);
  EXPECT_EQ(r->chain_length, 2u);
  EXPECT_EQ(r->sha256.size(), 64u);
  EXPECT_FALSE(r->serial.empty());
  EXPECT_NEAR(static_cast<double>(r->not_before), static_cast<double>(kNow - 3600), 30);
  EXPECT_NEAR(static_cast<double>(r->not_after), static_cast<double>(kNow + 365L * 24 * 3600), 30);
  EXPECT_TRUE(r->warnings.empty());
  // Without subjectAltName the common name is what SNI is matched with; with one it is not.
  EXPECT_EQ(describe_certificate(ca.chain, kNow)->server_names, (std::vector<std::string>{"the ca"}));
}

TEST(Certificate, ErrorsSayWhatIsWrong) {
  const CertificatePem good = make_certificate({}), other = make_certificate({}), rsa = rsa_certificate();
  std::string broken = good.chain;
  broken.replace(broken.size() / 2, 10, "**********");
  struct Case {
    std::string chain, key, error;
  };
  const Case cases[] = {
      {"", good.key, "PEM text is empty"},
      {"not PEM", good.key, "no \"-----BEGIN CERTIFICATE-----\""},
      {good.key, good.key, "no \"-----BEGIN CERTIFICATE-----\""},
      {broken, good.key, "certificate 1 of the PEM text is broken"},
      {good.chain + broken, good.key, "certificate 2 of the PEM text is broken"},
      {good.chain, "", "private key: the PEM text is empty"},
      {good.chain, "not PEM", "private key: no usable PEM private key"},
      {good.chain, good.chain, "private key: no usable PEM private key"},
      {good.chain, encrypt_key(good.key, "secret"), "private key: it is encrypted"},
      {good.chain, other.key, "private key does not belong to the certificate"},
      {good.chain, rsa.key, "private key does not belong to the certificate"},
  };
  for (const Case& c : cases) {
    auto r = check_certificate(c.chain, c.key, kNow);
    ASSERT_FALSE(r.ok()) << c.error;
    EXPECT_NE(r.error().find(c.error), std::string::npos) << r.error();
  }
  const std::pair<const char*, const char*> kinds[] = {
      {"RSA:1024", "only RSA certificates with 2048-bit or larger keys are supported"},
      {"secp256k1", "only P-256, P-384 or P-521 ECDSA certificates are supported"},
      {"ED25519", "only RSA and ECDSA certificates are supported"},
  };
  for (const auto& [kind, error] : kinds) {
    const CertificatePem c = make_certificate({.key = kind});
    auto r = check_certificate(c.chain, c.key, kNow);
    ASSERT_FALSE(r.ok()) << kind;
    EXPECT_NE(r.error().find(error), std::string::npos) << r.error();
  }
}

TEST(Certificate, WarningsDoNotRefuse) {
  struct Case {
    long from, to;
    const char* warning;
  };
  for (const Case& c : {Case{-7200, -3600, "expired"}, Case{3600, 7200, "not valid yet"}, Case{-3600, 3600, "within 14 days"}}) {
    const CertificatePem pem = make_certificate({.not_before_s = c.from, .not_after_s = c.to});
    auto r = check_certificate(pem.chain, pem.key, kNow);
    ASSERT_TRUE(r.ok()) << r.error();
    ASSERT_EQ(r->warnings.size(), 1u);
    EXPECT_NE(r->warnings[0].find(c.warning), std::string::npos) << r->warnings[0];
  }
  const CertificatePem a = make_certificate({.common_name = "a"}), b = make_certificate({.common_name = "b"});
  auto r = check_certificate(a.chain + b.chain, a.key, kNow);
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(r->warnings, (std::vector<std::string>{"certificate 2 of the chain did not issue certificate 1"}));
}

TEST(Certificate, CaBundlesCiphersAndCurves) {
  const CertificatePem a = make_certificate({.ca = true}), b = make_certificate({.ca = true});
  EXPECT_EQ(check_ca_bundle(a.chain + b.chain).value(), 2u);
  EXPECT_FALSE(check_ca_bundle("").ok());
  EXPECT_TRUE(check_cipher_suites({}).ok());
  EXPECT_TRUE(
      check_cipher_suites({"[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]", "ECDHE-RSA-AES256-GCM-SHA384"}).ok());
  for (const char* bad : {"ECDHE-NOPE", "ALL", "!MD5", "@SECLEVEL=0", "", "ECDHE-RSA-AES256-GCM-SHA384:"}) {
    auto s = check_cipher_suites({bad});
    ASSERT_FALSE(s.ok()) << bad;
    EXPECT_TRUE(s.error().starts_with("unknown cipher suite")) << s.error();
  }
  EXPECT_TRUE(check_curves({"X25519", "P-256", "P-384"}).ok());
  EXPECT_EQ(check_curves({"X25519", "P-999"}).error(), "unknown curve \"P-999\"");
}

// --- which certificate answers ----------------------------------------------------------------------------------------------

constexpr ServerContext::ClientSignatures kNoEcdsa{}, kP256{.p256 = true}, kAll{true, true, true};

TEST(CertificateChoice, ByNameThenWildcardThenFirst) {
  auto library = std::move(LibraryContext::create().value());
  const ServerConfig config = {
      .certificates = {
          make_certificate({.common_name = "first", .sans = {"DNS:first.example"}}),   // 0
          make_certificate({.sans = {"DNS:*.example.com", "DNS:www.example.org"}}),    // 1
          make_certificate({.sans = {"DNS:www.example.com", "DNS:WWW.Example.ORG"}}),  // 2: .org is taken
          make_certificate({.common_name = "cn.example.net"}),                         // 3
          make_certificate({.common_name = "not.used", .sans = {"IP:10.0.0.1"}}),      // 4
          make_certificate({.sans = {"DNS:both.example"}, .key = "RSA:2048"}),         // 5
          make_certificate({.sans = {"DNS:both.example"}}),                            // 6
          make_certificate({.sans = {"DNS:p384.example"}, .key = "P-384"}),            // 7
      }};
  auto made = ServerContext::create(*library, config);
  ASSERT_TRUE(made.ok()) << made.error();
  const ServerContext& context = **made;
  struct Case {
    const char* sni;
    ServerContext::ClientSignatures client;
    uint32_t chosen;
  };
  const Case cases[] = {
      {"first.example", kP256, 0},
      {"www.example.com", kP256, 2},
      {"WWW.EXAMPLE.COM", kP256, 2},
      {"api.example.com", kP256, 1},
      {"a.b.example.com", kP256, 0},
      {"example.com", kP256, 0},
      {"www.example.org", kP256, 1},
      {"cn.example.net", kP256, 3},
      {"not.used", kP256, 0},
      {"both.example", kP256, 6},
      {"both.example", kAll, 6},
      {"both.example", kNoEcdsa, 5},
      {"p384.example", kAll, 7},
      {"p384.example", kP256, 0},
      {"unknown", kNoEcdsa, 0},
      {"", kNoEcdsa, 5},
      {"", kP256, 0},
      {".", kP256, 0},
      {"x.", kP256, 0},
  };
  for (const Case& c : cases) EXPECT_EQ(context.select_certificate(c.sni, c.client), c.chosen) << c.sni;
  EXPECT_EQ(context.select_certificate(std::string(300, 'a'), kP256), 0u);
  EXPECT_EQ(context.certificate_count(), 8u);
}

TEST(CertificateChoice, FullScanOnMismatch) {
  auto library = std::move(LibraryContext::create().value());
  ServerConfig config = {.certificates = {ecdsa_certificate(), rsa_certificate()}};
  auto plain = std::move(ServerContext::create(*library, config).value());
  config.full_scan_on_sni_mismatch = true;
  auto scan = std::move(ServerContext::create(*library, config).value());
  EXPECT_EQ(plain->select_certificate("other.example", kNoEcdsa), 0u);
  EXPECT_EQ(scan->select_certificate("other.example", kNoEcdsa), 1u);
}

// Many certificates: each is the one on the wire.
TEST(CertificateChoice, HundredsOfCertificates) {
  Pair p;
  ServerConfig config;
  const CertificatePem ca = make_certificate({.common_name = "ca", .ca = true});
  for (int i = 0; i < 500; ++i)
    config.certificates.push_back(make_certificate({.sans = {"DNS:h" + std::to_string(i) + ".example"}, .issuer = &ca}));
  p.configure(config, {.validation = {.trusted_ca_pem = ca.chain, .match_sni = true}, .max_version = Version::kTls13});
  for (const char* sni : {"h0.example", "h499.example", "h123.example"}) {
    p.open(sni);
    p.handshake();
    EXPECT_TRUE(p.established()) << sni << ": " << name(p.client.session->error());
    p.close();
  }
}

TEST(CertificateChoice, FollowsTheClientsAbilitiesOnTheWire) {
  for (Version v : {Version::kTls12, Version::kTls13}) {
    for (bool rsa_only : {false, true}) {
      Pair p;
      ClientConfig c = client_config(v);
      if (rsa_only && v == Version::kTls12) c.cipher_suites = {"ECDHE-RSA-AES128-GCM-SHA256"};
      p.configure({.certificates = {rsa_certificate(), ecdsa_certificate()}}, c);
      p.open("www.example.com");
      p.handshake();
      ASSERT_TRUE(p.established()) << name(p.server.session->error());
      if (v == Version::kTls12) {
        EXPECT_STREQ(p.server.session->negotiated().cipher,
                     rsa_only ? "ECDHE-RSA-AES128-GCM-SHA256" : "ECDHE-ECDSA-AES128-GCM-SHA256");
      }
    }
  }
}

TEST(ServerContext, ErrorsOfTheConfiguration) {
  auto library = std::move(LibraryContext::create().value());
  const auto error = [&](ServerConfig c) {
    auto r = ServerContext::create(*library, c);
    return r.ok() ? std::string("accepted") : r.error();
  };
  EXPECT_EQ(error({}), "no TLS certificate is configured");
  ServerConfig c = server_config();
  c.certificates.push_back({ecdsa_certificate().chain, rsa_certificate().key});
  EXPECT_EQ(error(c), "certificate 2: private key does not belong to the certificate (key values mismatch)");
  c = server_config();
  c.min_version = Version::kTls13;
  c.max_version = Version::kTls12;
  EXPECT_EQ(error(c), "minimum TLS version is above the maximum");
  c = server_config();
  c.alpn = {"h2", ""};
  EXPECT_EQ(error(c), "alpn_protocols: a name is empty or longer than 255 bytes");
  c = server_config();
  c.require_client_certificate = true;
  EXPECT_EQ(error(c), "require_client_certificate needs a trusted_ca, or hashes to compare with");
  c = server_config();
  c.cipher_suites = {"NOPE"};
  EXPECT_TRUE(error(c).starts_with("cipher_suites: "));
  c = server_config();
  c.curves = {"NOPE"};
  EXPECT_TRUE(error(c).starts_with("ecdh_curves: "));
}

// --- self-signed ------------------------------------------------------------------------------------------------------------

TEST(SelfSigned, IsWhatItSays) {
  const auto pair = make_self_signed({"bench.example", "*.bench.example", "10.1.2.3", "2001:db8::1"}, 20);
  ASSERT_TRUE(pair.ok()) << pair.error();
  const auto info = check_certificate(pair->chain, pair->key, kNow);
  ASSERT_TRUE(info.ok()) << info.error();
  EXPECT_EQ(info->subject, "CN=bench.example");
  EXPECT_EQ(info->issuer, info->subject);
  EXPECT_EQ(info->dns_names, (std::vector<std::string>{"bench.example", "*.bench.example"}));
  EXPECT_EQ(info->ip_names, (std::vector<std::string>{"10.1.2.3", "2001:db8::1"}));
  EXPECT_EQ(info->key_type, KeyType::kEcdsaP256);
  EXPECT_NEAR(static_cast<double>(info->not_before), static_cast<double>(kNow - 3600), 60);
  EXPECT_NEAR(static_cast<double>(info->not_after), static_cast<double>(kNow + 20 * 24 * 3600), 60);
  EXPECT_TRUE(info->warnings.empty());
  const auto again = make_self_signed({"bench.example"});
  ASSERT_TRUE(again.ok());
  EXPECT_NE(describe_certificate(again->chain, kNow)->serial, info->serial);
  EXPECT_FALSE(check_certificate(pair->chain, again->key, kNow).ok());  // a key of its own each time
}

TEST(SelfSigned, MistakesAreNamed) {
  EXPECT_EQ(make_self_signed({}).error(), "a certificate needs a name");
  EXPECT_EQ(make_self_signed({"ok.example", "a,DNS:b"}).error(), "'a,DNS:b' is neither a DNS name nor an IP address");
  EXPECT_EQ(make_self_signed({""}).error(), "'' is neither a DNS name nor an IP address");
  EXPECT_EQ(make_self_signed({"a"}, 0).error(), "a certificate is valid for 1 to 3650 days");
  EXPECT_FALSE(make_self_signed({"a"}, 3651).ok());
  EXPECT_TRUE(make_self_signed({std::string(200, 'a')}).ok());  // longer than a common name may be
}

}  // namespace
}  // namespace millrace::tls
