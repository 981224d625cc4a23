"""Many clients at one function: every answer is one that AWS gives, and what is left is whole."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conformance.recorded import ECHO, OTHER, answer, created, creation, not_found, settled
from tests.running import PYTHON_RUNTIME, RunningStoker, zip_of

CLIENTS = 6


@pytest.fixture(scope="module")
def services(stoker: RunningStoker) -> list[Any]:
    return [stoker.client("lambda") for _ in range(CLIENTS)]


def at_once(services: list[Any], ask: Callable[[Any, int], dict[str, Any]]) -> list[dict[str, Any]]:
    """What every client was answered; each asked in a thread of its own."""
    with ThreadPoolExecutor(len(services)) as pool:
        return list(pool.map(ask, services, range(len(services))))


def statuses(answers: list[dict[str, Any]]) -> list[int]:
    return sorted(shown["HTTP"] for shown in answers)


def test_one_revision_is_updated_once(stoker: RunningStoker, services: list[Any]) -> None:
    name = "race-revision"
    created(stoker, name)
    for round_number in range(10):
        revision = settled(stoker, name)["RevisionId"]

        def change(
            service: Any, number: int, revision: str = revision, turn: int = round_number
        ) -> dict[str, Any]:
            if number % 2:
                return answer(
                    service.update_function_code,
                    FunctionName=name,
                    ZipFile=(ECHO, OTHER)[number % 4 // 2],
                    RevisionId=revision,
                )
            return answer(
                service.update_function_configuration,
                FunctionName=name,
                Description=f"{turn}.{number}",
                RevisionId=revision,
            )

        answers = at_once(services, change)
        won = [shown for shown in answers if shown["HTTP"] == 200]
        assert len(won) == 1, statuses(answers)
        assert {shown["HTTP"] for shown in answers} <= {200, 409, 412}
        after = settled(stoker, name)
        assert (after["CodeSha256"], after["Description"]) == (won[0]["CodeSha256"], won[0]["Description"])


def test_one_name_is_created_once(stoker: RunningStoker, services: list[Any]) -> None:
    for round_number in range(5):
        name = f"race-create-{round_number}"
        answers = at_once(
            services,
            lambda service, number, name=name: answer(
                service.create_function, **creation(name, Description=str(number))
            ),
        )
        assert statuses(answers) == [201] + [409] * (CLIENTS - 1)
        won = next(shown for shown in answers if shown["HTTP"] == 201)
        assert settled(stoker, name)["Description"] == won["Description"]
        lost = next(shown for shown in answers if shown["HTTP"] == 409)
        assert lost["Error"] == {
            "Code": "ResourceConflictException",
            "Message": f"Function already exist: {name}",
        }


def test_one_function_is_deleted_once(stoker: RunningStoker, services: list[Any]) -> None:
    created(stoker, "race-delete")
    answers = at_once(
        services, lambda service, _: answer(service.delete_function, FunctionName="race-delete")
    )
    assert statuses(answers) == [204] + [404] * (CLIENTS - 1)


def test_everything_at_once(stoker: RunningStoker, services: list[Any]) -> None:
    name, stop = "race-all", time.monotonic() + 3

    def ask(service: Any, number: int) -> dict[str, Any]:
        calls = [
            lambda: answer(service.create_function, **creation(name)),
            lambda: answer(service.update_function_code, FunctionName=name, ZipFile=OTHER),
            lambda: answer(service.update_function_configuration, FunctionName=name, MemorySize=256),
            lambda: answer(service.delete_function, FunctionName=name),
            lambda: answer(service.invoke, FunctionName=name, Payload=b"{}"),
            lambda: answer(service.get_function, FunctionName=name),
            lambda: answer(
                service.put_function_concurrency, FunctionName=name, ReservedConcurrentExecutions=2
            ),
        ]
        seen: dict[int, dict[str, Any]] = {}
        turn = number
        while time.monotonic() < stop:
            turn += 1 + number
            shown = calls[turn % len(calls)]()
            seen[shown["HTTP"]] = shown
            assert "FunctionError" not in shown, shown["Payload"].read()
        return {"HTTP": 0, "seen": seen}

    seen = [known for shown in at_once(services, ask) for known in shown["seen"].values()]
    assert [shown for shown in seen if shown["HTTP"] not in (200, 201, 204, 404, 409, 429)] == []
    answer(services[0].delete_function, FunctionName=name)
    assert answer(services[0].invoke, FunctionName=name) == not_found(name)
    created(stoker, name)
    assert json.loads(services[0].invoke(FunctionName=name, Payload=b"[1]")["Payload"].read()) == [1]
    assert "Concurrency" not in services[0].get_function(FunctionName=name)


def test_reservations_never_exceed_what_there_is(stoker: RunningStoker, services: list[Any]) -> None:
    names = [f"race-reserved-{number}" for number in range(CLIENTS)]
    for name in names:
        created(stoker, name)
    room = services[0].get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] - 100
    share = room // 3
    try:
        answers = at_once(
            services,
            lambda service, number: answer(
                service.put_function_concurrency,
                FunctionName=names[number],
                ReservedConcurrentExecutions=share,
            ),
        )
        assert statuses(answers) == [200] * 3 + [400] * (CLIENTS - 3)
        left = services[0].get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
        assert left == room + 100 - 3 * share
    finally:
        for name in names:
            services[0].delete_function(FunctionName=name)
    restored = services[0].get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    assert restored == room + 100, "a deleted function reserves nothing"


def test_a_deletion_lets_what_runs_end(stoker: RunningStoker, services: list[Any]) -> None:
    name = "race-running"
    source = "import time\ndef lambda_handler(event, context):\n    time.sleep(1.5)\n    return 'done'\n"
    stoker.create_python(name, source, Timeout=10)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(stoker.invoke, name)
        time.sleep(0.7)
        services[0].delete_function(FunctionName=name)
        assert answer(services[0].invoke, FunctionName=name) == not_found(name)
        assert running.result() == "done"


def test_a_list_of_what_is_being_created(stoker: RunningStoker, services: list[Any]) -> None:
    before = [f"race-list-{number:02d}" for number in range(0, 20, 2)]
    for name in before:
        created(stoker, name)

    def ask(service: Any, number: int) -> dict[str, Any]:
        if number:
            for other in range(2 * number - 1, 20, 2 * (CLIENTS - 1)):
                service.create_function(**creation(f"race-list-{other:02d}"))
            return {"HTTP": 0, "lists": []}
        pages = service.get_paginator("list_functions")
        return {
            "HTTP": 0,
            "lists": [
                [
                    function["FunctionName"]
                    for page in pages.paginate(PaginationConfig={"PageSize": 3})
                    for function in page["Functions"]
                ]
                for _ in range(3)
            ],
        }

    for names in at_once(services, ask)[0]["lists"]:
        assert len(names) == len(set(names))
        assert set(before) <= set(names)


def test_changing_code_under_load_runs_one_version_or_the_other(stoker: RunningStoker) -> None:
    """Every invocation sees one deployment whole: code and environment of the same update."""
    name = "recorded-torn"

    def archive(number: int) -> bytes:
        return zip_of(
            {
                "lambda_function.py": "import a, b\ndef lambda_handler(e, c):\n    return [a.N, b.N]\n",
                "a.py": f"N = {number}\n",
                "b.py": f"N = {number}\n",
            }
        )

    stoker.create(
        name, archive(0), Runtime=PYTHON_RUNTIME, Handler="lambda_function.lambda_handler", Timeout=10
    )
    service = stoker.client("lambda", max_pool_connections=8)
    stop = time.monotonic() + 4

    def hammer() -> list[list[int]]:
        seen: list[list[int]] = []
        client = stoker.client("lambda")
        while time.monotonic() < stop:
            seen.append(json.loads(client.invoke(FunctionName=name)["Payload"].read()))
        return seen

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(hammer) for _ in range(3)]
        number = 0
        while time.monotonic() < stop - 0.5:
            number += 1
            service.update_function_code(FunctionName=name, ZipFile=archive(number))
            settled(stoker, name)
            after = json.loads(service.invoke(FunctionName=name)["Payload"].read())
            assert after == [number, number], "an update that ended is what runs"
        seen = [pair for call in running for pair in call.result()]
    assert number > 1
    assert all(one == other for one, other in seen)
