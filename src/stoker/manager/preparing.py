"""Makes the sandboxes that nobody has asked for yet, as ``ahead`` decides: proactive and provisioned ones."""

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import structlog

from stoker.core.clock import Clock
from stoker.core.errors import ServiceError, StokerError
from stoker.manager.ahead import Provision, wants_proactive
from stoker.manager.pool import Pool
from stoker.manager.waiting import Waiting
from stoker.services.functions import FunctionVersion
from stoker.services.manager import Provisioned, Reservation
from stoker.services.worker import InitFailed, SandboxReference, WorkerUnavailable

_log = structlog.get_logger("stoker.manager")


class Making(Protocol):
    """What the manager does for it."""

    async def create_where_room(self, function: FunctionVersion, *, provisioned: bool) -> SandboxReference:
        """A new sandbox on a worker that has room now; only a provisioned one takes room from idle ones.

        Raises:
            WorkerUnavailable, RuntimeUnavailable, InitFailed: there is none.
        """
        ...

    def release(self, reservation: Reservation, *, healthy: bool) -> None: ...

    def retire(self, references: list[SandboxReference]) -> None: ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...


class Preparing:
    """One for a manager. ``check`` is called now and then; everything else is an occasion."""

    def __init__(
        self,
        pool: Pool,
        waiting: Waiting,
        clock: Clock,
        making: Making,
        *,
        proactive: bool,
        arm: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._waiting = waiting
        self._clock = clock
        self._making = making
        self._proactive = proactive
        self._arm = arm
        self._under_way: set[str] = set()
        self._provisions: dict[str, Provision] = {}

    def after_use(self, function: FunctionVersion) -> None:
        """A caller took a sandbox that was made for it, or ahead of it: maybe the next one is wanted."""
        deployment_id = function.deployment_id
        if not self._proactive or deployment_id in self._under_way:
            return
        if wants_proactive(
            in_use=self._pool.in_use(function.key, deployment_id),
            idle=self._pool.idle_of(deployment_id),
            making=self._waiting.in_the_making(deployment_id),
        ):
            self._under_way.add(deployment_id)
            self._making.spawn(self._prepare(function))

    async def _prepare(self, function: FunctionVersion) -> None:
        try:
            await self._make(function, provisioned=False)
        except (StokerError, ServiceError) as problem:
            # Nobody waits for it: the next caller makes their own and is told what is wrong.
            _log.debug("no sandbox could be made ahead", function=function.arn, reason=str(problem))
        finally:
            self._under_way.discard(function.deployment_id)

    # --- provisioned concurrency

    def provision(self, function: FunctionVersion, count: int) -> None:
        """As ``Provisioner.provision``."""
        deployment_id = function.deployment_id
        known = self._provisions.get(deployment_id)
        if count and known is None:
            self._provisions[deployment_id] = Provision(function, count)
        elif count and known is not None:
            known.count = count
        else:
            self._provisions.pop(deployment_id, None)
        self._let_surplus_go(function)
        self.check()

    def provisioned(self, function: FunctionVersion) -> Provisioned:
        """As ``Provisioner.provisioned``."""
        known = self._provisions.get(function.deployment_id)
        available = self._pool.provisioned_of(function.key, function.deployment_id)
        return Provisioned(available, None if known is None else known.failure)

    def check(self) -> None:
        """Begin to make what is missing: at first, and when provisioned sandboxes ended."""
        now_s = self._clock.monotonic_s()
        for deployment_id, provision in self._provisions.items():
            available = self._pool.provisioned_of(provision.function.key, deployment_id)
            for _ in range(provision.missing(available, now_s)):
                provision.making += 1
                self._making.spawn(self._provide(provision))
        if self._provisions:
            self._arm()

    async def _provide(self, provision: Provision) -> None:
        function = provision.function
        try:
            await self._make(function, provisioned=True)
        except InitFailed as problem:
            provision.failed(str(problem), self._clock.monotonic_s())
        except (StokerError, ServiceError) as problem:
            _log.warning(
                "provisioned concurrency lacks a sandbox", function=function.arn, reason=str(problem)
            )
            provision.failed("There is no room for it.", self._clock.monotonic_s())
        else:
            provision.succeeded()
        finally:
            provision.making -= 1
        self._let_surplus_go(function)
        self.check()

    def _let_surplus_go(self, function: FunctionVersion) -> None:
        """End what is held beyond the count of now, which may have changed while it was being made."""
        key, deployment_id = function.key, function.deployment_id
        current = self._provisions.get(deployment_id)
        surplus = self._pool.provisioned_of(key, deployment_id) - (0 if current is None else current.count)
        if surplus > 0:
            self._making.retire(self._pool.unprovision(key, deployment_id, surplus))

    async def _make(self, function: FunctionVersion, *, provisioned: bool) -> None:
        ticket = self._pool.plan(function, self._clock.monotonic_s())
        if ticket is None:
            raise WorkerUnavailable(f"{function.arn} is scaling as fast as it may")
        try:
            reference = await self._making.create_where_room(function, provisioned=provisioned)
        except BaseException:
            self._pool.abandon(ticket)
            raise
        reservation = self._pool.adopt(
            ticket,
            function,
            reference,
            self._clock.monotonic_s(),
            proactive=not provisioned,
            provisioned=provisioned,
        )
        self._making.release(reservation, healthy=True)
