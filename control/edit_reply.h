// Edits and their outcome, as millctl asks for them and sees them.
#pragma once

#include <string>

#include "control/control_plane.h"
#include "control/proto_writer.h"
#include "lib/api/millrace.control.v1.pb.h"

namespace millrace::control {

void fill_reply(const EditOutcome& from, v1::EditReply* to);

// Kubernetes manifests (control/manifests): applied, or taken away, with the conditions of all objects there are then.
void apply_manifests(ControlPlane& plane, const v1::ApplyRequest& rq, const std::string& file, const EditOrigin& origin,
                     v1::EditReply* out);
// False: there is none. The object as it was applied, with its conditions and without secrets.
bool get_manifest(const Model& model, const std::string& name, v1::GetReply* out);
// As the store has it, without secrets.
TextValue stored_text(const Model& model, const std::string& name);

}  // namespace millrace::control
