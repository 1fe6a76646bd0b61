// TextValue (proto_writer.h) put together by hand: the JSON of pages that are no messages of ours.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>

#include "control/proto_writer.h"

namespace millrace::control::admin {

inline TextValue text(std::string s) {
  TextValue v;
  v.text = std::move(s);
  v.quoted = true;
  return v;
}
inline TextValue number(uint64_t n) {  // 32 bits; 64 bits go as text, as in proto3 JSON: text(std::to_string(n))
  TextValue v;
  v.text = std::to_string(n);
  return v;
}
inline TextValue boolean(bool b) {
  TextValue v;
  v.text = b ? "true" : "false";
  return v;
}
inline TextValue list() {
  TextValue v;
  v.kind = TextValue::Kind::kList;
  return v;
}
inline TextValue map(std::initializer_list<std::pair<const char*, TextValue>> members = {}) {
  TextValue v;
  v.kind = TextValue::Kind::kMap;
  for (const auto& [name, value] : members) v.members.emplace_back(name, value);
  return v;
}
inline void append(TextValue& list, TextValue element) { list.members.emplace_back("", std::move(element)); }
inline void put(TextValue& map, std::string name, TextValue value) {
  map.members.emplace_back(std::move(name), std::move(value));
}

// {"socket_address": {"address": A, "port_value": P}}
inline TextValue socket_address(const std::string& address, uint64_t port) {
  return map({{"socket_address", map({{"address", text(address)}, {"port_value", number(port)}})}});
}

}  // namespace millrace::control::admin
