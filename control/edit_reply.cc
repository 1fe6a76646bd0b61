#include "control/edit_reply.h"

#include <ctime>

#include "control/manifests/apply.h"
#include "control/proto_writer.h"

namespace millrace::control {

namespace pb = millrace::control::v1;

namespace {

void fill_errors(const ConfigErrors& from, google::protobuf::RepeatedPtrField<pb::ConfigError>* to) {
  for (const ConfigError& e : from) {
    pb::ConfigError& out = *to->Add();
    out.set_file(e.file);
    out.set_line(e.line);
    out.set_column(e.column);
    out.set_path(e.path);
    out.set_message(e.message);
  }
}

pb::Acknowledgement acknowledgement(AckState s) {
  switch (s) {
    case AckState::kAcknowledged:
      return pb::IN_FORCE;
    case AckState::kRejected:
      return pb::REJECTED;
    case AckState::kPending:
      return pb::PENDING;
    case AckState::kNotConnected:
      return pb::NOT_CONNECTED;
  }
  return pb::ACKNOWLEDGEMENT_UNKNOWN;
}

}  // namespace

void fill_reply(const EditOutcome& from, pb::EditReply* to) {
  to->set_ok(from.ok);
  to->set_epoch(from.epoch);
  to->set_acknowledgement(acknowledgement(from.acknowledgement.state));
  to->set_reason(from.acknowledgement.reason);
  fill_errors(from.errors, to->mutable_errors());
  fill_errors(from.warnings, to->mutable_warnings());
  for (const ObjectChange& c : from.changes) {
    pb::ObjectChange& out = *to->add_changes();
    out.set_kind(std::string(to_string(c.key.kind)));
    out.set_name(c.key.name);
    out.set_change(c.change == ObjectChange::Kind::kAdded     ? "added"
                   : c.change == ObjectChange::Kind::kRemoved ? "removed"
                                                              : "changed");
    for (const FieldChange& f : c.fields) {
      pb::FieldChange& field = *out.add_fields();
      field.set_path(f.path);
      field.set_before(f.before);
      field.set_after(f.after);
    }
  }
  to->set_compiled(static_cast<uint32_t>(from.compiled));
  to->set_reused(static_cast<uint32_t>(from.reused));
  to->set_compile_us(from.compile_us);
  to->set_live_us(from.live_us);
  to->set_revision(from.revision);
}

void apply_manifests(ControlPlane& plane, const pb::ApplyRequest& rq, const std::string& file, const EditOrigin& origin,
                     pb::EditReply* out) {
  std::vector<manifests::ObjectStatus> status;
  const EditOutcome outcome = plane.edit(
      [&](const Model& m) {
        manifests::Parsed parsed = manifests::parse(rq.text(), file);
        ModelEdit e{m, std::move(parsed.errors)};
        if (rq.remove() && !manifests::is_manifests(rq.text()))
          e.errors.push_back(
              {file, 0, 0, "", "delete takes a file of Kubernetes manifests; other objects are deleted by kind and name"});
        std::vector<std::string> removed;
        if (rq.remove())
          for (const auto& o : parsed.objects) {
            removed.push_back(o->key());
            if (!m.manifests().contains(o->key()))
              e.errors.push_back({file, o->root.line, o->root.column, "metadata.name", "there is no " + o->key()});
          }
        if (!e.errors.empty()) return e;
        if (rq.remove()) parsed.objects.clear();
        return manifests::edit(m, parsed.objects, removed, rq.replace() && !rq.remove(), std::time(nullptr), &status);
      },
      rq.dry_run(), std::chrono::milliseconds(rq.wait_ms()), origin);
  fill_reply(outcome, out);
  if (!outcome.ok) return;
  for (const manifests::ObjectStatus& s : status) {
    pb::ManifestStatus& to = *out->add_manifests();
    to.set_object(s.key);
    to.set_of(s.about);
    for (const manifests::Condition& c : s.conditions) {
      pb::ManifestCondition& condition = *to.add_conditions();
      condition.set_type(c.type);
      condition.set_status(c.status);
      condition.set_reason(c.reason);
      condition.set_message(c.message);
    }
  }
}

bool get_manifest(const Model& model, const std::string& name, pb::GetReply* out) {
  const manifests::Objects objects = manifests::objects_of(model);
  const auto found = objects.find(manifests::find_key(objects, name));
  if (found == objects.end()) return false;
  const manifests::Translation made = manifests::translate(objects, std::time(nullptr));
  const TextValue text = manifests::to_text_value(*found->second, &made.status);
  out->set_found(true);
  out->set_yaml(to_yaml(text));
  out->set_json(to_json(text, true));
  return true;
}

TextValue stored_text(const Model& model, const std::string& name) {
  const ManifestObject& m = *model.manifests().at(name);
  manifest::v1::Manifest shown = *m.config;
  shown.set_json(manifests::to_json(manifests::redacted(*m.object)));
  return to_text_value(shown, true);
}

}  // namespace millrace::control
