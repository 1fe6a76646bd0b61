#include "lib/http/grpc_web.h"

#include <algorithm>
#include <array>

#include "lib/http/connection.h"

namespace millrace::http {

namespace {

constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr uint8_t kNoDigit = 0xff;
constexpr std::array<uint8_t, 256> kDigits = [] {
  std::array<uint8_t, 256> t{};
  t.fill(kNoDigit);
  for (uint8_t i = 0; i < 64; ++i) t[static_cast<uint8_t>(kAlphabet[i])] = i;
  return t;
}();

void put_group(uint32_t bits, uint8_t* out) {  // 24 bits
  for (int shift = 18; shift >= 0; shift -= 6) *out++ = static_cast<uint8_t>(kAlphabet[bits >> shift & 63]);
}

}  // namespace

GrpcWebType grpc_web_type(std::string_view value) {
  constexpr std::string_view kWeb = "application/grpc-web";
  if (!value.starts_with(kWeb)) return GrpcWebType::kNone;
  const std::string_view rest = value.substr(kWeb.size());
  if (rest.empty() || rest == "+proto") return GrpcWebType::kBinary;
  return rest == "-text" || rest == "-text+proto" ? GrpcWebType::kText : GrpcWebType::kNone;
}

bool is_grpc_web_response(const ResponseHead& head, bool end) {
  if (end ? head.headers.has(HeaderId::kGrpcStatus) : head.status == 200 && is_grpc(head.headers)) return true;
  if (head.status != 200) return false;
  std::string_view type = head.headers.get(HeaderId::kContentType);
  type = type.substr(0, type.find(';'));
  while (!type.empty() && (type.back() == ' ' || type.back() == '\t')) type.remove_suffix(1);
  return equals_ignore_case(type, kGrpcWebProto) || equals_ignore_case(type, "application/grpc-web");
}

CodedStep Base64Decoder::step(base::ByteSpan in, std::span<uint8_t> out) {
  CodedStep s;
  while (s.consumed < in.size()) {
    const uint8_t c = in[s.consumed];
    const uint8_t digit = kDigits[c];
    if (digit != kNoDigit) {
      bad_ |= padding_ != 0;
      bits_ = bits_ << 6 | digit;
    } else {
      bad_ |= c != '=' || pending_ < 2;
      bits_ <<= 6;
      padding_ += !bad_;
    }
    if (++pending_ == 4) {
      if (bad_ || (bits_ & ((1u << (8 * padding_)) - 1)) != 0) {
        s.bad = true;
        return s;
      }
      const uint32_t bytes = 3u - padding_;
      if (out.size() - s.produced < bytes) {  // the character stays for the next call
        --pending_;
        bits_ >>= 6;
        padding_ -= digit == kNoDigit;
        return s;
      }
      for (uint32_t i = 0; i < bytes; ++i) out[s.produced++] = static_cast<uint8_t>(bits_ >> (16 - 8 * i));
      bits_ = pending_ = padding_ = 0;
    }
    ++s.consumed;
  }
  return s;
}

CodedStep GrpcWebTextEncoder::step(base::ByteSpan in, std::span<uint8_t> out) {
  constexpr uint8_t kHead = 5;
  CodedStep s;
  while (s.consumed < in.size() && out.size() - s.produced >= kLeastOut) {
    if (head_bytes_ < kHead) {
      const uint8_t c = in[s.consumed];
      if (head_bytes_ != 0) left_ = left_ << 8 | c;
      else left_ = 0;
      ++head_bytes_;
    } else {
      // Whole groups of the message at once.
      size_t groups =
          grouped_ != 0 ? 0 : std::min({in.size() - s.consumed, size_t{left_}, (out.size() - s.produced) / 4 * 3}) / 3;
      if (groups != 0) {
        const uint8_t* from = in.data() + s.consumed;
        uint8_t* to = out.data() + s.produced;
        left_ -= static_cast<uint32_t>(3 * groups);
        s.consumed += 3 * groups;
        s.produced += 4 * groups;
        for (; groups != 0; --groups, from += 3, to += 4) put_group(uint32_t{from[0]} << 16 | from[1] << 8 | from[2], to);
        if (left_ == 0) head_bytes_ = 0;  // the frame ends with a whole group
        continue;
      }
      --left_;
    }
    group_ = group_ << 8 | in[s.consumed++];
    if (++grouped_ == 3) {
      put_group(group_, out.data() + s.produced);
      s.produced += 4;
      group_ = grouped_ = 0;
    }
    if (head_bytes_ == kHead && left_ == 0) s.produced += finish(out.subspan(s.produced));
  }
  return s;
}

size_t GrpcWebTextEncoder::finish(std::span<uint8_t> out) {
  head_bytes_ = 0;
  left_ = 0;
  if (grouped_ == 0) return 0;
  put_group(group_ << (grouped_ == 1 ? 16 : 8), out.data());
  out[3] = '=';
  if (grouped_ == 1) out[2] = '=';
  group_ = grouped_ = 0;
  return 4;
}

size_t write_grpc_web_trailers(const HeaderTable& trailers, std::span<char> out) {
  constexpr size_t kHead = 5;
  size_t length = 0;
  for (const Header& h : trailers) length += h.name.size() + h.value.size() + 3;
  if (kHead + length > out.size()) return kHead + length;
  char* p = out.data();
  *p++ = static_cast<char>(0x80);
  for (int shift = 24; shift >= 0; shift -= 8) *p++ = static_cast<char>(length >> shift);
  for (const Header& h : trailers) {
    p = std::copy(h.name.begin(), h.name.end(), p);
    *p++ = ':';
    p = std::copy(h.value.begin(), h.value.end(), p);
    *p++ = '\r';
    *p++ = '\n';
  }
  return kHead + length;
}

std::string_view grpc_message(std::string_view text, Scratch& scratch) {
  const auto escaped = [](char c) { return c < 0x20 || c >= '~' || c == '%'; };  // signed: bytes beyond ASCII too
  const size_t escapes = static_cast<size_t>(std::count_if(text.begin(), text.end(), escaped));
  if (escapes == 0) return text;
  const size_t n = text.size() + 2 * escapes;
  char* out = scratch.allocate(n);
  if (out == nullptr) return {};
  char* p = out;
  for (const char c : text) {
    if (!escaped(c)) {
      *p++ = c;
      continue;
    }
    *p++ = '%';
    *p++ = "0123456789ABCDEF"[static_cast<uint8_t>(c) >> 4];
    *p++ = "0123456789ABCDEF"[c & 15];
  }
  return {out, n};
}

}  // namespace millrace::http
