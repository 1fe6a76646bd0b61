#include "control/xds_engine.h"

#include <algorithm>
#include <iterator>

#include "lib/base/assert.h"
#include "lib/base/hash.h"

namespace millrace::control {

using base::kNever;
using base::TimeNs;

namespace {

constexpr std::array<std::string_view, kXdsTypes> kTypeUrls = {
    "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    "type.googleapis.com/envoy.config.listener.v3.Listener",
    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
};
constexpr std::array<std::string_view, kXdsTypes> kShortNames = {"CDS", "EDS", "LDS", "RDS", "SDS"};
constexpr std::string_view kTruncated = " ...";

uint64_t mix(uint64_t h, std::string_view text) { return base::hash64(text, h); }

std::string error_text(const std::vector<XdsRejection>& rejections) {
  std::string out;
  for (const XdsRejection& r : rejections) {
    if (!out.empty()) out += "; ";
    out += r.name.empty() ? r.reason : r.name + ": " + r.reason;
    if (out.size() > XdsEngine::kMaxErrorText) break;
  }
  if (out.size() > XdsEngine::kMaxErrorText) {
    size_t end = XdsEngine::kMaxErrorText - kTruncated.size();
    while (end > 0 && (static_cast<uint8_t>(out[end]) & 0xc0) == 0x80) --end;  // a proto3 string is whole UTF-8
    out.resize(end);
    out += kTruncated;
  }
  return out;
}

std::vector<std::string> missing(const std::set<std::string>& from, const std::set<std::string>& in) {
  std::vector<std::string> out;
  std::set_difference(from.begin(), from.end(), in.begin(), in.end(), std::back_inserter(out));
  return out;
}

}  // namespace

std::string_view type_url(XdsType type) { return kTypeUrls[static_cast<size_t>(type)]; }
std::string_view short_name(XdsType type) { return kShortNames[static_cast<size_t>(type)]; }
std::optional<XdsType> xds_type(std::string_view url) {
  const auto it = std::find(kTypeUrls.begin(), kTypeUrls.end(), url);
  if (it == kTypeUrls.end()) return std::nullopt;
  return static_cast<XdsType>(it - kTypeUrls.begin());
}

XdsEngine::XdsEngine(const XdsEngineConfig& config, uint64_t seed) : config_(config), random_(seed) {
  MILLRACE_ASSERT(config.servers > 0, "a management server to ask");
}

// ---- subscriptions ----

void XdsEngine::want_all(XdsType type) {
  Type& t = state(type);
  MILLRACE_ASSERT(t.names.empty(), "asked for by wildcard or by names");
  if (t.wildcard) return;
  t.wildcard = true;
  t.waiting.emplace("", kNever);
}

void XdsEngine::want(XdsType type, std::set<std::string> names) {
  Type& t = state(type);
  MILLRACE_ASSERT(!t.wildcard, "asked for by wildcard or by names");
  for (const std::string& name : missing(t.names, names)) {
    t.known.erase(name);
    t.refused.erase(name);
    t.waiting.erase(name);
    if (t.held) t.held->good.erase(name);
  }
  for (const std::string& name : missing(names, t.names)) t.waiting.emplace(name, kNever);
  t.names = std::move(names);
  t.names_differ = t.names != t.told;
}

// ---- the stream ----

TimeNs XdsEngine::backoff(uint32_t failures) {
  TimeNs limit = std::min(config_.backoff_base, config_.backoff_limit);
  for (uint32_t i = 0; i < failures && limit < config_.backoff_limit; ++i) limit = std::min(limit * 2, config_.backoff_limit);
  return limit == 0 ? 0 : random_.below(limit);  // full jitter, as Envoy's
}

void XdsEngine::connected(TimeNs) {
  MILLRACE_ASSERT(link_ == Link::kConnecting, "connected after kConnect");
  link_ = Link::kUp;
  ++stream_;
  node_sent_ = responded_ = false;
  if (versions_of_ && *versions_of_ != server_) {  // another server's versions mean nothing here
    for (Type& t : types_) {
      t.version.clear();
      for (auto& [name, known] : t.known) known.version.clear();
    }
    versions_of_.reset();
  }
}

void XdsEngine::closed(TimeNs now) {
  MILLRACE_ASSERT(link_ != Link::kDown, "closed after kConnect");
  for (Type& t : types_) {
    if (wanted(t) && !t.answered) ++t.stats.update_failure;
    t.asked = t.answered = t.answer_due = false;
    t.told.clear();
    t.nonce.clear();
    t.answer_error.clear();
    for (auto& [name, at] : t.waiting) at = kNever;  // the clock runs only while somebody could answer
  }
  // A stream that answered and then ended is no failure (gRFC A57): the first server is tried again, soon.
  if (link_ == Link::kUp && responded_) {
    server_ = 0;
    rounds_ = 0;
    link_at_ = base::time_add(now, backoff(0));
  } else if (++server_ < config_.servers) {
    link_at_ = now;
  } else {
    server_ = 0;
    link_at_ = base::time_add(now, backoff(rounds_));
    if (rounds_ < UINT32_MAX) ++rounds_;
  }
  link_ = Link::kDown;
  close_due_ = false;
}

// ---- responses ----

XdsUpdate XdsEngine::on_response(XdsResponse&& response) {
  MILLRACE_ASSERT(link_ == Link::kUp, "a response comes on a stream");
  XdsUpdate out;
  responded_ = true;
  rounds_ = 0;
  const std::optional<XdsType> type = xds_type(response.type_url);
  if (!type || !state(*type).asked) {  // not asked for: nothing to apply, nothing to acknowledge
    ++unknown_types_;
    return out;
  }
  Type& t = state(*type);
  MILLRACE_ASSERT(!t.held, "one response of a type at a time");
  t.answered = true;
  t.nonce = response.nonce;
  t.answer_due = false;  // a newer response makes the answer to an older one stale
  t.answer_error.clear();
  ++t.stats.update_attempt;
  if (!wanted(t)) {
    t.stats.ignored_resources += response.resources.size();
    return out;
  }
  versions_of_ = server_;

  Held held;
  held.version = response.version;
  held.nonce = response.nonce;
  held.stream = stream_;
  held.server = server_;
  held.fingerprint = mix(1, response.version);
  std::set<std::string> present;
  bool nameless = false;
  for (XdsResource& r : response.resources) {
    held.fingerprint = mix(mix(mix(held.fingerprint, r.name), r.body), r.bad);
    if (!r.name.empty() && !t.wildcard && !t.names.contains(r.name)) {
      ++t.stats.ignored_resources;
      continue;
    }
    if (r.name.empty() && r.bad.empty()) r.bad = "has no name";
    nameless = nameless || r.name.empty();
    if (!r.name.empty() && !present.insert(r.name).second) {
      held.bad.push_back({r.name, "is in the response more than once"});
      continue;
    }
    t.waiting.erase(r.name);
    if (!r.bad.empty()) {
      held.bad.push_back({r.name, r.bad});
      continue;
    }
    if (r.heartbeat) continue;
    const Known known{r.version, base::hash64(std::string_view(r.body))};
    const auto it = t.known.find(r.name);
    const bool same = it != t.known.end() && it->second.hash == known.hash;
    held.good.emplace(r.name, known);
    if (!same) out.changed.push_back(std::move(r));
  }
  if (t.wildcard) t.waiting.erase("");
  if (config_.delta) {
    for (std::string& name : response.removed) {
      const bool asked_for = t.waiting.erase(name) > 0;
      if ((asked_for || t.known.contains(name) || t.refused.contains(name)) && !present.contains(name))
        out.removed.push_back(std::move(name));
    }
  } else if (whole_world(*type) && t.wildcard && !nameless) {  // a nameless one may be any of those that are absent
    for (const auto& [name, known] : t.known)
      if (!present.contains(name)) out.removed.push_back(name);
    for (const std::string& name : t.refused)
      if (!present.contains(name)) out.removed.push_back(name);
  }
  held.removed = out.removed;
  out.version = held.version;
  t.held = std::move(held);
  out.waits = true;
  out.type = *type;
  return out;
}

void XdsEngine::applied(TimeNs now, XdsType type, std::vector<XdsRejection> rejections) {
  Type& t = state(type);
  MILLRACE_ASSERT(t.held.has_value(), "a verdict follows a response");
  Held held = std::move(*t.held);
  t.held.reset();
  for (const XdsRejection& r : rejections) held.good.erase(r.name);
  rejections.insert(rejections.begin(), std::make_move_iterator(held.bad.begin()), std::make_move_iterator(held.bad.end()));
  for (const std::string& name : held.removed) {
    const bool stays = std::any_of(rejections.begin(), rejections.end(), [&](const XdsRejection& r) { return r.name == name; });
    if (!stays) t.known.erase(name);
    if (!stays) t.refused.erase(name);
  }
  const bool versions_hold = versions_of_ == held.server;  // not those of a server that was left meanwhile
  for (auto& [name, known] : held.good) {
    if (!versions_hold) known.version.clear();
    t.refused.erase(name);
    t.known[name] = std::move(known);
  }
  for (const XdsRejection& r : rejections)
    if (!r.name.empty() && !t.known.contains(r.name) && (t.wildcard || t.names.contains(r.name))) t.refused.insert(r.name);

  TimeNs answer_at = now;
  if (rejections.empty()) {
    ++t.stats.update_success;
    t.stats.version = held.version;
    if (versions_hold) t.version = held.version;
    t.bad_fingerprint = 0;
    t.bad_repeats = 0;
  } else {
    ++t.stats.update_rejected;
    t.stats.last_error = error_text(rejections);
    if (t.bad_fingerprint == held.fingerprint) {
      // At least half of the limit: full jitter may be no delay at all, and this one has to break a loop.
      const TimeNs least = std::min(config_.backoff_base, config_.backoff_limit) / 2;
      answer_at = base::time_add(now, std::max(least, backoff(t.bad_repeats)));
      ++t.bad_repeats;
    } else {
      t.bad_fingerprint = held.fingerprint;
      t.bad_repeats = 0;
    }
  }
  if (held.stream != stream_ || link_ != Link::kUp) return;  // nobody waits for this answer any more
  t.answer_due = true;
  t.answer_at = answer_at;
  t.answer_error = rejections.empty() ? "" : t.stats.last_error;
}

// ---- requests ----

void XdsEngine::answer(Type& t, XdsRequest* r) {
  r->nonce = t.nonce;
  r->error = std::move(t.answer_error);
  t.answer_error.clear();
  t.answer_due = false;
}

// A request that says which names are wanted.
XdsRequest XdsEngine::ask(XdsType type, TimeNs now) {
  Type& t = state(type);
  XdsRequest r;
  r.type = type;
  if (config_.delta) {
    r.subscribe = missing(t.names, t.told);
    r.unsubscribe = missing(t.told, t.names);
    if (!t.asked)
      for (const auto& [name, known] : t.known) r.initial.emplace(name, known.version);
  } else {
    r.version = t.version;
    r.names.assign(t.names.begin(), t.names.end());
    r.nonce = t.nonce;
    if (t.answer_due) answer(t, &r);  // also one that was to wait: the server reads this request as an answer anyway
  }
  if (config_.fetch_timeout != 0)
    for (auto& [name, at] : t.waiting)
      if (at == kNever && (t.wildcard || !t.told.contains(name))) at = base::time_add(now, config_.fetch_timeout);
  t.told = t.names;
  t.names_differ = false;
  t.asked = true;
  return r;
}

std::optional<XdsRequest> XdsEngine::request_for(XdsType type, TimeNs now) {
  Type& t = state(type);
  if (t.held) return std::nullopt;  // the verdict decides which version a request may claim
  const bool may_answer = t.answer_due && t.answer_at <= now;
  if (config_.delta && may_answer) {
    XdsRequest r;
    r.type = type;
    answer(t, &r);
    return r;
  }
  if (names_changed(t)) return ask(type, now);
  if (!may_answer) return std::nullopt;
  return ask(type, now);
}

XdsAction XdsEngine::poll(TimeNs now) {
  XdsAction a;
  const bool any = std::any_of(types_.begin(), types_.end(), wanted);
  if (link_ == Link::kDown) {
    if (!any || now < link_at_) return a;
    a.kind = XdsAction::Kind::kConnect;
    a.server = server_;
    link_ = Link::kConnecting;
    link_at_ = base::time_add(now, config_.connect_timeout);
    return a;
  }
  if (link_ == Link::kConnecting) {
    if (now < link_at_ || close_due_) return a;
    close_due_ = true;  // told once; closed() follows
    a.kind = XdsAction::Kind::kClose;
    return a;
  }
  for (size_t i = 0; i < kXdsTypes; ++i) {
    const XdsType type = static_cast<XdsType>(i);
    if (std::optional<XdsRequest> r = request_for(type, now)) {
      a.kind = XdsAction::Kind::kSend;
      a.request = std::move(*r);
      a.request.with_node = !node_sent_ || !config_.node_on_first_only;
      node_sent_ = true;
      return a;
    }
  }
  for (size_t i = 0; i < kXdsTypes; ++i) {
    Type& t = types_[i];
    const auto it = std::find_if(t.waiting.begin(), t.waiting.end(), [&](const auto& w) { return w.second <= now; });
    if (it == t.waiting.end()) continue;
    a.kind = XdsAction::Kind::kExpired;
    a.type = static_cast<XdsType>(i);
    a.name = it->first;
    t.waiting.erase(it);
    ++t.stats.init_fetch_timeout;
    return a;
  }
  return a;
}

TimeNs XdsEngine::next_deadline() const {
  if (link_ == Link::kDown) return std::any_of(types_.begin(), types_.end(), wanted) ? link_at_ : kNever;
  if (link_ == Link::kConnecting) return close_due_ ? kNever : link_at_;
  TimeNs at = kNever;
  for (const Type& t : types_) {
    if (!t.held && names_changed(t)) return 0;
    if (!t.held && t.answer_due) at = std::min(at, t.answer_at);
    for (const auto& [name, expires] : t.waiting) at = std::min(at, expires);
  }
  return at;
}

}  // namespace millrace::control
