"""A gRPC client for tests (grpcio). `grpc_client.py ADDRESS:PORT WHAT [ARGUMENT…]`; writes what it saw as JSON: {"code", "message", "answers",
"trailing"}.

    unary TEXT [TIMEOUT]   collect A B C…   count N   chat A B C…   fail CODE TEXT   sleep MS [TIMEOUT]   method NAME TEXT
    cancel                 a chat that is given up in the middle
    gather N CHANNELS      N calls at the same time over so many connections
"""
import asyncio
import json
import sys

import grpc


def report(code, message="", answers=(), trailing=()):
    json.dump({"code": code.name, "message": message, "answers": list(answers), "trailing": {k: v for k, v in trailing or ()}}, sys.stdout)


async def one(call):
    try:
        if hasattr(call, "__aiter__"):
            answers = [a.decode() async for a in call]
        else:
            answers = [(await call).decode()]
        report(await call.code(), await call.details() or "", answers, await call.trailing_metadata())
    except grpc.aio.AioRpcError as e:
        report(e.code(), e.details() or "", (), [(k, v) for k, v in e.trailing_metadata() if isinstance(v, str)])


async def messages(texts):
    for t in texts:
        yield t.encode()


async def gather(where, n, channels):
    pool = [grpc.aio.insecure_channel(where, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(channels)]

    async def call(i):
        c = pool[i % channels].stream_stream("/test.T/Gather")()
        await c.write(str(n).encode())
        most = await c.read()
        await c.done_writing()
        return int(most), (await c.code()).name
    seen = await asyncio.gather(*[call(i) for i in range(n)])
    report(grpc.StatusCode.OK if all(code == "OK" for _, code in seen) else grpc.StatusCode.UNKNOWN, "", [max(m for m, _ in seen)])
    for c in pool:
        await c.close()


async def main(where, what, *rest):
    if what == "gather":
        return await gather(where, int(rest[0]), int(rest[1]))
    async with grpc.aio.insecure_channel(where) as channel:
        if what == "unary":
            await one(channel.unary_unary("/test.T/Unary")(rest[0].encode(), metadata=(("x-send", "metadata"),), timeout=float(rest[1]) if rest[1:] else None))
        elif what == "method":
            await one(channel.unary_unary(rest[0])(rest[1].encode()))
        elif what == "collect":
            await one(channel.stream_unary("/test.T/Collect")(messages(rest)))
        elif what == "count":
            await one(channel.unary_stream("/test.T/Count")(rest[0].encode()))
        elif what == "chat":
            call = channel.stream_stream("/test.T/Chat")()
            answers = []
            for t in rest:  # one by one: each answer comes before the next question
                await call.write(t.encode())
                answers.append((await call.read()).decode())
            await call.done_writing()
            report(await call.code(), "", answers, await call.trailing_metadata())
        elif what == "cancel":
            call = channel.stream_stream("/test.T/Chat")()
            await call.write(b"x")
            answer = (await call.read()).decode()
            call.cancel()
            report(await call.code(), "", [answer])
        elif what == "fail":
            await one(channel.unary_unary("/test.T/Fail")(" ".join(rest).encode()))
        elif what == "sleep":
            await one(channel.unary_unary("/test.T/Sleep")(rest[0].encode(), timeout=float(rest[1]) if rest[1:] else None))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
