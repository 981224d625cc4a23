"""One sandbox's life, from its first Init to its removal: at most one invocation at a time.

Decisions are plain functions called by the runtime, by timers and by the agent; only making and removing an
environment waits. A failed Init is repeated in a fresh environment, under the function's own timeout.
"""

import asyncio
import secrets
from collections.abc import Callable
from functools import partial

from stoker.core.errors import IllegalTransition, SandboxDied, SandboxError
from stoker.core.promise import Promise
from stoker.runtimeapi import RuntimeInvocation
from stoker.runtimes.catalog import InvalidEntrypoint, RuntimePlan
from stoker.sandbox.driver import Exit
from stoker.services.functions import FunctionVersion
from stoker.services.invocation import Invocation, InvocationResult
from stoker.services.worker import SandboxReference, SandboxStatus, StaleReference, WorkerUnavailable
from stoker.worker import outcome as outcomes
from stoker.worker.current import Current
from stoker.worker.deadline import Deadline
from stoker.worker.journal import Journal
from stoker.worker.launching import CodeFolders, init_timeout_s, log_stream_of
from stoker.worker.outcome import Outcome
from stoker.worker.parts import Parts
from stoker.worker.report import Usage
from stoker.worker.slot import Slot
from stoker.worker.states import SandboxState, SandboxStates

_MIB = 1024 * 1024


