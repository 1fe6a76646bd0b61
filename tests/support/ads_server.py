"""A management server for tests (grpcio): aggregated discovery, state of the world and delta.

    ads_server.py --port N --state FILE --log FILE --descriptors SET [--address A] [--certificate F --key F --client-ca F] [--name N]

FILE of --state, read again whenever it changes:
    {"version": "1", "resources": {"CDS": [{...}], "EDS": [...], "LDS": [...], "RDS": [...], "SDS": [...]}}
with resources in proto3 JSON. FILE of --log takes a line of JSON for each stream that begins or ends and each request. SET: a descriptor
set of lib/api. Messages are made from it, so that there is no generated code.
"""
import argparse
import asyncio
import hashlib
import json
import os

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

TYPES = {"CDS": "envoy.config.cluster.v3.Cluster", "EDS": "envoy.config.endpoint.v3.ClusterLoadAssignment",
         "LDS": "envoy.config.listener.v3.Listener", "RDS": "envoy.config.route.v3.RouteConfiguration",
         "SDS": "envoy.extensions.transport_sockets.tls.v3.Secret"}
SHORT = {"type.googleapis.com/" + full: short for short, full in TYPES.items()}
WHOLE = ("CDS", "LDS")
SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"


class Api:
    def __init__(self, path):
        files = descriptor_pb2.FileDescriptorSet()
        with open(path, "rb") as f:
            files.ParseFromString(f.read())
        self.pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self.pool.Add(file)
        self.factory = message_factory.MessageFactory(self.pool)

    def type(self, name):
        return self.factory.GetPrototype(self.pool.FindMessageTypeByName(name))

    def make(self, name, value):
        return json_format.ParseDict(value, self.type(name)(), descriptor_pool=self.pool)


