// Resources out of files: what is read, what is refused, and what follows the moves of files and directories.
#include "control/xds_files.h"

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <stdlib.h>
#include <unistd.h>
#include <utility>

#include <gtest/gtest.h>

#include "lib/api/envoy.config.cluster.v3.pb.h"
#include "lib/api/envoy.service.discovery.v3.pb.h"

namespace millrace::control {
namespace {

namespace fs = std::filesystem;
namespace discovery = envoy::service::discovery::v3;

std::string cluster_text(const std::string& name, const std::string& more = "") {
  return "- { \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: " + name + more + " }\n";
}
std::string assignment_text(const std::string& name) {
  return "- { \"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, cluster_name: " + name + " }\n";
}

// What reaches it: "CDS v=1 +a -b"; "expired CDS x".
class Sink : public XdsSink {
 public:
  std::vector<XdsRejection> apply(const XdsUpdate& u) override {
    std::vector<XdsRejection> out;
    std::string line = std::string(short_name(u.type)) + " v=" + u.version;
    for (const XdsResource& r : u.changed) {
      const bool bad = !r.bad.empty() || refuse.contains(r.name);
      line += (bad ? " !" : " +") + r.name;
      if (bad) out.push_back({r.name, r.bad.empty() ? "refused" : r.bad});
      if (bad) reasons += r.bad;
    }
    for (const std::string& n : u.removed) line += " -" + n;
    said += line + "\n";
    if (on_apply) on_apply();
    return out;
  }
  void expired(XdsType type, std::string_view name) override {
    said += "expired " + std::string(short_name(type)) + (name.empty() ? "" : " " + std::string(name)) + "\n";
  }
  std::set<std::string> wanted(XdsType) override { return {}; }
  std::vector<XdsFileWant> wanted_files() override { return wants; }
  uint64_t wanted_generation() override { return generation; }
  void want(std::vector<XdsFileWant> w) {
    wants = std::move(w);
    ++generation;
  }
  std::string take() { return std::exchange(said, {}); }

  std::string said, reasons;
  std::set<std::string> refuse;
  std::vector<XdsFileWant> wants;
  uint64_t generation = 1;
  std::function<void()> on_apply;
};

class Files : public testing::Test {
 protected:
  Files() {
    std::string name = "/tmp/millrace-xds-files-XXXXXX";
    dir_ = mkdtemp(name.data());
  }
  ~Files() override { fs::remove_all(dir_); }
  std::string path(const std::string& name) const { return dir_ + "/" + name; }
  void write(const std::string& name, const std::string& content) const { std::ofstream(path(name)) << content; }
  void swap(const std::string& name, const std::string& content) const {
    write(name + ".new", content);
    fs::rename(path(name + ".new"), path(name));
  }
  XdsFiles& start(const std::string& clusters = "") {
    files_ = std::make_unique<XdsFiles>(clusters.empty() ? ResourceFile{} : ResourceFile{path(clusters), ""}, ResourceFile{},
                                        sink_, [this](const std::string& line) { log_ += line + "\n"; });
    files_->turn(false);
    return *files_;
  }
  std::string turn() {
    files_->turn(false);
    return sink_.take();
  }

