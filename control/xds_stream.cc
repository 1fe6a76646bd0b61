#include "control/xds_stream.h"

#include <algorithm>
#include <set>

#include <grpcpp/alarm.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include "control/monotonic.h"
#include "control/xds_channel.h"
#include "control/xds_messages.h"
#include "lib/base/assert.h"
#include "lib/base/hash.h"

namespace millrace::control {

namespace {

namespace discovery = envoy::service::discovery::v3;
using base::TimeNs;

constexpr const char* kSotwMethod = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
constexpr const char* kDeltaMethod = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
// While a channel connects, gRPC cannot be asked to stop waiting: how long stop() may have to.
constexpr TimeNs kLook = 200 * base::kMillisecond;

gpr_timespec at(TimeNs when) {
  if (when == base::kNever) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
  return {static_cast<int64_t>(when / base::kSecond), static_cast<int32_t>(when % base::kSecond), GPR_CLOCK_MONOTONIC};
}

constexpr XdsType kByName[] = {XdsType::kEndpoints, XdsType::kRoute, XdsType::kSecret};

XdsEngineConfig engine_config(const XdsStreamConfig& c) {
  XdsEngineConfig out = c.engine;
  out.servers = c.servers.size();
  return out;
}

}  // namespace

std::string_view to_string(XdsStatus::State state) {
  constexpr std::string_view kWords[] = {"idle", "connecting", "connected", "waiting"};
  return kWords[static_cast<size_t>(state)];
}

// The queue's events are tags: an operation of the attempt, or the alarm.
struct XdsStream::Queue {
  grpc::CompletionQueue events;
  std::mutex mutex;  // guards what follows
  grpc::Alarm alarm;
  bool armed = false, closed = false;
};

struct XdsStream::Attempt {
  enum Op : int { kState, kStart, kRead, kWrite, kFinish, kOps };
  using Stub = grpc::GenericStub;
  XdsChannel way;
  std::unique_ptr<Stub> stub;
  grpc::ClientContext context;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream;
  std::array<bool, kOps> under_way{};
  std::array<char, kOps> tags{};  // their addresses
  std::deque<grpc::ByteBuffer> to_send;
  grpc::ByteBuffer received;
  grpc::Status status;
  bool started = false, ending = false, given_up = false;

