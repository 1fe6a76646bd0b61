// Manifests as part of the model: the set that was applied so far, with what is made of it. The whole set is translated anew by
// every edit; what came of it under the same name and did not change keeps its pointer (Model), so an edit costs what it changes.
#pragma once

#include <string>
#include <vector>

#include "control/manifests/translate.h"
#include "control/model.h"
#include "control/proto_writer.h"

namespace millrace::control::manifests {

Objects objects_of(const Model& model);

// Adds or replaces (`replace`: these and no others), and takes away; objects of other origin stay as they are.
ModelEdit edit(const Model& model, const std::vector<std::shared_ptr<const Object>>& put, const std::vector<std::string>& removed,
               bool replace, int64_t now_unix, std::vector<ObjectStatus>* status = nullptr);

// As people may see it: without secrets; with `status`, its conditions under `status`.
TextValue to_text_value(const Object& object, const std::vector<ObjectStatus>* status = nullptr);

// What does not hold of an object's conditions, or which hold, for lists.
std::string summary(const std::vector<ObjectStatus>& status, const std::string& key);

}  // namespace millrace::control::manifests
