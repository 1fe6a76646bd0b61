// A format string, understood: literals and commands ("%REQ(:PATH)%"), or a JSON object of them; of access logs, added headers
// and local replies alike. What a record makes of it is access_log_format.h's business, what a poll core makes of it
// dataplane/format_value.h's; this half knows neither, so that configuration can be checked with it. The list of commands:
// lib/table/format_ops.def. Their meaning: Envoy docs, configuration/observability/access_log/usage.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/status.h"
#include "lib/table/format_piece.h"

namespace millrace::control {

// Of this machine: %HOSTNAME%.
const std::string& host_name();

class AccessLogTemplate {
 public:
  using Op = table::FormatOp;
  using Part = table::FormatPiece;
  // A JSON template: an object, an array, a format of several parts, or one operator that keeps its type.
  struct Node {
    enum class Kind : uint8_t { kParts, kObject, kArray, kRaw } kind = Kind::kParts;
    std::vector<Part> parts;
    std::string raw;  // kRaw: JSON text (numbers, booleans, null)
    std::vector<std::pair<std::string, Node>> members;
  };
  static constexpr int kMaxDepth = 32;  // of a JSON template

  // The parts of one text, neighbouring literals joined. Error: one sentence that names the command that is not understood or not
  // supported, and what is. `where`: kLog for access logs; kAnywhere for what a poll core evaluates, which knows fewer commands,
  // and for which %HOSTNAME% and %ENVIRONMENT(X)% become literals.
  static base::Result<std::vector<Part>> parse(std::string_view format, table::FormatWhere where = table::FormatWhere::kLog);
  // Text; `format` empty: the default one.
  static base::Result<AccessLogTemplate> text(std::string_view format);
  // `object`: a JSON object (as text) whose values are formats, objects or arrays of such; keys stay in the order written.
  static base::Result<AccessLogTemplate> json(std::string_view object, table::FormatWhere where = table::FormatWhere::kLog);

  bool is_json() const { return json_; }
  const std::vector<Part>& parts() const { return parts_; }  // of a text
  const Node& root() const { return root_; }                 // of JSON
  // All of it as one run of parts, JSON with its quotes (FormatPiece::quote), and with `omit_empty_values` in pieces of which
  // some may be left out (lib/format/json_shape.h).
  std::vector<Part> flat(bool omit_empty_values) const;

 private:
  struct Parser;

  std::vector<Part> parts_;
  Node root_;
  bool json_ = false;
};

}  // namespace millrace::control
