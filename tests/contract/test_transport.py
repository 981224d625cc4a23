"""What every way of reaching a room promises: the same answers, the same errors, deadlines, cancellation.

The encoded way sends each message through msgpack, so that nothing crosses that a network could not carry; the
remote way, for the front end, sends it over a socket to the other end of a connection.
"""

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from stoker.core.arn import parse_function_reference
from stoker.core.errors import ServiceError
from stoker.services.functions import LayerUse, LogSettings
from stoker.services.invocation import Frontend, Invocation, InvokeRequest, InvokeResponse
from stoker.services.worker import RuntimeUnavailable, SandboxReference, StaleReference, WorkerUnavailable
from stoker.transport.local import LocalFrontend, LocalManager, LocalWorker
from stoker.transport.messages import UncarriedError
from stoker.transport.remote import RemoteFrontend, frontend_operations
from stoker.transport.rpc import RpcPeer
from tests.simulation.frontend.virtual_time import run_virtually
from tests.simulation.frontend.world import Behaviour, PretendWorker, World, context_of, version_of

FULL = version_of(
    "f",
    environment={"KEY": "wert"},
    layers=(
        LayerUse(
            arn="arn:aws:lambda:us-east-1:000000000000:layer:l:1",
            code_sha256="s",
            size_bytes=1,
            unpacked_bytes=2,
        ),
    ),
    logging=LogSettings(log_format="JSON", application_log_level="DEBUG", log_group="/aws/lambda/f"),
    stored_only={"VpcConfig": {"SubnetIds": ["a", "b"]}, "Number": 1, "Flag": True, "Nothing": None},
)
INVOCATION = Invocation("request", b"\x00\xff{}", FULL.arn, "Root=1-2-3", '{"custom": {}}', True)


