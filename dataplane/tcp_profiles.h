// The TCP profiles of one worker (tcp/tcp.h: what the connections of a kind share). Those of both directions are there from the
// start; a listener or cluster that asks for something of its own (table::TcpOptions) has one derived from it, made with its
// first connection, for all that ask for the same.
//
//   listener, cluster ── options ──▶ with() ── none? ──▶ the base
//                                       └──── known? ──▶ shared ◀── joined(), left(): connections ──▶ none: may give way
//
// A connection keeps its profile to the end, whatever is edited meanwhile, as an accepted or connected socket does. No heap after
// add().
#pragma once

#include <cstdint>
#include <deque>
#include <memory>

#include "lib/table/objects.h"
#include "lib/tcp/tcp.h"

namespace millrace::dataplane {

// per_connection_buffer_limit_bytes: what a connection lets wait towards its peer (unacknowledged bytes among it), and what its
// peer may have under way or unread towards us. Less than this would make windows in which no connection gets on.
inline constexpr uint32_t kLeastBufferBytes = 16 * 1024;
inline constexpr uint32_t kNoBufferLimit = UINT32_MAX;  // the base's

// `base` with what `options` and the limit of its buffers (bytes) ask for. A limit above the base's buffers changes nothing.
tcp::Config with_options(tcp::Config base, const table::TcpOptions& options, uint32_t buffer_limit = kNoBufferLimit);

class TcpProfiles {
 public:
  // Distinct sets of options that connections of a worker may have at one time. Beyond it a connection takes the base: counted.
  static constexpr uint32_t kMost = 256;

  explicit TcpProfiles(tcp::RepairPool& repairs) : repairs_(repairs), derived_(std::make_unique<Derived[]>(kMost)) {}

  const tcp::Profile& add(const tcp::Config& config) { return permanent_.emplace_back(config, &repairs_); }
  const tcp::Profile& first() const { return permanent_.front(); }

  // `base`: one of add(). What it returns may give its place away with the next with(), unless a connection has joined it.
  const tcp::Profile& with(const tcp::Profile& base, const table::TcpOptions& options, uint32_t buffer_limit = kNoBufferLimit) {
    return options == table::TcpOptions{} && buffer_limit >= kPlentyBytes ? base : derive(base, options, buffer_limit);
  }
  // A connection was opened with it, and is gone.
  void joined(const tcp::Profile& p) {
    if (Derived* d = derived(p)) ++d->users;
  }
  void left(const tcp::Profile& p) {
    if (Derived* d = derived(p)) --d->users;
  }

  uint32_t in_use() const;  // derived profiles with connections
  uint64_t refused() const { return refused_; }

 private:
  struct Derived {
    tcp::Profile profile;  // first: derived() relies on it
    const tcp::Profile* base = nullptr;
    table::TcpOptions options;
    uint32_t buffer_limit = kNoBufferLimit;
    uint32_t users = 0;
  };
  // No buffer is larger: limits from here on need no profile.
  static constexpr uint32_t kPlentyBytes = 256 * 1024;
  const tcp::Profile& derive(const tcp::Profile& base, const table::TcpOptions& options, uint32_t buffer_limit);
  Derived* derived(const tcp::Profile& p) {
    const auto at = reinterpret_cast<uintptr_t>(&p), begin = reinterpret_cast<uintptr_t>(derived_.get());
    return at - begin < kMost * sizeof(Derived) ? &derived_[(at - begin) / sizeof(Derived)] : nullptr;
  }

  tcp::RepairPool& repairs_;
  std::deque<tcp::Profile> permanent_;  // addresses are stable
  std::unique_ptr<Derived[]> derived_;
  uint32_t made_ = 0, next_ = 0;  // places ever taken; where the search for a free one goes on
  uint64_t refused_ = 0;
};

}  // namespace millrace::dataplane
