"""The host's end of a guest's control connection: orders and their answers, reports, memory figures.

Knows nothing of VMMs. What the guest says wrongly ends the connection, and whoever owns it ends the VM.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence

from stoker.core.errors import SandboxDied, SandboxError
from stoker.sandbox.container_launch import Report, decode_report, encode_launch
from stoker.sandbox.driver import Launch, SandboxLimits, SandboxUser
from stoker.sandbox.guest import contract
from stoker.sandbox.guest.contract import Answer, Done, GuestBroken, Hello, Memory, Order, Place

READ_BYTES = 65536
ORDER_S = 20.0
"""Until a guest has answered an order; under software emulation on a busy host that takes its time."""

USUAL_USER = SandboxUser(993, 990)


class GuestControl:
    """Orders are answered in their order; one at a time is enough. Used on the loop it was made on."""

    def __init__(self, connection: socket.socket, *, on_report: Callable[[Report], None]) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._on_report = on_report
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._hello: asyncio.Future[Hello] = self._loop.create_future()
        self._answers: list[tuple[Order, asyncio.Future[Done]]] = []
        self._lock = asyncio.Lock()
        self.memory = Memory(0, 0, 0)
        """What it said last."""
        self.held = asyncio.Event()
        """A connection of the function waits because of ``hold``."""
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Done when there is no connection any more."""
        self._loop.add_reader(connection.fileno(), self._read)

    async def hello(self) -> Hello:
        """Wait for the guest's first words.

        Raises:
            SandboxDied
        """
        return await asyncio.shield(self._hello)

    async def order(self, record: bytes, kind: Order) -> None:
        """Send an encoded order and wait until it is done.

        Raises:
            SandboxError: it could not be; the message says what failed.
            SandboxDied: no answer comes any more.
        """
        async with self._lock:
            if self.ended.done():
                raise SandboxDied("the guest is gone")
            answer: asyncio.Future[Done] = self._loop.create_future()
            self._answers.append((kind, answer))
            try:
                async with asyncio.timeout(ORDER_S):
                    await self._loop.sock_sendall(self._connection, record)
                    done = await answer
            except TimeoutError as problem:
                self.close()
                what = kind.name.lower()
                raise SandboxDied(f"the guest did not {what} within {ORDER_S:g} s") from problem
            except OSError as problem:
                self.close()
                raise SandboxDied("the guest is gone") from problem
        if done.error:
            raise SandboxError(f"{done.step or kind.name.lower()}: {os.strerror(done.error)}")

    async def prepare(self, limits: SandboxLimits, user: SandboxUser | None) -> None:
        """Everything before the first mount: randomness, time, limits."""
        seed = os.urandom(contract.ENTROPY_BYTES)
        await self.order(contract.encode(Order.ENTROPY, body=seed), Order.ENTROPY)
        await self.order(contract.encode_clock(time.time_ns()), Order.CLOCK)
        await self.limit(limits, user)

    async def limit(self, limits: SandboxLimits, user: SandboxUser | None = None) -> None:
        """The function's memory, processes and open files."""
        who = user or USUAL_USER
        await self.order(
            contract.encode_limits(
                limits.memory_mb << 20, limits.pids_max, limits.open_files_max, who.uid, who.gid
            ),
            Order.LIMITS,
        )

    async def network(self, address: str, prefix_bits: int, gateway: str, dns: Sequence[str]) -> None:
        """Configure eth0."""
        await self.order(contract.encode_network(address, prefix_bits, gateway, dns), Order.NETWORK)

    async def mount(self, places: Sequence[Place]) -> None:
        """Mount what the block devices of these places hold now."""
        await self.order(contract.encode_mount(places), Order.MOUNT)

    async def hold(self, *, hold: bool) -> None:
        """Let the function's connections to its APIs wait, or go on."""
        await self.order(contract.encode(Order.HOLD, int(hold)), Order.HOLD)

    async def ping(self) -> None:
        """Raises SandboxDied when it does not answer."""
        await self.order(contract.encode(Order.PING), Order.PING)

    async def launch(self, launch: Launch) -> None:
        """Send the launch; reports tell the rest."""
        await self._send(contract.encode(Order.LAUNCH, body=encode_launch(launch)))

    async def power_off(self) -> None:
        """Ask the guest to end its VM."""
        await self._send(contract.encode(Order.POWER_OFF))

    async def _send(self, record: bytes) -> None:
        async with self._lock:
            try:
                await self._loop.sock_sendall(self._connection, record)
            except OSError as problem:
                raise SandboxDied("the guest is gone") from problem

    def close(self) -> None:
        """Whoever waits is told that the guest is gone. Idempotent."""
        if self.ended.done():
            return
        self._loop.remove_reader(self._connection.fileno())
        self._connection.close()
        gone = SandboxDied("the guest is gone")
        for _, answer in self._answers:
            if not answer.done():
                answer.set_exception(gone)
                answer.exception()
        self._answers.clear()
        if not self._hello.done():
            self._hello.set_exception(gone)
            self._hello.exception()
        self.ended.set_result(None)

    def _read(self) -> None:
        try:
            data = self._connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._buffer += data
        try:
            while not self.ended.done() and (record := contract.take_record(self._buffer)) is not None:
                self._take(record)
        except GuestBroken as problem:
            if not self._hello.done():
                self._hello.set_exception(problem)
                self._hello.exception()
            self.close()

    def _take(self, record: contract.Record) -> None:
        if record.kind == Answer.HELLO:
            if self._hello.done():
                raise GuestBroken("a guest said hello twice")
            self._hello.set_result(contract.decode_hello(record.body))
        elif record.kind == Answer.DONE:
            if not self._answers or self._answers[0][0] != record.argument:
                raise GuestBroken("a guest answered what was not asked")
            _, answer = self._answers.pop(0)
            if not answer.done():
                answer.set_result(contract.decode_done(record.body))
        elif record.kind == Answer.REPORT:
            report = decode_report(record.body)
            if report is None:
                raise GuestBroken("a guest sent no report")
            self._on_report(report)
        elif record.kind == Answer.MEMORY:
            self.memory = contract.decode_memory(record.body)
        elif record.kind == Answer.HELD:
            self.held.set()
        else:
            raise GuestBroken("a guest sent what is no answer")
