"""The front-end processes of one service: starts them, hands them their orders, replaces those that die."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping

import msgspec
import structlog

from stoker.app.frontends_listening import SharedAddress
from stoker.app.frontends_process import FrontEndProcess, start_process
from stoker.app.frontends_protocol import BEGIN, DRAIN, KEYS, Orders
from stoker.core.errors import StokerError
from stoker.services.credentials import Credential
from stoker.transport.rpc import Handle, Operation, RpcPeer, RpcStatistics

RESTART_FIRST_S = 0.1
RESTART_LONGEST_S = 10.0
"""How long to wait before a front end is replaced: doubled while they die young."""
YOUNG_S = 30.0
END_AFTER_S = 5.0
"""What a front end gets beyond the time to drain before it is killed."""

_log = structlog.get_logger("stoker.app")


class FrontEndsStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """All front-end processes together, the dead ones included in what only grows."""

    processes: int
    restarts: int
    calls: int
    cancelled: int
    in_flight: int


class _FrontEnd(msgspec.Struct, eq=False):
    """A process that listens, and the line to it."""

    process: FrontEndProcess
    peer: RpcPeer


class FrontEnds:
    """``count`` processes that accept connections on one address and ask this one for everything else.

    ``operations`` is what they may ask; ``orders`` makes what each is told when it starts.
    """

    def __init__(
        self,
        count: int,
        address: SharedAddress,
        orders: Callable[[], Orders],
        operations: Mapping[Operation, Handle],
    ) -> None:
        self._count = count
        self._address = address
        self._orders = orders
        self._operations = operations
        self._living: list[_FrontEnd] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._restarts = 0
        self._past_calls = 0
        self._past_cancelled = 0

    async def start(self) -> None:
        """Start all of them; each listens when this returns.

        Raises:
            StokerError: one does not start; saying why.
            OSError: the address is taken.
        """
        self._address.reserve()
        first = await asyncio.gather(*(self._begin() for _ in range(self._count)))
        self._keepers = [asyncio.create_task(self._keep(front_end)) for front_end in first]

    async def close(self, grace_s: float) -> None:
        """Let each finish its requests for ``grace_s``, then end it. Idempotent."""
        keepers, self._keepers = self._keepers, []
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        await asyncio.gather(*(self._end(front_end, grace_s) for front_end in tuple(self._living)))
        self._address.close()

    async def tell_keys(self, keys: tuple[Credential, ...], session_keys: tuple[bytes, ...]) -> None:
        """Have each accept these and no others; one that cannot be told must not go on with the old."""
        living = tuple(self._living)
        told = await asyncio.gather(
            *(front_end.peer.call(KEYS, keys, session_keys) for front_end in living), return_exceptions=True
        )
        for front_end, answer in zip(living, told, strict=True):
            if isinstance(answer, BaseException):
                front_end.process.kill()

    def statistics(self) -> FrontEndsStatistics:
        """Counts as of now."""
        served = [front_end.peer.statistics() for front_end in self._living]
        return FrontEndsStatistics(
            processes=len(self._living),
            restarts=self._restarts,
            calls=self._past_calls + sum(each.calls for each in served),
            cancelled=self._past_cancelled + sum(each.cancelled for each in served),
            in_flight=sum(each.in_flight for each in served),
        )

    async def _begin(self) -> _FrontEnd:
        process, connection = start_process(self._address)
        front_end = _FrontEnd(process, RpcPeer(self._operations, report=_report))
        self._living.append(front_end)
        try:
            await front_end.peer.attach(connection)
            await front_end.peer.call(BEGIN, self._orders())
        except BaseException:
            await self._buried(front_end)
            raise
        return front_end

    async def _keep(self, front_end: _FrontEnd) -> None:
        """Replace a front end whenever it has died, for ever."""
        loop = asyncio.get_running_loop()
        wait_s = RESTART_FIRST_S
        while True:
            born_s = loop.time()
            status = await front_end.process.wait()
            await self._buried(front_end)
            wait_s = RESTART_FIRST_S if loop.time() - born_s > YOUNG_S else min(wait_s * 2, RESTART_LONGEST_S)
            _log.warning("front_end_died", pid=front_end.process.pid, status=status, restart_in_s=wait_s)
            await asyncio.sleep(wait_s)
            front_end = await self._replaced(wait_s)

    async def _replaced(self, wait_s: float) -> _FrontEnd:
        while True:
            try:
                replacement = await self._begin()
            except (StokerError, OSError) as problem:
                _log.error("front_end_not_started", problem=str(problem), again_in_s=wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RESTART_LONGEST_S)
            else:
                self._restarts += 1
                return replacement

    async def _end(self, front_end: _FrontEnd, grace_s: float) -> None:
        with contextlib.suppress(StokerError):
            # One that was sent a signal of its own may be gone already.
            await front_end.peer.call(DRAIN)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(front_end.process.wait(), grace_s + END_AFTER_S)
        await self._buried(front_end)
        await front_end.peer.close()

    async def _buried(self, front_end: _FrontEnd) -> None:
        """Let go of a front end that is dead, or must be."""
        front_end.process.kill()
        await front_end.process.wait()
        if front_end in self._living:
            self._living.remove(front_end)
            self._forget(front_end.peer.statistics())
        front_end.peer.hang_up()

    def _forget(self, last: RpcStatistics) -> None:
        self._past_calls += last.calls
        self._past_cancelled += last.cancelled


def _report(what: str, error: BaseException) -> None:
    _log.error("front_end_call_failed", what=what, exc_info=error)
