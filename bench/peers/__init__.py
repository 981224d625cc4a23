"""Other ways to run a function on one's own machine, measured with the same echo, clients and load generator.

None of them isolates a function from the host, and none checks a signature, unless its module says so. Each is
installed on demand into a folder of its own and skipped, with the reason, where it does not install or start.
"""

import os
from pathlib import Path

from bench.figures import Figure, Missing, Options
from bench.functions import BODY
from bench.hello import hello_server
from bench.peers.functions_framework import FunctionsFramework
from bench.peers.ministack import Ministack
from bench.peers.process import Peer, answers_with
from bench.peers.serverless_offline import ServerlessOffline
from bench.peers.workerd import Workerd
from bench.wrk import Load, drive

CLIENTS = (1, 32)
PEERS: tuple[type[Peer], ...] = (FunctionsFramework, Workerd, ServerlessOffline, Ministack)
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stoker-bench" / "peers"
WARM_UP_S = {1: 3, 32: 12}
"""Some start a process for each concurrent call, which is not what is measured."""


def measure(options: Options) -> list[Figure]:
    """Every peer that can be had here."""
    seconds = min(options.seconds, 4)
    with hello_server() as url:
        hello = {clients: drive(url, {}, BODY, clients=clients, seconds=seconds) for clients in CLIENTS}
    figures: list[Figure] = []
    for kind in PEERS:
        folder = CACHE / kind.name
        folder.mkdir(parents=True, exist_ok=True)
        peer = kind(folder)
        try:
            figures += driven(peer, seconds, hello)
        except Missing as missing:
            print(f"skipped {kind.name}: {missing}", flush=True)
        finally:
            peer.stop()
    return figures


def driven(peer: Peer, seconds: float, hello: dict[int, Load]) -> list[Figure]:
    """Install, start, check that it answers as an echo does, load."""
    peer.install()
    peer.start()
    answers_with(peer.url, peer.headers, BODY)
    figures: list[Figure] = []
    for clients in CLIENTS:
        drive(peer.url, peer.headers, BODY, clients=clients, seconds=WARM_UP_S[clients])
        result = drive(peer.url, peer.headers, BODY, clients=clients, seconds=seconds)
        figures += rows(f"peer.{peer.name}.{clients}", result, hello[clients])
    return figures


def rows(name: str, result: Load, hello: Load) -> list[Figure]:
    """Latency, rate and failures; peers are no reason for a regression of ours, so nothing is tolerance-checked."""
    figures = [
        Figure(
            name=f"{name}.{part}",
            value=getattr(result, f"{part}_us"),
            unit="us",
            n=result.requests,
            yardstick=getattr(hello, f"{part}_us"),
            yardstick_name="bare HTTP hello",
            tolerance=None,
        )
        for part in ("p50", "p99")
    ]
    rate = Figure(
        name=f"{name}.rate",
        value=result.per_second,
        unit="1/s",
        n=result.requests,
        yardstick=hello.per_second,
        yardstick_name="bare HTTP hello",
        higher_is_better=True,
        tolerance=None,
    )
    failed = Figure(name=f"{name}.failed", value=result.errors, unit="requests", n=result.requests)
    return [*figures, rate, failed] if result.errors else [*figures, rate]
