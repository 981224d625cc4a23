"""``python -m stoker.app.frontends_main``: one front-end process. Speaks HTTP, checks, asks the service.

It holds keys in memory and no state: when it dies, its connections end and nothing else.
"""

import asyncio
import ctypes
import gc
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack

import uvloop

from stoker.api.dispatch import Api
from stoker.api.errors import http_error_body
from stoker.api.urls import UrlCalls
from stoker.app.frontends_protocol import BEGIN, DRAIN, KEYS, Orders
from stoker.app.frontends_unsigned import RemotePages, remote_downloads
from stoker.app.log_output import configure_logging
from stoker.app.tls import tls_context
from stoker.app.unsigned import DOWNLOAD_PREFIX
from stoker.core.clock import SystemClock
from stoker.core.errors import StokerError
from stoker.http.server import HttpServer
from stoker.services.credentials import Credential
from stoker.store.key_ring import KeyRing
from stoker.transport.remote import RemoteFrontend, RemoteUrlFrontend, remote_handlers
from stoker.transport.rpc import RpcPeer

DRAIN_S = 20.0
"""How long requests have to finish once the front end was told to end."""
EX_LOST = 1

_PR_SET_PDEATHSIG = 1


class FrontEndMain:
    """Waits for its orders, then serves until it is told to end, or the service is gone."""

    def __init__(self, listening: list[socket.socket]) -> None:
        self._listening = listening
        self._stack = AsyncExitStack()
        self._stopping = asyncio.Event()
        self._peer = RpcPeer({BEGIN: self._begin, KEYS: self._replace_keys, DRAIN: self._drain})
        self._ring: KeyRing | None = None

    async def run(self, connection: socket.socket) -> int:
        """The exit status: 0 after a drain."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopping.set)
        await self._peer.attach(connection)
        lost = asyncio.ensure_future(self._peer.wait_ended())
        stopped = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((lost, stopped), return_when=asyncio.FIRST_COMPLETED)
        if lost.done():
            # Nobody is left to ask: clients are better off with a closed connection than with errors.
            return EX_LOST
        await self._stack.aclose()
        await self._peer.close()
        return 0

    async def _begin(self, orders: Orders) -> None:
        configure_logging(orders.log_level)
        clock = SystemClock()
        pages, downloads = RemotePages(self._peer), remote_downloads(self._peer)
        self._stack.push_async_callback(downloads.close)
        self._stack.push_async_callback(pages.close)
        self._ring = KeyRing(orders.session_keys, clock, orders.keys)
        api = Api(
            credentials=self._ring,
            clock=clock,
            frontend=RemoteFrontend(self._peer),
            urls=UrlCalls(
                frontend=RemoteUrlFrontend(self._peer), domain=orders.url_domain, region=orders.region
            ),
            handlers=remote_handlers(self._peer, orders.operations),
            unsigned={**pages.routes(), DOWNLOAD_PREFIX: downloads.answer},
            endpoint=orders.public_url,
            spool_directory=orders.spool_directory,
        )
        self._stack.push_async_callback(api.close)
        server = HttpServer(api, error_body=http_error_body)
        self._stack.push_async_callback(server.close, DRAIN_S)
        tls = tls_context(orders.tls_certificate, orders.tls_key)
        for each in self._listening:
            await server.start_socket(each, tls)
        gc.freeze()

    async def _replace_keys(self, keys: tuple[Credential, ...], session_keys: tuple[bytes, ...]) -> None:
        if self._ring is None:
            raise StokerError("keys came before the orders")
        self._ring.replace(keys)
        self._ring.use_session_keys(session_keys)

    async def _drain(self) -> None:
        self._stopping.set()


def main() -> int:
    """Arguments: the service's pid, our end of the socket to it, the sockets to listen on."""
    service, connection, *listening = map(int, sys.argv[1:])
    end_with(service)
    # Ctrl-C reaches every process of a terminal; the service says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sockets = [socket.socket(fileno=each) for each in listening]

    async def run() -> int:
        return await FrontEndMain(sockets).run(socket.socket(fileno=connection))

    return uvloop.run(run())


def end_with(parent: int) -> None:
    """Let the kernel kill this process when ``parent`` ends, however that happens."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # It ended before we could ask for that.
        sys.exit(EX_LOST)


if __name__ == "__main__":
    sys.exit(main())
