// Format strings on control's side: the steps as values, and how they get into an object.
#pragma once

#include <string>
#include <vector>

#include "lib/table/object_writer.h"
#include "lib/table/objects.h"

namespace millrace::table {

// FormatPart, with its strings.
struct FormatPiece {
  FormatOp op = FormatOp::kLiteral;
  std::string text, other;
  uint32_t max_length = 0;
  uint8_t variant = 0;
  FormatMoment from = FormatMoment::kRequestFirst, to = FormatMoment::kRequestFirst;
  FormatQuote quote = FormatQuote::kNone;
};

inline Array<FormatPart> write_format(ObjectWriter& w, const std::vector<FormatPiece>& pieces) {
  std::vector<FormatPart> out;
  for (const FormatPiece& p : pieces) {
    FormatPart part{};
    part.text = w.string(p.text);
    part.other = w.string(p.other);
    part.max_length = p.max_length;
    part.op = p.op;
    part.variant = p.variant;
    part.from = p.from;
    part.to = p.to;
    part.quote = p.quote;
    out.push_back(part);
  }
  return w.array(out);
}

}  // namespace millrace::table
