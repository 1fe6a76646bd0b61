// Access log lines: a format (access_log_template.h) applied to binary records. "-" stands for what a request does not have (null
// in JSON).
#pragma once

#include <string>
#include <string_view>

#include "control/access_log_template.h"
#include "lib/base/status.h"
#include "lib/stats/events.h"

namespace millrace::control {

class AccessLogFormat {
 public:
  // As AccessLogTemplate::text() and json().
  static base::Result<AccessLogFormat> text(std::string_view format);
  static base::Result<AccessLogFormat> json(std::string_view object);

  // Appends one line (with its '\n' where the format has one; JSON always) to `out`.
  void append(const stats::AccessLogView& record, std::string& out) const;

 private:
  using Op = AccessLogTemplate::Op;
  using Part = AccessLogTemplate::Part;
  using Node = AccessLogTemplate::Node;
  explicit AccessLogFormat(AccessLogTemplate t) : template_(std::move(t)) {}
  // False: the record does not have it ("-", null).
  static bool value(const Part& p, const stats::AccessLogView& r, std::string& out);
  static bool is_number(Op op);
  static void append_node(const Node& n, const stats::AccessLogView& r, std::string& out);

  AccessLogTemplate template_;
};

}  // namespace millrace::control
