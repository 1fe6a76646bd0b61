// The client's side of xDS, state of the world and delta, on one aggregated stream: what to ask for, what to acknowledge, when to
// connect again and to whom. Sans-I/O: time, replies and verdicts in; actions out. One thread at a time.
//
//   want_all / want ─┐                                           ┌─▶ connect(server), close
//   connected, closed├─▶ XdsEngine ── poll(now), next_deadline() ─┼─▶ send(request)
//   on_response ─────┘     │   ▲                                  └─▶ expired(type, name): not answered within the fetch timeout
//                          ▼   │ applied(rejections)
//                 XdsUpdate: changed, removed ── validated and applied by the caller, resource by resource
//
// Rules (xds_protocol.rst; gRFC A27, A46, A57):
// * A bad resource never blocks the good ones of its response: the caller applies what is good and names the rest in applied();
//   the NACK then carries every reason, and the version accepted last.
// * State of the world: a response for clusters or listeners is the whole world of its type, so what is not in it is removed;
//   what is in it but bad stays as it was. For other types absence says nothing. Subscriptions and acknowledgements travel
//   together.
// * Delta: a change of subscription and an acknowledgement never share a request (istiod takes the first for the second);
//   spontaneous requests carry no nonce. The first request of a type on a stream says what is known (initial_resource_versions).
// * A server that answers a NACK with the same bad response gets the next NACK after a back-off, not in a tight loop
//   (go-control-plane compares versions only, and sends again at once).
// * A lost stream takes nothing away. Another server's versions and nonces mean nothing to this one: they are forgotten when the
//   server changes, the names are not.
// * Requests leave in the order of XdsType: clusters before endpoints before listeners before routes before secrets.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/prng.h"
#include "lib/base/time.h"

namespace millrace::control {

enum class XdsType : uint8_t { kCluster, kEndpoints, kListener, kRoute, kSecret };
inline constexpr size_t kXdsTypes = 5;
std::string_view type_url(XdsType type);    // "type.googleapis.com/envoy.config.cluster.v3.Cluster"
std::string_view short_name(XdsType type);  // "CDS"
std::optional<XdsType> xds_type(std::string_view type_url);

struct XdsResource {
  std::string name;        // "" when it could not be read; `bad` is then set
  std::string version;     // of this resource; delta only
  std::string body;        // the serialized resource
  std::string bad;         // why it could not even be unpacked; "" when it could
  bool heartbeat = false;  // delta: a Resource without `resource`, which only prolongs a TTL
};
struct XdsResponse {
  std::string type_url;
  std::string version;  // version_info; delta: system_version_info
  std::string nonce;
  std::vector<XdsResource> resources;
  std::vector<std::string> removed;  // delta: removed_resources
};
struct XdsRejection {
  std::string name;    // of the resource
  std::string reason;  // with the full path of the field
};
struct XdsRequest {
  XdsType type = XdsType::kCluster;
  bool with_node = false;
  std::string nonce;                           // response_nonce
  std::string error;                           // error_detail.message; "": not a NACK. Its code is INVALID_ARGUMENT
  std::string version;                         // SotW: version_info
  std::vector<std::string> names;              // SotW: resource_names, all of them, sorted
  std::vector<std::string> subscribe;          // delta
  std::vector<std::string> unsubscribe;        // delta
  std::map<std::string, std::string> initial;  // delta: initial_resource_versions
};
// What a response changes. The caller answers it by applied() before the next response is given.
struct XdsUpdate {
  bool waits = false;  // applied() is expected; false: the response was ignored
  XdsType type = XdsType::kCluster;
  std::string version;               // of the response
  std::string server;                // for people; the stream says it
  std::vector<XdsResource> changed;  // new or different from what was accepted last
  std::vector<std::string> removed;  // gone; also a name that was asked for and does not exist (delta)
};
struct XdsAction {
  enum class Kind : uint8_t { kNone, kConnect, kClose, kSend, kExpired };
  Kind kind = Kind::kNone;
  size_t server = 0;                 // kConnect
  XdsRequest request;                // kSend
  XdsType type = XdsType::kCluster;  // kExpired
  std::string name;                  // kExpired; "": all resources of the type
};

struct XdsEngineConfig {
  bool delta = false;
  size_t servers = 1;  // grpc_services, in order of preference; from 1
  bool node_on_first_only = false;
  base::TimeNs fetch_timeout = 15 * base::kSecond;       // initial_fetch_timeout; 0: names never expire
  base::TimeNs connect_timeout = 5 * base::kSecond;      // until connected() or closed(); from 1
  base::TimeNs backoff_base = 500 * base::kMillisecond;  // Envoy's defaults for gRPC streams
  base::TimeNs backoff_limit = 30 * base::kSecond;
};

// Envoy's names of the counters of a subscription.
struct XdsTypeStats {
  uint64_t update_attempt = 0;      // responses
  uint64_t update_success = 0;      // acknowledged
  uint64_t update_rejected = 0;     // of which something was refused
  uint64_t update_failure = 0;      // attempts and streams that ended without an answer
  uint64_t init_fetch_timeout = 0;  // names that expired
  uint64_t ignored_resources = 0;   // sent although not asked for
  std::string version;              // accepted last
  std::string last_error;           // of the newest NACK; stays after a success
};

class XdsEngine {
 public:
  static constexpr size_t kMaxErrorText = 4096;  // bytes of error_detail: servers log it, and gRPC bounds what they take

