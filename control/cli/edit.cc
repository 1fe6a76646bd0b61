// Verbs that change the tables, or say what would change.
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iostream>
#include <sstream>

#include <climits>

#include "control/cli/structured.h"
#include "control/cli/table.h"
#include "control/cli/verbs.h"
#include "control/compile.h"
#include "control/config_loader.h"
#include "control/dynamic_resources.h"
#include "control/json_text.h"
#include "control/manifests/apply.h"
#include "control/model.h"
#include "control/route_shadow.h"

namespace millrace::cli {

namespace pb = control::v1;
using control::json_quote;
using Stub = pb::Control::Stub;

namespace {

int usage(const std::string& text) {
  std::fprintf(stderr, "millctl: %s\n", text.c_str());
  return kUsage;
}

bool read_file(const std::string& path, std::string* text) {
  std::stringstream all;
  if (path == "-") {
    all << std::cin.rdbuf();
  } else {
    std::ifstream in(path, std::ios::binary);
    if (!in) {
      std::fprintf(stderr, "millctl: %s: %s\n", path.c_str(), std::strerror(errno));
      return false;
    }
    all << in.rdbuf();
  }
  *text = all.str();
  return true;
}

// "web=90,canary=10"
bool parse_weights(const std::string& text, std::vector<std::pair<std::string, uint32_t>>* out, std::string* error) {
  std::stringstream in(text);
  std::string item;
  while (std::getline(in, item, ',')) {
    const size_t eq = item.rfind('=');
    char* end = nullptr;
    const unsigned long w = eq == std::string::npos ? 0 : std::strtoul(item.c_str() + eq + 1, &end, 10);
    if (eq == std::string::npos || eq == 0 || eq + 1 == item.size() || *end != 0 || w > UINT32_MAX) {
      *error = "weights are written CLUSTER=NUMBER,CLUSTER=NUMBER, not \"" + text + "\"";
      return false;
    }
    out->emplace_back(item.substr(0, eq), static_cast<uint32_t>(w));
  }
  if (out->empty()) *error = "no weights given";
  return !out->empty();
}

}  // namespace

int run_apply(const Globals& g, const FileOptions& o, bool dry_run) {
  Client client(g);
  for (const std::string& file : o.files) {
    pb::ApplyRequest rq;
    if (!read_file(file, rq.mutable_text())) return kRefused;
    rq.set_file(file == "-" ? "<stdin>" : file);
    rq.set_dry_run(dry_run);
    rq.set_replace(o.replace);
    rq.set_remove(o.remove);
    rq.set_wait_ms(g.wait_ms());
    if (const int code = report_edit(g, client.call(&Stub::Apply, rq), dry_run); code != kDone) return code;
  }
  return kDone;
}

// Manifests alone, as the whole set.
static int check_manifests(const Globals& g, const std::string& text, const std::string& file) {
  const control::manifests::Parsed parsed = control::manifests::parse(text, file);
  std::vector<control::manifests::ObjectStatus> status;
  control::ModelEdit edit{{}, parsed.errors};
  if (edit.errors.empty()) edit = control::manifests::edit({}, parsed.objects, {}, true, std::time(nullptr), &status);
  if (edit.errors.empty()) {
    control::Compiler compiler;
    edit.errors = compiler.compile(edit.model).errors;
  }
  if (g.json() || g.yaml()) return print_structured(g, control::to_json(edit.errors)), edit.errors.empty() ? kDone : kRefused;
  std::fputs(control::to_text(edit.errors).c_str(), stderr);
  if (!edit.errors.empty()) {
    std::fprintf(stderr, "%s: %zu error%s\n", file.c_str(), edit.errors.size(), edit.errors.size() == 1 ? "" : "s");
    return kRefused;
  }
  pb::EditReply reply;
  for (const auto& s : status) {
    pb::ManifestStatus& to = *reply.add_manifests();
    to.set_object(s.key);
    to.set_of(s.about);
    for (const auto& c : s.conditions) {
      pb::ManifestCondition& condition = *to.add_conditions();
      condition.set_type(c.type), condition.set_status(c.status), condition.set_reason(c.reason),
          condition.set_message(c.message);
    }
  }
  print_conditions(reply);
  std::printf("%s: good: %zu objects, %zu listeners, %zu clusters\n", file.c_str(), parsed.objects.size(),
              edit.model.listeners().size(), edit.model.clusters().size());
  return kDone;
}

// As control takes it at its start, or by `apply` when it is no bootstrap.
static control::ModelEdit checked(const control::Document& document) {
  const control::DynamicOptions servers = control::dynamic_options(document.xds);
  control::Model empty;
  if (servers.servers) empty.let_servers_answer();
  if (servers.clusters) empty.let_clusters_come();
  return document.shape == control::DocumentShape::kBootstrap ? empty.replace(document) : empty.apply(document);
}

// Alone, without control: the file as a whole configuration. What a running gateway would say of it is `diff`.
int run_check(const Globals& g, const FileOptions& o) {
  int code = kDone;
  for (const std::string& file : o.files) {
    std::string text;
    if (!read_file(file, &text)) return kRefused;
    if (control::manifests::is_manifests(text)) {
      if (const int one = check_manifests(g, text, file == "-" ? "<stdin>" : file); one != kDone) code = one;
      continue;
    }
    const control::Document document = control::load_document(text, file == "-" ? "<stdin>" : file);
    control::ModelEdit edit = checked(document);
    edit.errors.insert(edit.errors.end(), document.errors.begin(), document.errors.end());
    if (edit.errors.empty()) {
      control::Compiler compiler;
      edit.errors = compiler.compile(edit.model).errors;
      edit.warnings = control::shadow_warnings(edit.model, nullptr);
    }
    control::sort_errors(edit.errors);
    if (g.json() || g.yaml()) {
      print_structured(g, control::to_json(edit.errors));
    } else {
      std::fputs(control::to_text(edit.errors).c_str(), stderr);
      for (const control::ConfigError& w : edit.warnings)
        std::fprintf(stderr, "%s%s\n", paint("warning: ", Color::kYellow).c_str(), w.to_string().c_str());
      if (edit.errors.empty())
        std::printf("%s: good: %zu listeners, %zu routes, %zu clusters\n", file.c_str(), edit.model.listeners().size(),
                    edit.model.routes().size(), edit.model.clusters().size());
      else std::fprintf(stderr, "%s: %zu error%s\n", file.c_str(), edit.errors.size(), edit.errors.size() == 1 ? "" : "s");
    }
    if (!edit.errors.empty()) code = kRefused;
  }
  return code;
}

int run_delete(const Globals& g, const ObjectOptions& o, FileOptions files) {
  if (!files.files.empty()) {
    if (!o.kind.empty()) return usage("give a kind and a name, or files with -f");
    files.remove = true;
    return run_apply(g, files, false);
  }
  if (o.kind.empty() || o.name.empty()) return usage("delete takes a kind and a name, or -f FILE");
  Client client(g);
  pb::DeleteRequest rq;
  rq.set_kind(o.kind);
  rq.set_name(o.name);
  rq.set_wait_ms(g.wait_ms());
  return report_edit(g, client.call(&Stub::Delete, rq), false);
}

bool route_text(const RouteOptions& o, std::string* text, std::string* error) {
  const int matches = !o.prefix.empty() + !o.path.empty() + !o.regex.empty() + !o.separated_prefix.empty();
  const int actions = !o.cluster.empty() + !o.weighted.empty() + !o.redirect.empty() + !o.direct.empty();
  if (matches != 1) {
    *error = "say what the route matches with exactly one of --prefix, --path, --regex, --separated-prefix";
    return false;
  }
  if (actions != 1) {
    *error = "say what happens with exactly one of --cluster, --weighted, --redirect, --direct";
    return false;
  }
  std::string s = "{";
  if (!o.name.empty()) s += "\"name\": " + json_quote(o.name) + ", ";
  s += "\"match\": {";
  if (!o.prefix.empty()) s += "\"prefix\": " + json_quote(o.prefix);
  if (!o.path.empty()) s += "\"path\": " + json_quote(o.path);
  if (!o.regex.empty()) s += "\"safe_regex\": {\"regex\": " + json_quote(o.regex) + "}";
  if (!o.separated_prefix.empty()) s += "\"path_separated_prefix\": " + json_quote(o.separated_prefix);
  if (!o.headers.empty()) {
    s += ", \"headers\": [";
    for (size_t i = 0; i < o.headers.size(); ++i) {
      const size_t colon = o.headers[i].find(':', 1);
      if (colon == std::string::npos) {
        *error = "header \"" + o.headers[i] + "\" is not of the form \"name: value\"";
        return false;
      }
      const size_t value = o.headers[i].find_first_not_of(" \t", colon + 1);
      s += (i == 0 ? "" : ", ");
      s += "{\"name\": " + json_quote(o.headers[i].substr(0, colon)) +
           ", \"string_match\": {\"exact\": " + json_quote(value == std::string::npos ? "" : o.headers[i].substr(value)) + "}}";
    }
    s += "]";
  }
  s += "}, ";
  if (!o.redirect.empty()) {
    // scheme://host:port/path, each part optional
    std::string rest = o.redirect;
    s += "\"redirect\": {";
    std::string parts;
    const auto add = [&](const std::string& field) { parts += (parts.empty() ? "" : ", ") + field; };
    if (const size_t colon = rest.find("://"); colon != std::string::npos) {
      add("\"scheme_redirect\": " + json_quote(rest.substr(0, colon)));
      rest = rest.substr(colon + 3);
      const size_t slash = rest.find('/');
      std::string host = rest.substr(0, slash);
      rest = slash == std::string::npos ? "" : rest.substr(slash);
      if (const size_t port = host.rfind(':'); port != std::string::npos && host.find(']', port) == std::string::npos) {
        add("\"port_redirect\": " + host.substr(port + 1));
        host.resize(port);
      }
      if (!host.empty()) add("\"host_redirect\": " + json_quote(host));
    }
    if (!rest.empty()) add("\"path_redirect\": " + json_quote(rest));
    s += parts + "}";
  } else if (!o.direct.empty()) {
    const size_t colon = o.direct.find(':');
    const std::string status = o.direct.substr(0, colon);
    if (status.empty() || status.find_first_not_of("0123456789") != std::string::npos) {
      *error = "--direct takes STATUS or STATUS:BODY, not \"" + o.direct + "\"";
      return false;
    }
    s += "\"direct_response\": {\"status\": " + status;
    if (colon != std::string::npos) s += ", \"body\": {\"inline_string\": " + json_quote(o.direct.substr(colon + 1)) + "}";
    s += "}";
  } else {
    s += "\"route\": {";
    if (!o.cluster.empty()) {
      s += "\"cluster\": " + json_quote(o.cluster);
    } else {
      std::vector<std::pair<std::string, uint32_t>> weights;
      if (!parse_weights(o.weighted, &weights, error)) return false;
      s += "\"weighted_clusters\": {\"clusters\": [";
      for (size_t i = 0; i < weights.size(); ++i)
        s += std::string(i == 0 ? "" : ", ") + "{\"name\": " + json_quote(weights[i].first) +
             ", \"weight\": " + std::to_string(weights[i].second) + "}";
      s += "]}";
    }
    if (!o.timeout.empty()) s += ", \"timeout\": " + json_quote(o.timeout);
    if (!o.prefix_rewrite.empty()) s += ", \"prefix_rewrite\": " + json_quote(o.prefix_rewrite);
    s += "}";
  }
  *text = s + "}";
  return true;
}

int run_route_add(const Globals& g, const RouteOptions& o) {
  pb::AddRouteRequest rq;
  std::string error;
  if (!o.file.empty()) {
    if (!read_file(o.file, rq.mutable_route())) return kRefused;
  } else if (!route_text(o, rq.mutable_route(), &error)) {
    return usage(error);
  }
  if (o.first + !o.before.empty() + !o.after.empty() + (o.index >= 0) > 1)
    return usage("give one place: --first, --before, --after or --index");
  rq.set_place(o.first             ? "first"
               : !o.before.empty() ? "before:" + o.before
               : !o.after.empty()  ? "after:" + o.after
               : o.index >= 0      ? "index:" + std::to_string(o.index)
                                   : "last");
  rq.set_route_config(o.route_config);
  rq.set_virtual_host(o.virtual_host);
  rq.set_wait_ms(g.wait_ms());
  rq.set_dry_run(o.dry_run);
  Client client(g);
  return report_edit(g, client.call(&Stub::AddRoute, rq), o.dry_run);
}

int run_route_remove(const Globals& g, const RouteOptions& o) {
  pb::RemoveRouteRequest rq;
  rq.set_route_config(o.route_config);
  rq.set_virtual_host(o.virtual_host);
  rq.set_name(o.name);
  rq.set_wait_ms(g.wait_ms());
  rq.set_dry_run(o.dry_run);
  Client client(g);
  return report_edit(g, client.call(&Stub::RemoveRoute, rq), o.dry_run);
}

int run_route_weight(const Globals& g, const RouteOptions& o) {
  pb::SetWeightsRequest rq;
  std::vector<std::pair<std::string, uint32_t>> weights;
  std::string error;
  if (!parse_weights(o.weighted, &weights, &error)) return usage(error);
  for (const auto& [name, w] : weights) (*rq.mutable_weights())[name] = w;
  rq.set_route_config(o.route_config);
  rq.set_virtual_host(o.virtual_host);
  rq.set_name(o.name);
  rq.set_wait_ms(g.wait_ms());
  rq.set_dry_run(o.dry_run);
  Client client(g);
  return report_edit(g, client.call(&Stub::SetWeights, rq), o.dry_run);
}

int run_endpoint(const Globals& g, const EndpointOptions& o, EndpointAction action) {
  pb::EditEndpointRequest rq;
  rq.set_cluster(o.cluster);
  rq.set_endpoint(o.endpoint);
  rq.set_weight(o.weight);
  rq.set_action(static_cast<pb::EditEndpointRequest::Action>(action));
  rq.set_wait_ms(g.wait_ms());
  rq.set_dry_run(o.dry_run);
  Client client(g);
  return report_edit(g, client.call(&Stub::EditEndpoint, rq), o.dry_run);
}

bool explain_request(const ExplainOptions& o, pb::ExplainRequest* rq, std::string* error) {
  std::string url = o.words.back();
  rq->set_method(o.words.size() == 2 ? o.words[0] : "GET");
  const size_t scheme_end = url.find("://");
  const std::string scheme = scheme_end == std::string::npos ? "http" : url.substr(0, scheme_end);
  if (scheme != "http" && scheme != "https") {
    *error = "the URL's scheme is http or https, not \"" + scheme + "\"";
    return false;
  }
  if (scheme_end != std::string::npos) url = url.substr(scheme_end + 3);
  const size_t slash = url.find('/');
  const std::string authority = url.substr(0, slash);
  if (authority.empty()) {
    *error = "\"" + o.words.back() + "\" has no host; write it as http://host/path";
    return false;
  }
  std::string host = authority;
  uint32_t port = scheme == "https" ? 443 : 80;
  if (const size_t colon = authority.rfind(':'); colon != std::string::npos && authority.find(']', colon) == std::string::npos) {
    host = authority.substr(0, colon);
    port = static_cast<uint32_t>(std::strtoul(authority.c_str() + colon + 1, nullptr, 10));
  }
  rq->set_tls(scheme == "https");
  rq->set_authority(authority);
  rq->set_path(slash == std::string::npos ? "/" : url.substr(slash));
  rq->set_port(o.port != 0 ? o.port : port);
  rq->set_listener(o.listener);
  rq->set_address(o.address);
  if (scheme == "https") rq->set_sni(o.sni.empty() ? host : o.sni);
  for (const std::string& a : o.alpn) rq->add_alpn(a);
  for (const std::string& h : o.headers) rq->add_headers(h);
  return true;
}

int run_explain(const Globals& g, const ExplainOptions& o) {
  pb::ExplainRequest rq;
  std::string error;
  if (!explain_request(o, &rq, &error)) return usage(error);
  Client client(g);
  return show_explanation(g, client.call(&Stub::Explain, rq));
}

}  // namespace millrace::cli
