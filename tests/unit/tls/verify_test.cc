// How a peer's certificate is judged: each case a ValidationConfig, a certificate, and what comes of it; both as client and as
// server.
#include <gtest/gtest.h>

#include "tests/unit/tls/pair.h"

namespace millrace::tls {
namespace {

using testing::certificate_hash;
using testing::CertificateSpec;
using testing::make_certificate;
using testing::make_crl;
using testing::Pair;
using testing::server_config;
using testing::spki_hash;
using Type = SanMatcher::Type;
using Kind = SanMatcher::Kind;

struct World {
  CertificatePem root = make_certificate({.common_name = "root", .ca = true});
  CertificatePem other = make_certificate({.common_name = "other", .ca = true});
  CertificatePem between = make_certificate({.common_name = "between", .ca = true, .issuer = &root, .intermediate = true});
  std::vector<std::string> names = {"DNS:peer.example", "DNS:*.wild.example", "URI:spiffe://td/ns/a/sa/b", "IP:10.1.2.3",
                                    "email:who@example.org"};
  CertificatePem leaf = make_certificate({.common_name = "leaf", .sans = names, .issuer = &root});
  CertificatePem deep = make_certificate({.common_name = "deep", .sans = names, .issuer = &between});
  CertificatePem expired =
      make_certificate({.common_name = "old", .sans = names, .not_before_s = -7200, .not_after_s = -60, .issuer = &root});
  CertificatePem self = make_certificate({.common_name = "self", .sans = names});
  CertificatePem for_servers =
      make_certificate({.common_name = "server only", .sans = names, .issuer = &root, .key_usage = "serverAuth"});
  CertificatePem nameless = make_certificate({.common_name = "peer.example", .issuer = &root});
};
const World& world() {
  static const World w;
  return w;
}

struct Case {
  const char* what;
  ValidationConfig config;
  const CertificatePem* peer;
  TlsError error = TlsError::kNone;
  const char* detail = "";
  PeerValidation validation = PeerValidation::kValidated;
};

std::vector<Case> cases() {
  const World& w = world();
  const auto trust = [&](auto&&... change) {
    ValidationConfig c{.trusted_ca_pem = w.root.chain};
    (change(c), ...);
    return c;
  };
  const auto sans = [&](std::vector<SanMatcher> list) { return trust([&](ValidationConfig& c) { c.sans = std::move(list); }); };
  using enum TlsError;
  const char* kNames =
      "verify cert failed: SAN matcher, certificate SANs are [peer.example, *.wild.example, spiffe://td/ns/a/sa/b, 10.1.2.3, "
      "who@example.org]";
  const auto at = [](const char* text) { return text; };
  ValidationConfig hash, other_hash, spki, either, hash_and_ca, untrusted, untrusted_san;
  hash.certificate_hashes = {certificate_hash(w.other), certificate_hash(w.self)};
  other_hash.certificate_hashes = {certificate_hash(w.other)};
  spki.spki_hashes = {spki_hash(w.self)};
  either.certificate_hashes = {certificate_hash(w.other)};
  either.spki_hashes = {spki_hash(w.self)};
  hash_and_ca = trust();
  hash_and_ca.certificate_hashes = {certificate_hash(w.self)};
  untrusted = trust();
  untrusted.accept_untrusted = true;
  untrusted_san = sans({{.value = "nope"}});
  untrusted_san.accept_untrusted = true;
  return {
      {"signed by the CA", trust(), &w.leaf},
      {"by an intermediate", trust(), &w.deep},
      {"an intermediate is trusted",
       {.trusted_ca_pem = w.between.chain.substr(0, w.between.chain.find("-----END") + 26)},
       &w.deep},
      {"the leaf itself is trusted", {.trusted_ca_pem = w.self.chain}, &w.self},
      {"by another CA",
       {.trusted_ca_pem = w.other.chain},
       &w.leaf,
       kPeerCertificateUntrusted,
       at("verify cert failed: X509_verify_cert: certificate verification error at depth 1: self signed certificate in "
          "certificate "
          "chain")},
      {"self-signed", trust(), &w.self, kPeerCertificateUntrusted,
       at("verify cert failed: X509_verify_cert: certificate verification error at depth 0: self signed certificate")},
      {"expired", trust(), &w.expired, kPeerCertificateExpired,
       at("verify cert failed: X509_verify_cert: certificate verification error at depth 0: certificate has expired")},
      {"expired, allowed", trust([](ValidationConfig& c) { c.allow_expired = true; }), &w.expired},
      {"DNS exact", sans({{.value = "peer.example"}}), &w.leaf},
      {"DNS exact is blind to case", sans({{.value = "PEER.example"}}), &w.leaf},
      {"DNS exact, wildcard in the certificate", sans({{.value = "a.wild.example"}}), &w.leaf},
      {"a wildcard is one label", sans({{.value = "a.b.wild.example"}}), &w.leaf, kPeerCertificateName, kNames},
      {"DNS prefix", sans({{Type::kDns, Kind::kPrefix, "peer."}}), &w.leaf},
      {"DNS suffix, ignoring case", sans({{Type::kDns, Kind::kSuffix, ".EXAMPLE", true}}), &w.leaf},
      {"DNS suffix, not ignoring case", sans({{Type::kDns, Kind::kSuffix, ".EXAMPLE"}}), &w.leaf, kPeerCertificateName, kNames},
      {"DNS contains", sans({{Type::kDns, Kind::kContains, "er.ex"}}), &w.leaf},
      {"URI exact", sans({{Type::kUri, Kind::kExact, "spiffe://td/ns/a/sa/b"}}), &w.leaf},
      {"URI prefix", sans({{Type::kUri, Kind::kPrefix, "spiffe://td/ns/a/"}}), &w.leaf},
      {"URI of another trust domain", sans({{Type::kUri, Kind::kPrefix, "spiffe://other/"}}), &w.leaf, kPeerCertificateName,
       kNames},
      {"the type counts", sans({{Type::kUri, Kind::kExact, "peer.example"}}), &w.leaf, kPeerCertificateName, kNames},
      {"IP", sans({{Type::kIp, Kind::kExact, "10.1.2.3"}}), &w.leaf},
      {"email", sans({{Type::kEmail, Kind::kSuffix, "@example.org"}}), &w.leaf},
      {"one of several", sans({{.value = "x"}, {Type::kIp, Kind::kPrefix, "10."}}), &w.leaf},
      {"the common name is no SAN", sans({{.value = "peer.example"}}), &w.nameless, kPeerCertificateName,
       at("verify cert failed: SAN matcher, certificate SANs are []")},
      {"names of an untrusted certificate", sans({{.value = "peer.example"}}), &w.self, kPeerCertificateUntrusted,
       at("verify cert failed: X509_verify_cert: certificate verification error at depth 0: self signed certificate")},
      {"hash alone", hash, &w.self},
      {"hash of another", other_hash, &w.self, kPeerCertificateHash, at("verify cert failed: cert hash and spki")},
      {"hash of the key", spki, &w.self},
      {"one of both hashes", either, &w.self},
      {"hash does not replace trust", hash_and_ca, &w.self, kPeerCertificateUntrusted,
       at("verify cert failed: X509_verify_cert: certificate verification error at depth 0: self signed certificate")},
      {"hash besides trust", hash_and_ca, &w.leaf, kPeerCertificateHash, at("verify cert failed: cert hash and spki")},
      {"untrusted, accepted", untrusted, &w.self, kNone,
       at("verify cert failed: X509_verify_cert: certificate verification error at depth 0: self signed certificate"),
       PeerValidation::kFailed},
      {"trusted, where the untrusted are accepted", untrusted, &w.leaf},
      {"wrong name, accepted", untrusted_san, &w.leaf, kNone, kNames, PeerValidation::kFailed},
      {"revoked", trust([&](ValidationConfig& c) { c.crl_pem = make_crl(w.root, {w.leaf}); }), &w.leaf, kPeerCertificateRevoked,
       at("verify cert failed: X509_verify_cert: certificate verification error at depth 0: certificate revocation check against "
          "provided CRLs failed: certificate revoked")},
      {"another is revoked", trust([&](ValidationConfig& c) { c.crl_pem = make_crl(w.root, {w.expired}); }), &w.leaf},
      {"CRL among the CAs",
       {.trusted_ca_pem = w.root.chain + make_crl(w.root, {w.leaf})},
       &w.leaf,
       kPeerCertificateRevoked,
       at("verify cert failed: X509_verify_cert: certificate verification error at depth 0: certificate revocation check against "
          "provided CRLs failed: certificate revoked")},
      {"no CRL of the intermediate", trust([&](ValidationConfig& c) { c.crl_pem = make_crl(w.root, {}); }), &w.deep,
       kPeerCertificateUntrusted,
       at("verify cert failed: X509_verify_cert: certificate verification error at depth 0: unable to get certificate CRL")},
      {"the leaf's CRL is enough", trust([&](ValidationConfig& c) {
         c.crl_pem = make_crl(w.between, {});
         c.only_leaf_crl = true;
       }),
       &w.deep},
      {"depth 2 is leaf, intermediate, root", trust([](ValidationConfig& c) { c.max_verify_depth = 2; }), &w.deep},
      {"depth 1 has no place for an intermediate", trust([](ValidationConfig& c) { c.max_verify_depth = 1; }), &w.deep,
       kPeerCertificateUntrusted,
       at("verify cert failed: X509_verify_cert: certificate verification error at depth 1: certificate chain too long")},
  };
}

// The client judges the server, then the server the client, in both versions.
TEST(Verify, Cases) {
  for (const Case& c : cases()) {
    for (const bool server_judges : {false, true}) {
      for (const Version v : {Version::kTls12, Version::kTls13}) {
        SCOPED_TRACE(std::string(c.what) + (server_judges ? ", server judges, " : ", client judges, ") + to_string(v));
        ServerConfig s = server_config();
        ClientConfig k{.min_version = v, .max_version = v};
        if (server_judges) {
          s.validation = c.config;
          k.certificate = *c.peer;
        } else {
          s.certificates = {*c.peer};
          k.validation = c.config;
        }
        Pair p;
        p.configure(s, k);
        p.open("peer.example");
        p.handshake();
        const Session& judge = server_judges ? *p.server.session : *p.client.session;
        EXPECT_STREQ(name(judge.error()), name(c.error));
        EXPECT_EQ(judge.verify_detail(), c.detail);
        if (c.error != TlsError::kNone) continue;
        EXPECT_TRUE(p.established());
        EXPECT_TRUE(judge.negotiated().peer_certificate);
        EXPECT_EQ(static_cast<int>(judge.negotiated().validation), static_cast<int>(c.validation));
      }
    }
  }
}

TEST(Verify, ServerNameOfTheSessionInsteadOfTheMatchers) {
  const World& w = world();
  struct {
    const char* sni;
    bool good;
  } cases[] = {{"peer.example", true}, {"x.wild.example", true}, {"x.y.wild.example", false}, {"other.example", false}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.sni);
    Pair p;
    p.configure({.certificates = {w.leaf}},
                {.validation = {.trusted_ca_pem = w.root.chain, .sans = {{.value = "never"}}, .match_sni = true}});
    p.open(c.sni);
    p.handshake();
    EXPECT_EQ(p.established(), c.good);
  }
}

TEST(Verify, RegexesAreTheCallers) {
  const World& w = world();
  struct Engine {
    std::vector<std::pair<uint32_t, std::string>> asked;
    std::string wanted;
  } engine;
  const SanRegexes regexes{[](void* self, uint32_t id, std::string_view text) {
                             auto& e = *static_cast<Engine*>(self);
                             e.asked.emplace_back(id, text);
                             return text == e.wanted;
                           },
                           &engine};
  for (const char* wanted : {"spiffe://td/ns/a/sa/b", "spiffe://td/ns/a/sa/c"}) {
    Pair p;
    p.configure({.certificates = {w.leaf}}, {.validation = {.trusted_ca_pem = w.root.chain,
                                                            .sans = {{.type = Type::kUri, .kind = Kind::kRegex, .regex = 7}}}});
    p.client_context->set_san_regexes(regexes);
    engine.wanted = wanted;
    engine.asked.clear();
    p.open("peer.example");
    p.handshake();
    EXPECT_EQ(p.established(), std::string_view(wanted).ends_with("/b"));
    ASSERT_EQ(engine.asked.size(), 1u);
    EXPECT_EQ(engine.asked[0], (std::pair<uint32_t, std::string>(7, "spiffe://td/ns/a/sa/b")));
  }
}

TEST(Verify, ServersAskOnlyWhenTheyJudge) {
  const World& w = world();
  struct {
    const char* what;
    ValidationConfig config;
    bool require, shown, good;
  } cases[] = {
      {"nothing configured, nothing shown", {}, false, false, true},
      {"optional, none shown", {.trusted_ca_pem = w.root.chain}, false, false, true},
      {"optional, shown", {.trusted_ca_pem = w.root.chain}, false, true, true},
      {"required, none shown", {.trusted_ca_pem = w.root.chain}, true, false, false},
      {"required, shown", {.trusted_ca_pem = w.root.chain}, true, true, true},
      {"names require one", {.trusted_ca_pem = w.root.chain, .sans = {{.value = "peer.example"}}}, false, false, false},
      {"hashes require one", {.certificate_hashes = {certificate_hash(w.leaf)}}, false, false, false},
      {"accept untrusted asks", {.accept_untrusted = true}, false, true, true},
      {"accept untrusted does not require",
       {.trusted_ca_pem = w.root.chain, .sans = {{.value = "x"}}, .accept_untrusted = true},
       false,
       false,
       true},
  };
  for (const auto& c : cases) {
    for (const Version v : {Version::kTls12, Version::kTls13}) {
      SCOPED_TRACE(std::string(c.what) + " " + to_string(v));
      ServerConfig s = server_config();
      s.validation = c.config;
      s.require_client_certificate = c.require;
      ClientConfig k{.min_version = v, .max_version = v};
      if (c.shown) k.certificate = w.leaf;
      Pair p;
      p.configure(s, k);
      p.open();
      p.handshake();
      EXPECT_EQ(p.server.session->established(), c.good);
      EXPECT_STREQ(name(p.server.session->error()), c.good ? "none" : "peer_certificate_missing");
      EXPECT_EQ(p.server.session->negotiated().peer_certificate, c.shown);
    }
  }
}

TEST(Verify, PurposeOfTheCertificate) {
  const World& w = world();
  Pair p;
  ServerConfig s = server_config();
  s.validation.trusted_ca_pem = w.root.chain;
  ClientConfig k{};
  k.certificate = w.for_servers;
  p.configure(s, k);
  p.open();
  p.handshake();
  EXPECT_STREQ(name(p.server.session->error()), "peer_certificate_bad");
  EXPECT_EQ(p.server.session->verify_detail(),
            "verify cert failed: X509_verify_cert: certificate verification error at depth 0: unsupported certificate purpose");
}

TEST(Verify, ConfigurationsThatProveNothingAreRefused) {
  const World& w = world();
  auto library = std::move(LibraryContext::create().value());
  const auto error = [&](ValidationConfig v) {
    auto c = ClientContext::create(*library, {.validation = std::move(v)});
    return c.ok() ? std::string() : c.error();
  };
  EXPECT_EQ(error({.sans = {{.value = "x"}}}), "matching subject alternative names needs a trusted_ca");
  EXPECT_EQ(error({.match_sni = true}), "matching subject alternative names needs a trusted_ca");
  EXPECT_EQ(error({.crl_pem = make_crl(w.root, {})}), "crl needs a trusted_ca");
  EXPECT_NE(error({.trusted_ca_pem = "nonsense"}).find("trusted_ca: "), std::string::npos);
  EXPECT_EQ(error({.trusted_ca_pem = w.root.chain}), "");
}

TEST(Verify, ResumedSessionsAreNotValidatedAgain) {
  const World& w = world();
  ServerConfig s = server_config();
  s.validation.trusted_ca_pem = w.root.chain;
  ClientConfig k{.max_version = Version::kTls13};
  k.certificate = w.leaf;
  Pair p;
  p.configure(s, k);
  p.server_context->set_ticket_keys(TicketKeys::random());
  for (const bool resumed : {false, true}) {
    p.open("peer.example");
    p.handshake();
    ASSERT_TRUE(p.established());
    p.server.queue("x");
    p.transfer(p.server, p.client);
    const Negotiated n = p.server.session->negotiated();
    EXPECT_EQ(n.resumed, resumed);
    EXPECT_TRUE(n.peer_certificate);
    EXPECT_EQ(n.validation == PeerValidation::kValidated, !resumed);
    p.close();
  }
}

TEST(FailureReason, IsEnvoys) {
  char out[256];
  const auto reason = [&](TlsError e, std::string_view detail = "") { return std::string(out, failure_reason(e, detail, out)); };
  EXPECT_EQ(reason(TlsError::kPeerCertificateUntrusted, "why"),
            "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:why:TLS_error_end");
  EXPECT_EQ(reason(TlsError::kAlertUnknownCa),
            "TLS_error:|268436504:SSL routines:OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA:TLS_error_end");
  EXPECT_EQ(reason(TlsError::kNotTls), "TLS_error:|268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end");
  EXPECT_EQ(reason(TlsError::kHandshakeEof), "");
  EXPECT_EQ(reason(TlsError::kIllegalParameter), "TLS_error:illegal_parameter:TLS_error_end");
  char small[20];
  EXPECT_EQ(failure_reason(TlsError::kNotTls, "", small), sizeof small);
}

}  // namespace
}  // namespace millrace::tls
