"""Calls between two processes over one connection: numbered, with deadlines, cancellation and limits.

Both sides may call. The connection is a socket that the processes share from birth, or got from each other;
whoever holds it is trusted. Knows messages, never what they are for.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from stoker.core.errors import ServiceError, StokerError
from stoker.transport.frames import ANSWER, CALL, CANCEL, FAILURE, FrameConnection, FrameError
from stoker.transport.messages import Failure, describe, restore

CALLS_MAX: Final = 8192
"""Calls under way in one direction: as many as one HTTP server has connections."""
SERVED_MAX_BYTES: Final = 256 * 1024 * 1024
"""Nothing more is read while the requests of calls being served hold this much."""

Handle = Callable[..., Awaitable[Any]]
Report = Callable[[str, BaseException], None]


class PeerLost(StokerError):
    """The process at the other end is gone; whether the call was served is not known."""


class DeadlineExceeded(StokerError):
    """No answer came in time."""


class Operation:
    """What can be called: its name, its arguments as a tuple type, its answer's type.

    ``cancellable``: it ends when the caller no longer waits; any other runs to its end.
    """

    def __init__(
        self, name: str, arguments: Any, answer: Any, *, deadline_s: float, cancellable: bool = False
    ) -> None:
        self.name = name
        self.wire_name = name.encode()
        self.deadline_s = deadline_s
        self.cancellable = cancellable
        self.decode_arguments: Callable[[Any], Any] = msgspec.msgpack.Decoder(arguments).decode
        self.decode_answer: Callable[[Any], Any] = msgspec.msgpack.Decoder(answer).decode


class RpcStatistics(msgspec.Struct, frozen=True):
    """One side's view of what it served."""

    calls: int
    cancelled: int
    in_flight: int


class _Pending(msgspec.Struct, eq=False):
    """A call of ours."""

    operation: Operation
    answer: "asyncio.Future[Any]"


class _Served(msgspec.Struct, eq=False):
    """A call of the other side."""

    operation: Operation
    task: "asyncio.Task[None]"


def _report_to_loop(what: str, error: BaseException) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error})


_decode_failure = msgspec.msgpack.Decoder(Failure).decode


