#include "lib/table/layout.h"

#include "lib/base/hash.h"

namespace millrace::table {

const char* to_string(Kind k) {
  switch (k) {
    case Kind::kListener:
      return "listener";
    case Kind::kRouteTable:
      return "route_table";
    case Kind::kVirtualHost:
      return "virtual_host";
    case Kind::kCluster:
      return "cluster";
    case Kind::kEndpointSet:
      return "endpoint_set";
    case Kind::kSecret:
      return "secret";
    case Kind::kCount:
      break;
  }
  return "unknown";
}

ObjectId object_id(Kind kind, std::string_view name) {
  // The kind is the seed, so that a cluster and its endpoint set, which share a name, differ.
  const uint64_t id = base::hash64(name, static_cast<uint64_t>(kind));
  return id == kNoObject ? 1 : id;
}

}  // namespace millrace::table
