"""The place for one sandbox's execution environment: makes it, throttles it, measures it, removes it.

A slot has one environment at a time; after a failed Init a second one takes the first one's place.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from stoker.core.errors import IllegalTransition, LaunchRefused, SandboxDied, SandboxError
from stoker.runtimes.catalog import RuntimePlan
from stoker.sandbox.driver import SandboxSpec
from stoker.services.functions import FunctionVersion
from stoker.worker.environment import Environment, Owner
from stoker.worker.images import IMAGE, image_launch_failure
from stoker.worker.journal import Journal
from stoker.worker.launching import (
    CodeFolders,
    assignment_of,
    code_mounts_of,
    is_poolable,
    launch_of,
    limits_of,
    mounts_of,
)
from stoker.worker.outcome import Outcome, platform_failure
from stoker.worker.parts import Parts

_MIB = 1024 * 1024
_NEAR_LIMIT = 0.9
"""Below this share of its memory a sandbox cannot have run into the limit, so nobody asks the kernel."""


class Slot:
    """Used by one ``Life``, on its event loop."""

    def __init__(
        self,
        sandbox_id: str,
        function: FunctionVersion,
        log_stream: str,
        journal: Journal,
        owner: Owner,
        parts: Parts,
        *,
        provisioned: bool = False,
    ) -> None:
        self._sandbox_id = sandbox_id
        self._function = function
        self._log_stream = log_stream
        self._journal = journal
        self._owner = owner
        self._parts = parts
        self._initialization_type = "provisioned-concurrency" if provisioned else "on-demand"
        self._environment: Environment | None = None
        self._removing: asyncio.Task[None] | None = None
        self._made = 0

    @property
    def environment(self) -> Environment:
        """The environment there is.

        Raises:
            SandboxDied: there is none.
        """
        if self._environment is None:
            raise SandboxDied(self._sandbox_id)
        return self._environment

    async def make(self, plan: RuntimePlan, code: CodeFolders) -> Environment:
        """An environment with its mounts, of a pool or with no process yet; not in the slot until ``launch``.

        Raises:
            SandboxError: nothing is left of the attempt.
        """
        self._made += 1
        # A failed Init is repeated in what was made for it alone.
        if self._made == 1 and (pooled := await self._pooled(plan, code)) is not None:
            return pooled
        started_s = self._parts.clock.monotonic_s()
        environment = await self._fresh(plan, code)
        self._parts.statistics.sandbox_ms.add(self._milliseconds_since(started_s))
        return environment

    async def _pooled(self, plan: RuntimePlan, code: CodeFolders) -> Environment | None:
        """A pooled environment that has the function's code and limits; None when there is none to be had."""
        pool = self._parts.pool
        if pool is None or code.root is not None:
            return None
        environment = pool.take(plan if is_poolable(plan, self._function) else None)
        if environment is None:
            return None
        started_s = self._parts.clock.monotonic_s()
        mounts = code_mounts_of(code) if environment.pooled_runtime else mounts_of(plan, code)
        limits = limits_of(self._function, self._parts.settings.cpu_policy, initialising=True)
        try:
            # The jail does one after the other, and both are done before any code of the function runs.
            await asyncio.gather(environment.sandbox.mount(mounts), environment.sandbox.set_limits(limits))
        except SandboxError:
            environment.abandon()
            self._parts.background.spawn(environment.destroy())
            return None
        except BaseException:
            environment.abandon()
            self._parts.background.spawn(environment.destroy())
            raise
        self._parts.statistics.mount_ms.add(self._milliseconds_since(started_s))
        return environment

    async def _fresh(self, plan: RuntimePlan, code: CodeFolders) -> Environment:
        settings = self._parts.settings
        # The first one may still be on its way out when the second is made: its name is its own.
        name = self._sandbox_id if self._made == 1 else f"{self._sandbox_id}-{self._made}"
        limits = limits_of(self._function, settings.cpu_policy, initialising=True)
        sandbox = await self._parts.driver.create(
            SandboxSpec(name, limits, mounts_of(plan, code), settings.egress, user=code.user)
        )
        environment = Environment(sandbox, self._parts.clock)
        try:
            await environment.serve(self._parts.serve_service_api)
        except BaseException:
            await environment.destroy()
            raise
        return environment

    async def launch(self, environment: Environment, plan: RuntimePlan) -> Callable[[str], Outcome] | None:
        """Put an environment into the slot and start its runtime, or tell a pooled one what it is for.

        Returns what became of it, by request id, when an image's program could not be started:
        that is logged, and the slot is empty again.

        Raises:
            SandboxError: the slot is empty again and nothing is left of the attempt.
        """
        self._environment = environment
        credential = self._parts.session_credentials(self._function)
        fd = environment.sandbox.telemetry_fd_inside
        launch = launch_of(
            plan,
            self._function,
            credential,
            log_stream=self._log_stream,
            telemetry_fd=fd,
            initialization_type=self._initialization_type,
        )
        started_s = self._parts.clock.monotonic_s()
        statistics = self._parts.statistics
        try:
            environment.own(self._owner, self._journal)
            if environment.pooled_runtime:
                environment.assign(assignment_of(launch))
                statistics.assign_ms.add(self._milliseconds_since(started_s))
                return None
            await environment.launch(launch)
            statistics.launch_ms.add(self._milliseconds_since(started_s))
        except BaseException as error:
            if self._environment is environment:
                self._environment = None
            await environment.destroy()
            if isinstance(error, IllegalTransition):
                raise SandboxDied(self._sandbox_id) from error
            if isinstance(error, LaunchRefused) and plan.runtime == IMAGE:
                return self._refused(plan, error)
            raise
        return None

    def _refused(self, plan: RuntimePlan, error: LaunchRefused) -> Callable[[str], Outcome]:
        failure = image_launch_failure(plan, error)
        self._journal.note(failure.log_line)
        return partial(platform_failure, failure.error_type, failure.text)

    def throttle_soon(self) -> None:
        """Init is over: hold the sandbox to its function's share of the CPU. Nobody waits for it."""
        self._parts.background.spawn(self._throttle(self.environment))

    async def _throttle(self, environment: Environment) -> None:
        limits = limits_of(self._function, self._parts.settings.cpu_policy, initialising=False)
        try:
            await environment.throttle(limits)
        except SandboxDied:
            return
        except SandboxError:
            # A sandbox that cannot be held to its share must not run on; its end is handled as any other.
            environment.kill()

    def _milliseconds_since(self, start_s: float) -> float:
        return (self._parts.clock.monotonic_s() - start_s) * 1000.0

    def drain_output(self) -> None:
        """Log what the runtime has written so far."""
        if self._environment is not None:
            self._environment.drain_output()

    def memory(self) -> tuple[int, bool]:
        """(largest use so far in bytes, whether the kernel killed for want of memory)."""
        if self._environment is None:
            return 0, False
        sandbox = self._environment.sandbox
        try:
            peak_bytes = sandbox.memory_peak_bytes()
            near = peak_bytes == 0 or peak_bytes >= self._function.memory_mb * _MIB * _NEAR_LIMIT
            return peak_bytes, near and sandbox.oom_kills() > 0
        except SandboxDied:
            return 0, False

    def memory_current_bytes(self) -> int:
        """Memory in use now; 0 when there is no environment."""
        if self._environment is None:
            return 0
        try:
            return self._environment.sandbox.memory_current_bytes()
        except SandboxDied:
            return 0

    def layers(self) -> Mapping[str, str]:
        """What stands around its function; nothing when there is no environment."""
        return self._environment.layers() if self._environment is not None else {}

    def discard(self) -> None:
        """Kill what is in the slot at once and remove it behind."""
        environment, self._environment = self._environment, None
        if environment is not None:
            environment.abandon()
            self._removing = self._parts.background.spawn(environment.destroy())

    async def wait_removed(self) -> None:
        """Until what was discarded last is gone."""
        if self._removing is not None:
            await asyncio.wait((self._removing,))
