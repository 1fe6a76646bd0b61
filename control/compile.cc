#include "control/compile.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <optional>

#include "control/compile_objects.h"
#include "control/route_spec.h"
#include "lib/route/compiler.h"

namespace millrace::control {

namespace {

using Words = std::shared_ptr<const std::vector<uint64_t>>;

struct Entry {
  TableObject object;
  std::shared_ptr<const void> input;  // the model part it was made of; kept alive, so that its address stays its own
};
using Entries = std::map<std::pair<table::Kind, std::string>, Entry>;

Words to_words(const std::vector<uint8_t>& bytes) {
  auto words = std::make_shared<std::vector<uint64_t>>((bytes.size() + 7) / 8);
  std::memcpy(words->data(), bytes.data(), bytes.size());
  return words;
}

bool same_bytes(const TableObject& a, const TableObject& b) {
  return a.size_bytes == b.size_bytes && (a.words == b.words || std::memcmp(a.bytes(), b.bytes(), a.size_bytes) == 0);
}

// Order of publication within an epoch's list: what is referred to comes first.
constexpr table::Kind kOrder[] = {table::Kind::kSecret,      table::Kind::kEndpointSet, table::Kind::kCluster,
                                  table::Kind::kVirtualHost, table::Kind::kRouteTable,  table::Kind::kListener};

}  // namespace

// What became of one object in a run; enough to take it back.
struct Change {
  std::pair<table::Kind, std::string> key;
  std::optional<Entry> before, after;
};

struct Compiler::Impl {
  route::RouteCompiler routes;
  Entries entries;
  Model model;                // that `entries` were made of
  bool some_missing = false;  // objects that could not be compiled were left as they were: they are tried again

  // One run of compile(): what differs between the two models, object by object, is made anew. Nothing else is looked at.
  struct Run {
    Impl& impl;
    std::vector<Change> changes;
    ConfigErrors errors;
    std::vector<ConfigKey> failed;

    void set(table::Kind kind, const std::string& name, std::optional<Entry> after) {
      const auto it = impl.entries.find({kind, name});
      Change c{{kind, name}, std::nullopt, std::move(after)};
      if (it != impl.entries.end()) c.before = it->second;
      if (c.after) impl.entries.insert_or_assign(c.key, *c.after);
      else if (it != impl.entries.end()) impl.entries.erase(it);
      changes.push_back(std::move(c));
    }
    void store(table::Kind kind, const std::string& name, std::shared_ptr<const void> input, Words words, size_t size) {
      set(kind, name, Entry{{kind, name, table::object_id(kind, name), std::move(words), size}, std::move(input)});
    }
    // An object that has no good bytes keeps those it had, and is then of the old input: it is tried again with the next run.
    bool there(table::Kind kind, const std::string& name) const { return impl.entries.contains({kind, name}); }
    bool of(table::Kind kind, const std::string& name, const void* input) const {
      const auto it = impl.entries.find({kind, name});
      return it != impl.entries.end() && it->second.input.get() == input;
    }

    template <class T>
    void plain(table::Kind kind, ConfigKind config, const Model::Table<T>& before, const Model::Table<T>& after,
               base::Result<std::vector<uint8_t>> (*compile)(const T&)) {
      Model::Table<T>::differences(before, after, [&](const std::string& name, const auto&, const auto& object) {
        if (object == nullptr) return set(kind, name, std::nullopt);
        if (of(kind, name, object.get())) return;
        const auto bytes = compile(*object);
        if (bytes.ok()) store(kind, name, object, to_words(*bytes), bytes->size());
        else
          failed.push_back({config, name}),
              errors.push_back({"", 0, 0, std::string(table::to_string(kind)) + " " + name, bytes.error()});
      });
    }
    void spec_errors(const RouteObject& r, const std::string& below, const std::vector<route::SpecError>& found) {
      ErrorSink sink(r.source.get(), "route " + r.name, &errors);
      failed.push_back({ConfigKind::kRoute, r.name});
      for (const route::SpecError& e : found) {
        std::string path = r.source_path;
        for (const std::string& part : {below, e.path})
          if (!part.empty()) path += (path.empty() ? "" : ".") + part;
        sink.add(path, e.message);
      }
    }
    void route_object(const std::string& name, const RouteObject* before, const std::shared_ptr<const RouteObject>& r) {
      const auto object_name = [&](const api::VirtualHost& host) { return route::virtual_host_object_name(name, host.name()); };
      if (before != nullptr)
        for (size_t i = 0; i < before->virtual_hosts.size(); ++i) {
          const api::VirtualHost& host = *before->virtual_hosts[i];
          const bool stays = r != nullptr && ((i < r->virtual_hosts.size() && r->virtual_hosts[i]->name() == host.name()) ||
                                              r->find_virtual_host(host.name()) >= 0);
          if (!stays) set(table::Kind::kVirtualHost, object_name(host), std::nullopt);
        }
      if (r == nullptr) return set(table::Kind::kRouteTable, name, std::nullopt);
      // The route table holds ids, domains and header edits: it changes with the set of hosts, not with their routes.
      bool same_hosts = before != nullptr && before->config == r->config &&
                        before->virtual_hosts.size() == r->virtual_hosts.size() && there(table::Kind::kRouteTable, name);
      std::vector<std::shared_ptr<const api::VirtualHost>> good;
      good.reserve(r->virtual_hosts.size());
      for (size_t i = 0; i < r->virtual_hosts.size(); ++i) {
        const auto& host = r->virtual_hosts[i];
        const bool same_place = before != nullptr && i < before->virtual_hosts.size() && before->virtual_hosts[i] == host;
        const std::string object = same_place ? std::string() : object_name(*host);
        if (!same_place && !of(table::Kind::kVirtualHost, object, host.get())) {
          same_hosts = same_hosts && same_names(*before->virtual_hosts[i], *host);
          const route::CompiledObject made = impl.routes.compile_virtual_host(virtual_host_spec(*host), object);
          if (made.ok()) store(table::Kind::kVirtualHost, object, host, made.words, made.size_bytes);
          else spec_errors(*r, "virtual_hosts[" + std::to_string(i) + "]", made.errors);
        } else if (!same_place) {
          same_hosts = false;
        }
        if (same_place || there(table::Kind::kVirtualHost, object)) good.push_back(host);
      }
      if (same_hosts && good.size() == r->virtual_hosts.size()) return;
      const route::CompiledObject made = route::compile_route_table(route_table_spec(name, *r->config, good));
      if (made.ok()) store(table::Kind::kRouteTable, name, r, made.words, made.size_bytes);
      else spec_errors(*r, "", made.errors);
    }
    static bool same_names(const api::VirtualHost& a, const api::VirtualHost& b) {
      return a.name() == b.name() && std::equal(a.domains().begin(), a.domains().end(), b.domains().begin(), b.domains().end());
    }
    void take_back() {
      for (auto c = changes.rbegin(); c != changes.rend(); ++c) {
        if (c->before) impl.entries.insert_or_assign(c->key, *c->before);
        else impl.entries.erase(c->key);
      }
    }
  };

