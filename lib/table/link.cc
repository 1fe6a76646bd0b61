#include "lib/table/link.h"

#include <cstring>

namespace millrace::table {

namespace {
bool text_differs(const char (&a)[64], const char (&b)[64]) {
  if (a[0] == 0 || b[0] == 0) return false;  // one side does not use regexes
  return std::memcmp(a, b, sizeof a) != 0;
}
}  // namespace

const char* link_mismatch(const LinkVersions& mine, const LinkVersions& theirs) {
  if (mine.link != theirs.link)
    return "the programs speak different versions of the link protocol: use millrace-control and millrace-dataplane of the same "
           "build";
  if (mine.layout != theirs.layout)
    return "the programs use different table layouts: use millrace-control and millrace-dataplane of the same build";
  if (mine.stats_layout != theirs.stats_layout || mine.stats_hash != theirs.stats_hash)
    return "the programs know different lists of counters: use millrace-control and millrace-dataplane of the same build";
  if (mine.events != theirs.events)
    return "the programs use different event records: use millrace-control and millrace-dataplane of the same build";
  if (text_differs(mine.regex_engine, theirs.regex_engine) || text_differs(mine.regex_platform, theirs.regex_platform))
    return "regex databases of this control process do not run in this data plane: Hyperscan version or CPU features differ";
  return nullptr;
}

}  // namespace millrace::table
