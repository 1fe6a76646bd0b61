// ?mask= of /config_dump: a FieldMask, as Envoy applies one.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include <google/protobuf/descriptor.h>

#include "control/proto_writer.h"

namespace millrace::control::admin {

using FieldPath = std::vector<std::string>;
// "cluster.name,cluster.type"
std::vector<FieldPath> parse_mask(std::string_view mask);

// Whether `path` names a field of `type`, every field before the last a single message (as FieldMaskUtil::IsValidPath).
bool names_field(const google::protobuf::Descriptor* type, const FieldPath& path, size_t from = 0);

// Leaves in a map what the paths name, from their part `from` on; "@type" stays.
void trim(TextValue* value, const std::vector<FieldPath>& paths, size_t from = 0);

}  // namespace millrace::control::admin
