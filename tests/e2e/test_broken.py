"""Broken configurations as users meet them: each is refused with its place and its reason, by every program that reads
it, and what runs goes on.

A broken Envoy configuration is one replacement in a good file; it is given to `millctl check`, to `millctl apply` of
a running gateway, and to millrace-control at its start. All three must say the same line, field and reason. A broken
machine or `dataplane:` section is given to millrace-dataplane.
"""
import json
import os
import socket
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402

CHECK_REFUSED, CONTROL_CONFIG, MACHINE, DATAPLANE_CONFIG = 1, 3, 4, 3

GOOD = """static_resources:
  listeners:
  - name: web
    address: {socket_address: {address: 0.0.0.0, port_value: 8080}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": HCM
          stat_prefix: web
          route_config:
            name: routes
            virtual_hosts:
            - name: shop
              domains: [shop.test, www.shop.test]
              routes:
              - match: {safe_regex: {regex: '/v[0-9]+/.*'}}
                route: {cluster: web, timeout: 5s}
              - match: {prefix: /both}
                route: {weighted_clusters: {clusters: [{name: web, weight: 90}, {name: canary, weight: 10}]}}
            - name: rest
              domains: ["*"]
              routes:
              - match: {prefix: /old}
                redirect: {path_redirect: /new}
              - match: {prefix: /tea}
                direct_response: {status: 418}
              - match: {prefix: /}
                route: {cluster: web}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": ROUTER}
  - name: tls
    address: {socket_address: {address: 0.0.0.0, port_value: 8443}}
    listener_filters:
    - name: envoy.filters.listener.tls_inspector
      typed_config: {"@type": INSPECTOR}
    filter_chains:
    - name: one
      filter_chain_match: {server_names: [one.test]}
      filters:
      - name: tcp
        typed_config: {"@type": TCP, stat_prefix: one, cluster: web}
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": DOWNSTREAM_TLS
          common_tls_context:
            tls_certificates:
            - certificate_chain: {filename: CRT}
              private_key: {filename: KEY}
    - name: two
      filter_chain_match: {server_names: [two.test]}
      filters:
      - name: tcp
        typed_config: {"@type": TCP, stat_prefix: two, cluster: canary}
  clusters:
  - name: web
    type: STATIC
    connect_timeout: 2s
    lb_policy: ROUND_ROBIN
    load_assignment:
      cluster_name: web
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 10.77.2.10, port_value: 8001}}}
  - name: canary
    type: STATIC
    connect_timeout: 2s
    load_assignment:
      cluster_name: canary
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 10.77.2.11, port_value: 8001}}}
"""
NAMES = {"HCM": L.TYPES["hcm"], "ROUTER": L.TYPES["router"], "INSPECTOR": L.TYPES["tls_inspector"],
         "DOWNSTREAM_TLS": L.TYPES["tls"], "TCP": L.TYPES["tcp_proxy"]}

