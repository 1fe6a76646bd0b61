#include "control/service.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <sstream>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <thread>
#include <time.h>
#include <unistd.h>

#include <grpcpp/grpcpp.h>

#include "control/capture.h"
#include "control/config_loader.h"
#include "control/connections.h"
#include "control/edit_reply.h"
#include "control/manifests/apply.h"
#include "control/monotonic.h"
#include "control/proto_writer.h"
#include "control/route_shadow.h"
#include "control/stats_report.h"
#include "control/xds_report.h"
#include "lib/api/millrace.control.v1.grpc.pb.h"
#include "lib/stats/stage_clock.h"

namespace millrace::control {

namespace {

namespace pb = millrace::control::v1;
using grpc::ServerContext;

using std::chrono::milliseconds;

// How the caller calls itself, with what it asked for. The socket's permissions decide who may; this is for the history.
EditOrigin origin_of(const ServerContext* context, std::string what) {
  EditOrigin o;
  const auto found = context->client_metadata().find("millrace-author");
  if (found != context->client_metadata().end())
    for (const char c : found->second)
      if (c > ' ' && c < 0x7f && o.author.size() < 64) o.author += c;
  for (char& c : what)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  o.what = std::move(what);
  return o;
}

const char* endpoint_word(pb::EditEndpointRequest::Action action) {
  switch (action) {
    case pb::EditEndpointRequest::REMOVE:
      return "remove";
    case pb::EditEndpointRequest::DRAIN:
      return "drain";
    case pb::EditEndpointRequest::UNDRAIN:
      return "undrain";
    default:
      return "add";
  }
}

ModelEdit refused(const Model& model, std::string message) {
  ModelEdit e{model, {}};
  e.errors.push_back({"", 0, 0, "", std::move(message)});
  return e;
}

std::string join(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& n : names) out += (out.empty() ? "" : ", ") + n;
  return out;
}

// The route configuration and virtual host that a request means: by name, by one of the host's domains, or the only one there is.
base::Result<std::pair<std::string, std::string>> find_host(const Model& model, const std::string& config,
                                                            const std::string& host) {
  std::vector<std::pair<std::string, std::string>> found;
  const auto every_host = [&](const auto& see) {
    for (const auto& [name, route] : model.routes())
      if (config.empty() || name == config)
        for (const auto& vh : route->virtual_hosts) see(name, *vh);
  };
  every_host([&](const std::string& name, const api::VirtualHost& vh) {
    const bool by_domain = std::find(vh.domains().begin(), vh.domains().end(), host) != vh.domains().end();
    if (host.empty() || vh.name() == host || by_domain) found.emplace_back(name, vh.name());
  });
  if (found.size() == 1) return found.front();
  if (!config.empty() && !model.routes().contains(config))
    return base::Error{"no route configuration \"" + config + "\"; there are: " + join(model.names(ConfigKind::kRoute))};
  std::vector<std::string> names;
  if (found.empty()) {
    every_host([&](const std::string& name, const api::VirtualHost& vh) { names.push_back(name + "/" + vh.name()); });
    return base::Error{"no virtual host \"" + host + "\" (by name or domain); there are: " + join(names)};
  }
  for (const auto& [c, v] : found) names.push_back(c + "/" + v);
  return base::Error{"which virtual host? Name one with --route-config and --virtual-host: " + join(names)};
}

base::Result<RoutePlace> parse_place(const std::string& text) {
  RoutePlace p;
  if (text.empty() || text == "last") return p;
  if (text == "first") {
    p.kind = RoutePlace::Kind::kFirst;
    return p;
  }
  const size_t colon = text.find(':');
  const std::string word = text.substr(0, colon), rest = colon == std::string::npos ? "" : text.substr(colon + 1);
  if (word == "index" && !rest.empty() && rest.find_first_not_of("0123456789") == std::string::npos && rest.size() < 9) {
    p.kind = RoutePlace::Kind::kIndex;
    p.index = static_cast<uint32_t>(std::stoul(rest));
    return p;
  }
  if ((word == "before" || word == "after") && !rest.empty()) {
    p.kind = word == "before" ? RoutePlace::Kind::kBefore : RoutePlace::Kind::kAfter;
    p.route = rest;
    return p;
  }
  return base::Error{"place \"" + text + "\" is none of last, first, index:N, before:NAME, after:NAME"};
}

// Edit distance, for "did you mean".
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t up = row[j];
      row[j] = std::min({up + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = up;
    }
  }
  return row[b.size()];
}

