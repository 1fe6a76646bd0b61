#include "control/compile.h"

#include <cstring>
#include <map>

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

struct Compiler::Impl {
  route::RouteCompiler routes;
  Entries entries;

  // One run of compile(): the new entries, made from the old ones.
  struct Run {
    Impl& impl;
    Entries next;
    ConfigErrors errors;

    const Entry* old(table::Kind kind, const std::string& name) const {
      const auto it = impl.entries.find({kind, name});
      return it == impl.entries.end() ? nullptr : &it->second;
    }
    // True when there is nothing to do: the input is what it was.
    bool reuse(table::Kind kind, const std::string& name, const std::shared_ptr<const void>& input) {
      const Entry* e = old(kind, name);
      if (e == nullptr || e->input != input) return false;
      next.emplace(std::pair{kind, name}, *e);
      return true;
    }
    void keep_old(table::Kind kind, const std::string& name) {
      if (const Entry* e = old(kind, name)) next.emplace(std::pair{kind, name}, *e);
    }
    void store(table::Kind kind, const std::string& name, std::shared_ptr<const void> input, Words words, size_t size) {
      next.insert_or_assign(std::pair{kind, name},
                            Entry{{kind, name, table::object_id(kind, name), std::move(words), size}, std::move(input)});
    }
    template <class T>
    void plain(table::Kind kind, const Model::Table<T>& objects, base::Result<std::vector<uint8_t>> (*compile)(const T&)) {
      for (const auto& [name, object] : objects) {
        if (reuse(kind, name, object)) continue;
        const auto bytes = compile(*object);
        if (bytes.ok()) {
          store(kind, name, object, to_words(*bytes), bytes->size());
        } else {
          errors.push_back({"", 0, 0, std::string(table::to_string(kind)) + " " + name, bytes.error()});
          keep_old(kind, name);
        }
      }
    }
    void spec_errors(const RouteObject& r, const std::string& below, const std::vector<route::SpecError>& found) {
      ErrorSink sink(r.source.get(), "route " + r.name, &errors);
      for (const route::SpecError& e : found) {
        std::string path = r.source_path;
        for (const std::string& part : {below, e.path})
          if (!part.empty()) path += (path.empty() ? "" : ".") + part;
        sink.add(path, e.message);
      }
    }
    void route_object(const std::string& name, const std::shared_ptr<const RouteObject>& r) {
      std::vector<std::shared_ptr<const api::VirtualHost>> there;
      for (size_t i = 0; i < r->virtual_hosts.size(); ++i) {
        const auto& host = r->virtual_hosts[i];
        const std::string object = route::virtual_host_object_name(name, host->name());
        if (!reuse(table::Kind::kVirtualHost, object, host)) {
          const route::CompiledObject made = impl.routes.compile_virtual_host(virtual_host_spec(*host), object);
          if (made.ok()) store(table::Kind::kVirtualHost, object, host, made.words, made.size_bytes);
          else
            spec_errors(*r, "virtual_hosts[" + std::to_string(i) + "]", made.errors), keep_old(table::Kind::kVirtualHost, object);
        }
        if (next.contains({table::Kind::kVirtualHost, object})) there.push_back(host);
      }
      // The table holds ids, domains and header edits: cheap to make, and often the same bytes as before.
      if (reuse(table::Kind::kRouteTable, name, r)) return;
      const route::CompiledObject made = route::compile_route_table(route_table_spec(name, *r->config, there));
      if (made.ok()) store(table::Kind::kRouteTable, name, r, made.words, made.size_bytes);
      else spec_errors(*r, "", made.errors), keep_old(table::Kind::kRouteTable, name);
    }
  };
};

Compiler::Compiler() : impl_(std::make_unique<Impl>()) {}
Compiler::~Compiler() = default;
Compiler::Compiler(Compiler&&) noexcept = default;
Compiler& Compiler::operator=(Compiler&&) noexcept = default;

CompileResult Compiler::compile(const Model& model, Policy policy) {
  Impl::Run run{*impl_, {}, {}};
  run.plain(table::Kind::kSecret, model.secrets(), compile_secret);
  run.plain(table::Kind::kEndpointSet, model.endpoints(), compile_endpoints);
  run.plain(table::Kind::kCluster, model.clusters(), compile_cluster);
  for (const auto& [name, r] : model.routes()) run.route_object(name, r);
  run.plain(table::Kind::kListener, model.listeners(), compile_listener);

  CompileResult result;
  sort_errors(run.errors);
  result.errors = std::move(run.errors);
  if (!result.ok() && policy == Policy::kAllOrNothing) return result;
  for (const table::Kind kind : kOrder) {
    for (auto it = run.next.lower_bound({kind, ""}); it != run.next.end() && it->first.first == kind; ++it) {
      const auto before = impl_->entries.find(it->first);
      if (before != impl_->entries.end() && same_bytes(before->second.object, it->second.object)) {
        it->second.object = before->second.object;  // equal bytes are shared
        ++result.reused;
      } else {
        result.changed.push_back(it->second.object);
      }
    }
  }
  for (const auto& [key, entry] : impl_->entries) {
    if (run.next.contains(key)) continue;
    result.removed.push_back(entry.object.id);
    if (key.first == table::Kind::kVirtualHost) impl_->routes.forget(key.second);
  }
  impl_->entries = std::move(run.next);
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
