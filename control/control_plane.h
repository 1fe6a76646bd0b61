// The heart of millrace-control: one model, one compiler, one publisher, and the rule by which they change together.
//
//   edit(model -> ModelEdit) ─▶ errors? refused, nothing changed
//                            └▶ compile ─▶ publish (epoch) ─▶ store ─▶ the edit is the model
//
// An edit is all or nothing: it is the model, in the store and published, or it is none of these. Edits come one after another (a
// mutex); readers take the current model as a shared pointer and are never held up.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "control/access_log.h"
#include "control/compile.h"
#include "control/dataplane_link.h"
#include "control/dns_watch.h"
#include "control/dynamic_resources.h"
#include "control/explain.h"
#include "control/inspections.h"
#include "control/log_book.h"
#include "control/model.h"
#include "control/publisher.h"
#include "control/stats_sinks.h"
#include "control/store.h"
#include "control/warming.h"
#include "lib/base/status.h"

namespace millrace::control {

class DynamicConfig;

struct ControlConfig {
  std::string config_file;                // "" : start empty
  std::string run_dir = "/run/millrace";  // dataplane.sock, control.sock
  std::string store_file;                 // "" : <run_dir>/control.db
  bool discard_edits = false;             // start from the configuration file even when the store holds edits of it
  DynamicOptions dynamic;                 // management servers; dynamic_resources of the configuration file go before
  std::string version;                    // of the program, for management servers
};

struct EditOutcome {
  bool ok = false;
  ConfigErrors errors;
  ConfigErrors warnings;
  std::vector<ObjectChange> changes;
  uint64_t epoch = 0;
  uint64_t revision = 0;  // in the history; 0: nothing was changed
  size_t compiled = 0, reused = 0;
  uint64_t compile_us = 0, live_us = 0;
  Acknowledgement acknowledgement;  // of `epoch`, after the wait that was asked for
};

class XdsFiles;
class XdsStream;

class ControlPlane {
 public:
  // Loads configuration and store, compiles, and connects to the data plane in the background. `errors` gets every complaint
  // about the configuration, with its place; the result is then null with a closing sentence.
  static base::Result<std::unique_ptr<ControlPlane>> start(const ControlConfig& config, ConfigErrors* errors);
  ~ControlPlane();

  using Edit = std::function<ModelEdit(const Model&)>;
  // Runs one edit; `dry_run` stops after compiling. `wait`: for the acknowledgement of every worker.
  EditOutcome edit(const Edit& edit, bool dry_run, std::chrono::milliseconds wait, const EditOrigin& origin = {});
  // Edits back to what was in force right after revision `to`; without it, undoes the newest revision. An edit like any other,
  // with a revision of its own.
  EditOutcome rollback(std::optional<uint64_t> to, bool dry_run, std::chrono::milliseconds wait, EditOrigin origin);
  std::vector<Revision> history(size_t limit);  // newest first; 0: all

  std::shared_ptr<const Model> model() const;  // everything that was accepted
  // What of it is in force: without objects that wait for others, or with what they were (control/warming.h).
  std::shared_ptr<const Model> in_force() const;

  // What management servers change: no revision, not stored, never refused as a whole. `change` gets the model and makes the new
  // one; it may tell the Warming of names given up. Objects that cannot be compiled stay in force as they were.
  struct DynamicOutcome {
    uint64_t epoch = 0;
    bool published = false;         // something was
    ConfigErrors errors;            // of compilation
    std::vector<ConfigKey> failed;  // of which objects
    std::string not_published;      // why; "": it was, or is held back
  };
  using DynamicChange = std::function<std::optional<Model>(const Model&, Warming&)>;  // nullopt: nothing changes
  DynamicOutcome change(const DynamicChange& change);
  uint64_t wanted_generation() const { return wanted_generation_; }  // Warming::generation()
  base::TimeNs next_deadline() const { return next_deadline_; }      // when change() is due though nothing happened
  size_t waiting() const { return waiting_; }                        // objects that are not in force as they were accepted
  std::set<ConfigKey> waiting_objects();
  DynamicConfig& dynamic_config() { return *dynamic_; }
  const XdsFiles& xds_files() const { return *xds_files_; }
  const XdsStream* xds_stream() const { return xds_.get(); }  // null: the configuration names no management server
  // Called after every edit by hand and every expiry, with no lock held: names that are asked for may be others now.
  void on_edited(std::function<void()> call);
  // Before start() has published: nothing is, until release(). The data plane goes on with the tables of an earlier control, and
  // a new one opens nothing (as Envoy before its first fetch).
  bool held_back() const { return held_back_; }
  void release(const std::string& why);
  // The epoch that the data plane had from an earlier control, when it was linked; 0: none, or not linked yet.
  uint64_t inherited_epoch() const { return publisher_->inherited_epoch(); }
  Explanation explain_request(const ExplainRequest& request);

