#include "control/xds_messages.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

namespace millrace::control {

namespace {

namespace discovery = envoy::service::discovery::v3;
using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

constexpr int kInvalidArgument = 3;  // google.rpc.Code
// Every type that is discovered has its name in field 1: found without parsing all the rest, which the receiver does.
constexpr uint32_t kNameTag = 1 << 3 | WireFormatLite::WIRETYPE_LENGTH_DELIMITED;

bool read_name(const std::string& body, std::string* name) {
  CodedInputStream in(reinterpret_cast<const uint8_t*>(body.data()), static_cast<int>(body.size()));
  while (const uint32_t tag = in.ReadTag()) {
    if (tag == kNameTag) {
      if (!WireFormatLite::ReadBytes(&in, name)) return false;
    } else if (!WireFormatLite::SkipField(&in, tag)) {
      return false;
    }
  }
  return in.ConsumedEntireMessage();
}

void take(const google::protobuf::Any& any, const std::string& type_url, XdsResource* out) {
  if (any.type_url() != type_url) {
    out->bad = "is a " + any.type_url() + " in a response of " + type_url;
    return;
  }
  std::string name;
  if (!read_name(any.value(), &name)) {
    out->bad = "is no valid message of its type";
    return;
  }
  if (out->name.empty()) out->name = name;
  else if (name != out->name) out->bad = "is called \"" + name + "\" inside";
  out->body = any.value();
}

void wrapped(const discovery::Resource& resource, const std::string& type_url, XdsResource* out) {
  out->name = resource.name();
  out->version = resource.version();
  if (resource.has_resource()) take(resource.resource(), type_url, out);
  else out->heartbeat = true;
}

template <class Request>
void fill(const XdsRequest& from, const envoy::config::core::v3::Node& node, Request* to) {
  to->set_type_url(std::string(type_url(from.type)));
  to->set_response_nonce(from.nonce);
  if (from.with_node) *to->mutable_node() = node;
  if (from.error.empty()) return;
  to->mutable_error_detail()->set_code(kInvalidArgument);
  to->mutable_error_detail()->set_message(from.error);
}

}  // namespace

discovery::DiscoveryRequest to_sotw(const XdsRequest& request, const envoy::config::core::v3::Node& node) {
  discovery::DiscoveryRequest out;
  fill(request, node, &out);
  out.set_version_info(request.version);
  for (const std::string& name : request.names) out.add_resource_names(name);
  return out;
}

discovery::DeltaDiscoveryRequest to_delta(const XdsRequest& request, const envoy::config::core::v3::Node& node) {
  discovery::DeltaDiscoveryRequest out;
  fill(request, node, &out);
  for (const std::string& name : request.subscribe) out.add_resource_names_subscribe(name);
  for (const std::string& name : request.unsubscribe) out.add_resource_names_unsubscribe(name);
  for (const auto& [name, version] : request.initial) (*out.mutable_initial_resource_versions())[name] = version;
  return out;
}

XdsResponse from_sotw(const discovery::DiscoveryResponse& response) {
  XdsResponse out{response.type_url(), response.version_info(), response.nonce(), {}, {}};
  out.resources.reserve(static_cast<size_t>(response.resources_size()));
  for (const google::protobuf::Any& any : response.resources()) {
    XdsResource& r = out.resources.emplace_back();
    discovery::Resource inside;
    if (!any.Is<discovery::Resource>()) take(any, response.type_url(), &r);
    else if (any.UnpackTo(&inside)) wrapped(inside, response.type_url(), &r);
    else r.bad = "is no valid message of its type";
  }
  return out;
}

XdsResponse from_delta(const discovery::DeltaDiscoveryResponse& response) {
  XdsResponse out{response.type_url(), response.system_version_info(), response.nonce(), {}, {}};
  out.resources.reserve(static_cast<size_t>(response.resources_size()));
  for (const discovery::Resource& r : response.resources()) wrapped(r, response.type_url(), &out.resources.emplace_back());
  out.removed.assign(response.removed_resources().begin(), response.removed_resources().end());
  return out;
}

}  // namespace millrace::control
