// A piece of shared memory: a memfd, its mapping and its size, in one owner. The maker seals it against shrinking and growing, so
// that nobody who maps it can be killed by a truncation behind his back (SIGBUS); whoever receives a descriptor checks that seal.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "lib/base/status.h"

namespace millrace::shm {

// A file descriptor with one owner.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  explicit operator bool() const { return valid(); }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

enum class Access : uint8_t { kReadOnly, kReadWrite };
// kHuge2M: 2 MiB hugepages, reserved at mapping time; create() fails when there are not enough free ones.
// kHugeIfPossible: hugepages, or ordinary pages where there are not enough.
enum class Pages : uint8_t { kNormal, kHuge2M, kHugeIfPossible };

inline constexpr uint64_t kHugePageSize = 2ull << 20;

class Segment {
 public:
  Segment() = default;
  Segment(Segment&& other) noexcept;
  Segment& operator=(Segment&& other) noexcept;
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;
  ~Segment();

  // A new zeroed segment, mapped read-write. `name` shows in /proc/<pid>/maps (at most 200 characters are used). `size` > 0 is
  // rounded up to whole pages. Ordinary pages are sparse: a page costs memory when it is first written.
  static base::Result<Segment> create(const std::string& name, uint64_t size, Pages pages = Pages::kNormal);
  // A segment that somebody else made. Refused: no memfd with the seals above, smaller than `min_size` or larger than `max_size`
  // bytes.
  static base::Result<Segment> map(UniqueFd fd, Access access, uint64_t min_size, uint64_t max_size);

  uint8_t* data() const { return data_; }  // page-aligned; null when empty
  uint64_t size() const { return size_; }  // bytes
  std::span<uint8_t> bytes() const { return {data_, size_}; }
  bool empty() const { return data_ == nullptr; }
  int fd() const { return fd_.get(); }
  bool huge() const { return huge_; }
  // A new descriptor of the same memory through which nobody can map it writable (unless he reopens it by /proc with our own
  // rights).
  base::Result<UniqueFd> read_only_fd() const;
  // Gives the whole pages inside [offset, offset + size) back to the system; they read as zero afterwards. Ordinary pages only; a
  // no-op else. Of a piece that make_huge() has put on a huge page, discard all or nothing.
  void discard(uint64_t offset, uint64_t size);
  // Puts the kHugePageSize bytes at `offset` (a multiple of it) on one transparent huge page, whatever the administrator's
  // setting for shared memory is (madvise(2), MADV_COLLAPSE, Linux 6.1): then every process that maps the segment reads them
  // through one TLB entry. What is there stays; a reader that touches them meanwhile waits some 100 µs, so ask before anybody
  // reads them. kNotNow: no free huge page to be had, they stay on ordinary pages; kNever: this kernel cannot do it.
  enum class Huge : uint8_t { kDone, kNotNow, kNever };
  Huge make_huge(uint64_t offset);

 private:
  UniqueFd fd_;
  uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
  bool huge_ = false;
};

}  // namespace millrace::shm
