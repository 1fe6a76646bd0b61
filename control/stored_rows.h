// A model as rows of the store, and back. An object is a row; the virtual hosts of a route configuration are rows of their own,
// named by where the configuration stands in the object ("", "filter_chains[2]", "default_filter_chain"), a slash, and the host's
// name.
#pragma once

#include <string>
#include <vector>

#include "control/model.h"
#include "control/store.h"

namespace millrace::control {

// Every row of the model (Model::stored_keys).
std::vector<StoredRow> all_rows(const Model& model);

struct RowChanges {
  std::vector<StoredRow> put;
  std::vector<StoredKey> removed;
};
// What leads from one model to the other, for the objects named (owners, Model::owner). Virtual hosts that are the same object at
// the same place are not looked at.
RowChanges row_changes(const Model& before, const Model& after, const std::vector<ConfigKey>& keys);

// Objects put together again, by object and position as the store gives them; errors name `file` and the object.
Document to_document(const std::vector<StoredRow>& rows, const std::string& file);

}  // namespace millrace::control
