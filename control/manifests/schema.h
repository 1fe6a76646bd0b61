// Which fields a Kubernetes object may have. Three answers: it is read; it is Kubernetes's and not supported here (the object's
// condition says so); it is nobody's (an error, as a typing mistake is never passed over).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "control/manifests/object.h"

namespace millrace::control::manifests {

struct KindSchema {
  std::string_view kind, group;  // group: "" is the core's
  std::string_view versions;     // "v1 v1beta1"
  bool namespaced;
  std::string_view fields;  // see schema.cc
};

// Null, with the reason, when Millrace has no such kind.
const KindSchema* find_schema(std::string_view api_version, std::string_view kind, std::string* why);
// Fills errors and object->unsupported.
void check(const KindSchema& schema, Object* object, ConfigErrors* errors);

}  // namespace millrace::control::manifests