  Publisher& publisher() { return *publisher_; }
  DataplaneLink& link() { return *link_; }
  AccessLogger& access_log() { return access_log_; }
  Inspections& inspections() { return inspections_; }
  StatsSinks& stats_sinks() { return *stats_sinks_; }
  // The model in force with the addresses of its host names.
  std::shared_ptr<const Model> resolved_model() const;
  const ControlConfig& config() const { return config_; }
  const std::optional<AdminConfig>& admin_config() const { return admin_config_; }
  const std::string& node_id() const { return node_id_; }
  const std::string& node_cluster() const { return node_cluster_; }
  bool has_edits() const { return edited_; }
  std::chrono::steady_clock::time_point started() const { return started_; }

 private:
  ControlPlane();
  base::Status load(ConfigErrors* errors);
  base::Status start_xds(ConfigErrors* errors);
  base::Status make_stream(ConfigErrors* errors);
  void set_access_log_sinks();
  // Holds edit_mutex_, as all that follows. `wait`: for names that were never asked for.
  CompileResult compile(const Model& model, bool wait, Compiler::Policy policy = Compiler::Policy::kAllOrNothing);
  CompileResult compile_edit(const Model& model, bool wait);
  void take(Model model);  // is the model from here on
  void tell_edited();
  void publish_addresses();  // what DNS answered, without an edit
  base::Status publish(const CompileResult& compiled, uint64_t* epoch);
  // The objects before the first edit: until then the configuration file is the store. Holds edit_mutex_.
  base::Status fill_store(const Model& model);
  base::Result<uint64_t> store_changes(const Model& before, const Model& model, const std::vector<ObjectChange>& changes,
                                       const EditOrigin& origin);
  static constexpr size_t kMaxRevisionText = 64 * 1024;  // of a revision's changes in the history

  ControlConfig config_;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::mutex edit_mutex_;  // held through an edit; guards compiler_ and store_
  Compiler compiler_;
  std::unique_ptr<Store> store_;
  bool store_filled_ = false;
  std::thread filler_;
  Warming warming_;                                                           // guarded by edit_mutex_
  std::set<ConfigKey> failing_;                                               // dynamic objects that could not be compiled
  std::atomic<uint64_t> wanted_generation_{0}, next_deadline_{base::kNever};  // copies, of warming_
  std::atomic<size_t> waiting_{0};
  std::atomic<bool> held_back_{false};
  bool publish_everything_ = false;  // something could not be published
  mutable std::mutex model_mutex_;   // guards the pointers only
  std::shared_ptr<const Model> model_ = std::make_shared<const Model>(), in_force_ = model_;
  std::mutex hook_mutex_;
  std::function<void()> edited_hook_;
  std::atomic<bool> edited_{false};
  AccessLogger access_log_;
  Inspections inspections_;
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<DataplaneLink> link_;
  StatsSinksConfig sinks_config_;
  std::optional<AdminConfig> admin_config_;
  std::string node_id_, node_cluster_;
  std::unique_ptr<StatsSinks> stats_sinks_;
  std::unique_ptr<DnsWatch> dns_;
  DynamicOptions dynamic_options_;
  std::unique_ptr<DynamicConfig> dynamic_;
  XdsConfig xds_config_;
  std::unique_ptr<XdsFiles> xds_files_;
  std::unique_ptr<XdsStream> xds_;
};

}  // namespace millrace::control
