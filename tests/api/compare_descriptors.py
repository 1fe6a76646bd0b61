#!/usr/bin/env python3
"""Our .proto files must say what Envoy's say: every message, field (number, type, label, oneof) and enum value, by name.

Exit 0: equal; 1: different; 77: skipped, because the published files cannot be had (says why). `--write-names FILE`
writes the names that Envoy has and we do not, from which control tells "not supported yet" from "unknown".
"""
import sys
import tempfile

import published_api as api


# Fields of Envoy 1.40 that the package, which is older, does not have, with their numbers there.
NEWER = {"envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext.auto_host_sni": 6,
         "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext.auto_sni_san_validation": 7,
         "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext.prefer_client_ciphers": 11,
         "envoy.config.core.v3.ProxyProtocolConfig.added_tlvs": 3,
         "envoy.config.core.v3.TlvEntry.type": 1,
         "envoy.config.core.v3.TlvEntry.value": 2,
         "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector.enable_ja4_fingerprinting": 4,
         "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport.allow_unspecified_address": 3,
         "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport.tlv_as_pool_key": 4,
         "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig.query_timeout_seconds": 6,
         "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig.query_tries": 7,
         "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig.rotate_nameservers": 8}


def compare(mine, theirs):
    problems, checked = [], 0
    for name, fields in sorted(mine["messages"].items()):
        if not name.startswith("envoy."):
            continue
        if name not in theirs["messages"] and not all(f"{name}.{field}" in NEWER for field in fields):
            problems.append(f"{name}: no such message in Envoy's API")
            continue
        for field, f in fields.items():
            checked += 1
            g = theirs["messages"].get(name, {}).get(field)
            if g is None and f["number"] == str(NEWER.get(f"{name}.{field}")):
                continue
            if g is None:
                problems.append(f"{name}.{field}: no such field in Envoy's API")
            elif f != g:
                problems.append(f"{name}.{field}: ours {f}, published {g}")
    for name, values in sorted(mine["enums"].items()):
        if not name.startswith("envoy."):
            continue
        for value, number in values.items():
            checked += 1
            if theirs["enums"].get(name, {}).get(value) != number:
                problems.append(f"{name}.{value} = {number}: published {theirs['enums'].get(name, {}).get(value)}")
    return problems, checked


def names(mine, theirs):
    lines = []
    for kind in ("messages", "enums"):
        for name in sorted(mine[kind]):
            if name.startswith("envoy."):
                missing = sorted(set(theirs[kind].get(name, {})) - set(mine[kind][name]))
                if missing:
                    lines.append((name, missing))
    return lines


def main():
    with tempfile.TemporaryDirectory() as work:
        try:
            theirs = api.published(work)
        except api.Unavailable as e:
            print(f"SKIPPED: Envoy's published API cannot be had: {e}")
            return 77
        mine = api.ours(work)
        if len(sys.argv) > 2 and sys.argv[1] == "--write-names":
            with open(sys.argv[2], "w") as out:
                out.write("// Names that Envoy's API has in these messages and enums and Millrace does not support.\n"
                          "// Written by tests/api/compare_descriptors.py --write-names; run it after every change of lib/api.\n")
                for name, missing in names(mine, theirs):
                    out.write(f'{{"{name}",\n')
                    line = '   "'
                    for m in missing:
                        if len(line) + len(m) > 120:
                            out.write(line + '"\n')
                            line = '   "'
                        line += " " + m
                    out.write(line + ' "},\n')
            return 0
        problems, checked = compare(mine, theirs)
        for p in problems:
            print(p)
        print(f"{checked} fields and enum values compared with {api.PACKAGE}, {len(problems)} differ")
        return 1 if problems or checked == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
