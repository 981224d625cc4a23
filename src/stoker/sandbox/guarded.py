"""Makes any driver safe to use: one operation at a time on a sandbox, and death on the first error.

Drivers stay naive. After OpenLambda's safeSandbox.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping

from stoker.core.errors import SandboxDied
from stoker.sandbox.driver import (
    DriverInfo,
    Exit,
    Launch,
    Layered,
    MountPoint,
    MountSource,
    Sandbox,
    SandboxDriver,
    SandboxLimits,
    SandboxSpec,
)

DeathCallback = Callable[[str, Exception], None]
"""Told the sandbox_id and the error that ended it."""


class GuardedDriver:
    """A driver whose sandboxes are guarded."""

    def __init__(self, inner: SandboxDriver, on_death: DeathCallback | None = None) -> None:
        self._inner = inner
        self._on_death = on_death

    async def start(self) -> DriverInfo:
        """Start the driver inside."""
        return await self._inner.start()

    async def create(self, spec: SandboxSpec) -> "GuardedSandbox":
        """Make a guarded sandbox."""
        return GuardedSandbox(await self._inner.create(spec), self._on_death)

    async def close(self) -> None:
        """Close the driver inside."""
        await self._inner.close()


class GuardedSandbox:
    """A sandbox that is killed by the first operation that fails; every later one raises SandboxDied."""

    def __init__(self, inner: Sandbox, on_death: DeathCallback | None = None) -> None:
        self._inner = inner
        self._on_death = on_death
        self._lock = asyncio.Lock()
        self._death: Exception | None = None
        self._destroyed = False

    @property
    def sandbox_id(self) -> str:
        return self._inner.sandbox_id

    @property
    def runtime_api(self) -> socket.socket:
        return self._inner.runtime_api

    @property
    def runtime_socket(self) -> socket.socket:
        return self._inner.runtime_socket

    @property
    def service_api(self) -> socket.socket:
        return self._inner.service_api

    @property
    def output(self) -> int:
        return self._inner.output

    @property
    def telemetry(self) -> int:
        return self._inner.telemetry

    @property
    def telemetry_fd_inside(self) -> int:
        return self._inner.telemetry_fd_inside

    async def mount(self, mounts: Mapping[MountPoint, MountSource]) -> None:
        """Mount, or die."""
        await self._one_at_a_time(lambda: self._inner.mount(mounts))

    async def set_limits(self, limits: SandboxLimits) -> None:
        """Set limits, or die."""
        await self._one_at_a_time(lambda: self._inner.set_limits(limits))

    async def launch(self, launch: Launch) -> None:
        """Launch, or die."""
        await self._one_at_a_time(lambda: self._inner.launch(launch))

    async def forked(self) -> None:
        """Wait for the fork, or die."""
        await self._one_at_a_time(self._inner.forked)

    def freeze(self) -> None:
        """Freeze, or die. Raises SandboxDied."""
        self._at_once(self._inner.freeze)

    def thaw(self) -> None:
        """Thaw, or die. Raises SandboxDied."""
        self._at_once(self._inner.thaw)

    def kill(self) -> None:
        """Kill; legal at any time, also while another operation waits."""
        if not self._destroyed:
            self._inner.kill()

    async def wait(self) -> Exit:
        """Wait for the end."""
        return await self._inner.wait()

    async def destroy(self) -> None:
        """Remove everything. Idempotent; waits for the operation that runs, which the kill cuts short."""
        self.kill()
        async with self._lock:
            self._destroyed = True
            await self._inner.destroy()

    def memory_peak_bytes(self) -> int:
        return self._inner.memory_peak_bytes()

    def memory_current_bytes(self) -> int:
        return self._inner.memory_current_bytes()

    def oom_kills(self) -> int:
        return self._inner.oom_kills()

    def layers(self) -> Mapping[str, str]:
        """What the sandbox inside says; nothing where it cannot."""
        return self._inner.layers() if isinstance(self._inner, Layered) and not self._destroyed else {}

    async def _one_at_a_time(self, operation: Callable[[], Awaitable[None]]) -> None:
        async with self._lock:
            self._check()
            try:
                await operation()
            except Exception as problem:
                self._die(problem)
                raise

    def _at_once(self, operation: Callable[[], None]) -> None:
        self._check()
        try:
            operation()
        except Exception as problem:
            self._die(problem)
            raise

    def _check(self) -> None:
        if self._destroyed or self._death is not None:
            raise SandboxDied(f"sandbox {self.sandbox_id} is gone") from self._death

    def _die(self, problem: Exception) -> None:
        self._death = problem
        self._inner.kill()
        if self._on_death is not None:
            self._on_death(self.sandbox_id, problem)
