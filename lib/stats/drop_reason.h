// Why a packet, or its payload, was not used: one enum, made from the one list in drop_reasons.def.
#pragma once

#include <cstdint>

namespace millrace::stats {

enum class DropReason : uint16_t {
  kNone = 0,
#define DROP_REASON(symbol, name, severity, text) symbol,
#include "lib/stats/drop_reasons.def"
#undef DROP_REASON
  kCount
};

enum class Severity : uint8_t { kInfo, kWarning, kError };  // expected on a healthy network / worth a look / something is wrong

struct DropReasonInfo {
  const char* name;  // stable, snake_case: the key in JSON and metrics
  Severity severity;
  const char* text;  // one sentence for a person
};
const DropReasonInfo& info(DropReason r);

inline constexpr uint32_t kDropReasonCount = static_cast<uint32_t>(DropReason::kCount);

}  // namespace millrace::stats