class Server:
    def __init__(self, options):
        self.options, self.api = options, Api(options.descriptors)
        self.version, self.resources, self.stamp = "", {short: {} for short in TYPES}, None
        self.changed = asyncio.Condition()
        self.log_file = open(options.log, "a")

    def log(self, **what):
        self.log_file.write(json.dumps(what) + "\n")
        self.log_file.flush()

    def load(self):
        try:
            stat = os.stat(self.options.state)
        except FileNotFoundError:
            return False
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if stamp == self.stamp:
            return False
        with open(self.options.state) as f:
            state = json.load(f)
        self.stamp, self.version = stamp, state["version"]
        for short, full in TYPES.items():
            self.resources[short] = {}
            for value in state["resources"].get(short, []):
                name = value.get("name") or value.get("cluster_name")
                self.resources[short][name] = self.api.make(full, value).SerializeToString(deterministic=True)
        return True

    async def watch(self):
        while True:
            await asyncio.sleep(0.03)
            if self.load():
                async with self.changed:
                    self.changed.notify_all()

    async def serve_stream(self, requests, context, delta):
        self.log(event="stream", delta=delta, metadata=[[k, v] for k, v in context.invocation_metadata() if isinstance(v, str)],
                 peer=[b.decode() for b in (context.auth_context().get("x509_common_name") or [])])
        out, state = asyncio.Queue(), {}

        async def read():
            async for request in requests:
                short = SHORT.get(request.type_url, request.type_url)
                self.log(event="request", type=short, **json_format.MessageToDict(request, preserving_proto_field_name=True,
                                                                                 descriptor_pool=self.api.pool))
                t = state.setdefault(short, {"names": set(), "nonce": 0, "sent": None, "known": {}, "first": True})
                (self.on_delta if delta else self.on_sotw)(short, t, request, out)
            await out.put(None)

        async def push():
            while True:
                async with self.changed:
                    await self.changed.wait()
                for short in TYPES:  # make before break: clusters first
                    if short in state:
                        (self.push_delta if delta else self.push_sotw)(short, state[short], out)

        tasks = [asyncio.create_task(read()), asyncio.create_task(push())]
        try:
            while (message := await out.get()) is not None:
                yield message
        finally:
            for t in tasks:
                t.cancel()
            self.log(event="end")

    def subscribed(self, short, t):
        return [n for n in sorted(self.resources[short]) if (short in WHOLE and not t["names"]) or n in t["names"]]

    # --- state of the world ---------------------------------------------------------------------------------------------
    def on_sotw(self, short, t, request, out):
        if request.response_nonce and request.response_nonce != str(t["nonce"]):
            return  # stale
        names = set(request.resource_names)
        if t["first"] or names != t["names"] or request.version_info != self.version and not request.HasField("error_detail"):
            t["first"], t["names"] = False, names
            if short in WHOLE or names:
                self.push_sotw(short, t, out, True)

    def push_sotw(self, short, t, out, always=False):
        if short not in WHOLE and not t["names"]:
            return
        found = self.subscribed(short, t)
        if not found and short not in WHOLE:
            return  # what does not exist is not answered
        content = hashlib.sha256(b"|".join(self.resources[short][n] for n in found)).hexdigest()
        if content == t["sent"] and not always:
            return
        t["sent"] = content
        t["nonce"] += 1
        m = self.api.type("envoy.service.discovery.v3.DiscoveryResponse")(
            version_info=self.version, nonce=str(t["nonce"]), type_url="type.googleapis.com/" + TYPES[short])
        m.control_plane.identifier = self.options.name
        for name in found:
            m.resources.add(type_url=m.type_url, value=self.resources[short][name])
        out.put_nowait(m)

    # --- delta ----------------------------------------------------------------------------------------------------------
    def on_delta(self, short, t, request, out):
        if t["first"]:
            t["first"] = False
            t["known"] = dict(request.initial_resource_versions)
        ask = set(request.resource_names_subscribe)
        t["names"] = (t["names"] | ask) - set(request.resource_names_unsubscribe)
        for name in ask | set(request.resource_names_unsubscribe):
            t["known"].pop(name, None)
        if not request.response_nonce or ask:
            self.push_delta(short, t, out, [n for n in ask if n not in self.resources[short]], t["nonce"] == 0)

    def push_delta(self, short, t, out, absent=(), always=False):
        if short not in WHOLE and not t["names"]:
            return
        found = self.subscribed(short, t)
        versions = {n: hashlib.sha256(self.resources[short][n]).hexdigest()[:12] for n in found}
        changed = [n for n in found if t["known"].get(n) != versions[n]]
        removed = sorted(set(t["known"]) - set(found)) + sorted(absent)
        t["known"] = versions
        if not changed and not removed and not always:
            return
        t["nonce"] += 1
        m = self.api.type("envoy.service.discovery.v3.DeltaDiscoveryResponse")(
            system_version_info=self.version, nonce=str(t["nonce"]), type_url="type.googleapis.com/" + TYPES[short],
            removed_resources=removed)
        m.control_plane.identifier = self.options.name
        for name in changed:
            r = m.resources.add(name=name, version=versions[name])
            r.resource.type_url, r.resource.value = m.type_url, self.resources[short][name]
        out.put_nowait(m)

    def handler(self, delta):
        request = self.api.type("envoy.service.discovery.v3." + ("DeltaDiscoveryRequest" if delta else "DiscoveryRequest"))

        async def behave(requests, context):
            async for message in self.serve_stream(requests, context, delta):
                yield message
        return grpc.stream_stream_rpc_method_handler(behave, request.FromString, lambda m: m.SerializeToString())

    async def run(self):
        o = self.options
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
            SERVICE, {"StreamAggregatedResources": self.handler(False), "DeltaAggregatedResources": self.handler(True)}),))
        where = f"{o.address}:{o.port}"
        if o.certificate:
            def read(path):
                with open(path, "rb") as f:
                    return f.read()
            ca = read(o.client_ca) if o.client_ca else None
            server.add_secure_port(where, grpc.ssl_server_credentials([(read(o.key), read(o.certificate))], ca, ca is not None))
        else:
            server.add_insecure_port(where)
        self.load()
        await server.start()
        print("serving", where, flush=True)
        await self.watch()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--port", type=int, required=True)
    p.add_argument("--address", default="127.0.0.1")
    for name in ("state", "log", "descriptors"):
        p.add_argument("--" + name, required=True)
    for name in ("certificate", "key", "client-ca"):
        p.add_argument("--" + name)
    p.add_argument("--name", default="test")
    asyncio.run(Server(p.parse_args()).run())


if __name__ == "__main__":
    main()
