#include "control/capture.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <time.h>

#include "control/control_plane.h"
#include "control/inspections.h"
#include "control/json_text.h"
#include "control/pcapng.h"

namespace millrace::control {

using base::Error;
using base::Result;
using table::FilterEndpoint;

namespace {

constexpr uint64_t kKeysBeforeNs = 50'000'000;

uint64_t wall_ns() {
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

Error unknown(const std::string& what, std::string_view name, const std::vector<std::string>& all) {
  const std::string near = nearest(std::string(name), all);
  return Error{"there is no " + what + " of that name" +
               (!near.empty() ? "; did you mean " + near + "?"
                : all.empty() ? ""
                              : "; there are " + list_of(all, " and "))};
}

table::FilterNames filter_names(const Model& model) {
  table::FilterNames names;
  names.listener = [&model](std::string_view name) -> Result<std::vector<FilterEndpoint>> {
    const auto it = model.listeners().find(name);
    if (it == model.listeners().end()) return unknown("listener", name, model.names(ConfigKind::kListener));
    const auto& a = it->second->config->address().socket_address();
    const auto ip = base::IpAddress::parse(a.address());
    return std::vector<FilterEndpoint>{{ip.value_or(base::IpAddress{}), static_cast<uint16_t>(a.port_value())}};
  };
  names.cluster = [&model](std::string_view name) -> Result<std::vector<FilterEndpoint>> {
    if (model.clusters().find(name) == model.clusters().end()) return unknown("cluster", name, model.names(ConfigKind::kCluster));
    std::vector<FilterEndpoint> out;
    const auto it = model.endpoints().find(name);
    if (it == model.endpoints().end()) return out;
    for (const auto& l : it->second->config->endpoints())
      for (const auto& lb : l.lb_endpoints()) {
        const auto& a = lb.endpoint().address().socket_address();
        if (const auto ip = base::IpAddress::parse(a.address())) out.push_back({*ip, static_cast<uint16_t>(a.port_value())});
      }
    return out;
  };
  return names;
}

}  // namespace

Result<table::StartCapture> capture_question(const v1::CaptureRequest& rq, const Model& model,
                                             std::span<const std::string> ports) {
  table::StartCapture q;
  if (!rq.direction().empty() && rq.direction() != "in" && rq.direction() != "out")
    return Error{"--direction: \"" + rq.direction() + "\" is neither in nor out"};
  auto filter = table::parse_packet_filter(rq.filter(), filter_names(model));
  if (!filter.ok()) return Error{"filter: " + filter.error()};
  q.filter = *filter;
  if (!rq.direction().empty()) {
    if (q.filter.count + 2 > table::kMaxFilterOps) return Error{"filter: too long together with --direction"};
    const bool only = q.filter.count == 0;
    q.filter.ops[q.filter.count++].term = rq.direction() == "in" ? table::FilterTerm::kInbound : table::FilterTerm::kOutbound;
    if (!only) q.filter.ops[q.filter.count++].term = table::FilterTerm::kAnd;
  }
  if (rq.snap() > kMaxSnap) return Error{"--snap: at most " + std::to_string(kMaxSnap) + " bytes"};
  q.snap = rq.snap() == 0 ? kMaxSnap : rq.snap();
  q.max_packets = rq.packets() == 0 ? kDefaultCapturePackets : rq.packets();
  q.max_bytes = rq.bytes() == 0 ? kDefaultCaptureBytes : rq.bytes();
  const double seconds = rq.seconds() == 0 ? kDefaultCaptureSeconds : rq.seconds();
  if (!(seconds > 0 && seconds <= 86'400)) return Error{"--seconds: more than 0, at most 86,400"};
  q.duration_ns = static_cast<uint64_t>(seconds * 1e9);
  q.tls_keys = rq.tls_keys() ? 1 : 0;
  if (rq.ports_size() != 0) {
    q.ports = 0;
    for (const std::string& p : rq.ports()) {
      const auto it = std::find(ports.begin(), ports.end(), p);
      if (it == ports.end()) return Error{"--port: \"" + p + "\": " + unknown("port", p, {ports.begin(), ports.end()}).message};
      q.ports |= 1u << (it - ports.begin());
    }
  }
  return q;
}

void run_capture(ControlPlane& plane, const v1::CaptureRequest& rq, const std::string& version,
                 const std::function<bool(const v1::CaptureChunk&)>& write, const std::function<bool()>& cancelled) {
  using Clock = std::chrono::steady_clock;
  const auto fail = [&](const std::string& why) {
    v1::CaptureChunk chunk;
    chunk.set_error(why);
    (void)write(chunk);
  };
  std::vector<std::string> ports;
  uint32_t workers = 0;
  const bool there = plane.link().with_stats([&](const stats::RegionView& view) {
    workers = view.workers();
    for (uint32_t p = 0; p < view.ports(); ++p) ports.push_back(view.port_name(p));
  });
  auto question = capture_question(rq, *plane.resolved_model(), ports);
  if (!question.ok()) return fail(question.error());
  const auto inspection = plane.inspections().open();
  question->id = inspection->id();
  if (!there || !plane.publisher().send_inspection({reinterpret_cast<const uint8_t*>(&*question), sizeof *question}))
    return fail("no data plane is connected: " + plane.link().info().state);

  const uint64_t start = wall_ns();
  PcapngWriter file;
  file.section("Millrace " + version);
  for (const std::string& p : ports)
    file.interface({p, "a port of the gateway", rq.filter(), question->snap >= kMaxSnap ? 0 : question->snap});
  uint64_t packets = 0, bytes = 0, seen[table::kMaxCapturePorts] = {}, taken[table::kMaxCapturePorts] = {};
  std::vector<uint64_t> dropped(table::kMaxCapturePorts);
  std::string ended;
  bool stopping = false, gone = false, caller_there = true;
  const auto stop = [&](const std::string& why) {
    if (stopping) return;
    stopping = true;
    ended = why;
    table::StopInspection command;
    command.id = inspection->id();
    plane.publisher().send_inspection({reinterpret_cast<const uint8_t*>(&command), sizeof command});
  };
  // A worker that does not say that it is done (it is stuck, or its ring is full) is given a second beyond the capture's time.
  auto deadline = Clock::now() + std::chrono::nanoseconds(question->duration_ns) + std::chrono::seconds(1);
  std::vector<Inspection::Record> held;
  const auto time_of = [](const Inspection::Record& r) -> uint64_t {
    table::PacketRecord p;
    table::InspectHeader h;
    if (!r.get(h) || h.type == table::InspectType::kTlsKey) return 0;
    return h.type == table::InspectType::kPacket && r.get(p) ? p.wall_ns : UINT64_MAX;
  };
  for (uint32_t waiting = workers; waiting > 0 && !gone && Clock::now() < deadline && caller_there;) {
    auto records = inspection->take(Clock::now() + std::chrono::milliseconds(100), &gone);
    // Readers go through a file once and want a key before the packet that changes to it, which the worker sees first. So with
    // keys, packets wait a moment; those that have waited are written, by time and with all keys in front.
    const bool quiet = records.empty();
    std::move(records.begin(), records.end(), std::back_inserter(held));
    records.clear();
    uint64_t newest = 0;
    for (const Inspection::Record& r : held)
      if (const uint64_t t = time_of(r); t != UINT64_MAX) newest = std::max(newest, t);
    // Workers are read one after another.
    if (workers > 1 || rq.tls_keys())
      std::stable_sort(held.begin(), held.end(), [&](const auto& x, const auto& y) { return time_of(x) < time_of(y); });
    const uint64_t wait = rq.tls_keys() && !quiet ? kKeysBeforeNs : 0;
    const auto until = std::find_if(held.begin(), held.end(), [&](const auto& r) {
      const uint64_t t = time_of(r);
      return wait != 0 && t != 0 && (t == UINT64_MAX || t + wait > newest);
    });
    records.assign(std::make_move_iterator(held.begin()), std::make_move_iterator(until));
    held.erase(held.begin(), until);
    for (const Inspection::Record& r : records) {
      table::InspectHeader header;
      if (!r.get(header)) continue;
      if (table::PacketRecord p; header.type == table::InspectType::kPacket && r.get(p)) {
        if (p.port >= ports.size() || r.bytes.size() != sizeof p + p.kept || p.kept > p.length) continue;
        if (packets == question->max_packets || bytes + p.kept > question->max_bytes) continue;  // of another worker
        file.packet(p.port, p.wall_ns, r.behind(sizeof p), p.length, static_cast<PcapngWriter::Direction>(p.direction));
        ++packets;
        bytes += p.kept;
      } else if (table::TlsKeyRecord k; header.type == table::InspectType::kTlsKey && r.get(k)) {
        const auto text = r.behind(sizeof k);
        file.tls_keys(std::string(reinterpret_cast<const char*>(text.data()), text.size()) + "\n");
      } else if (table::CaptureDone d; header.type == table::InspectType::kCaptureDone && r.get(d)) {
        if (d.refused != 0) {
          stop("");
          return fail(d.refused == 2 ? "TLS keys may not be captured: the data plane's configuration does not permit it "
                                       "(dataplane: {tls_key_capture: true})"
                                     : "another capture is running; one at a time");
        }
        --waiting;
        for (size_t i = 0; i < table::kMaxCapturePorts; ++i) {
          seen[i] += d.seen[i];
          taken[i] += d.taken[i];
          dropped[i] += d.dropped[i];
        }
      }
    }
    if (cancelled()) caller_there = false;
    if (packets >= question->max_packets) stop("all packets asked for");
    else if (bytes >= question->max_bytes) stop("all bytes asked for");
    if (stopping) deadline = std::min(deadline, Clock::now() + std::chrono::seconds(1));
    if (!file.buffer().empty() && caller_there) {
      v1::CaptureChunk chunk;
      chunk.set_data(std::exchange(file.buffer(), {}));
      chunk.set_packets(packets);
      caller_there = write(chunk);
    }
  }
  if (!caller_there) return stop("the caller went away");
  if (gone) ended = "the data plane went away";
  else if (ended.empty()) ended = packets >= question->max_packets ? "all packets asked for" : "its time is up";
  const std::vector<uint64_t> lost = inspection->lost();
  v1::CaptureChunk last;
  for (uint32_t i = 0; i < ports.size() && i < table::kMaxCapturePorts; ++i) {
    file.statistics(i, start, wall_ns(), seen[i], taken[i], dropped[i] + lost[i]);
    last.set_dropped(last.dropped() + dropped[i] + lost[i]);
  }
  last.set_data(std::move(file.buffer()));
  last.set_packets(packets);
  last.set_complete(true);
  last.set_ended(ended);
  (void)write(last);
}

}  // namespace millrace::control
