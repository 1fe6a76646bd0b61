"""Envoy's published v3 API and ours as plain dictionaries, read from descriptor sets with protoc alone (no Python packages).

The published .proto files are those of the npm package @grpc/grpc-js-xds. ENVOY_API_DIR may name its unpacked `deps`
folder; otherwise `npm pack` fetches it. Unavailable is the exception for "cannot be had here".
"""
import os
import re
import subprocess
import tarfile

PACKAGE = "@grpc/grpc-js-xds@1.14.1"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Unavailable(Exception):
    pass


def fetch(work):
    """The package's `deps` folder."""
    given = os.environ.get("ENVOY_API_DIR")
    if given:
        return given
    try:
        out = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=work, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Unavailable(f"npm pack {PACKAGE}: {e}")
    tarballs = [f for f in os.listdir(work) if f.endswith(".tgz")]
    if out.returncode != 0 or not tarballs:
        raise Unavailable(f"npm pack {PACKAGE}: {out.stderr.strip()[-300:]}")
    with tarfile.open(os.path.join(work, tarballs[0])) as t:
        t.extractall(work)
    return os.path.join(work, "package", "deps")


def _protoc(includes, files, out):
    cmd = ["protoc", "--include_imports", f"--descriptor_set_out={out}"] + [f"-I{i}" for i in includes] + files
    r = subprocess.run(cmd, capture_output=True, text=True)
    if r.returncode != 0:
        raise RuntimeError("protoc: " + r.stderr[-2000:])


def _parse_text(lines):
    """Text format to nested dictionaries of lists; enough of it for descriptor sets."""
    top = {}
    stack = [top]
    for line in lines:
        line = line.strip()
        if line == "}":
            stack.pop()
        elif line.endswith("{"):
            child = {}
            stack[-1].setdefault(line[:-1].strip(), []).append(child)
            stack.append(child)
        elif ": " in line:
            key, value = line.split(": ", 1)
            stack[-1].setdefault(key, []).append(value.strip('"'))
    return top


def descriptors(includes, files, work):
    """{"messages": {full name: {field: {...}}}, "enums": {full name: {value name: number}}}"""
    out = os.path.join(work, "set.pb")
    _protoc(includes, files, out)
    with open(out, "rb") as f:
        text = subprocess.run(["protoc", "-I/usr/include", "--decode=google.protobuf.FileDescriptorSet",
                               "/usr/include/google/protobuf/descriptor.proto"], stdin=f, capture_output=True, check=True).stdout
    tree = _parse_text(text.decode("utf-8", "replace").splitlines())
    messages, enums = {}, {}

    def walk(prefix, message):
        name = prefix + "." + message["name"][0]
        oneofs = [o["name"][0] for o in message.get("oneof_decl", [])]
        fields = {}
        for f in message.get("field", []):
            fields[f["name"][0]] = {
                "number": f["number"][0], "label": f["label"][0], "type": f["type"][0],
                "type_name": f.get("type_name", [""])[0].lstrip("."),
                "oneof": oneofs[int(f["oneof_index"][0])] if "oneof_index" in f else "", "json_name": f.get("json_name", [""])[0]}
        messages[name] = fields
        for m in message.get("nested_type", []):
            walk(name, m)
        for e in message.get("enum_type", []):
            enum(name, e)

    def enum(prefix, e):
        enums[prefix + "." + e["name"][0]] = {v["name"][0]: v["number"][0] for v in e.get("value", [])}

    for file in tree.get("file", []):
        package = file.get("package", [""])[0]
        for m in file.get("message_type", []):
            walk(package, m)
        for e in file.get("enum_type", []):
            enum(package, e)
    return {"messages": messages, "enums": enums}


# The files that define what our packages define.
PUBLISHED = """
envoy/config/bootstrap/v3/bootstrap.proto envoy/config/listener/v3/listener.proto envoy/config/route/v3/route.proto
envoy/config/cluster/v3/cluster.proto envoy/config/endpoint/v3/endpoint.proto envoy/config/accesslog/v3/accesslog.proto
envoy/extensions/access_loggers/file/v3/file.proto envoy/extensions/access_loggers/stream/v3/stream.proto
envoy/extensions/compression/brotli/compressor/v3/brotli.proto envoy/extensions/compression/gzip/compressor/v3/gzip.proto
envoy/extensions/compression/zstd/compressor/v3/zstd.proto
envoy/extensions/network/dns_resolver/cares/v3/cares_dns_resolver.proto envoy/extensions/filters/http/compressor/v3/compressor.proto
envoy/config/core/v3/extension.proto envoy/config/core/v3/config_source.proto envoy/config/grpc_credential/v3/file_based_metadata.proto
envoy/service/discovery/v3/discovery.proto envoy/service/discovery/v3/ads.proto
envoy/extensions/filters/http/cors/v3/cors.proto
envoy/extensions/filters/http/grpc_web/v3/grpc_web.proto
envoy/extensions/filters/http/router/v3/router.proto envoy/extensions/filters/listener/proxy_protocol/v3/proxy_protocol.proto
envoy/config/core/v3/proxy_protocol.proto envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto
envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto
envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto envoy/extensions/transport_sockets/tls/v3/tls.proto
envoy/extensions/transport_sockets/proxy_protocol/v3/upstream_proxy_protocol.proto
envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto
envoy/extensions/upstreams/http/v3/http_protocol_options.proto
""".split()


# The package's validate.proto is older than some of its users: a copy with the option they need lets protoc parse them all.
def published(work):
    deps = fetch(work)
    shim = os.path.join(work, "shim", "validate")
    os.makedirs(shim, exist_ok=True)
    with open(os.path.join(deps, "protoc-gen-validate", "validate", "validate.proto")) as f:
        text = f.read()
    if "ignore_empty" not in re.search(r"message StringRules \{.*?\n\}", text, re.S).group(0):
        text = re.sub(r"(message StringRules \{)", r"\1\n    optional bool ignore_empty = 26;", text)
    with open(os.path.join(shim, "validate.proto"), "w") as f:
        f.write(text)
    includes = [os.path.join(work, "shim")]
    includes += [os.path.join(deps, d) for d in ("envoy-api", "xds", "googleapis", "protoc-gen-validate")]
    includes.append("/usr/include")
    files = [os.path.join(deps, "envoy-api", f) for f in PUBLISHED]
    return descriptors(includes, files, work)


def ours(work):
    folder = os.path.join(ROOT, "lib", "api")
    files = [os.path.join(folder, f) for f in sorted(os.listdir(folder)) if f.endswith(".proto")]
    return descriptors([ROOT, "/usr/include"], files, work)
