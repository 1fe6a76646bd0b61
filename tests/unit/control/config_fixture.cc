#include "tests/unit/control/config_fixture.h"

#include <algorithm>
#include <cstdlib>
#include <unistd.h>

namespace millrace::control {

namespace {

struct WorkDirectory {
  WorkDirectory() {
    char name[] = "/tmp/millrace-config-XXXXXX";
    path = mkdtemp(name);
    const std::string in = "cd " + path.string() + " && exec 2>/dev/null >/dev/null && ";
    ok = std::system((in + "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=a.example "
                           "-addext subjectAltName=DNS:a.example -keyout key.pem -out cert.pem && "
                           "openssl ecparam -genkey -name prime256v1 -out other_key.pem")
                         .c_str()) == 0;
  }
  ~WorkDirectory() {
    std::error_code ignored;
    std::filesystem::current_path("/", ignored);
    std::filesystem::remove_all(path, ignored);
  }
  std::filesystem::path path;
  bool ok = false;
};

}  // namespace

const std::filesystem::path& work_directory() {
  static const WorkDirectory d;
  EXPECT_TRUE(d.ok) << "the openssl program must make the test's certificate";
  return d.path;
}

std::filesystem::path data_directory() { return std::filesystem::path(MILLRACE_SOURCE_ROOT) / "tests" / "unit" / "control"; }

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.is_open()) << path;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<std::filesystem::path> files_in(const std::string& folder) {
  std::vector<std::filesystem::path> out;
  for (const auto& f : std::filesystem::directory_iterator(data_directory() / folder))
    if (f.path().extension() != ".expect") out.push_back(f.path());
  std::sort(out.begin(), out.end());
  return out;
}

std::string errors_of(const ModelEdit& edit) { return to_text(edit.errors); }

Model model_of(const std::string& yaml) {
  ModelEdit edit = Model().replace(load_document(yaml, "test.yaml"));
  EXPECT_EQ(errors_of(edit), "") << yaml;
  return std::move(edit.model);
}

std::string gateway_yaml(const std::string& routes) {
  std::string indented;
  std::istringstream lines(routes);
  for (std::string line; std::getline(lines, line);) indented += "              " + line + "\n";
  return R"(
static_resources:
  listeners:
  - name: edge
    address: { socket_address: { address: 0.0.0.0, port_value: 8080 } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          http_filters:
          - name: envoy.filters.http.router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
          route_config:
            name: main
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
)" + indented +
         R"(
  clusters:
  - name: api
    load_assignment:
      cluster_name: api
      endpoints:
      - lb_endpoints:
        - endpoint: { address: { socket_address: { address: 10.0.0.1, port_value: 80 } } }
        - endpoint: { address: { socket_address: { address: "fd00::2", port_value: 80 } } }
  - name: canary
    connect_timeout: 1s
    load_assignment:
      cluster_name: canary
      endpoints:
      - lb_endpoints:
        - endpoint: { address: { socket_address: { address: 10.0.1.1, port_value: 80 } } }
)";
}

}  // namespace millrace::control
