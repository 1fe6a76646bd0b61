#include "lib/stats/drop_reason.h"

namespace millrace::stats {

namespace {
constexpr DropReasonInfo kInfo[] = {
    {"none", Severity::kInfo, "not dropped"},
#define DROP_REASON(symbol, name, severity, text) {name, Severity::severity, text},
#include "lib/stats/drop_reasons.def"
#undef DROP_REASON
};
static_assert(sizeof(kInfo) / sizeof(kInfo[0]) == kDropReasonCount);
}  // namespace

const DropReasonInfo& info(DropReason r) {
  return kInfo[static_cast<uint16_t>(r) < kDropReasonCount ? static_cast<uint16_t>(r) : 0];
}

}  // namespace millrace::stats
