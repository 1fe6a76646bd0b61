#include "lib/http/message.h"

#include <utility>

#include "lib/http/header_names.h"

namespace millrace::http {

HeaderId header_id(std::string_view name) {
  const size_t n = name.size();
  if (n > names::kMaxNameBytes) return HeaderId::kOther;
  uint64_t folded = 0;
  for (size_t at = 0; at < n; at += 8) folded ^= load_zero_padded(name.data() + at, n - at < 8 ? n - at : 8);
  const uint8_t i = names::kHash.slots[names::kHash.slot(folded)];
  const std::string_view candidate = names::kNames[i];
  if (candidate.size() != n || !equal_bytes(candidate.data(), name.data(), n)) return HeaderId::kOther;
  return static_cast<HeaderId>(i);
}

constinit const std::array<std::string_view, names::kCount> kHeaderNames = names::kNames;

const Header* HeaderTable::find(std::string_view lower_case_name) const {
  const HeaderId id = header_id(lower_case_name);
  if (!has(id)) return nullptr;
  for (const Header& h : *this)
    if (h.id == id && (id != HeaderId::kOther || h.name == lower_case_name)) return &h;
  return nullptr;
}

uint32_t HeaderTable::remove(std::string_view lower_case_name) {
  const HeaderId id = header_id(lower_case_name);
  if (id != HeaderId::kOther) return remove(id);
  if (!has(id)) return 0;
  return remove_if([&](const Header& h) { return h.id == HeaderId::kOther && h.name == lower_case_name; });
}

uint32_t HeaderTable::remove_ids(uint64_t ids) {
  MILLRACE_ASSERT((ids & bit_of(HeaderId::kOther)) == 0, "unknown names are removed by name");
  if ((present_ & ids) == 0) return 0;
  present_ &= ~ids;
  repeated_ &= ~ids;
  const auto goes = [&](const Header& h) { return ((ids >> static_cast<int>(h.id)) & 1) != 0; };
  uint32_t kept = 0;
  while (!goes(data_[kept])) ++kept;
  for (uint32_t i = kept + 1; i < size_; ++i)
    if (!goes(data_[i])) data_[kept++] = data_[i];
  const uint32_t removed = size_ - kept;
  size_ = kept;
  return removed;
}

bool HeaderTable::replace(HeaderId id, std::string_view value) {
  if ((repeated_ >> static_cast<int>(id)) & 1) {
    bool first = true;
    remove_if([&](const Header& h) { return h.id == id && !std::exchange(first, false); });
  }
  for (uint32_t i = 0; i < size_; ++i) {
    if (data_[i].id != id) continue;
    data_[i].value = value;
    break;
  }
  return true;
}

}  // namespace millrace::http
