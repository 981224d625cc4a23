"""One execution environment: a driver's sandbox with one runtime process, its Runtime API and its output.

It turns sockets, pipes and the process's end into calls of its owner; it knows no functions and no time-outs.
One that waits in a pool has the pool as its owner, until a function's life takes it over.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from socket import socket
from typing import Protocol

from stoker.core.clock import Clock
from stoker.core.errors import SandboxDied, SandboxError
from stoker.runtimeapi import RuntimeApi, RuntimeInvocation
from stoker.runtimeapi.states import State
from stoker.sandbox.driver import Exit, Launch, Layered, Sandbox, SandboxLimits
from stoker.worker.output import Output, Sink

ServeServiceApi = Callable[[socket], Awaitable[Callable[[], None]]]
"""Serves Stoker's own API on a sandbox's listening socket; returns what ends that."""

LAST_WORDS_S = 0.05
"""How long after its process's end a runtime's last request may still come out of its connection."""


class Owner(Protocol):
    """Told, synchronously, what the runtime does."""

    def runtime_ready(self) -> None: ...

    def runtime_answered(self, request_id: str, payload: bytes) -> None: ...

    def runtime_failed(self, request_id: str, error_type: str, payload: bytes) -> None: ...

    def runtime_init_failed(self, error_type: str, payload: bytes) -> None: ...

    def runtime_ended(self, end: Exit) -> None:
        """The process is gone and everything it had sent was heard; called at most once."""
        ...


class Environment:
    """Begins with ``serve``, ``own`` and ``launch`` or ``assign``; ends with ``destroy``. Not thread-safe."""

    def __init__(
        self,
        sandbox: Sandbox,
        clock: Clock,
        on_pooled: Callable[[], None] | None = None,
        on_gone: Callable[[], None] | None = None,
    ) -> None:
        self.sandbox = sandbox
        self._on_gone = on_gone
        self.pooled_runtime = on_pooled is not None
        """A runtime of no function was started ahead: ``assign`` takes the place of ``launch``."""
        self._clock = clock
        self._owner: Owner | None = None
        self._api = RuntimeApi(self, on_pooled)
        self._output: Output | None = None
        self._stop_service_api: Callable[[], None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._end: Exit | None = None
        self._last_words: asyncio.TimerHandle | None = None
        self._disconnected = False
        self._frozen = False
        self._destroyed = False
        self._delivered = ""

    async def serve(self, serve_service_api: ServeServiceApi | None) -> None:
        """Serve the sandbox's APIs."""
        await self._api.start(self.sandbox.runtime_api, self.sandbox.runtime_socket)
        if serve_service_api is not None:
            self._stop_service_api = await serve_service_api(self.sandbox.service_api)

    def own(self, owner: Owner, sink: Sink | None) -> None:
        """From now on ``owner`` is told; with a ``sink`` output is read, before it waits in its pipes.

        Raises:
            SandboxDied: all inside has ended already.
        """
        if self._end is not None:
            raise SandboxDied(self.sandbox.sandbox_id)
        self._owner = owner
        if sink is not None and self._output is None:
            self._output = Output(self.sandbox.output, self.sandbox.telemetry, sink, self._clock)

    async def launch(self, launch: Launch) -> None:
        """Start the runtime.

        Raises:
            SandboxError: it could not be started; ``destroy`` must follow.
        """
        await self.sandbox.launch(launch)
        self.watch()

    async def forked(self) -> None:
        """Wait until the runtime that a zygote was asked for runs.

        Raises:
            SandboxError: it does not; ``destroy`` must follow.
        """
        await self.sandbox.forked()
        self.watch()

    def assign(self, assignment: bytes) -> None:
        """Tell the pooled runtime inside what it is for.

        Raises:
            IllegalTransition: it does not wait for that.
        """
        self._api.assign(assignment)
        self.pooled_runtime = False

    def watch(self) -> None:
        """Notice the end of all inside, also before anything was launched."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        try:
            end = await self.sandbox.wait()
        except SandboxError:
            end = Exit(None, 9)
        self._end = end
        if self._disconnected:
            self._conclude()
            return
        self._last_words = asyncio.get_running_loop().call_later(LAST_WORDS_S, self._conclude)

    def _conclude(self) -> None:
        """The process has ended and its connections too (or they had their time)."""
        if self._last_words is not None:
            self._last_words.cancel()
        owner, self._owner = self._owner, None
        if owner is not None and self._end is not None:
            self.drain_output()
            owner.runtime_ended(self._end)

    # --- what the owner asks

    def deliver(self, invocation: RuntimeInvocation) -> None:
        """Thaw and hand over an event; the runtime gets it at its next ``/next``.

        Raises:
            IllegalTransition: the runtime cannot take one.
            SandboxDied: the sandbox is gone.
        """
        if self._frozen:
            self._frozen = False
            self.sandbox.thaw()
        self._api.deliver(invocation)
        self._delivered = invocation.request_id

    def has_taken(self, request_id: str) -> bool:
        """Whether the runtime was handed this invocation and owes its answer."""
        return self._api.state is State.RUNNING and self._delivered == request_id

    def freeze(self) -> None:
        """Stop everything inside until the next ``deliver``."""
        if not self._frozen:
            self._frozen = True
            self.sandbox.freeze()

    def drain_output(self) -> None:
        """Log what the runtime has written so far."""
        if self._output is not None:
            self._output.drain()

    async def throttle(self, limits: SandboxLimits) -> None:
        """Init is over: the function's share of the CPU applies."""
        await self.sandbox.set_limits(limits)

    def layers(self) -> Mapping[str, str]:
        """What stands around its runtime, for people."""
        return self.sandbox.layers() if isinstance(self.sandbox, Layered) else {}

    def kill(self) -> None:
        """Kill everything inside; the owner hears of the end as of any other."""
        self.sandbox.kill()

    def abandon(self) -> None:
        """Kill at once and tell the owner nothing more; ``destroy`` must follow."""
        self._owner = None
        self.sandbox.kill()

    async def destroy(self) -> None:
        """Remove everything. Idempotent."""
        if self._destroyed:
            return
        self._destroyed = True
        self._owner = None
        if self._last_words is not None:
            self._last_words.cancel()
        if self._output is not None:
            self._output.close()
        if self._stop_service_api is not None:
            self._stop_service_api()
        await self._api.close()
        if self._watching is not None:
            self._watching.cancel()
        try:
            await self.sandbox.destroy()
        finally:
            if self._on_gone is not None:
                self._on_gone()

    # --- RuntimeEvents: what the runtime does

    def on_ready(self) -> None:
        self._disconnected = False
        if self._owner is not None:
            self._owner.runtime_ready()

    def on_response(self, request_id: str, body: bytes, content_type: str) -> None:
        self._disconnected = False
        if self._owner is not None:
            self._owner.runtime_answered(request_id, body)

    def on_error(self, request_id: str, error_type: str, body: bytes) -> None:
        if self._owner is not None:
            self._owner.runtime_failed(request_id, error_type, body)

    def on_init_error(self, error_type: str, body: bytes) -> None:
        if self._owner is not None:
            self._owner.runtime_init_failed(error_type, body)

    def on_connection_lost(self) -> None:
        # Some runtimes open a connection per request: it means something only once the process has ended.
        self._disconnected = True
        if self._end is not None:
            self._conclude()