class RpcPeer:
    """One end of a connection. ``operations`` are those that the other side may call."""

    def __init__(self, operations: Mapping[Operation, Handle], *, report: Report = _report_to_loop) -> None:
        self._operations = {
            operation.wire_name: (operation, handle) for operation, handle in operations.items()
        }
        self._report = report
        self._frames = FrameConnection(self)
        self._pending: dict[int, _Pending] = {}
        self._served: dict[int, _Served] = {}
        self._served_bytes = 0
        self._next_call = 0
        self._calls = 0
        self._cancelled = 0
        self._lost: PeerLost | None = None
        self._ended = asyncio.Event()

    async def attach(self, connection: socket.socket) -> None:
        """Start to speak over a connected Unix socket, which is closed with us."""
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self._frames, sock=connection)

    async def wait_ended(self) -> None:
        """Return once the connection is gone."""
        await self._ended.wait()

    def statistics(self) -> RpcStatistics:
        """Counts as of now."""
        return RpcStatistics(self._calls, self._cancelled, len(self._served))

    def hang_up(self) -> None:
        """End the connection at once; operations under way that nothing may stop half-way go on."""
        self._frames.abort()

    async def close(self) -> None:
        """End the connection and cancel what is still being served. Idempotent."""
        self._frames.close()
        tasks = [served.task for served in self._served.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- calling ------------------------------------------------------------------------------------------

    async def call(self, operation: Operation, *arguments: Any) -> Any:
        """The other side's answer; cancelling tells it so.

        Raises:
            ServiceError, and every error that ``messages`` carries: as raised there.
            UncarriedError: it raised something else.
            PeerLost, DeadlineExceeded, FrameError: the call or its answer did not get through.
        """
        if self._frames.full:
            await self._frames.wait_writable()
        if self._lost is not None:
            raise self._lost
        if len(self._pending) >= CALLS_MAX:
            raise ServiceError("ServiceUnavailableException", "Too many requests at one time.")
        loop = asyncio.get_running_loop()
        call = self._number()
        self._frames.send(CALL, call, operation.wire_name, arguments)
        pending = _Pending(operation, loop.create_future())
        self._pending[call] = pending
        deadline = loop.call_later(operation.deadline_s, self._give_up, call, pending)
        try:
            return await pending.answer
        except asyncio.CancelledError:
            self._frames.send(CANCEL, call)
            raise
        finally:
            deadline.cancel()
            self._pending.pop(call, None)

    def _number(self) -> int:
        call = self._next_call
        while call in self._pending:
            call = (call + 1) & 0xFFFFFFFF
        self._next_call = (call + 1) & 0xFFFFFFFF
        return call

    def _give_up(self, call: int, pending: _Pending) -> None:
        if not pending.answer.done():
            operation = pending.operation
            pending.answer.set_exception(
                DeadlineExceeded(f"{operation.name} was not answered within {operation.deadline_s:g} s")
            )
            self._frames.send(CANCEL, call)

    # --- FrameReceiver ------------------------------------------------------------------------------------

    def frame_received(self, kind: int, call: int, name: bytes, message: memoryview) -> None:
        if kind == CALL:
            self._serve(call, name, message)
        elif kind == CANCEL:
            served = self._served.get(call)
            if served is not None and served.operation.cancellable:
                self._cancelled += 1
                served.task.cancel()
        else:
            # An answer to a call that was cancelled or given up crosses with our saying so.
            pending = self._pending.get(call)
            if pending is not None and not pending.answer.done():
                _settle(pending, kind, message)

    def connection_ended(self, reason: Exception) -> None:
        if isinstance(reason, FrameError):
            self._report("the connection to another process was cut", reason)
        self._lost = PeerLost(f"the other process is gone: {reason}")
        for pending in self._pending.values():
            if not pending.answer.done():
                pending.answer.set_exception(self._lost)
        for served in tuple(self._served.values()):
            if served.operation.cancellable:
                self._cancelled += 1
                served.task.cancel()
        self._ended.set()

    # --- serving ------------------------------------------------------------------------------------------

    def _serve(self, call: int, name: bytes, message: memoryview) -> None:
        found = self._operations.get(name)
        if found is None or call in self._served or len(self._served) >= CALLS_MAX:
            raise FrameError(f"a call of {name!r} that cannot be")
        operation, handle = found
        try:
            arguments = operation.decode_arguments(message)
        except msgspec.DecodeError as problem:
            raise FrameError(
                f"the arguments of {operation.name} do not arrive as declared: {problem}"
            ) from None
        self._calls += 1
        self._hold(len(message))
        task = asyncio.get_running_loop().create_task(self._run(call, operation, handle, arguments))
        self._served[call] = _Served(operation, task)
        task.add_done_callback(partial(self._over, call, len(message)))

    async def _run(self, call: int, operation: Operation, handle: Handle, arguments: tuple[Any, ...]) -> None:
        try:
            answer = await handle(*arguments)
            if self._frames.full:
                await self._frames.wait_writable()
            self._frames.send(ANSWER, call, b"", answer)
        except StokerError as error:
            self._frames.send(FAILURE, call, b"", describe(error))
        except asyncio.CancelledError:
            self._frames.send(FAILURE, call, b"", Failure("CancelledError", operation.name))
            raise
        except Exception as error:
            self._report(f"{operation.name}, called by another process, failed", error)
            self._frames.send(FAILURE, call, b"", describe(error))

    def _over(self, call: int, size_bytes: int, _task: "asyncio.Task[None]") -> None:
        # Not in the task itself: one that is cancelled before its first step never runs at all.
        del self._served[call]
        self._hold(-size_bytes)

    def _hold(self, size_bytes: int) -> None:
        self._served_bytes += size_bytes
        if self._served_bytes > SERVED_MAX_BYTES:
            self._frames.pause()
        else:
            self._frames.resume()


def _settle(pending: _Pending, kind: int, message: memoryview) -> None:
    try:
        if kind == FAILURE:
            pending.answer.set_exception(restore(_decode_failure(message)))
        else:
            pending.answer.set_result(pending.operation.decode_answer(message))
    except msgspec.DecodeError as problem:
        pending.answer.set_exception(FrameError(f"the answer of {pending.operation.name}: {problem}"))
