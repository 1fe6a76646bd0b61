// `millctl capture`: a question to the workers, and their packets as the bytes of a pcapng file.
#pragma once

#include <functional>

#include "control/model.h"
#include "lib/api/millrace.control.v1.pb.h"
#include "lib/base/status.h"
#include "lib/table/inspect.h"

namespace millrace::control {

class ControlPlane;

// What a capture is bounded by where the request says nothing.
inline constexpr uint64_t kDefaultCapturePackets = 100'000;
inline constexpr uint64_t kDefaultCaptureBytes = 256ull << 20;
inline constexpr double kDefaultCaptureSeconds = 60;
inline constexpr uint32_t kMaxSnap = 65'535 + 64;  // a whole TSO frame

// The question of a request, without its id; `ports`: names of the data plane's ports. Errors name option and place.
base::Result<table::StartCapture> capture_question(const v1::CaptureRequest& request, const Model& model,
                                                   std::span<const std::string> ports);

// Captures until a bound is reached, the data plane goes away, or `write` says false (the caller is gone); the last chunk is
// `complete`, or has an error.
void run_capture(ControlPlane& plane, const v1::CaptureRequest& request, const std::string& version,
                 const std::function<bool(const v1::CaptureChunk&)>& write, const std::function<bool()>& cancelled);

}  // namespace millrace::control
