#include "lib/compress/accept_encoding.h"

#include <vector>

#include <gtest/gtest.h>

namespace millrace::compress {
namespace {

constexpr Candidate kGz{Codec::kGzip}, kBr{Codec::kBrotli}, kZs{Codec::kZstd};
constexpr Candidate kBrFirst{Codec::kBrotli, true}, kZsFirst{Codec::kZstd, true};

struct Case {
  const char* field;
  std::vector<Candidate> filters;
  Choice choice;
  const char* coding;  // "": goes as it is
};

const Case kCases[] = {
    // one filter
    {"gzip", {kGz}, Choice::kCoding, "gzip"},
    {"deflate, gzip", {kGz}, Choice::kCoding, "gzip"},
    {" gzip ; q=0.5 ", {kGz}, Choice::kCoding, "gzip"},
    {"GZIP", {kGz}, Choice::kNotValid, ""},
    {"deflate", {kGz}, Choice::kNotValid, ""},
    {"", {kGz}, Choice::kNotValid, ""},
    {",,,", {kGz}, Choice::kNotValid, ""},
    {"gzip", {}, Choice::kNotValid, ""},
    {"identity", {kGz}, Choice::kIdentity, ""},
    {"identity, gzip", {kGz}, Choice::kIdentity, ""},
    {"gzip, identity", {kGz}, Choice::kCoding, "gzip"},
    {"identity;q=0.5, gzip;q=0.4", {kGz}, Choice::kIdentity, ""},
    {"*", {kGz}, Choice::kWildcard, "gzip"},
    {"gzip;q=0, *", {kGz}, Choice::kNotValid, ""},
    {"gzip;q=0", {kGz}, Choice::kNotValid, ""},
    {"gzip;q=0.0, identity", {kGz}, Choice::kNotValid, ""},
    {"gzip;q=x", {kGz}, Choice::kNotValid, ""},
    {"gzip;q=-1", {kGz}, Choice::kNotValid, ""},
    {"gzip;q=", {kGz}, Choice::kNotValid, ""},
    {"gzip;Q=0.3", {kGz}, Choice::kCoding, "gzip"},
    {"gzip;q=+.3", {kGz}, Choice::kCoding, "gzip"},
    {"gzip;q=1e-3", {kGz}, Choice::kCoding, "gzip"},
    {"gzip;level=3;q=0", {kGz}, Choice::kCoding, "gzip"},  // Envoy looks at the first parameter only
    // several
    {"gzip, br, zstd", {kGz, kBr, kZs}, Choice::kCoding, "gzip"},
    {"zstd, br, gzip", {kGz, kBr, kZs}, Choice::kCoding, "zstd"},
    {"gzip;q=0.9, br;q=1.0, zstd;q=0.8", {kGz, kBr, kZs}, Choice::kCoding, "br"},
    {"gzip, br", {kGz, kBrFirst}, Choice::kCoding, "br"},
    {"br, gzip", {kGz, kBrFirst}, Choice::kCoding, "br"},
    {"gzip;q=1, br;q=0.9", {kGz, kBrFirst}, Choice::kCoding, "gzip"},
    {"gzip, br, zstd", {kGz, kBrFirst, kZsFirst}, Choice::kCoding, "zstd"},
    {"zstd, br, gzip", {kGz, kBrFirst, kZsFirst}, Choice::kCoding, "br"},
    {"*", {kBr, kGz}, Choice::kWildcard, "br"},
    {"br;q=0, *", {kBr, kGz}, Choice::kWildcard, "gzip"},
    {"gzip;q=0.5, *", {kGz, kBr}, Choice::kWildcard, "gzip"},
    {"gzip, *", {kBr, kGz}, Choice::kCoding, "gzip"},
    {"gzip", {kGz, kGz}, Choice::kCoding, "gzip"},
    {"identity;q=0, *", {kZs}, Choice::kWildcard, "zstd"},
    {"*, identity", {kZs}, Choice::kWildcard, "zstd"},
};

TEST(AcceptEncoding, Table) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.field);
    const Decision d = choose_encoding(c.field, c.filters);
    EXPECT_EQ(d.choice, c.choice);
    EXPECT_EQ(d.encodes, c.coding[0] != 0);
    EXPECT_EQ(d.encodes ? content_encoding(d.codec) : "", c.coding);
  }
}

}  // namespace
}  // namespace millrace::compress
