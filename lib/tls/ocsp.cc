#include "lib/tls/ocsp.h"

#include <ctime>
#include <memory>

#include <climits>
#include <openssl/ocsp.h>
#include <openssl/tls1.h>
#include <openssl/x509v3.h>

namespace millrace::tls {

using base::Error;
using base::Result;

namespace {
using ResponsePtr = std::unique_ptr<OCSP_RESPONSE, Freer<OCSP_RESPONSE_free>>;
using BasicPtr = std::unique_ptr<OCSP_BASICRESP, Freer<OCSP_BASICRESP_free>>;
}  // namespace

Result<OcspStaple> load_ocsp_staple(std::string_view der, X509* leaf) {
  const auto* at = reinterpret_cast<const unsigned char*>(der.data());
  const ResponsePtr response(d2i_OCSP_RESPONSE(nullptr, &at, static_cast<long>(der.size())));
  if (response == nullptr) {
    ERR_clear_error();
    return Error{"no OCSP response in DER"};
  }
  if (OCSP_response_status(response.get()) != OCSP_RESPONSE_STATUS_SUCCESSFUL)
    return Error{std::string("the OCSP response says ") + OCSP_response_status_str(OCSP_response_status(response.get()))};
  const BasicPtr basic(OCSP_response_get1_basic(response.get()));
  if (basic == nullptr) {
    ERR_clear_error();
    return Error{"the OCSP response is of a kind that is not known (not basic)"};
  }
  if (OCSP_resp_count(basic.get()) != 1) return Error{"the OCSP response must be of one certificate"};
  OCSP_SINGLERESP* single = OCSP_resp_get0(basic.get(), 0);
  ASN1_INTEGER* serial = nullptr;
  OCSP_id_get0_info(nullptr, nullptr, nullptr, &serial, const_cast<OCSP_CERTID*>(OCSP_SINGLERESP_get0_id(single)));
  if (serial == nullptr || ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(leaf)) != 0)
    return Error{"the OCSP response is of another certificate (serial numbers differ)"};
  OcspStaple out;
  out.der = der;
  out.expires_at = INT64_MAX;
  ASN1_GENERALIZEDTIME* next = nullptr;
  OCSP_single_get0_status(single, nullptr, nullptr, nullptr, &next);
  std::tm tm{};
  if (next != nullptr && ASN1_TIME_to_tm(next, &tm) == 1) out.expires_at = static_cast<int64_t>(timegm(&tm));
  ERR_clear_error();
  return out;
}

bool must_staple(X509* leaf) {
  auto* feature = static_cast<TLS_FEATURE*>(X509_get_ext_d2i(leaf, NID_tlsfeature, nullptr, nullptr));
  bool found = false;
  for (int i = 0; i < sk_ASN1_INTEGER_num(feature); ++i)
    found = found || ASN1_INTEGER_get(sk_ASN1_INTEGER_value(feature, i)) == TLSEXT_TYPE_status_request;
  sk_ASN1_INTEGER_pop_free(feature, ASN1_INTEGER_free);
  ERR_clear_error();
  return found;
}

}  // namespace millrace::tls
