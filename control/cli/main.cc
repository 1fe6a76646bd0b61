// millctl: what an operator types. Verbs in files of their own (edit.cc, show.cc); this one knows the words of the command line.
#include <cstdio>
#include <cstdlib>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "control/cli/client.h"
#include "control/cli/table.h"
#include "control/cli/verbs.h"
#include "control/json_text.h"

namespace {

using namespace millrace::cli;

constexpr const char* kBash = R"BASH(_millctl() {
  local cur=${COMP_WORDS[COMP_CWORD]}
  local words="status apply check diff get list delete route endpoint explain history rollback dump log stats nstat top"
  words+=" drops conn capture xds drain undrain batch completion"
  local kinds="listeners routes clusters endpoints secrets manifests"
  local states="syn-sent syn-received established fin-wait-1 fin-wait-2 close-wait closing last-ack"
  local filters="--listener --cluster --peer --local --state --worker --role"
  case ${COMP_WORDS[2]:-} in
    list) filters+=" --sort --top --limit --ids --output" ;;
    kill) filters+=" --dry-run --all --output" ;;
    show) filters="--output" ;;
  esac
  local terms="--write --packets --bytes --seconds --snap --port --direction --tls-keys host net port portrange src dst tcp udp"
  terms+=" icmp icmp6 arp ip ip6 vlan inbound outbound tcp-syn tcp-ack tcp-fin tcp-rst tcp-push less greater listener cluster"
  terms+=" and or not"
  case ${COMP_WORDS[1]} in
    route) [ $COMP_CWORD -eq 2 ] && { COMPREPLY=($(compgen -W "add remove weight" -- "$cur")); return; } ;;
    endpoint) [ $COMP_CWORD -eq 2 ] && { COMPREPLY=($(compgen -W "add remove drain undrain" -- "$cur")); return; } ;;
    conn) [ $COMP_CWORD -eq 2 ] && { COMPREPLY=($(compgen -W "list show kill" -- "$cur")); return; }
      case ${COMP_WORDS[COMP_CWORD-1]} in
        --listener) COMPREPLY=($(compgen -W "$(millctl list listeners --names 2>/dev/null)" -- "$cur")); return ;;
        --cluster) COMPREPLY=($(compgen -W "$(millctl list clusters --names 2>/dev/null)" -- "$cur")); return ;;
        --state) COMPREPLY=($(compgen -W "$states" -- "$cur")); return ;;
        --role) COMPREPLY=($(compgen -W "downstream upstream" -- "$cur")); return ;;
        --sort) COMPREPLY=($(compgen -W "rtt retransmits age queued cwnd idle" -- "$cur")); return ;;
      esac
      case ${COMP_WORDS[2]:-} in
        show|kill) [ $COMP_CWORD -eq 3 ] && [[ $cur != -* ]] && {
          COMPREPLY=($(compgen -W "$(millctl conn list --ids 2>/dev/null)" -- "$cur")); return; } ;;
      esac
      COMPREPLY=($(compgen -W "$filters" -- "$cur")); return ;;
    capture) case ${COMP_WORDS[COMP_CWORD-1]} in
        -w|--write) COMPREPLY=($(compgen -f -- "$cur")) ;;
        --direction) COMPREPLY=($(compgen -W "in out" -- "$cur")) ;;
        listener) COMPREPLY=($(compgen -W "$(millctl list listeners --names 2>/dev/null)" -- "$cur")) ;;
        cluster) COMPREPLY=($(compgen -W "$(millctl list clusters --names 2>/dev/null)" -- "$cur")) ;;
        *) COMPREPLY=($(compgen -W "$terms" -- "$cur")) ;;
      esac; return ;;
    top) case ${COMP_WORDS[COMP_CWORD-1]} in
        --stages) COMPREPLY=($(compgen -W "on off" -- "$cur")) ;;
        *) COMPREPLY=($(compgen -W "--interval --once --workers --stages --output" -- "$cur")) ;;
      esac; return ;;
    get|list|delete) [ $COMP_CWORD -eq 2 ] && { COMPREPLY=($(compgen -W "$kinds" -- "$cur")); return; }
      [ $COMP_CWORD -eq 3 ] && {
        local names=$(millctl list "${COMP_WORDS[2]}" --names 2>/dev/null)
        COMPREPLY=($(compgen -W "$names" -- "$cur")); return; } ;;
  esac
  [ $COMP_CWORD -eq 1 ] && { COMPREPLY=($(compgen -W "$words" -- "$cur")); return; }
  COMPREPLY=($(compgen -f -- "$cur"))
}
complete -F _millctl millctl
)BASH";

