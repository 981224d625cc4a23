"""Throughput and latency of the bare HTTP server, beside a yardstick without HTTP parsing in the same run.

    bench/http_hello.py [--seconds 3] [--rounds 3] [--with uvicorn] [--with aiohttp]

The server runs in one process, wrk (Debian package ``wrk``) drives it with 32 keep-alive clients and with one.
The yardstick is an asyncio.Protocol on the same uvloop that answers every read with a constant. Rounds are
interleaved and the best of each is taken, so that a busy machine hits both alike; the ratio is what to compare.
"""

import argparse
import asyncio
import re
import shutil
import subprocess
import sys
import time
from typing import Any

import uvloop

CONSTANT = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n"
    b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nhello"
)


class Constant(asyncio.Protocol):
    """Answers whatever comes: the floor of Python on uvloop."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(CONSTANT)


async def serve_yardstick() -> None:
    server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def serve_stoker() -> None:
    from stoker.http.server import HttpServer
    from stoker.http.wire import prepare_head

    prepared = prepare_head(200, [(b"content-type", b"text/plain")])
    headers = [(b"content-type", b"text/plain")]

    def handler(request: Any, reply: Any) -> None:
        if request.target == b"/raw":
            reply.send_raw(prepared, b"hello")
        else:
            reply.send(200, headers, b"hello")

    server = HttpServer(handler)
    await server.start_tcp("127.0.0.1", 0)
    print(server.addresses[0].rpartition(":")[2], flush=True)
    await asyncio.Event().wait()


async def uvicorn_app(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


async def serve_uvicorn() -> None:
    import socket

    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(
        uvicorn_app, http="httptools", lifespan="off", access_log=False, log_level="error"
    )
    await uvicorn.Server(config).serve(sockets=[listening])


async def serve_aiohttp() -> None:
    from aiohttp import web

    async def hello(request: Any) -> Any:
        return web.Response(text="hello")

    application = web.Application()
    application.router.add_get("/", hello)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


SERVERS = {
    "yardstick": serve_yardstick,
    "stoker": serve_stoker,
    "uvicorn": serve_uvicorn,
    "aiohttp": serve_aiohttp,
}


def drive(port: int, path: str, clients: int, seconds: float) -> tuple[float, float]:
    """Requests per second and the median latency in microseconds, as wrk saw them."""
    command = [
        "wrk",
        "-t1",
        f"-c{clients}",
        f"-d{max(1, round(seconds))}s",
        "--latency",
        f"http://127.0.0.1:{port}{path}",
    ]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 30).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    median = re.search(r"50%\s+([\d.]+)(us|ms)", text)
    if rate is None or median is None:
        raise SystemExit(text)
    return float(rate[1]), float(median[1]) * (1000 if median[2] == "ms" else 1)


def measure(targets: list[tuple[str, str]], seconds: float, rounds: int) -> dict[str, tuple[float, float]]:
    """Best throughput at 32 clients and best median latency at 1 client of each (server, path)."""
    processes = {name: start(name) for name in {name for name, _ in targets}}
    best: dict[str, tuple[float, float]] = {}
    try:
        for _ in range(rounds):
            for name, path in targets:
                port = processes[name][1]
                rate, _ = drive(port, path, 32, seconds)
                _, median_us = drive(port, path, 1, seconds / 2)
                old = best.get(name + path, (0.0, float("inf")))
                best[name + path] = (max(old[0], rate), min(old[1], median_us))
    finally:
        for process, _ in processes.values():
            process.kill()
            process.wait()
    return best


def start(name: str) -> tuple[subprocess.Popen[str], int]:
    """One server process and its port."""
    process = subprocess.Popen([sys.executable, __file__, "--serve", name], stdout=subprocess.PIPE, text=True)
    if process.stdout is None:
        raise SystemExit("no output of the server")
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"the server {name} did not start; is it installed?")
    time.sleep(0.2)
    return process, int(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--serve", choices=sorted(SERVERS), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--with", dest="others", action="append", default=[], choices=["uvicorn", "aiohttp"])
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(SERVERS[arguments.serve]())
        return
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: apt-get install -y wrk")
    targets = [
        ("yardstick", "/"),
        ("stoker", "/raw"),
        ("stoker", "/"),
        *((name, "/") for name in arguments.others),
    ]
    best = measure(targets, arguments.seconds, arguments.rounds)
    floor_rate, floor_us = best["yardstick/"]
    for target, (rate, median_us) in best.items():
        print(
            f"{target:12} {rate:9,.0f} requests/s at 32 clients ({rate / floor_rate:5.1%} of the yardstick)"
            f"   p50 {median_us:6.1f} us at 1 client ({median_us / floor_us:4.2f} x)"
        )


if __name__ == "__main__":
    main()