VHOST = "listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts"
# name, what is replaced in the good file, by what, fragments of the message (field path, reason); the line is where the
# replacement stands, plus `below` lines (None: not asked)
BROKEN = [
    # text that is no YAML, or no configuration
    ("unclosed brace", "{prefix: /old}", "{prefix: /old", ["not well-formed YAML"], 1),
    ("unclosed quote", 'domains: ["*"]', 'domains: ["*]', ["not well-formed YAML"], None),
    ("tab as indentation", "    type: STATIC\n    connect_timeout: 2s\n    lb_policy",
     "    type: STATIC\n\tconnect_timeout: 2s\n    lb_policy", [], 1),
    ("unknown alias", "cluster: canary}", "cluster: *canary}", ["the referenced anchor is not defined"]),
    ("key given twice", "    connect_timeout: 2s\n    lb_policy",
     "    connect_timeout: 2s\n    connect_timeout: 3s\n    lb_policy", ["clusters[0].connect_timeout", "twice"], 1),
    ("list where a mapping belongs", "redirect: {path_redirect: /new}", "redirect: [path_redirect, /new]", [".redirect"]),
    # wrong types and values
    ("text for a number", "status: 418", "status: teapot", [".direct_response.status", "teapot"]),
    ("number out of range", "port_value: 8443", "port_value: 84430", ["listeners[1].address.socket_address.port_value", "84430"]),
    ("negative number", "weight: 90", "weight: -90", [".weighted_clusters.clusters[0].weight", "-90"]),
    ("duration without unit", "timeout: 5s", "timeout: 5", [".route.timeout", "5s"]),
    ("negative duration", "timeout: 5s", "timeout: -5s", [".route.timeout"]),
    ("zero connect timeout", "connect_timeout: 2s\n    lb_policy", "connect_timeout: 0s\n    lb_policy",
     ["clusters[0].connect_timeout"]),
    ("unknown enum value", "ROUND_ROBIN", "FASTEST", ["clusters[0].lb_policy", "FASTEST", "ROUND_ROBIN"]),
    ("status out of range", "status: 418", "status: 99", [".direct_response.status"]),
    ("host name as address", "address: 10.77.2.11", "address: upstream.test",
     ["clusters[1].load_assignment", ".address", "upstream.test"]),
    # fields
    ("misspelt field", "connect_timeout: 2s\n    lb_policy", "connect_timeuot: 2s\n    lb_policy",
     ["clusters[0].connect_timeuot", "connect_timeout"]),
    ("field of Envoy's that is not supported", "redirect: {path_redirect: /new}", "redirect: {regex_rewrite: {}}",
     [".redirect.regex_rewrite", "not supported"]),
    ("unknown top-level key", "static_resources:", "statik_resources: {}\nstatic_resources:", ["statik_resources"]),
    ("unsupported top-level key", "static_resources:", "hds_config: {}\nstatic_resources:", ["hds_config", "not supported"]),
    ("two of a oneof", "{prefix: /tea}", "{prefix: /tea, path: /tea}", [".match"]),
    ("unknown filter type", '{"@type": ROUTER}', '{"@type": type.googleapis.com/envoy.extensions.filters.http.rooter.v3.Rooter}',
     ["http_filters[0].typed_config", "rooter"]),
    ("typed_config without type", '{"@type": INSPECTOR}', "{}", ["listener_filters[0].typed_config", "@type"]),
    ("filter in the wrong place", '{"@type": INSPECTOR}', '{"@type": ROUTER}', ["listener_filters[0]"]),
    # routes
    ("duplicate domain", 'domains: ["*"]', "domains: [www.shop.test]", [VHOST + "[1].domains[0]", "www.shop.test"]),
    ("duplicate virtual host", "name: rest", "name: shop", [VHOST + "[1].name", "shop"]),
    ("no domains", 'domains: ["*"]', "domains: []", [VHOST + "[1].domains"]),
    ("wildcard in the middle", 'domains: ["*"]', 'domains: ["a.*.test"]', [VHOST + "[1].domains[0]", "a.*.test"]),
    ("unknown cluster", "route: {cluster: web}", "route: {cluster: webb}", [VHOST + "[1].routes[2].route.cluster", "webb"]),
    ("unknown weighted cluster", "name: canary, weight", "name: kanary, weight",
     [".weighted_clusters.clusters[1].name", "kanary"]),
    ("weights that sum to nothing", "{name: web, weight: 90}, {name: canary, weight: 10}",
     "{name: web, weight: 0}, {name: canary, weight: 0}", [".weighted_clusters"]),
    ("bad regex", "/v[0-9]+/.*", "/v[0-9+/.*", [".match.safe_regex.regex"]),
    ("look-ahead", "/v[0-9]+/.*", "/v(?=1)[0-9]+/.*", [".match.safe_regex.regex", "(?="]),
    ("back reference", "/v[0-9]+/.*", "/(v)\\1", [".match.safe_regex.regex"]),
    ("route without action", "                redirect: {path_redirect: /new}\n", "", [VHOST + "[1].routes[0]"], None),
    ("two actions", "redirect: {path_redirect: /new}", "redirect: {path_redirect: /new}\n                route: {cluster: web}",
     [VHOST + "[1].routes[0]"], None),
    # listeners
    ("duplicate listener name", "- name: tls\n", "- name: web\n", ["listeners[1].name", "web"]),
    ("duplicate listener address", "port_value: 8443", "port_value: 8080", ["listeners[1].address", "8080"]),
    ("overlapping filter chains", "server_names: [two.test]", "server_names: [one.test]",
     ["listeners[1].filter_chains[1]", "one"]),
    ("half a wildcard", "server_names: [two.test]", 'server_names: ["*two.test"]',
     ["filter_chain_match.server_names", "partial wildcards", "*two.test"]),
    ("no filter chains", None, None, ["listeners[0]", "filter_chains"], None),
    ("no router",
     "          http_filters:\n          - name: envoy.filters.http.router\n            typed_config: {\"@type\": ROUTER}\n", "",
     ["http_filters"], None),
    ("tcp proxy to an unknown cluster", "stat_prefix: two, cluster: canary", "stat_prefix: two, cluster: nobody",
     [".cluster", "nobody"]),
    # clusters
    ("duplicate cluster", "- name: canary\n    type", "- name: web\n    type", ["clusters[1].name", "web"]),
    ("cluster type that is not supported", "type: STATIC\n    connect_timeout: 2s\n    lb_policy",
     "type: ORIGINAL_DST\n    connect_timeout: 2s\n    lb_policy", ["clusters[0].type", "ORIGINAL_DST"]),
    ("same endpoint twice", "        - endpoint: {address: {socket_address: {address: 10.77.2.11, port_value: 8001}}}",
     "        - endpoint: {address: {socket_address: {address: 10.77.2.11, port_value: 8001}}}\n"
     "        - endpoint: {address: {socket_address: {address: 10.77.2.11, port_value: 8001}}}",
     ["lb_endpoints[1]", "10.77.2.11:8001"], 1),
    # certificates
    ("missing certificate", "filename: CRT", "filename: /nowhere/x.crt",
     ["certificate_chain.filename", "/nowhere/x.crt", "No such file"]),
    ("missing key", "filename: KEY", "filename: /nowhere/x.key", ["private_key.filename", "/nowhere/x.key", "No such file"]),
    ("key of another certificate", "filename: KEY", "filename: OTHER_KEY", ["tls_certificates[0]", "key"], None),
    ("certificate that is none", "filename: CRT", "filename: GARBAGE", ["tls_certificates[0]"], None),
    ("certificates swapped", "{filename: CRT}\n              private_key: {filename: KEY}",
     "{filename: KEY}\n              private_key: {filename: CRT}", ["tls_certificates[0]"], None),
]


