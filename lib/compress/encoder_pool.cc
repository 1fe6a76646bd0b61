#include "lib/compress/encoder_pool.h"

#include "lib/base/assert.h"

namespace millrace::compress {
namespace {

size_t spans(size_t bytes) { return (bytes + base::kArenaSpanBytes - 1) / base::kArenaSpanBytes * base::kArenaSpanBytes; }

// The first whole span of a mapping that is at least a span larger than asked for.
void* aligned(void* p) {
  const auto at = reinterpret_cast<uintptr_t>(p);
  return reinterpret_cast<void*>((at + base::kArenaSpanBytes - 1) / base::kArenaSpanBytes * base::kArenaSpanBytes);
}

// Blocks of less than a span come in sizes of the arena, which aligns them to 16 only.
constexpr size_t kAlign = 64;

}  // namespace

EncoderPool::EncoderPool(size_t bytes)
    : memory_(spans(bytes) + base::kArenaSpanBytes),
      arena_(base::Arena::create_over(aligned(memory_.as<uint8_t>()), spans(bytes))) {
  MILLRACE_ASSERT(arena_ != nullptr, "an arena for encoders");
}

EncoderPool::~EncoderPool() {
  MILLRACE_ASSERT(in_use_ == 0, "every encoder was closed before its pool goes");
  base::Arena::destroy(arena_);
}

Encoder* EncoderPool::open(const Settings& s, uint64_t length) {
  const size_t bytes = Encoder::block_bytes(s, length);
  // Of a whole number of spans, which lies on a boundary of one: encoders are larger than half a span all of them.
  auto* block = static_cast<uint8_t*>(arena_->allocate(spans(bytes)));
  if (block == nullptr) {
    ++refused_;
    return nullptr;
  }
  MILLRACE_ASSERT(reinterpret_cast<uintptr_t>(block) % kAlign == 0, "spans are aligned");
  Encoder* e = Encoder::create(s, length, {block, spans(bytes)});
  if (e == nullptr) {
    arena_->free_local(block);
    ++refused_;
    return nullptr;
  }
  ++in_use_;
  return e;
}

void EncoderPool::close(Encoder* e) {
  if (e == nullptr) return;
  --in_use_;
  arena_->free_local(e);
}

}  // namespace millrace::compress
