"""A bond of ports (net_bonding, active-backup) towards the clients: two members on a switch, requests all the time, and members that lose their link. No request
may fail, whatever it costs in time.

    client namespace                       gateway namespace
    br0 10.77.1.2 ── s0 ═══════════════════ m0 ─┐
              └───── s1 ═══════════════════ m1 ─┴ bond ─ Millrace
"""
import json
import os
import threading
import time

import pytest

import conftest  # noqa: F401 - puts tests/support on the path
import lab
from conftest import until

MEMBERS = 2


class BondLab(lab.Lab):
    """The usual lab, its ingress a bond: of veth by af_packet, or of TAPs, each joined to a veth by redirection."""

    def __init__(self, driver):
        self.driver = driver
        super().__init__(upstreams=1)

    def _pair(self, peer, peer_if, gateway_if, v4, v6):
        if gateway_if != "ingress":
            return super()._pair(peer, peer_if, gateway_if, v4, v6)
        peer.ip("link", "add", "br0", "type", "bridge", "forward_delay", "0", "stp_state", "0")
        for i in range(MEMBERS):
            peer.ip("link", "add", f"s{i}", "type", "veth", "peer", "name", f"m{i}", "netns", self.gateway.name)
            self.gateway.run(["sysctl", "-qw", f"net.ipv6.conf.m{i}.disable_ipv6=1"])
            for ns, interface in ((peer, f"s{i}"), (self.gateway, f"m{i}")):
                ns.run(["ethtool", "-K", interface, "tx", "off", "rx", "off", "gso", "off", "tso", "off", "gro", "off"], check=False)
                ns.ip("link", "set", interface, "up")
            peer.ip("link", "set", f"s{i}", "master", "br0")
        peer.ip("link", "set", "br0", "up")
        peer.run(["ethtool", "-K", "br0", "tx", "off", "gso", "off", "tso", "off", "gro", "off"], check=False)
        for a in v4:
            peer.ip("addr", "add", a, "dev", "br0")
        for a in v6:
            peer.ip("addr", "add", a, "dev", "br0", "nodad")

    def dataplane_section(self, **overrides):
        section = super().dataplane_section(**overrides)
        members = [f"af_packet:m{i}" if self.driver == "af_packet" else f"tap:t{i}" for i in range(MEMBERS)]
        del section["ports"][0]["device"]
        section["ports"][0]["bond"] = {"mode": "active-backup", "members": members}
        return section

    def start_dataplane(self, *args, **kwargs):
        p = super().start_dataplane(*args, **kwargs)
        if self.driver == "tap":  # each TAP is the cable's end: what comes out of one goes into the other
            for i in range(MEMBERS):
                for a, b in ((f"t{i}", f"m{i}"), (f"m{i}", f"t{i}")):
                    self.gateway.run(["sysctl", "-qw", f"net.ipv6.conf.{a}.disable_ipv6=1"])
                    self.gateway.run(["tc", "qdisc", "add", "dev", a, "clsact"])
                    self.gateway.run(["tc", "filter", "add", "dev", a, "ingress", "protocol", "all", "u32", "match", "u8", "0", "0",
                                      "action", "mirred", "egress", "redirect", "dev", b])
        return p

    def cut(self, member):
        """The member loses its link: a cable is pulled out at the switch, or the TAP's interface goes down."""
        if self.driver == "tap":
            self.gateway.ip("link", "set", f"t{member}", "down")
        else:
            self.client.ip("link", "set", f"s{member}", "down")

    def mend(self, member):
        if self.driver == "tap":
            self.gateway.ip("link", "set", f"t{member}", "up")
        else:
            self.client.ip("link", "set", f"s{member}", "up")

    def sent_by(self, member):
        """Frames that the switch has had from this member."""
        links = json.loads(self.client.run(["ip", "-j", "-s", "link", "show", f"s{member}"]).stdout)
        return links[0]["stats64"]["rx"]["packets"]

    def moves(self):
        return self.dataplane.log().count("traffic goes over")


class Asking:
    """Requests one after the other on several connections, until stop(); every answer is looked at."""

    def __init__(self, laboratory, clients=4):
        self.lab, self.going, self.answers, self.failures = laboratory, True, 0, []
        self.threads = [threading.Thread(target=self._one, args=(i,)) for i in range(clients)]
        for t in self.threads:
            t.start()

    def _one(self, i):
        gateway, k = conftest.Gateway(self.lab), 0
        while self.going:
            try:
                with gateway.connect(timeout=30) as c:
                    for _ in range(20):
                        r = c.request(f"/{i}/{k}").response()
                        k += 1
                        if r is None or r.status != 200 or r.body != b"ok\n":
                            self.failures.append((i, k, None if r is None else (r.status, r.body)))
                            return
                        self.answers += 1
                        time.sleep(0.005)
            except OSError as e:
                self.failures.append((i, k, repr(e)))
                return

    def stop(self):
        self.going = False
        for t in self.threads:
            t.join()


def answered_more(asking, n=100):
    had = asking.answers
    until(lambda: asking.failures or asking.answers >= had + n, 30, f"{n} more answers")
    assert not asking.failures, asking.failures


@pytest.mark.parametrize("driver", ["af_packet", "tap"])
def test_members_fail_and_requests_do_not(driver):
    with BondLab(driver) as l:
        l.start_nginx("web", f'server {{ listen {l.upstream4(0)}:8000; location / {{ return 200 "ok\\n"; }} }}')
        http = lab.hcm([{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "web"}}]}])
        l.start_gateway(lab.bootstrap([lab.listener("http", 80, http)], [lab.cluster("web", [(l.upstream4(0), 8000)])]))
        assert "net_bonding" in l.dataplane.log()
        asking = Asking(l)
        try:
            answered_more(asking)
            before = [l.sent_by(i) for i in range(MEMBERS)]
            answered_more(asking)
            assert [l.sent_by(i) - b > 10 for i, b in enumerate(before)] == [True, False]
            for moves, member in enumerate((0, 1, 0), 1):
                l.cut(member)
                until(lambda: l.moves() == moves, 10, "traffic on the other member")
                before = l.sent_by(1 - member)
                answered_more(asking)
                assert l.sent_by(1 - member) > before
                l.mend(member)
                answered_more(asking)
            assert l.moves() == 3, "it stays where it works"
        finally:
            asking.stop()
        print(l.dataplane.log()[-1500:])
        print(l.millctl("drops"))
        assert not asking.failures, asking.failures
        assert asking.answers > 500
        assert l.stop_gateway() == 0, l.dataplane.log()


def test_what_cannot_be_a_member_is_refused():
    with BondLab("af_packet") as l:
        for members, why in ((["memif:" + os.path.join(l.dir, "a.sock")], "cannot be a member of a bond"),
                             (["af_packet:m0", "af_packet:nobody"], "there is no network interface 'nobody'")):
            section = l.dataplane_section()
            section["ports"][0]["bond"]["members"] = members
            p = l.start_dataplane(l.write("bad.json", {"dataplane": section}), name="refused", wait=False)
            p.popen.wait(60)
            assert p.popen.returncode in (3, 4) and why in p.log(), p.log()
