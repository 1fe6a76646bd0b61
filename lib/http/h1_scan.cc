#include "lib/http/h1_scan.h"

namespace millrace::http::scan {

#if defined(MILLRACE_HTTP_WINDOW)
namespace {

consteval Constant all(int c) {
  Constant k;
  k.bytes.fill(static_cast<uint8_t>(c));
  return k;
}
consteval Constant twice(const std::array<uint8_t, 16>& table) {  // one look-up table for each lane
  Constant k;
  for (size_t i = 0; i < 32; ++i) k.bytes[i] = table[i & 15];
  return k;
}

}  // namespace

constinit const Constants kConstants = {
    .field_column = twice(kFieldTables.column),
    .field_row = twice(kFieldTables.row),
    .authority_column = twice(kAuthorityTables.column),
    .authority_row = twice(kAuthorityTables.row),
    .low_nibble = all(15),
    .raise = all(0x80 - 2 * kLastTokenBit),
    .zero = all(0),
    .from_a = all(0x80 - 'A'),
    .behind_z = all(0x80 + 'Z' - 'A' + 1),
    .case_bit = all(0x20),
    .space = all(' '),
    .del = all(0x7f),
    .ones = all(0xff),
    .none = all(0),
};
#endif

}  // namespace millrace::http::scan
