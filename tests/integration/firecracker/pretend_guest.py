"""Speaks for a guest through a real VMM's sockets, as Firecracker does when a guest connects to CID 2.

No guest kernel runs on every host that has /dev/kvm; the driver, the jail, the jailer and Firecracker are the real
ones all the same, and cannot tell.
"""

import asyncio
import contextlib
import struct
from pathlib import Path

from stoker.sandbox.container_launch import MAGIC as LAUNCH_MAGIC
from stoker.sandbox.container_launch import ReportKind
from stoker.sandbox.firecracker.driver import FirecrackerDriver
from stoker.sandbox.firecracker.sandbox import FirecrackerSandbox
from stoker.sandbox.guest.contract import (
    MAGIC,
    PORT_CONTROL,
    PORT_OUTPUT,
    PORT_TELEMETRY,
    RECORD,
    VERSION,
    Answer,
    Order,
)


class PretendGuest:
    """Comes up in the next VM of a driver; keeps what it was told."""

    def __init__(
        self, driver: FirecrackerDriver, *, launched: bool = False, hello: bytes | None = None
    ) -> None:
        self.orders: list[tuple[Order, int, bytes]] = []
        self.errors: dict[Order, int] = {}
        self.sandbox: FirecrackerSandbox | None = None
        self._driver = driver
        self._known = set(driver.sandboxes)
        self._hello = hello or struct.pack("<IIQQ64s", VERSION, launched, 1, 128 << 20, b"6.1.0-pretend")
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._task = asyncio.create_task(self._live())

    async def _live(self) -> None:
        while not (new := set(self._driver.sandboxes) - self._known):
            await asyncio.sleep(0.002)
        self.sandbox = new.pop()
        while not await self._running():
            await asyncio.sleep(0.005)
        await self._serve()

    async def _running(self) -> bool:
        assert self.sandbox
        with contextlib.suppress(Exception):
            return (await self.sandbox.vmm.api.describe()).state == "Running"
        return False

    async def _serve(self) -> None:
        assert self.sandbox
        root = Path(f"/proc/{self.sandbox.vmm.pid}/root/sockets")
        for port in (PORT_OUTPUT, PORT_TELEMETRY, PORT_CONTROL):
            reader, self._writers[port] = await asyncio.open_unix_connection(root / f"v_{port}")
        self.say(Answer.HELLO, self._hello)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                magic, kind, argument, size = RECORD.unpack(await reader.readexactly(RECORD.size))
                assert magic == MAGIC
                self._take(Order(kind), argument, await reader.readexactly(size))

    def _take(self, order: Order, argument: int, body: bytes) -> None:
        self.orders.append((order, argument, body))
        if order is Order.LAUNCH:
            self.report(ReportKind.STARTED, 0)
        elif order is not Order.POWER_OFF:
            done = struct.pack(
                "<i124s", self.errors.get(order, 0), b"pretending" if order in self.errors else b""
            )
            self.say(Answer.DONE, done, order)

    def report(self, kind: ReportKind, value: int) -> None:
        self.say(Answer.REPORT, struct.pack("<IIiI", LAUNCH_MAGIC, kind, value, 0))

    def memory(self, current: int, peak: int, oom_kills: int) -> None:
        self.say(Answer.MEMORY, struct.pack("<QQQ", current, peak, oom_kills))

    def say(self, kind: Answer, body: bytes, argument: int = 0) -> None:
        self.write(PORT_CONTROL, RECORD.pack(MAGIC, kind, argument, len(body)) + body)

    def write(self, port: int, data: bytes) -> None:
        self._writers[port].write(data)

    def names(self) -> list[str]:
        return [order.name for order, _, _ in self.orders]

    async def told(self, order: Order) -> None:
        for _ in range(500):
            if order.name in self.names():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"never told {order.name}")

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        for writer in self._writers.values():
            writer.close()
