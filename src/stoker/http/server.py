"""Listening sockets around ``ServerConnection``: TCP, TLS, Unix, handed-over ones; and a graceful end."""

import asyncio
import contextlib
import os
import socket
import ssl
import stat
from pathlib import Path

from stoker.core.clock import Clock, SystemClock
from stoker.http.connection import ServerConnection
from stoker.http.deadlines import sweep
from stoker.http.limits import LISTEN_BACKLOG, ServerLimits
from stoker.http.messages import Handler
from stoker.http.peers import host_port
from stoker.http.state import (
    ErrorReport,
    ServerErrorBody,
    ServerState,
    ServerStatistics,
    StreamsBody,
    default_error_body,
)

__all__ = [
    "ErrorReport",
    "Handler",
    "HttpServer",
    "ServerErrorBody",
    "ServerLimits",
    "ServerStatistics",
    "StreamsBody",
    "default_error_body",
]


class HttpServer:
    """One handler behind any number of listening sockets, all on the running loop.

    ``error_body`` shapes the answers that the server gives by itself (400, 408, 413, 414, 417, 431, 500, 501,
    503, 505); ``streams_body`` decides at the end of the headers whether a body is streamed although small;
    ``report`` is told of handlers that raise (by default the loop's exception handler).
    """

    def __init__(
        self,
        handler: Handler,
        limits: ServerLimits | None = None,
        *,
        error_body: ServerErrorBody = default_error_body,
        streams_body: StreamsBody | None = None,
        clock: Clock | None = None,
        report: ErrorReport | None = None,
    ) -> None:
        limits = limits or ServerLimits()
        self._limits = limits
        self._state = ServerState(handler, limits, clock or SystemClock(), error_body, streams_body, report)
        self._listeners: list[asyncio.Server] = []
        self._unix_paths: list[tuple[Path, int]] = []
        self._sweeper: asyncio.TimerHandle | None = None

    async def start_tcp(
        self,
        host: str,
        port: int,
        ssl_context: ssl.SSLContext | None = None,
        reuse_port: bool = False,
    ) -> None:
        """Listen on ``host:port`` (0 picks a port, see ``addresses``). Raises OSError when that cannot be."""
        loop = self._begin()
        listener = await loop.create_server(
            self._connection,
            host,
            port,
            ssl=ssl_context,
            backlog=LISTEN_BACKLOG,
            reuse_port=reuse_port or None,
            ssl_handshake_timeout=self._limits.tls_handshake_timeout_s if ssl_context else None,
        )
        self._listeners.append(listener)

    async def start_unix(self, path: str | os.PathLike[str], mode: int = 0o600) -> None:
        """Listen on a Unix socket with permissions ``mode``; a socket left behind at ``path`` is replaced.

        Raises FileExistsError when something other than a socket is there.
        """
        listening, inode = _bind_unix(Path(path), mode)
        self._unix_paths.append((Path(path), inode))
        await self.start_socket(listening)

    async def start_socket(self, sock: socket.socket, ssl_context: ssl.SSLContext | None = None) -> None:
        """Serve a bound socket that somebody else made, in whatever network namespace; closed with us."""
        loop = self._begin()
        create = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
        sock.setblocking(False)
        listener = await create(self._connection, sock=sock, ssl=ssl_context, backlog=LISTEN_BACKLOG)
        self._listeners.append(listener)

    @property
    def addresses(self) -> list[str]:
        """What is listened on: ``host:port``, or the path of a Unix socket."""
        return [_address(sock) for listener in self._listeners for sock in listener.sockets]

    def statistics(self) -> ServerStatistics:
        """Connections, requests in flight and buffered bytes, counted now."""
        return self._state.statistics()

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop accepting, let requests in flight finish for ``grace_s``, then cut the rest. Idempotent."""
        state = self._state
        state.closing = True
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()
        for connection in tuple(state.connections):
            connection.shut_down()
        if state.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(state.emptied.wait(), grace_s)
        for connection in tuple(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._unlink_sockets()

    def _connection(self) -> ServerConnection:
        return ServerConnection(self._state)

    def _begin(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._state.closing:
            raise RuntimeError("the server is closed")
        if self._sweeper is None:
            self._schedule(loop)
        return loop

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweeper = loop.call_later(self._limits.sweep_interval_s, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._schedule(loop)
        sweep(self._state)

    def _unlink_sockets(self) -> None:
        paths, self._unix_paths = self._unix_paths, []
        for path, inode in paths:
            # A successor may listen there already.
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_ino == inode:
                    path.unlink()


def _bind_unix(path: Path, mode: int) -> tuple[socket.socket, int]:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{path} is not a socket")
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Bound, but not listening until its permissions are right.
        listening.bind(os.fspath(path))
        path.chmod(mode)
        return listening, path.lstat().st_ino
    except BaseException:
        listening.close()
        raise


def _address(sock: socket.socket) -> str:
    name: str | tuple[str, int] = sock.getsockname()
    return host_port(name[0], name[1]) if isinstance(name, tuple) else str(name)
