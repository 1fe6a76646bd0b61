"""One end of a TCP transfer over kernel sockets: sends so many bytes (or for so long), half closes, receives until the peer has, and says in one
line of JSON what went each way, with SHA-256.

    transfer.py serve ADDRESS PORT [--bytes N | --seconds S]      one line for each connection, until it is ended
    transfer.py connect ADDRESS PORT [--bytes N | --seconds S] [--connections K]

What connection k sends is made of its own numbers, so that nothing can arrive twice or elsewhere unnoticed. Sending and receiving run at the same time.
"""
import argparse
import hashlib
import json
import os
import random
import socket
import struct
import threading
import time

CHUNK = 256 * 1024
LOCK = threading.Lock()          # one line at a time


class Transfer(threading.Thread):
    def __init__(self, sock, size, seconds, stream):
        super().__init__(daemon=True)
        self.socket, self.size, self.seconds, self.stream = sock, size, seconds, stream
        self.result = {"stream": stream, "sent": 0, "received": 0, "error": None}

    def _send(self):
        digest = hashlib.sha256()
        block = bytearray(random.Random(self.stream).randbytes(CHUNK))
        end = time.monotonic() + self.seconds
        sent = index = 0
        try:
            while sent < self.size if self.size is not None else time.monotonic() < end:
                struct.pack_into("<QQ", block, 0, self.stream, index)
                n = CHUNK if self.size is None else min(CHUNK, self.size - sent)
                piece = memoryview(block)[:n]
                self.socket.sendall(piece)
                digest.update(piece)
                sent += n
                index += 1
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as e:
            self.result["error"] = f"send: {e}"
        self.result.update(sent=sent, sent_sha256=digest.hexdigest())

    def run(self):
        sender = threading.Thread(target=self._send, daemon=True)
        begun = first = last = time.monotonic()
        sender.start()
        digest = hashlib.sha256()
        received = 0
        try:
            while True:
                data = self.socket.recv(CHUNK)
                last = time.monotonic()
                if not data:
                    break
                if received == 0:
                    first = last
                digest.update(data)
                received += len(data)
        except OSError as e:
            self.result["error"] = f"receive: {e}"
        sender.join()
        self.result.update(received=received, received_sha256=digest.hexdigest(), receive_seconds=last - first, seconds=time.monotonic() - begun)
        self.socket.close()
        with LOCK:
            print(json.dumps(self.result), flush=True)


def use_cubic(s):
    """Whatever the host's default is (a namespace cannot set its own)."""
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("mode", choices=("serve", "connect"))
    p.add_argument("address")
    p.add_argument("port", type=int)
    p.add_argument("--bytes", type=int, help="to send")
    p.add_argument("--seconds", type=float, default=0, help="how long to send, without --bytes")
    p.add_argument("--connections", type=int, default=1)
    p.add_argument("--stream", type=int, default=os.getpid() * 1000)
    a = p.parse_args()
    family = socket.AF_INET6 if ":" in a.address else socket.AF_INET
    if a.mode == "serve":
        s = socket.socket(family)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        use_cubic(s)
        s.bind((a.address, a.port))
        s.listen(64)
        print("listening", flush=True)
        for k in range(1 << 30):
            Transfer(s.accept()[0], a.bytes, a.seconds, a.stream + k).start()
    else:
        transfers = []
        for k in range(a.connections):
            s = socket.socket(family)
            use_cubic(s)
            s.settimeout(30)
            s.connect((a.address, a.port))
            s.settimeout(None)
            transfers.append(Transfer(s, a.bytes, a.seconds, a.stream + k))
        for t in transfers:
            t.start()
        for t in transfers:
            t.join()


main()
