"""The client's end of the jail's socket: requests pipelined by id, descriptors passed both ways.

Knows the protocol's records and nothing of what the answers are for.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from stoker.core.errors import SandboxError
from stoker.sandbox.container_protocol import (
    ANSWER_BYTES,
    ANSWER_FDS_MAX,
    MOUNT_ORDER,
    Answer,
    Operation,
    ProtocolMismatch,
    decode_answer,
    encode_request,
)
from stoker.sandbox.driver import MountPoint, SandboxLimits, SandboxUser

REQUESTS_MAX = 4096
"""Requests without an answer yet; more are refused."""


class JailUnavailable(SandboxError):
    """The jail is not there, or went away before it answered."""


class JailConnection:
    """One connection. It ends once, by ``close`` or by the jail's going; every open request fails then."""

    def __init__(self, connected: socket.socket, on_lost: Callable[["JailConnection"], None]) -> None:
        self._socket = connected
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._next_id = 1
        self._closed = False
        self._loop.add_reader(connected.fileno(), self._receive)

    @classmethod
    def open(cls, path: Path, on_lost: Callable[["JailConnection"], None]) -> "JailConnection":
        """Connect to the jail.

        Raises:
            JailUnavailable: nobody listens there, or we may not speak to it.
        """
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connected.setblocking(False)
        try:
            connected.connect(str(path))
        except OSError as problem:
            connected.close()
            raise JailUnavailable(f"no jail at {path}: {problem.strerror}") from problem
        return cls(connected, on_lost)

    @property
    def closed(self) -> bool:
        return self._closed

    async def request(
        self,
        operation: Operation,
        *,
        sandbox: int = 0,
        limits: SandboxLimits | None = None,
        folders: dict[MountPoint, int] | None = None,
        egress: bool = False,
        is_zygote: bool = False,
        zygote: int = 0,
        user: SandboxUser | None = None,
        image: int | None = None,
        files: Sequence[int] = (),
    ) -> Answer:
        """Send one request and wait for its answer. ``folders``, ``image`` and ``files`` are the
        caller's, and stay open until then.

        Descriptors of an answer whose caller was cancelled are closed.

        Raises:
            JailUnavailable: there will be no answer.
        """
        if self._closed or len(self._waiting) >= REQUESTS_MAX:
            raise JailUnavailable("too many open requests" if not self._closed else "the jail is gone")
        request_id, self._next_id = self._next_id, self._next_id + 1
        points = tuple(point for point in MOUNT_ORDER if folders and point in folders)
        fds = [folders[point] for point in points] if folders else []
        fds += [*files] if image is None else [image]
        record = encode_request(
            operation,
            request_id,
            sandbox=sandbox,
            limits=limits,
            mounts=points,
            egress=egress,
            is_zygote=is_zygote,
            zygote=zygote,
            user=user,
        )
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[request_id] = future
        unsent = (record, fds)
        self._unsent.append(unsent)
        if len(self._unsent) == 1:
            self._send()
        try:
            return await future
        finally:  # a caller that was cancelled closes its folders: they must not be sent any more
            if unsent in self._unsent:
                self._unsent.remove(unsent)
            self._waiting.pop(request_id, None)

    def close(self) -> None:
        """Disconnect; the jail ends every sandbox of this connection."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._unsent.clear()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(JailUnavailable("the jail went away"))
                future.exception()  # a caller that was cancelled meanwhile will not look

    def _send(self) -> None:
        while self._unsent:
            record, fds = self._unsent[0]
            try:
                socket.send_fds(self._socket, [record], fds)
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._send)
                return
            except OSError:
                self._lose()
                return
            self._unsent.popleft()
        self._loop.remove_writer(self._socket.fileno())

    def _receive(self) -> None:
        while not self._closed:
            try:
                data, fds, _, _ = socket.recv_fds(
                    self._socket, ANSWER_BYTES + 1, ANSWER_FDS_MAX, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self._lose()
                return
            self._deliver(data, fds)

    def _deliver(self, data: bytes, fds: list[int]) -> None:
        try:
            answer = decode_answer(data, fds)
        except ProtocolMismatch:
            _close_all(fds)
            self._lose()
            return
        future = self._waiting.pop(answer.request_id, None)
        if future is None or future.done():
            _close_all(fds)
            return
        future.set_result(answer)

    def _lose(self) -> None:
        if not self._closed:
            self.close()
            self._on_lost(self)


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
