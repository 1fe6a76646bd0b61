#include "control/manifests/schema.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "control/json_text.h"

namespace millrace::control::manifests {

namespace {

// The fields of a kind, in a language of its own:
//   name:s  a string     :i  a number     :b  true or false     :x  a number or a string     :m  a map of strings     :L  a list
//   of strings name{...}  a map     name[...]  a list of maps +name  must be there     !name  not supported     ~name  says
//   nothing to a gateway: taken as it is
#define GATEWAY_REF "group:s kind:s +name:s namespace:s"
#define HEADERS "set[+name:s +value:s] add[+name:s +value:s] remove:L"
#define NEW_PATH "path{+type:s replaceFullPath:s replacePrefixMatch:s}"
#define HTTP_FILTERS                                                                   \
  "filters[+type:s requestHeaderModifier{" HEADERS "} responseHeaderModifier{" HEADERS \
  "} requestRedirect{scheme:s "                                                        \
  "hostname:s " NEW_PATH " port:i statusCode:i} urlRewrite{hostname:s " NEW_PATH       \
  "} !requestMirror !cors !extensionRef "                                              \
  "!externalAuth]"
#define GRPC_FILTERS \
  "filters[+type:s requestHeaderModifier{" HEADERS "} responseHeaderModifier{" HEADERS "} !requestMirror !extensionRef]"
#define PARENTS "parentRefs[" GATEWAY_REF " sectionName:s port:i] hostnames:L !useDefaultGateways"
#define BACKEND GATEWAY_REF " port:i weight:i"
#define INGRESS_BACKEND "service{+name:s +port{name:s number:i}} !resource"

constexpr std::array kSchemas = std::to_array<KindSchema>({
    {"GatewayClass", "gateway.networking.k8s.io", "v1 v1beta1", false, "+spec{+controllerName:s description:s !parametersRef}"},
    {"Gateway", "gateway.networking.k8s.io", "v1 v1beta1", true,
     "+spec{+gatewayClassName:s +listeners[+name:s hostname:s +port:i +protocol:s tls{mode:s certificateRefs[" GATEWAY_REF
     "] !options !frontendValidation} allowedRoutes{namespaces{from:s selector{matchLabels:m matchExpressions[+key:s "
     "+operator:s values:L]}} kinds[group:s +kind:s]}] addresses[type:s value:s] !infrastructure !backendTLS !tls "
     "!allowedListeners !defaultScope}"},
    {"HTTPRoute", "gateway.networking.k8s.io", "v1 v1beta1", true,
     "+spec{" PARENTS " rules[name:s matches[path{type:s value:s} headers[type:s +name:s +value:s] queryParams[type:s +name:s "
     "+value:s] method:s] " HTTP_FILTERS " backendRefs[" BACKEND " " HTTP_FILTERS "] timeouts{request:s backendRequest:s} "
     "!retry !sessionPersistence]}"},
    {"GRPCRoute", "gateway.networking.k8s.io", "v1 v1alpha2", true,
     "+spec{" PARENTS " rules[name:s matches[method{type:s service:s method:s} headers[type:s +name:s +value:s]] " GRPC_FILTERS
     " backendRefs[" BACKEND " " GRPC_FILTERS "] !sessionPersistence]}"},
    {"ReferenceGrant", "gateway.networking.k8s.io", "v1 v1beta1", true,
     "+spec{+from[group:s +kind:s +namespace:s] +to[group:s +kind:s name:s]}"},
    {"Ingress", "networking.k8s.io", "v1", true,
     "+spec{ingressClassName:s defaultBackend{" INGRESS_BACKEND "} rules[host:s http{+paths[path:s +pathType:s +backend{"  //
     INGRESS_BACKEND "}]}] tls[hosts:L secretName:s]}"},
    {"IngressClass", "networking.k8s.io", "v1", false, "+spec{+controller:s !parameters}"},
    {"Service", "", "v1", true,
     "+spec{type:s ports[name:s protocol:s +port:i targetPort:x appProtocol:s ~nodePort] externalName:s sessionAffinity:s "
     "~selector ~clusterIP ~clusterIPs ~sessionAffinityConfig ~externalTrafficPolicy ~internalTrafficPolicy ~ipFamilies "
     "~ipFamilyPolicy ~loadBalancerIP ~loadBalancerClass ~loadBalancerSourceRanges ~externalIPs ~publishNotReadyAddresses "
     "~healthCheckNodePort ~allocateLoadBalancerNodePorts ~trafficDistribution}"},
    {"EndpointSlice", "discovery.k8s.io", "v1", true,
     "+addressType:s endpoints[+addresses:L conditions{ready:b serving:b terminating:b} ~hostname ~nodeName ~zone ~hints "
     "~targetRef ~deprecatedTopology] ports[name:s +port:i protocol:s appProtocol:s]"},
    {"Secret", "", "v1", true, "type:s data:m stringData:m immutable:b"},
    {"Namespace", "", "v1", false, "~spec"},
});

constexpr std::string_view kCommon =
    "+apiVersion:s +kind:s +metadata{+name:s namespace:s labels:m annotations:m creationTimestamp:s ~generateName ~uid "
    "~resourceVersion ~generation ~managedFields ~ownerReferences ~finalizers ~deletionTimestamp ~deletionGracePeriodSeconds "
    "~selfLink} ~status ";

// One field of the language, with what stands in its brackets.
struct Field {
  char mark = 0;  // + ! ~ or none
  std::string_view name;
  char type = '*';  // s i b x m L, { [ or *: anything
  std::string_view below;
};

class FieldReader {
 public:
  explicit FieldReader(std::string_view text) : text_(text) {}
  bool next(Field* out) {
    while (!text_.empty() && text_.front() == ' ') text_.remove_prefix(1);
    if (text_.empty()) return false;
    *out = {};
    if (std::string_view("+!~").find(text_.front()) != std::string_view::npos) out->mark = text_.front(), text_.remove_prefix(1);
    const size_t end = std::min(text_.find_first_of(":{[ "), text_.size());
    out->name = text_.substr(0, end);
    text_.remove_prefix(end);
    if (text_.empty() || text_.front() == ' ') return true;
    if (text_.front() == ':') {
      out->type = text_[1];
      text_.remove_prefix(2);
      return true;
    }
    out->type = text_.front();
    size_t depth = 0, at = 0;
    do {
      if (text_[at] == '{' || text_[at] == '[') ++depth;
      if (text_[at] == '}' || text_[at] == ']') --depth;
      ++at;
    } while (depth != 0);
    out->below = text_.substr(1, at - 2);
    text_.remove_prefix(at);
    return true;
  }

