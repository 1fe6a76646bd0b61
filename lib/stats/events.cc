#include "lib/stats/events.h"

#include <algorithm>
#include <cstring>

#include "lib/base/assert.h"

namespace millrace::stats {

namespace {
constexpr bool is_extra(StringId id) { return id >= StringId::kExtraRequestHeader; }
}  // namespace

const char* to_string(Protocol p) {
  switch (p) {
    case Protocol::kHttp10:
      return "HTTP/1.0";
    case Protocol::kHttp11:
      return "HTTP/1.1";
    case Protocol::kHttp2:
      return "HTTP/2";
    case Protocol::kNone:
    case Protocol::kTcp:
      break;
  }
  return "-";
}

const char* to_string(RecordError e) {
  switch (e) {
    case RecordError::kNone:
      return "none";
    case RecordError::kTooShort:
      return "record_too_short";
    case RecordError::kWrongType:
      return "record_of_unexpected_type";
    case RecordError::kWrongVersion:
      return "record_of_other_version";
    case RecordError::kWrongSize:
      return "record_size_disagrees";
    case RecordError::kTooManyStrings:
      return "record_with_too_many_strings";
    case RecordError::kStringsPastEnd:
      return "record_strings_past_end";
    case RecordError::kBadExtra:
      return "record_extra_header_malformed";
  }
  return "unknown";
}

// ---- builder ------------------------------------------------------------------------------------------------------------

void AccessLogBuilder::add(StringId id, std::string_view value, std::string_view name) {
  if (!is_extra(id)) return add(id, value);
  if (!name.empty()) put(id, value, name.substr(0, 255));  // an extra header without its name is nothing
}

void AccessLogBuilder::put(StringId id, std::string_view value, std::string_view name) {
  if ((flags_ & kFlagStringsMissing) != 0) return;
  const size_t limit = string_limit(id);
  const auto value_size = static_cast<uint32_t>(std::min(value.size(), limit));
  const uint32_t bytes = value_size + (is_extra(id) ? 1 + static_cast<uint32_t>(name.size()) : 0);
  if (count_ == kMaxRecordStrings || string_bytes_ + bytes > kMaxStringBytes) {
    flags_ |= kFlagStringsMissing;
    return;
  }
  const bool cut = value.size() > limit;
  if (cut) flags_ |= kFlagStringsTruncated;
  parts_[count_++] = {value.data(), name.data(), id, static_cast<uint16_t>(value_size), static_cast<uint8_t>(name.size()), cut};
  string_bytes_ += bytes;
}

void AccessLogBuilder::write(std::span<uint8_t> out) const {
  MILLRACE_ASSERT(out.size() >= size(), "room for the whole record");
  AccessLogRecord fixed = record_;
  fixed.header = {EventType::kAccessLog, kEventVersion, size()};
  fixed.record_flags = static_cast<uint16_t>((fixed.record_flags & ~(kFlagStringsTruncated | kFlagStringsMissing)) | flags_);
  fixed.string_count = count_;
  std::memcpy(out.data(), &fixed, sizeof fixed);
  uint8_t* ref = out.data() + sizeof fixed;
  uint8_t* text = ref + count_ * sizeof(StringRef);
  for (const Part& p : std::span(parts_, count_)) {
    const uint32_t bytes = p.value_size + (is_extra(p.id) ? 1u + p.name_size : 0);
    const StringRef r{p.id, static_cast<uint16_t>(bytes | (p.cut ? 0x8000 : 0))};
    std::memcpy(ref, &r, sizeof r);
    ref += sizeof r;
    if (is_extra(p.id)) {
      *text++ = p.name_size;
      std::memcpy(text, p.name, p.name_size);
      text += p.name_size;
    }
    if (p.value_size != 0) std::memcpy(text, p.value, p.value_size);
    text += p.value_size;
  }
}

// ---- reader ---------------------------------------------------------------------------------------------------------------

RecordError check_record(std::span<const uint8_t> bytes, RecordHeader& out) {
  if (bytes.size() < sizeof(RecordHeader)) return RecordError::kTooShort;
  std::memcpy(&out, bytes.data(), sizeof out);
  if (out.version != kEventVersion) return RecordError::kWrongVersion;
  if (out.size != bytes.size()) return RecordError::kWrongSize;
  return RecordError::kNone;
}

RecordError AccessLogView::parse(std::span<const uint8_t> bytes) {
  RecordHeader header;
  if (const RecordError e = check_record(bytes, header); e != RecordError::kNone) return e;
  if (header.type != EventType::kAccessLog) return RecordError::kWrongType;
  if (bytes.size() < sizeof(AccessLogRecord)) return RecordError::kTooShort;
  std::memcpy(&fixed_, bytes.data(), sizeof fixed_);
  const uint32_t count = fixed_.string_count;
  if (count > kMaxRecordStrings) return RecordError::kTooManyStrings;
  const size_t refs = sizeof(AccessLogRecord), text = refs + count * sizeof(StringRef);
  if (text > bytes.size()) return RecordError::kStringsPastEnd;
  if (count != 0) std::memcpy(refs_, bytes.data() + refs, count * sizeof(StringRef));
  text_ = reinterpret_cast<const char*>(bytes.data() + text);
  std::memset(first_, 0, sizeof first_);
  first_extra_ = count;
  uint64_t at = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const StringRef r = refs_[i];
    offsets_[i] = static_cast<uint32_t>(at);
    at += r.size();
    if (text + at > bytes.size()) return RecordError::kStringsPastEnd;
    if (!is_extra(r.id)) {
      uint8_t& first = first_[static_cast<size_t>(r.id)];
      if (first == 0) first = static_cast<uint8_t>(i + 1);
      continue;
    }
    if (r.size() == 0) return RecordError::kBadExtra;
    first_extra_ = std::min(first_extra_, i);
  }
  if (text + at != bytes.size()) return RecordError::kWrongSize;
  return RecordError::kNone;
}

