"""A gRPC server for tests (grpcio, without generated code: messages are bytes). `grpc_server.py PORT`.

    /test.T/Unary      the message back, upper case; metadata x-send comes back as trailing metadata
    /test.T/Collect    client streaming: all messages joined
    /test.T/Count      server streaming: "n" gives 0 … n-1
    /test.T/Chat       both: each message answered at once
    /test.T/Fail       status and message as the request says ("CODE text"); no message: trailers-only
    /test.T/Sleep      answers after so many milliseconds
    /test.T/Gather     both: answers once "n" calls are open at the same time
"""
import asyncio
import sys

import grpc


class Service:
    def __init__(self):
        self.open, self.most, self.all = 0, 0, asyncio.Event()

    async def unary(self, request, context):
        metadata = dict(context.invocation_metadata())
        context.set_trailing_metadata((("x-sent", metadata.get("x-send", "-")), ("x-deadline", "yes" if context.time_remaining() else "no")))
        return request.upper()

    async def collect(self, requests, context):
        return b"".join([r async for r in requests])

    async def count(self, request, context):
        for i in range(int(request)):
            yield str(i).encode()

    async def chat(self, requests, context):
        async for r in requests:
            yield b"you said " + r

    async def fail(self, request, context):
        code, _, text = request.decode().partition(" ")
        await context.abort(getattr(grpc.StatusCode, code), text)

    async def sleep(self, request, context):
        await asyncio.sleep(int(request) / 1000)
        return b"slept"

    async def gather(self, requests, context):
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            async for r in requests:
                if self.open >= int(r):
                    self.all.set()
                await asyncio.wait_for(self.all.wait(), 120)
                yield str(self.most).encode()
        finally:
            self.open -= 1


async def main(port):
    s = Service()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers = {"Unary": grpc.unary_unary_rpc_method_handler(s.unary), "Collect": grpc.stream_unary_rpc_method_handler(s.collect),
                "Count": grpc.unary_stream_rpc_method_handler(s.count), "Chat": grpc.stream_stream_rpc_method_handler(s.chat),
                "Fail": grpc.unary_unary_rpc_method_handler(s.fail), "Sleep": grpc.unary_unary_rpc_method_handler(s.sleep),
                "Gather": grpc.stream_stream_rpc_method_handler(s.gather)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.T", handlers),))
    server.add_insecure_port(f"0.0.0.0:{port}")
    await server.start()
    print("listening", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
