// What `socket_options` and the fields with names of their own (tcp_keepalive, tcp_fast_open_queue_length) ask of TCP. Envoy
// hands these numbers to the kernel; here there is no socket, so what an option means on Linux is done by the data plane's own
// TCP, and an option that means nothing to it is refused by its full path.
//
//   level           name                     value
//   1 SOL_SOCKET    9 SO_KEEPALIVE           0, 1
//   6 IPPROTO_TCP   1 TCP_NODELAY            1: so it is, always, as in Envoy
//                   2 TCP_MAXSEG             0, 88 to 32767 bytes
//                   4 TCP_KEEPIDLE           1 to 32767 s
//                   5 TCP_KEEPINTVL          1 to 32767 s
//                   6 TCP_KEEPCNT            1 to 127
//                   13 TCP_CONGESTION        "cubic", "reno", "bbr", in buf_value
//                   18 TCP_USER_TIMEOUT      0 to 2^31 - 1 ms
//                   23 TCP_FASTOPEN          0 to 2^31 - 1 (listeners)
//
// int_value, or a buf_value of four bytes, which is what setsockopt() would get. In a list the last one counts; `state` says when
// Envoy would set it, which makes no difference here. Where a keepalive field is not set it is the gateway's own.
#pragma once

#include "control/model.h"
#include "control/source_map.h"
#include "lib/table/objects.h"

namespace millrace::control {

// Each fills `out`, complains to `errors` (may be null: the object has been validated) and returns whether all was well. `at`:
// the object itself.
bool listener_tcp_options(const api::Listener& listener, const Path& at, table::TcpOptions& out, ErrorSink* errors);
bool cluster_tcp_options(const api::Cluster& cluster, const Path& at, table::TcpOptions& out, ErrorSink* errors);

}  // namespace millrace::control
