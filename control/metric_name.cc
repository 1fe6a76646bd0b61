#include "control/metric_name.h"

namespace millrace::control {

std::string metric_safe(std::string_view name) {
  std::string out(name);
  for (char& c : out)
    if (c == ':' || c == '|' || c == '@' || c == '#' || c == ',' || c == ' ' || static_cast<unsigned char>(c) < 0x20) c = '_';
  return out.empty() ? "_" : out;
}

}  // namespace millrace::control
