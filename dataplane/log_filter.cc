#include "dataplane/log_filter.h"

#include <algorithm>
#include <charconv>

#include "dataplane/header_match.h"
#include "lib/base/hash.h"

namespace millrace::dataplane {

using table::LogFilter;
using table::LogFilterKind;

namespace {

bool compare(table::LogFilterOp op, uint64_t value, uint64_t with) {
  switch (op) {
    case table::LogFilterOp::kEqual:
      return value == with;
    case table::LogFilterOp::kAtLeast:
      return value >= with;
    case table::LogFilterOp::kAtMost:
      return value <= with;
  }
  return false;
}

// A part of all requests: the same ones wherever the same request id is seen. Each filter without a request id, or that is to be
// independent, draws for itself: the number of the request mixed with its place.
bool sampled(const void* object, const LogFilter& f, const LogFacts& facts) {
  constexpr size_t kIdDigits = 8;  // of the UUID, as Envoy's UUIDRequestIDExtension
  const auto place = static_cast<uint64_t>(reinterpret_cast<const char*>(&f) - static_cast<const char*>(object));
  uint64_t number = base::hash64(facts.random ^ place << 32);
  if (!f.independent) {
    uint32_t from_id = 0;
    const char* const begin = facts.request_id.data();
    if (facts.request_id.size() >= kIdDigits && std::from_chars(begin, begin + kIdDigits, from_id, 16).ptr == begin + kIdDigits)
      number = from_id;
  }
  return number % f.denominator < f.value;
}

bool node_holds(const void* object, const LogFilter* f, const LogFacts& facts) {
  switch (f->kind) {
    case LogFilterKind::kStatus:
      return compare(f->op, facts.status, f->value);
    case LogFilterKind::kDuration:
      return compare(f->op, facts.duration_ms, f->value);
    case LogFilterKind::kNotHealthCheck:  // no filter of ours answers health checks
      return true;
    case LogFilterKind::kTraceable:  // nothing is traced
      return false;
    case LogFilterKind::kRuntime:
      return sampled(object, *f, facts);
    case LogFilterKind::kAnd:
    case LogFilterKind::kOr: {
      const bool all = f->kind == LogFilterKind::kAnd;
      for (uint32_t at = 1; at < f->nodes; at += f[at].nodes)
        if (node_holds(object, f + at, facts) != all) return !all;
      return all;
    }
    case LogFilterKind::kHeader:
      return facts.request == nullptr ? header_holds(object, f->header, nullptr, nullptr)
                                      : header_holds(object, f->header, facts.request, &facts.request->headers);
    case LogFilterKind::kResponseFlag:
      return f->value == 0 ? facts.flags != 0 : (facts.flags & f->value) != 0;
    case LogFilterKind::kGrpcStatus:
      return ((f->value >> std::min<uint32_t>(facts.grpc_status, 63) & 1) != 0) != (f->exclude != 0);
    case LogFilterKind::kLogType:
      return ((f->value >> static_cast<uint32_t>(facts.type) & 1) != 0) != (f->exclude != 0);
  }
  return false;
}

}  // namespace

uint32_t wanted_logs(const void* object, const table::Array<table::AccessLog>& logs, const LogFacts& facts) {
  constexpr uint32_t kBits = 32;
  uint32_t out = 0;
  for (uint32_t i = 0; i < logs.count; ++i)
    if (i >= kBits || filter_holds(object, logs.at(object, i).filter, facts)) out |= uint32_t{1} << std::min(i, kBits - 1);
  return out;
}

bool filter_holds(const void* object, const table::Array<LogFilter>& filter, const LogFacts& facts) {
  return filter.count == 0 || node_holds(object, filter.begin(object), facts);
}

}  // namespace millrace::dataplane
