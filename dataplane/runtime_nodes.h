// The table loader's building blocks: for each listener, virtual host and cluster a node that holds what workers read
// (runtime_snapshot.h) and owns what it is made of: regex databases, TLS contexts, statistics slots. Nodes are immutable, shared
// between snapshots while their objects stay the same, and freed by the loader thread when the last snapshot that shows them is
// freed. Loader thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "dataplane/hash_budget.h"
#include "dataplane/runtime_snapshot.h"
#include "dataplane/tls_contexts.h"
#include "lib/base/status.h"
#include "lib/base/time.h"
#include "lib/route/runtime.h"
#include "lib/stats/region.h"
#include "lib/table/objects.h"

namespace millrace::dataplane {

// Statistics slots with a count of their users; the last one gone releases the slot (it then lingers, region.h).
class SlotLeases {
 public:
  class Lease {
   public:
    Lease() = default;
    Lease(SlotLeases* owner, stats::ScopeSlot slot) : owner_(owner), slot_(slot) {}
    Lease(Lease&& o) noexcept : owner_(std::exchange(o.owner_, nullptr)), slot_(o.slot_) {}
    Lease& operator=(Lease&& o) noexcept {
      std::swap(owner_, o.owner_);
      std::swap(slot_, o.slot_);
      return *this;
    }
    ~Lease() {
      if (owner_ != nullptr) owner_->give_back(slot_);
    }
    stats::ScopeSlot slot() const { return slot_; }

   private:
    SlotLeases* owner_ = nullptr;
    stats::ScopeSlot slot_ = stats::kOverflowScope;
  };

  SlotLeases(stats::Region region, base::TimeNs linger_ns) : directory_(region, linger_ns) {}
  Lease take(stats::ScopeKind kind, uint64_t key, std::string_view name, stats::ScopeSlot parent = stats::kOverflowScope);
  // Every worker has taken all snapshots before `now`'s: a slot released is no longer in any snapshot by construction.
  void sweep(base::TimeNs now);
  void set_now(base::TimeNs now) { now_ = now; }
  const stats::ScopeDirectory& directory() const { return directory_; }

 private:
  void give_back(stats::ScopeSlot slot);
  stats::ScopeDirectory directory_;
  std::unordered_map<stats::ScopeSlot, uint32_t> users_;
  base::TimeNs now_ = 0;
};

// Where an object of the snapshot being built lies; null `object`: not in it.
struct FoundObject {
  const table::ObjectHeader* object = nullptr;
  uint64_t version = 0;
};
class ObjectFinder {
 public:
  virtual ~ObjectFinder() = default;
  virtual FoundObject find(table::Kind kind, table::ObjectId id) const = 0;
};

using SecretVersions = std::vector<std::pair<table::ObjectId, uint64_t>>;  // id, version (0: was missing)

struct ListenerNode {
  ListenerRuntime runtime;
  std::vector<std::unique_ptr<AccessLogFields>> log_fields;
  std::vector<std::shared_ptr<TlsContextSet<tls::ServerContext>>> tls;
  std::vector<SlotLeases::Lease> leases;
  SecretVersions secrets;          // it was built from
  std::vector<std::string> notes;  // for the operator: secrets that are missing
};
struct VirtualHostNode {
  VirtualHostEntry entry;
  std::unique_ptr<route::LoadedVirtualHost> loaded;
  SlotLeases::Lease lease;
};
struct ClusterNode {
  ClusterRuntime runtime;
  std::shared_ptr<TlsContextSet<tls::ClientContext>> tls;
  std::vector<SlotLeases::Lease> leases;
  uint64_t endpoint_set_version = 0;  // 0: was missing
  SecretVersions secrets;             // it was built from
  std::vector<std::string> notes;     // for the operator: secrets that are missing
};

class NodeBuilder {
 public:
  NodeBuilder(stats::Region region, base::TimeNs linger_ns, std::vector<tls::LibraryContext*> libraries)
      : leases_(region, linger_ns), tls_(std::move(libraries)), workers_(region.workers()) {}

  base::Result<std::shared_ptr<const ListenerNode>> listener(const table::Listener& object, const ObjectFinder& finder);
  // `owner`: name of the route table, for the statistics.
  base::Result<std::shared_ptr<const VirtualHostNode>> virtual_host(const table::VirtualHost& object, std::string_view owner,
                                                                    bool* scratch_grew);
  base::Result<std::shared_ptr<const ClusterNode>> cluster(const table::Cluster& object, const ObjectFinder& finder);
  // Does a node fit the snapshot being built as it is (its own object being the same)?
  static bool still_good(const ListenerNode& node, const ObjectFinder& finder);
  static bool still_good(const ClusterNode& node, const ObjectFinder& finder);

  route::PatternScratch& prototype_scratch() { return prototype_; }
  SlotLeases& leases() { return leases_; }
  TlsContextCache& tls() { return tls_; }
  size_t pattern_databases() const { return databases_.size(); }
  void sweep(base::TimeNs now);

 private:
  // What a TLS context takes from secrets: certificates and validation. False: one of them is not there.
  template <class Tls>
  bool collect_secrets(const void* object, const Tls& from, const ObjectFinder& finder, SecretVersions* versions,
                       std::vector<tls::CertificatePem>* certificates, tls::ValidationConfig* validation);
  base::Status build_cluster_tls(const table::Cluster& object, const ObjectFinder& finder, ClusterNode& node);
  void set_health_checks(const table::Cluster& object, ClusterNode& node);
  base::Status build_chain(const table::Listener& object, uint32_t index, const ObjectFinder& finder, ListenerNode& node);

  SlotLeases leases_;
  TlsContextCache tls_;
  route::PatternDbCache databases_;
  route::PatternScratch prototype_;
  uint32_t workers_;
  HashBudget hashes_;
  uint64_t balancers_built_ = 0;  // seeds them: each worker and set begins at a place of its own
};

}  // namespace millrace::dataplane
