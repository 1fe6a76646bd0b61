#include "lib/tls/memory.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <malloc.h>

#include <openssl/crypto.h>

namespace millrace::tls {
namespace {

std::atomic<bool> g_installed{false};

// What OpenSSL calls.
struct MemoryHooks {
  static Arena* arena() { return Arena::of_this_thread(); }
  static void* allocate(size_t bytes, const char*, int) {
    return arena() != nullptr ? arena()->allocate(bytes) : bytes == 0 ? nullptr : std::malloc(bytes);
  }
  static void free(void* block, const char*, int) {
    if (block == nullptr) return;
    Arena* owner = Arena::owner_of(block);
    if (owner == nullptr) {
      if (arena() != nullptr) arena()->count_foreign_free();
      std::free(block);
    } else if (owner == arena()) {
      owner->free_local(block);
    } else {
      owner->free_remote(block);
    }
  }
  static void* reallocate(void* block, size_t bytes, const char* file, int line) {
    if (block == nullptr) return allocate(bytes, file, line);
    if (bytes == 0) {
      free(block, file, line);
      return nullptr;
    }
    Arena* owner = Arena::owner_of(block);
    if (owner == arena()) return owner != nullptr ? owner->reallocate(block, bytes) : std::realloc(block, bytes);
    const size_t have = owner != nullptr ? owner->usable_bytes(block) : ::malloc_usable_size(block);
    void* fresh = allocate(bytes, file, line);
    if (fresh == nullptr) return nullptr;
    std::memcpy(fresh, block, std::min(have, bytes));
    free(block, file, line);
    return fresh;
  }
};

}  // namespace

base::Status install_memory_hooks() {
  if (g_installed.load(std::memory_order_acquire)) return {};
  if (CRYPTO_set_mem_functions(&MemoryHooks::allocate, &MemoryHooks::reallocate, &MemoryHooks::free) != 1) {
    return base::Error{"OpenSSL has allocated memory already: its memory hooks must be installed before any other use of it"};
  }
  g_installed.store(true, std::memory_order_release);
  return {};
}

bool memory_hooks_installed() { return g_installed.load(std::memory_order_acquire); }

}  // namespace millrace::tls
