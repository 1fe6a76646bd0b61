#include "lib/tls/tls_error.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace millrace::tls {

const char* name(TlsError e) {
  switch (e) {
#define TLS_ERROR(symbol, name, text) \
  case TlsError::symbol:              \
    return name;
#include "lib/tls/tls_errors.def"
#undef TLS_ERROR
    case TlsError::kNone:
    case TlsError::kCount:
      break;
  }
  return "none";
}

const char* text(TlsError e) {
  switch (e) {
#define TLS_ERROR(symbol, name, text) \
  case TlsError::symbol:              \
    return text;
#include "lib/tls/tls_errors.def"
#undef TLS_ERROR
    case TlsError::kNone:
    case TlsError::kCount:
      break;
  }
  return "no error";
}

namespace {

// ERR_LIB_SSL of BoringSSL is 16; its reasons for received alerts are 1000 and the alert's number.
struct BoringSslReason {
  TlsError error;
  uint16_t reason;
  const char* name;
};
constexpr BoringSslReason kReasons[] = {
    {TlsError::kPeerCertificateUntrusted, 125, "CERTIFICATE_VERIFY_FAILED"},
    {TlsError::kPeerCertificateExpired, 125, "CERTIFICATE_VERIFY_FAILED"},
    {TlsError::kPeerCertificateName, 125, "CERTIFICATE_VERIFY_FAILED"},
    {TlsError::kPeerCertificateBad, 125, "CERTIFICATE_VERIFY_FAILED"},
    {TlsError::kPeerCertificateRevoked, 125, "CERTIFICATE_VERIFY_FAILED"},
    {TlsError::kPeerCertificateHash, 125, "CERTIFICATE_VERIFY_FAILED"},
    {TlsError::kPeerCertificateMissing, 192, "PEER_DID_NOT_RETURN_A_CERTIFICATE"},
    {TlsError::kNotTls, 247, "WRONG_VERSION_NUMBER"},
    {TlsError::kHttpRequest, 156, "HTTP_REQUEST"},
    {TlsError::kUnsupportedVersion, 240, "UNSUPPORTED_PROTOCOL"},
    {TlsError::kNoSharedCipher, 184, "NO_SHARED_CIPHER"},
    {TlsError::kNoSharedGroup, 188, "NO_SHARED_GROUP"},
    {TlsError::kBadSignature, 123, "BAD_SIGNATURE"},
    {TlsError::kDecodeError, 137, "DECODE_ERROR"},
    {TlsError::kUnexpectedMessage, 223, "UNEXPECTED_MESSAGE"},
    {TlsError::kBadRecordMac, 139, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"},
    {TlsError::kAlertUnexpectedMessage, 1010, "SSLV3_ALERT_UNEXPECTED_MESSAGE"},
    {TlsError::kAlertBadRecordMac, 1020, "SSLV3_ALERT_BAD_RECORD_MAC"},
    {TlsError::kAlertRecordOverflow, 1022, "TLSV1_ALERT_RECORD_OVERFLOW"},
    {TlsError::kAlertHandshakeFailure, 1040, "SSLV3_ALERT_HANDSHAKE_FAILURE"},
    {TlsError::kAlertBadCertificate, 1042, "SSLV3_ALERT_BAD_CERTIFICATE"},
    {TlsError::kAlertUnsupportedCertificate, 1043, "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"},
    {TlsError::kAlertCertificateRevoked, 1044, "SSLV3_ALERT_CERTIFICATE_REVOKED"},
    {TlsError::kAlertCertificateExpired, 1045, "SSLV3_ALERT_CERTIFICATE_EXPIRED"},
    {TlsError::kAlertCertificateUnknown, 1046, "SSLV3_ALERT_CERTIFICATE_UNKNOWN"},
    {TlsError::kAlertIllegalParameter, 1047, "SSLV3_ALERT_ILLEGAL_PARAMETER"},
    {TlsError::kAlertUnknownCa, 1048, "TLSV1_ALERT_UNKNOWN_CA"},
    {TlsError::kAlertAccessDenied, 1049, "TLSV1_ALERT_ACCESS_DENIED"},
    {TlsError::kAlertDecodeError, 1050, "TLSV1_ALERT_DECODE_ERROR"},
    {TlsError::kAlertDecryptError, 1051, "TLSV1_ALERT_DECRYPT_ERROR"},
    {TlsError::kAlertProtocolVersion, 1070, "TLSV1_ALERT_PROTOCOL_VERSION"},
    {TlsError::kAlertInsufficientSecurity, 1071, "TLSV1_ALERT_INSUFFICIENT_SECURITY"},
    {TlsError::kAlertInternalError, 1080, "TLSV1_ALERT_INTERNAL_ERROR"},
    {TlsError::kAlertUserCanceled, 1090, "TLSV1_ALERT_USER_CANCELLED"},
    {TlsError::kAlertNoRenegotiation, 1100, "TLSV1_ALERT_NO_RENEGOTIATION"},
    {TlsError::kAlertUnsupportedExtension, 1110, "TLSV1_ALERT_UNSUPPORTED_EXTENSION"},
    {TlsError::kAlertUnrecognizedName, 1112, "TLSV1_ALERT_UNRECOGNIZED_NAME"},
    {TlsError::kAlertCertificateRequired, 1116, "TLSV1_ALERT_CERTIFICATE_REQUIRED"},
    {TlsError::kAlertNoApplicationProtocol, 1120, "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"},
};
constexpr uint32_t kBoringSslLibrary = 16u << 24;

}  // namespace

size_t failure_reason(TlsError e, std::string_view detail, std::span<char> out) {
  if (e == TlsError::kNone || e == TlsError::kHandshakeEof || e == TlsError::kEofWithoutCloseNotify) return 0;
  size_t used = 0;
  const auto add = [&](std::string_view s) {
    const size_t n = std::min(s.size(), out.size() - used);
    std::memcpy(out.data() + used, s.data(), n);
    used += n;
  };
  add("TLS_error:");
  const auto* known = std::find_if(std::begin(kReasons), std::end(kReasons), [&](const auto& r) { return r.error == e; });
  if (known != std::end(kReasons)) {
    char number[12];
    const auto end = std::to_chars(number, number + sizeof number, kBoringSslLibrary + known->reason).ptr;
    add("|");
    add({number, static_cast<size_t>(end - number)});
    add(":SSL routines:OPENSSL_internal:");
    add(known->name);
  } else {
    add(name(e));
  }
  if (!detail.empty()) {
    add(":");
    add(detail);
  }
  add(":TLS_error_end");
  return used;
}

}  // namespace millrace::tls
