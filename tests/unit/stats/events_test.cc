#include "lib/stats/events.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/prng.h"
#include "tests/support/guard_page.h"

namespace millrace::stats {
namespace {

std::vector<uint8_t> build(const AccessLogRecord& r, std::span<const LogString> strings) {
  const AccessLogBuilder b(r, strings);
  std::vector<uint8_t> out(b.size());
  b.write(out);
  return out;
}

AccessLogRecord sample() {
  AccessLogRecord r;
  r.start_wall_ns = 1'700'000'000'000'000'000;
  r.duration_ns = 12'345;
  r.bytes_sent = 99;
  r.flags = ResponseFlags(ResponseFlag::kNoHealthyUpstream).bits;
  r.response_code = 503;
  r.protocol = Protocol::kHttp11;
  r.downstream_remote = base::IpAddress::v4(0x0a000001);
  r.downstream_remote_port = 4711;
  r.connection_id = 77;
  return r;
}

TEST(AccessLog, WhatIsWrittenIsRead) {
  const LogString strings[] = {{StringId::kMethod, "GET"},
                               {StringId::kPath, "/a?b=c"},
                               {StringId::kUserAgent, ""},
                               {StringId::kAuthority, "example.com"},
                               {StringId::kExtraRequestHeader, "42", "x-tenant"},
                               {StringId::kExtraResponseHeader, "", "x-empty"}};
  const auto bytes = build(sample(), strings);
  AccessLogView v;
  ASSERT_EQ(v.parse(bytes), RecordError::kNone);
  EXPECT_EQ(v.fixed().duration_ns, 12'345u);
  EXPECT_EQ(v.fixed().response_code, 503);
  EXPECT_EQ(v.fixed().downstream_remote, base::IpAddress::v4(0x0a000001));
  EXPECT_EQ(v.fixed().upstream_rx_first_ns, kNoTime);
  EXPECT_TRUE(v.flags().has(ResponseFlag::kNoHealthyUpstream));
  EXPECT_EQ(v.string_count(), 5u) << "empty strings are left out, headers that are present but empty are not";
  EXPECT_EQ(v.string(StringId::kMethod), "GET");
  EXPECT_EQ(v.string(StringId::kPath), "/a?b=c");
  EXPECT_EQ(v.string(StringId::kUserAgent), std::nullopt);
  EXPECT_EQ(v.extra(StringId::kExtraRequestHeader, "x-tenant"), "42");
  EXPECT_EQ(v.extra(StringId::kExtraRequestHeader, "x-other"), std::nullopt);
  EXPECT_EQ(v.extra(StringId::kExtraResponseHeader, "x-tenant"), std::nullopt);
  EXPECT_EQ(v.extra(StringId::kExtraResponseHeader, "x-empty"), "");
  EXPECT_EQ(v.fixed().record_flags, 0);
  EXPECT_STREQ(to_string(v.fixed().protocol), "HTTP/1.1");
}

TEST(AccessLog, LongStringsAreCutAndSaySo) {
  const std::string path(10'000, 'p'), agent(513, 'u'), exact(512, 'r');
  const LogString strings[] = {{StringId::kPath, path}, {StringId::kUserAgent, agent}, {StringId::kReferer, exact}};
  const auto bytes = build(sample(), strings);
  AccessLogView v;
  ASSERT_EQ(v.parse(bytes), RecordError::kNone);
  EXPECT_EQ(v.string(StringId::kPath)->size(), string_limit(StringId::kPath));
  EXPECT_EQ(v.string(StringId::kUserAgent)->size(), 512u);
  EXPECT_TRUE(v.ref(0).cut());
  EXPECT_TRUE(v.ref(1).cut());
  EXPECT_FALSE(v.ref(2).cut());
  EXPECT_EQ(v.fixed().record_flags, kFlagStringsTruncated);
}

TEST(AccessLog, TooManyStringsAreLeftOutAndItSaysSo) {
  std::vector<LogString> strings;
  const std::string value(100, 'v');
  for (int i = 0; i < 100; ++i) strings.push_back({StringId::kExtraRequestHeader, value, "x-name"});
  AccessLogView v;
  ASSERT_EQ(v.parse(build(sample(), strings)), RecordError::kNone);
  EXPECT_EQ(v.string_count(), kMaxRecordStrings);
  EXPECT_EQ(v.fixed().record_flags, kFlagStringsMissing);
  const std::string big(512, 'b');
  strings.assign(60, {StringId::kReferer, big});
  const auto bytes = build(sample(), strings);
  ASSERT_EQ(v.parse(bytes), RecordError::kNone);
  EXPECT_EQ(v.string_count(), kMaxStringBytes / 512);
  EXPECT_LE(bytes.size(), kMaxAccessLogRecord);
  EXPECT_EQ(v.fixed().record_flags, kFlagStringsMissing);
}

TEST(AccessLog, MalformedRecordsAreNamed) {
  const LogString strings[] = {{StringId::kMethod, "GET"}, {StringId::kExtraRequestHeader, "v", "n"}};
  const auto good = build(sample(), strings);
  struct Case {
    const char* what;
    std::function<void(std::vector<uint8_t>&)> change;
    RecordError want;
  };
  const auto resize = [](std::vector<uint8_t>& b, size_t n) {
    b.resize(n);
    const uint32_t size = static_cast<uint32_t>(n);
    if (n >= 8) std::memcpy(b.data() + 4, &size, 4);
  };
  const Case cases[] = {
      {"empty", [](auto& b) { b.clear(); }, RecordError::kTooShort},
      {"a header only", [&](auto& b) { resize(b, 8); }, RecordError::kTooShort},
      {"type", [](auto& b) { b[0] = 3; }, RecordError::kWrongType},
      {"version", [](auto& b) { b[2] ^= 1; }, RecordError::kWrongVersion},
      {"size", [](auto& b) { b[4] ^= 1; }, RecordError::kWrongSize},
      {"cut", [&](auto& b) { resize(b, b.size() - 1); }, RecordError::kStringsPastEnd},
      {"longer", [&](auto& b) { resize(b, b.size() + 1); }, RecordError::kWrongSize},
      {"count", [](auto& b) { reinterpret_cast<AccessLogRecord*>(b.data())->string_count = 65; }, RecordError::kTooManyStrings},
      {"count beyond the end", [](auto& b) { reinterpret_cast<AccessLogRecord*>(b.data())->string_count = 60; },
       RecordError::kStringsPastEnd},
      {"a string beyond the end",
       [](auto& b) { reinterpret_cast<StringRef*>(b.data() + sizeof(AccessLogRecord))->size_and_cut = 0x7fff; },
       RecordError::kStringsPastEnd},
      {"an extra header of no bytes",
       [](auto& b) {
         auto* r = reinterpret_cast<StringRef*>(b.data() + sizeof(AccessLogRecord));
         r[0].size_and_cut += r[1].size_and_cut;
         r[1].size_and_cut = 0;
       },
       RecordError::kBadExtra},
  };
  for (const Case& c : cases) {
    auto bytes = good;
    c.change(bytes);
    AccessLogView v;
    EXPECT_EQ(v.parse(bytes), c.want) << c.what << ": " << to_string(v.parse(bytes));
  }
}

TEST(AccessLog, RandomDamageStaysInside) {
  base::Prng random(0xacce55);
  const std::string value(300, 'v');
  const LogString strings[] = {{StringId::kMethod, "GET"},
                               {StringId::kPath, value},
                               {StringId::kExtraRequestHeader, "v", "n"},
                               {StringId::kExtraResponseHeader, value, "name"}};
  const auto good = build(sample(), strings);
  for (int i = 0; i < 20'000; ++i) {
    auto bytes = good;
    for (uint64_t n = 1 + random.below(6); n > 0; --n)
      bytes[random.below(4) != 0 ? sizeof(AccessLogRecord) - 8 + random.below(40) : random.below(bytes.size())] =
          static_cast<uint8_t>(random.next());
    support::GuardPage guard(bytes);
    AccessLogView v;
    if (v.parse(guard.bytes()) != RecordError::kNone) continue;
    size_t total = 0;
    for (uint32_t k = 0; k < v.string_count(); ++k) total += v.string_at(k).size();
    EXPECT_LE(total, bytes.size());
    (void)v.extra(StringId::kExtraRequestHeader, "n");
    (void)v.extra(StringId::kExtraResponseHeader, "name");
  }
}

TEST(LoaderEvents, WrittenAndRead) {
  std::vector<uint8_t> bytes(kMaxLoaderEvent);
  LoaderEvent e;
  e.epoch = 9;
  e.incarnation = 4;
  bytes.resize(write_loader_event(bytes, EventType::kSnapshotRejected, e, "because"));
  LoaderEvent got;
  std::string_view text;
  ASSERT_EQ(read_loader_event(bytes, got, text), RecordError::kNone);
  EXPECT_EQ(got.epoch, 9u);
  EXPECT_EQ(text, "because");
  EXPECT_EQ(got.header.type, EventType::kSnapshotRejected);
  bytes[4]++;
  EXPECT_EQ(read_loader_event(bytes, got, text), RecordError::kWrongSize);
  bytes[4]--;
  reinterpret_cast<LoaderEvent*>(bytes.data())->text_size++;
  EXPECT_EQ(read_loader_event(bytes, got, text), RecordError::kWrongSize);
  std::vector<uint8_t> big(kMaxLoaderEvent);
  EXPECT_EQ(write_loader_event(big, EventType::kLoaderNote, e, std::string(5000, 'x')), kMaxLoaderEvent)
      << "long reasons are cut";
  const auto access = build(sample(), {});
  EXPECT_EQ(read_loader_event(access, got, text), RecordError::kWrongType);
}

TEST(Corpus, Write) {
  const char* folder = std::getenv("MILLRACE_WRITE_CORPUS");
  if (folder == nullptr) GTEST_SKIP() << "MILLRACE_WRITE_CORPUS is not set";
  const auto write = [&](const std::string& name, const std::vector<uint8_t>& b) {
    std::ofstream(std::string(folder) + "/" + name, std::ios::binary)
        .write(reinterpret_cast<const char*>(b.data()), static_cast<std::streamsize>(b.size()));
  };
  const LogString strings[] = {{StringId::kMethod, "GET"}, {StringId::kPath, "/a"}, {StringId::kExtraRequestHeader, "v", "n"}};
  write("access-log", build(sample(), strings));
  write("access-log-bare", build(sample(), {}));
  std::vector<uint8_t> loader(kMaxLoaderEvent);
  loader.resize(write_loader_event(loader, EventType::kSnapshotRejected, LoaderEvent{}, "reason"));
  write("loader-event", loader);
}

}  // namespace
}  // namespace millrace::stats
