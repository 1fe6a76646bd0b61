// Model to table objects (lib/table): what the data plane reads. Incremental: a Compiler remembers, for each object, the model
// parts that it was made of; a part that is the same pointer as last time is not looked at again. The same input gives the same
// bytes.
//   ListenerObject -> listener         SecretObject -> secret
//   RouteObject    -> route table  +  one virtual host object each, named "ROUTE/VIRTUAL_HOST"
//   ClusterObject  -> cluster          EndpointsObject -> endpoint set (named as the cluster)
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "control/model.h"
#include "control/source_map.h"
#include "lib/table/layout.h"

namespace millrace::control {

// One compiled object. `bytes` is the whole blob, header included, aligned to 8; header.version means nothing (publication sets
// its own).
struct TableObject {
  table::Kind kind;
  std::string name;
  table::ObjectId id = table::kNoObject;
  std::shared_ptr<const std::vector<uint64_t>> words;  // 8-byte aligned storage of the blob
  size_t size_bytes = 0;

  const uint8_t* bytes() const { return reinterpret_cast<const uint8_t*>(words->data()); }
};

struct CompileResult {
  std::vector<TableObject> changed;      // new or different bytes, in make-before-break order (secret ... listener)
  std::vector<table::ObjectId> removed;  // no longer in the model
  uint32_t reused = 0;                   // objects left as they were
  ConfigErrors errors;                   // what cannot be compiled, and why
  std::vector<ConfigKey> failed;         // which objects those are
  bool ok() const { return errors.empty(); }
};

class Compiler {
 public:
  Compiler();
  ~Compiler();
  Compiler(Compiler&&) noexcept;
  Compiler& operator=(Compiler&&) noexcept;

  // Brings the set of table objects up to the model. May take seconds for regex-heavy virtual hosts: call it off the serving
  // thread.
  //   kAllOrNothing  with any error nothing changes: the Compiler stays at the last good model, `changed` and `removed` are empty
  //   kTakeGood      an object with an error keeps its last good bytes; one that never had any is left out
  enum class Policy : uint8_t { kAllOrNothing, kTakeGood };
  CompileResult compile(const Model& model, Policy policy = Policy::kAllOrNothing);

  // Every live object of the last compile (to publish all of it to a data plane that starts).
  std::vector<TableObject> objects() const;
  // One of them; null when there is none.
  const TableObject* find(table::Kind kind, const std::string& name) const;
  size_t size() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace::control
