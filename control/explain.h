// Which way would a request go, and why? Walks the compiled objects (what the data plane really uses) with the data plane's own
// matcher, and the model for the reasons why earlier choices failed.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "control/compile.h"
#include "control/model.h"

namespace millrace::control {

struct ExplainRequest {
  std::string listener;  // by name; "": chosen by destination (address, port)
  std::string address;   // "" with listener "": any listener of that port
  uint16_t port = 0;
  bool tls = false;  // the client starts TLS
  std::string sni;   // "" : none
  std::vector<std::string> alpn;
  std::string method = "GET";
  std::string authority;   // Host
  std::string path = "/";  // with query
  std::vector<std::pair<std::string, std::string>> headers;
};

struct ExplainStep {
  std::string what;  // "listener", "filter chain", "route table", "virtual host", "route", "cluster", "endpoint", "answer"
  std::string name;  // of what was chosen or looked at
  bool chosen = false;
  std::string why;  // one sentence
};

struct Explanation {
  std::vector<ExplainStep> steps;  // in the order in which the data plane decides
  std::string cluster;             // where it ends ("a, b" when weights decide); "" when it does not reach a cluster
  uint16_t status = 0;             // of an answer that the gateway itself gives (404, redirect, direct response, 503); else 0
  std::string response_flag;       // "NR", "NC", "UH", or ""

  std::string to_text() const;
  std::string to_json() const;
};

Explanation explain(const Model& model, const Compiler& compiled, const ExplainRequest& request);

}  // namespace millrace::control
