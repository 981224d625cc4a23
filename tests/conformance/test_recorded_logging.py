"""LoggingConfig, every answer compared with what AWS answered (recorded)."""

from typing import Any

import pytest

from tests.conformance.recorded import (
    ACTIVE,
    PENDING,
    UPDATING,
    answer,
    configuration,
    created,
    settled,
)
from tests.running import RunningStoker

JSON_DEFAULTS = {"LogFormat": "JSON", "ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"}
TEXT = {"LogFormat": "Text"}

PARTIAL: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "json": ({"LogFormat": "JSON"}, JSON_DEFAULTS),
    "application level": (
        {"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG"},
        {**JSON_DEFAULTS, "ApplicationLogLevel": "DEBUG"},
    ),
    "system level": (
        {"LogFormat": "JSON", "SystemLogLevel": "DEBUG"},
        {**JSON_DEFAULTS, "SystemLogLevel": "DEBUG"},
    ),
    "group": ({"LogGroup": "cool_lambda"}, {**TEXT, "LogGroup": "cool_lambda"}),
}


def logging(name: str, shown: dict[str, str]) -> dict[str, Any]:
    return {"LoggingConfig": {"LogGroup": f"/aws/lambda/{name}", **shown}}


def update(stoker: RunningStoker, name: str, given: dict[str, str], shown: dict[str, str]) -> None:
    """Update LoggingConfig; compare the answer and what is shown once it has settled."""
    service = stoker.client("lambda")
    expected = logging(name, shown)
    assert answer(service.update_function_configuration, FunctionName=name, LoggingConfig=given) == {
        **configuration(name, UPDATING, expected),
        "HTTP": 200,
    }
    settled(stoker, name)
    assert answer(service.get_function_configuration, FunctionName=name) == {
        **configuration(name, ACTIVE, expected),
        "HTTP": 200,
    }
    assert service.get_function(FunctionName=name)["Configuration"] == configuration(name, ACTIVE, expected)


@pytest.mark.parametrize("case", PARTIAL)
def test_what_is_not_given_has_defaults(stoker: RunningStoker, case: str) -> None:
    given, shown = PARTIAL[case]
    name = f"recorded-logging-{case.replace(' ', '-')}"
    created(stoker, name)
    update(stoker, name, given, shown)


def test_created_with_json(stoker: RunningStoker) -> None:
    name = "recorded-logging-created"
    assert created(stoker, name, LoggingConfig={"LogFormat": "JSON"}) == {
        **configuration(name, PENDING, logging(name, JSON_DEFAULTS)),
        "HTTP": 201,
    }
    given = {**JSON_DEFAULTS, "LogGroup": "cool_lambda"}
    update(stoker, name, given, given)


def test_there_and_back(stoker: RunningStoker) -> None:
    name = "recorded-logging-switch"
    created(stoker, name)
    update(stoker, name, {"LogFormat": "JSON"}, JSON_DEFAULTS)
    update(stoker, name, TEXT, TEXT)
