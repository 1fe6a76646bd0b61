// What of Envoy's API we know by name only: to tell "not supported by Millrace yet" from "unknown", and which extensions fit
// where.
#pragma once

#include <string_view>
#include <vector>

#include <google/protobuf/descriptor.h>

namespace millrace::control {

// Envoy has a field or enum value of this (snake_case) name in the message or enum, and Millrace does not.
bool envoy_has(std::string_view message_or_enum, std::string_view name);

// The messages that may stand in an Any field ("typed_config" of a Filter, ...), by the field's full name; empty for a field that
// is no extension point. typed_extension_protocol_options counts under Cluster's map field.
const std::vector<const google::protobuf::Descriptor*>& extensions_of(const google::protobuf::FieldDescriptor* any_field);
// Any of our messages by full name, or null. Only those that the loader can use are found.
const google::protobuf::Descriptor* find_message(std::string_view full_name);

}  // namespace millrace::control
