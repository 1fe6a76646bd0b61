#include "control/foreign_filters.h"

#include <algorithm>
#include <iterator>

#include <google/protobuf/empty.pb.h>
#include <google/protobuf/unknown_field_set.h>

namespace millrace::control {

namespace {

constexpr std::string_view kHarmless[] = {
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",   // counts
    "envoy.tcp.metadataexchange.config.MetadataExchange",         // between Istio's sidecars: labels for statistics
    "io.istio.http.peer_metadata.Config",                         // likewise
    "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",  // which ALPN is offered to Istio's sidecars
    "stats.PluginConfig",                                         // Istio's metrics
};
// These do nothing unless a setting says what.
constexpr std::string_view kHarmlessWhenEmpty[] = {
    "envoy.extensions.filters.http.fault.v3.HTTPFault",  // faults of routes: refused there
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
};
// Hold the name of another type.
constexpr std::string_view kTypedStructs[] = {"udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"};

std::string_view name_of(std::string_view type_url) { return type_url.substr(type_url.rfind('/') + 1); }

template <class List>
bool among(const List& list, std::string_view name) {
  return std::find(std::begin(list), std::end(list), name) != std::end(list);
}

bool harmless(const google::protobuf::Any& config) {
  const std::string_view name = name_of(config.type_url());
  if (!among(kTypedStructs, name)) return is_harmless_filter(name, config.value().empty());
  // type_url = 1, value = 2 (a Struct) in both.
  google::protobuf::Empty fields;
  if (!fields.ParseFromString(config.value())) return false;
  const auto& unknown = google::protobuf::Empty::GetReflection()->GetUnknownFields(fields);
  std::string_view inner;
  bool empty = true;
  for (int i = 0; i < unknown.field_count(); ++i) {
    const auto& f = unknown.field(i);
    if (f.type() != google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED) return false;
    if (f.number() == 1) inner = f.length_delimited();
    else empty = empty && f.length_delimited().empty();
  }
  return is_harmless_filter(name_of(inner), empty);
}

template <class Filters>
int take_out(Filters* filters) {
  int count = 0;
  for (int i = 0; i < filters->size();) {
    if (filters->Get(i).has_typed_config() && harmless(filters->Get(i).typed_config())) {
      filters->DeleteSubrange(i, 1);
      ++count;
    } else {
      ++i;
    }
  }
  return count;
}

}  // namespace

bool is_harmless_filter(std::string_view type_name, bool empty) {
  return among(kHarmless, type_name) || (empty && among(kHarmlessWhenEmpty, type_name));
}

int take_out_harmless_filters(api::Listener* listener) {
  int count = 0;
  const auto chain = [&](api::FilterChain* c) {
    count += take_out(c->mutable_filters());
    for (auto& f : *c->mutable_filters()) {
      api::HttpConnectionManager hcm;
      if (!f.typed_config().UnpackTo(&hcm)) continue;
      const int taken = take_out(hcm.mutable_http_filters());
      if (taken > 0) f.mutable_typed_config()->PackFrom(hcm);
      count += taken;
    }
  };
  for (auto& c : *listener->mutable_filter_chains()) chain(&c);
  if (listener->has_default_filter_chain()) chain(listener->mutable_default_filter_chain());
  return count;
}

}  // namespace millrace::control