  std::string dir_, log_;
  Sink sink_;
  std::unique_ptr<XdsFiles> files_;
};

TEST_F(Files, TheFileIsTheWholeWorldOfClusters) {
  write("cds.yaml", "version_info: 1\nresources:\n" + cluster_text("a") + cluster_text("b"));
  start("cds.yaml");
  EXPECT_EQ(sink_.take(), "CDS v=1 +a +b\n");
  EXPECT_EQ(turn(), "");
  swap("cds.yaml", "version_info: 2\nresources:\n" + cluster_text("b") + cluster_text("c"));
  EXPECT_EQ(turn(), "CDS v=2 +c -a\n");
  write("other.yaml", "x");
  EXPECT_EQ(turn(), "") << "another file of the directory";
  write("cds.yaml", "version_info: 3\nresources:\n" + cluster_text("b"));  // in place
  EXPECT_EQ(turn(), "CDS v=3 -c\n");
  const XdsTypeStats stats = files_->status().types[static_cast<size_t>(XdsType::kCluster)].stats;
  EXPECT_EQ(stats.update_attempt, 3u);
  EXPECT_EQ(stats.update_success, 3u);
  EXPECT_EQ(stats.version, "3");
}

TEST_F(Files, OneBadResourceIsNamedAndTheRestIsTaken) {
  write("cds.yaml", "version_info: 1\nresources:\n" + cluster_text("a") + cluster_text("bad", ", conect_timeout: 1s") +
                        "- null\n" + cluster_text("c"));
  start("cds.yaml");
  EXPECT_EQ(sink_.take(), "CDS v=1 +a !bad +c\n");
  EXPECT_NE(sink_.reasons.find("cds.yaml:4:"), std::string::npos) << sink_.reasons;
  EXPECT_NE(sink_.reasons.find("resources[1].conect_timeout"), std::string::npos) << sink_.reasons;
  EXPECT_NE(log_.find("resources[2]"), std::string::npos) << log_;
  const std::string said = log_;
  swap("cds.yaml", "version_info: 1\nresources:\n" + cluster_text("a") + cluster_text("bad", ", conect_timeout: 1s") +
                       "- null\n" + cluster_text("c"));
  EXPECT_EQ(turn(), "CDS v=1 !bad\n");
  EXPECT_EQ(log_, said) << "a complaint is made once";
  EXPECT_EQ(files_->status().types[static_cast<size_t>(XdsType::kCluster)].stats.update_rejected, 2u);
  // With something nameless in it nobody knows what is gone.
  swap("cds.yaml", "version_info: 2\nresources:\n- null\n" + cluster_text("a"));
  EXPECT_EQ(turn(), "CDS v=2\n");
  swap("cds.yaml", "version_info: 3\nresources:\n" + cluster_text("a"));
  EXPECT_EQ(turn(), "CDS v=3 -bad -c\n");
}

TEST_F(Files, WhatTheSinkRefusesIsTriedAgain) {
  sink_.refuse = {"a"};
  write("cds.yaml", "version_info: 1\nresources:\n" + cluster_text("a") + cluster_text("b"));
  start("cds.yaml");
  EXPECT_EQ(sink_.take(), "CDS v=1 !a +b\n");
  sink_.refuse.clear();
  swap("cds.yaml", "version_info: 2\nresources:\n" + cluster_text("a") + cluster_text("b"));
  EXPECT_EQ(turn(), "CDS v=2 +a\n");
}

TEST_F(Files, AFileThatCannotBeReadLeavesEverythingAsItWas) {
  start("cds.yaml");
  EXPECT_EQ(sink_.take(), "expired CDS\n");
  EXPECT_NE(log_.find("cds.yaml: cannot be read: No such file or directory"), std::string::npos) << log_;
  EXPECT_NE(files_->files().at(0).error, "");
  swap("cds.yaml", "version_info: 1\nresources:\n" + cluster_text("a"));
  EXPECT_EQ(turn(), "CDS v=1 +a\n");
  EXPECT_EQ(files_->files().at(0).error, "");
  for (const char* bad : {"resources: [", "[]", "recources: []", "type_url: type.googleapis.com/envoy.config.route.v3.Route",
                          "version_info: []", "resources: {}"}) {
    swap("cds.yaml", bad);
    EXPECT_EQ(turn(), "") << bad;
    EXPECT_NE(files_->files().at(0).error.find("cds.yaml:1:"), std::string::npos) << files_->files().at(0).error;
  }
  EXPECT_EQ(files_->status().types[static_cast<size_t>(XdsType::kCluster)].stats.update_failure, 7u);
  EXPECT_EQ(files_->files().at(0).version, "1");
}

TEST_F(Files, NamesAreTakenOutOfTheFileThatTheyAreAskedOf) {
  const ResourceFile file{path("eds.yaml"), ""};
  write("eds.yaml", "version_info: 1\nresources:\n" + assignment_text("a") + assignment_text("b") + assignment_text("c"));
  sink_.want({{XdsType::kEndpoints, "a", file}, {XdsType::kEndpoints, "missing", file}});
  start();
  EXPECT_EQ(sink_.take(), "EDS v=1 +a !missing\nexpired EDS missing\n");
  EXPECT_NE(sink_.reasons.find("eds.yaml holds no resource of this name"), std::string::npos);
  sink_.want({{XdsType::kEndpoints, "a", file}, {XdsType::kEndpoints, "b", file}});
  EXPECT_EQ(turn(), "EDS v=1 +b\n");
  const auto names = files_->status().names;
  EXPECT_EQ(names.size(), 2u);
  EXPECT_EQ(names.at({XdsType::kEndpoints, "b"}).update_success, 1u);
  EXPECT_EQ(names.at({XdsType::kEndpoints, "b"}).version, "1");
  // Who comes again is told again.
  sink_.want({{XdsType::kEndpoints, "b", file}});
  EXPECT_EQ(turn(), "");
  sink_.want({{XdsType::kEndpoints, "a", file}, {XdsType::kEndpoints, "b", file}});
  EXPECT_EQ(turn(), "EDS v=1 +a\n");
}

// Clusters that ask for endpoints of another file are followed at once.
TEST_F(Files, WhatIsReadMayAskForMore) {
  write("cds.yaml", "version_info: 1\nresources:\n" + cluster_text("a"));
  write("eds.yaml", "version_info: 7\nresources:\n" + assignment_text("a"));
  sink_.on_apply = [&, once = false]() mutable {
    if (!std::exchange(once, true)) sink_.want({{XdsType::kEndpoints, "a", {path("eds.yaml"), ""}}});
  };
  start("cds.yaml");
  EXPECT_EQ(sink_.take(), "CDS v=1 +a\nEDS v=7 +a\n");
}

// As Kubernetes mounts a ConfigMap: the file is a link through "..data", and that link is replaced.
TEST_F(Files, AWatchedDirectoryFollowsASwapOfLinks) {
  fs::create_directory(path("one"));
  write("one/eds.yaml", "version_info: 1\nresources:\n" + assignment_text("a"));
  fs::create_directory_symlink("one", path("..data"));
  fs::create_symlink("..data/eds.yaml", path("eds.yaml"));
  sink_.want({{XdsType::kEndpoints, "a", {path("eds.yaml"), dir_}}});
  start();
  EXPECT_EQ(sink_.take(), "EDS v=1 +a\n");
  fs::create_directory(path("two"));
  write("two/eds.yaml",
        "version_info: 2\nresources:\n- { \"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, "
        "cluster_name: a, policy: { overprovisioning_factor: 150 } }\n");
  EXPECT_EQ(turn(), "");
  fs::create_directory_symlink("two", path("..new"));
  fs::rename(path("..new"), path("..data"));
  EXPECT_EQ(turn(), "EDS v=2 +a\n");
}

TEST_F(Files, ADirectoryMayComeLaterAndGo) {
  sink_.want({{XdsType::kEndpoints, "a", {path("later/eds.yaml"), ""}}});
  start();
  EXPECT_EQ(sink_.take(), "expired EDS a\n");
  EXPECT_EQ(turn(), "");
  fs::create_directory(path("later"));
  write("later/eds.yaml", "version_info: 1\nresources:\n" + assignment_text("a"));
  EXPECT_EQ(turn(), "EDS v=1 +a\n");
  fs::remove_all(path("later"));
  EXPECT_EQ(turn(), "") << "what was read stays";
  fs::create_directory(path("later"));
  write("later/eds.yaml", "version_info: 2\nresources:\n" + assignment_text("a"));
  EXPECT_EQ(turn(), "") << "the same content";
  EXPECT_EQ(files_->files().at(0).version, "2");
}

TEST(XdsFileFormats, AllSayTheSame) {
  envoy::config::cluster::v3::Cluster c;
  c.set_name("a");
  discovery::DiscoveryResponse message;
  message.set_version_info("4");
  message.add_resources()->PackFrom(c);
  const std::string binary = message.SerializeAsString();
  const std::string text =
      "version_info: \"4\" resources { [type.googleapis.com/envoy.config.cluster.v3.Cluster] { name: \"a\" } }";
  const std::string json =
      R"({"versionInfo": "4", "resources": [{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "a"}]})";
  const std::string yaml = "version_info: \"4\"\nresources:\n" + cluster_text("a");
  for (const auto& [path, content] :
       {std::pair{"x.pb", binary}, {"x.pb_text", text}, {"x.json", json}, {"x.yaml", yaml}, {"x", json}}) {
    const FileResources r = read_resources(content, path, XdsType::kCluster);
    EXPECT_EQ(r.bad, "") << path;
    ASSERT_EQ(r.response.resources.size(), 1u) << path;
    EXPECT_EQ(r.response.version, "4") << path;
    EXPECT_EQ(r.response.resources[0].name, "a") << path;
    EXPECT_EQ(r.response.resources[0].bad, "") << path;
    EXPECT_EQ(r.response.resources[0].body, c.SerializeAsString()) << path;
    const FileResources other = read_resources(content, path, XdsType::kListener);
    EXPECT_EQ(other.response.resources[0].bad,
              "is a type.googleapis.com/envoy.config.cluster.v3.Cluster in a response of "
              "type.googleapis.com/envoy.config.listener.v3.Listener")
        << path;
  }
  EXPECT_EQ(read_resources("\xff\xff", "x.pb", XdsType::kCluster).bad, "x.pb: is no DiscoveryResponse: its bytes cannot be read");
  EXPECT_EQ(read_resources("nonsense: 1", "x.pb_text", XdsType::kCluster).bad.substr(0, 14), "x.pb_text:1:9:");
  EXPECT_NE(read_resources(cluster_text("a"), "x.yaml", XdsType::kCluster).bad, "");
  EXPECT_EQ(read_resources("resources: []", "x.yaml", XdsType::kCluster).response.version.size(), 16u) << "a hash";
}

TEST_F(Files, TheThreadFollowsToo) {
  write("cds.yaml", "version_info: 1\nresources:\n" + cluster_text("a"));
  std::mutex mutex;
  std::condition_variable changed;
  int applied = 0;
  sink_.on_apply = [&] {
    const std::lock_guard lock(mutex);
    ++applied;
    changed.notify_all();
  };
  files_ = std::make_unique<XdsFiles>(ResourceFile{path("cds.yaml"), ""}, ResourceFile{}, sink_, [](const std::string&) {});
  files_->start();
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return applied == 1; });
  lock.unlock();
  swap("cds.yaml", "version_info: 2\nresources:\n" + cluster_text("b"));
  lock.lock();
  changed.wait(lock, [&] { return applied == 2; });
  lock.unlock();
  files_->stop();
  EXPECT_EQ(sink_.take(), "CDS v=1 +a\nCDS v=2 +b -a\n");
}

}  // namespace
}  // namespace millrace::control
