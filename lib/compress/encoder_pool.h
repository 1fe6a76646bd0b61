// The encoders of one worker: a fixed amount of memory, reserved at start as address space and touched when it is first used. An
// encoder takes one block of it at the start of a body and gives it back at the end, so that an encoder that was opened never
// runs out of memory in the middle. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/base/arena.h"
#include "lib/base/reserved_memory.h"
#include "lib/compress/encoder.h"

namespace millrace::compress {

class EncoderPool {
 public:
  // `bytes`: of all encoders together; rounded up to spans of base::Arena. Made at start, not on a poll core.
  explicit EncoderPool(size_t bytes);
  ~EncoderPool();  // every encoder was closed
  EncoderPool(const EncoderPool&) = delete;
  EncoderPool& operator=(const EncoderPool&) = delete;

  // For a body of `length` bytes, or kUnknownLength. Null: no memory is left, a limit with a designed answer: the body goes as it
  // is.
  Encoder* open(const Settings& s, uint64_t length);
  void close(Encoder* e);  // at any point of the stream; null: nothing

  uint32_t in_use() const { return in_use_; }
  uint64_t refused() const { return refused_; }

 private:
  base::ReservedMemory memory_;
  base::Arena* arena_;
  uint32_t in_use_ = 0;
  uint64_t refused_ = 0;
};

}  // namespace millrace::compress