  static void compile_differences(Run& run, const Model& before, const Model& now) {
    run.plain(table::Kind::kSecret, ConfigKind::kSecret, before.secrets(), now.secrets(), compile_secret);
    run.plain(table::Kind::kEndpointSet, ConfigKind::kEndpoints, before.endpoints(), now.endpoints(), compile_endpoints);
    run.plain(table::Kind::kCluster, ConfigKind::kCluster, before.clusters(), now.clusters(), compile_cluster);
    Model::Table<RouteObject>::differences(
        before.routes(), now.routes(),
        [&](const std::string& name, const auto& x, const auto& y) { run.route_object(name, x.get(), y); });
    run.plain(table::Kind::kListener, ConfigKind::kListener, before.listeners(), now.listeners(), compile_listener);
  }
};

Compiler::Compiler() : impl_(std::make_unique<Impl>()) {}
Compiler::~Compiler() = default;
Compiler::Compiler(Compiler&&) noexcept = default;
Compiler& Compiler::operator=(Compiler&&) noexcept = default;

CompileResult Compiler::compile(const Model& model, Policy policy) {
  const Model before = impl_->model;
  Impl::Run run{*impl_, {}, {}, {}};
  impl_->compile_differences(run, before, model);
  // What was of no use last time does not differ now: it is found by what it is not made of.
  if (impl_->some_missing) impl_->compile_differences(run, Model{}, model);

  CompileResult result;
  sort_errors(run.errors);
  result.errors = std::move(run.errors);
  result.failed = std::move(run.failed);
  if (!result.ok() && policy == Policy::kAllOrNothing) {
    run.take_back();
    return result;
  }
  impl_->model = model;
  impl_->some_missing = !result.ok();
  for (Change& c : run.changes) {
    if (!c.after) {
      if (!c.before) continue;
      result.removed.push_back(c.before->object.id);
      if (c.key.first == table::Kind::kVirtualHost) impl_->routes.forget(c.key.second);
    } else if (c.before && same_bytes(c.before->object, c.after->object)) {
      impl_->entries.find(c.key)->second.object = c.before->object;  // equal bytes are shared
    } else {
      result.changed.push_back(c.after->object);
    }
  }
  const auto rank = [](const TableObject& o) {
    return std::find(std::begin(kOrder), std::end(kOrder), o.kind) - std::begin(kOrder);
  };
  std::sort(result.changed.begin(), result.changed.end(),
            [&](const TableObject& a, const TableObject& b) { return rank(a) != rank(b) ? rank(a) < rank(b) : a.name < b.name; });
  result.reused = static_cast<uint32_t>(impl_->entries.size() - result.changed.size());
  return result;
}

std::vector<TableObject> Compiler::objects() const {
  std::vector<TableObject> out;
  for (const table::Kind kind : kOrder)
    for (auto it = impl_->entries.lower_bound({kind, ""}); it != impl_->entries.end() && it->first.first == kind; ++it)
      out.push_back(it->second.object);
  return out;
}

const TableObject* Compiler::find(table::Kind kind, const std::string& name) const {
  const auto it = impl_->entries.find({kind, name});
  return it == impl_->entries.end() ? nullptr : &it->second.object;
}

size_t Compiler::size() const { return impl_->entries.size(); }

}  // namespace millrace::control
