// Bytes on their way into a file: appended piece by piece, written from the front. A string would do, but for the price of its
// append() where a line is made of thirty pieces.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>
#include <utility>

namespace millrace::control {

class LineBuffer {
 public:
  LineBuffer() = default;
  ~LineBuffer() { std::free(data_); }
  LineBuffer(LineBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  LineBuffer& operator=(LineBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::string_view view() const { return {data_, size_}; }

  // Room for `n` more bytes at the returned place, of which commit() says how many were used.
  char* reserve(size_t n) {
    if (capacity_ - size_ < n) [[unlikely]]
      grow(n);
    return data_ + size_;
  }
  void commit(size_t n) { size_ += n; }
  void put(std::string_view s) {
    char* to = reserve(s.size());
    if (!s.empty()) std::memcpy(to, s.data(), s.size());
    size_ += s.size();
  }
  void put(char c) {
    *reserve(1) = c;
    ++size_;
  }
  // Back to an earlier size().
  void truncate(size_t n) { size_ = n; }
  // The first `n` bytes have been written.
  void consume(size_t n) {
    size_ -= n;
    std::memmove(data_, data_ + n, size_);
  }
  void clear() { size_ = 0; }

 private:
  void grow(size_t n) {
    size_t capacity = capacity_ == 0 ? 4096 : capacity_;
    while (capacity - size_ < n) capacity *= 2;
    char* data = static_cast<char*>(std::realloc(data_, capacity));
    if (data == nullptr) throw std::bad_alloc();
    data_ = data;
    capacity_ = capacity;
  }

  char* data_ = nullptr;
  size_t size_ = 0, capacity_ = 0;
};

}  // namespace millrace::control
