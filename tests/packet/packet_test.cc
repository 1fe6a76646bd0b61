// Every script under a folder is a test of its own: unit_packet DIR [gtest options], or one script: unit_packet FILE.pkt.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

#include "tests/packet/player.h"

namespace millrace::packet {
namespace {

namespace fs = std::filesystem;

class ScriptTest : public testing::Test {
 public:
  explicit ScriptTest(fs::path file) : file_(std::move(file)) {}
  void TestBody() override {
    std::ifstream in(file_);
    const std::string text((std::istreambuf_iterator<char>(in)), {});
    const std::string name = file_.parent_path().filename().string() + "/" + file_.filename().string();
    Script script;
    ScriptError error;
    if (!parse_script(text, script, error)) {
      ADD_FAILURE() << name << ":" << error.line << ": " << error.why;
      return;
    }
    const auto subject = make_tcp_subject();
    const std::string why = play(script, name, *subject);
    if (!why.empty()) ADD_FAILURE() << why << "\n  which shows " << script.shows;
  }

 private:
  fs::path file_;
};

void add(const fs::path& file) {
  const std::string suite = "Packet_" + file.parent_path().filename().string(), name = file.stem().string();
  testing::RegisterTest(suite.c_str(), name.c_str(), nullptr, nullptr, file.c_str(), 1,
                        [file]() -> testing::Test* { return new ScriptTest(file); });
}

}  // namespace
}  // namespace millrace::packet

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  std::vector<std::filesystem::path> files;
  for (int i = 1; i < argc; ++i) {
    const std::filesystem::path at = argv[i];
    if (std::filesystem::is_regular_file(at)) files.push_back(std::filesystem::absolute(at));
    else if (std::filesystem::is_directory(at))
      for (const auto& entry : std::filesystem::recursive_directory_iterator(at))
        if (entry.path().extension() == ".pkt") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const auto& f : files) millrace::packet::add(f);
  if (files.empty()) {
    std::fprintf(stderr, "usage: %s FOLDER|SCRIPT.pkt ... [--gtest_...]\n", argv[0]);
    return 2;
  }
  return RUN_ALL_TESTS();
}
