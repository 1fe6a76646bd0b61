"""Tables of routes, the same for all systems, each in its own words. 1,000 routes a virtual host: a table of 100,000 has 100 hosts, as a gateway's has.

    literal  /svc-00017/              a prefix
    regex    /svc-00017/v[0-9]+/users/[^/]+/orders/[0-9]{1,12}
"""
import dataclasses

ROUTES_PER_HOST = 1000
CHANGE_HOST = "h0.bench"  # whose table route changes edit


@dataclasses.dataclass(frozen=True)
class RouteTable:
    count: int
    kind: str = "literal"  # or "regex"

    def hosts(self):
        """[(host, [pattern, …])]: all hosts with their routes, in order."""
        out = []
        for first in range(0, self.count, ROUTES_PER_HOST):
            n = min(ROUTES_PER_HOST, self.count - first)
            out.append((f"h{first // ROUTES_PER_HOST}.bench", [self.pattern(first + i) for i in range(n)]))
        return out

    def pattern(self, i):
        return f"/svc-{i:05d}/" if self.kind == "literal" else f"/svc-{i:05d}/v[0-9]+/users/[^/]+/orders/[0-9]{{1,12}}"

    def example(self, i):
        """A path that the i-th route, and no other, matches."""
        return f"/svc-{i:05d}/v1/users/alice/orders/1234567"

    def target_lines(self, most=20_000):
        """Lines `host path` for the generator, evenly over the whole table, in an order that no cache likes."""
        step = max(1, self.count // most)
        indices = range(0, self.count, step)
        stride = 7919  # a prime: neighbours in the table are not neighbours in the list
        n = len(indices)
        while n % stride == 0:
            stride += 2
        picked = (indices[i * stride % n] for i in range(n))
        return [f"h{i // ROUTES_PER_HOST}.bench {self.example(i)}" for i in picked]


def change_path(k):
    """The prefix that the k-th route change adds."""
    return f"/change-{k}/"


# --- Envoy's vocabulary (Millrace, Envoy) ----------------------------------------------------------------------------------------------------
def _route(match, cluster="web"):
    return {"match": match, "route": {"cluster": cluster, "timeout": "0s"}}


def mesh_route_config(table, changes=()):
    """`changes`: numbers of route changes made already, the newest first in the table."""
    if table is None:
        hosts = [{"name": "all", "domains": ["*"], "routes": [_route({"prefix": "/"})]}]
    else:
        hosts = []
        for host, patterns in table.hosts():
            if table.kind == "literal":
                routes = [_route({"prefix": p}) for p in patterns]
            else:
                routes = [_route({"safe_regex": {"regex": p}}) for p in patterns]
            hosts.append({"name": host, "domains": [host], "routes": routes})
        hosts[0]["routes"] = [_route({"prefix": change_path(k)}) for k in reversed(changes)] + hosts[0]["routes"]
    return {"name": "routes", "virtual_hosts": hosts}


# --- nginx -------------------------------------------------------------------------------------------------------------------------------------
def nginx_hosts(table, listen, changes=()):
    """`listen`: what follows "listen " (address, port, ssl)."""
    if table is None:
        return f"  server {{\n    listen {listen} reuseport backlog=65535;\n    location / {{ proxy_pass http://web; }}\n  }}"
    # What matches no virtual host, and what matches no route of one: 404.
    out = [f"  server {{\n    listen {listen} reuseport backlog=65535 default_server;\n    return 404;\n  }}"]
    word = "" if table.kind == "literal" else "~ "
    for number, (host, patterns) in enumerate(table.hosts()):
        lines = [f"    location {change_path(k)} {{ proxy_pass http://web; }}" for k in changes] if number == 0 else []
        for p in patterns:
            lines.append(f'    location {word}{p} {{ proxy_pass http://web; }}' if not word else f'    location ~ "^{p}$" {{ proxy_pass http://web; }}')
        out.append(f"  server {{\n    listen {listen};\n    server_name {host};\n" + "\n".join(lines) + "\n    location / { return 404; }\n  }")
    return "\n".join(out)


# --- HAProxy -----------------------------------------------------------------------------------------------------------------------------------
def haproxy_routes(table, folder_of_maps, changes=()):
    """The frontend's rules, and the map files they read: {path: text}."""
    if table is None:
        return "  default_backend web", {}
    if table.kind == "literal":  # one tree of prefixes of host and path
        path = f"{folder_of_maps}/routes.map"
        lines = [f"{CHANGE_HOST}{change_path(k)} web" for k in changes]
        lines += [f"{host}{p} web" for host, patterns in table.hosts() for p in patterns]
        return f"  use_backend %[base,map_beg({path},no_route)]", {path: "\n".join(lines) + "\n"}
    files, rules = {}, []
    for host, patterns in table.hosts():  # expressions are tried one after the other: only those of the host
        path = f"{folder_of_maps}/{host}.map"
        files[path] = "\n".join(f"^{p}$ web" for p in patterns) + "\n"
        rules.append(f"  use_backend %[path,map_reg({path},no_route)] if {{ hdr(host) -i {host} }}")
    return "\n".join(rules) + "\n  default_backend no_route", files
