"""A name server for tests: A and AAAA records that a test changes while it runs, over UDP and TCP (RFC 1035, 3596).

    zone = {"api.test": (ttl, ["10.0.0.1", "fd00::1"])}; a name that is not there does not exist (NXDOMAIN), None: SERVFAIL, "silent": no answer.
"""
import collections
import ipaddress
import socket
import struct
import threading

A, AAAA = 1, 28
NO_ERROR, SERVFAIL, NXDOMAIN = 0, 2, 3
FLAGS = 0x8580  # a response, authoritative, recursion desired and available


class DnsServer:
    """On loopback, at a free port of its own (`port`)."""

    def __init__(self, zone, address="127.0.0.1"):
        self.zone, self.queries = dict(zone), collections.Counter()  # (name, type, "udp" or "tcp") asked so often
        self.lock, self.stopping = threading.Lock(), False
        for _ in range(100):  # until a port is free for both
            self.udp, self.tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.udp.bind((address, 0))
            self.port = self.udp.getsockname()[1]
            try:
                self.tcp.bind((address, self.port))
                break
            except OSError:
                self.udp.close()
                self.tcp.close()
        for s in (self.udp, self.tcp):
            s.settimeout(0.1)
        self.tcp.listen(16)
        self.threads = [threading.Thread(target=self._serve_udp, daemon=True), threading.Thread(target=self._serve_tcp, daemon=True)]
        for t in self.threads:
            t.start()

    def close(self):
        self.stopping = True
        for t in self.threads:
            t.join()
        self.udp.close()
        self.tcp.close()

    def set(self, name, records):
        with self.lock:
            if records == "gone":
                self.zone.pop(name, None)
            else:
                self.zone[name] = records

    def asked(self, name):
        with self.lock:
            return sum(n for (asked, _, _), n in self.queries.items() if asked == name)

    def _answer(self, query, transport):
        ident, _, questions = struct.unpack("!HHH", query[:6])
        if questions != 1:
            return None
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        kind = struct.unpack("!H", query[at + 1:at + 3])[0]
        question, name = query[12:at + 5], ".".join(labels).lower()
        with self.lock:
            self.queries[name, kind, transport] += 1
            records = self.zone.get(name, "gone")
        if records == "silent":
            return None
        if records is None or records == "gone":
            code = SERVFAIL if records is None else NXDOMAIN
            return struct.pack("!HHHHHH", ident, FLAGS | code, 1, 0, 0, 0) + question
        ttl, addresses = records
        packed = [ipaddress.ip_address(a).packed for a in addresses]
        packed = [p for p in packed if len(p) == (4 if kind == A else 16)] if kind in (A, AAAA) else []
        answers = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, ttl, len(p)) + p for p in packed)
        return struct.pack("!HHHHHH", ident, FLAGS, 1, len(packed), 0, 0) + question + answers

    def _serve_udp(self):
        while not self.stopping:
            try:
                query, peer = self.udp.recvfrom(4096)
            except TimeoutError:
                continue
            reply = self._answer(query, "udp")
            if reply is not None:
                self.udp.sendto(reply, peer)

    def _serve_tcp(self):
        while not self.stopping:
            try:
                connection, _ = self.tcp.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(1)
                try:
                    while not self.stopping:
                        length = connection.recv(2, socket.MSG_WAITALL)
                        if len(length) < 2:
                            break
                        reply = self._answer(connection.recv(struct.unpack("!H", length)[0], socket.MSG_WAITALL), "tcp")
                        if reply is not None:
                            connection.sendall(struct.pack("!H", len(reply)) + reply)
                except (TimeoutError, ConnectionError):
                    pass
