// The compressor filters (envoy.filters.http.compressor), as Envoy's CompressorFilter decides: which responses are compressed, by
// which filter, and what that does to their heads. Runs only where a connection manager has such filters.
#include <algorithm>
#include <array>
#include <memory>

#include "dataplane/http_proxy.h"
#include "lib/base/ascii.h"
#include "lib/compress/accept_encoding.h"

namespace millrace::dataplane {

using http::HeaderId;
using stats::CompressorCounter;

static_assert(compress::kMostBrotliQuality == table::kMostBrotliQuality && compress::kMostZstdLevel == table::kMostZstdLevel &&
              compress::kMostZstdStrategy == table::kMostZstdStrategy);
static_assert(static_cast<uint8_t>(compress::Codec::kZstd) == static_cast<uint8_t>(table::CompressionCodec::kZstd) &&
              static_cast<uint8_t>(compress::Codec::kBrotli) == static_cast<uint8_t>(table::CompressionCodec::kBrotli));

namespace {

constexpr std::string_view kAcceptEncoding = "accept-encoding", kContentEncoding = "content-encoding", kVary = "vary",
                           kEtag = "etag", kCacheControl = "cache-control";

std::string_view trim(std::string_view s) {
  const auto blank = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  while (!s.empty() && blank(s.front())) s.remove_prefix(1);
  while (!s.empty() && blank(s.back())) s.remove_suffix(1);
  return s;
}
bool equal_lower(std::string_view any_case, std::string_view lower) {
  return any_case.size() == lower.size() &&
         std::equal(any_case.begin(), any_case.end(), lower.begin(), [](char a, char b) { return base::to_lower(a) == b; });
}
// A member of a comma-separated list.
template <class Is>
bool any_member(std::string_view list, Is&& is) {
  while (true) {
    const size_t comma = list.find(',');
    if (is(trim(list.substr(0, comma)))) return true;
    if (comma == std::string_view::npos) return false;
    list.remove_prefix(comma + 1);
  }
}
// The same over all fields of a name.
template <class Is>
bool any_member_of(const http::HeaderTable& headers, std::string_view name, Is&& is) {
  return std::any_of(headers.begin(), headers.end(),
                     [&](const http::Header& h) { return h.name == name && any_member(h.value, is); });
}
// All fields of a name as one, joined as Envoy joins them. Not there: null data.
std::string_view joined(const http::HeaderTable& headers, std::string_view name, std::string_view separator,
                        http::Scratch& scratch) {
  std::string_view all;
  for (const http::Header& h : headers) {
    if (h.name != name) continue;
    all = all.data() == nullptr ? std::string_view(h.value.data() == nullptr ? "" : h.value.data(), h.value.size())
                                : scratch.concat({all, separator, h.value});
  }
  return all;
}

compress::Settings settings_of(const table::Compressor& c) {
  compress::Settings s;
  s.codec = static_cast<compress::Codec>(c.codec);
  s.level = c.level;
  s.strategy = c.strategy;
  s.window_bits = c.window_bits;
  s.memory_level = c.memory_level;
  s.block_bits = c.block_bits;
  s.checksum = c.checksum != 0;
  s.no_literal_contexts = c.no_literal_contexts != 0;
  return s;
}

// What all filters ask of a response's head, read once.
struct ResponseFacts {
  bool has_length = false, length_valid = false;
  uint64_t length = 0;
  bool has_type = false;
  std::string_view type;  // without parameters
  bool has_etag = false, no_transform = false, coded_transfer = false;
};

ResponseFacts facts_of(const http::HeaderTable& headers) {
  ResponseFacts f;
  f.has_length = headers.has(HeaderId::kContentLength);
  const std::string_view length = headers.get(HeaderId::kContentLength);
  f.length_valid = !length.empty() && length.size() < 20;
  for (const char c : length) {
    f.length_valid &= base::is_digit(c);
    f.length = f.length * 10 + static_cast<uint64_t>(c - '0');
  }
  f.has_type = headers.has(HeaderId::kContentType);
  const std::string_view type = headers.get(HeaderId::kContentType);
  f.type = trim(type.substr(0, type.find(';')));
  f.has_etag = headers.find(kEtag) != nullptr;
  f.no_transform = any_member_of(headers, kCacheControl, [](std::string_view m) { return equal_lower(m, "no-transform"); });
  f.coded_transfer = any_member_of(headers, "transfer-encoding", [](std::string_view m) {
    for (const std::string_view coding : {"gzip", "br", "deflate", "compress", "zstd"})
      if (equal_lower(m, coding)) return true;
    return false;
  });
  return f;
}

bool type_allowed(const void* object, const table::Compressor& c, std::string_view type) {
  return std::any_of(c.content_types.begin(object), c.content_types.end(object),
                     [&](const table::Str& t) { return equal_lower(type, table::view(object, t)); });
}

// Caches in front of us hear that another client may get it in another form.
bool add_vary(http::HeaderTable& headers, http::Scratch& scratch) {
  constexpr std::string_view kName = "Accept-Encoding";
  if (any_member_of(headers, kVary, [&](std::string_view m) { return m == kName; })) return true;
  const std::string_view present = joined(headers, kVary, ",", scratch);
  if (present.data() == nullptr) return headers.push({kVary, kName, HeaderId::kOther});
  return headers.set(kVary, scratch.concat({present, ", ", kName}));
}

// A strong etag names these very bytes, which change; Envoy removes it and leaves a weak one.
void remove_strong_etag(http::HeaderTable& headers) {
  const http::Header* h = headers.find(kEtag);
  if (h == nullptr || h->value.size() <= 2) return;
  const bool weak = (h->value[0] == 'w' || h->value[0] == 'W') && h->value[1] == '/';
  if (!weak) headers.remove(kEtag);
}

void count_choice(stats::ScopeBlock& s, compress::Choice choice, bool chosen) {
  switch (choice) {
    case compress::Choice::kCoding:
      return s[chosen ? CompressorCounter::kHeaderUsed : CompressorCounter::kHeaderOvershadowed].add();
    case compress::Choice::kIdentity:
      return s[CompressorCounter::kHeaderIdentity].add();
    case compress::Choice::kWildcard:
      return s[CompressorCounter::kHeaderWildcard].add();
    case compress::Choice::kNotValid:
      return s[CompressorCounter::kHeaderNotValid].add();
  }
}

}  // namespace

ExchangeFilters* HttpProxy::filters_of(Exchange& ex) {
  if (ex.filters == nullptr) {
    auto* f = allocate_array<ExchangeFilters>(ex.scratch, 1);
    if (f != nullptr) ex.filters = std::construct_at(f);
  }
  return ex.filters;
}

void HttpProxy::end_filters(Exchange& ex) {
  if (ex.filters->compression != nullptr) end_compression(ex);
  if (ex.filters->grpc_web != nullptr) end_grpc_web(ex);
  ex.filters = nullptr;
}

// The filters as this epoch has them: a response is compressed as the configuration says when it begins.
const FilterChainRuntime* HttpProxy::compressors_of(const DownstreamSession& d) const {
  const ListenerRuntime* listener = ctx_.tables->listener(d.policy->listener);
  if (listener == nullptr) return nullptr;
  const uint32_t chain = find_chain(*listener->object, d.policy->chain_key, d.policy->chain);
  if (chain == UINT32_MAX) return nullptr;
  const FilterChainRuntime& r = listener->chains[chain];
  return r.chain->filter == table::NetworkFilterKind::kHttpConnectionManager ? &r : nullptr;
}

// Envoy: CompressorFilter::decodeHeaders. No room in the head buffer: the response goes as it is.
void HttpProxy::begin_compression(Exchange& ex) {
  const FilterChainRuntime* runtime = compressors_of(*ex.downstream);
  if (runtime == nullptr) return;
  ExchangeFilters* of_exchange = filters_of(ex);
  auto* c = of_exchange == nullptr ? nullptr : allocate_array<ResponseCompression>(ex.scratch, 1);
  if (c == nullptr) return;
  std::construct_at(c)->exchange = &ex;
  of_exchange->compression = c;
  http::HeaderTable& headers = ex.request.headers;
  c->accept_encoding = joined(headers, kAcceptEncoding, ",", ex.scratch);
  const auto* object = reinterpret_cast<const table::Listener*>(ctx_.tables->listener(ex.downstream->policy->listener)->object);
  const table::Array<table::Compressor>& filters = runtime->chain->hcm.compressors;
  bool removed = false;
  for (uint32_t i = 0; i < filters.count; ++i) {
    const table::Compressor& f = filters.at(object, i);
    if (!removed) c->filters_before_removal = static_cast<uint8_t>(i + 1);
    removed = removed || (f.enabled != 0 && f.remove_accept_encoding != 0);
    ctx_.stats.scope(runtime->compressors[i])[CompressorCounter::kRequestNotCompressed].add();
  }
  if (removed) headers.remove(kAcceptEncoding);
}

// Envoy: CompressorFilter::encodeHeaders of each filter, the last first. `end_stream`: no body follows the head. False: no room.
bool HttpProxy::compress_response(Exchange& ex, http::HeaderTable& headers, bool end_stream, http::Scratch& scratch) {
  ResponseCompression& c = *ex.filters->compression;
  close_encoder(c);  // of a head that could not be written
  const FilterChainRuntime* runtime = compressors_of(*ex.downstream);
  if (runtime == nullptr) return true;
  const table::Listener* object = ctx_.tables->listener(ex.downstream->policy->listener)->object;
  const table::Array<table::Compressor>& filters = runtime->chain->hcm.compressors;
  // A compressor behind the gRPC-Web filter would see gRPC: it has nothing to do with such a request.
  const uint32_t here =
      ex.filters->grpc_web == nullptr ? filters.count : std::min<uint32_t>(filters.count, runtime->chain->hcm.grpc_web - 1u);
  const ResponseFacts facts = facts_of(headers);

  std::array<compress::Candidate, table::kMostCompressors> candidates;
  uint32_t candidate_count = 0;
  for (uint32_t i = 0; i < here; ++i) {
    const table::Compressor& f = filters.at(object, i);
    if (!facts.type.empty() && !type_allowed(object, f, facts.type)) continue;
    candidates[candidate_count++] = {static_cast<compress::Codec>(f.codec), f.choose_first != 0};
  }
  const compress::Decision decision = compress::choose_encoding(c.accept_encoding, {candidates.data(), candidate_count});

  bool room = true;
  for (uint32_t i = here; i-- > 0 && room;) {
    const table::Compressor& f = filters.at(object, i);
    const auto codec = static_cast<compress::Codec>(f.codec);
    stats::ScopeBlock& s = ctx_.stats.scope(runtime->compressors[i]);
    bool wanted = f.enabled != 0;
    if (wanted && facts.has_length && !(facts.length_valid && facts.length >= f.min_content_length)) {
      s[CompressorCounter::kTooSmall].add();
      wanted = false;
    }
    bool compressible = wanted && !ex.tunnel && (!facts.has_type || type_allowed(object, f, facts.type)) && !facts.no_transform;
    if (compressible && f.disable_on_etag != 0 && facts.has_etag) {
      s[CompressorCounter::kNotCompressedEtag].add();
      compressible = false;
    }
    compressible = compressible && headers.find(kContentEncoding) == nullptr;
    bool accepted = false;
    if (wanted && !end_stream) {
      if (c.accept_encoding.data() == nullptr || i >= c.filters_before_removal) {
        s[CompressorCounter::kNoAcceptHeader].add();
      } else {
        accepted = decision.encodes && decision.codec == codec;
        count_choice(s, decision.choice, accepted);
      }
    }
    if (accepted && compressible && !facts.coded_transfer) {
      c.encoder = encoders_.open(settings_of(f), facts.has_length ? facts.length : compress::kUnknownLength);
      if (c.encoder == nullptr) s[CompressorCounter::kNoMemory].add();
    } else {
      accepted = false;
    }
    if (accepted && c.encoder != nullptr) {
      c.slot = runtime->compressors[i];
      c.streaming = !facts.has_length;
      c.unflushed = c.failed = false;
      c.since_flush = 0;
      s[CompressorCounter::kCompressed].add();
      s[CompressorCounter::kActive].add();
      remove_strong_etag(headers);
      headers.remove(HeaderId::kContentLength);
      room = headers.push({kContentEncoding, compress::content_encoding(codec), HeaderId::kOther});
    } else {
      s[CompressorCounter::kNotCompressed].add();
    }
    if (compressible) room = room && add_vary(headers, scratch);
  }
  return room;
}

void HttpProxy::close_encoder(ResponseCompression& c) {
  if (c.encoder == nullptr) return;
  c.more.unlink();
  encoders_.close(std::exchange(c.encoder, nullptr));
  ctx_.stats.scope(c.slot)[CompressorCounter::kActive].sub();
}

void HttpProxy::end_compression(Exchange& ex) {
  close_encoder(*ex.filters->compression);
  std::destroy_at(std::exchange(ex.filters->compression, nullptr));
}

void HttpProxy::run_encoders() {
  base::List<ResponseCompression, &ResponseCompression::more> now;
  now.splice_back(encoding_);
  while (ResponseCompression* c = now.pop_front()) relay_response(*c->exchange);
}

}  // namespace millrace::dataplane
