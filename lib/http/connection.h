// What the connection-level fields of a head mean: does the connection live on, is it an upgrade, is a token in a list.
#pragma once

#include <string_view>

#include "lib/http/message.h"

namespace millrace::http {

// ASCII, any case. Bytes above 0x7f compare as they are.
bool equals_ignore_case(std::string_view a, std::string_view b);

// True when the comma separated list has that member (any case, surrounding white space ignored; RFC 9110 5.6.1). `token` lower
// case.
bool list_has_token(std::string_view list, std::string_view token);
// The same over every field of that id.
bool has_token(const HeaderTable& headers, HeaderId id, std::string_view token);

// Envoy's HeaderUtility::shouldCloseConnection: HTTP/1.1 closes when connection or proxy-connection has "close"; HTTP/1.0 closes
// unless connection has "keep-alive".
inline bool should_close(Version version, const HeaderTable& headers) {
  constexpr uint64_t kFields = bit_of(HeaderId::kConnection) | bit_of(HeaderId::kProxyConnection);
  if ((headers.present() & kFields) == 0) return version == Version::kHttp10;
  if (version == Version::kHttp10) return !has_token(headers, HeaderId::kConnection, "keep-alive");
  return has_token(headers, HeaderId::kConnection, "close") || has_token(headers, HeaderId::kProxyConnection, "close");
}

// Envoy's Utility::isUpgrade: "upgrade" in connection and an upgrade field.
inline bool is_upgrade(const HeaderTable& headers) {
  return headers.has(HeaderId::kUpgrade) && has_token(headers, HeaderId::kConnection, "upgrade");
}
inline bool is_connect(const RequestHead& head) { return is_text(head.method, "CONNECT"); }
inline bool is_websocket(const HeaderTable& headers) {
  return is_upgrade(headers) && equals_ignore_case(headers.get(HeaderId::kUpgrade), "websocket");
}

// Expect: 100-continue (RFC 9110 10.1.1; any case).
inline bool expects_continue(const RequestHead& head) {
  return head.headers.has(HeaderId::kExpect) && equals_ignore_case(head.headers.get(HeaderId::kExpect), "100-continue");
}

// True for application/grpc and application/grpc+x (Envoy's Grpc::Common::isGrpcRequestHeaders).
inline bool is_grpc(const HeaderTable& headers) {
  constexpr size_t kBytes = std::string_view("application/grpc").size();
  if (!headers.has(HeaderId::kContentType)) return false;
  const std::string_view type = headers.get(HeaderId::kContentType);
  return is_text(type.substr(0, kBytes), "application/grpc") && (type.size() == kBytes || type[kBytes] == '+');
}

}  // namespace millrace::http
