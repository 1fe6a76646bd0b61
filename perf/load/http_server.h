// The servers: just enough of a request is read to know where it ends and whether its connection goes on; the answer is a
// template.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "perf/load/tcp_peer.h"

namespace millrace::load {

class HttpServer {
 public:
  static constexpr uint32_t kResetsPerLoop = 64;

  HttpServer(Shared& shared, TcpPeer& tcp);

  // `ranges` in the form of address ids.
  struct Range {
    bool v6;
    AddressId first, last;
    uint16_t port_first, port_last;
  };
  void prepare(std::vector<Range> ranges);
  bool listens(bool v6, AddressId a, uint16_t port) const;
  bool has_address(bool v6, AddressId a) const;

  // Resets connections, some in each call as the wire takes it, or all `at_once`; true when none is open.
  bool close_some(bool at_once);

  // From TcpPeer.
  void on_open(uint32_t i, Connection& c);
  void on_bytes(uint32_t i, Connection& c, const uint8_t* p, uint32_t n);
  void on_peer_fin(uint32_t i, Connection& c);
  void on_reset(uint32_t i, Connection& c);
  MessageBytes bytes(const Message& m) const;

 private:
  uint32_t take_head(uint32_t i, Connection& c, const uint8_t* p, uint32_t n);
  bool begin_request(uint32_t i, Connection& c, const uint8_t* head, const struct HeadScan& scan);
  uint32_t take_chunked(uint32_t i, Connection& c, const uint8_t* p, uint32_t n);
  void end_request(uint32_t i, Connection& c);
  void fail(uint32_t i, uint64_t& counter);

  Shared& shared_;
  Counters& counters_;
  ConnectionTable& table_;
  TcpPeer& tcp_;
  std::vector<Range> ranges_;
  std::string head_, close_head_, tail_;
  uint32_t body_;
  uint32_t closing_ = 0;
};

}  // namespace millrace::load
