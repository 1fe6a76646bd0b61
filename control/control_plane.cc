#include "control/control_plane.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <set>
#include <sstream>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "control/config_loader.h"
#include "control/dynamic_config.h"
#include "control/monotonic.h"
#include "control/stored_rows.h"
#include "control/xds_channel.h"
#include "control/xds_files.h"
#include "control/xds_stream.h"
#include "lib/base/hash.h"
#include "lib/route/pattern_db.h"

namespace millrace::control {

using std::chrono::duration_cast;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

// How long start and edits wait for names that have never been asked for: c-ares gives up a silent server after more.
constexpr milliseconds kWarmWait{5000};

uint64_t random_u64() {
  uint64_t v = 0;
  while (v == 0)
    if (getrandom(&v, sizeof v, 0) != sizeof v) v = 0;
  return v;
}

std::string fingerprint(const std::string& text) {
  char out[48];
  std::snprintf(out, sizeof out, "%016llx-%zu", static_cast<unsigned long long>(base::hash64(std::string_view(text))),
                text.size());
  return out;
}

std::vector<PublishObject> to_publish(const std::vector<TableObject>& objects) {
  std::vector<PublishObject> out;
  out.reserve(objects.size());
  for (const TableObject& o : objects)
    out.push_back({std::string(table::to_string(o.kind)) + " " + o.name, {o.bytes(), o.size_bytes}});
  return out;
}

}  // namespace

base::Result<std::unique_ptr<ControlPlane>> ControlPlane::start(const ControlConfig& config, ConfigErrors* errors) {
  std::unique_ptr<ControlPlane> c(new ControlPlane);
  c->config_ = config;
  if (c->config_.store_file.empty()) c->config_.store_file = config.run_dir + "/control.db";
  if (mkdir(config.run_dir.c_str(), 0755) != 0 && errno != EEXIST)
    return base::Error{config.run_dir + ": " + std::string(strerror(errno)) + "; make it, or choose another with --run-dir"};
  PublisherConfig publisher;
  publisher.incarnation = random_u64();
  auto p = Publisher::create(publisher);
  if (!p.ok()) return base::Error{p.error()};
  c->publisher_ = std::move(p).value();
  ControlPlane* raw = c.get();
  c->dns_ = std::make_unique<DnsWatch>([raw] { raw->publish_addresses(); }, sayer(Logger::kDns));
  if (const base::Status s = c->load(errors); !s.ok()) return base::Error{s.error()};

  DataplaneLinkConfig link;
  link.socket_path = config.run_dir + "/dataplane.sock";
  link.versions = link_versions(route::platform());
  link.incarnation = publisher.incarnation;
  c->link_ = std::make_unique<DataplaneLink>(
      link, *c->publisher_,
      [raw](uint32_t worker, std::span<const uint8_t> record) { raw->access_log_.on_event(worker, record); },
      sayer(Logger::kLink),
      [raw](uint32_t worker, std::span<const uint8_t> record) { raw->inspections_.on_record(worker, record); });
  c->link_->start();
  c->stats_sinks_ = std::make_unique<StatsSinks>(
      c->sinks_config_, StatsSinks::Sources{[raw](const auto& f) { return raw->link_->with_stats(f); },
                                            [raw] { return raw->resolved_model(); }, sayer(Logger::kStats)});
  c->stats_sinks_->start();
  c->dynamic_ = std::make_unique<DynamicConfig>(*raw, c->dynamic_options_);
  if (const base::Status s = c->start_xds(errors); !s.ok()) return base::Error{s.error()};
  // The first edit needs the store to hold what was before it; with a large configuration that takes a while.
  c->filler_ = std::thread([raw] {
    const std::lock_guard lock(raw->edit_mutex_);
    if (const base::Status s = raw->fill_store(*raw->model()); !s.ok()) say_as(Logger::kConfig, LogLevel::kError, s.error());
  });
  return c;
}

ControlPlane::ControlPlane() = default;

// Streams and files run when everything that they deliver to does.
base::Status ControlPlane::start_xds(ConfigErrors* errors) {
  if (const base::Status s = make_stream(errors); !s.ok()) return s;
  const auto file = [](const auto& source) { return source ? file_of(*source) : ResourceFile{}; };
  xds_files_ = std::make_unique<XdsFiles>(file(xds_config_.cds), file(xds_config_.lds), *dynamic_, say);
  dynamic_->on_wanted_changed([this] {
    if (xds_ != nullptr) xds_->wanted_changed();
    xds_files_->wanted_changed();
  });
  xds_files_->start();
  if (xds_ != nullptr) xds_->start();
  return {};
}

