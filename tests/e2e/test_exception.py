"""The exception interface: a routing daemon on the gateway's host announces a service address of the gateway to a router in another
namespace, which then reaches the gateway's listener there.

    client namespace: bird, AS 65002               gateway namespace: bird, AS 65001
      10.77.1.2  fd77:1::2  ◀──BGP over c0, ingress, mr-ingress──▶  10.77.1.3, fd77:1::3  of the host's own ("separate")
                                                                    10.77.1.1             that it shares with the gateway ("shared")
      curl ─▶ 192.0.2.10, 2001:db8:10::1, next hop the host's address: its MAC is the port's, so the frames are the gateway's
"""
import re
import subprocess

import pytest

import lab as laboratory
from conftest import until
from lab import bootstrap, hcm, listener

SERVICE4, SERVICE6 = "192.0.2.10", "2001:db8:10::1"
HOST4, HOST6 = "10.77.1.3", "fd77:1::3"
ROUTER4 = "10.77.1.4"  # a second address of the router: bird has one session with a neighbour's address


def bird(lab, name, namespace, config):
    path = lab.write(name + ".conf", config)
    control = f"{lab.dir}/{name}.ctl"
    process = lab.start(name, ["bird", "-f", "-c", path, "-s", control, "-P", f"{lab.dir}/{name}.pid"], namespace)

    def ask(*command):
        return subprocess.run(["birdc", "-s", control, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20).stdout.decode()
    process.ask = ask
    return process


TIMERS = "connect delay time 1; connect retry time 1; error wait time 1, 2; hold time 9;"


def bgp(name, local, local_as, neighbor, neighbor_as, export):
    channel = "ipv6" if ":" in local else "ipv4"
    return f"""
protocol bgp {name} {{
  local {local} as {local_as}; neighbor {neighbor} as {neighbor_as}; {TIMERS}
  {channel} {{ import all; export {export}; next hop self; }};
}}"""


@pytest.fixture(scope="module")
def exposed():
    # af_xdp takes the frames away from the kernel; with af_packet the host would also get them on the veth itself.
    lab = laboratory.Lab(device="af_xdp")
    try:
        answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "the gateway\n"}}}
        chain = lambda name: hcm([{"name": "v", "domains": ["*"], "routes": [answer]}], route_name=name, stat_prefix=name)
        config = bootstrap([listener("v4", 80, chain("v4")), listener("v6", 80, chain("v6"), address="::")], [])
        section = lab.dataplane_section(exception={"enable": True, "name": "mr-", "rate": 2000, "to_host": ["tcp:179", "udp:3784-3785"]})
        section["ports"][0]["dad"] = 1  # the service address too is asked for before it is used
        section["ports"][0]["addresses"] += [SERVICE4 + "/32", SERVICE6 + "/128"]
        lab.start_gateway(dict(config, dataplane=section))
        host = lab.gateway
        lab.client.ip("addr", "add", ROUTER4 + "/24", "dev", "c0")
        host.ip("addr", "add", HOST4 + "/24", "dev", "mr-ingress")
        host.ip("addr", "add", HOST6 + "/64", "dev", "mr-ingress", "nodad")
        host.ip("addr", "add", lab.INGRESS4 + "/24", "dev", "mr-ingress", "noprefixroute")
        lab.host_bird = bird(lab, "bird-host", host, f"""
router id {HOST4};
protocol device {{ scan time 1; }}
protocol static {{ ipv4; route {SERVICE4}/32 blackhole; }}
protocol static {{ ipv6; route {SERVICE6}/128 blackhole; }}
""" + bgp("separate4", HOST4, 65001, lab.CLIENT4, 65002, "all") + bgp("separate6", HOST6, 65001, lab.CLIENT6, 65002, "all")
                             + bgp("shared4", lab.INGRESS4, 65001, ROUTER4, 65002, "none"))
        lab.router_bird = bird(lab, "bird-router", lab.client, f"""
router id {lab.CLIENT4};
protocol device {{ scan time 1; }}
protocol kernel {{ ipv4 {{ import none; export all; }}; }}
protocol kernel {{ ipv6 {{ import none; export all; }}; }}
""" + bgp("separate4", lab.CLIENT4, 65002, HOST4, 65001, "none") + bgp("separate6", lab.CLIENT6, 65002, HOST6, 65001, "none")
                               + bgp("shared4", ROUTER4, 65002, lab.INGRESS4, 65001, "none"))
        yield lab
        assert lab.stop_gateway() == 0, lab.dataplane.log()[-2000:]
    finally:
        lab.close()


def established(process, name):
    return re.search(rf"^{name}\s.*Established", process.ask("show", "protocols"), re.M)


@pytest.mark.parametrize("session", ["separate4", "separate6", "shared4"])
def test_bgp_over_the_exception_interface(exposed, session):
    until(lambda: established(exposed.host_bird, session) and established(exposed.router_bird, session), 40, f"BGP session {session}")


def test_the_announced_address_reaches_the_listener(exposed):
    for family, address, url in (("-4", SERVICE4, f"http://{SERVICE4}/"), ("-6", SERVICE6, f"http://[{SERVICE6}]/")):
        route = until(lambda: exposed.client.run(["ip", family, "route", "show", address]).stdout.decode(), 40, f"a route to {address}")
        assert "proto bird" in route and "via" in route, route
        assert exposed.curl("-g", url).stdout == b"the gateway\n"


def test_ping_of_both_owners(exposed):
    for address in (HOST4, HOST6, exposed.INGRESS4, exposed.INGRESS6):
        p = exposed.client.run(["ping", "-n", "-q", "-c", "3", "-i", "0.05", "-W", "5", address], check=False)
        assert b"3 received" in p.stdout, (address, p.stdout)
    # The host's own ping: its replies come to the port's MAC, and go up to it.
    for address in (exposed.CLIENT4, exposed.CLIENT6):
        p = exposed.gateway.run(["ping", "-n", "-q", "-c", "3", "-i", "0.05", "-W", "5", address], check=False)
        assert b"3 received" in p.stdout, (address, p.stdout)


def test_rules_divide_the_shared_address(exposed):
    # No rule for port 22: the gateway refuses. A rule for 179: the host answers, whose daemon listens there. HTTP is the gateway's.
    with pytest.raises(ConnectionRefusedError):
        exposed.connect(22)
    exposed.connect(179).close()
    assert exposed.curl(f"http://{exposed.INGRESS4}/").stdout == b"the gateway\n"


def test_a_flood_to_the_host_is_limited_and_harms_nobody(exposed):
    import json
    import socket
    s = exposed.client.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(20000):
        s.sendto(b"x" * 32, (HOST4, 9))
    s.close()
    drops = lambda: {d["name"]: int(d["count"]) for d in json.loads(exposed.millctl("drops", "-o", "json"))["drops"]}
    until(lambda: drops().get("to_host_rate_limited", 0) > 5000, 20, "frames beyond the rate dropped")
    assert exposed.curl(f"http://{SERVICE4}/").stdout == b"the gateway\n"
    until(lambda: established(exposed.host_bird, "separate4"), 40, "the session stays or comes back")


def test_withdrawn_with_the_daemon(exposed):
    exposed.host_bird.stop()
    until(lambda: not exposed.client.run(["ip", "-4", "route", "show", SERVICE4]).stdout, 20, "the route withdrawn")
