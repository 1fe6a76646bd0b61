// A way to one management server: gRPC's channel with the credentials that the bootstrap gives, and what every stream on it says.
// Made anew for each attempt, so that rotated certificates and tokens are read again. Any thread.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/channel.h>

#include "control/model.h"
#include "lib/api/envoy.config.core.v3.pb.h"
#include "lib/base/status.h"

namespace millrace::control {

inline constexpr int kMaxResponseBytes = 256 << 20;  // of one message of a server, unless max_receive_message_length says less
// Pings find servers that vanished without a word. Servers made with grpc-go end connections that ping more often than every
// five minutes, unless told otherwise.
inline constexpr int kKeepaliveMs = 5 * 60 * 1000 + 5000;
inline constexpr int kKeepaliveTimeoutMs = 20 * 1000;

struct XdsChannel {
  std::shared_ptr<grpc::Channel> channel;
  std::vector<std::pair<std::string, std::string>> metadata;  // of every stream: initial_metadata, tokens; keys in lower case
  std::string authority;                                      // of every stream; "": gRPC's choice
};

// For people: "xds.example:15012", "cluster istiod".
std::string server_name(const envoy::config::core::v3::GrpcService& service);
// Does not connect yet. `model`: with addresses in the place of names, for the endpoints and certificates of envoy_grpc's
// cluster. An error says what of the configuration cannot be done, or which file could not be read.
base::Result<XdsChannel> open_channel(const envoy::config::core::v3::GrpcService& service, const Model& model);

}  // namespace millrace::control
