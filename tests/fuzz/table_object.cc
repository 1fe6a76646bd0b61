// The validator of table objects: whatever the bytes, it stays inside them; and what it accepts can be read to the last
// reference. Each input is tried as it is, and again with magic, version, kind, size and id made legal and the checksum not asked
// for, so that it gets past the header.
#include <cstring>
#include <type_traits>
#include <vector>

#include "lib/table/validate.h"
#include "tests/fuzz/require.h"

namespace {

using namespace millrace::table;

template <class T>
inline constexpr bool kIsArray = false;
template <class T>
inline constexpr bool kIsArray<Array<T>> = true;

// Reads every byte of every reference, as the data plane might.
struct Reader {
  const uint8_t* base;
  size_t size;
  uint64_t sum = 0;
  uint64_t budget = 1 << 20;  // references may overlap: what the validator allows can still be long to read
  template <class T>
  void operator()(const Array<T>& a) {
    if (a.count == 0) return;
    FUZZ_REQUIRE(a.offset >= sizeof(ObjectHeader));
    FUZZ_REQUIRE(a.offset + uint64_t{a.count} * sizeof(T) <= size);
    FUZZ_REQUIRE(a.offset % alignof(T) == 0);
    for (uint32_t i = 0; i < a.count && budget > 0; ++i, --budget) {
      const T& t = a.at(base, i);
      if constexpr (kIsArray<T>) (*this)(t);
      else if constexpr (requires { t.refs(*this); }) t.refs(*this);
      else if constexpr (std::is_class_v<T>) sum += *(reinterpret_cast<const uint8_t*>(&t + 1) - 1);
      else sum += static_cast<uint64_t>(t);
    }
  }
};
template <class Root>
uint64_t read(const uint8_t* base, size_t size) {
  Reader r{base, size};
  reinterpret_cast<const Root*>(base)->refs(r);
  return r.sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)validate_snapshot({reinterpret_cast<const uint8_t*>(data), reinterpret_cast<uintptr_t>(data) % 8 == 0 ? size : 0},
                          1 << 20);
  if (size < sizeof(ObjectHeader)) return 0;
  size = size / 8 * 8;
  std::vector<uint64_t> copy(size / 8);  // aligned
  uint8_t* bytes = reinterpret_cast<uint8_t*>(copy.data());
  std::memcpy(bytes, data, size);
  (void)validate_object({bytes, size});  // as it is
  ObjectHeader h;
  std::memcpy(&h, data, sizeof h);
  h.magic = kObjectMagic;
  h.layout_version = kLayoutVersion;
  h.kind = static_cast<Kind>(1 + static_cast<uint16_t>(h.kind) % 6);
  h.size = static_cast<uint32_t>(size);
  h.id |= 1;
  std::memcpy(bytes, &h, sizeof h);
  if (!validate_object({bytes, size}, /*verify_checksum=*/false).ok()) return 0;
  volatile uint64_t sum = 0;
  switch (h.kind) {
    case Kind::kListener:
      sum = read<Listener>(bytes, size);
      break;
    case Kind::kRouteTable:
      sum = read<RouteTable>(bytes, size);
      break;
    case Kind::kVirtualHost:
      sum = read<VirtualHost>(bytes, size);
      break;
    case Kind::kCluster:
      sum = read<Cluster>(bytes, size);
      break;
    case Kind::kEndpointSet:
      sum = read<EndpointSet>(bytes, size);
      break;
    case Kind::kSecret:
      sum = read<Secret>(bytes, size);
      break;
    case Kind::kCount:
      break;
  }
  (void)sum;
  return 0;
}
