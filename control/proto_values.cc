#include "control/proto_values.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace millrace::control {

base::Result<std::string> read_data_source(const envoy::config::core::v3::DataSource& source) {
  using Source = envoy::config::core::v3::DataSource;
  switch (source.specifier_case()) {
    case Source::kInlineBytes:
      return source.inline_bytes();
    case Source::kInlineString:
      return source.inline_string();
    case Source::kFilename:
      break;
    case Source::SPECIFIER_NOT_SET:
      return base::Error{"says neither filename nor inline_string nor inline_bytes"};
  }
  const std::string& name = source.filename();
  std::error_code bad;
  const auto status = std::filesystem::status(name, bad);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    return base::Error{name + " is not a regular file"};  // a FIFO would block us
  errno = 0;
  std::ifstream in(name, std::ios::binary);
  if (!in.is_open()) return base::Error{"cannot read " + name + ": " + std::strerror(errno)};
  std::string bytes;
  char block[16384];
  while (in.read(block, sizeof block) || in.gcount() > 0) {
    bytes.append(block, static_cast<size_t>(in.gcount()));
    if (bytes.size() > kMaxDataSourceBytes)
      return base::Error{name + " is larger than " + std::to_string(kMaxDataSourceBytes >> 20) + " MiB"};
  }
  if (in.bad()) return base::Error{"cannot read " + name + ": " + std::strerror(errno)};
  return bytes;
}

}  // namespace millrace::control
