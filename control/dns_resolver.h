// Asks name servers, by c-ares, over the host's own network (never over the data plane's ports), in a thread of its own.
#pragma once

#include <functional>
#include <memory>

#include "control/dns_names.h"

namespace millrace::control {

class DnsResolver {
 public:
  // Called in the resolver's thread, once for each question.
  using Done = std::function<void(const DnsQuestion&, const DnsAnswer&)>;

  explicit DnsResolver(Done done);
  ~DnsResolver();  // questions under way are given up, without an answer
  DnsResolver(const DnsResolver&) = delete;
  DnsResolver& operator=(const DnsResolver&) = delete;

  // From any thread, also from within `done`. AUTO asks for IPv6 and, when there is none, for IPv4; V4_PREFERRED the other way
  // round. A name that does not exist, or has no such address, is an answer without addresses; that no server answered, or one
  // refused, is a failure.
  void resolve(const DnsQuestion& question);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace::control