@pytest.fixture(params=[False, True], ids=["plain", "encoded"])
def encode(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(params=["plain", "encoded", "remote"])
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@contextlib.asynccontextmanager
async def door(way: str, frontend: Frontend) -> AsyncIterator[Frontend]:
    """The front end as its callers reach it."""
    if way != "remote":
        yield LocalFrontend(frontend, encode=way == "encoded")
        return
    ours, theirs = socket.socketpair()
    caller, server = RpcPeer({}), RpcPeer(frontend_operations(frontend), report=lambda _what, _error: None)
    await caller.attach(ours)
    await server.attach(theirs)
    yield RemoteFrontend(caller)
    for peer in (caller, server):
        await peer.close()
        await peer.wait_ended()


def reach(encode: bool, **deadlines: float) -> Callable[[PretendWorker], LocalWorker]:
    return lambda worker: LocalWorker(worker, encode=encode, **deadlines)


def test_a_whole_life_through_every_hop(way: str) -> None:
    async def story() -> None:
        encode = way != "plain"
        world = World(wrap=reach(encode), wrap_manager=lambda manager: LocalManager(manager, encode=encode))
        world.worker.behave = lambda _f, _i: Behaviour(payload=b"\x00answer", function_error="Handled")
        await world.create("f")
        context = base64.b64encode(b"{}").decode()
        request = InvokeRequest(
            parse_function_reference("f", "$LATEST"), b"{}", client_context=context, log_tail=True
        )
        async with door(way, world.frontend) as frontend:
            for _ in range(3):
                response = await frontend.invoke(context_of(), request)
                assert (response.status, response.payload, response.function_error) == (
                    200,
                    b"\x00answer",
                    "Handled",
                )
            assert world.worker.created == 1
            event = InvokeRequest(parse_function_reference("f"), b"{}", invocation_type="Event")
            assert (await frontend.invoke(context_of("event"), event)).status == 202
            version = await world.metadata.version(FULL.key, "$LATEST")
            assert version is not None
            await world.update(version, deployment_id="f-2")
            await frontend.invoke(context_of(), request)
        await asyncio.sleep(1)
        assert [sandbox.function.deployment_id for sandbox in world.worker.live.values()] == ["f-2"]
        world.check_nothing_leaked()
        await world.close()

    run_virtually(story())


@pytest.mark.parametrize("size_bytes", [0, 1, 300_000, 6_291_456])
def test_payloads_of_every_size_arrive_whole(way: str, size_bytes: int) -> None:
    async def story() -> None:
        world = World()
        world.worker.behave = lambda _f, invocation: Behaviour(payload=invocation.payload)
        await world.create("f")
        payload = bytes(range(256)) * (size_bytes // 256) + b"x" * (size_bytes % 256)
        request = InvokeRequest(parse_function_reference("f"), payload)
        async with door(way, world.frontend) as frontend:
            answers = await asyncio.gather(*(frontend.invoke(context_of(), request) for _ in range(3)))
            assert [answer.payload == payload for answer in answers] == [True] * 3
        await world.close()

    run_virtually(story())


def test_a_caller_who_leaves_is_free_and_the_function_runs_on(way: str) -> None:
    async def story() -> None:
        world = World()
        world.worker.behave = lambda _f, _i: Behaviour(duration_s=10.0)
        await world.create("f")
        request = InvokeRequest(parse_function_reference("f"), b"{}")
        async with door(way, world.frontend) as frontend:
            await frontend.invoke(context_of(), request)
            call = asyncio.create_task(frontend.invoke(context_of(), request))
            await asyncio.sleep(1)
            assert world.frontend.statistics().in_background == 0
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.sleep(1)
            # Nobody waits for it any more, and it still runs.
            assert world.frontend.statistics().in_background == 1
            assert world.worker.busy == 1
            await asyncio.sleep(10)
            assert world.worker.busy == 0
        world.check_nothing_leaked()
        await world.close()

    run_virtually(story())


def test_an_error_of_the_front_end_that_no_port_names(way: str) -> None:
    class Broken:
        async def invoke(self, context: object, request: InvokeRequest) -> InvokeResponse:
            raise OSError("disk")

    async def story() -> None:
        request = InvokeRequest(parse_function_reference("f"), b"{}")
        async with door(way, Broken()) as frontend:
            with pytest.raises(OSError if way == "plain" else UncarriedError, match="disk"):
                await frontend.invoke(context_of(), request)

    run_virtually(story())


def test_a_function_arrives_whole(encode: bool) -> None:
    async def story() -> None:
        pretended = PretendWorker()
        worker = reach(encode)(pretended)
        assert worker.worker_id == "worker"
        reference = await worker.create(FULL)
        assert pretended.live[reference.sandbox_id].function == FULL
        seen: list[Invocation] = []

        def behave(_function: object, invocation: Invocation) -> Behaviour:
            seen.append(invocation)
            return Behaviour(payload=b"\x00\xff")

        pretended.behave = behave
        result = await worker.invoke(reference, INVOCATION)
        assert seen == [INVOCATION]
        assert (result.payload, result.healthy) == (b"\x00\xff", True)
        assert worker.snapshot() == pretended.snapshot()
        worker.idle(reference)
        worker.retire(reference)
        await asyncio.sleep(1)
        assert not pretended.live
        assert worker.sandboxes() == []
        await worker.close(0.0)

    run_virtually(story())


def test_the_errors_of_a_worker_keep_their_kind(encode: bool) -> None:
    async def story() -> None:
        pretended = PretendWorker(memory_total_mb=128)
        worker = reach(encode)(pretended)
        gone = SandboxReference("worker", "life", "gone", 3)
        with pytest.raises(StaleReference, match="gone"):
            await worker.invoke(gone, INVOCATION)
        await worker.create(FULL)
        with pytest.raises(WorkerUnavailable, match="full"):
            await worker.create(FULL)
        pretended.refuse_runtime = FULL.runtime
        with pytest.raises(RuntimeUnavailable, match="is not here"):
            await worker.create(FULL)

    run_virtually(story())


def test_the_errors_of_the_service_keep_their_fields(way: str) -> None:
    async def story() -> None:
        world = World(account_concurrency=0)
        await world.create("f")
        async with door(way, world.frontend) as frontend:
            with pytest.raises(ServiceError) as refused:
                await frontend.invoke(context_of(), InvokeRequest(parse_function_reference("f"), b"{}"))
        assert (refused.value.code, refused.value.message) == ("TooManyRequestsException", "Rate Exceeded.")
        assert refused.value.fields == {"Type": "User", "Reason": "ConcurrentInvocationLimitExceeded"}
        manager = LocalManager(world.manager, encode=way != "plain")
        await world.manager.close(0.0)
        with pytest.raises(ServiceError, match="shutting down"):
            await manager.place(FULL)
        await world.close()

    run_virtually(story())


def test_an_error_no_port_names_is_an_error_on_the_other_side_too(encode: bool) -> None:
    async def story() -> None:
        class Broken(PretendWorker):
            async def create(self, function: object, *, provisioned: bool = False) -> SandboxReference:
                raise OSError("disk")

        with pytest.raises(UncarriedError if encode else OSError, match="disk"):
            await reach(encode)(Broken()).create(FULL)

    run_virtually(story())


def test_a_sandbox_that_is_lost_is_told(encode: bool) -> None:
    async def story() -> None:
        pretended = PretendWorker()
        worker = reach(encode)(pretended)
        lost: list[SandboxReference] = []
        worker.on_sandbox_lost(lost.append)
        reference = await worker.create(FULL)
        pretended.lose(reference.sandbox_id)
        assert lost == [reference]

    run_virtually(story())


def test_deadlines_end_calls_that_nobody_answers(encode: bool) -> None:
    async def story() -> None:
        pretended = PretendWorker(create_s=100.0)
        worker = reach(encode, create_deadline_s=5.0, invoke_deadline_s=50.0)(pretended)
        with pytest.raises(WorkerUnavailable, match="within 5 s"):
            await worker.create(FULL)
        pretended.create_s = 1.0
        reference = await worker.create(FULL)
        pretended.behave = lambda _f, _i: Behaviour(duration_s=1000.0)
        with pytest.raises(WorkerUnavailable, match="within 50 s"):
            await worker.invoke(reference, INVOCATION)

    run_virtually(story())


def test_cancelling_leaves_the_invocation_running(encode: bool) -> None:
    async def story() -> None:
        pretended = PretendWorker()
        worker = reach(encode)(pretended)
        reference = await worker.create(FULL)
        pretended.behave = lambda _f, _i: Behaviour(duration_s=10.0, payload=b"late")
        call = asyncio.create_task(worker.invoke(reference, INVOCATION))
        await asyncio.sleep(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert pretended.busy == 1
        await asyncio.sleep(20)
        assert pretended.busy == 0

    run_virtually(story())


def test_reservations_cross(encode: bool) -> None:
    async def story() -> None:
        world = World()
        manager = LocalManager(world.manager, encode=encode)
        assert manager.reserve(FULL) is None
        placed = await manager.place(FULL)
        assert placed.cold
        manager.release(placed, healthy=True)
        again = manager.reserve(FULL)
        assert again is not None
        assert (again.cold, again.sandbox.epoch) == (False, 1)
        manager.release(again, healthy=True)
        manager.forget(FULL.key, FULL.version, keep_deployment_id=None)
        assert manager.reserve(FULL) is None
        await world.close()

    run_virtually(story())
