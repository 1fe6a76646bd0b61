// Memory for OpenSSL on poll cores: no heap. On a thread that has registered an Arena (lib/base/arena.h) every OpenSSL allocation
// comes from it; threads without one use malloc as ever, and any thread may free any block.
//
// install_memory_hooks() is the first thing a program does with OpenSSL, which refuses it after its first allocation. Sessions do
// not start a handshake, and do not go on with one, while less than kHandshakeHeadroomBytes is free (session.h), so OpenSSL meets
// null only when that is misjudged.
#pragma once

#include "lib/base/arena.h"
#include "lib/base/status.h"

namespace millrace::tls {

using base::Arena;
using base::ArenaCounters;
using base::kArenaMinBytes;
using base::kArenaSpanBytes;
using base::kMaxArenas;

// Must precede every other use of OpenSSL in the process. Idempotent. Error when OpenSSL has allocated already.
base::Status install_memory_hooks();
bool memory_hooks_installed();

}  // namespace millrace::tls
