"""The front end over the real manager and a pretended worker, in virtual time: one behaviour a test."""

import asyncio
import base64

import pytest

from stoker.core.errors import ServiceError
from stoker.services.functions import FunctionVersion, Status
from stoker.services.invocation import Invocation
from stoker.services.queue import QueueFull
from tests.simulation.frontend.virtual_time import run_virtually
from tests.simulation.frontend.world import Behaviour, World

PENDING = Status(value="Pending", reason="The function is being created.", reason_code="Creating")
ACTIVE = Status(value="Active")


def test_a_result_is_passed_through_and_the_sandbox_used_again() -> None:
    async def story() -> None:
        world = World()
        await world.create("f")
        world.worker.behave = lambda _f, _i: Behaviour(payload=b'{"ok": 1}')
        for _ in range(3):
            response = await world.invoke("f")
            assert (response.status, response.payload, response.function_error) == (200, b'{"ok": 1}', None)
            assert response.executed_version == "$LATEST"
        assert world.worker.created == 1
        world.check_nothing_leaked()
        await world.close()

    run_virtually(story())


def test_a_function_error_is_a_success_of_the_service_and_unhealthy_sandboxes_go() -> None:
    async def story() -> None:
        world = World()
        await world.create("f")
        world.worker.behave = lambda _f, _i: Behaviour(function_error="Unhandled", healthy=False)
        for _ in range(2):
            response = await world.invoke("f")
            assert (response.status, response.function_error) == (200, "Unhandled")
        assert world.worker.created == 2
        await asyncio.sleep(1)
        assert not world.worker.live
        world.check_nothing_leaked()
        assert world.frontend.statistics().function_errors == 2
        await world.close()

    run_virtually(story())


def test_what_the_worker_is_told() -> None:
    async def story() -> None:
        world = World()
        await world.create("f")
        seen: list[Invocation] = []

        def behave(_f: FunctionVersion, invocation: Invocation) -> Behaviour:
            seen.append(invocation)
            return Behaviour()

        world.worker.behave = behave
        context = base64.b64encode(b'{"custom": {}}').decode()
        await world.invoke("f", request_id="one", client_context=context, log_tail=True)
        trace_id = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
        await world.invoke("f", qualifier="$LATEST", trace_id=trace_id)
        arn = "arn:aws:lambda:us-east-1:000000000000:function:f"
        assert (seen[0].request_id, seen[0].invoked_arn) == ("one", arn)
        assert (seen[0].client_context, seen[0].want_log_tail) == ('{"custom": {}}', True)
        assert seen[0].trace_id.startswith("Root=1-")
        assert (seen[1].invoked_arn, seen[1].trace_id) == (f"{arn}:$LATEST", trace_id)
        await world.close()

    run_virtually(story())


ARN = "arn:aws:lambda:us-east-1:000000000000:function"


@pytest.mark.parametrize(
    ("name", "qualifier", "kind", "code", "message"),
    [
        ("nobody", None, "RequestResponse", "ResourceNotFoundException", f"Function not found: {ARN}:nobody"),
        ("nobody", None, "Event", "ResourceNotFoundException", f"Function not found: {ARN}:nobody"),
        ("nobody", None, "DryRun", "ResourceNotFoundException", f"Function not found: {ARN}:nobody"),
        ("f", "7", "RequestResponse", "ResourceNotFoundException", f"Function not found: {ARN}:f:7"),
        ("f", "live", "Event", "ResourceNotFoundException", f"Function not found: {ARN}:f:live"),
        (
            "arn:aws:lambda:eu-west-1:000000000000:function:f",
            None,
            "RequestResponse",
            "ResourceNotFoundException",
            "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')",
        ),
    ],
)
def test_who_is_not_found(name: str, qualifier: str | None, kind: str, code: str, message: str) -> None:
    async def story() -> None:
        world = World()
        await world.create("f")
        with pytest.raises(ServiceError) as refused:
            await world.invoke(name, qualifier=qualifier, kind=kind)
        assert (refused.value.code, refused.value.message) == (code, message)
        assert not world.worker.served
        await world.close()

    run_virtually(story())


def test_another_account_is_refused_whether_the_function_exists_or_not() -> None:
    async def story() -> None:
        world = World()
        await world.create("f")
        for name in ("f", "nobody"):
            with pytest.raises(ServiceError) as refused:
                await world.invoke(f"{ARN}:{name}", caller="111111111111")
            assert refused.value.code == "AccessDeniedException"
        await world.close()

    run_virtually(story())


def test_dry_run_answers_and_runs_nothing() -> None:
    async def story() -> None:
        world = World()
        await world.create("f")
        response = await world.invoke("f", kind="DryRun")
        assert (response.status, response.payload, response.executed_version) == (204, b"", None)
        assert not world.worker.served
        await world.close()

    run_virtually(story())


def test_a_function_being_created_is_waited_for() -> None:
    async def story() -> None:
        world = World()
        version = await world.create("f", state=PENDING)
        call = asyncio.create_task(world.invoke("f"))
        await asyncio.sleep(2)
        assert not call.done()
        await world.update(version, state=ACTIVE)
        assert (await call).status == 200
        await world.close()

    run_virtually(story())


