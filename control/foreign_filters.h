// Filters that control planes send to every Envoy, and that change no request: Istio's telemetry and metadata, statistics,
// filters without a setting. They are taken out of what a management server sends, silently; any other unknown filter is refused,
// since it may be one that keeps somebody out.
#pragma once

#include <string_view>

#include "control/model.h"

namespace millrace::control {

// By the type's full name; `empty`: nothing is set in it.
bool is_harmless_filter(std::string_view type_name, bool empty);
// Takes them out of all filter chains. Returns how many there were.
int take_out_harmless_filters(api::Listener* listener);

}  // namespace millrace::control