  void* tag(Op op) {
    MILLRACE_ASSERT(!under_way[op], "one operation of a kind at a time");
    under_way[op] = true;
    return &tags[op];
  }
  bool idle() const {
    return std::none_of(under_way.begin(), under_way.end(), [](bool b) { return b; });
  }
};

XdsStream::XdsStream(XdsStreamConfig config, XdsSink& sink, Sources sources)
    : config_(std::move(config)),
      sink_(sink),
      sources_(std::move(sources)),
      engine_(engine_config(config_), base::hash64(std::string_view(config_.node.id()), monotonic_ns())),
      queue_(std::make_unique<Queue>()) {
  if (config_.clusters) engine_.want_all(XdsType::kCluster);
  if (config_.listeners) engine_.want_all(XdsType::kListener);
}

XdsStream::~XdsStream() {
  stop();
  if (queue_->closed) return;
  queue_->events.Shutdown();  // was never started
  void* tag = nullptr;
  bool ok = false;
  while (queue_->events.Next(&tag, &ok)) continue;
}

void XdsStream::start() {
  thread_ = std::thread([this] { run(); });
}

void XdsStream::stop() {
  if (!thread_.joinable()) return;
  stopping_ = true;
  wake();
  thread_.join();
}

void XdsStream::wanted_changed() { wake(); }

void XdsStream::wake() {
  const std::lock_guard lock(queue_->mutex);
  if (queue_->armed || queue_->closed) return;
  queue_->armed = true;
  queue_->alarm.Set(&queue_->events, gpr_inf_past(GPR_CLOCK_MONOTONIC), queue_.get());
}

XdsStatus XdsStream::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

void XdsStream::run() {
  void* tag = nullptr;
  bool ok = false;
  while (true) {
    if (stopping_) {
      if (attempt_ == nullptr) break;
      end(*attempt_);
      if (attempt_ == nullptr) break;
    } else {
      take_wanted();
      act();
      note();
    }
    const TimeNs deadline = stopping_ ? base::kNever : engine_.next_deadline();
    if (queue_->events.AsyncNext(&tag, &ok, at(deadline)) == grpc::CompletionQueue::GOT_EVENT) on_event(tag, ok);
  }
  {
    const std::lock_guard lock(queue_->mutex);
    queue_->closed = true;
    queue_->alarm.Cancel();
  }
  queue_->events.Shutdown();
  while (queue_->events.Next(&tag, &ok)) continue;
}

void XdsStream::take_wanted() {
  const uint64_t generation = sink_.wanted_generation();
  if (wanted_generation_ == generation) return;
  wanted_generation_ = generation;
  for (const XdsType type : kByName) {
    std::set<std::string> names = sink_.wanted(type);
    names_[static_cast<size_t>(type)] = names.size();
    keep_names(type, names);
    engine_.want(type, std::move(names));
  }
}

// What nobody asks for any more is counted no longer, as in Envoy.
void XdsStream::keep_names(XdsType type, const std::set<std::string>& names) {
  const std::lock_guard lock(mutex_);
  auto it = status_.names.lower_bound({type, ""});
  while (it != status_.names.end() && it->first.first == type) {
    if (names.contains(it->first.second)) ++it;
    else it = status_.names.erase(it);
  }
  for (const std::string& name : names) status_.names.try_emplace({type, name});
}

// `came`: names of the response; `bad`: those that were refused, here or by the sink.
void XdsStream::count_names(const XdsUpdate& update, const std::vector<std::string>& came, const std::set<std::string>& bad) {
  const std::lock_guard lock(mutex_);
  for (const std::string& name : came) {
    const auto found = status_.names.find({update.type, name});
    if (found == status_.names.end()) continue;  // asked for as a whole, or not at all
    XdsStatus::Name& n = found->second;
    ++n.update_attempt;
    n.given_up = false;
    if (bad.contains(name)) {
      ++n.update_rejected;
    } else {
      ++n.update_success;
      n.version = update.version;
    }
  }
  for (const std::string& name : update.removed) {  // delta: there is no such resource
    const auto found = status_.names.find({update.type, name});
    if (found == status_.names.end()) continue;
    ++found->second.update_attempt;
    ++found->second.update_success;
    found->second.given_up = true;
  }
}

void XdsStream::act() {
  while (true) {
    XdsAction a = engine_.poll(monotonic_ns());
    switch (a.kind) {
      case XdsAction::Kind::kNone:
        return;
      case XdsAction::Kind::kConnect:
        connect(a.server);
        break;
      case XdsAction::Kind::kClose:
        if (attempt_ == nullptr) break;
        attempt_->status = grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "no connection in time");
        end(*attempt_);
        break;
      case XdsAction::Kind::kSend: {
        if (attempt_ == nullptr || attempt_->ending) break;  // closed() follows, and all is asked for anew
        grpc::ByteBuffer bytes;
        bool own = false;
        const grpc::Status s = config_.engine.delta ? grpc::SerializationTraits<discovery::DeltaDiscoveryRequest>::Serialize(
                                                          to_delta(a.request, config_.node), &bytes, &own)
                                                    : grpc::SerializationTraits<discovery::DiscoveryRequest>::Serialize(
                                                          to_sotw(a.request, config_.node), &bytes, &own);
        MILLRACE_ASSERT(s.ok(), "a request can be serialized");
        if (!a.request.error.empty() && errors_said_[static_cast<size_t>(a.request.type)] != a.request.error) {
          errors_said_[static_cast<size_t>(a.request.type)] = a.request.error;  // a repetition is not said again
          sources_.say("xDS: " + std::string(short_name(a.request.type)) + " of " +
                       server_name(config_.servers[engine_.server()]) + " refused: " + a.request.error);
        }
        attempt_->to_send.push_back(std::move(bytes));
        {
          const std::lock_guard lock(mutex_);
          ++status_.requests;
        }
        send_next(*attempt_);
        break;
      }
      case XdsAction::Kind::kExpired:
        sources_.say("xDS: no answer for " + (a.name.empty() ? "all" : "\"" + a.name + "\"") + " of " +
                     std::string(short_name(a.type)) + " within the fetch timeout; going on without");
        {
          const std::lock_guard lock(mutex_);
          if (const auto found = status_.names.find({a.type, a.name}); found != status_.names.end()) {
            ++found->second.init_fetch_timeout;
            found->second.given_up = true;
          }
        }
        sink_.expired(a.type, a.name);
        take_wanted();
        break;
    }
  }
}

