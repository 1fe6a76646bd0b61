"""A kernel client on the second wire: asks for one path again and again, each time on a connection of its own, and writes `asked answered status` lines
(times in ns of the monotonic clock; status 0: no answer). Runs until it is killed.

    prober.py ADDRESS PORT HOST PATH INTERVAL_S
"""
import socket
import struct
import sys
import time


def ask(address, port, request):
    with socket.socket() as s:
        s.settimeout(2)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME-WAIT: a thousand a second
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            s.connect((address, port))
            s.sendall(request)
            head = s.recv(4096)
            return int(head[9:12]) if head.startswith(b"HTTP/1.1 ") else 0
        except (OSError, ValueError):
            return 0


def main():
    address, port, host, path, interval = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], float(sys.argv[5])
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: prober\r\n\r\n".encode()
    while True:
        asked = time.monotonic_ns()
        status = ask(address, port, request)
        answered = time.monotonic_ns()
        sys.stdout.write(f"{asked} {answered} {status}\n")
        sys.stdout.flush()
        time.sleep(max(0, interval - (answered - asked) / 1e9))


if __name__ == "__main__":
    main()
