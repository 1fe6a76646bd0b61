// One object of the model to its blob. Pure: the same object gives the same bytes. The virtual host is lib/route's.
#pragma once

#include <cstdint>
#include <vector>

#include "control/model.h"
#include "lib/base/status.h"

namespace millrace::control {

base::Result<std::vector<uint8_t>> compile_listener(const ListenerObject& listener);
base::Result<std::vector<uint8_t>> compile_cluster(const ClusterObject& cluster);
base::Result<std::vector<uint8_t>> compile_endpoints(const EndpointsObject& endpoints);
base::Result<std::vector<uint8_t>> compile_secret(const SecretObject& secret);

}  // namespace millrace::control