void XdsStream::connect(size_t server) {
  MILLRACE_ASSERT(attempt_ == nullptr, "one attempt at a time");
  base::Result<XdsChannel> way = open_channel(config_.servers[server], *sources_.model());
  if (!way.ok()) return lost(way.error());
  attempt_ = std::make_unique<Attempt>();
  attempt_->way = std::move(way).value();
  (void)attempt_->way.channel->GetState(/*try_to_connect=*/true);
  on_channel(*attempt_);
}

// While the channel connects.
void XdsStream::on_channel(Attempt& a) {
  if (a.given_up) return end(a);
  const grpc_connectivity_state state = a.way.channel->GetState(true);
  if (state == GRPC_CHANNEL_READY) {
    engine_.connected(monotonic_ns());
    a.stub = std::make_unique<Attempt::Stub>(a.way.channel);
    if (!a.way.authority.empty()) a.context.set_authority(a.way.authority);
    for (const auto& [key, value] : a.way.metadata) a.context.AddMetadata(key, value);
    a.stream = a.stub->PrepareCall(&a.context, config_.engine.delta ? kDeltaMethod : kSotwMethod, &queue_->events);
    a.stream->StartCall(a.tag(Attempt::kStart));
    const std::string& name = server_name(config_.servers[engine_.server()]);
    sources_.say("xDS: connected to " + name);
    last_said_.clear();
    const std::lock_guard lock(mutex_);
    ++status_.streams;
    return;
  }
  if (state == GRPC_CHANNEL_TRANSIENT_FAILURE || state == GRPC_CHANNEL_SHUTDOWN) {
    a.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "cannot be reached");
    return end(a);
  }
  a.way.channel->NotifyOnStateChange(state, at(base::time_add(monotonic_ns(), kLook)), &queue_->events, a.tag(Attempt::kState));
}

void XdsStream::end(Attempt& a) {
  a.given_up = true;
  if (a.stream != nullptr && !a.ending) {
    a.ending = true;
    if (stopping_) a.context.TryCancel();
  }
  if (a.stream != nullptr && stopping_) a.context.TryCancel();
  if (!a.idle()) return;  // each operation comes back to here
  if (a.started && a.stream != nullptr) {
    a.started = false;
    a.stream->Finish(&a.status, a.tag(Attempt::kFinish));
    return;
  }
  const std::string why = a.status.error_message().empty() ? "ended by the server" : a.status.error_message();
  attempt_.reset();
  lost(why);
}

void XdsStream::lost(const std::string& why) {
  const std::string name = server_name(config_.servers[engine_.server()]);
  const bool was_up = engine_.is_connected();
  std::array<uint64_t, kXdsTypes> failures{};
  for (size_t i = 0; i < kXdsTypes; ++i) failures[i] = engine_.stats(static_cast<XdsType>(i)).update_failure;
  engine_.closed(monotonic_ns());
  {
    const std::lock_guard lock(mutex_);
    status_.last_error = why;
    for (auto& [key, n] : status_.names) {
      const uint64_t now = engine_.stats(key.first).update_failure;
      n.update_failure += now - failures[static_cast<size_t>(key.first)];
    }
  }
  if (stopping_) return;
  const std::string line = "xDS: " + name + (was_up ? " lost: " : " not reached: ") + why;
  if (line != last_said_) sources_.say(line);
  last_said_ = line;
}

void XdsStream::send_next(Attempt& a) {
  if (!a.started || a.ending || a.to_send.empty() || a.under_way[Attempt::kWrite]) return;
  const grpc::ByteBuffer next = std::move(a.to_send.front());
  a.to_send.pop_front();
  a.stream->Write(next, a.tag(Attempt::kWrite));
}

