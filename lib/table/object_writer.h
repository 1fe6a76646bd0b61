// Builds one object blob (layout.h) from C++ values. Control side only: allocates, and keeps what it is given until finish().
//
//   ObjectWriter w(Kind::kEndpointSet, "cluster_a");
//   std::vector<Endpoint> endpoints; ... endpoints[0].hostname = w.string("a.example");
//   EndpointSet root; root.name = w.string("cluster_a"); root.endpoints = w.array(std::span(endpoints));
//   base::Result<std::vector<uint8_t>> blob = w.finish(root);
//
// Children come before their parents: an element that holds references is written by array() after its own strings and arrays.
// Padding bytes inside structs are cleared by nobody but their own initialisers: value-initialise elements (T{}) so that equal
// content gives equal bytes; finish() relies on it for nothing but the publisher's "unchanged" test.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lib/base/status.h"
#include "lib/table/layout.h"

namespace millrace::table {

inline constexpr uint32_t kObjectAlignment = 8;  // of every object in the arena, and of its size
inline constexpr uint64_t kMaxObjectSize = UINT32_MAX & ~uint64_t{kObjectAlignment - 1};
inline constexpr uint32_t kMaxObjectName = 4096;  // bytes

class ObjectWriter {
 public:
  // Room for the kind's root struct is kept at the front; finish() must be given that struct.
  ObjectWriter(Kind kind, std::string_view name);

  // Copies the bytes behind what is there. Equal strings are stored once. An empty string has offset 0.
  Str string(std::string_view text);
  Blob blob(std::span<const uint8_t> bytes, uint32_t alignment = 8);
  template <class E>
  Array<std::remove_const_t<E>> array(std::span<E> elements) {
    using T = std::remove_const_t<E>;
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kObjectAlignment);
    Array<T> a;
    if (elements.empty()) return a;
    a.offset = append(elements.data(), sizeof(T), elements.size(), alignof(T));
    a.count = a.offset == 0 ? 0 : static_cast<uint32_t>(elements.size());
    return a;
  }
  template <class T>
  Array<T> array(const std::vector<T>& elements) {
    return array(std::span<const T>(elements));
  }

  // Bytes so far, root and header included.
  uint64_t size() const { return size_of_front_ + tail_.size(); }

  // The blob: header (id from kind and name, version 0: the publisher stamps it), root, everything referred to; size a multiple
  // of 8. Error when it would be larger than 4 GiB or the root is not of the writer's kind. The writer is empty afterwards.
  template <class Root>
  base::Result<std::vector<uint8_t>> finish(Root root) {
    static_assert(std::is_trivially_copyable_v<Root> && std::is_same_v<decltype(root.header), ObjectHeader>);
    static_assert(sizeof(Root) % kObjectAlignment == 0);
    return seal(&root, sizeof root);
  }

 private:
  uint32_t append(const void* bytes, uint64_t element, uint64_t count, uint32_t alignment);  // 0 when it would be too large
  base::Result<std::vector<uint8_t>> seal(const void* root, size_t root_size);

  Kind kind_;
  std::string name_;
  uint64_t size_of_front_;                        // bytes of the root struct: references are offsets from the object's first byte
  std::vector<uint8_t> tail_;                     // everything behind the root space
  std::unordered_map<std::string, Str> strings_;  // for sharing; short strings only
  bool too_large_ = false;
};

// Root, and references sorted by (kind, id), with its checksum: what SnapshotHeader describes. Sorts `refs`.
std::vector<uint8_t> write_snapshot(uint64_t epoch, uint64_t incarnation, std::vector<ObjectRef> refs);

}  // namespace millrace::table
