// Any bytes are a document or a list of errors. What is good goes out as YAML and JSON and comes back the same; what is bad is
// refused with positions inside the text.
#include "control/config_loader.h"

#include <algorithm>

#include "control/model.h"
#include "tests/fuzz/require.h"

using namespace millrace::control;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto lines =
      static_cast<uint32_t>(std::count(text.begin(), text.end(), '\n') + std::count(text.begin(), text.end(), '\r') + 2);
  for (const char* file : {"input.yaml", "input.json"}) {
    const Document document = load_document(text, file);
    for (const ConfigError& e : document.errors) FUZZ_REQUIRE(e.line <= lines && !e.message.empty());
    for (const LoadedObject& o : document.objects) {
      if (o.bad) continue;
      std::unique_ptr<google::protobuf::Message> yaml(o.message->New()), json(o.message->New());
      const std::string expected = to_json(*o.message);
      FUZZ_REQUIRE(load_message(to_yaml(*o.message), "y.yaml", yaml.get()).empty());
      FUZZ_REQUIRE(load_message(expected, "j.json", json.get()).empty());
      FUZZ_REQUIRE(to_json(*yaml) == expected && to_json(*json) == expected);
    }
    const ModelEdit edit = Model().replace(document);
    FUZZ_REQUIRE(edit.errors.size() <= kMaxConfigErrors + 1);
    FUZZ_REQUIRE(document.errors.empty() || !edit.errors.empty());
    for (const ConfigKind kind :
         {ConfigKind::kSecret, ConfigKind::kEndpoints, ConfigKind::kCluster, ConfigKind::kRoute, ConfigKind::kListener})
      for (const std::string& name : edit.model.names(kind)) FUZZ_REQUIRE(edit.model.message({kind, name}) != nullptr);
  }
  return 0;
}
