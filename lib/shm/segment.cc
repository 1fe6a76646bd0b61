#include "lib/shm/segment.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <utility>

namespace millrace::shm {

namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW;
constexpr unsigned kHuge2M = 21u << 26;  // MFD_HUGE_2MB: log2 of the page size above MFD_HUGE_SHIFT

uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }
std::string reason(const char* what) { return std::string(what) + ": " + std::strerror(errno); }

#ifdef MADV_COLLAPSE
constexpr int kCollapse = MADV_COLLAPSE;
#else
constexpr int kCollapse = 25;  // Linux 6.1, include/uapi/asm-generic/mman-common.h; older C libraries do not name it
#endif

// Tables of 100,000 routes span tens of megabytes, which ordinary pages turn into a TLB miss a lookup. So whatever is large
// enough begins at a multiple of the huge page's size in every process, without which no huge page of it could be mapped as one;
// and where the administrator lets shared memory have transparent huge pages on request
// (/sys/kernel/mm/transparent_hugepage/shmem_enabled: advise) they come by themselves. make_huge() needs no such setting.
void* map_shared(int fd, uint64_t size, int protection) {
  if (size < kHugePageSize) return ::mmap(nullptr, size, protection, MAP_SHARED, fd, 0);
  const uint64_t room = round_up(size, static_cast<uint64_t>(::sysconf(_SC_PAGESIZE))) + kHugePageSize;
  void* reserved = ::mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return MAP_FAILED;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(reserved), at = round_up(begin, kHugePageSize);
  void* mapped = ::mmap(reinterpret_cast<void*>(at), size, protection, MAP_SHARED | MAP_FIXED, fd, 0);
  if (mapped == MAP_FAILED) {
    const int error = errno;
    ::munmap(reserved, room);
    errno = error;
    return MAP_FAILED;
  }
  const uintptr_t end = at + (room - kHugePageSize);
  if (at > begin) ::munmap(reserved, at - begin);
  if (begin + room > end) ::munmap(reinterpret_cast<void*>(end), begin + room - end);
  (void)::madvise(mapped, size, MADV_HUGEPAGE);
  return mapped;
}

}  // namespace

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Segment::Segment(Segment&& other) noexcept
    : fd_(std::move(other.fd_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      huge_(std::exchange(other.huge_, false)) {}

Segment& Segment::operator=(Segment&& other) noexcept {
  if (this != &other) {
    if (data_ != nullptr) ::munmap(data_, size_);
    fd_ = std::move(other.fd_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    huge_ = std::exchange(other.huge_, false);
  }
  return *this;
}

Segment::~Segment() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

base::Result<Segment> Segment::create(const std::string& name, uint64_t size, Pages pages) {
  if (size == 0) return base::Error{"shared memory '" + name + "': size 0"};
  const bool huge = pages != Pages::kNormal;
  const uint64_t page = huge ? kHugePageSize : static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const auto failed = [&](const char* call) -> base::Result<Segment> {
    base::Error error{"shared memory '" + name + "' of " + std::to_string(size) + " bytes: " + reason(call)};
    if (pages == Pages::kHugeIfPossible) return create(name, size, Pages::kNormal);
    return error;
  };
  Segment s;
  s.fd_.reset(::memfd_create(name.substr(0, 200).c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge ? MFD_HUGETLB | kHuge2M : 0u)));
  if (!s.fd_.valid()) return failed("memfd_create");
  s.size_ = round_up(size, page);
  if (::ftruncate(s.fd_.get(), static_cast<off_t>(s.size_)) != 0) return failed("ftruncate");
  if (::fcntl(s.fd_.get(), F_ADD_SEALS, kSeals | F_SEAL_SEAL) != 0) return failed("sealing");
  constexpr int kBoth = PROT_READ | PROT_WRITE;
  void* at = huge ? ::mmap(nullptr, s.size_, kBoth, MAP_SHARED, s.fd_.get(), 0) : map_shared(s.fd_.get(), s.size_, kBoth);
  if (at == MAP_FAILED) return failed(huge ? "mmap (are there enough free hugepages?)" : "mmap");
  s.data_ = static_cast<uint8_t*>(at);
  s.huge_ = huge;
  return s;
}

base::Result<Segment> Segment::map(UniqueFd fd, Access access, uint64_t min_size, uint64_t max_size) {
  if (!fd.valid()) return base::Error{"shared memory: no descriptor"};
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0) return base::Error{"shared memory: the descriptor is not a sealed memory file"};
  if ((seals & kSeals) != kSeals) return base::Error{"shared memory: the segment is not sealed against shrinking and growing"};
  struct stat st;
  if (::fstat(fd.get(), &st) != 0) return base::Error{"shared memory: " + reason("fstat")};
  const uint64_t size = static_cast<uint64_t>(st.st_size);
  if (size == 0 || size < min_size || size > max_size)
    return base::Error{"shared memory: segment of " + std::to_string(size) + " bytes where " + std::to_string(min_size) + " to " +
                       std::to_string(max_size) + " are expected"};
  const int protection = access == Access::kReadOnly ? PROT_READ : PROT_READ | PROT_WRITE;
  // hugetlbfs tells its page size here, and so does tmpfs where it has huge pages: only the former is no ordinary memory.
  struct statfs filesystem;
  const bool huge = ::fstatfs(fd.get(), &filesystem) == 0 && filesystem.f_type == HUGETLBFS_MAGIC;
  void* at = huge ? ::mmap(nullptr, size, protection, MAP_SHARED, fd.get(), 0) : map_shared(fd.get(), size, protection);
  if (at == MAP_FAILED) return base::Error{"shared memory: " + reason("mmap")};
  Segment s;
  s.fd_ = std::move(fd);
  s.data_ = static_cast<uint8_t*>(at);
  s.size_ = size;
  s.huge_ = huge;
  return s;
}

base::Result<UniqueFd> Segment::read_only_fd() const {
  const std::string path = "/proc/self/fd/" + std::to_string(fd_.get());
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return base::Error{"shared memory: " + reason(("reopening " + path).c_str())};
  return fd;
}

void Segment::discard(uint64_t offset, uint64_t size) {
  if (data_ == nullptr || huge_ || offset >= size_) return;
  const uint64_t page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t begin = round_up(offset, page);
  const uint64_t end = (offset + std::min(size, size_ - offset)) / page * page;
  if (begin >= end) return;
  // Best effort: memory that stays is only memory.
  (void)::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin),
                    static_cast<off_t>(end - begin));
}

Segment::Huge Segment::make_huge(uint64_t offset) {
  if (data_ == nullptr || offset % kHugePageSize != 0 || offset >= size_ || size_ - offset < kHugePageSize) return Huge::kNotNow;
  if (huge_) return Huge::kDone;
  uint8_t* at = data_ + offset;
  // Where nothing is there is nothing to put together: one page must exist.
  *static_cast<volatile uint8_t*>(at) = *at;
  if (::madvise(at, kHugePageSize, kCollapse) == 0) return Huge::kDone;
  return errno == EINVAL ? Huge::kNever : Huge::kNotNow;
}

}  // namespace millrace::shm