base::Status ControlPlane::make_stream(ConfigErrors* errors) {
  if (!xds_config_.ads) return {};
  const envoy::config::core::v3::ApiConfigSource& ads = *xds_config_.ads;
  XdsStreamConfig stream;
  stream.engine.delta = ads.api_type() == envoy::config::core::v3::ApiConfigSource::DELTA_GRPC;
  stream.engine.node_on_first_only = ads.set_node_on_first_message_only();
  stream.engine.fetch_timeout = static_cast<base::TimeNs>(dynamic_options_.fetch_timeout.count()) * base::kMillisecond;
  stream.clusters = xds_config_.cds && xds_config_.cds->has_ads();
  stream.listeners = xds_config_.lds && xds_config_.lds->has_ads();
  stream.node = xds_config_.node;
  if (stream.node.user_agent_name().empty()) stream.node.set_user_agent_name("millrace");
  if (stream.node.user_agent_version().empty()) stream.node.set_user_agent_version(config_.version);
  const std::shared_ptr<const Model> model = this->model();
  for (int i = 0; i < ads.grpc_services_size(); ++i) {
    stream.servers.push_back(ads.grpc_services(i));
    // What can be known now to be impossible is a mistake of the configuration, and none that time heals.
    if (const auto way = open_channel(ads.grpc_services(i), *model); !way.ok())
      errors->push_back(
          {config_.config_file, 0, 0, "dynamic_resources.ads_config.grpc_services[" + std::to_string(i) + "]", way.error()});
  }
  if (!errors->empty()) return base::Error{"management servers cannot be asked; nothing was started"};
  xds_ = std::make_unique<XdsStream>(std::move(stream), *dynamic_,
                                     XdsStream::Sources{[this] { return resolved_model(); }, sayer(Logger::kConfig)});
  return {};
}

ControlPlane::~ControlPlane() {
  if (dynamic_ != nullptr) dynamic_->on_wanted_changed({});
  if (xds_ != nullptr) xds_->stop();
  if (xds_files_ != nullptr) xds_files_->stop();
  dynamic_.reset();
  if (filler_.joinable()) filler_.join();
  if (stats_sinks_ != nullptr) stats_sinks_->stop();  // flushes once more, and asks for the addresses of names
  dns_.reset();
  if (link_ != nullptr) link_->stop();
}