def fill(lab, text):
    for name, value in {**NAMES, "CRT": lab.dir + "/one.crt", "OTHER_KEY": lab.dir + "/other.key", "KEY": lab.dir + "/one.key",
                        "GARBAGE": lab.dir + "/garbage"}.items():
        for quoted in (f'"{name}"', f'"@type": {name}', f"filename: {name}"):
            head = quoted[:-len(name)] if quoted.endswith(name) else None
            text = text.replace(quoted, head + value) if head else text
    return text


def broken_text(lab, old, new, below=0):
    """The broken file and the line of the mistake (None: any)."""
    if old is None:
        start, end = GOOD.index("    filter_chains:"), GOOD.index("  - name: tls\n")
        return fill(lab, GOOD[:start] + GOOD[end:]), None
    assert GOOD.count(old) >= 1, f"{old!r} is not in the good file"
    at = GOOD.rindex(old) if old.startswith("route: {cluster") else GOOD.index(old)
    text = GOOD[:at] + new + GOOD[at + len(old):]
    return fill(lab, text), None if below is None else text.count("\n", 0, at) + 1 + below


@pytest.fixture(scope="module")
def lab():
    with L.Lab(memory_mb=256) as lab:
        lab.start_nginx("web", 'server { listen 8001; location / { return 200 "good\\n"; } }')
        for name in ("one", "other"):
            lab.make_certificate(name, [name + ".test"])
        lab.write("garbage", "this is no certificate\n")
        lab.write("good.yaml", fill(lab, GOOD))
        lab.path = lab.write("bootstrap.yaml", fill(lab, GOOD) + "dataplane: " + json.dumps(lab.dataplane_section()) + "\n")
        lab.start_dataplane(lab.path)
        lab.start_control(lab.path)
        yield lab
        assert lab.stop_gateway() == 0


