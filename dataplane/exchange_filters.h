// What an exchange remembers of the HTTP filters of its connection manager, in the request's head buffer, and only where one of
// them has something to do: the one pointer that ordinary exchanges test.
#pragma once

#include <cstdint>
#include <span>

#include "dataplane/exchange.h"
#include "dataplane/head_buffer.h"
#include "lib/http/grpc_web.h"
#include "lib/http/h1_body.h"

namespace millrace::dataplane {

struct ResponseCompression;

// A request of gRPC-Web (envoy.filters.http.grpc_web), as Envoy's GrpcWebFilter has it. grpc_web_out.h translates bodies.
//
//   request head ─ begin_filters(): is it one? ─ route ─ translate_grpc_web_request() ─▶ endpoint
//   response head ─ begin_grpc_web_response() ─┬ gRPC: body as it is, or base64 ─ trailers as a frame ─▶ client
//                                              └ anything else: body gathered ─ finish_gathered(): grpc-message ─▶ client
struct GrpcWeb {
  bool text_request = false, text_response = false;  // base64 comes; is wanted
  bool translated = false;                           // the request's head is gRPC's
  bool bad_base64 = false, bad_size = false;         // why the request cannot be read; bad_size: it ended inside a group
  bool gathering = false;                            // the response's head waits for its body, which becomes grpc-message
  http::Base64Decoder decoder;
  http::GrpcWebTextEncoder encoder;
  http::Scratch response_scratch;  // while gathering: of the response's head
  HeadBuffer* message = nullptr;   // ... the body, its first bytes

  // Bytes of a body that become grpc-message, as Envoy has it.
  static constexpr uint32_t kMostMessage = 16 * 1024;
};

// A request that the CORS filter has found an allowed origin in, or answers: what its response's head is told. Views into the
// request's head buffer.
struct Cors {
  std::string_view origin;  // empty: it is not allowed
  std::string_view expose_headers;
  bool allow_credentials = false;
  // A preflight is answered by the filter, with these.
  bool preflight = false, allow_private_network = false, says_methods = false, says_headers = false;
  std::string_view methods, headers, max_age;
};

struct ExchangeFilters {
  ResponseCompression* compression = nullptr;  // where there are compressor filters
  GrpcWeb* grpc_web = nullptr;
  Cors* cors = nullptr;
};

inline bool is_grpc_web(const Exchange& ex) { return ex.filters != nullptr && ex.filters->grpc_web != nullptr; }

}  // namespace millrace::dataplane
