// HTTP/2 under active health checks: a connection with one stream at a time, and what a gRPC health check answers
// (grpc.health.v1). Knows streams and messages; when to ask and what the answer means for the endpoint is health_checker.h's.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "dataplane/head_buffer.h"
#include "lib/http/h2_connection.h"

namespace millrace::dataplane {

struct CheckHttp2 final : http::H2Owner {
  HeadBufferPool* heads = nullptr;
  http::H2Connection connection;
  http::H2Stream stream;
  bool open = false;                                                                         // `stream` is one
  HeadBuffer *request = nullptr, *response = nullptr, *trailers = nullptr, *body = nullptr;  // lent while it is

  http::H2Stream* open_stream() override { return nullptr; }  // an endpoint opens none
  bool lend(http::H2Stream& s, bool trailers, http::H2HeadStorage* storage) override;
  bool grow(http::H2Stream& s, http::H2HeadStorage* storage) override;

  // Opens the stream for the request, whose head is written as HTTP/1.1 has it, what is sent behind it. False: no memory.
  bool ask(std::span<const std::string_view> text, bool tls, io::PacketPool& pool);
  // Is done with the stream.
  void end_stream();
};

// What a stream's answer says as one of grpc.health.v1.Health/Check.
struct GrpcHealth {
  static constexpr uint32_t kNoStatus = UINT16_MAX;
  uint32_t status = kNoStatus;  // grpc-status; kNoStatus: there was none
  bool serving = false;         // one message, which says SERVING
};
// `message`: the bytes of the body.
GrpcHealth grpc_health(const http::H2Stream& s, std::span<const char> message);

}  // namespace millrace::dataplane