 private:
  std::string_view text_;
};

bool is_number(const std::string& text) {
  int64_t n = 0;
  const auto r = std::from_chars(text.data(), text.data() + text.size(), n);
  return r.ec == std::errc() && r.ptr == text.data() + text.size();
}
bool is_bool(const std::string& text) { return text == "true" || text == "false"; }

class Checker {
 public:
  Checker(Object* object, ConfigErrors* errors) : object_(*object), errors_(errors) {}

  void fields(std::string_view text, const Value& map, const std::string& path) {
    std::vector<std::string_view> known;
    Field f;
    for (FieldReader reader(text); reader.next(&f);) {
      known.push_back(f.name);
      const Value& value = map[f.name];
      const std::string here = path + (path.empty() ? "" : ".") + std::string(f.name);
      if (value.kind == Value::Kind::kNull) {
        if (f.mark == '+') complain(map, here, "is required");
      } else if (f.mark == '!') {
        object_.unsupported.push_back({here, value.line});
      } else if (f.mark != '~') {
        one(f, value, here);
      }
    }
    for (const auto& [name, value] : map.members) {
      if (std::find(known.begin(), known.end(), name) != known.end()) continue;
      const std::string near = nearest(name, known);
      complain(value, path + (path.empty() ? "" : ".") + name,
               "unknown field" + (near.empty() ? "" : "; did you mean \"" + near + "\"?"));
    }
  }

