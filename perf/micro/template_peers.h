// Clients and servers at packet level, in the same thread as the worker that they load: frames made from templates, a small state
// machine a connection, no TCP stack. The wire loses nothing, so whatever is not the next expected byte is an error, and an error
// makes the whole measurement void. Every answer is checked: status, length, each byte of the body.
//
//   TemplateClients ── MemoryPort.rx ─▶ Worker ─▶ MemoryPort.tx ── TemplateServers
//
// Their cost does not matter: they run outside of what is measured.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/base/ip_address.h"
#include "lib/base/time.h"
#include "lib/io/packet.h"
#include "lib/io/packet_queue.h"
#include "lib/tls/session.h"
#include "lib/wire/tcp.h"
#include "perf/micro/memory_port.h"

namespace millrace::bench {

using base::IpAddress;
using base::TimeNs;

// What a peer must not see; one of them and the run is void.
struct PeerErrors {
  uint64_t count = 0;
  std::string first;
  void add(std::string what) {
    if (count++ == 0) first = std::move(what);
  }
};

// One end of a TCP connection, as far as a template needs it.
struct Flow {
  IpAddress local, remote;
  uint16_t local_port = 0, remote_port = 0;
  uint32_t snd_nxt = 0, snd_una = 0, rcv_nxt = 0;
  uint32_t snd_wnd = 0;    // bytes the worker takes beyond snd_una
  uint8_t snd_wscale = 0;  // of the windows that the worker announces
  uint32_t ts_recent = 0;
  bool timestamps = false;
  uint32_t room() const {
    const uint32_t in_flight = snd_nxt - snd_una;
    return snd_wnd > in_flight ? snd_wnd - in_flight : 0;
  }
};

struct PeerWire {
  MemoryPort& port;
  io::PacketPool pool;  // received packets of the worker: what its driver would fill
  io::MacAddress mac, worker_mac;
  bool timestamps = true;
};

// What both sides share: frames in, frames out.
class TemplateHost {
 public:
  static constexpr uint16_t kMss = 1460;
  static constexpr uint8_t kWindowShift = 7;
  static constexpr uint32_t kWindow = 4 << 20;  // bytes announced: a peer that always reads
  static constexpr uint32_t kQueueLimit = 64;   // frames that wait for the worker before bulk senders pause: two bursts

  explicit TemplateHost(const PeerWire& wire) : wire_(wire) {}
  PeerErrors errors;

 protected:
  struct Segment {
    rte_mbuf* frame = nullptr;
    IpAddress src, dst;
    wire::TcpView tcp;
    uint32_t payload_at = 0, payload_length = 0;
  };
  // The next frame of the worker's; false when there is none. The caller frees segment.frame.
  bool next(Segment& s);
  void send(Flow& f, uint8_t flags, std::string_view payload, TimeNs now);
  // Takes acknowledgement, window and sequence number in. False: not the next expected segment (an error, counted).
  bool accept(Flow& f, const Segment& s);
  template <class F>
  static void for_payload(const Segment& s, F&& f) {
    uint32_t skip = s.payload_at, left = s.payload_length;
    for (const rte_mbuf* m = s.frame; m != nullptr && left > 0; m = m->next) {
      if (skip >= m->data_len) {
        skip -= m->data_len;
        continue;
      }
      const uint32_t n = std::min<uint32_t>(left, m->data_len - skip);
      f(std::string_view(rte_pktmbuf_mtod_offset(m, const char*, skip), n));
      left -= n;
      skip = 0;
    }
  }

  PeerWire wire_;
  uint16_t identification_ = 0;
};

// The body that every server sends and every client expects: `bytes` of it.
std::string_view body_text(uint64_t bytes);

struct ClientOptions {
  uint32_t connections = 64;
  uint64_t body_bytes = 64;
  bool one_request_each = false;      // `connection: close` in the requests, a new connection for each
  bool http2 = false;                 // one stream at a time
  std::vector<std::string> requests;  // whole heads, drawn in order by all connections together
  IpAddress target;
  uint16_t target_port = 80;
  tls::ClientContext* tls = nullptr;      // null: plaintext
  std::function<bool(const Flow&)> mine;  // which flows arrive at the worker of this port; empty: all
};

class TemplateClients : public TemplateHost {
 public:
  TemplateClients(const PeerWire& wire, const ClientOptions& options);
  ~TemplateClients();
  void start(TimeNs now);    // all connections at once
  void receive(TimeNs now);  // everything the worker sent
  uint64_t answered() const { return answered_; }
  uint64_t connected() const { return connected_; }

 private:
  enum class State : uint8_t { kSynSent, kOpen, kLastAck };
  struct Client {
    Flow flow;
    State state = State::kSynSent;
    std::string head;
    uint64_t body_done = 0;
    uint32_t stream = 0;  // HTTP/2: of the request under way
    bool in_body = false, waiting = false;
    tls::Session* session = nullptr;
    io::PacketQueue cipher_in, cipher_out, plain_in, plain_out;
  };
  void open(Client& c, TimeNs now);
  void on_segment(Client& c, const Segment& s, TimeNs now);
  bool on_bytes(Client& c, std::string_view bytes);  // true when the response is complete
  bool on_frames(Client& c, std::string_view bytes);
  void request(Client& c, TimeNs now);
  bool pull_tls(Client& c, TimeNs now);  // true when the response is complete
  void send_cipher(Client& c, TimeNs now);

  ClientOptions options_;
  std::unique_ptr<tls::SessionPool> sessions_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::unordered_map<uint32_t, Client*> by_port_;  // address index << 16 | port
  uint64_t answered_ = 0, connected_ = 0, opened_ = 0, next_request_ = 0;
};

struct ServerOptions {
  uint64_t body_bytes = 64;
  bool http2 = false;
};

class TemplateServers : public TemplateHost {
 public:
  TemplateServers(const PeerWire& wire, const ServerOptions& options);
  void receive(TimeNs now);
  void pump(TimeNs now);  // what windows and the worker's receive queue allow
  uint64_t requests() const { return requests_; }
  uint64_t connections() const { return connections_; }

 private:
  struct Server {
    Flow flow;
    std::string head;
    uint64_t to_send = 0;  // bytes of responses not sent yet, the last of them `response_`'s end
    std::string out;       // HTTP/2: what is to be sent, to_send bytes
    bool greeted = false;  // HTTP/2: the preface came
    bool queued = false, ack_due = false;
  };
  void on_frames(Server& c);
  std::string response_;
  std::string block_;  // HTTP/2: the fields of every response
  ServerOptions options_;
  std::unordered_map<uint64_t, std::unique_ptr<Server>> by_tuple_;
  std::deque<Server*> sending_;
  uint64_t requests_ = 0, connections_ = 0;
};

}  // namespace millrace::bench