base::Status ControlPlane::load(ConfigErrors* errors) {
  std::string text;
  Document document;
  if (!config_.config_file.empty()) {
    std::ifstream in(config_.config_file, std::ios::binary);
    std::stringstream all;
    all << in.rdbuf();
    text = all.str();
    document = load_document_file(config_.config_file);
  }
  dynamic_options_ = config_.dynamic;
  xds_config_ = document.xds;
  if (xds_config_.dynamic()) dynamic_options_ = dynamic_options(xds_config_);
  Model empty;
  if (dynamic_options_.servers) empty.let_servers_answer();
  if (dynamic_options_.clusters) empty.let_clusters_come();
  ModelEdit from_file = empty.replace(document);
  from_file.errors.insert(from_file.errors.end(), document.errors.begin(), document.errors.end());
  sort_errors(from_file.errors);
  if (!from_file.ok()) {
    *errors = from_file.errors;
    return base::Error{std::to_string(from_file.errors.size()) + (from_file.errors.size() == 1 ? " error" : " errors") + " in " +
                       config_.config_file + "; nothing was started"};
  }
  Model start = std::move(from_file.model);
  sinks_config_ = document.stats_sinks.value_or(StatsSinksConfig{});
  admin_config_ = document.admin;
  node_id_ = document.node_id;
  node_cluster_ = document.node_cluster;

  auto store = Store::open(config_.store_file);
  if (!store.ok()) return base::Error{store.error()};
  store_ = std::move(store).value();
  const std::string base = fingerprint(text);
  bool fresh = true;
  if (store_->base() == base && store_->edited() && !config_.discard_edits) {
    const Document stored = to_document(store_->load(), config_.store_file);
    ModelEdit edited = empty.replace(stored);
    edited.errors.insert(edited.errors.end(), stored.errors.begin(), stored.errors.end());
    if (!edited.ok()) {
      *errors = edited.errors;
      return base::Error{"the stored edits in " + config_.store_file +
                         " are not valid any more; start with --discard-edits to leave them out"};
    }
    start = std::move(edited.model);
    edited_ = true;
    fresh = false;
    store_filled_ = true;
    say_as(
        Logger::kConfig, LogLevel::kInfo,
        "goes on with the objects of " + config_.store_file + ": they were edited after " + config_.config_file + " was loaded");
  } else if (store_->edited()) {
    say_as(Logger::kConfig, LogLevel::kWarning,
           config_.store_file + ": edits put aside, because " +
               (config_.discard_edits ? "--discard-edits says so" : config_.config_file + " has changed"));
  }
  if (fresh) {
    const std::string what = config_.config_file.empty() ? "started empty" : "loaded " + config_.config_file;
    if (const base::Status s = store_->reset(base, what); !s.ok()) return s;
  }

  const std::lock_guard lock(edit_mutex_);
  const CompileResult compiled = compile(start, true);
  if (!compiled.ok()) {
    *errors = compiled.errors;
    return base::Error{"the configuration cannot be compiled; nothing was started"};
  }
  // What waits for servers holds the first publication back (control/dynamic_config.h).
  held_back_ = dynamic_options_.clusters || dynamic_options_.listeners || !warming_.waiting().empty();
  uint64_t epoch = 0;
  if (const base::Status s = publish(compiled, &epoch); !s.ok()) return s;
  set_access_log_sinks();
  take(std::move(start));
  return {};
}

CompileResult ControlPlane::compile(const Model& model, bool wait, Compiler::Policy policy) {
  const Model& in_force = warming_.update(model, static_cast<base::TimeNs>(monotonic_ns()));
  if (wait) dns_->warm(in_force, kWarmWait);
  return compiler_.compile(dns_->resolved(in_force), policy);
}

// Objects of servers that cannot be compiled are no edit's fault.
CompileResult ControlPlane::compile_edit(const Model& model, bool wait) {
  if (failing_.empty()) return compile(model, wait);
  CompileResult r = compile(model, wait, Compiler::Policy::kTakeGood);
  const bool known = std::all_of(r.failed.begin(), r.failed.end(), [&](const ConfigKey& k) { return failing_.contains(k); });
  if (known) r.errors.clear();
  return r;
}

std::set<ConfigKey> ControlPlane::waiting_objects() {
  const std::lock_guard lock(edit_mutex_);
  return warming_.waiting();
}

void ControlPlane::take(Model model) {
  wanted_generation_ = warming_.generation();
  next_deadline_ = warming_.next_deadline();
  waiting_ = warming_.waiting().size();
  dns_->follow(warming_.in_force());
  auto accepted = std::make_shared<const Model>(std::move(model));
  auto in_force = std::make_shared<const Model>(warming_.in_force());
  const std::lock_guard lock(model_mutex_);
  model_ = std::move(accepted);
  in_force_ = std::move(in_force);
}

base::Status ControlPlane::publish(const CompileResult& compiled, uint64_t* epoch) {
  if (held_back_) {
    *epoch = publisher_->status().epoch;
    return {};
  }
  const auto r = publish_everything_ ? publisher_->publish_all(to_publish(compiler_.objects()))
                                     : publisher_->publish(to_publish(compiled.changed), compiled.removed);
  if (!r.ok()) return base::Error{r.error()};
  publish_everything_ = false;
  *epoch = *r;
  return {};
}

void ControlPlane::set_access_log_sinks() {
  AccessLogSinks sinks;
  for (const TableObject& o : compiler_.objects())
    if (o.kind == table::Kind::kListener) sinks[o.id] = access_log_sinks(*reinterpret_cast<const table::Listener*>(o.bytes()));
  access_log_.set_sinks(std::move(sinks));
}

