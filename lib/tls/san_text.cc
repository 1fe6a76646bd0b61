#include "lib/tls/san_text.h"

#include "lib/base/bytes.h"
#include "lib/base/ip_address.h"

namespace millrace::tls {

std::string_view san_text(const GENERAL_NAME* name, SanMatcher::Type* type, std::span<char> buffer) {
  using Type = SanMatcher::Type;
  if (name->type != GEN_DNS && name->type != GEN_URI && name->type != GEN_EMAIL && name->type != GEN_IPADD) return {};
  const ASN1_STRING* s = name->type == GEN_IPADD ? name->d.iPAddress : name->d.ia5;
  const std::string_view raw(reinterpret_cast<const char*>(ASN1_STRING_get0_data(s)), static_cast<size_t>(ASN1_STRING_length(s)));
  if (name->type != GEN_IPADD) {
    *type = name->type == GEN_DNS ? Type::kDns : name->type == GEN_URI ? Type::kUri : Type::kEmail;
    return raw.find('\0') == std::string_view::npos ? raw : std::string_view();
  }
  *type = Type::kIp;
  base::IpAddress a;
  if (raw.size() == 4) a = base::IpAddress::v4(base::load_be32(raw.data()));
  else if (raw.size() == 16) a = base::IpAddress::v6(reinterpret_cast<const uint8_t*>(raw.data()));
  else return {};
  return {buffer.data(), a.format(buffer.data(), buffer.size())};
}

}  // namespace millrace::tls
