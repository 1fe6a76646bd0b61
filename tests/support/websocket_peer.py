"""A WebSocket server and client made of python3-websockets (Debian), for tests/e2e.

    websocket_peer.py server HOST PORT          echoes; says "listening"
    websocket_peer.py client URL                texts, a large binary message, pings, a close; says "ok"
    websocket_peer.py idle URL SECONDS          opens, waits for the other side to end it, prints the seconds that took
"""
import asyncio
import os
import sys
import time

import websockets


async def echo(connection, path=None):
    async for message in connection:
        await connection.send(message)


async def server(host, port):
    async with websockets.serve(echo, host, int(port), max_size=None, subprotocols=["chat"]):
        print("listening", flush=True)
        await asyncio.Future()


async def client(url):
    async with websockets.connect(url, max_size=None, subprotocols=["chat"]) as c:
        assert c.subprotocol == "chat", c.subprotocol
        for text in ("hello", "", "grüße", "x" * 70000):
            await c.send(text)
            assert await c.recv() == text
        large = os.urandom(8 << 20)
        await c.send(large)
        assert await c.recv() == large
        for i in range(200):
            await c.send(str(i))
        assert [await c.recv() for _ in range(200)] == [str(i) for i in range(200)]
        await (await c.ping())
    assert c.close_code == 1000, c.close_code
    print("ok")


async def idle(url, seconds):
    start = time.monotonic()
    async with websockets.connect(url, ping_interval=None) as c:
        try:
            await asyncio.wait_for(c.recv(), float(seconds))
        except websockets.ConnectionClosed:
            print(f"{time.monotonic() - start:.2f}")


asyncio.run({"server": server, "client": client, "idle": idle}[sys.argv[1]](*sys.argv[2:]))
