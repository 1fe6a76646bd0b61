"""A stand-in of TRex's ASTF API for tests: it has what perf/trex uses, with TRex's parameters and its checks of types, and records what is asked for."""


class ASTFError(Exception):
    pass


def _check(name, value, *types):
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ASTFError(f"{name}: {value!r} is none of {[t.__name__ for t in types]}")


class ASTFProgram:
    MIN_DELAY, MAX_DELAY = 50, 700000

    def __init__(self, file=None, side="c", commands=None, stream=True, s_delay=None, udp_mtu=None):
        self.commands, self.labels, self.variables, self.bytes_awaited = [], {}, set(), 0

    def send(self, buf, size=0, fill=None):
        _check("send buf", buf, bytes, str)
        _check("send size", size, int)
        if isinstance(buf, str):
            buf = buf.encode("ascii")
        if fill is not None:
            _check("send fill", fill, bytes, str)
        self.commands.append(("send", buf, max(size, len(buf))))

    def recv(self, bytes, clear=False):
        _check("recv bytes", bytes, int)
        _check("recv clear", clear, int, bool)
        self.bytes_awaited += bytes
        self.commands.append(("recv", self.bytes_awaited, bool(clear)))
        if clear:
            self.bytes_awaited = 0

    def delay(self, usec):
        _check("delay", usec, int)
        if not self.MIN_DELAY <= usec <= self.MAX_DELAY:
            raise ASTFError("delay out of range")
        self.commands.append(("delay", usec))

    def set_var(self, var_id, val):
        _check("set_var", var_id, str)
        _check("set_var", val, int)
        self.variables.add(var_id)
        if len(self.variables) > 2:
            raise ASTFError("a flow has two variables")
        self.commands.append(("set", var_id, val))

    def set_label(self, label):
        if label in self.labels:
            raise ASTFError(f"label {label} is there already")
        self.labels[label] = len(self.commands)

    def jmp_nz(self, var_id, label):
        if var_id not in self.variables or label not in self.labels:
            raise ASTFError(f"jmp_nz {var_id} {label}: not known")
        self.commands.append(("jump", var_id, self.labels[label]))


class ASTFIPGenGlobal:
    def __init__(self, ip_offset="1.0.0.0", ip_offset_server=None):
        _check("ip_offset", ip_offset, str)
        self.ip_offset = ip_offset


class ASTFIPGenDist:
    def __init__(self, ip_range, distribution="seq", per_core_distribution=None):
        _check("ip_range", ip_range, list)
        low, high = (tuple(map(int, a.split("."))) for a in ip_range)
        if len(low) != 4 or len(high) != 4 or low > high or max(low + high) > 255:
            raise ASTFError(f"ip_range {ip_range}")
        if distribution not in ("seq", "rand"):
            raise ASTFError("distribution")
        self.ip_range = ip_range


class ASTFIPGen:
    def __init__(self, dist_client, dist_server, glob=ASTFIPGenGlobal()):
        _check("dist_client", dist_client, ASTFIPGenDist)
        _check("dist_server", dist_server, ASTFIPGenDist)
        self.dist_client, self.dist_server, self.glob = dist_client, dist_server, glob


class _Fields:
    def __init__(self, names):
        object.__setattr__(self, "names", names)

    def __setattr__(self, name, value):
        if name not in self.names:
            raise AttributeError(name)
        _check(name, value, int)
        object.__setattr__(self, name, value)


class ASTFGlobalInfo:
    def __init__(self):
        self.tcp = _Fields({"mss", "initwnd", "rxbufsize", "txbufsize", "rexmtthresh", "do_rfc1323", "keepinit", "keepidle", "keepintvl", "blackhole",
                            "delay_ack_msec", "no_delay", "no_delay_counter", "do_sack", "do_ecn", "cc_algo", "reass_maxqlen"})


class ASTFAssociationRule:
    def __init__(self, port=80, ip_start=None, ip_end=None, l7_map=None, assoc_id=None):
        _check("assoc port", port, int)
        self.port = port


class ASTFTCPClientTemplate:
    def __init__(self, ip_gen, cluster=None, program=None, port=80, cps=1, glob_info=None, limit=None, cont=None, core_base=None):
        _check("ip_gen", ip_gen, ASTFIPGen)
        _check("program", program, ASTFProgram)
        for name, value, types in (("limit", limit, (int,)), ("cont", cont, (bool,)), ("glob_info", glob_info, ())):
            if value is not None:
                _check(name, value, *types)
        self.program, self.ip_gen, self.port, self.cps, self.limit, self.cont = program, ip_gen, port, cps, limit, cont


class ASTFTCPServerTemplate:
    def __init__(self, program=None, assoc=None, glob_info=None):
        _check("program", program, ASTFProgram)
        _check("assoc", assoc, ASTFAssociationRule)
        self.program, self.assoc = program, assoc


class ASTFTemplate:
    def __init__(self, client_template=None, server_template=None, tg_name=None):
        _check("client_template", client_template, ASTFTCPClientTemplate)
        _check("server_template", server_template, ASTFTCPServerTemplate)
        self.client, self.server = client_template, server_template


class ASTFProfile:
    def __init__(self, default_ip_gen, default_c_glob_info=None, default_s_glob_info=None, templates=None, cap_list=None, s_delay=None, udp_mtu=None):
        _check("default_ip_gen", default_ip_gen, ASTFIPGen)
        self.templates = templates if isinstance(templates, list) else [templates]
        ports = [t.server.assoc.port for t in self.templates]
        if len(set(ports)) != len(ports):
            raise ASTFError("Two server template with the same port")
