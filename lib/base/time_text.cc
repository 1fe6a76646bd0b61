#include "lib/base/time_text.h"

#include <algorithm>

namespace millrace::base {

namespace {

constexpr std::string_view kDays[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
constexpr std::string_view kMonths[] = {"January", "February", "March",     "April",   "May",      "June",
                                        "July",    "August",   "September", "October", "November", "December"};
constexpr uint32_t kNanos = 1'000'000'000;

struct Civil {
  int64_t year;
  uint32_t month, day;            // from 1
  uint32_t hour, minute, second;  //
  uint32_t weekday, day_of_year;  // from 0
  int64_t since_epoch;            // seconds, UTC
  uint32_t nanos;
};

// Days since 1970-01-01 to a date of the proleptic Gregorian calendar: eras of 400 years that begin on March 1.
Civil civil_of(uint64_t wall_ns, int32_t offset_s) {
  Civil c{};
  c.since_epoch = static_cast<int64_t>(wall_ns / kNanos);
  c.nanos = static_cast<uint32_t>(wall_ns % kNanos);
  const int64_t local = c.since_epoch + offset_s;
  int64_t days = local / 86'400;
  int64_t rest = local % 86'400;
  if (rest < 0) {
    rest += 86'400;
    --days;
  }
  c.hour = static_cast<uint32_t>(rest / 3600);
  c.minute = static_cast<uint32_t>(rest / 60 % 60);
  c.second = static_cast<uint32_t>(rest % 60);
  c.weekday = static_cast<uint32_t>(((days + 4) % 7 + 7) % 7);  // the epoch was a Thursday
  const int64_t z = days + 719'468;
  const int64_t era = (z >= 0 ? z : z - 146'096) / 146'097;
  const auto doe = static_cast<uint32_t>(z - era * 146'097);
  const uint32_t yoe = (doe - doe / 1460 + doe / 36'524 - doe / 146'096) / 365;
  const uint32_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
  const uint32_t mp = (5 * doy + 2) / 153;
  c.day = doy - (153 * mp + 2) / 5 + 1;
  c.month = mp < 10 ? mp + 3 : mp - 9;
  c.year = static_cast<int64_t>(yoe) + era * 400 + (c.month <= 2 ? 1 : 0);
  const bool leap = (c.year % 4 == 0 && c.year % 100 != 0) || c.year % 400 == 0;
  constexpr uint16_t kBefore[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
  c.day_of_year = kBefore[c.month - 1] + c.day - 1 + (leap && c.month > 2 ? 1 : 0);
  return c;
}

class Writer {
 public:
  Writer(char* out, size_t capacity) : begin_(out), next_(out), end_(out + capacity) {}
  void put(char c) {
    if (next_ != end_) *next_++ = c;
  }
  void put(std::string_view s) {
    for (const char c : s) put(c);
  }
  void number(uint64_t v, uint32_t width, char pad = '0') {
    char digits[20];
    uint32_t n = 0;
    do {
      digits[n++] = static_cast<char>('0' + v % 10);
      v /= 10;
    } while (v != 0);
    for (uint32_t i = n; i < width; ++i) put(pad);
    while (n != 0) put(digits[--n]);
  }
  size_t size() const { return static_cast<size_t>(next_ - begin_); }

 private:
  char* begin_;
  char* next_;
  char* end_;
};

void fraction_digits(uint32_t nanos, uint32_t digits, char* out) {
  for (uint32_t d = 9; d > digits; --d) nanos /= 10;
  for (uint32_t i = digits; i-- > 0; nanos /= 10) out[i] = static_cast<char>('0' + nanos % 10);
}

void put_fraction(const Civil& c, uint32_t digits, Writer& w, Fractions* f) {
  if (f != nullptr) {
    if (f->count == kMaxFractions) f->patchable = false;
    else f->at[f->count++] = {static_cast<uint16_t>(w.size()), static_cast<uint8_t>(digits)};
  }
  char text[9];
  fraction_digits(c.nanos, digits, text);
  w.put({text, digits});
}
// As many digits as the fraction has; none of a whole second.
void put_all_of_fraction(const Civil& c, std::string_view lead, Writer& w, Fractions* f) {
  if (f != nullptr) f->patchable = false;
  if (c.nanos == 0) return;
  char text[9];
  fraction_digits(c.nanos, 9, text);
  size_t n = 9;
  while (text[n - 1] == '0') --n;
  w.put(lead);
  w.put({text, n});
}

void put_offset(int32_t offset_s, bool colon, bool seconds, Writer& w) {
  w.put(offset_s < 0 ? '-' : '+');
  const auto v = static_cast<uint32_t>(offset_s < 0 ? -offset_s : offset_s);
  w.number(v / 3600, 2);
  if (colon) w.put(':');
  w.number(v / 60 % 60, 2);
  if (!seconds) return;
  w.put(':');
  w.number(v % 60, 2);
}

// The conversion at format[at] (a '%'): its bytes; 0 when it is none. `digits`: of a fraction.
size_t conversion_at(std::string_view format, size_t at, char* kind, uint32_t* digits, bool* extended) {
  *digits = 0;
  *extended = false;
  size_t i = at + 1;
  if (i >= format.size()) return 0;
  const auto is_digit = [&](size_t k) { return k < format.size() && format[k] >= '1' && format[k] <= '9'; };
  if (is_digit(i) && i + 1 < format.size() && format[i + 1] == 'f') {  // Envoy's %3f
    *digits = static_cast<uint32_t>(format[i] - '0');
    *kind = 'f';
    return 3;
  }
  if (format[i] == 'E') {
    *extended = true;
    if (++i >= format.size()) return 0;
    if (is_digit(i)) {
      *digits = static_cast<uint32_t>(format[i] - '0');
      if (++i >= format.size()) return 0;
      *kind = format[i];
      return *kind == 'S' || *kind == 'f' || (*kind == 'Y' && *digits == 4) ? i + 1 - at : 0;
    }
    if (format[i] == '*') {
      if (++i >= format.size()) return 0;
      *digits = UINT32_MAX;
      *kind = format[i];
      return *kind == 'S' || *kind == 'f' || *kind == 'z' ? i + 1 - at : 0;
    }
    *kind = format[i];
    return *kind == 'z' || *kind == 'T' ? i + 1 - at : 0;
  }
  *kind = format[i];
  return std::string_view("aAbhBcCdDeFHIjklmMnprRStTuwxXyYzZsf%").find(*kind) != std::string_view::npos ? 2 : 0;
}

void render(std::string_view format, const Civil& c, const TimeZone& zone, Writer& w, Fractions* f);

void convert(char kind, uint32_t digits, bool extended, const Civil& c, const TimeZone& zone, Writer& w, Fractions* f) {
  const auto nested = [&](std::string_view format) { render(format, c, zone, w, f); };
  const uint32_t hour12 = c.hour % 12 == 0 ? 12 : c.hour % 12;
  if (extended) {
    switch (kind) {
      case 'S':
        w.number(c.second, 2);
        if (digits == UINT32_MAX) return put_all_of_fraction(c, ".", w, f);
        w.put('.');
        return put_fraction(c, digits, w, f);
      case 'f':
        if (digits != UINT32_MAX) return put_fraction(c, digits, w, f);
        if (c.nanos == 0) w.put('0');
        return put_all_of_fraction(c, "", w, f);
      case 'Y':
        return w.number(static_cast<uint64_t>(c.year), 4);
      case 'z':
        return put_offset(zone.offset_s, true, digits == UINT32_MAX, w);
      default:
        return w.put('T');
    }
  }
  switch (kind) {
    case 'a':
      return w.put(kDays[c.weekday].substr(0, 3));
    case 'A':
      return w.put(kDays[c.weekday]);
    case 'b':
    case 'h':
      return w.put(kMonths[c.month - 1].substr(0, 3));
    case 'B':
      return w.put(kMonths[c.month - 1]);
    case 'c':
      return nested("%a %b %e %H:%M:%S %Y");
    case 'C':
      return w.number(static_cast<uint64_t>(c.year / 100), 2);
    case 'd':
      return w.number(c.day, 2);
    case 'D':
    case 'x':
      return nested("%m/%d/%y");
    case 'e':
      return w.number(c.day, 2, ' ');
    case 'f':
      return put_fraction(c, digits == 0 ? 9 : digits, w, f);
    case 'F':
      return nested("%Y-%m-%d");
    case 'H':
      return w.number(c.hour, 2);
    case 'I':
      return w.number(hour12, 2);
    case 'j':
      return w.number(c.day_of_year + 1, 3);
    case 'k':
      return w.number(c.hour, 2, ' ');
    case 'l':
      return w.number(hour12, 2, ' ');
    case 'm':
      return w.number(c.month, 2);
    case 'M':
      return w.number(c.minute, 2);
    case 'n':
      return w.put('\n');
    case 'p':
      return w.put(c.hour < 12 ? "AM" : "PM");
    case 'r':
      return nested("%I:%M:%S %p");
    case 'R':
      return nested("%H:%M");
    case 's':
      return w.number(static_cast<uint64_t>(c.since_epoch), 0);
    case 'S':
      return w.number(c.second, 2);
    case 't':
      return w.put('\t');
    case 'T':
    case 'X':
      return nested("%H:%M:%S");
    case 'u':
      return w.number(c.weekday == 0 ? 7 : c.weekday, 0);
    case 'w':
      return w.number(c.weekday, 0);
    case 'y':
      return w.number(static_cast<uint64_t>(c.year % 100), 2);
    case 'Y':
      return w.number(static_cast<uint64_t>(c.year), 0);
    case 'z':
      return put_offset(zone.offset_s, false, false, w);
    case 'Z':
      return w.put(zone.name);
    default:
      return w.put('%');
  }
}

void render(std::string_view format, const Civil& c, const TimeZone& zone, Writer& w, Fractions* f) {
  for (size_t i = 0; i < format.size();) {
    char kind = 0;
    uint32_t digits = 0;
    bool extended = false;
    const size_t n = format[i] == '%' ? conversion_at(format, i, &kind, &digits, &extended) : 0;
    if (n == 0) {
      w.put(format[i++]);
      continue;
    }
    convert(kind, digits, extended, c, zone, w, f);
    i += n;
  }
}

}  // namespace

size_t format_time(uint64_t wall_ns, std::string_view format, const TimeZone& zone, char* out, size_t capacity,
                   Fractions* fractions) {
  if (fractions != nullptr) *fractions = {};
  Writer w(out, std::min<size_t>(capacity, UINT16_MAX));
  render(format, civil_of(wall_ns, zone.offset_s), zone, w, fractions);
  if (fractions != nullptr && fractions->count != 0) {
    const FractionAt& last = fractions->at[fractions->count - 1];
    if (last.offset + last.digits > w.size()) fractions->patchable = false;  // cut at the end of `out`
  }
  return w.size();
}

void patch_fractions(uint64_t wall_ns, const Fractions& fractions, char* text) {
  const auto nanos = static_cast<uint32_t>(wall_ns % kNanos);
  for (uint32_t i = 0; i < fractions.count; ++i) fraction_digits(nanos, fractions.at[i].digits, text + fractions.at[i].offset);
}

size_t check_time_format(std::string_view format) {
  for (size_t i = 0; i < format.size();) {
    if (format[i] != '%') {
      ++i;
      continue;
    }
    char kind = 0;
    uint32_t digits = 0;
    bool extended = false;
    const size_t n = conversion_at(format, i, &kind, &digits, &extended);
    if (n == 0) return i;
    i += n;
  }
  return std::string_view::npos;
}

}  // namespace millrace::base
