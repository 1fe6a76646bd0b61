#include "lib/tls/fingerprint.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include <openssl/evp.h>

namespace millrace::tls {
namespace {

using base::ByteSpan;

// A digest fed with text in small pieces.
class TextDigest {
 public:
  explicit TextDigest(const EVP_MD* md) : ctx_(EVP_MD_CTX_new()) {
    ok_ = ctx_ != nullptr && EVP_DigestInit_ex(ctx_, md, nullptr) == 1;
  }
  ~TextDigest() { EVP_MD_CTX_free(ctx_); }
  TextDigest(const TextDigest&) = delete;
  TextDigest& operator=(const TextDigest&) = delete;
  void add(std::string_view s) {
    if (used_ + s.size() > sizeof buffer_) flush();
    std::memcpy(buffer_ + used_, s.data(), s.size());
    used_ += s.size();
  }
  void add_decimal(unsigned v) {
    char t[8];
    add({t, static_cast<size_t>(std::to_chars(t, t + sizeof t, v).ptr - t)});
  }
  void add_hex4(unsigned v) {
    static constexpr char kDigits[] = "0123456789abcdef";
    const char t[4] = {kDigits[v >> 12 & 15], kDigits[v >> 8 & 15], kDigits[v >> 4 & 15], kDigits[v & 15]};
    add({t, 4});
  }
  // The first `chars` hex digits of the digest.
  bool finish(char* out, size_t chars) {
    static constexpr char kDigits[] = "0123456789abcdef";
    flush();
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (!ok_ || EVP_DigestFinal_ex(ctx_, md, &n) != 1 || n * 2 < chars) return false;
    for (size_t i = 0; i < chars; ++i) out[i] = kDigits[i % 2 == 0 ? md[i / 2] >> 4 : md[i / 2] & 15];
    return true;
  }

 private:
  void flush() {
    if (ok_ && used_ != 0) ok_ = EVP_DigestUpdate(ctx_, buffer_, used_) == 1;
    used_ = 0;
  }
  EVP_MD_CTX* ctx_;
  char buffer_[512];
  size_t used_ = 0;
  bool ok_ = false;
};

template <class F>
void for_each_u16(ByteSpan list, F&& f) {
  for (size_t i = 0; i + 1 < list.size(); i += 2) f(base::load_be16(&list[i]));
}
// f(type, body) for each extension; the block was checked by inspect().
template <class F>
void for_each_extension(ByteSpan block, F&& f) {
  for (size_t i = 0; i + 4 <= block.size();) {
    const uint16_t length = base::load_be16(&block[i + 2]);
    f(base::load_be16(&block[i]), block.subspan(i + 4, length));
    i += 4 + size_t{length};
  }
}

// "12-34-56" of what `each` calls back with.
class DashList {
 public:
  explicit DashList(TextDigest& d) : d_(d) {}
  void add(unsigned v) {
    if (!first_) d_.add("-");
    first_ = false;
    d_.add_decimal(v);
  }

 private:
  TextDigest& d_;
  bool first_ = true;
};

char* two_digits(char* p, unsigned v) {
  v = std::min(v, 99u);
  *p++ = static_cast<char>('0' + v / 10);
  *p++ = static_cast<char>('0' + v % 10);
  return p;
}

bool alnum(uint8_t c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

}  // namespace

bool ja3(const ClientHello& h, Ja3& out) {
  TextDigest d(EVP_md5());
  d.add_decimal(h.legacy_version);
  d.add(",");
  DashList ciphers(d);
  for_each_u16(h.cipher_suites, [&](uint16_t v) {
    if (!is_grease(v)) ciphers.add(v);
  });
  d.add(",");
  DashList extensions(d);
  for_each_extension(h.extensions, [&](uint16_t type, ByteSpan) {
    if (!is_grease(type)) extensions.add(type);
  });
  d.add(",");
  DashList groups(d);  // GREASE stays in, as in Envoy
  for_each_u16(h.supported_groups, [&](uint16_t v) { groups.add(v); });
  d.add(",");
  DashList formats(d);
  for (uint8_t v : h.ec_point_formats) formats.add(v);
  return d.finish(out.hex.data(), out.hex.size());
}

bool ja4(const ClientHello& h, Ja4& out) {
  // A ClientHello of 16 KiB holds at most 8192 cipher suites or 4096 extensions.
  uint16_t sorted[kMaxClientHelloBytes / 2];
  unsigned ciphers = 0, extensions = 0, kept = 0;

  char* p = out.text.data();
  *p++ = 't';
  const char* version = h.max_version == 0x0304   ? "13"
                        : h.max_version == 0x0303 ? "12"
                        : h.max_version == 0x0302 ? "11"
                        : h.max_version == 0x0301 ? "10"
                                                  : "00";
  *p++ = version[0];
  *p++ = version[1];
  *p++ = h.has_server_name ? 'd' : 'i';

  for_each_u16(h.cipher_suites, [&](uint16_t v) {
    if (!is_grease(v) && ciphers < std::size(sorted)) sorted[ciphers++] = v;
  });
  p = two_digits(p, ciphers);
  for_each_extension(h.extensions, [&](uint16_t type, ByteSpan) { extensions += !is_grease(type); });
  p = two_digits(p, extensions);

  std::string_view protocol;
  if (!h.alpn.empty()) protocol = *h.alpn.begin();
  if (protocol.empty()) {
    *p++ = '0';
    *p++ = '0';
  } else {
    const uint8_t first = static_cast<uint8_t>(protocol.front()), last = static_cast<uint8_t>(protocol.back());
    const bool plain = alnum(first) && alnum(last);
    *p++ = plain ? static_cast<char>(first) : "0123456789abcdef"[first >> 4];
    *p++ = plain ? static_cast<char>(last) : "0123456789abcdef"[last & 15];
  }
  *p++ = '_';

  std::sort(sorted, sorted + ciphers);
  if (ciphers == 0) {
    std::memset(p, '0', 12);
  } else {
    TextDigest d(EVP_sha256());
    for (unsigned i = 0; i < ciphers; ++i) {
      if (i != 0) d.add(",");
      d.add_hex4(sorted[i]);
    }
    if (!d.finish(p, 12)) return false;
  }
  p += 12;
  *p++ = '_';

  for_each_extension(h.extensions, [&](uint16_t type, ByteSpan) {
    if (!is_grease(type) && type != 0 && type != 16 && kept < std::size(sorted)) sorted[kept++] = type;  // neither SNI nor ALPN
  });
  std::sort(sorted, sorted + kept);
  if (kept == 0) {
    std::memset(p, '0', 12);
    return true;
  }
  TextDigest d(EVP_sha256());
  for (unsigned i = 0; i < kept; ++i) {
    if (i != 0) d.add(",");
    d.add_hex4(sorted[i]);
  }
  bool first = true;
  for_each_u16(h.signature_algorithms, [&](uint16_t v) {
    d.add(first ? "_" : ",");
    first = false;
    d.add_hex4(v);
  });
  return d.finish(p, 12);
}

}  // namespace millrace::tls