// What is wrong with the command line, in one sentence. A word that is no verb is told as that, with the nearest one.
std::string complaint(const CLI::App& app, const CLI::ParseError& e) {
  const CLI::App* at = &app;
  std::string typed = "millctl";
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().front();
    typed += " " + at->get_name();
  }
  std::vector<std::string> verbs;
  for (const CLI::App* s : at->get_subcommands({})) verbs.push_back(s->get_name());
  if (verbs.empty() || dynamic_cast<const CLI::RequiredError*>(&e) == nullptr)
    return std::string(e.what()) + "; see " + typed + " --help";
  for (const std::string& w : app.remaining(true)) {
    if (w.starts_with("-")) continue;
    const std::string what = "\"" + w + "\" is no verb" + (at == &app ? "" : " of " + typed);
    if (const std::string near = millrace::control::nearest(w, verbs); !near.empty())
      return what + "; did you mean " + near + "?";
    return what + "; there are " + millrace::control::list_of(verbs, " and ");
  }
  return typed + " needs a verb: " + millrace::control::list_of(verbs);
}

}  // namespace

namespace millrace::cli {

int run_words(const std::vector<std::string>& words, Globals g, bool in_batch) {
  CLI::App app{
      "millctl talks to millrace-control: shows what is in force, changes it while traffic flows, and explains where requests "
      "go.\n"
      "Changes are all or nothing, and reported when every worker answers by them.\n",
      "millctl"};
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--run-dir", g.run_dir, "directory of control's socket")->capture_default_str()->envname("MILLRACE_RUN_DIR");
  app.add_option("-o,--output", g.output, "table for people; json and yaml for programs")
      ->check(CLI::IsMember({"table", "json", "yaml"}))
      ->capture_default_str();
  app.add_option("--timeout", g.timeout_s, "seconds to wait for an answer, and for a change to be in force")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  app.add_flag("--no-wait", g.no_wait, "changes: return when published, before workers have taken them");
  app.add_flag("--no-color", g.no_color, "no colours (also when NO_COLOR is set, or output is no terminal)");
  app.set_version_flag("--version", std::string("millctl ") + MILLRACE_VERSION);
  app.footer("Exit codes: 0 done, 1 refused or not found, 2 usage, 3 control is not there, 4 not in force (in time).");
  int code = kDone;
  // Runs a verb once the whole command line is understood.
  const auto run = [&](CLI::App* sub, auto&& verb) {
    sub->callback([&code, &g, verb] {
      set_color(!g.no_color && isatty(STDOUT_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr);
      code = verb(g);
    });
  };

  StatusOptions status;
  CLI::App* sub = app.add_subcommand("status", "control, data plane, tables in force, ports, pools");
  sub->add_option("--wait", status.wait_s, "wait so many seconds for the newest tables to be in force on every worker");
  sub->add_option("--watch", status.watch_s, "show again every so many seconds")->expected(0, 1)->default_str("2");
  sub->footer(
      "Examples:\n  millctl status\n  millctl status --wait 10 && echo ready\n  millctl status -o json | jq .epoch_in_force");
  run(sub, [&](const Globals& x) { return run_status(x, status); });

  FileOptions file;
  const auto files = [&](CLI::App* s) {
    s->add_option("-f,--file", file.files, "YAML or JSON; - is standard input; may be given several times")->required();
  };
  sub = app.add_subcommand(
      "apply", "adds or replaces the objects of a file (a bootstrap, a list, one object with @type, or Kubernetes manifests)");
  files(sub);
  sub->add_flag("--replace", file.replace, "objects that the file does not name are removed");
  sub->footer(
      "Examples:\n  millctl apply -f gateway.yaml\n  millctl get cluster web -o yaml | sed s/5s/1s/ | millctl apply -f -");
  run(sub, [&](const Globals& x) { return run_apply(x, file, false); });
  sub = app.add_subcommand("check", "says every error of a file, with line and field; changes nothing");
  files(sub);
  sub->footer("Example:\n  millctl check -f gateway.yaml");
  run(sub, [&](const Globals& x) { return run_check(x, file); });
  sub = app.add_subcommand("diff", "what apply would change; changes nothing");
  files(sub);
  sub->add_flag("--replace", file.replace, "as with apply --replace");
  sub->footer("Example:\n  millctl diff -f gateway.yaml");
  run(sub, [&](const Globals& x) { return run_apply(x, file, true); });

  ObjectOptions object;
  sub = app.add_subcommand("list", "objects: listeners, routes, clusters, endpoints, secrets, manifests");
  sub->add_option("kind", object.kind, "one kind; all without it");
  sub->add_flag("--names", object.names_only, "names alone, one a line");
  sub->footer("Examples:\n  millctl list\n  millctl list routes\n  millctl list endpoints -o json");
  run(sub, [&](const Globals& x) { return run_list(x, object); });
  sub = app.add_subcommand("get", "one object in Envoy's vocabulary; what comes out can go into apply");
  sub->add_option("kind", object.kind)->required();
  sub->add_option("name", object.name)->required();
  sub->footer("Example:\n  millctl get cluster web");
  run(sub, [&](const Globals& x) { return run_get(x, object); });
  FileOptions deleted;
  sub = app.add_subcommand("delete", "removes an object that nothing refers to, or the Kubernetes manifests of a file");
  sub->add_option("kind", object.kind);
  sub->add_option("name", object.name);
  sub->add_option("-f,--file", deleted.files, "Kubernetes manifests; - is standard input");
  sub->footer(
      "Examples:\n  millctl delete cluster web\n  millctl delete -f shop.yaml\n  millctl delete manifest httproute/default/web");
  run(sub, [&](const Globals& x) { return run_delete(x, object, deleted); });

  RouteOptions route;
  CLI::App* routes = app.add_subcommand("route", "add, remove and weigh routes of a virtual host");
  routes->require_subcommand(1);
  routes->footer("Example:\n  millctl route add --name api --prefix /api --cluster web --first");
  const auto where = [&](CLI::App* s) {
    s->add_option("--route-config", route.route_config, "route configuration; not needed when there is one");
    s->add_option("--virtual-host", route.virtual_host, "its name or one of its domains; not needed when there is one");
  };
  sub = routes->add_subcommand("add", "adds a route; where it stands decides, the first match wins");
  where(sub);
  sub->add_option("-f,--file", route.file, "the route as YAML or JSON, instead of the options below");
  sub->add_option("--name", route.name, "name, for remove, weight and logs");
  sub->add_option("--prefix", route.prefix, "path begins with it");
  sub->add_option("--path", route.path, "path is exactly it");
  sub->add_option("--regex", route.regex, "the whole path matches the expression (RE2)");
  sub->add_option("--separated-prefix", route.separated_prefix, "path is it, or continues behind a slash");
  sub->add_option("-H,--header", route.headers, "\"name: value\" that the request must have; may be given several times");
  sub->add_option("--cluster", route.cluster, "where requests go");
  sub->add_option("--weighted", route.weighted, "where shares of them go: web=90,canary=10");
  sub->add_option("--redirect", route.redirect, "answer with a redirect to this URL");
  sub->add_option("--direct", route.direct, "answer STATUS, or STATUS:BODY");
  sub->add_option("--timeout", route.timeout, "of the whole response, e.g. 5s; 0s: none");
  sub->add_option("--prefix-rewrite", route.prefix_rewrite, "what replaces the matched prefix or path");
  sub->add_flag("--first", route.first, "in front of all others");
  sub->add_option("--before", route.before, "in front of the route of that name");
  sub->add_option("--after", route.after, "behind the route of that name");
  sub->add_option("--index", route.index, "at that place, from 0");
  sub->add_flag("--dry-run", route.dry_run, "only say what would change");
  sub->footer(
      "Examples:\n  millctl route add --name api --prefix /api --cluster web --first\n"
      "  millctl route add --name split --path /checkout --weighted v1=95,v2=5 --before all\n"
      "  millctl route add --prefix /old --redirect https://example.com/new");
  run(sub, [&](const Globals& x) { return run_route_add(x, route); });
  sub = routes->add_subcommand("remove", "removes a route by its name");
  where(sub);
  sub->add_option("name", route.name)->required();
  sub->add_flag("--dry-run", route.dry_run, "only say what would change");
  sub->footer("Example:\n  millctl route remove split");
  run(sub, [&](const Globals& x) { return run_route_remove(x, route); });
  sub = routes->add_subcommand("weight", "sets the weights of a route with weighted clusters");
  where(sub);
  sub->add_option("name", route.name)->required();
  sub->add_option("weights", route.weighted, "web=90,canary=10")->required();
  sub->add_flag("--dry-run", route.dry_run, "only say what would change");
  sub->footer("Example:\n  millctl route weight split v1=50,v2=50");
  run(sub, [&](const Globals& x) { return run_route_weight(x, route); });

  EndpointOptions endpoint;
  CLI::App* endpoints = app.add_subcommand("endpoint", "add, remove and drain endpoints of a cluster");
  endpoints->require_subcommand(1);
  endpoints->footer("Example:\n  millctl endpoint drain web 10.1.2.3:8080");
  const auto add_endpoint_verb = [&](const char* word, const char* help, EndpointAction action) {
    CLI::App* s = endpoints->add_subcommand(word, help);
    s->add_option("cluster", endpoint.cluster)->required();
    s->add_option("endpoint", endpoint.endpoint, "ADDRESS:PORT or [ADDRESS]:PORT")->required();
    if (action == EndpointAction::kAdd)
      s->add_option("--weight", endpoint.weight, "load balancing weight")->check(CLI::Range(1u, 4'294'967'295u));
    s->add_flag("--dry-run", endpoint.dry_run, "only say what would change");
    s->footer(std::string("Example:\n  millctl endpoint ") + word + " web 10.1.2.3:8080");
    run(s, [action, &endpoint](const Globals& x) { return run_endpoint(x, endpoint, action); });
  };
  add_endpoint_verb("add", "takes an endpoint into rotation", EndpointAction::kAdd);
  add_endpoint_verb("remove", "takes an endpoint out; requests under way finish", EndpointAction::kRemove);
  add_endpoint_verb("drain", "no new requests; those under way finish", EndpointAction::kDrain);
  add_endpoint_verb("undrain", "back into rotation", EndpointAction::kUndrain);

  ExplainOptions explain;
  sub = app.add_subcommand("explain", "which way a request would go, and why");
  sub->add_option("words", explain.words, "[METHOD] URL")->required()->expected(1, 2);
  sub->add_option("-H,--header", explain.headers, "\"name: value\"; may be given several times");
  sub->add_option("--listener", explain.listener, "by name; default: by the URL's port");
  sub->add_option("--address", explain.address, "local address of the gateway that the client connects to");
  sub->add_option("--port", explain.port, "listener's port, when it is not the URL's");
  sub->add_option("--sni", explain.sni, "server name; default: the URL's host");
  sub->add_option("--alpn", explain.alpn, "protocols the client offers");
  sub->footer(
      "Examples:\n  millctl explain http://shop.example/cart\n  millctl explain POST https://shop.example/pay -H 'x-canary: yes' "
      "--port 8443");
  run(sub, [&](const Globals& x) { return run_explain(x, explain); });

  HistoryOptions history;
  sub = app.add_subcommand("history", "edits with their author, time and what they changed; newest first");
  sub->add_option("revision", history.revision, "all of one");
  sub->add_option("--limit", history.limit, "show at most so many; 0: all that are kept (1,000)")->capture_default_str();
  sub->footer("Examples:\n  millctl history\n  millctl history 17\n  millctl history -o json | jq '.revisions[0].author'");
  run(sub, [&](const Globals& x) { return run_history(x, history); });
  RollbackOptions rollback;
  sub = app.add_subcommand("rollback", "undoes the newest edit, or goes back to a revision; no connection is closed");
  sub->add_option("revision", rollback.revision, "to what was in force right after it (millctl history)");
  sub->add_flag("--dry-run", rollback.dry_run, "only say what would change");
  sub->footer(
      "A rollback is an edit with a revision of its own: a second one takes the first back.\n"
      "Examples:\n  millctl rollback\n  millctl rollback 12 --dry-run");
  run(sub, [&](const Globals& x) { return run_rollback(x, rollback); });
  DumpOptions dump;
  sub = app.add_subcommand("dump", "every object in force, as one document for apply (private keys are left out)");
  sub->add_option("-w,--write", dump.file, "the file; - is standard output")->capture_default_str();
  sub->add_flag("--all", dump.all, "JSON with status, history, counters and log as well: what a report of a fault needs");
  sub->footer("Examples:\n  millctl dump > gateway.yaml\n  millctl dump --all -w report.json");
  run(sub, [&](const Globals& x) { return run_dump(x, dump); });
  LogOptions log;
  sub = app.add_subcommand("log", "what control has said: edits, the data plane's comings and goings, sinks");
  sub->add_option("-n,--lines", log.lines, "of before")->check(CLI::Range(0u, 4096u))->capture_default_str();
  sub->add_flag("-f,--follow", log.follow, "go on until Ctrl-C");
  sub->footer("Examples:\n  millctl log\n  millctl log -n 0 --follow -o json");
  run(sub, [&](const Globals& x) { return run_log(x, log); });

  StatsOptions stats;
  sub = app.add_subcommand("stats", "counters by object, and latency histograms");
  sub->add_option("filter", stats.filter, "only counters whose scope.object.name has this text");
  sub->add_flag("--all", stats.all, "also those that are zero");
  sub->add_flag("--per-worker", stats.per_worker, "counters of the process worker by worker, not summed");
  sub->add_option("--watch", stats.watch_s, "show again every so many seconds")->expected(0, 1)->default_str("2");
  sub->footer(
      "Examples:\n  millctl stats\n  millctl stats cluster.web\n  millctl stats http --watch\n  millctl stats worker. "
      "--per-worker");
  run(sub, [&](const Globals& x) { return run_stats(x, stats); });
  sub = app.add_subcommand("drops", "every reason for which a packet or request did not get through, worst first");
  sub->add_flag("--all", stats.all, "also reasons that never happened");
  sub->add_option("--watch", stats.watch_s, "show again every so many seconds")->expected(0, 1)->default_str("2");
  sub->add_option("--rate", stats.rate_s, "look twice, so many seconds apart, and say how many a second")
      ->expected(0, 1)
      ->default_str("1")
      ->check(CLI::Range(0.05, 3600.0));
  sub->footer("Examples:\n  millctl drops\n  millctl drops --rate\n  millctl drops --watch 5");
  run(sub, [&](const Globals& x) { return run_drops(x, stats); });
  sub = app.add_subcommand("nstat", "TCP/IP counters under the names that Linux gives them");
  sub->add_option("filter", stats.filter, "only counters whose name has this text");
  sub->add_flag("--all", stats.all, "also those that are zero");
  sub->add_option("--watch", stats.watch_s, "show again every so many seconds, with rates")->expected(0, 1)->default_str("2");
  sub->footer("Examples:\n  millctl nstat\n  millctl nstat TcpExt --all\n  millctl nstat Retrans --watch 1");
  run(sub, [&](const Globals& x) { return run_nstat(x, stats); });

  XdsOptions xds;
  sub = app.add_subcommand("xds", "management servers: connection, subscriptions, and what became of each resource");
  sub->add_option("filter", xds.filter, "only resources whose type or name has this text");
  sub->add_option("--watch", xds.watch_s, "show again every so many seconds")->expected(0, 1)->default_str("2");
  sub->footer(
      "Examples:\n  millctl xds\n  millctl xds CDS\n  millctl xds -o json | jq '.resources[] | select(.state == \"refused\")'");
  run(sub, [&](const Globals& x) { return run_xds(x, xds); });

  DrainOptions drain;
  sub = app.add_subcommand("drain", "takes the gateway out of service: clients are told to go, then nothing new is accepted");
  CLI::Option* drain_time = sub->add_option("--time", drain.time_s, "seconds for which new connections are accepted yet")
                                ->check(CLI::Range(uint32_t{0}, uint32_t{4'000'000}))
                                ->capture_default_str();
  CLI::Option* drain_now = sub->add_flag("--now", drain.now, "accept nothing new from now on")->excludes(drain_time);
  CLI::Option* drain_show =
      sub->add_flag("--show", drain.show, "only say how far it is")->excludes(drain_time)->excludes(drain_now);
  sub->add_option("--wait", drain.wait_s, "seconds to wait until every client has gone; exit code 4 if one has not")
      ->check(CLI::PositiveNumber)
      ->excludes(drain_show);
  sub->footer("Examples:\n  millctl drain --time 60 --wait 120\n  millctl drain --now\n  millctl undrain");
  run(sub, [&](const Globals& x) { return run_drain(x, drain); });
  sub = app.add_subcommand("undrain", "back into service, after drain or a failed health");
  run(sub, [&](const Globals& x) { return run_undrain(x); });

  ConnOptions conn;
  CLI::App* conns = app.add_subcommand("conn", "connections of the data plane: list, show one with its history, reset");
  conns->require_subcommand(1);
  conns->footer("Example:\n  millctl conn list --top 10 --sort rtt");
  const auto filters = [&](CLI::App* s) {
    s->add_option("--listener", conn.listener, "of this listener, and what serves its connections now");
    s->add_option("--cluster", conn.cluster, "to this cluster, and connections that it serves now");
    s->add_option("--peer", conn.peer, "the other end: ADDRESS, ADDRESS/BITS, ADDRESS:PORT or :PORT");
    s->add_option("--local", conn.local, "our end, likewise");
    s->add_option("--state", conn.states, "TCP state: established, fin-wait-1, …; may be given several times");
    s->add_option("--worker", conn.workers, "of this worker; may be given several times");
    s->add_option("--role", conn.role, "downstream (clients) or upstream (endpoints)")
        ->check(CLI::IsMember({"downstream", "upstream"}));
  };
  sub = conns->add_subcommand("list", "connections, filtered and ordered; workers go through theirs in slices beside their work");
  filters(sub);
  sub->add_option("--top", conn.top, "the N largest by --sort (queued, when that is not given)")->check(CLI::Range(1u, 1024u));
  sub->add_option("--sort", conn.sort, "largest first: rtt, retransmits, age, queued, cwnd, idle")
      ->check(CLI::IsMember({"rtt", "retransmits", "age", "queued", "cwnd", "idle"}));
  sub->add_option("--limit", conn.limit, "show at most so many; 0: all")->capture_default_str();
  sub->add_flag("--ids", conn.ids_only, "ids alone, one a line");
  sub->footer(
      "Examples:\n  millctl conn list --listener edge --state established\n  millctl conn list --top 10 --sort retransmits\n"
      "  millctl conn list --peer 10.1.0.0/16 -o json | jq .matched");
  run(sub, [&](const Globals& x) { return run_conn_list(x, conn); });
  sub = conns->add_subcommand("show", "everything known of one connection, in the words of ss -ti, and its trace");
  sub->add_option("id", conn.id, "as conn list shows it; of one that is over, the trace may still be there")->required();
  sub->footer("Example:\n  millctl conn show 0-17-3fa90c21");
  run(sub, [&](const Globals& x) { return run_conn_show(x, conn); });
  sub = conns->add_subcommand("kill", "resets a connection, or all that pass the filters; says how many");
  sub->add_option("id", conn.id, "one connection");
  filters(sub);
  sub->add_flag("--all", conn.all, "every connection of the data plane");
  sub->add_flag("--dry-run", conn.dry_run, "only say how many");
  sub->footer("Examples:\n  millctl conn kill 0-17-3fa90c21\n  millctl conn kill --peer 192.0.2.7 --dry-run");
  run(sub, [&](const Globals& x) { return run_conn_kill(x, conn); });

  CaptureOptions capture;
  TopOptions top;
  BatchOptions batch;
  if (!in_batch) {
    sub = app.add_subcommand("top", "load, requests, packets and pools of every worker, and where its cycles go, every second");
    sub->add_option("--interval", top.interval_s, "seconds between two looks")
        ->check(CLI::Range(0.1, 3600.0))
        ->capture_default_str();
    sub->add_flag("--once", top.once, "one look, an interval long, and done");
    sub->add_option("--workers", top.workers, "only these, and totals of them: 0,2-3");
    sub->add_option("--stages", top.stages,
                    "switches accounting of stages first: on, off, or N: one busy turn in N is accounted (on: 16)");
    sub->footer(
        "On a terminal q quits and s switches the stages; into a pipe one frame follows another (-o json: one a line).\n"
        "Accounting stays as it is when top ends, until the data plane does.\n"
        "Examples:\n  millctl top\n  millctl top --stages on\n  millctl top --once -o json | jq .total.requests\n  millctl top "
        "--once --stages off");
    run(sub, [&](const Globals& x) { return run_top(x, top); });
    sub = app.add_subcommand("capture", "packets of the gateway's ports into a pcapng file, for tshark and Wireshark");
    sub->add_option("-w,--write", capture.file, "the file; - is standard output")->required();
    sub->add_option("filter", capture.filter, "which packets; all without it");
    sub->add_option("--packets", capture.packets, "end after so many (100,000)");
    sub->add_option("--bytes", capture.bytes, "end after so many bytes of packets; k, m, g (256m)")
        ->transform(CLI::AsSizeValue(false));
    sub->add_option("--seconds", capture.seconds, "end after so long (60)")->check(CLI::Range(0.001, 86'400.0));
    sub->add_option("--snap", capture.snap, "keep so many bytes of each packet; all without it");
    sub->add_option("--port", capture.ports, "of this port of the gateway; may be given several times");
    sub->add_option("--direction", capture.direction, "only in or out")->check(CLI::IsMember({"in", "out"}));
    sub->add_flag("--tls-keys", capture.tls_keys,
                  "with the keys of TLS sessions that begin meanwhile (dataplane: {tls_key_capture: true} must permit it)");
    sub->footer(
        "Filters are pcap's: host, net, port, portrange with src and dst; ip, ip6, arp, tcp, udp, icmp, icmp6, vlan; less, "
        "greater;\n"
        "inbound, outbound; tcp-syn, tcp-ack, tcp-fin, tcp-rst, tcp-push; listener NAME, cluster NAME; and, or, not, "
        "parentheses.\n"
        "Options come before the filter. Ctrl-C ends a capture; what came so far is in the file.\n"
        "Examples:\n  millctl capture -w edge.pcapng listener edge and tcp-rst\n"
        "  millctl capture -w - --seconds 10 host 10.1.2.3 and port 8080 | tshark -r -\n"
        "  millctl capture -w tls.pcapng --tls-keys --packets 1000 port 443");
    run(sub, [&](const Globals& x) { return run_capture(x, capture); });
    sub = app.add_subcommand("batch", "runs one verb a line over one connection, for scripts that change much");
    sub->add_option("-f,--file", batch.file, "the lines; - is standard input")->capture_default_str();
    sub->add_flag("--keep-going", batch.keep_going, "go on behind a line that failed");
    sub->footer(
        "Words are split as a shell does (quotes, backslash); empty lines and # comments are passed over. With -o json each "
        "line\n"
        "gives one line: {\"line\": 1, \"command\": …, \"exit\": 0, \"result\": …}. The exit code is that of the first line that "
        "failed.\n"
        "Examples:\n  millctl batch -f morning.txt\n  printf 'endpoint drain web 10.1.2.3:80\\nroute weight split "
        "v1=50,v2=50\\n' | millctl batch");
    run(sub, [&](const Globals& x) { return run_batch(x, batch); });
  }

  std::string shell;
  sub = app.add_subcommand("completion", "prints completion for bash or zsh: source <(millctl completion bash)");
  sub->add_option("shell", shell)->required()->check(CLI::IsMember({"bash", "zsh"}));
  sub->footer("Example:\n  echo 'source <(millctl completion bash)' >> ~/.bashrc");
  run(sub, [&](const Globals&) {
    if (shell == "zsh") std::fputs("autoload -U +X bashcompinit && bashcompinit\n", stdout);
    std::fputs(kBash, stdout);
    return static_cast<int>(kDone);
  });

  try {
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 takes them last first
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
    std::fprintf(stderr, "millctl: %s\n", complaint(app, e).c_str());
    return kUsage;
  } catch (const CallFailed& e) {
    return e.code;
  }
  return code;
}

}  // namespace millrace::cli

int main(int argc, char** argv) { return run_words(std::vector<std::string>(argv + 1, argv + argc), Globals{}, false); }
