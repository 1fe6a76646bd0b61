// TLS contexts of the tables: one a worker for each configuration, made by the loader, used by workers, destroyed by the loader
// when no table shows them and no session uses them any more. Equal configurations share: an edit elsewhere does not touch them,
// and tickets stay good. Loader thread only, but for what is pointed to.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/status.h"
#include "lib/table/objects.h"
#include "lib/tls/context.h"

namespace millrace::dataplane {

template <class Context>
struct TlsContextSet {
  std::vector<std::unique_ptr<Context>> contexts;  // by worker
  std::vector<Context*> pointers;                  // the same, for FilterChainRuntime::tls and ClusterRuntime::tls
};

class TlsContextCache {
 public:
  // `libraries`: one per worker; empty: no contexts are made.
  explicit TlsContextCache(std::vector<tls::LibraryContext*> libraries);
  ~TlsContextCache();
  bool enabled() const { return !libraries_.empty(); }
  base::Result<std::shared_ptr<TlsContextSet<tls::ServerContext>>> get(const tls::ServerConfig& config);
  // `besides`: what else tells connections apart (whose they are, the server name they ask for): contexts of different ones are
  // not shared, so that sessions are offered where they came from, and a connection's context says all of how it was made.
  base::Result<std::shared_ptr<TlsContextSet<tls::ClientContext>>> get(const tls::ClientConfig& config, std::string_view besides);
  // Destroys contexts that left the tables and that no session uses any more; returns how many are alive.
  size_t sweep();

 private:
  template <class Context>
  struct Kind {
    std::map<std::string, std::weak_ptr<TlsContextSet<Context>>> by_content;
    std::vector<std::unique_ptr<TlsContextSet<Context>>> retired;
  };
  template <class Context, class Config>
  base::Result<std::shared_ptr<TlsContextSet<Context>>> get_in(Kind<Context>& kind, const Config& config,
                                                               std::string_view besides);
  template <class Context>
  void sweep_in(Kind<Context>& kind);

  const std::vector<tls::LibraryContext*> libraries_;
  tls::TicketKeys
      ticket_keys_;  // until control rotates keys: random, the same on all workers and for all contexts of this process
  Kind<tls::ServerContext> servers_;
  Kind<tls::ClientContext> clients_;
  size_t alive_ = 0;
};

// Adds what a secret of kind kValidation says: fields that it sets replace, lists are appended (protobuf's merge, as Envoy
// combines contexts).
void add_validation(const table::Secret& secret, tls::ValidationConfig* out);

}  // namespace millrace::dataplane