std::optional<std::string_view> AccessLogView::extra(StringId kind, std::string_view lower_case_name) const {
  for (uint32_t i = first_extra_; i < fixed_.string_count; ++i) {
    if (refs_[i].id != kind) continue;
    const std::string_view all = string_at(i);
    if (all.empty()) continue;
    const size_t name_size = static_cast<uint8_t>(all[0]);
    if (1 + name_size > all.size() || all.substr(1, name_size) != lower_case_name) continue;
    return all.substr(1 + name_size);
  }
  return std::nullopt;
}

// ---- loader ---------------------------------------------------------------------------------------------------------------

uint32_t write_loader_event(std::span<uint8_t> out, EventType type, LoaderEvent event, std::string_view text) {
  text = text.substr(0, kMaxLoaderText);
  const uint32_t size = static_cast<uint32_t>(sizeof event + text.size());
  MILLRACE_ASSERT(out.size() >= size, "room for the whole record");
  event.header = {type, kEventVersion, size};
  event.text_size = static_cast<uint32_t>(text.size());
  std::memcpy(out.data(), &event, sizeof event);
  if (!text.empty()) std::memcpy(out.data() + sizeof event, text.data(), text.size());
  return size;
}

RecordError read_loader_event(std::span<const uint8_t> bytes, LoaderEvent& event, std::string_view& text) {
  RecordHeader header;
  if (const RecordError e = check_record(bytes, header); e != RecordError::kNone) return e;
  if (header.type != EventType::kSnapshotAccepted && header.type != EventType::kSnapshotRejected &&
      header.type != EventType::kLoaderNote)
    return RecordError::kWrongType;
  if (bytes.size() < sizeof event) return RecordError::kTooShort;
  std::memcpy(&event, bytes.data(), sizeof event);
  if (event.text_size != bytes.size() - sizeof event) return RecordError::kWrongSize;
  text = {reinterpret_cast<const char*>(bytes.data()) + sizeof event, event.text_size};
  return RecordError::kNone;
}

}  // namespace millrace::stats
