"""A sandbox's life in virtual time, with a runtime that does everything at every moment."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stoker.core.errors import SandboxDied, ServiceError
from stoker.packaging.memory_images import MemoryImageStore
from stoker.runtimes.catalog import RuntimePlan
from stoker.sandbox.driver import Exit
from stoker.services.code import CodeInUse
from stoker.services.credentials import Credential
from stoker.services.functions import FunctionKey, FunctionVersion, LogSettings, Status
from stoker.services.invocation import Invocation, InvocationResult
from stoker.services.keys import KeyRefused, KeyUnavailable
from stoker.services.worker import SandboxReference, StaleReference, WorkerUnavailable
from stoker.store.environments import KeptEnvironments
from stoker.store.memory_keys import MemoryDataKeys
from stoker.worker.agent import WorkerAgent
from stoker.worker.parts import WorkerSettings
from tests.simulation.worker.scripted import Runtime, ScriptedDriver, echo
from tests.simulation.worker.virtual_time import VirtualClock, run

KEY = FunctionKey("000000000000", "us-east-1", "f")
FUNCTION = FunctionVersion(
    key=KEY,
    deployment_id="d",
    revision_id="r",
    last_modified="",
    role="role",
    runtime="python3.11",
    handler="h.h",
    code_sha256="code",
    code_size_bytes=1,
    logging=LogSettings(log_group="/aws/lambda/f"),
    state=Status(value="Active"),
)


class Logs:
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.times: list[int] = []
        self.closed = 0
        self.congested = False

    def writer(self, *_: str) -> "Logs":
        return self

    def append(self, timestamp_ms: int, message: str) -> None:
        self.messages.append(message)
        self.times.append(timestamp_ms)

    def close(self) -> None:
        self.closed += 1


class Code:
    def __init__(self) -> None:
        self.in_use = 0
        self.failure: Exception | None = None

    async def use(self, *_: object) -> CodeInUse:
        if self.failure is not None:
            raise self.failure
        self.in_use += 1
        return CodeInUse(task=Path("/code"), leave=self._leave)

    def _leave(self) -> None:
        self.in_use -= 1


class Runtimes:
    def plan(self, runtime: str, **_: object) -> RuntimePlan:
        return RuntimePlan(runtime, ("/run",), {}, {})


class World:
    def __init__(self, driver: ScriptedDriver, **settings: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.driver = driver
        self.logs = Logs()
        self.lost: list[SandboxReference] = []
        self.available_mb = 4096
        self.code = Code()
        self.keys = MemoryDataKeys()
        self.agent = WorkerAgent(
            WorkerSettings(worker_id="w", memory_total_mb=1024, sandboxes_max=4, **settings),
            driver=driver,
            code=self.code,
            images=MemoryImageStore(),
            logs=self.logs,
            runtimes=Runtimes(),
            clock=VirtualClock(),
            environments=KeptEnvironments(self.keys),
            session_credentials=lambda function: Credential(
                access_key_id="A", secret="s", account="0", principal_arn="p"
            ),
            read_available_mb=lambda: self.available_mb,
        )
        self.agent.on_sandbox_lost(self.lost.append)

    async def create(self, timeout_s: int = 3) -> SandboxReference:
        return await self.agent.create(msgspec.structs.replace(FUNCTION, timeout_s=timeout_s))

    async def invoke(
        self, sandbox: SandboxReference, number: int = 1, payload: bytes = b"1"
    ) -> InvocationResult:
        return await self.agent.invoke(
            sandbox, Invocation(f"id-{number}", payload, KEY.arn, "", want_log_tail=True)
        )

    @property
    def log(self) -> list[str]:
        """First words of the platform's lines and all of the function's."""
        return [re.sub(r"[\d.]+ ms", "N ms", message).rstrip() for message in self.logs.messages]


@asynccontextmanager
async def world(driver: ScriptedDriver, **settings: Any) -> AsyncIterator[World]:
    made = World(driver, **settings)
    unhandled: list[dict] = []
    made.loop.set_exception_handler(lambda loop, context: unhandled.append(context))
    yield made
    await made.agent.close(0)
    assert made.agent.sandboxes() == []
    assert made.agent.snapshot().memory_reserved_mb == 0
    assert all(sandbox.destroyed for sandbox in driver.sandboxes)
    assert made.logs.times == sorted(made.logs.times)
    await asyncio.sleep(0)
    assert unhandled == []


Test = Callable[[World], Awaitable[None]]


def play(
    test: Test,
    *scripts: Callable[[Runtime], Awaitable[None]],
    pool_memory_mb: int = 0,
    memory_reserve_mb: int = 0,
    **settings: object,
) -> World:
    async def main() -> World:
        driver = ScriptedDriver(*scripts)
        for name, value in settings.items():
            setattr(driver, name, value)
        async with world(driver, pool_memory_mb=pool_memory_mb, memory_reserve_mb=memory_reserve_mb) as made:
            await test(made)
        return made

    return run(main())


def error_of(result: InvocationResult) -> tuple[str, str]:
    error = json.loads(result.payload)
    assert result.function_error == "Unhandled"
    return error["errorType"], error["errorMessage"]


async def never(runtime: Runtime) -> None:
    await asyncio.sleep(10_000)


# --- Init


def test_an_init_over_ten_seconds_is_repeated_under_the_functions_timeout() -> None:
    async def slow(runtime: Runtime) -> None:
        await asyncio.sleep(12)
        await echo(runtime)

    async def test(world: World) -> None:
        begun_s = world.loop.time()
        sandbox = await world.create(timeout_s=30)
        result = await world.invoke(sandbox)
        assert result.payload == b"1"
        assert result.init_ms is None
        assert world.loop.time() - begun_s == pytest.approx(22, abs=0.1)
        # The repeated Init counts as time of the invocation.
        assert result.duration_ms == pytest.approx(12_000, abs=100)
        assert world.log[1] == "INIT_REPORT Init Duration: N ms\tPhase: init\tStatus: timeout"
        assert len(world.driver.sandboxes) == 2
        assert world.driver.sandboxes[0].destroyed

    play(test, slow)


def test_what_is_left_of_the_timeout_is_the_deadline_after_a_repeated_init() -> None:
    seen: list[float] = []

    async def first(runtime: Runtime) -> None:
        runtime.exit(1)

    async def second(runtime: Runtime) -> None:
        await asyncio.sleep(2)
        await runtime.next()
        seen.append(runtime.deadline_ms / 1000 - 1_700_000_000 - asyncio.get_running_loop().time())
        await never(runtime)

    async def test(world: World) -> None:
        sandbox = await world.create(timeout_s=3)
        begun_s = world.loop.time()
        result = await world.invoke(sandbox)
        assert error_of(result)[0] == "Sandbox.Timedout"
        assert world.loop.time() - begun_s == pytest.approx(3, abs=0.1)
        assert seen == [pytest.approx(1, abs=0.1)]

    play(test, first, second)


def test_a_repeated_init_that_takes_too_long_is_a_timeout() -> None:
    async def test(world: World) -> None:
        sandbox = await world.create(timeout_s=3)
        result = await world.invoke(sandbox)
        assert error_of(result) == (
            "Sandbox.Timedout",
            "RequestId: id-1 Error: Task timed out after 3.00 seconds",
        )
        assert not result.healthy
        assert [line.partition(" ")[0] if "Task" not in line else "FAULT" for line in world.log] == [
            "INIT_START",
            "INIT_REPORT",
            "INIT_REPORT",
            "START",
            "FAULT",
            "END",
            "REPORT",
        ]
        assert world.log[2] == "INIT_REPORT Init Duration: N ms\tPhase: invoke\tStatus: timeout"
        with pytest.raises(StaleReference):
            await world.invoke(sandbox, 2)
        assert world.agent.statistics.init_failures == 2
        assert world.agent.statistics.timeouts == 1

    play(test, never)


def test_an_init_that_failed_waits_for_the_invocation_to_try_again() -> None:
    async def fails(runtime: Runtime) -> None:
        await runtime.fail_init(b'{"errorType":"X"}')

    async def test(world: World) -> None:
        sandbox = await world.create()
        await asyncio.sleep(60)
        assert len(world.driver.sandboxes) == 1
        assert world.driver.sandboxes[0].destroyed
        assert world.agent.sandboxes()[0].state == "initialising"
        assert (await world.invoke(sandbox)).payload == b"1"
        assert (await world.invoke(sandbox, 2)).payload == b"1"
        assert len(world.driver.sandboxes) == 2

    play(test, fails, echo)


def test_an_init_error_is_posted_twice() -> None:
    async def fails(runtime: Runtime) -> None:
        await runtime.fail_init(b'{"errorType":"Exception","errorMessage":"no"}')
        await never(runtime)

    async def test(world: World) -> None:
        result = await world.invoke(await world.create())
        assert error_of(result) == ("Exception", "no")
        assert world.log[1] == (
            "INIT_REPORT Init Duration: N ms\tPhase: init\tStatus: error\tError Type: Runtime.ImportModuleError"
        )
        assert world.log[-1].endswith("Status: error\tError Type: Runtime.ImportModuleError")

    play(test, fails)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (Exit(0, None), "Runtime exited without providing a reason"),
        (Exit(127, None), "Runtime exited with error: exit status 127"),
        (Exit(None, 11), "Runtime exited with error: signal: segmentation fault"),
        (Exit(None, 9, oom_killed=True), "Runtime exited with error: signal: killed"),
    ],
)
def test_a_runtime_that_exits_in_both_inits(end: Exit, message: str) -> None:
    async def exits(runtime: Runtime) -> None:
        runtime.sandbox.end(end)
        await never(runtime)

    async def test(world: World) -> None:
        result = await world.invoke(await world.create())
        assert error_of(result) == ("Runtime.ExitError", f"RequestId: id-1 Error: {message}")
        kind = "Runtime.OutOfMemory" if end.oom_killed else "Runtime.ExitError"
        assert world.log[-1].endswith(f"Error Type: {kind}")

    play(test, exits)


def test_an_invocation_may_come_at_any_moment_of_init() -> None:
    async def slow(runtime: Runtime) -> None:
        await asyncio.sleep(5)
        await echo(runtime)

    async def test(world: World) -> None:
        early, late = await world.create(), await world.create()
        calls = [asyncio.create_task(world.invoke(early))]
        await asyncio.sleep(4.999)
        calls.append(asyncio.create_task(world.invoke(late)))
        for result in await asyncio.gather(*calls):
            assert result.payload == b"1"
            assert result.init_ms == pytest.approx(5000, abs=10)
            # Waiting for Init is no time of the invocation.
            assert result.duration_ms < 10

    play(test, slow)


def test_a_sandbox_may_be_retired_while_it_initialises() -> None:
    async def test(world: World) -> None:
        sandbox = await world.create()
        world.agent.retire(sandbox)
        await asyncio.sleep(1)
        assert world.agent.sandboxes() == []
        assert world.lost == []

    play(test, never)


def test_no_sandbox_can_be_made() -> None:
    async def test(world: World) -> None:
        with pytest.raises(WorkerUnavailable, match="no more sandboxes"):
            await world.create()
        await asyncio.sleep(0)
        assert world.agent.snapshot().memory_reserved_mb == 0
        assert (await world.invoke(await world.create())).payload == b"1"

    play(test, echo, create_errors=1)


def test_a_host_that_runs_short_of_memory_makes_no_sandbox() -> None:
    async def test(world: World) -> None:
        world.available_mb = 255
        with pytest.raises(WorkerUnavailable, match="1 MB short of the 256 MB"):
            await world.create()
        assert world.agent.statistics.memory_refusals == 1
        assert world.driver.sandboxes == []
        world.available_mb = 256
        await asyncio.sleep(1)
        assert (await world.invoke(await world.create())).payload == b"1"

    play(test, echo, memory_reserve_mb=256)


def test_no_process_can_be_launched() -> None:
    async def test(world: World) -> None:
        with pytest.raises(WorkerUnavailable, match="cannot launch"):
            await world.create()
        await asyncio.sleep(0.1)
        assert world.agent.sandboxes() == []

    play(test, echo, launch_error=True)


def test_no_sandbox_can_be_made_for_the_second_init() -> None:
    async def fails(runtime: Runtime) -> None:
        runtime.exit(1)

    async def test(world: World) -> None:
        sandbox = await world.create()
        await asyncio.sleep(1)
        world.driver.create_errors = 1
        with pytest.raises(WorkerUnavailable, match="no more sandboxes"):
            await world.invoke(sandbox)

    play(test, fails)


def test_a_slow_driver_counts_against_the_timeout_of_a_repeated_init() -> None:
    async def fails(runtime: Runtime) -> None:
        runtime.exit(1)

    async def test(world: World) -> None:
        sandbox = await world.create(timeout_s=2)
        await asyncio.sleep(1)
        world.driver.create_takes_s = 5
        result = await world.invoke(sandbox)
        assert error_of(result)[0] == "Sandbox.Timedout"
        await asyncio.sleep(10)
        assert all(made.destroyed for made in world.driver.sandboxes)

    play(test, fails, echo)


def test_a_slow_removal_counts_against_the_timeout_too() -> None:
    async def fails(runtime: Runtime) -> None:
        runtime.exit(1)

    async def test(world: World) -> None:
        result = await world.invoke(await world.create(timeout_s=2))
        assert error_of(result)[0] == "Sandbox.Timedout"
        starts = [line for line in world.log if line.startswith("START")]
        assert len(starts) == 1
        await asyncio.sleep(10)
        assert len(world.driver.sandboxes) == 1

    play(test, fails, destroy_takes_s=5)


def test_a_sandbox_that_cannot_be_throttled_is_ended() -> None:
    async def test(world: World) -> None:
        sandbox = await world.create()
        await asyncio.sleep(1)
        assert world.lost == [sandbox]

    play(test, echo, limits_error=True)


# --- invocations


@pytest.mark.parametrize("moment", ["before the response", "after the response", "between two", "in next"])
def test_a_crash_at_each_moment(moment: str) -> None:
    async def crashes(runtime: Runtime) -> None:
        body = await runtime.next()
        if moment == "before the response":
            runtime.exit(7)
        await runtime.respond(body)
        if moment == "after the response":
            runtime.exit(7)
        if moment == "between two":
            await asyncio.sleep(0.05)
            runtime.exit(7)
        asyncio.get_running_loop().call_later(0.05, runtime.sandbox.end, Exit(7, None))
        await runtime.next()

    async def test(world: World) -> None:
        sandbox = await world.create()
        result = await world.invoke(sandbox)
        if moment == "before the response":
            assert error_of(result) == (
                "Runtime.ExitError",
                "RequestId: id-1 Error: Runtime exited with error: exit status 7",
            )
            assert not result.healthy
            await asyncio.sleep(1)
            assert world.lost == []
            return
        assert (result.payload, result.healthy) == (b"1", True)
        await asyncio.sleep(1)
        assert world.lost == [sandbox]
        with pytest.raises(StaleReference):
            await world.invoke(sandbox, 2)

    play(test, crashes)


def test_a_response_that_was_sent_before_the_crash_counts() -> None:
    async def last_words(runtime: Runtime) -> None:
        body = await runtime.next()
        writer = runtime._writer
        assert writer is not None
        path = f"/2018-06-01/runtime/invocation/{runtime.request_id}/response"
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        # The end of the process is known before its last bytes are read.
        runtime.sandbox._ended.set_result(Exit(1, None))
        await asyncio.sleep(0)

    async def test(world: World) -> None:
        result = await world.invoke(await world.create())
        assert (result.payload, result.function_error) == (b"1", None)

    play(test, last_words)


def test_an_event_that_was_never_taken_is_stale_not_failed() -> None:
    async def gone(runtime: Runtime) -> None:
        await runtime.respond(await runtime.next())
        await asyncio.sleep(0.05)
        runtime.exit(1)

    async def test(world: World) -> None:
        sandbox = await world.create()
        await world.invoke(sandbox)
        # Handed over while the runtime is still between its response and /next, where it dies.
        with pytest.raises(StaleReference):
            await world.invoke(sandbox, 2)

    play(test, gone)


def test_memory_that_ran_out_in_a_child_ends_the_sandbox() -> None:
    async def child(runtime: Runtime) -> None:
        body = await runtime.next()
        runtime.sandbox.peak = 128 * 1024 * 1024
        runtime.sandbox.oom = 1
        await runtime.respond(body)
        await runtime.next()

    async def test(world: World) -> None:
        result = await world.invoke(await world.create())
        assert error_of(result) == (
            "Runtime.ExitError",
            "RequestId: id-1 Error: Runtime exited with error: signal: killed",
        )
        assert not result.healthy
        assert "Max Memory Used: 128 MB" in world.log[-1]
        assert world.log[-1].endswith("Status: error\tError Type: Runtime.OutOfMemory")
        assert world.agent.statistics.out_of_memory == 1

    play(test, child)


def test_a_late_answer_to_a_timed_out_invocation_is_nobodys() -> None:
    async def late(runtime: Runtime) -> None:
        body = await runtime.next()
        await asyncio.sleep(3)
        await runtime.respond(body)
        await runtime.next()

    async def test(world: World) -> None:
        result = await world.invoke(await world.create(timeout_s=3))
        assert (error_of(result)[0], result.duration_ms) == ("Sandbox.Timedout", 3000.0)

    play(test, late)


def test_a_runtime_that_never_asks_again_is_ended_at_the_deadline() -> None:
    async def lazy(runtime: Runtime) -> None:
        await runtime.respond(await runtime.next())
        await never(runtime)

    async def test(world: World) -> None:
        sandbox = await world.create(timeout_s=3)
        await world.invoke(sandbox)
        await asyncio.sleep(2)
        assert world.lost == []
        assert not world.driver.sandboxes[0].frozen
        await asyncio.sleep(2)
        assert world.lost == [sandbox]

    play(test, lazy)


def test_freezing_waits_for_idleness_and_thaws_for_the_next_event() -> None:
    async def test(world: World) -> None:
        sandbox = await world.create()
        await asyncio.sleep(0.2)
        inside = world.driver.sandboxes[0]
        assert inside.frozen  # also when Init was the last thing it did
        for number in range(20):
            await world.invoke(sandbox, number)
            assert not inside.frozen
            await asyncio.sleep(0.04)
        await asyncio.sleep(0.061)
        assert inside.frozen
        await world.invoke(sandbox, 99)

    play(test, echo)


def test_function_errors_leave_the_sandbox_alive() -> None:
    async def fails(runtime: Runtime) -> None:
        await runtime.next()
        await runtime.fail(b'{"errorType":"E","errorMessage":"m"}')
        await runtime.next()
        await runtime.fail(b"")
        await echo(runtime)

    async def test(world: World) -> None:
        sandbox = await world.create()
        first = await world.invoke(sandbox)
        assert (error_of(first), first.healthy) == (("E", "m"), True)
        second = await world.invoke(sandbox, 2)
        assert error_of(second) == ("Function.Oops", "RequestId: id-2 Error: Function.Oops")
        assert (await world.invoke(sandbox, 3)).payload == b"1"

    play(test, fails)


def test_output_belongs_to_the_invocation_it_came_in() -> None:
    async def talks(runtime: Runtime) -> None:
        while True:
            body = await runtime.next()
            runtime.print(f"during {body.decode()}\nno line feed")
            await runtime.respond(body)

    async def test(world: World) -> None:
        sandbox = await world.create()
        first = await world.invoke(sandbox, 1, b"1")
        second = await world.invoke(sandbox, 2, b"2")
        assert b"during 1\nno line feedEND RequestId: id-1\n" in (first.log_tail or b"")
        tail = (second.log_tail or b"").decode()
        assert tail.startswith("START RequestId: id-2")
        assert "during 1" not in tail

    play(test, talks)


def test_a_connection_for_each_request_is_no_death() -> None:
    async def curl(runtime: Runtime) -> None:
        while True:
            body = await runtime.next()
            runtime.disconnect()
            await asyncio.sleep(0.01)
            await runtime.respond(body)
            runtime.disconnect()
            await asyncio.sleep(0.01)

    async def test(world: World) -> None:
        sandbox = await world.create()
        for number in range(3):
            assert (await world.invoke(sandbox, number)).healthy
        assert world.lost == []

    play(test, curl)


def test_a_caller_that_left_leaves_the_sandbox_busy_and_then_whole() -> None:
    async def slow(runtime: Runtime) -> None:
        while True:
            body = await runtime.next()
            await asyncio.sleep(2)
            await runtime.respond(body)

    async def test(world: World) -> None:
        sandbox = await world.create()
        call = asyncio.create_task(world.invoke(sandbox))
        await asyncio.sleep(1)
        call.cancel()
        await asyncio.sleep(0)
        with pytest.raises(StaleReference, match="busy"):
            await world.invoke(sandbox)
        await asyncio.sleep(2)
        assert (await world.invoke(sandbox)).healthy

    play(test, slow)


def test_what_begins_when_a_caller_is_told_comes_behind_the_report_of_what_ended() -> None:
    async def chatty(runtime: Runtime) -> None:
        for number in range(1, 3):
            body = await runtime.next()
            runtime.print(f"line {number}\n")
            await runtime.respond(body)
        await runtime.next()

    async def test(world: World) -> None:
        sandbox = await world.create()
        second: list[asyncio.Future[InvocationResult]] = []

        def begin_second(_: object) -> None:
            assert not [line for line in world.log if line.startswith("REPORT")]
            answer = world.agent.invoke(sandbox, Invocation("id-2", b"2", KEY.arn, ""))
            second.append(asyncio.ensure_future(answer))

        first = world.agent.invoke(sandbox, Invocation("id-1", b"1", KEY.arn, ""))
        first.when_done(begin_second)
        assert (await first).payload == b"1"
        assert (await second[0]).payload == b"2"
        words = [" ".join(line.split()[:3]) for line in world.log[1:]]
        assert words == [
            "START RequestId: id-1",
            "line 1",
            "END RequestId: id-1",
            "REPORT RequestId: id-1",
            "START RequestId: id-2",
            "line 2",
            "END RequestId: id-2",
            "REPORT RequestId: id-2",
        ]

    play(test, chatty)


def test_a_sandbox_that_died_unseen_is_found_when_it_is_to_be_frozen() -> None:
    async def test(world: World) -> None:
        sandbox = await world.create()
        await world.invoke(sandbox)

        def freeze() -> None:
            raise SandboxDied("gone")

        world.driver.sandboxes[0].freeze = freeze
        await asyncio.sleep(0.2)
        assert world.lost == [sandbox]

    play(test, echo)


def test_a_sandbox_that_cannot_be_thawed_runs_nothing() -> None:
    async def test(world: World) -> None:
        sandbox = await world.create()
        await world.invoke(sandbox)
        await asyncio.sleep(0.2)

        def thaw() -> None:
            raise SandboxDied("gone")

        world.driver.sandboxes[0].thaw = thaw
        with pytest.raises(StaleReference):
            await world.invoke(sandbox, 2)
        assert "START RequestId: id-2 Version: $LATEST" not in world.log

    play(test, echo)


# --- the end


def test_retiring_a_busy_sandbox_waits_for_its_invocation() -> None:
    async def slow(runtime: Runtime) -> None:
        body = await runtime.next()
        await asyncio.sleep(2)
        await runtime.respond(body)
        await runtime.next()

    async def test(world: World) -> None:
        sandbox = await world.create()
        running = asyncio.create_task(world.invoke(sandbox))
        await asyncio.sleep(1)
        world.agent.retire(sandbox)
        assert (await running).payload == b"1"
        await asyncio.sleep(0.1)
        assert world.agent.sandboxes() == []
        assert world.lost == []

    play(test, slow)


def test_closing_ends_what_outlives_the_grace() -> None:
    async def test(world: World) -> None:
        sandbox = await world.create(timeout_s=900)
        running = asyncio.create_task(world.invoke(sandbox))
        await asyncio.sleep(1)
        begun_s = world.loop.time()
        await world.agent.close(5)
        assert world.loop.time() - begun_s == pytest.approx(5, abs=0.2)
        assert error_of(await running)[0] == "Runtime.ExitError"

    async def busy(runtime: Runtime) -> None:
        await runtime.next()
        await never(runtime)

    play(test, busy)


def test_closing_during_a_repeated_init() -> None:
    async def test(world: World) -> None:
        sandbox = await world.create(timeout_s=900)
        running = asyncio.create_task(world.invoke(sandbox))
        await asyncio.sleep(30)
        await world.agent.close(0)
        assert error_of(await running)[0] == "Runtime.ExitError"

    play(test, never)


def test_a_thousand_invocations_make_no_task_and_leak_nothing() -> None:
    async def test(world: World) -> None:
        sandbox = await world.create()
        await world.invoke(sandbox)
        await asyncio.sleep(0.1)
        before = len(asyncio.all_tasks())
        for number in range(1000):
            await world.invoke(sandbox, number)
            assert len(asyncio.all_tasks()) == before
        assert world.agent.sandboxes()[0].invocations == 1001

    play(test, echo)


def test_sandboxes_made_at_once_share_the_last_places() -> None:
    async def test(world: World) -> None:
        made = await asyncio.gather(*(world.create() for _ in range(7)), return_exceptions=True)
        refused = [each for each in made if isinstance(each, WorkerUnavailable)]
        assert len(refused) == 3
        assert world.agent.snapshot().sandboxes == 4

    play(test, echo)


def test_a_key_that_refuses_makes_no_sandbox() -> None:
    disabled = KeyRefused("DisabledException", "it is disabled.")

    async def test(world: World) -> None:
        world.code.failure = disabled
        with pytest.raises(ServiceError, match=r"unable to decrypt the code because .* disabled") as caught:
            await world.create()
        assert caught.value.code == "KMSDisabledException"
        world.code.failure = None
        sealed = await KeptEnvironments(world.keys).seal(KEY.arn, {"A": "b"}, "key")
        function = msgspec.structs.replace(FUNCTION, environment=None, environment_sealed=sealed)
        for failure, code in (
            (disabled, "KMSDisabledException"),
            (KeyRefused("NotFoundException", "gone"), "KMSNotFoundException"),
            (KeyRefused("KMSInvalidStateException", "pending"), "KMSInvalidStateException"),
            (KeyRefused("AccessDeniedException", "no"), "KMSAccessDeniedException"),
            (KeyUnavailable("no answer"), "ServiceException"),
        ):
            world.keys.failure = failure
            with pytest.raises(ServiceError, match="unable to decrypt the environment variables") as caught:
                await world.agent.create(function)
            assert caught.value.code == code
        assert world.code.in_use == 0

    play(test)