void XdsStream::on_event(void* tag, bool ok) {
  if (tag == queue_.get()) {
    const std::lock_guard lock(queue_->mutex);
    queue_->armed = false;
    return;
  }
  MILLRACE_ASSERT(attempt_ != nullptr, "an operation belongs to an attempt");
  Attempt& a = *attempt_;
  const auto op = static_cast<Attempt::Op>(static_cast<char*>(tag) - a.tags.data());
  a.under_way[op] = false;
  switch (op) {
    case Attempt::kState:
      return on_channel(a);
    case Attempt::kStart:
      a.started = true;  // so Finish() is owed, whatever came of it
      if (!ok || a.ending) return end(a);
      a.stream->Read(&a.received, a.tag(Attempt::kRead));
      return send_next(a);
    case Attempt::kRead:
      if (!ok || a.ending) return end(a);
      on_message(a);
      if (a.ending || stopping_) return end(a);
      a.stream->Read(&a.received, a.tag(Attempt::kRead));
      return;
    case Attempt::kWrite:
      if (!ok || a.ending) return end(a);
      return send_next(a);
    case Attempt::kFinish:
    default:
      return end(a);
  }
}

void XdsStream::on_message(Attempt& a) {
  XdsResponse response;
  std::string identifier;
  grpc::Status parsed;
  if (config_.engine.delta) {
    discovery::DeltaDiscoveryResponse message;
    parsed = grpc::SerializationTraits<discovery::DeltaDiscoveryResponse>::Deserialize(&a.received, &message);
    if (parsed.ok()) response = from_delta(message);
    identifier = message.control_plane().identifier();
  } else {
    discovery::DiscoveryResponse message;
    parsed = grpc::SerializationTraits<discovery::DiscoveryResponse>::Deserialize(&a.received, &message);
    if (parsed.ok()) response = from_sotw(message);
    identifier = message.control_plane().identifier();
  }
  a.received.Clear();
  if (!parsed.ok()) {
    sources_.say("xDS: a message that is no discovery response; the stream is given up");
    a.ending = true;
    a.context.TryCancel();
    return;
  }
  const std::optional<XdsType> type = xds_type(response.type_url);
  {
    const std::lock_guard lock(mutex_);
    ++status_.responses;
    if (!identifier.empty()) status_.identifier = identifier;
    if (type) status_.types[static_cast<size_t>(*type)].last_response_ns = monotonic_ns();
  }
  std::vector<std::string> came;
  std::set<std::string> bad;
  for (const XdsResource& r : response.resources) {
    if (!r.bad.empty()) bad.insert(r.name);
    if (!r.name.empty() && !r.heartbeat) came.push_back(r.name);
  }
  XdsUpdate update = engine_.on_response(std::move(response));
  if (!update.waits) return;
  update.server = server_name(config_.servers[engine_.server()]);
  std::vector<XdsRejection> rejections = sink_.apply(update);
  for (const XdsRejection& r : rejections) bad.insert(r.name);
  count_names(update, came, bad);
  if (rejections.empty()) errors_said_[static_cast<size_t>(update.type)].clear();
  engine_.applied(monotonic_ns(), update.type, std::move(rejections));
}

void XdsStream::note() {
  using State = XdsStatus::State;
  State state = State::kIdle;
  if (engine_.is_connected()) state = State::kConnected;
  else if (attempt_ != nullptr) state = State::kConnecting;
  else if (engine_.next_deadline() != base::kNever) state = State::kWaiting;
  const std::lock_guard lock(mutex_);
  if (status_.since_ns == 0 || status_.state != state) status_.since_ns = monotonic_ns();
  status_.state = state;
  status_.server = server_name(config_.servers[engine_.server()]);
  for (size_t i = 0; i < kXdsTypes; ++i) {
    const XdsType type = static_cast<XdsType>(i);
    XdsStatus::Type& t = status_.types[i];
    const bool whole = (type == XdsType::kCluster && config_.clusters) || (type == XdsType::kListener && config_.listeners);
    t.names = names_[i];
    t.subscribed = whole || t.names > 0;
    t.known = engine_.known(type);
    t.outstanding = engine_.outstanding(type);
    t.stats = engine_.stats(type);
  }
}

}  // namespace millrace::control