 private:
  void complain(const Value& at, const std::string& path, std::string message) {
    errors_->push_back({object_.file, at.line, at.column, path, std::move(message)});
  }
  void one(const Field& f, const Value& v, const std::string& path) {
    const auto expect = [&](Value::Kind kind, const char* what) {
      if (v.kind != kind) complain(v, path, std::string("expected ") + what);
      return v.kind == kind;
    };
    switch (f.type) {
      case '{':
        if (expect(Value::Kind::kMap, "a map")) fields(f.below, v, path);
        return;
      case '[':
        if (!expect(Value::Kind::kList, "a list")) return;
        for (size_t i = 0; i < v.members.size(); ++i) {
          const std::string here = path + "[" + std::to_string(i) + "]";
          if (v.members[i].second.kind != Value::Kind::kMap) complain(v.members[i].second, here, "expected a map");
          else fields(f.below, v.members[i].second, here);
        }
        return;
      case 'L':
        if (!expect(Value::Kind::kList, "a list of strings")) return;
        for (size_t i = 0; i < v.members.size(); ++i) string(v.members[i].second, path + "[" + std::to_string(i) + "]");
        return;
      case 'm':
        if (!expect(Value::Kind::kMap, "a map of strings")) return;
        for (const auto& [name, value] : v.members)
          if (value.kind != Value::Kind::kNull) string(value, path + "." + name);
        return;
      case 'i':
        if (expect(Value::Kind::kScalar, "a number") && (v.quoted || !is_number(v.text))) complain(v, path, "expected a number");
        return;
      case 'b':
        if (expect(Value::Kind::kScalar, "true or false") && (v.quoted || !is_bool(v.text)))
          complain(v, path, "expected true or false");
        return;
      case 'x':
        expect(Value::Kind::kScalar, "a number or a string");
        return;
      default:
        string(v, path);
    }
  }
  // As Kubernetes, which takes no number or boolean for a string.
  void string(const Value& v, const std::string& path) {
    if (v.kind != Value::Kind::kScalar) complain(v, path, "expected a string");
    else if (!v.quoted && (is_number(v.text) || is_bool(v.text)))
      complain(v, path, "expected a string: write it in quotes, \"" + v.text + "\"");
  }

  Object& object_;
  ConfigErrors* errors_;
};

}  // namespace

const KindSchema* find_schema(std::string_view api_version, std::string_view kind, std::string* why) {
  const size_t slash = api_version.find('/');
  const std::string_view group = slash == std::string_view::npos ? "" : api_version.substr(0, slash);
  const std::string_view version = slash == std::string_view::npos ? api_version : api_version.substr(slash + 1);
  std::vector<std::string_view> kinds;
  for (const KindSchema& s : kSchemas) {
    kinds.push_back(s.kind);
    if (s.kind != kind || s.group != group) continue;
    if ((" " + std::string(s.versions) + " ").find(" " + std::string(version) + " ") != std::string::npos) return &s;
    *why = std::string(kind) + " is supported in " + std::string(group) + (group.empty() ? "" : "/") +
           std::string(s.versions.substr(0, s.versions.find(' '))) + ", not in " + std::string(api_version);
    return nullptr;
  }
  *why = std::string(kind) + " of " + std::string(api_version) + " is not supported; there are " + list_of(kinds, " and ");
  return nullptr;
}

void check(const KindSchema& schema, Object* object, ConfigErrors* errors) {
  Checker(object, errors).fields(std::string(kCommon) + std::string(schema.fields), object->root, "");
}

}  // namespace millrace::control::manifests