std::string not_found(const Model& model, ConfigKind kind, const std::string& name) {
  std::vector<std::string> names = model.names(kind), near;
  for (const std::string& n : names)
    if (distance(n, name) <= 2 + name.size() / 5 || n.find(name) != std::string::npos) near.push_back(n);
  std::string text = "no " + std::string(to_string(kind)) + " \"" + name + "\"";
  if (!near.empty()) return text + "; did you mean " + join(near) + "?";
  if (names.empty()) return text + "; there are none";
  if (names.size() > 10) names.resize(10);
  return text + "; there are: " + join(names);
}

class Service final : public ControlService, public pb::Control::Service {
 public:
  Service(ControlPlane& plane, std::string version) : plane_(plane), version_(std::move(version)) {}
  ~Service() override { stop(); }

  base::Status listen(const std::string& path) {
    // A socket file left behind by a killed process is in the way; one that somebody answers on is not ours to take.
    const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
      close(probe);
      return base::Error{path + ": longer than a Unix socket's path may be (107 bytes); choose a shorter --run-dir"};
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    const bool alive = connect(probe, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    close(probe);
    if (alive) return base::Error{path + ": another millrace-control answers there; stop it, or choose another --run-dir"};
    unlink(path.c_str());
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(512 << 20);
    builder.SetMaxSendMessageSize(512 << 20);
    int bound = 0;
    const mode_t old = umask(0117);
    builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials(), &bound);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    umask(old);
    if (server_ == nullptr) return base::Error{path + ": cannot listen there; is the directory writable?"};
    path_ = path;
    return {};
  }

  void stop() override {
    if (server_ == nullptr) return;
    stopping_ = true;
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
    server_->Wait();
    server_.reset();
    unlink(path_.c_str());
  }

