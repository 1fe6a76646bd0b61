// How an object lies in the arena: one immutable, position-independent blob. Every reference inside it is an offset from the
// blob's first byte; 0 means none (the header lies there). Written by control (ObjectWriter), checked once by the loader
// (validate.h), then read without checks. Writer of every byte: control, before publication; nobody after it.
#pragma once

#include <cstdint>
#include <string_view>

namespace millrace::table {

inline constexpr uint32_t kObjectMagic = 0x4f52'4c4d;  // "MLRO"
inline constexpr uint16_t kLayoutVersion = 20;         // bump on any change of objects.h: both programs must agree

enum class Kind : uint16_t { kListener = 1, kRouteTable, kVirtualHost, kCluster, kEndpointSet, kSecret, kCount };
const char* to_string(Kind k);  // "listener", "route_table", ...

// 64-bit hash of (kind, name): stable across control's restarts, so that workers may keep ids. Control refuses a collision.
using ObjectId = uint64_t;
inline constexpr ObjectId kNoObject = 0;
ObjectId object_id(Kind kind, std::string_view name);

struct ObjectHeader {
  uint32_t magic;
  uint16_t layout_version;
  Kind kind;
  uint32_t size;      // bytes, header included; multiple of 8
  uint32_t checksum;  // CRC-32C of everything behind the header
  ObjectId id;
  uint64_t version;  // grows with each publication of the same id within one control incarnation
};
static_assert(sizeof(ObjectHeader) == 32);

template <class T>
struct Array {
  uint32_t offset = 0;  // from the object's first byte, aligned to alignof(T)
  uint32_t count = 0;   // elements
  const T* begin(const void* object) const { return reinterpret_cast<const T*>(static_cast<const uint8_t*>(object) + offset); }
  const T* end(const void* object) const { return begin(object) + count; }
  const T& at(const void* object, uint32_t i) const { return begin(object)[i]; }
};
using Str = Array<char>;
using Blob = Array<uint8_t>;
inline std::string_view view(const void* object, const Str& s) { return {s.begin(object), s.count}; }

// One reference of a snapshot: where an object lies in the arena.
struct ObjectRef {
  ObjectId id;
  uint64_t arena_offset;
  uint64_t version;
  uint32_t size;
  Kind kind;
  uint16_t reserved;
};
static_assert(sizeof(ObjectRef) == 32);

inline constexpr uint32_t kSnapshotMagic = 0x5352'4c4d;  // "MLRS"

// The root: followed by `count` ObjectRefs sorted by (kind, id).
struct SnapshotHeader {
  uint32_t magic;
  uint16_t layout_version;
  uint16_t reserved;
  uint32_t count;
  uint32_t checksum;  // CRC-32C of the references
  uint64_t epoch;     // from 1; a new control goes on above the last epoch its data plane has accepted
  uint64_t incarnation;
};
static_assert(sizeof(SnapshotHeader) == 32);

}  // namespace millrace::table