class Life:
    """``ended`` is called once, when all the sandbox was made of is gone; ``lost`` when it died idle."""

    def __init__(
        self,
        reference: SandboxReference,
        function: FunctionVersion,
        plan: RuntimePlan | InvalidEntrypoint,
        code: CodeFolders,
        parts: Parts,
        *,
        lost: Callable[["Life"], None],
        ended: Callable[["Life"], None],
        provisioned: bool = False,
    ) -> None:
        self.reference = reference
        self.function = function
        self.epoch = reference.epoch
        self._plan, self.code = plan, code
        self._parts = parts
        self._lost = lost
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._states = SandboxStates()
        self._states.move(SandboxState.ASSIGNED)
        now_s = parts.clock.now_s()
        self._created_at_s = self._used_at_s = now_s
        key, log_stream = function.key, log_stream_of(function, now_s, secrets.token_hex(16))
        writer = parts.logs.writer(key.account, key.region, function.logging.log_group, log_stream)
        self._journal = Journal(function, writer, parts.clock)
        self._slot = Slot(
            reference.sandbox_id, function, log_stream, self._journal, self, parts, provisioned=provisioned
        )
        self._init_timeout_s = init_timeout_s(function, provisioned=provisioned)
        self.initialised: asyncio.Future[bool] = self._loop.create_future()
        """Done when the first Init has ended, or the sandbox first; whether it went well."""
        self._current: Current | None = None
        self._unsettled: tuple[Invocation, Usage, Outcome] | None = None
        """The last invocation, while its caller was told and its log was not written yet."""
        self._deadline = Deadline(self._loop)
        self._phase: str | None = None
        """``init`` or ``invoke`` while an Init runs, as INIT_REPORT calls them."""
        self._phase_started_s = 0.0
        self._failed = False
        """The first Init failed; the next invocation repeats it."""
        self._init_ms: float | None = None
        """What the next REPORT shows as Init Duration."""
        self._quiet = False
        """The runtime waits in ``/next``."""
        self._next_due_s, self._retiring, self._invocations = 0.0, False, 0

    # --- Init

    async def begin(self) -> None:
        """Make the first environment and start its Init.

        Raises:
            SandboxError: nothing is left of the attempt.
        """
        self._journal.init_start()
        self._journal.extensions_not_started(self.code.extensions)
        self._states.move(SandboxState.INITIALISING)
        self._phase = "init"
        self._phase_started_s = self._parts.clock.monotonic_s()
        await self._start("init")

    async def _start(self, phase: str) -> None:
        plan = self._plan
        if isinstance(plan, InvalidEntrypoint):
            self._init_ended_badly(partial(outcomes.platform_failure, plan.error_type, str(plan)))
            return
        environment = await self._slot.make(plan, self.code)
        if self._phase != phase:
            # Its time was over, or it was retired, before there was anything to start.
            await environment.destroy()
            return
        if phase == "init":
            self._phase_started_s = self._parts.clock.monotonic_s()
            self._deadline.set(self._init_timeout_s, self._init_too_long)
        if (failure := await self._slot.launch(environment, plan)) is not None:
            self._init_ended_badly(failure)

    def _init_ended_well(self) -> None:
        phase, self._phase = self._phase, None
        duration_ms = self._milliseconds_since(self._phase_started_s)
        self._parts.statistics.init_ms.add(duration_ms)
        self._journal.init_report(duration_ms, phase or "init", outcomes.succeeded(b""))
        self._slot.throttle_soon()
        if phase == "init":
            self._deadline.clear()
            self._init_ms = duration_ms
            self._tell_initialised(well=True)
        if self._current is None:
            self._states.move(SandboxState.IDLE)
            self._parts.freezer.watch(self)
            return
        if phase == "init":
            self._states.move(SandboxState.BUSY)
        self._hand_over(self._current)

    def _init_too_long(self) -> None:
        self._init_ended_badly(lambda request_id: outcomes.timed_out(self._init_timeout_s, request_id))

    def _init_ended_badly(self, failure: Callable[[str], Outcome]) -> None:
        """The first time an invocation tries again, now or later; the second time it is that one's result."""
        phase, self._phase = self._phase, None
        duration_ms = self._milliseconds_since(self._phase_started_s)
        self._parts.statistics.init_failures += 1
        current = self._current
        request_id = current.invocation.request_id if current is not None else ""
        self._slot.drain_output()
        self._journal.init_report(duration_ms, phase or "init", failure(request_id))
        if phase == "init":
            self._deadline.clear()
            self._failed = True
            self._tell_initialised(well=False)
            self._slot.discard()
            if current is not None:
                self._repeat(current)
        elif current is not None:
            self._journal.start(current.invocation)
            self._complete(failure(request_id))

    def _repeat(self, current: Current) -> None:
        self._states.move(SandboxState.BUSY)
        self._failed = False
        self._phase = "invoke"
        self._start_clock(current)
        self._phase_started_s = current.started_s
        self._parts.background.spawn(self._repeat_init(current))

    async def _repeat_init(self, current: Current) -> None:
        await self._slot.wait_removed()
        if self._phase is None:
            return
        try:
            await self._start("invoke")
        except SandboxError as error:
            self._give_up(current, WorkerUnavailable(str(error)))

    # --- invocations

    def invoke(self, invocation: Invocation) -> Promise[InvocationResult]:
        """Run one invocation; the answer tells how it went and may be cancelled without any effect inside.

        It fails with StaleReference when the sandbox cannot take one; nothing was run then.
        """
        state = self._states.state
        current = Current(invocation)
        if self._current is not None or state not in (SandboxState.IDLE, SandboxState.INITIALISING):
            current.fail(StaleReference(f"sandbox {self.reference.sandbox_id} is {state.value}"))
            return current.answer
        self._settle()
        self._current = current
        if state is SandboxState.IDLE:
            self._states.move(SandboxState.BUSY)
            self._parts.freezer.forget(self)
            self._hand_over(current)
        elif self._failed:
            self._repeat(current)
        return current.answer

    def _start_clock(self, current: Current) -> None:
        current.started_s = self._parts.clock.monotonic_s()
        self._deadline.set(self.function.timeout_s, self._too_long)

    def _hand_over(self, current: Current) -> None:
        """The event goes to the runtime; a repeated Init has used up some of the time already."""
        invocation = current.invocation
        now_s = self._parts.clock.now_s()
        if not self._deadline.is_set:
            self._start_clock(current)
            left_s: float = self.function.timeout_s
        else:
            left_s = self.function.timeout_s - (self._parts.clock.monotonic_s() - current.started_s)
        event = RuntimeInvocation(
            request_id=invocation.request_id,
            deadline_ms=int((now_s + left_s) * 1000),
            invoked_function_arn=invocation.invoked_arn,
            payload=invocation.payload,
            trace_id=invocation.trace_id,
            client_context=invocation.client_context,
        )
        self._quiet = False
        try:
            self._slot.environment.deliver(event)
        except (SandboxDied, IllegalTransition) as error:
            self._give_up(current, StaleReference(f"sandbox {self.reference.sandbox_id}: {error}"))
            return
        # Whatever the runtime writes is read later than this, so START comes first although it was told last.
        self._journal.start(invocation)
        current.init_ms, self._init_ms = self._init_ms, None

    def _too_long(self) -> None:
        current = self._current
        if current is None:
            return
        timeout_s = self.function.timeout_s
        if self._phase is not None:
            self._init_ended_badly(lambda request_id: outcomes.timed_out(timeout_s, request_id))
        else:
            self._complete(outcomes.timed_out(timeout_s, current.invocation.request_id))

    def _complete(self, outcome: Outcome) -> None:
        """The invocation is over. The caller is told before its log is written, unless it wants to see it."""
        current, self._current = self._current, None
        if current is None:
            return
        self._deadline.clear()
        duration_ms = self._milliseconds_since(current.started_s)
        if outcome.status == "timeout":
            duration_ms = self.function.timeout_s * 1000.0
        memory_bytes, ran_out = self._slot.memory()
        if ran_out:
            outcome = outcomes.exited(Exit(None, 9, oom_killed=True), current.invocation.request_id)
        usage = Usage(duration_ms, self.function.memory_mb, -(-memory_bytes // _MIB), current.init_ms)
        self._unsettled = (current.invocation, usage, outcome)
        tail = self._settle() if current.invocation.want_log_tail else None
        if outcome.healthy and not self._retiring:
            self._next_due_s = current.started_s + self.function.timeout_s
            self._states.move(SandboxState.IDLE)
        else:
            self._remove()
        current.finish(outcome, duration_ms, tail)
        self._settle()
        if self._states.state is SandboxState.IDLE:
            self._parts.freezer.watch(self)

    def _settle(self) -> bytes | None:
        """What is left of the last invocation: drain what it wrote, report; returns its tail if wanted.

        Before the sandbox does anything else, so that whatever comes out of it then is not that one's.
        """
        unsettled, self._unsettled = self._unsettled, None
        if unsettled is None:
            return None
        invocation, usage, outcome = unsettled
        self._slot.drain_output()
        self._invocations += 1
        self._used_at_s = self._parts.clock.now_s()
        self._parts.statistics.count(outcome, usage.duration_ms)
        return self._journal.end(invocation, usage, outcome)

    def _give_up(self, current: Current, error: Exception) -> None:
        """Nothing was run."""
        self._current = None
        self._remove()
        current.fail(error)

    # --- Owner: what the runtime does

    def runtime_ready(self) -> None:
        self._quiet = True
        if self._phase is not None:
            self._init_ended_well()

    def runtime_answered(self, request_id: str, payload: bytes) -> None:
        if self._is_current(request_id):
            self._complete(outcomes.succeeded(payload))

    def runtime_failed(self, request_id: str, error_type: str, payload: bytes) -> None:
        if self._is_current(request_id):
            self._complete(outcomes.failed(error_type, payload, request_id))

    def runtime_init_failed(self, error_type: str, payload: bytes) -> None:
        if self._phase is not None:
            self._init_ended_badly(lambda request_id: outcomes.init_failed(error_type, payload, request_id))

    def runtime_ended(self, end: Exit) -> None:
        current = self._current
        if self._phase is not None:
            self._init_ended_badly(lambda request_id: outcomes.exited(end, request_id))
        elif current is None:
            if self._states.state is SandboxState.IDLE:
                self._lose()
        elif self._slot.environment.has_taken(current.invocation.request_id):
            self._complete(outcomes.exited(end, current.invocation.request_id))
        else:
            # It died after its last answer, before it asked for this event.
            self._give_up(current, StaleReference(f"sandbox {self.reference.sandbox_id} died while idle"))

    def _is_current(self, request_id: str) -> bool:
        return self._current is not None and self._current.invocation.request_id == request_id

    def freeze_if_idle(self) -> None:
        """Freeze once the runtime waits for its next event; one that does not ask in time is ended."""
        if self._states.state is not SandboxState.IDLE:
            return
        if self._quiet:
            try:
                self._slot.environment.freeze()
            except SandboxDied:
                self._lose()
        elif self._parts.clock.monotonic_s() < self._next_due_s:
            self._parts.freezer.watch(self)
        else:
            self._lose()

    # --- the end

    def retire(self) -> None:
        """End the sandbox, after its invocation if it has one. Without extensions the shutdown takes 0 ms."""
        if self._states.is_over:
            return
        if self._current is not None:
            self._retiring = True
        else:
            self._remove()

    def end_now(self, why: str = "") -> None:
        """End the sandbox whatever it does; an invocation ends as if its process had been killed."""
        if why and not self._states.is_over:
            self._journal.note(why)
        if self._current is not None and not self._states.is_over:
            request_id = self._current.invocation.request_id
            self._phase = None
            self._complete(outcomes.exited(Exit(None, 9), request_id))
        elif not self._states.is_over:
            self._lose() if why else self._remove()

    def _lose(self) -> None:
        self._parts.statistics.sandboxes_lost += 1
        self._remove()
        self._lost(self)

    def _remove(self) -> None:
        self._settle()
        self._states.move(SandboxState.DRAINING)
        self._tell_initialised(well=False)
        self._phase = None
        self._deadline.close()
        self._parts.freezer.forget(self)
        self._slot.discard()
        self._parts.background.spawn(self._finish())

    async def _finish(self) -> None:
        await self._slot.wait_removed()
        self._journal.close()
        self._states.move(SandboxState.DEAD)
        self._ended(self)

    def _tell_initialised(self, *, well: bool) -> None:
        if not self.initialised.done():
            self.initialised.set_result(well)

    def _milliseconds_since(self, start_s: float) -> float:
        return (self._parts.clock.monotonic_s() - start_s) * 1000.0

    @property
    def is_initialising(self) -> bool:
        """Whether its Init runs now."""
        return self._phase is not None

    def status(self) -> SandboxStatus:
        """For people."""
        return SandboxStatus(
            sandbox_id=self.reference.sandbox_id,
            worker_id=self.reference.worker_id,
            state=self._states.state.value,
            function_arn=self.function.arn,
            created_at_s=self._created_at_s,
            invocations=self._invocations,
            memory_mb=self.function.memory_mb,
            memory_used_bytes=self._slot.memory_current_bytes(),
            last_used_at_s=self._used_at_s,
            layers=self._slot.layers(),
        )
