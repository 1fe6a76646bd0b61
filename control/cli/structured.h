// Replies for programs: a message as JSON (protobuf's canonical mapping, field names as in the .proto, defaults written out), or
// the very same as YAML.
#pragma once

#include <string>
#include <string_view>

#include <google/protobuf/message.h>

#include "control/cli/client.h"

namespace millrace::cli {

std::string to_json(const google::protobuf::Message& message, bool pretty);
// JSON text as block YAML: same keys, same order, same types ("1" stays a string). What is no JSON comes back as it is.
std::string yaml_of_json(std::string_view json);

// Prints JSON text as -o says, with a newline.
void print_structured(const Globals& globals, std::string_view json);
void print_structured(const Globals& globals, const google::protobuf::Message& message);

}  // namespace millrace::cli
