"""The yardstick of the invoke path: a bare keep-alive hello on the same HTTP stack, in a process of its own."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

SERVER = """
import asyncio, sys, uvloop
from stoker.http.messages import Request, Reply
from stoker.http.limits import ServerLimits
from stoker.http.server import HttpServer
def hello(request: Request, reply: Reply) -> None:
    reply.send(200, [(b"content-type", b"application/json")], request.body)
async def main() -> None:
    server = HttpServer(hello, limits=ServerLimits(buffer_limit_bytes=8 << 20))
    await server.start_tcp("127.0.0.1", 0)
    print(server.addresses[0], flush=True)
    await asyncio.Event().wait()
uvloop.run(main())
"""


@contextlib.contextmanager
def hello_server() -> Iterator[str]:
    """Echoes every body; yields its URL."""
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield f"http://{server.stdout.readline().strip()}/"
    finally:
        server.kill()
        server.wait()
