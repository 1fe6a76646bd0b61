// Access log lines: a format (access_log_template.h) applied to binary records. "-" stands for what a request does not have (null
// in JSON); with omit_empty_values nothing does (in JSON, not even its key).
//
// A format is compiled to a flat run of steps, JSON too: text that stands between the values is one copy, a value is a view into
// the record or a few digits on the stack, and the text of a second is made once in that second.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "control/access_log_template.h"
#include "control/line_buffer.h"
#include "lib/base/status.h"
#include "lib/base/time_text.h"
#include "lib/format/evaluate.h"
#include "lib/format/json_shape.h"
#include "lib/stats/events.h"

namespace millrace::control {

class AccessLogFormat {
 public:
  // As AccessLogTemplate::text() and json().
  static base::Result<AccessLogFormat> text(std::string_view format, bool omit_empty_values = false);
  static base::Result<AccessLogFormat> json(std::string_view object, bool omit_empty_values = false);

  // Appends one line (with its '\n' where the format has one; JSON always) to `out`. One thread at a time: it keeps the text of
  // the last second.
  void append(const stats::AccessLogView& record, LineBuffer& out);

 private:
  using Part = table::FormatPiece;
  struct Step {
    table::FormatQuote quote = table::FormatQuote::kNone;
    std::string text, other;
    format::Step value;  // its views are set when it is evaluated: steps move
    uint32_t time = 0;   // index into times_, where the value is a time
  };
  struct TimeText {
    static constexpr size_t kRoom = 1024;
    uint64_t second = UINT64_MAX;
    uint32_t size = 0;
    bool local = false;
    base::Fractions fractions;
    char text[kRoom];
  };
  struct Source;

  AccessLogFormat(const AccessLogTemplate& t, bool omit_empty_values);
  void add_text(const Part& part);
  void add_value(const Part& part);

  std::vector<Step> steps_;
  std::vector<TimeText> times_;
  std::string_view missing_ = "-";
};

}  // namespace millrace::control
