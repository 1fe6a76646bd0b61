// ClientHellos as bytes in, answers out. The real ones (openssl s_client, curl, Python) are the files of the fuzz corpus.
#include "lib/tls/client_hello.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/tls/fingerprint.h"
#include "tests/support/heap_packet_pool.h"

namespace millrace::tls {
namespace {

using V = HelloVerdict;
using E = HelloError;

std::string corpus(const std::string& name) {
  const auto path = std::filesystem::path(MILLRACE_CORPUS) / name;
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Inspected {
  HelloResult result;
  ClientHello hello;
  std::vector<uint8_t> scratch = std::vector<uint8_t>(kMaxClientHelloBytes);
  std::string bytes;
  std::string alpn() const {
    std::string out;
    for (std::string_view p : hello.alpn) out += (out.empty() ? "" : ",") + std::string(p);
    return out;
  }
};
Inspected look(std::string bytes, uint32_t limit = kMaxClientHelloBytes) {
  Inspected i;
  i.bytes = std::move(bytes);
  i.result = inspect(base::as_bytes(i.bytes), i.scratch, i.hello, limit);
  return i;
}

TEST(ClientHello, WhatRealClientsSend) {
  struct Case {
    const char* file;
    const char* sni;
    const char* alpn;
    uint16_t legacy, max;
  };
  const Case cases[] = {
      {"openssl_tls13_sni_alpn", "www.example.com", "h2,http/1.1", 0x0303, 0x0304},
      {"openssl_tls12", "www.example.com", "", 0x0303, 0x0303},  // sent as WWW.Example.COM
      {"openssl_no_sni", "", "", 0x0303, 0x0304},
      {"openssl_tls11", "old.example.com", "", 0x0302, 0x0302},
      {"curl_h2", "api.example.com", "h2,http/1.1", 0x0303, 0x0304},
      {"curl_h1", "api.example.com", "http/1.1", 0x0303, 0x0304},
      {"python", "py.example.com", "", 0x0303, 0x0304},
      {"grease", "example.net", "h2,http/1.1", 0x0303, 0x0304},
      {"records_of_1", "www.example.com", "h2,http/1.1", 0x0303, 0x0304},
      {"records_of_100", "www.example.com", "h2,http/1.1", 0x0303, 0x0304},
      {"header_split", "www.example.com", "h2,http/1.1", 0x0303, 0x0304},
      {"empty_records", "www.example.com", "h2,http/1.1", 0x0303, 0x0304},
      {"trailing_record", "www.example.com", "h2,http/1.1", 0x0303, 0x0304},
      {"large_one_record", "", "", 0x0303, 0x0303},
      {"no_extensions", "", "", 0x0303, 0x0303},
      {"alpn_malformed", "example.net", "", 0x0303, 0x0304},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.file);
    const Inspected i = look(corpus(c.file));
    ASSERT_EQ(i.result.verdict, V::kClientHello) << name(i.result.error);
    EXPECT_EQ(i.hello.server_name(), c.sni);
    EXPECT_EQ(i.hello.has_server_name, *c.sni != 0);
    EXPECT_EQ(i.alpn(), c.alpn);
    EXPECT_EQ(i.hello.has_alpn, *c.alpn != 0);
    EXPECT_EQ(i.hello.legacy_version, c.legacy);
    EXPECT_EQ(i.hello.max_version, c.max);
  }
  const Inspected many = look(corpus("openssl_psk_long_alpn"));
  size_t n = 0;
  for (std::string_view p : many.hello.alpn) n += p.starts_with("proto");
  EXPECT_EQ(n, 200u);
}

TEST(ClientHello, WhatIsRefusedAndWhy) {
  struct Case {
    const char* file;
    V verdict;
    E error;
  };
  const Case cases[] = {
      {"http_request", V::kNotTls, E::kNotHandshake},
      {"sslv2_hello", V::kNotTls, E::kNotHandshake},
      {"record_version_2", V::kNotTls, E::kRecordVersion},
      {"server_hello", V::kBad, E::kNotClientHello},
      {"oversized_record", V::kBad, E::kRecordTooLong},
      {"announces_16385", V::kBad, E::kMessageTooLong},
      {"interleaved_alert", V::kBad, E::kRecordInterleaved},
      {"too_many_empty", V::kBad, E::kRecordEmpty},
      {"too_large_in_small_records", V::kTooLarge, E::kTooLong},
      {"sni_nul", V::kBad, E::kServerName},
      {"sni_type", V::kBad, E::kServerName},
      {"sni_length_0", V::kBad, E::kServerName},
      {"duplicate_sni", V::kBad, E::kDuplicateExtension},
      {"truncated_header", V::kNeedMore, E::kNone},
      {"truncated_half", V::kNeedMore, E::kNone},
      {"truncated_last", V::kNeedMore, E::kNone},
      {"empty", V::kNeedMore, E::kNone},
  };
  for (const Case& c : cases) {
    const Inspected i = look(corpus(c.file));
    EXPECT_EQ(i.result.verdict, c.verdict) << c.file << ": " << name(i.result.error);
    EXPECT_EQ(name(i.result.error), std::string(name(c.error))) << c.file;
  }
}

// One field of a good hello changed at a time.
TEST(ClientHello, FieldsAreChecked) {
  const std::string good = corpus("grease");
  ASSERT_EQ(look(good).result.verdict, V::kClientHello);
  const auto with = [&](size_t at, char value) {
    std::string s = good;
    s[at] = value;
    return look(s).result;
  };
  const size_t session_id = 5 + 4 + 2 + 32, ciphers = session_id + 1 + 32, compression = ciphers + 2 + 8,
               extensions = compression + 2;
  EXPECT_EQ(with(session_id, 33).error, E::kSessionId);
  EXPECT_EQ(with(ciphers + 1, 7).error, E::kCipherSuites);
  EXPECT_EQ(with(ciphers + 1, 0).error, E::kCipherSuites);
  EXPECT_EQ(with(ciphers, 1).error, E::kTruncatedField);
  EXPECT_EQ(with(compression + 1, 1).error, E::kCompression);
  EXPECT_EQ(with(extensions + 1, static_cast<char>(good[extensions + 1] - 1)).error, E::kTrailingBytes);
  EXPECT_EQ(with(extensions + 1, static_cast<char>(good[extensions + 1] + 1)).error, E::kTruncatedField);
  const size_t versions = good.find(std::string("\x06\x1a\x1a", 3));
  EXPECT_EQ(with(versions, 5).error, E::kSupportedVersions);
  std::string none = good;  // offers nothing but GREASE and a draft
  none.replace(versions + 3, 4, "\x7f\x1c\x7f\x1d", 4);
  EXPECT_EQ(look(none).result.error, E::kVersion);
}

// Each byte at a time, and exactly as `need` asks: never an answer too early, never a request for more than it takes.
TEST(ClientHello, EveryPrefixNeedsMore) {
  for (const char* file : {"openssl_tls13_sni_alpn", "records_of_100", "records_of_1", "large_one_record"}) {
    SCOPED_TRACE(file);
    std::string bytes = corpus(file);
    for (size_t n = 0; n<bytes.size(); n += bytes.size()> 4000 ? 37 : 1) {
      const HelloResult r = look(bytes.substr(0, n)).result;
      ASSERT_EQ(r.verdict, V::kNeedMore) << n;
      ASSERT_GT(r.need, n);
      ASSERT_LE(r.need, bytes.size());
    }
  }
  // Of a hello in one record only the first two calls are needed after the header.
  EXPECT_EQ(look(corpus("openssl_tls13_sni_alpn").substr(0, 9)).result.need, 339u);
}

TEST(ClientHello, LimitIsTheCallers) {
  const std::string bytes = corpus("openssl_tls13_sni_alpn");
  EXPECT_EQ(look(bytes, 339).result.verdict, V::kClientHello);
  EXPECT_EQ(look(bytes, 338).result.verdict, V::kTooLarge);
  EXPECT_EQ(look(bytes.substr(0, 337), 338).result.verdict, V::kNeedMore);
  EXPECT_EQ(look(bytes.substr(0, 338), 338).result.verdict, V::kTooLarge);
  EXPECT_EQ(look("GET / HTTP/1.1\r\n\r\n", 4).result.verdict, V::kNotTls);
}

TEST(ClientHello, QueueIsLookedAtInPlaceOrCopied) {
  support::HeapPacketPool pool(4096);
  std::vector<uint8_t> scratch(kMaxClientHelloBytes);
  const std::string bytes = corpus("openssl_tls13_sni_alpn");
  for (size_t piece : {size_t{1}, size_t{100}, bytes.size()}) {
    io::PacketQueue queue;
    for (size_t at = 0; at < bytes.size(); at += piece) queue.push_whole(pool.make(std::string_view(bytes).substr(at, piece)));
    ClientHello h;
    ASSERT_EQ(inspect(queue, scratch, h).verdict, V::kClientHello);
    EXPECT_EQ(h.server_name(), "www.example.com");
    EXPECT_EQ(queue.bytes(), bytes.size());  // untouched
    const bool in_place =
        h.cipher_suites.data() >= queue.front().data() && h.cipher_suites.data() < queue.front().data() + queue.front().size();
    EXPECT_EQ(in_place, piece == bytes.size());
    queue.push(pool.make("more"));
    EXPECT_EQ(inspect(queue, scratch, h).verdict, V::kClientHello);
  }
}

TEST(ClientHello, FragmentedNeedsScratchForTheMessage) {
  const std::string bytes = corpus("records_of_100");
  std::vector<uint8_t> small(100);
  ClientHello h;
  EXPECT_EQ(inspect(base::as_bytes(bytes), small, h).error, E::kScratch);
  // In place.
  std::vector<uint8_t> same(bytes.begin(), bytes.end());
  EXPECT_EQ(inspect(same, same, h).verdict, V::kClientHello);
  EXPECT_EQ(h.server_name(), "www.example.com");
}

// The strings behind the hashes were taken from the bytes by hand; the hashes by md5sum and sha256sum.
TEST(Fingerprint, Ja3AndJa4) {
  const Inspected i = look(corpus("grease"));
  Ja3 j3;
  Ja4 j4;
  ASSERT_TRUE(ja3(i.hello, j3));
  ASSERT_TRUE(ja4(i.hello, j4));
  // "771,4865-4866-49195,0-16-43-10-11-13,10794-29-23,0"
  EXPECT_EQ(j3.view(), "1707442ff267f5b78becf434938ff2e8");
  // ciphers "1301,1302,c02b"; extensions "000a,000b,000d,002b" "_" "0403,0804,0401,0503"
  EXPECT_EQ(j4.view(), "t13d0306h2_5559582ccdc4_0b4c29ebcd53");

  const Inspected bare = look(corpus("no_extensions"));
  ASSERT_TRUE(ja4(bare.hello, j4));
  EXPECT_EQ(j4.view(), "t12i030000_5559582ccdc4_000000000000");
}

TEST(HelloErrors, HaveNamesOfTheirOwn) {
  std::map<std::string, int> names;
  for (int i = 1; i < static_cast<int>(E::kCount); ++i) ++names[name(static_cast<E>(i))];
  for (const auto& [n, count] : names) EXPECT_EQ(count, 1) << n;
  EXPECT_FALSE(names.contains("none"));
}

}  // namespace
}  // namespace millrace::tls