def command(*argv, timeout=60, prefix=()):
    p = subprocess.run([*prefix, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout)
    assert p.returncode >= 0, f"ended by signal {-p.returncode}\n{p.stderr}"
    return p


def unchanged(lab, epoch):
    s = lab.status()
    assert s["epoch"] == s["epoch_in_force"] == epoch and s["epoch_rejected"] == "0"
    assert lab.curl("http://10.77.1.1:8080/").stdout == b"good\n"


def test_the_good_file_is_good(lab):
    assert "good" in command(L.program("millctl"), "check", "-f", lab.dir + "/good.yaml").stdout
    assert command(L.program("millrace-control"), "--validate", "--config", lab.path).returncode == 0
    assert command(L.program("millrace-dataplane"), "--check", "--config", lab.path).returncode == 0
    assert "no difference" in lab.millctl("diff", "-f", lab.dir + "/good.yaml")
    unchanged(lab, lab.status()["epoch"])


@pytest.mark.parametrize("case", BROKEN, ids=[c[0] for c in BROKEN])
def test_broken_configuration(lab, case):
    name, old, new, fragments, *rest = case
    text, line = broken_text(lab, old, new, *rest)
    path = lab.write("broken.yaml", text)
    place = path + ":" + (f"{line}:" if line is not None else "")
    epoch = lab.status()["epoch"]
    millctl = [L.program("millctl"), "--run-dir", lab.run_dir]
    for code, argv in ((CHECK_REFUSED, [*millctl, "check", "-f", path]),
                       (CHECK_REFUSED, [*millctl, "apply", "--replace", "-f", path]),
                       (CONTROL_CONFIG,
                        [L.program("millrace-control"), "--config", path, "--run-dir", os.path.join(lab.dir, "other")])):
        p = command(*argv)
        assert p.returncode == code, f"{argv[0]} {argv[-1]}: exit {p.returncode}\n{p.stdout}{p.stderr}"
        about = [x for x in p.stderr.splitlines() if x.startswith(place) and all(f in x for f in fragments)]
        assert about, f"no line {place} … {fragments} in what {argv} says:\n{p.stderr}"
        for x in p.stderr.splitlines():
            assert len(x) < 600
    unchanged(lab, epoch)


def test_every_mistake_of_a_file_at_once(lab):
    text = GOOD
    for name, old, new, *_ in BROKEN:
        if name in ("misspelt field", "text for a number", "host name as address", "half a wildcard", "bad regex"):
            text = text.replace(old, new, 1)
    path = lab.write("broken.yaml", fill(lab, text))
    p = command(L.program("millctl"), "check", "-f", path)
    assert p.returncode == 1 and p.stderr.endswith("5 errors\n"), p.stderr
    lines = [int(x.split(":")[1]) for x in p.stderr.splitlines()[:-1]]
    assert lines == sorted(lines) and len(set(lines)) == 5


# --- the dataplane section and the machine ----------------------------------------------------------------------------
PORT = {"name": "p", "device": "af_packet:ingress", "addresses": ["10.99.0.1/24"]}
# name, change of the section, exit code, fragments
MACHINE_BROKEN = [
    ("no section", None, DATAPLANE_CONFIG, ["no `dataplane:` section"]),
    ("unknown key", {"prots": []}, DATAPLANE_CONFIG, ["dataplane: unknown key 'prots'", "'ports'"]),
    ("unknown limit", {"limits": {"connection": 1, "payload_packets": 8192, "header_packets": 4096}}, DATAPLANE_CONFIG,
     ["dataplane.limits: unknown key 'connection'", "'connections'"]),
    ("no ports", {"ports": []}, DATAPLANE_CONFIG, ["dataplane.ports"]),
    ("cores of the wrong type", {"cores": "all"}, DATAPLANE_CONFIG, ["dataplane.cores"]),
    ("core twice", {"cores": [1, 1]}, DATAPLANE_CONFIG, ["dataplane.cores"]),
    ("main core is a worker", {"cores": [0], "main_core": 0}, DATAPLANE_CONFIG, ["core"]),
    ("bad address", {"ports": [dict(PORT, addresses=["10.99.0.300/24"])]}, DATAPLANE_CONFIG,
     ["dataplane.ports[0].addresses[0]", "10.99.0.300/24"]),
    ("address without prefix", {"ports": [dict(PORT, addresses=["10.99.0.1"])]}, DATAPLANE_CONFIG,
     ["dataplane.ports[0].addresses[0]"]),
    ("gateway off the network", {"ports": [dict(PORT, gateways=["192.0.2.1"])]}, DATAPLANE_CONFIG,
     ["dataplane.ports[0].gateways[0]", "192.0.2.1"]),
    ("mtu too large", {"ports": [dict(PORT, mtu=100000)]}, DATAPLANE_CONFIG, ["dataplane.ports[0].mtu"]),
    ("unknown kind of device", {"ports": [dict(PORT, device="ethernet:eth0")]}, DATAPLANE_CONFIG,
     ["dataplane.ports[0].device", "ethernet:eth0"]),
    ("port twice", {"ports": [PORT, PORT]}, DATAPLANE_CONFIG, ["dataplane.ports[1]"]),
    ("core that no machine has", {"cores": [4000]}, DATAPLANE_CONFIG, ["dataplane.cores[0]", "4000"]),
    ("core out of range", {"cores": [1000]}, MACHINE, ["core 1000", "out of range"]),
    ("no hugepages", {"memory_mb": 1 << 20}, MACHINE, ["no hugepages", "vm.nr_hugepages"]),
    ("port device absent", {"ports": [dict(PORT, device="af_packet:nosuch0")]}, MACHINE,
     ["port p", "nosuch0", "no network interface"]),
    ("xdp port device absent", {"ports": [dict(PORT, device="af_xdp:nosuch0")]}, MACHINE,
     ["port p", "nosuch0", "no network interface"]),
    ("pci device absent", {"ports": [dict(PORT, device="0000:ff:1f.7")]}, MACHINE, ["0000:ff:1f.7"]),
    ("memory too small for the pools", {"memory_mb": 64}, (DATAPLANE_CONFIG, MACHINE), ["memory"]),
]


@pytest.mark.parametrize("case", MACHINE_BROKEN, ids=[c[0] for c in MACHINE_BROKEN])
def test_broken_machine(lab, case):
    name, change, code, fragments = case
    section = {"cores": [lab.worker_core], "main_core": lab.main_core, "hugepages": True, "memory_mb": 128, "ports": [PORT],
               "limits": {"payload_packets": 8192, "header_packets": 4096, "connections": 1024}}
    section.update(change or {})
    if name == "memory too small for the pools":
        del section["limits"]
    text = fill(lab,
                GOOD) + ("" if change is None else "dataplane:\n" + "".join(f"  {k}: {json.dumps(v)}\n" for k,
                                                            v in section.items()))
    path = lab.write("machine.yaml", text)
    epoch = lab.status()["epoch"]
    p = command(L.program("millrace-dataplane"), "--config", path, "--run-dir", os.path.join(lab.dir, "other"), "--file-prefix",
                lab.name + "broken",
                prefix=lab.gateway.argv([]))
    assert p.returncode in (code if isinstance(code, tuple) else (code,)), f"exit {p.returncode}\n{p.stderr}"
    about = [x for x in p.stderr.splitlines() if all(f in x for f in fragments)]
    assert about, p.stderr
    if p.returncode == DATAPLANE_CONFIG and change is not None:
        assert about[0].startswith(path + ":"), "no place: " + about[0]
        if name != "memory too small for the pools":  # that one control cannot know
            c = command(L.program("millrace-control"), "--config", path, "--run-dir", os.path.join(lab.dir, "other"))
            assert c.returncode == CONTROL_CONFIG and any(all(f in x for f in fragments) for x in c.stderr.splitlines()), c.stderr
    else:
        assert about[0].startswith("millrace-dataplane: ")
    unchanged(lab, epoch)


def test_configuration_file_absent(lab):
    for program in ("millrace-control", "millrace-dataplane"):
        p = command(L.program(program), "--config", "/nowhere/x.yaml", "--run-dir", os.path.join(lab.dir, "other"))
        assert p.returncode == 3 and "/nowhere/x.yaml" in p.stderr and "No such file" in p.stderr, p.stderr


@pytest.mark.parametrize("program", ["millrace-control", "millrace-dataplane"])
def test_bad_run_dir(lab, program):
    """A path below a file, one that nobody made, one too long for a socket."""
    for run_dir, fragment in ((lab.path + "/run", "Not a directory"), (lab.dir + "/no/such/place", "No such file"),
                              (os.path.join(lab.dir, "x" * 110), "path")):
        p = command(L.program(program), "--config", lab.path, "--run-dir", run_dir, prefix=lab.gateway.argv([]))
        assert p.returncode == MACHINE and fragment in p.stderr and run_dir in p.stderr, (p.returncode, p.stderr)
        if len(run_dir) < 107:
            assert "--run-dir" in p.stderr
        else:
            os.rmdir(run_dir) if os.path.isdir(run_dir) and not os.listdir(run_dir) else None


@pytest.mark.parametrize("program,sock", [("millrace-control", "control.sock"), ("millrace-dataplane", "dataplane.sock")])
def test_run_dir_of_another(lab, program, sock):
    epoch = lab.status()["epoch"]
    small = lab.write("small.yaml", fill(lab, GOOD) + "dataplane: " + json.dumps(
        {"cores": [lab.worker_core], "main_core": lab.main_core, "memory_mb": 128, "ports": [PORT],
         "limits": {"payload_packets": 8192, "header_packets": 4096, "connections": 1024}}) + "\n")
    p = command(L.program(program), "--config", small, "--run-dir", lab.run_dir,
                "--file-prefix" if program == "millrace-dataplane" else "--store",
                lab.name + "x" if program == "millrace-dataplane" else lab.dir + "/other.db", prefix=lab.gateway.argv([]))
    assert p.returncode == MACHINE and os.path.join(lab.run_dir, sock) in p.stderr and "another" in p.stderr, (p.returncode,
                                                            p.stderr)
    unchanged(lab, epoch)


def test_store_that_is_none(lab):
    lab.write("not.db", "this is no database, but it is long enough to be taken for one by a reader who does not look " * 20)
    p = command(L.program("millrace-control"), "--config", lab.path, "--run-dir", os.path.join(lab.dir, "other"), "--store",
                lab.dir + "/not.db")
    assert p.returncode == MACHINE and "not.db" in p.stderr and "move it away" in p.stderr, p.stderr


def test_xdp_device_in_use(lab):
    """Two data planes want the same queue of the same interface."""
    lab.gateway.ip("link", "add", "spare", "type", "veth", "peer", "name", "spare_peer")
    for i in ("spare", "spare_peer"):
        lab.gateway.ip("link", "set", i, "up")
    section = {"cores": [lab.worker_core], "main_core": lab.main_core, "hugepages": False, "memory_mb": 128,
               "ports": [dict(PORT, device="af_xdp:spare")],
               "limits": {"payload_packets": 8192, "header_packets": 4096, "connections": 1024}}
    path = lab.write("spare.yaml", "dataplane: " + json.dumps(section) + "\n")
    argv = [L.program("millrace-dataplane"), "--config", path, "--run-dir"]
    first = lab.start("spare", [*argv, os.path.join(lab.dir, "first")], lab.gateway)
    try:
        first.wait_log("waiting for tables")
        p = command(*argv, os.path.join(lab.dir, "second"), prefix=lab.gateway.argv([]))
        assert p.returncode == MACHINE and "port p" in p.stderr and "spare" in p.stderr and "busy" in p.stderr.lower(), p.stderr
        assert first.alive()
    finally:
        first.stop()  # what an af_xdp port gives back is the subject of test_ports.py
    with socket.socket(socket.AF_UNIX) as s:  # and nothing answers where it was
        assert s.connect_ex(os.path.join(lab.dir, "first", "dataplane.sock")) != 0
