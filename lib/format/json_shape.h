// JSON of which members may be missing (SubstitutionFormatString.omit_empty_values, as Envoy has it): a value that is absent
// takes its key along, an object in which nothing is left goes too, but for the outermost; an array stays. Commas are set by what
// has been written, so the pieces of such a format (FormatQuote::kJsonKey, kJsonOpen, kJsonClose) have none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace millrace::format {

// `Out` has put(std::string_view), size(), and truncate(size): back to an earlier size. One shape for one text.
class JsonShape {
 public:
  static constexpr uint32_t kMaxDepth = 63;  // deeper brackets are written without regard to what is in them

  // `text`: a key and its colon, if any, and a bracket.
  template <class Out>
  void open(std::string_view text, Out& out) {
    const size_t before = out.size();
    separate(out);
    out.put(text);
    ++depth_;
    if (depth_ > kMaxDepth) return;
    filled_ &= ~(uint64_t{1} << depth_);
    before_[depth_] = before;
  }
  // `text`: the bracket, and what follows the outermost.
  template <class Out>
  void close(std::string_view text, Out& out) {
    const bool known = depth_ != 0 && depth_ <= kMaxDepth;
    const bool dropped = known && depth_ > 1 && (filled_ >> depth_ & 1) == 0 && text.starts_with('}');
    const size_t before = known ? before_[depth_] : 0;
    if (depth_ != 0) --depth_;
    if (dropped) {
      out.truncate(before);
      return;
    }
    out.put(text);
    if (depth_ <= kMaxDepth) filled_ |= uint64_t{1} << depth_;
  }
  // Of the value that comes next; views live that long. "": an element of an array.
  void key(std::string_view text) {
    key_ = text;
    has_key_ = true;
  }
  // Before a value, or the first piece of one, is written.
  template <class Out>
  void begin_value(Out& out) {
    if (!has_key_) return;
    has_key_ = false;
    separate(out);
    out.put(key_);
    if (depth_ <= kMaxDepth) filled_ |= uint64_t{1} << depth_;
  }
  // The value is absent. False: it has no key() to take along, and something must stand for it.
  bool skip_value() {
    const bool skipped = has_key_;
    has_key_ = false;
    return skipped;
  }

 private:
  template <class Out>
  void separate(Out& out) {
    if (depth_ != 0 && depth_ <= kMaxDepth && (filled_ >> depth_ & 1) != 0) out.put(",");
  }

  uint64_t filled_ = 0;  // bit d: the bracket at depth d has a member
  uint32_t depth_ = 0;
  bool has_key_ = false;
  std::string_view key_;
  size_t before_[kMaxDepth + 1];  // where the text of that bracket, comma and key began
};

}  // namespace millrace::format
