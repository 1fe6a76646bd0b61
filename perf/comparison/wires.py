"""The two wires. On both the generator is the only neighbour of the device under test: a router at 10.63.0.1, behind it every client (10.64.0.0/16)
and every server (10.65.0.0/16). The device under test is 10.63.0.2.

    vhost   generator net_vhost ══ shared memory ══ net_virtio_user Millrace             stands in for a NIC
    veth    generator net_af_xdp ── wire ══ wire ── kernel (nginx, HAProxy, Envoy)       the kernel's own wire
                                                 └─ net_af_xdp Millrace

Where the kernel's work for the veth wire is done, and why not elsewhere: perf/README.md.
"""
import os

from .bench import LabError, run

ROUTER, DUT, BITS = "10.63.0.1", "10.63.0.2", 24
CLIENTS, SERVERS = "10.64.0.0/16", "10.65.0.0/16"
ROUTER_MAC, DUT_MAC = "02:6d:72:00:00:01", "02:6d:72:00:00:02"
PROBE, PROBER = "10.62.0.2", "10.62.0.1"  # the device under test and a kernel client on the second, slow wire (route changes)

# Of the kernel that serves as a gateway: queues as long as they may be, ports as many as there are, no slow start on kept connections.
GATEWAY_SYSCTLS = {
    "net.core.somaxconn": "65535",
    "net.ipv4.tcp_max_syn_backlog": "262144",
    "net.ipv4.ip_local_port_range": "1024 65535",
    "net.ipv4.tcp_tw_reuse": "1",
    "net.ipv4.tcp_max_tw_buckets": "2000000",
    "net.ipv4.tcp_slow_start_after_idle": "0",
    "net.ipv4.tcp_fin_timeout": "10",
    "net.ipv4.tcp_rmem": "4096 131072 16777216",
    "net.ipv4.tcp_wmem": "4096 131072 16777216",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
}


class Wire:
    """A wire with its device under test's namespace. Programs of the device under test run in `dut`, the generator in `generator`."""

    name = ""
    generator_first = False  # the generator's end must be there before the device under test starts

    def __init__(self, bench):
        self.bench = bench
        self.dut = bench.namespace("d")
        self.generator = None
        self.prober = None

    def sysctl(self, namespace, settings):
        for key, value in settings.items():
            namespace.run(["sysctl", "-qw", f"{key}={value}"])

    def steer(self, namespace, interface, core):
        """Received packets of the interface are worked on by `core`, whichever core they came from."""
        if self.bench.steering == "none":
            return
        mask = format(1 << core, "x")
        namespace.run(["sh", "-c", f"for q in /sys/class/net/{interface}/queues/rx-*; do echo {mask} > $q/rps_cpus; done"])

    def pair(self, near, near_if, far, far_if, near_mac=None, far_mac=None):
        near.ip("link", "add", near_if, *(["address", near_mac] if near_mac else []), "type", "veth",
                "peer", "name", far_if, *(["address", far_mac] if far_mac else []), "netns", far.name)
        for ns, interface in ((near, near_if), (far, far_if)):
            ns.run(["sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6=1"], check=False)
            # Frames on this wire are what a NIC would put on a cable: not larger than the MTU, checksums done.
            ns.run(["ethtool", "-K", interface, "tx", "off", "tso", "off"])
            ns.ip("link", "set", interface, "txqueuelen", "10000")

    def add_probe(self, kernel):
        """The second wire: a kernel client beside the generator. `kernel`: the device under test's end is the kernel's (else a DPDK port's)."""
        self.prober = self.bench.namespace("p")
        self.pair(self.dut, "probe", self.prober, "probe")
        self.prober.ip("addr", "add", f"{PROBER}/24", "dev", "probe")
        if kernel:
            self.dut.ip("addr", "add", f"{PROBE}/24", "dev", "probe")
        else:  # a DPDK port takes no large frames
            self.prober.run(["ethtool", "-K", "probe", "gso", "off", "gro", "off"])
        for ns, core in ((self.dut, self.bench.dut_core), (self.prober, self.bench.generator_core)):
            ns.ip("link", "set", "probe", "up")
            self.steer(ns, "probe", core)

    def generator_argv(self):
        """Device and addresses of the generator in its own place."""
        raise NotImplementedError

    def stand_in_argv(self):
        """The same for a generator in the place of the device under test (baselines and the raw limit)."""
        raise NotImplementedError

    def millrace_port(self):
        """The port of Millrace's `dataplane:` section."""
        raise NotImplementedError

    def close(self):
        for n in (self.dut, self.generator, self.prober):
            if n is not None:
                self.bench.drop_namespace(n)