  XdsEngine(const XdsEngineConfig& config, uint64_t seed);

  // Subscriptions. A type is asked for by wildcard or by names, not both; an empty set of names unsubscribes.
  void want_all(XdsType type);
  void want(XdsType type, std::set<std::string> names);

  // The stream that the last kConnect was about.
  void connected(base::TimeNs now);
  void closed(base::TimeNs now);  // could not be opened, or ended, or follows kClose

  // A response of the stream. Asserts that the one before it, of the same type, was answered by applied().
  XdsUpdate on_response(XdsResponse&& response);
  // The verdict: what the caller could not take of the update. Valid also after the stream has ended.
  void applied(base::TimeNs now, XdsType type, std::vector<XdsRejection> rejections);

  // What to do next; asked again until kNone.
  XdsAction poll(base::TimeNs now);
  base::TimeNs next_deadline() const;  // when poll() has something to do although nothing happened; kNever

  bool is_connected() const { return link_ == Link::kUp; }
  size_t server() const { return server_; }  // connected to, or tried
  const XdsTypeStats& stats(XdsType type) const { return state(type).stats; }
  uint64_t unknown_types() const { return unknown_types_; }
  // Accepted resources of a type, and how many names wait for their first answer.
  size_t known(XdsType type) const { return state(type).known.size(); }
  size_t outstanding(XdsType type) const { return state(type).waiting.size(); }

 private:
  enum class Link : uint8_t { kDown, kConnecting, kUp };
  struct Known {
    std::string version;  // of the server that `versions_of_` names
    uint64_t hash = 0;    // of the body that was accepted
  };
  struct Held {  // an update whose verdict is awaited
    std::map<std::string, Known> good;
    std::vector<std::string> removed;
    std::vector<XdsRejection> bad;  // found here
    std::string version, nonce;
    uint64_t fingerprint = 0;  // of the whole response
    uint64_t stream = 0;       // that it came on
    size_t server = 0;         // that sent it
  };
  struct Type {
    bool wildcard = false;
    std::set<std::string> names;
    bool asked = false;          // on this stream
    std::set<std::string> told;  // names that the server was told on this stream
    bool names_differ = false;   // `names` from `told`
    std::string version;         // SotW: accepted last
    std::string nonce;           // newest on this stream
    std::map<std::string, Known> known;
    std::set<std::string> refused;                // and never accepted: that they are gone is news too
    std::map<std::string, base::TimeNs> waiting;  // "" for a wildcard: expires at; kNever while not asked
    std::optional<Held> held;
    bool answer_due = false;  // an ACK or NACK waits
    std::string answer_error;
    base::TimeNs answer_at = 0;
    uint64_t bad_fingerprint = 0;  // of the last response with something bad
    uint32_t bad_repeats = 0;
    bool answered = false;  // on this stream
    XdsTypeStats stats;
  };

  static bool whole_world(XdsType type) { return type == XdsType::kCluster || type == XdsType::kListener; }
  const Type& state(XdsType type) const { return types_[static_cast<size_t>(type)]; }
  Type& state(XdsType type) { return types_[static_cast<size_t>(type)]; }
  static bool wanted(const Type& t) { return t.wildcard || !t.names.empty(); }
  static bool names_changed(const Type& t) { return t.asked ? t.names_differ : wanted(t); }
  std::optional<XdsRequest> request_for(XdsType type, base::TimeNs now);
  XdsRequest ask(XdsType type, base::TimeNs now);
  void answer(Type& t, XdsRequest* r);
  base::TimeNs backoff(uint32_t failures);

  const XdsEngineConfig config_;
  base::Prng random_;
  std::array<Type, kXdsTypes> types_;
  Link link_ = Link::kDown;
  size_t server_ = 0;
  std::optional<size_t> versions_of_;  // the server that versions in `types_` come from
  uint64_t stream_ = 0;                // counts streams
  bool node_sent_ = false, responded_ = false;
  bool close_due_ = false;
  base::TimeNs link_at_ = 0;  // kDown: connect at; kConnecting: give up at
  uint32_t rounds_ = 0;       // failed in a row, through all servers
  uint64_t unknown_types_ = 0;
};

}  // namespace millrace::control
