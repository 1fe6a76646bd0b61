#include "dataplane/check_http2.h"

#include <charconv>
#include <cstring>
#include <memory>

#include "lib/http/h1_parser.h"

namespace millrace::dataplane {

bool CheckHttp2::lend(http::H2Stream&, bool of_trailers, http::H2HeadStorage* storage) {
  HeadBuffer*& buffer = of_trailers ? trailers : response;
  if (buffer == nullptr) buffer = heads->acquire();
  if (buffer == nullptr) return false;
  *storage = {{buffer->data, buffer->capacity}, buffer->headers, buffer->header_capacity};
  return true;
}

bool CheckHttp2::grow(http::H2Stream&, http::H2HeadStorage* storage) {
  HeadBuffer* large = heads->grow(response);  // the small one's memory stays as it is until it is lent again
  if (large == nullptr) return false;
  response = large;
  *storage = {{large->data, large->capacity}, large->headers, large->header_capacity};
  return true;
}

bool CheckHttp2::ask(std::span<const std::string_view> text, bool tls, io::PacketPool& pool) {
  if (request == nullptr) request = heads->acquire();
  if (request == nullptr) return false;
  size_t size = 0;
  for (const std::string_view t : text) size += t.size();
  if (size > request->capacity) {
    HeadBuffer* large = heads->grow(request);
    if (large == nullptr || size > large->capacity) return false;
    request = large;
  }
  request->used = 0;
  for (const std::string_view t : text) {
    std::memcpy(request->data + request->used, t.data(), t.size());
    request->used += static_cast<uint32_t>(t.size());
  }
  http::H1Limits limits;
  limits.max_head_bytes = request->capacity;
  limits.max_header_count = request->header_capacity;
  http::RequestHead head;
  head.headers = http::HeaderTable(request->headers, request->header_capacity);
  const http::HeadResult r = http::parse_request_head(request->bytes(), 0, limits, &head);
  if (r.status != http::ParseStatus::kDone) return false;
  head.scheme = tls ? "https" : "http";
  const std::span<char> rest = request->bytes().subspan(r.consumed);
  std::destroy_at(&stream);
  std::construct_at(&stream);
  if (!connection.submit_request(stream, head, rest.empty())) return false;
  open = true;
  if (rest.empty()) return true;
  if (stream.tx.append_copy(std::string_view(rest.data(), rest.size()), pool) != rest.size()) return false;
  stream.tx_end = true;
  connection.resume(stream);
  return true;
}

void CheckHttp2::end_stream() {
  if (std::exchange(open, false)) connection.release(stream);
  stream.rx.clear();
  stream.tx.clear();
  for (HeadBuffer** b : {&request, &response, &trailers, &body}) heads->release(std::exchange(*b, nullptr));
}

// ---- gRPC
// ----------------------------------------------------------------------------------------------------------------------

namespace {

// A varint of the wire format; false: there is none.
bool varint(std::span<const char>& in, uint64_t* value) {
  *value = 0;
  for (uint32_t shift = 0; shift < 64 && !in.empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(in[0]);
    in = in.subspan(1);
    *value |= uint64_t{byte & 0x7fu} << shift;
    if ((byte & 0x80) == 0) return true;
  }
  return false;
}

// HealthCheckResponse.status; false: it is no such message.
bool response_status(std::span<const char> in, uint64_t* status) {
  constexpr uint64_t kStatusField = 1;
  *status = 0;
  for (uint64_t tag = 0; !in.empty();) {
    uint64_t value = 0;
    size_t skip = 0;
    if (!varint(in, &tag)) return false;
    switch (tag & 7) {
      case 0:
        if (!varint(in, &value)) return false;
        if (tag >> 3 == kStatusField) *status = value;
        break;
      case 1:
        skip = 8;
        break;
      case 2:
        if (!varint(in, &value) || value > in.size()) return false;
        skip = static_cast<size_t>(value);
        break;
      case 5:
        skip = 4;
        break;
      default:
        return false;
    }
    if (skip > in.size()) return false;
    in = in.subspan(skip);
  }
  return true;
}

}  // namespace

GrpcHealth grpc_health(const http::H2Stream& s, std::span<const char> message) {
  constexpr size_t kFrameHead = 5;
  constexpr uint64_t kServing = 1;
  GrpcHealth out;
  const http::Header* field = s.trailers_complete ? s.trailers.find("grpc-status") : s.response.headers.find("grpc-status");
  if (field != nullptr) {
    uint32_t code = 0;
    const char* end = field->value.data() + field->value.size();
    const auto [at, error] = std::from_chars(field->value.data(), end, code);
    if (error == std::errc() && at == end && code < GrpcHealth::kNoStatus) out.status = code;
  }
  if (message.size() < kFrameHead || message[0] != 0) return out;
  const uint32_t size = base::load_be32(reinterpret_cast<const uint8_t*>(message.data()) + 1);
  uint64_t status = 0;
  out.serving =
      size == message.size() - kFrameHead && response_status(message.subspan(kFrameHead), &status) && status == kServing;
  return out;
}

}  // namespace millrace::dataplane