void ControlPlane::publish_addresses() {
  const std::lock_guard lock(edit_mutex_);
  const CompileResult compiled = compile_edit(*model(), false);
  if (compiled.changed.empty() && compiled.removed.empty()) return;
  uint64_t epoch = 0;
  const base::Status s = publish(compiled, &epoch);
  if (!s.ok()) return say_as(Logger::kDns, LogLevel::kError, "DNS: new addresses could not be published: " + s.error());
  std::string what;
  for (const TableObject& o : compiled.changed) what += (what.empty() ? "" : ", ") + o.name;
  say_as(Logger::kDns, LogLevel::kInfo, "epoch " + std::to_string(epoch) + ", by DNS: the addresses of " + what);
}

std::shared_ptr<const Model> ControlPlane::resolved_model() const {
  return std::make_shared<const Model>(dns_->resolved(*in_force()));
}

std::shared_ptr<const Model> ControlPlane::in_force() const {
  const std::lock_guard lock(model_mutex_);
  return in_force_;
}

std::shared_ptr<const Model> ControlPlane::model() const {
  const std::lock_guard lock(model_mutex_);
  return model_;
}

EditOutcome ControlPlane::edit(const Edit& edit, bool dry_run, milliseconds wait, const EditOrigin& origin) {
  EditOutcome out;
  const auto begun = steady_clock::now();
  {
    const std::lock_guard lock(edit_mutex_);
    const std::shared_ptr<const Model> before = model();
    ModelEdit result = edit(*before);
    out.errors = std::move(result.errors);
    if (!out.errors.empty()) return out;
    out.warnings = std::move(result.warnings);
    out.changes = Model::diff(*before, result.model);
    if (out.changes.empty()) {
      out.ok = true;
      out.epoch = publisher_->status().epoch;
    } else {
      CompileResult compiled = compile_edit(result.model, !dry_run);
      out.compiled = compiled.changed.size();
      out.reused = compiled.reused;
      out.compile_us = static_cast<uint64_t>(duration_cast<microseconds>(steady_clock::now() - begun).count());
      const auto undo = [&] {
        (void)compile_edit(*before, false);
        dns_->follow(warming_.in_force());
      };
      if (!compiled.ok() || dry_run) {
        out.ok = compiled.ok();
        out.errors = std::move(compiled.errors);
        undo();
        return out;
      }
      // Store first: what a client is told is in force must be there after a crash. Publishing can then only fail for want of
      // memory.
      const auto revision = store_changes(*before, result.model, out.changes, origin);
      if (!revision.ok()) {
        out.errors.push_back({"", 0, 0, "", revision.error()});
        undo();
        return out;
      }
      if (const base::Status s = publish(compiled, &out.epoch); !s.ok()) {
        out.errors.push_back({"", 0, 0, "", s.error()});
        (void)store_->withdraw(*revision);
        undo();
        return out;
      }
      out.revision = *revision;
      say_as(Logger::kConfig, LogLevel::kInfo,
             "revision " + std::to_string(*revision) + ", epoch " + std::to_string(out.epoch) +
                 (origin.author.empty() ? "" : ", by " + origin.author) + (origin.what.empty() ? "" : ": " + origin.what));
      const bool listeners = std::any_of(out.changes.begin(), out.changes.end(),
                                         [](const ObjectChange& c) { return c.key.kind == ConfigKind::kListener; });
      if (listeners) set_access_log_sinks();
      take(std::move(result.model));
      edited_ = true;
      out.ok = true;
    }
  }
  if (!dry_run && !out.changes.empty()) tell_edited();
  if (wait.count() > 0) out.acknowledgement = publisher_->wait_acknowledged(out.epoch, wait);
  else out.acknowledgement = publisher_->acknowledgement(out.epoch);
  out.live_us = static_cast<uint64_t>(duration_cast<microseconds>(steady_clock::now() - begun).count());
  return out;
}

ControlPlane::DynamicOutcome ControlPlane::change(const DynamicChange& change) {
  DynamicOutcome out;
  const std::lock_guard lock(edit_mutex_);
  std::optional<Model> made = change(*model(), warming_);
  if (!made) return out;
  CompileResult compiled = compile(*made, true, Compiler::Policy::kTakeGood);
  failing_ = {compiled.failed.begin(), compiled.failed.end()};
  out.errors = std::move(compiled.errors);
  out.failed = std::move(compiled.failed);
  out.epoch = publisher_->status().epoch;
  if (!compiled.changed.empty() || !compiled.removed.empty()) {
    if (const base::Status s = publish(compiled, &out.epoch); !s.ok()) {
      out.not_published = s.error();
      publish_everything_ = true;
    } else {
      out.published = !held_back_;
    }
    const bool listeners = std::any_of(compiled.changed.begin(), compiled.changed.end(),
                                       [](const TableObject& o) { return o.kind == table::Kind::kListener; });
    if (listeners) set_access_log_sinks();
  }
  take(*std::move(made));
  return out;
}

