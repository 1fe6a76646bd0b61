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
  using Make = std::unique_ptr<Subject> (*)();
  ScriptTest(fs::path file, Make make) : file_(std::move(file)), make_(make) {}
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
    const auto subject = make_();
    const std::string why = play(script, name, *subject);
    if (!why.empty()) ADD_FAILURE() << why << "\n  which shows " << script.shows;
  }

 private:
  fs::path file_;
  Make make_;
};

void add_for(const fs::path& file, const std::string& against, ScriptTest::Make make) {
  const std::string suite = "Packet_" + file.parent_path().filename().string() + against, name = file.stem().string();
  testing::RegisterTest(suite.c_str(), name.c_str(), nullptr, nullptr, file.c_str(), 1,
                        [file, make]() -> testing::Test* { return new ScriptTest(file, make); });
}

// Topics below stack/ are about frames: against the whole stack, over both families, unless their name
// ends in _v4 or _v6. All others are about lib/tcp.
void add(const fs::path& file) {
  if (file.parent_path().parent_path().filename() != "stack") return add_for(file, "", make_tcp_subject);
  const std::string name = file.stem().string();
  if (!name.ends_with("_v6")) add_for(file, "_ipv4", [] { return make_stack_subject(false); });
  if (!name.ends_with("_v4")) add_for(file, "_ipv6", [] { return make_stack_subject(true); });
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
