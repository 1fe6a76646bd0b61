// The guard page of tests/support for text.
#pragma once

#include <span>
#include <string_view>

#include "lib/base/bytes.h"
#include "tests/support/guard_page.h"

namespace millrace::http {

using support::GuardPage;

// A copy of `text` that ends where the guard page begins.
inline std::span<char> place(GuardPage& page, std::string_view text) {
  const base::MutableByteSpan bytes = page.place(base::as_bytes(text));
  return {reinterpret_cast<char*>(bytes.data()), bytes.size()};
}

}  // namespace millrace::http
