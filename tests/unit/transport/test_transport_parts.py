"""The parts of transports: what can be carried, and faults on command."""

import asyncio

import msgspec
import pytest

from stoker.core.errors import too_many_requests
from stoker.services.invocation import InvocationResult
from stoker.services.worker import StaleReference, WorkerUnavailable
from stoker.transport.faulty import Fault, Faults, FaultyWorker
from stoker.transport.messages import Messages, describe, restore
from tests.contract.test_transport import INVOCATION
from tests.simulation.frontend.virtual_time import run_virtually
from tests.simulation.frontend.world import PretendWorker, version_of

F = version_of("f")


def test_what_cannot_be_encoded_is_found() -> None:
    class Connection:
        pass

    plain, encoded = Messages(encode=False), Messages(encode=True)
    smuggled = version_of("f", stored_only={"connection": Connection()})
    assert plain.carry(smuggled, type(smuggled)) is smuggled
    with pytest.raises(TypeError):
        encoded.carry(smuggled, type(smuggled))


def test_what_does_not_arrive_as_declared_is_found() -> None:
    wrong = InvocationResult("text, not bytes", None, 1, "late")
    with pytest.raises(msgspec.ValidationError):
        Messages(encode=True).carry(wrong, InvocationResult)


def test_errors_survive_as_messages() -> None:
    error = too_many_requests("Rate Exceeded.", "CallerRateLimitExceeded")
    restored = restore(describe(error))
    assert (restored.code, restored.message, restored.fields) == (error.code, error.message, error.fields)
    assert isinstance(restore(describe(StaleReference("s"))), StaleReference)


def test_faults_happen_in_order_and_then_no_more() -> None:
    async def story() -> None:
        faults = Faults()
        worker = FaultyWorker(PretendWorker(create_s=0.0), faults)
        faults.add("create", Fault(error=WorkerUnavailable("lost on the way")), times=2)
        faults.add("create", Fault(delay_s=3.0))
        for _ in range(2):
            with pytest.raises(WorkerUnavailable):
                await worker.create(F)
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        await worker.create(F)
        assert loop.time() - started_s == pytest.approx(3.0)
        await worker.create(F)
        assert loop.time() - started_s == pytest.approx(3.0)

    run_virtually(story())


def test_a_lost_answer_is_not_a_call_that_did_not_happen() -> None:
    async def story() -> None:
        pretended, faults = PretendWorker(), Faults()
        worker = FaultyWorker(pretended, faults)
        faults.add("create", Fault(error_after=WorkerUnavailable("no answer")))
        with pytest.raises(WorkerUnavailable):
            await worker.create(F)
        assert len(pretended.live) == 1
        reference = await worker.create(F)
        faults.add("invoke", Fault(error_after=StaleReference("no answer")))
        with pytest.raises(StaleReference):
            await worker.invoke(reference, INVOCATION)
        assert len(pretended.served) == 1

    run_virtually(story())


def test_messages_without_an_answer_are_lost_delayed_and_doubled() -> None:
    async def story() -> None:
        pretended, faults = PretendWorker(shutdown_s=0.0), Faults()
        worker = FaultyWorker(pretended, faults)
        reference = await worker.create(F)
        faults.add("retire", Fault(error=OSError("lost")))
        faults.add("retire", Fault(delay_s=5.0, duplicate=True))
        worker.retire(reference)
        await asyncio.sleep(1)
        assert len(pretended.live) == 1
        worker.retire(reference)
        await asyncio.sleep(1)
        assert not pretended.live, "the duplicate came first"
        await asyncio.sleep(5)

    run_virtually(story())


def test_a_duplicated_invocation_answers_once() -> None:
    async def story() -> None:
        pretended, faults = PretendWorker(), Faults()
        worker = FaultyWorker(pretended, faults)
        reference = await worker.create(F)
        faults.add("invoke", Fault(duplicate=True))
        result = await worker.invoke(reference, INVOCATION)
        assert result.payload == b"{}"
        assert len(pretended.served) == 1
        faults.add("create", Fault(duplicate=True))
        with pytest.raises(ValueError, match="cannot be duplicated"):
            await worker.create(F)

    run_virtually(story())