void ControlPlane::release(const std::string& why) {
  const std::lock_guard lock(edit_mutex_);
  if (!held_back_.exchange(false)) return;
  const auto r = publisher_->publish_all(to_publish(compiler_.objects()));
  say_as(Logger::kConfig, r.ok() ? LogLevel::kInfo : LogLevel::kError,
         r.ok() ? "epoch " + std::to_string(*r) + ", the first: " + why : "could not be published: " + r.error());
}

void ControlPlane::on_edited(std::function<void()> call) {
  const std::lock_guard lock(hook_mutex_);
  edited_hook_ = std::move(call);
}

void ControlPlane::tell_edited() {
  const std::lock_guard lock(hook_mutex_);
  if (edited_hook_) edited_hook_();
}

base::Status ControlPlane::fill_store(const Model& model) {
  if (store_filled_) return {};
  if (const base::Status s = store_->fill(all_rows(model)); !s.ok()) return s;
  store_filled_ = true;
  return {};
}

base::Result<uint64_t> ControlPlane::store_changes(const Model& before, const Model& model,
                                                   const std::vector<ObjectChange>& changes, const EditOrigin& origin) {
  // Before the first edit the configuration file is the store.
  if (const base::Status s = fill_store(before); !s.ok()) return base::Error{s.error()};
  std::set<ConfigKey> keys;
  for (const ObjectChange& c : changes)
    keys.insert(c.change == ObjectChange::Kind::kRemoved ? before.owner(c.key) : model.owner(c.key));
  const RowChanges rows = row_changes(before, model, {keys.begin(), keys.end()});
  Revision revision;
  revision.origin = origin;
  revision.changes = to_text(changes);
  if (revision.changes.size() > kMaxRevisionText) {
    const size_t end = revision.changes.rfind('\n', kMaxRevisionText);
    const auto left = std::count(revision.changes.begin() + static_cast<std::ptrdiff_t>(end) + 1, revision.changes.end(), '\n');
    revision.changes = revision.changes.substr(0, end + 1) + "… and " + std::to_string(left) + " more\n";
  }
  return store_->commit(rows.put, rows.removed, revision);
}

std::vector<Revision> ControlPlane::history(size_t limit) {
  const std::lock_guard lock(edit_mutex_);
  return store_->history(limit);
}

EditOutcome ControlPlane::rollback(std::optional<uint64_t> to, bool dry_run, milliseconds wait, EditOrigin origin) {
  const auto back = [&](const Model& now) {
    ModelEdit e{now, {}};
    const auto refuse = [&](std::string why) {
      e.errors.push_back({"", 0, 0, "", std::move(why)});
      return e;
    };
    const std::vector<Revision> newest = store_->history(1);
    if (!to && (newest.empty() || newest.front().loaded))
      return refuse("nothing was changed since the configuration file was loaded");
    const uint64_t revision = to ? *to : newest.front().number - 1;
    origin.what = "rollback to " + std::to_string(revision);
    const auto state = store_->way_back(revision);
    if (!state.ok()) return refuse(state.error());
    const Document document = to_document(state->rows, "<revision " + std::to_string(revision) + ">");
    e = now.apply(document);
    e.errors.insert(e.errors.end(), document.errors.begin(), document.errors.end());
    // What refers goes before what it refers to.
    std::vector<ConfigKey> removed = state->removed;
    std::sort(removed.begin(), removed.end(), [](const ConfigKey& a, const ConfigKey& b) { return b < a; });
    for (const ConfigKey& key : removed) {
      if (!e.errors.empty() || !e.model.has(key)) continue;
      e = e.model.erase(key);
    }
    return e;
  };
  return edit(back, dry_run, wait, origin);
}

Explanation ControlPlane::explain_request(const ExplainRequest& request) {
  const std::lock_guard lock(edit_mutex_);
  return explain(*in_force(), compiler_, request);
}

}  // namespace millrace::control