def addresses(router, dut):
    return ["--router", f"{router}/{BITS}", "--dut", dut]


class VethWire(Wire):
    name = "veth"

    def __init__(self, bench, kernel_gateway, kernel_load=False):
        """`kernel_load`: the generator's end is the kernel's too, with all offloads."""
        super().__init__(bench)
        self.driver = bench.veth_driver
        self.kernel_gateway = kernel_gateway
        self.generator = bench.namespace("g")
        self.pair(self.dut, "wire", self.generator, "wire", DUT_MAC, ROUTER_MAC)
        if kernel_gateway:
            self.sysctl(self.dut, GATEWAY_SYSCTLS)
            self.dut.ip("addr", "add", f"{DUT}/{BITS}", "dev", "wire")
        for ns, core in ((self.dut, bench.dut_core), (self.generator, bench.generator_core)):
            if kernel_load:
                ns.run(["ethtool", "-K", "wire", "tx", "on", "tso", "on", "gso", "on", "gro", "on"])
            elif ns is self.generator or not kernel_gateway:
                # Behind a DPDK port the kernel has nothing to do: no gathering of segments, and what the port has copied goes no further.
                ns.run(["ethtool", "-K", "wire", "gso", "off", "gro", "off"])
                ns.ip("link", "set", "wire", "arp", "off")
                ns.run(["sh", "-c", "tc qdisc add dev wire clsact && tc filter add dev wire ingress matchall action drop"], check=False)
            ns.ip("link", "set", "wire", "up")
            self.steer(ns, "wire", core)
        if kernel_load:
            self.sysctl(self.generator, GATEWAY_SYSCTLS)
            self.generator.ip("addr", "add", f"{ROUTER}/{BITS}", "dev", "wire")
            for i in range(1, 5):
                self.generator.ip("addr", "add", f"10.65.0.{i}/32", "dev", "lo")
        if kernel_gateway:
            for net in (CLIENTS, SERVERS):
                self.dut.ip("route", "add", net, "via", ROUTER)
            self.dut.ip("neigh", "replace", ROUTER, "lladdr", ROUTER_MAC, "dev", "wire", "nud", "permanent")

    def device(self):
        if self.driver == "af_xdp":
            return "net_af_xdp0,iface=wire,start_queue=0,queue_count=1,busy_budget=0"
        return "net_af_packet0,iface=wire,blocksz=4096,framesz=2048,framecnt=8192,qpairs=1,qdisc_bypass=1"

    def generator_argv(self):
        return ["--device", self.device(), *addresses(ROUTER, DUT)]

    def stand_in_argv(self):
        return ["--device", self.device(), *addresses(DUT, ROUTER)]

    def millrace_port(self):
        return {"device": f"{self.driver}:wire" + (",framecnt=8192" if self.driver == "af_packet" else "")}


class VhostWire(Wire):
    name = "vhost"
    generator_first = True

    def __init__(self, bench):
        super().__init__(bench)
        self.socket = os.path.join(bench.folder("wire"), "s")
        if len(self.socket) > 100:
            raise LabError(f"{self.socket} is too long for a socket's name")

    def before_generator(self):
        if os.path.exists(self.socket):
            os.unlink(self.socket)

    def generator_argv(self):
        return ["--device", f"net_vhost0,iface={self.socket},queues=1,tso=1", *addresses(ROUTER, DUT)]

    def stand_in_argv(self):
        return ["--device", f"net_virtio_user0,path={self.socket},queues=1,queue_size=1024,mac={DUT_MAC}", *addresses(DUT, ROUTER)]

    def millrace_port(self):
        return {"device": f"virtio_user:{self.socket},mac={DUT_MAC}"}


def kernel_checks():
    """Why veth wires cannot be had on this machine, or None."""
    p = run(["ip", "link", "help"], check=False)
    if b"veth" not in p.stderr + p.stdout:
        return "iproute2 knows no veth"
    return None
