// Errors as values, for code that runs outside poll cores (start-up, control, loader). Poll cores use enums from lib/stats.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "lib/base/assert.h"

namespace millrace::base {

// One sentence for a person: what, where, and what to do. No trailing newline, no leading capital needed.
struct Error {
  std::string message;
};

// A value or an Error. Asking for the one that is not there is our bug (assert).
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : v_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit by design
  Result(Error error) : v_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return v_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & {
    MILLRACE_ASSERT(ok(), "value of a failed Result");
    return std::get<0>(v_);
  }
  const T& value() const& {
    MILLRACE_ASSERT(ok(), "value of a failed Result");
    return std::get<0>(v_);
  }
  T&& value() && {
    MILLRACE_ASSERT(ok(), "value of a failed Result");
    return std::get<0>(std::move(v_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const std::string& error() const {
    MILLRACE_ASSERT(!ok(), "error of a good Result");
    return std::get<1>(v_).message;
  }

 private:
  std::variant<T, Error> v_;
};

// Success or an Error.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error.message)), ok_(false) {}  // NOLINT: implicit by design
  bool ok() const { return ok_; }
  explicit operator bool() const { return ok_; }
  const std::string& error() const {
    MILLRACE_ASSERT(!ok_, "error of a good Status");
    return error_;
  }

 private:
  std::string error_;
  bool ok_ = true;
};

}  // namespace millrace::base
