// Names of objects as parts of names of metrics.
#pragma once

#include <string>
#include <string_view>

namespace millrace::control {

// What separates name, value and tags in the wire formats of statistics (":|@#,", blanks, control characters) becomes '_', as in
// Envoy; "" becomes "_".
std::string metric_safe(std::string_view name);

}  // namespace millrace::control