  grpc::Status Status(ServerContext* context, const pb::StatusRequest* rq, pb::StatusReply* out) override {
    if (rq->wait_ms() != 0) {
      const auto end = std::chrono::steady_clock::now() + milliseconds(rq->wait_ms());
      while (std::chrono::steady_clock::now() < end && !context->IsCancelled()) {
        const PublisherStatus s = plane_.publisher().status();
        if (s.connected && s.acknowledged == s.epoch) break;
        std::this_thread::sleep_for(milliseconds(2));
      }
    }
    const PublisherStatus p = plane_.publisher().status();
    const DataplaneInfo d = plane_.link().info();
    const auto model = plane_.model();
    out->set_version(version_);
    out->set_control_pid(static_cast<uint32_t>(getpid()));
    out->set_control_uptime_ms(static_cast<uint64_t>(
        std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - plane_.started()).count()));
    out->set_dataplane_connected(d.connected);
    out->set_dataplane_state(d.state);
    out->set_dataplane_pid(d.pid);
    out->set_epoch(p.epoch);
    out->set_epoch_in_force(p.connected ? p.acknowledged : 0);
    if (p.rejected > p.accepted) {
      out->set_epoch_rejected(p.rejected);
      out->set_rejection(p.rejection);
    }
    out->set_arena_used(p.arena_used);
    out->set_arena_size(p.arena_size);
    out->set_arena_huge(p.arena_huge);
    out->set_arena_ordinary(p.arena_ordinary);
    if (p.arena_ordinary != 0)
      out->set_arena_note(
          p.kernel_makes_huge
              ? "the system had no huge page to give: look-ups in large tables are slower"
              : "this kernel makes none by itself (Linux 6.1 does): /sys/kernel/mm/transparent_hugepage/shmem_enabled "
                "decides, look-ups in large tables may be slower");
    out->set_events_read(d.events_read);
    out->set_config_file(plane_.config().config_file);
    out->set_has_edits(plane_.has_edits());
    for (const ConfigKind k : {ConfigKind::kListener, ConfigKind::kRoute, ConfigKind::kCluster, ConfigKind::kEndpoints,
                               ConfigKind::kSecret, ConfigKind::kManifest})
      (*out->mutable_objects())[std::string(to_string(k))] = static_cast<uint32_t>(model->size(k));
    plane_.link().with_stats([&](const stats::RegionView& view) { report_status(view, p.seen, out); });
    return grpc::Status::OK;
  }

  grpc::Status Apply(ServerContext* context, const pb::ApplyRequest* rq, pb::EditReply* out) override {
    const std::string file = rq->file().empty() ? "<text>" : rq->file();
    if (rq->remove() || manifests::is_manifests(rq->text())) {
      apply_manifests(plane_, *rq, file,
                      origin_of(context, std::string(rq->remove()    ? "delete "
                                                     : rq->replace() ? "apply --replace "
                                                                     : "apply ") +
                                             file),
                      out);
      return grpc::Status::OK;
    }
    const Document document = load_document(rq->text(), file);
    fill_reply(
        plane_.edit(
            [&](const Model& m) {
              ModelEdit e = rq->replace() ? m.replace(document) : m.apply(document);
              e.errors.insert(e.errors.end(), document.errors.begin(), document.errors.end());
              if (document.stats_sinks && *document.stats_sinks != plane_.stats_sinks().config())
                e.errors.push_back(
                    {file, 0, 0, "stats_sinks",
                     "differs from what is running, and is read at start only: write it to the configuration file and "
                     "restart millrace-control (traffic goes on)"});
              if (document.admin && document.admin != plane_.admin_config())
                e.errors.push_back({file, 0, 0, "admin",
                                    "differs from what is running, and is read at start only: write it to the configuration "
                                    "file and restart millrace-control (traffic goes on)"});
              sort_errors(e.errors);
              if (e.ok()) e.warnings = shadow_warnings(e.model, &m);
              return e;
            },
            rq->dry_run(), milliseconds(rq->wait_ms()),
            origin_of(context, std::string(rq->replace() ? "apply --replace " : "apply ") + file)),
        out);
    return grpc::Status::OK;
  }

  grpc::Status List(ServerContext*, const pb::ListRequest* rq, pb::ListReply* out) override {
    const auto model = plane_.model();
    std::optional<ConfigKind> only;
    if (!rq->kind().empty()) {
      only = parse_config_kind(rq->kind());
      if (!only) {
        out->set_error("\"" + rq->kind() +
                       "\" is no kind of object; there are listeners, routes, clusters, endpoints, secrets, manifests");
        return grpc::Status::OK;
      }
    }
    LiveStates live;
    if (!only || *only == ConfigKind::kEndpoints)
      plane_.link().with_stats([&](const stats::RegionView& view) { live = live_states(view, monotonic_ns()); });
    report_list(*model, only, live, out);
    return grpc::Status::OK;
  }

  grpc::Status Get(ServerContext*, const pb::GetRequest* rq, pb::GetReply* out) override {
    const auto model = plane_.model();
    const auto kind = parse_config_kind(rq->kind());
    if (!kind) {
      out->set_error("\"" + rq->kind() +
                     "\" is no kind of object; there are listeners, routes, clusters, endpoints, secrets, manifests");
      return grpc::Status::OK;
    }
    if (*kind == ConfigKind::kManifest) {
      if (!get_manifest(*model, rq->name(), out)) out->set_error(not_found(*model, *kind, rq->name()));
      return grpc::Status::OK;
    }
    const auto message = model->message({*kind, rq->name()});
    if (message == nullptr) {
      out->set_error(not_found(*model, *kind, rq->name()));
      return grpc::Status::OK;
    }
    out->set_found(true);
    TextValue text = to_text_value(*message, true);
    redact(&text);
    out->set_yaml(to_yaml(text));
    out->set_json(to_json(text, true));
    for (const std::string& r : model->referrers({*kind, rq->name()})) out->add_referrers(r);
    return grpc::Status::OK;
  }

  grpc::Status Delete(ServerContext* context, const pb::DeleteRequest* rq, pb::EditReply* out) override {
    fill_reply(plane_.edit(
                   [&](const Model& m) {
                     const auto kind = parse_config_kind(rq->kind());
                     if (!kind) return refused(m, "\"" + rq->kind() + "\" is no kind of object");
                     if (*kind == ConfigKind::kManifest) {
                       const std::string key = manifests::find_key(manifests::objects_of(m), rq->name());
                       if (key.empty()) return refused(m, not_found(m, *kind, rq->name()));
                       return manifests::edit(m, {}, {key}, false, time(nullptr));
                     }
                     if (!m.has({*kind, rq->name()})) return refused(m, not_found(m, *kind, rq->name()));
                     return m.erase({*kind, rq->name()});
                   },
                   rq->dry_run(), milliseconds(rq->wait_ms()), origin_of(context, "delete " + rq->kind() + " " + rq->name())),
               out);
    return grpc::Status::OK;
  }

  grpc::Status AddRoute(ServerContext* context, const pb::AddRouteRequest* rq, pb::EditReply* out) override {
    fill_reply(plane_.edit(
                   [&](const Model& m) {
                     const auto host = find_host(m, rq->route_config(), rq->virtual_host());
                     if (!host.ok()) return refused(m, host.error());
                     const auto place = parse_place(rq->place());
                     if (!place.ok()) return refused(m, place.error());
                     api::Route route;
                     std::shared_ptr<const SourceMap> source;
                     ModelEdit bad{m, load_message(rq->route(), "<route>", &route, &source)};
                     if (!bad.errors.empty()) return bad;
                     return m.add_route(host->first, host->second, route, *place, source.get());
                   },
                   rq->dry_run(), milliseconds(rq->wait_ms()), origin_of(context, "route add")),
               out);
    return grpc::Status::OK;
  }

  grpc::Status RemoveRoute(ServerContext* context, const pb::RemoveRouteRequest* rq, pb::EditReply* out) override {
    fill_reply(plane_.edit(
                   [&](const Model& m) {
                     const auto host = find_host(m, rq->route_config(), rq->virtual_host());
                     return host.ok() ? m.remove_route(host->first, host->second, rq->name()) : refused(m, host.error());
                   },
                   rq->dry_run(), milliseconds(rq->wait_ms()), origin_of(context, "route remove " + rq->name())),
               out);
    return grpc::Status::OK;
  }

  grpc::Status SetWeights(ServerContext* context, const pb::SetWeightsRequest* rq, pb::EditReply* out) override {
    fill_reply(plane_.edit(
                   [&](const Model& m) {
                     const auto host = find_host(m, rq->route_config(), rq->virtual_host());
                     if (!host.ok()) return refused(m, host.error());
                     const std::vector<std::pair<std::string, uint32_t>> weights(rq->weights().begin(), rq->weights().end());
                     return m.set_weights(host->first, host->second, rq->name(), weights);
                   },
                   rq->dry_run(), milliseconds(rq->wait_ms()), origin_of(context, "route weight " + rq->name())),
               out);
    return grpc::Status::OK;
  }

  grpc::Status EditEndpoint(ServerContext* context, const pb::EditEndpointRequest* rq, pb::EditReply* out) override {
    fill_reply(plane_.edit(
                   [&](const Model& m) {
                     auto spec = parse_endpoint(rq->endpoint());
                     if (!spec.ok()) return refused(m, spec.error());
                     if (rq->weight() != 0) spec->weight = rq->weight();
                     if (!m.endpoints().contains(rq->cluster()))
                       return refused(m, not_found(m, ConfigKind::kEndpoints, rq->cluster()));
                     switch (rq->action()) {
                       case pb::EditEndpointRequest::REMOVE:
                         return m.remove_endpoint(rq->cluster(), *spec);
                       case pb::EditEndpointRequest::DRAIN:
                         return m.drain_endpoint(rq->cluster(), *spec, true);
                       case pb::EditEndpointRequest::UNDRAIN:
                         return m.drain_endpoint(rq->cluster(), *spec, false);
                       default:
                         return m.add_endpoint(rq->cluster(), *spec);
                     }
                   },
                   rq->dry_run(), milliseconds(rq->wait_ms()),
                   origin_of(context, std::string("endpoint ") + endpoint_word(rq->action()) + " " + rq->cluster() + " " +
                                          rq->endpoint())),
               out);
    return grpc::Status::OK;
  }

  grpc::Status History(ServerContext*, const pb::HistoryRequest* rq, pb::HistoryReply* out) override {
    for (const Revision& r : plane_.history(rq->limit())) {
      pb::RevisionRecord& record = *out->add_revisions();
      record.set_revision(r.number);
      record.set_time_ms(r.time_ms);
      record.set_author(r.origin.author);
      record.set_what(r.origin.what);
      record.set_loaded(r.loaded);
      std::istringstream lines(r.changes);
      for (std::string line; std::getline(lines, line);) record.add_changes(line);
    }
    return grpc::Status::OK;
  }

  grpc::Status Rollback(ServerContext* context, const pb::RollbackRequest* rq, pb::EditReply* out) override {
    const std::optional<uint64_t> to = rq->has_revision() ? std::optional<uint64_t>(rq->revision()) : std::nullopt;
    fill_reply(plane_.rollback(to, rq->dry_run(), milliseconds(rq->wait_ms()), origin_of(context, "rollback")), out);
    return grpc::Status::OK;
  }

  grpc::Status Dump(ServerContext*, const pb::DumpRequest* rq, grpc::ServerWriter<pb::DumpedObject>* writer) override {
    const auto model = plane_.model();
    for (const ConfigKey& key : model->stored_keys()) {
      TextValue text =
          key.kind == ConfigKind::kManifest ? stored_text(*model, key.name) : to_text_value(*model->message(key), true);
      redact(&text);
      pb::DumpedObject object;
      object.set_kind(std::string(to_string(key.kind)));
      object.set_name(key.name);
      object.set_text(rq->json() ? to_json(text, false) : to_yaml(text));
      if (!writer->Write(object)) break;  // the caller is gone
    }
    return grpc::Status::OK;
  }

  grpc::Status Log(ServerContext* context, const pb::LogRequest* rq, grpc::ServerWriter<pb::LogLine>* writer) override {
    uint64_t seen = 0;
    const auto write = [&](const std::vector<LogBook::Line>& lines) {
      for (const LogBook::Line& l : lines) {
        pb::LogLine line;
        line.set_time_ms(l.time_ms);
        line.set_text(l.text);
        seen = l.number;
        if (!writer->Write(line)) return false;
      }
      return true;
    };
    const std::vector<LogBook::Line> before = log_book().last(LogBook::kKept);
    if (!before.empty()) seen = before.back().number;
    if (!write(log_book().last(rq->lines()))) return grpc::Status::OK;
    while (rq->follow() && !context->IsCancelled() && !stopping_ && write(log_book().after(seen, milliseconds(100)))) continue;
    return grpc::Status::OK;
  }

  grpc::Status Explain(ServerContext*, const pb::ExplainRequest* rq, pb::ExplainReply* out) override {
    ExplainRequest request;
    request.listener = rq->listener();
    request.address = rq->address();
    request.port = static_cast<uint16_t>(rq->port());
    request.tls = rq->tls();
    request.sni = rq->sni();
    request.alpn.assign(rq->alpn().begin(), rq->alpn().end());
    if (!rq->method().empty()) request.method = rq->method();
    request.authority = rq->authority();
    if (!rq->path().empty()) request.path = rq->path();
    for (const std::string& h : rq->headers()) {
      const size_t colon = h.find(':');
      if (colon == std::string::npos || colon == 0)
        return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "header \"" + h + "\" is not of the form \"name: value\"");
      const size_t value = h.find_first_not_of(" \t", colon + 1);
      request.headers.emplace_back(h.substr(0, colon), value == std::string::npos ? "" : h.substr(value));
    }
    const Explanation e = plane_.explain_request(request);
    for (const ExplainStep& s : e.steps) {
      pb::ExplainStep& step = *out->add_steps();
      step.set_what(s.what);
      step.set_name(s.name);
      step.set_chosen(s.chosen);
      step.set_why(s.why);
    }
    out->set_cluster(e.cluster);
    out->set_status(e.status);
    out->set_response_flag(e.response_flag);
    return grpc::Status::OK;
  }

  grpc::Status Stats(ServerContext*, const pb::StatsRequest* rq, pb::StatsReply* out) override {
    out->set_connected(plane_.link().with_stats([&](const stats::RegionView& view) { report_stats(view, *rq, out); }));
    if (!rq->kernel()) report_discovery(plane_, *rq, out);
    return grpc::Status::OK;
  }

  grpc::Status Drops(ServerContext*, const pb::DropsRequest* rq, pb::DropsReply* out) override {
    out->set_connected(plane_.link().with_stats([&](const stats::RegionView& view) { report_drops(view, rq->all(), out); }));
    return grpc::Status::OK;
  }

  grpc::Status Top(ServerContext*, const pb::TopRequest*, pb::TopSample* out) override {
    out->set_connected(plane_.link().with_stats([&](const stats::RegionView& view) { report_top(view, out); }));
    out->set_dataplane_state(plane_.link().info().state);
    return grpc::Status::OK;
  }

  grpc::Status SetStages(ServerContext* context, const pb::SetStagesRequest* rq, pb::SetStagesReply* out) override {
    if (rq->period() > stats::StageClock::kMaxPeriod)
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                          "stages are accounted in one turn of at most " + std::to_string(stats::StageClock::kMaxPeriod));
    out->set_connected(plane_.publisher().set_stage_period(rq->period()));
    const auto deadline = std::chrono::steady_clock::now() + milliseconds(rq->wait_ms());
    while (out->connected()) {
      const bool there = plane_.link().with_stats([&](const stats::RegionView& view) {
        out->set_period(static_cast<uint32_t>(view.loader()[stats::LoaderCounter::kStagePeriod].read()));
      });
      out->set_connected(there);
      out->set_in_force(there && out->period() == rq->period());
      if (!there || out->in_force() || std::chrono::steady_clock::now() >= deadline || context->IsCancelled()) break;
      std::this_thread::sleep_for(milliseconds(1));
    }
    if (!out->connected()) out->set_reason(plane_.link().info().state);
    return grpc::Status::OK;
  }

  grpc::Status Drain(ServerContext* context, const pb::DrainRequest* rq, pb::DrainReply* out) override {
    if (rq->time_s() > table::SetDrain::kMaxTimeS)
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                          "a drain takes at most " + std::to_string(table::SetDrain::kMaxTimeS) + " s");
    const auto look = [&] { return plane_.link().with_stats([&](const stats::RegionView& view) { report_drain(view, out); }); };
    using Rq = pb::DrainRequest;
    const bool drain = rq->action() == Rq::DRAIN, health = rq->action() == Rq::FAIL_HEALTH;
    bool there = look();
    if (there && rq->action() != Rq::SHOW) {
      table::SetDrain wish;
      wish.fields = rq->action() == Rq::DRAIN || rq->action() == Rq::UNDRAIN ? table::SetDrain::kDrain : table::SetDrain::kHealth;
      wish.health_failed = health;
      wish.draining = drain;
      wish.time_s = drain ? rq->time_s() : 0;
      there = plane_.publisher().set_drain(wish);
      const auto deadline = std::chrono::steady_clock::now() + milliseconds(rq->wait_ms());
      while (there) {
        there = look();
        const bool is = wish.fields == table::SetDrain::kHealth ? out->health_failed() == health
                                                                : out->draining() == drain && out->time_s() == wish.time_s;
        out->set_in_force(there && is);
        if (is || std::chrono::steady_clock::now() >= deadline || context->IsCancelled()) break;
        std::this_thread::sleep_for(milliseconds(1));
      }
    } else {
      out->set_in_force(there);
    }
    out->set_connected(there);
    if (!there) out->set_reason(plane_.link().info().state);
    return grpc::Status::OK;
  }

  grpc::Status Connections(ServerContext* context, const pb::ConnectionsRequest* rq, pb::ConnectionsReply* out) override {
    ask_connections(
        plane_, *rq, [context] { return context->IsCancelled(); }, out);
    return grpc::Status::OK;
  }

  grpc::Status Capture(ServerContext* context, const pb::CaptureRequest* rq,
                       grpc::ServerWriter<pb::CaptureChunk>* writer) override {
    run_capture(
        plane_, *rq, version_, [writer](const pb::CaptureChunk& chunk) { return writer->Write(chunk); },
        [context] { return context->IsCancelled(); });
    return grpc::Status::OK;
  }

  grpc::Status Xds(ServerContext*, const pb::XdsRequest*, pb::XdsReply* out) override {
    report_xds(plane_, out);
    return grpc::Status::OK;
  }

 private:
  ControlPlane& plane_;
  const std::string version_;
  std::string path_;
  std::unique_ptr<grpc::Server> server_;
  std::atomic<bool> stopping_{false};
};

}  // namespace

base::Result<std::unique_ptr<ControlService>> ControlService::start(ControlPlane& plane, const std::string& socket_path,
                                                                    const std::string& version) {
  auto service = std::make_unique<Service>(plane, version);
  if (const base::Status s = service->listen(socket_path); !s.ok()) return base::Error{s.error()};
  return std::unique_ptr<ControlService>(std::move(service));
}

}  // namespace millrace::control
