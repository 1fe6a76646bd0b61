#include "lib/table/object_writer.h"

#include <algorithm>

#include "lib/base/assert.h"
#include "lib/base/hash.h"
#include "lib/table/validate.h"

namespace millrace::table {

namespace {
constexpr size_t kSharedStringMax = 256;  // longer strings are rarely equal: not worth a copy in the map
}

ObjectWriter::ObjectWriter(Kind kind, std::string_view name) : kind_(kind), name_(name), size_of_front_(root_struct_size(kind)) {
  MILLRACE_ASSERT(size_of_front_ != 0, "an object has one of the known kinds");
}

uint32_t ObjectWriter::append(const void* bytes, uint64_t element, uint64_t count, uint32_t alignment) {
  const uint64_t size = element * count;
  const uint64_t at = (size_of_front_ + tail_.size() + alignment - 1) & ~uint64_t{alignment - 1};
  // `count` and `element` are sizes of real memory, so their product fits 64 bits.
  if (too_large_ || at + size > kMaxObjectSize || count > UINT32_MAX) {
    too_large_ = true;
    return 0;
  }
  tail_.resize(at - size_of_front_);
  const uint8_t* p = static_cast<const uint8_t*>(bytes);
  tail_.insert(tail_.end(), p, p + size);
  return static_cast<uint32_t>(at);
}

Str ObjectWriter::string(std::string_view text) {
  Str s;
  if (text.empty()) return s;
  const bool share = text.size() <= kSharedStringMax;
  if (share) {
    if (const auto it = strings_.find(std::string(text)); it != strings_.end()) return it->second;
  }
  s.offset = append(text.data(), 1, text.size(), 1);
  s.count = s.offset == 0 ? 0 : static_cast<uint32_t>(text.size());
  if (share && s.offset != 0) strings_.emplace(text, s);
  return s;
}

Blob ObjectWriter::blob(std::span<const uint8_t> bytes, uint32_t alignment) {
  MILLRACE_ASSERT(alignment != 0 && alignment <= 64 && (alignment & (alignment - 1)) == 0,
                  "alignment is a power of two up to 64");
  Blob b;
  if (bytes.empty()) return b;
  b.offset = append(bytes.data(), 1, bytes.size(), alignment);
  b.count = b.offset == 0 ? 0 : static_cast<uint32_t>(bytes.size());
  return b;
}

base::Result<std::vector<uint8_t>> ObjectWriter::seal(const void* root, size_t root_size) {
  const std::string what = std::string(to_string(kind_)) + " '" + name_ + "'";
  std::vector<uint8_t> tail = std::move(tail_);
  tail_.clear();
  strings_.clear();
  const bool too_large = std::exchange(too_large_, false);
  MILLRACE_ASSERT(root_size == root_struct_size(kind_), "finish() gets the root struct of the writer's kind");
  if (name_.empty()) return base::Error{"a " + std::string(to_string(kind_)) + " without a name cannot be published"};
  if (name_.size() > kMaxObjectName) return base::Error{what + ": name longer than " + std::to_string(kMaxObjectName) + " bytes"};
  uint64_t size = size_of_front_ + tail.size();
  size = (size + kObjectAlignment - 1) & ~uint64_t{kObjectAlignment - 1};
  if (too_large || size > kMaxObjectSize) return base::Error{what + ": larger than 4 GiB"};

  std::vector<uint8_t> blob(size);
  std::memcpy(blob.data(), root, root_size);
  if (!tail.empty()) std::memcpy(blob.data() + size_of_front_, tail.data(), tail.size());
  ObjectHeader header{};
  header.magic = kObjectMagic;
  header.layout_version = kLayoutVersion;
  header.kind = kind_;
  header.size = static_cast<uint32_t>(size);
  header.id = object_id(kind_, name_);
  header.version = 0;
  header.checksum = base::crc32c({blob.data() + sizeof header, blob.size() - sizeof header});
  std::memcpy(blob.data(), &header, sizeof header);
  return blob;
}

std::vector<uint8_t> write_snapshot(uint64_t epoch, uint64_t incarnation, std::vector<ObjectRef> refs) {
  const auto by_key = [](const ObjectRef& a, const ObjectRef& b) { return a.kind != b.kind ? a.kind < b.kind : a.id < b.id; };
  if (!std::is_sorted(refs.begin(), refs.end(), by_key)) std::sort(refs.begin(), refs.end(), by_key);
  SnapshotHeader header{};
  header.magic = kSnapshotMagic;
  header.layout_version = kLayoutVersion;
  header.count = static_cast<uint32_t>(refs.size());
  header.epoch = epoch;
  header.incarnation = incarnation;
  const size_t refs_bytes = refs.size() * sizeof(ObjectRef);
  header.checksum = base::crc32c({reinterpret_cast<const uint8_t*>(refs.data()), refs_bytes});
  std::vector<uint8_t> out(sizeof header + refs_bytes);
  std::memcpy(out.data(), &header, sizeof header);
  if (refs_bytes != 0) std::memcpy(out.data() + sizeof header, refs.data(), refs_bytes);
  return out;
}

}  // namespace millrace::table