@pytest.mark.parametrize(("state", "waits_s"), [("Pending", 5.0), ("Failed", 0.0), ("Inactive", 0.0)])
def test_a_function_that_is_not_active_is_refused(state: str, waits_s: float) -> None:
    async def story() -> None:
        world = World()
        await world.create("f", state=Status(value=state))
        started_s = world.clock.now_s()
        with pytest.raises(ServiceError) as refused:
            await world.invoke("f")
        assert refused.value.code == "ResourceConflictException"
        assert refused.value.message == (
            "The operation cannot be performed at this time. "
            f"The function is currently in the following state: {state}"
        )
        assert world.clock.now_s() - started_s == pytest.approx(waits_s, abs=0.01)
        await world.close()

    run_virtually(story())


def test_an_update_is_seen_by_the_next_invoke_and_the_old_sandboxes_go() -> None:
    async def story() -> None:
        world = World()
        version = await world.create("f", deployment_id="old")
        await world.invoke("f")
        slow = asyncio.create_task(world.invoke("f"))
        await asyncio.sleep(0.05)
        await world.update(version, deployment_id="new")
        await world.invoke("f")
        await slow
        assert [deployment for _, deployment, _ in world.worker.served] == ["old", "old", "new"]
        await asyncio.sleep(1)
        live = [sandbox.function.deployment_id for sandbox in world.worker.live.values()]
        assert live == ["new"]
        world.check_nothing_leaked()
        await world.close()

    run_virtually(story())


def test_a_reservation_is_taken_from_the_others_at_once() -> None:
    async def story() -> None:
        world = World(account_concurrency=4)
        await world.create("f")
        other = await world.create("g")
        world.worker.behave = lambda _f, _i: Behaviour(duration_s=5.0)

        async def answered() -> int:
            calls = [world.invoke("f") for _ in range(6)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            return sum(not isinstance(result, ServiceError) for result in results)

        assert await answered() == 4
        await world.metadata.set_reserved_concurrency(other.key, 3)
        world.invalidation.publish(other.key)
        assert await answered() == 1
        await world.metadata.set_reserved_concurrency(other.key, None)
        world.invalidation.publish(other.key)
        assert await answered() == 4
        await world.close()

    run_virtually(story())


def test_deleting_a_function_ends_its_sandboxes_without_another_invoke() -> None:
    async def story() -> None:
        world = World()
        version = await world.create("f")
        await world.invoke("f")
        await world.delete(version.key)
        await asyncio.sleep(1)
        assert not world.worker.live
        with pytest.raises(ServiceError):
            await world.invoke("f")
        await world.close()

    run_virtually(story())


def test_a_read_that_began_before_an_update_is_not_kept() -> None:
    async def story() -> None:
        world = World()
        version = await world.create("f", deployment_id="old")
        read = world.metadata.version

        async def slow_read(key: object, name: str) -> FunctionVersion | None:
            found = await read(key, name)
            await asyncio.sleep(1)
            return found

        await asyncio.sleep(0)
        world.invalidation.publish(version.key)
        world.metadata.version = slow_read
        before = asyncio.create_task(world.invoke("f"))
        await asyncio.sleep(0.5)
        world.metadata.version = read
        await world.update(version, deployment_id="new")
        world.metadata.version = slow_read
        await world.invoke("f")
        await before
        await world.invoke("f")
        assert [deployment for _, deployment, _ in world.worker.served][-1] == "new"
        assert sorted(deployment for _, deployment, _ in world.worker.served) == ["new", "new", "old"]
        await asyncio.sleep(1)
        assert {sandbox.function.deployment_id for sandbox in world.worker.live.values()} == {"new"}
        await world.close()

    run_virtually(story())


def test_an_event_is_on_the_queue_before_the_caller_is_told() -> None:
    async def story() -> None:
        world = World()
        await world.create("f", reserved_concurrency=0)
        context = base64.b64encode(b"{}").decode()
        response = await world.invoke("f", kind="Event", request_id="one", client_context=context)
        assert (response.status, response.payload, response.executed_version) == (202, b"", None)
        (event,) = await world.queue.take(now_s=world.clock.now_s(), limit=5, lease_s=1.0)
        assert (event.request_id, event.qualifier, event.client_context) == ("one", "", None)
        assert event.trace_id is not None
        assert not world.worker.served
        await world.close()

    run_virtually(story())


def test_a_full_queue_refuses_before_the_202() -> None:
    async def story() -> None:
        world = World()
        await world.create("f")
        world.queue.fail_next(QueueFull("full"))
        with pytest.raises(ServiceError) as refused:
            await world.invoke("f", kind="Event")
        assert refused.value.code == "TooManyRequestsException"
        assert refused.value.fields["Reason"] == "CallerRateLimitExceeded"
        await world.close()

    run_virtually(story())


def test_an_invalid_client_context_is_refused() -> None:
    async def story() -> None:
        world = World()
        await world.create("f")
        with pytest.raises(ServiceError) as refused:
            await world.invoke("f", client_context="string")
        assert refused.value.code == "InvalidRequestContentException"
        await world.close()

    run_virtually(story())
