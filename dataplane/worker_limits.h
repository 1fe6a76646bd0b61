// Every limit of a worker, decided at start (STYLE rule 7). What happens at each limit is said beside it and tested.
//
// Memory of one worker at the defaults, all of it reserved as address space and touched only when used:
//   32,768 connections  x 494 bytes (README.md, "Memory of a connection")  16 MiB; 1,000,000 are 471 MiB
//    8,192 repairs      x 252 bytes (tcp/repair.h; connections / 4)         2 MiB
//    4,096 policies     x ~0.7 KiB                                          3 MiB
//   16,384 exchanges    x ~1.2 KiB                                         20 MiB
//   32,768 small heads  x 12.5 KiB (8 KiB bytes + 112 header slots)       400 MiB of address space; 12.5 KiB per head in use
//              encoders: 64 KiB (gzip) to 3.4 MiB each              256 MiB of address space
//       64 large heads  x 171 KiB                                          11 MiB
#pragma once

#include <cstddef>
#include <cstdint>

namespace millrace::dataplane {

struct WorkerLimits {
  uint32_t connections = 32'768;         // full: new SYNs are ignored (kTcpTableFull), upstream connects fail with UF
  uint32_t exchanges = 16'384;           // full: 503 with flag OM, connection closed
  uint32_t small_heads = 32'768;         // two an exchange; full: as exchanges
  uint32_t large_heads = 64;             // heads above 8 KiB at one time; full: 431 (request) or 503 (response), flag OM
  uint32_t upstream_endpoints = 16'384;  // endpoints a worker has connections or waiting requests for; full: 503 with flag UO
  uint32_t clusters = 16'384;            // clusters a worker has state for; full: 503 with flag UO
  uint32_t policies = 4'096;             // different policies of filter chains that connections hold; full: policy_cache.h
  uint32_t http2_connections = 8'192;    // of HTTP/2, to clients and to endpoints, each; full: the connection is closed, flag OM
  size_t compression_bytes = size_t{256} << 20;  // of all encoders (lib/compress); full: responses go as they are, counted
  uint32_t health_checks = 65'536;  // endpoints that a worker checks; full: the endpoint stays unhealthy, health_check.unchecked
  uint32_t tcp_proxies = 16'384;    // raw TCP sessions; full: the connection is reset
};

// Plaintext that one connection may hold between its two sides before reading stops (bytes). Far below Envoy's 1 MiB default
// limit, because poll cores drain a buffer in microseconds; `per_connection_buffer_limit_bytes` lowers it further, never raises
// it.
inline constexpr uint32_t kRelayBufferBytes = 256 * 1024;

// While packet memory is short (MemoryPressure), a connection of HTTP/2 whose streams hold more unread body bytes than this is
// not read: its peer's TCP window closes. Others go on, or the windows that would let these bytes go would never be heard of.
inline constexpr uint64_t kHeldUnderPressureBytes = 64 * 1024;

// Work of one loop iteration beyond the received burst.
inline constexpr uint32_t kMaxTimersPerLoop = 64;
inline constexpr uint32_t kMaxHandshakesPerLoop = 2;
inline constexpr uint32_t kRxBurst = 32;

}  // namespace millrace::dataplane
