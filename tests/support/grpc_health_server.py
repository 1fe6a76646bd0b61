"""A gRPC server that says of its health what a file says (grpcio, without generated code): `grpc_health_server.py PORT FILE`.

The file holds a number, the status of grpc.health.v1.HealthCheckResponse, or the name of a gRPC status (UNAVAILABLE), or "hang". What it was
asked is printed.
"""
import asyncio
import sys

import grpc


async def main(port, path):
    async def check(request, context):
        print("asked", request.hex(), dict(context.invocation_metadata()).get("x-check", "-"), flush=True)
        with open(path) as f:
            say = f.read().strip()
        if say == "hang":
            await asyncio.sleep(60)
        if not say.isdigit():
            await context.abort(getattr(grpc.StatusCode, say), "as told")
        return bytes([8, int(say)])

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
    server.add_insecure_port(f"0.0.0.0:{port}")
    await server.start()
    print("listening", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
