// The words of RetryPolicy.retry_on, x-envoy-retry-on and x-envoy-retry-grpc-on, as bits. Control reads the configuration with
// it, the data plane the request's fields.
#pragma once

#include <cstdint>
#include <string_view>

namespace millrace::table {

enum RetryOn : uint32_t {
  kRetryOn5xx = 1u << 0,
  kRetryOnGatewayError = 1u << 1,
  kRetryOnReset = 1u << 2,
  kRetryOnResetBeforeRequest = 1u << 3,
  kRetryOnConnectFailure = 1u << 4,
  kRetryOnRefusedStream = 1u << 5,
  kRetryOnRateLimited = 1u << 6,
  kRetryOnRetriable4xx = 1u << 7,
  kRetryOnStatusCodes = 1u << 8,
  kRetryOnHeaders = 1u << 9,
  kRetryOnGrpcCancelled = 1u << 10,
  kRetryOnGrpcDeadlineExceeded = 1u << 11,
  kRetryOnGrpcInternal = 1u << 12,
  kRetryOnGrpcResourceExhausted = 1u << 13,
  kRetryOnGrpcUnavailable = 1u << 14,
};
inline constexpr uint32_t kRetryOnGrpc = kRetryOnGrpcCancelled | kRetryOnGrpcDeadlineExceeded | kRetryOnGrpcInternal |
                                         kRetryOnGrpcResourceExhausted | kRetryOnGrpcUnavailable;
inline constexpr uint32_t kRetryOnAll = 2 * kRetryOnGrpcUnavailable - 1;

// Calls take(word) for each word of a list with commas, white space around it taken off, empty ones left out.
template <class Take>
constexpr void for_each_word(std::string_view list, Take&& take) {
  constexpr std::string_view kBlank = " \t\r\n\v\f";
  while (true) {
    const size_t comma = list.find(',');
    std::string_view word = list.substr(0, comma);
    const size_t first = word.find_first_not_of(kBlank);
    if (first != std::string_view::npos) take(word.substr(first, word.find_last_not_of(kBlank) + 1 - first));
    if (comma == std::string_view::npos) return;
    list.remove_prefix(comma + 1);
  }
}

// 0: no word of x-envoy-retry-on. Envoy passes over such words, wherever they stand; "http3-post-connect-failure" is one that
// never happens here.
constexpr uint32_t retry_on_bit(std::string_view word) {
  constexpr struct {
    std::string_view word;
    uint32_t bit;
  } kWords[] = {{"5xx", kRetryOn5xx},
                {"gateway-error", kRetryOnGatewayError},
                {"reset", kRetryOnReset},
                {"reset-before-request", kRetryOnResetBeforeRequest},
                {"connect-failure", kRetryOnConnectFailure},
                {"refused-stream", kRetryOnRefusedStream},
                {"envoy-ratelimited", kRetryOnRateLimited},
                {"retriable-4xx", kRetryOnRetriable4xx},
                {"retriable-status-codes", kRetryOnStatusCodes},
                {"retriable-headers", kRetryOnHeaders}};
  for (const auto& w : kWords)
    if (w.word == word) return w.bit;
  return 0;
}
constexpr uint32_t retry_grpc_on_bit(std::string_view word) {
  constexpr struct {
    std::string_view word;
    uint32_t bit;
  } kWords[] = {{"cancelled", kRetryOnGrpcCancelled},
                {"deadline-exceeded", kRetryOnGrpcDeadlineExceeded},
                {"internal", kRetryOnGrpcInternal},
                {"resource-exhausted", kRetryOnGrpcResourceExhausted},
                {"unavailable", kRetryOnGrpcUnavailable}};
  for (const auto& w : kWords)
    if (w.word == word) return w.bit;
  return 0;
}
// Of x-envoy-retry-on.
constexpr uint32_t parse_retry_on(std::string_view list) {
  uint32_t bits = 0;
  for_each_word(list, [&](std::string_view word) { bits |= retry_on_bit(word); });
  return bits;
}
// Of x-envoy-retry-grpc-on. RetryPolicy.retry_on takes the words of both.
constexpr uint32_t parse_retry_grpc_on(std::string_view list) {
  uint32_t bits = 0;
  for_each_word(list, [&](std::string_view word) { bits |= retry_grpc_on_bit(word); });
  return bits;
}

}  // namespace millrace::table
