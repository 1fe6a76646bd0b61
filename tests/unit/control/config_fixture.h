// What the configuration tests share: the folder of data files, and a working directory with a certificate that they name.
#pragma once

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "control/model.h"

namespace millrace::control {

// A temporary working directory with cert.pem, key.pem (ECDSA P-256, a.example) and other_key.pem; made once, removed at exit.
const std::filesystem::path& work_directory();
std::filesystem::path data_directory();  // tests/unit/control
std::string read_file(const std::filesystem::path& path);
std::vector<std::filesystem::path> files_in(const std::string& folder);  // of data_directory(), sorted

// A model from YAML that must be right.
Model model_of(const std::string& yaml);
std::string errors_of(const ModelEdit& edit);

// One HTTP listener "edge" on port 8080 with the routes (a YAML list) in virtual host "all", clusters "api" and "canary".
std::string gateway_yaml(const std::string& routes);

class ConfigTest : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::current_path(work_directory()); }
};

}  // namespace millrace::control
