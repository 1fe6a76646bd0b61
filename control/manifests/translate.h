// Kubernetes objects to Envoy's: a pure function of the whole set, so that applying, removing and restarting come to the same.
//
//   Gateways, Ingresses ─ gateways, ingress ─▶ Port listeners ◀─ routes, http_filters ─ HTTPRoutes, GRPCRoutes
//                                                  │ output                    │ backends
//                                                  ▼                           ▼
//                                       Listener, RouteConfiguration        Cluster with its endpoints
#pragma once

#include <string>
#include <vector>

#include "control/config_loader.h"
#include "control/manifests/object.h"

namespace millrace::control::manifests {

// The controller that a GatewayClass or IngressClass names to be Millrace's.
inline constexpr const char* kController = "millrace.io/gateway-controller";
// What names of everything that is made of manifests begin with.
inline constexpr const char* kPrefix = "k8s/";
// Where listeners are that no address was given for.
inline constexpr const char* kDefaultAddress = "0.0.0.0";

// As in metav1.Condition. `status`: True, False, Unknown.
struct Condition {
  std::string type, status, reason, message;
  friend bool operator==(const Condition&, const Condition&) = default;
};
struct ObjectStatus {
  std::string key;    // of the object
  std::string about;  // "" the object; "listener web"; "parent Gateway/infra/edge, listener web"
  std::vector<Condition> conditions;
};

struct Translation {
  std::vector<LoadedObject> objects;  // make-before-break
  std::vector<ObjectStatus> status;   // by key
};

// `now_unix`: certificates that have expired are refused.
Translation translate(const Objects& objects, int64_t now_unix);

}  // namespace millrace::control::manifests
