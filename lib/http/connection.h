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
bool should_close(Version version, const HeaderTable& headers);

// Envoy's Utility::isUpgrade: "upgrade" in connection and an upgrade field.
bool is_upgrade(const HeaderTable& headers);
inline bool is_connect(const RequestHead& head) { return head.method == "CONNECT"; }
inline bool is_websocket(const HeaderTable& headers) {
  return is_upgrade(headers) && equals_ignore_case(headers.get(HeaderId::kUpgrade), "websocket");
}

// Expect: 100-continue (RFC 9110 10.1.1; any case).
bool expects_continue(const RequestHead& head);

// True for application/grpc and application/grpc+x (Envoy's Grpc::Common::isGrpcRequestHeaders).
bool is_grpc(const HeaderTable& headers);

}  // namespace millrace::http
