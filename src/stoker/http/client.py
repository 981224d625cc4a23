"""The HTTP/1.1 client: keep-alive pools over TCP, TLS and Unix sockets, time-outs, one careful retry."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterable
from types import TracebackType
from typing import Self

import msgspec

from stoker.http.body import BodyStream, Headers
from stoker.http.errors import ConnectFailed, ExchangeTimeout, PeerVanished, PoolExhausted
from stoker.http.exchange import Answer, ClientConnection
from stoker.http.limits import ClientLimits
from stoker.http.messages import header_value
from stoker.http.origin import Origin, request_head, split_url, unix_origin
from stoker.http.pool import OriginPool

__all__ = ["ClientLimits", "HttpClient", "Origin", "Response", "ResponseStream", "split_url", "unix_origin"]

Body = bytes | AsyncIterable[bytes]

# RFC 9110 9.2.2: what may be sent again when a kept connection turns out to be dead.
_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))


class Response(msgspec.Struct, frozen=True):
    """A complete answer; header names are lower-case."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The first value of header ``name`` (lower-case), or None."""
        return header_value(self.headers, name)


class ResponseStream:
    """An answer whose body is still coming; leaving the context before its end cuts the connection."""

    def __init__(
        self, answer: Answer, body: BodyStream, connection: ClientConnection, upload: "_Upload"
    ) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = body
        self._connection = connection
        self._upload = upload

    def header(self, name: bytes) -> bytes | None:
        """The first value of header ``name`` (lower-case), or None."""
        return header_value(self.headers, name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give up what was not read. Idempotent."""
        if not self.body.ended:
            self._connection.abort()
        self.body.discard()
        await self._upload.stop()


class _Upload:
    """Sends a body of unknown length beside the reading of the answer, which may come first."""

    def __init__(self, connection: ClientConnection, body: Body) -> None:
        self._task: asyncio.Task[None] | None = None
        if not isinstance(body, bytes):
            self._task = asyncio.create_task(_send_body(connection, body))

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, PeerVanished):
                await task


async def _send_body(connection: ClientConnection, body: AsyncIterable[bytes]) -> None:
    try:
        async for chunk in body:
            await connection.send_chunk(chunk)
    except PeerVanished:
        # The answer came first, or the connection is gone; the exchange itself reports which.
        return
    except BaseException:
        # A source that fails must not look like the end of the body.
        connection.abort()
        raise
    connection.end_body()


class HttpClient:
    """Use it within one event loop and ``close`` it there. ``ssl_context`` serves every https origin."""

    def __init__(
        self, limits: ClientLimits | None = None, *, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._limits = limits or ClientLimits()
        self._ssl_context = ssl_context
        self._pools: dict[Origin, OriginPool] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def request(
        self,
        method: str,
        url: str | Origin,
        target: bytes | None = None,
        *,
        headers: Headers | None = None,
        body: Body = b"",
        timeout_s: float = 60.0,
        max_response_bytes: int | None = None,
        idempotent: bool | None = None,
    ) -> Response:
        """Exchange one request for a whole response. ``target`` overrides the URL's path and query.

        ``idempotent`` (by default what the method says) allows one retry when a kept connection died before a
        byte of the answer came. Raises ConnectFailed, ExchangeTimeout, PeerVanished, ResponseInvalid,
        BodyTooLarge, PoolExhausted, InvalidHeader.
        """
        origin, target = _aim(url, target)
        size_bytes = len(body) if isinstance(body, bytes) else None
        head = request_head(method, target, origin.authority, headers or [], size_bytes)
        max_bytes = self._limits.max_response_bytes if max_response_bytes is None else max_response_bytes
        again = (method in _IDEMPOTENT if idempotent is None else idempotent) and isinstance(body, bytes)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._attempt(origin, head, body, method == "HEAD", max_bytes, again)
        except TimeoutError as error:
            raise ExchangeTimeout(f"no complete answer within {timeout_s} s") from error
        return Response(answer.status, answer.headers, answer.body)

    async def _attempt(
        self, origin: Origin, head: bytes, body: Body, head_only: bool, max_bytes: int, again: bool
    ) -> Answer:
        connection = await self._acquire(origin)
        try:
            return await self._exchange(connection, head, body, head_only, max_bytes)
        except PeerVanished:
            if not again or connection.answered_bytes or connection.exchanges < 2:
                raise
        # The server had closed a kept connection. Others kept beside it are likely as dead.
        self._pool(origin).close_idle(asyncio.get_running_loop().time())
        return await self._exchange(await self._acquire(origin), head, body, head_only, max_bytes)

    async def _exchange(
        self, connection: ClientConnection, head: bytes, body: Body, head_only: bool, max_bytes: int
    ) -> Answer:
        whole = body if isinstance(body, bytes) else None
        pending = connection.begin(head, whole, head_only=head_only, streaming=False, max_bytes=max_bytes)
        upload = _Upload(connection, body) if whole is None else None
        try:
            return await pending
        except asyncio.CancelledError:
            connection.abort()
            raise
        finally:
            if upload is not None:
                await upload.stop()

    async def stream(
        self,
        method: str,
        url: str | Origin,
        target: bytes | None = None,
        *,
        headers: Headers | None = None,
        body: Body = b"",
        timeout_s: float = 60.0,
        max_response_bytes: int | None = None,
    ) -> ResponseStream:
        """Exchange a request for a response head; its ``body`` follows chunk by chunk.

        ``timeout_s`` covers everything up to the head. Never retried. Use the result as a context manager.
        """
        origin, target = _aim(url, target)
        whole = body if isinstance(body, bytes) else None
        size_bytes = None if whole is None else len(whole)
        head = request_head(method, target, origin.authority, headers or [], size_bytes)
        max_bytes = self._limits.max_response_bytes if max_response_bytes is None else max_response_bytes
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._acquire(origin)
                pending = connection.begin(
                    head, whole, head_only=method == "HEAD", streaming=True, max_bytes=max_bytes
                )
                return await _await_head(connection, pending, body)
        except TimeoutError as error:
            raise ExchangeTimeout(f"no response headers within {timeout_s} s") from error

    async def close(self) -> None:
        """Close every connection; exchanges under way fail with PeerVanished."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for pool in self._pools.values():
            pool.abort_all()
        await asyncio.sleep(0)
        self._pools.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Connections.

    def _pool(self, origin: Origin) -> OriginPool:
        pool = self._pools.get(origin)
        if pool is None:
            if self._closed:
                raise ConnectFailed("the client is closed")
            if len(self._pools) >= self._limits.max_origins:
                self._pools = {key: kept for key, kept in self._pools.items() if not kept.unused}
                if len(self._pools) >= self._limits.max_origins:
                    raise PoolExhausted("connections to too many origins are open")
            pool = self._pools[origin] = OriginPool(self._limits)
        return pool

    async def _acquire(self, origin: Origin) -> ClientConnection:
        pool = self._pool(origin)
        connection = pool.take_nowait()
        while connection is None and not pool.reserve_nowait():
            connection = await pool.wait_turn()
            if connection is None:
                # A slot was handed over with the turn.
                break
            if not connection.usable:
                # It died between being handed over and this task's turn.
                connection = None
        if connection is not None:
            return connection
        try:
            connection = await self._connect(origin, pool)
        except BaseException:
            pool.slot_freed()
            raise
        pool.connected(connection)
        if self._sweeper is None:
            self._sweep_later()
        return connection

    async def _connect(self, origin: Origin, pool: OriginPool) -> ClientConnection:
        loop = asyncio.get_running_loop()
        context = self._tls() if origin.secure else None

        def protocol() -> ClientConnection:
            return ClientConnection(pool, self._limits.max_response_header_bytes)

        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                if origin.unix_path is not None:
                    name = origin.host if context else None
                    _, connection = await loop.create_unix_connection(
                        protocol, origin.unix_path, ssl=context, server_hostname=name
                    )
                else:
                    _, connection = await loop.create_connection(
                        protocol, origin.host, origin.port, ssl=context
                    )
        except (OSError, TimeoutError) as error:
            raise ConnectFailed(f"cannot connect to {origin.host}:{origin.port}: {error}") from error
        return connection

    def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
        return self._ssl_context

    def _sweep_later(self) -> None:
        interval_s = self._limits.idle_timeout_s / 4
        self._sweeper = asyncio.get_running_loop().call_later(interval_s, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        idle_before_s = asyncio.get_running_loop().time() - self._limits.idle_timeout_s
        for pool in self._pools.values():
            pool.close_idle(idle_before_s)
        if any(not pool.unused for pool in self._pools.values()):
            self._sweep_later()


def _aim(url: str | Origin, target: bytes | None) -> tuple[Origin, bytes]:
    if isinstance(url, Origin):
        return url, target or b"/"
    origin, own_target = split_url(url)
    return origin, target or own_target


async def _await_head(
    connection: ClientConnection, pending: "asyncio.Future[Answer]", body: Body
) -> ResponseStream:
    upload = _Upload(connection, body)
    try:
        answer = await pending
    except BaseException:
        connection.abort()
        await upload.stop()
        raise
    if answer.stream is None:
        raise AssertionError("a streaming exchange answers with a stream")
    return ResponseStream(answer, answer.stream, connection, upload)
