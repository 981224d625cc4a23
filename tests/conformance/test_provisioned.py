"""Provisioned concurrency over the wire: sandboxes that are there before anybody calls; recorded refusals."""

import json
import time
from typing import Any

from tests.conformance.recorded import answer, arn, created, invalid, refusal
from tests.running import RunningStoker

SOURCE = """
import os, time
started = time.time()
def lambda_handler(event, context):
    return {"type": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], "started": started}
"""
READY_WITHIN_S = 40.0


def invoked(stoker: RunningStoker, name: str, **options: Any) -> dict[str, Any]:
    answered = stoker.client("lambda").invoke(FunctionName=name, **options)
    assert "FunctionError" not in answered
    return json.loads(answered["Payload"].read())


def python(stoker: RunningStoker, name: str, source: str = SOURCE) -> None:
    """A published function."""
    stoker.create_python(name, source, Publish=True)


def ready(service: Any, name: str, qualifier: str) -> dict[str, Any]:
    deadline_s = time.monotonic() + READY_WITHIN_S
    while True:
        shown = service.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)
        if shown["Status"] != "IN_PROGRESS" or time.monotonic() > deadline_s:
            return shown
        time.sleep(0.1)


def without_moment(shown: dict[str, Any]) -> dict[str, Any]:
    assert shown.pop("LastModified").endswith("+0000")
    return shown


def test_sandboxes_are_initialised_before_the_first_call(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    python(stoker, "provisioned")
    put = answer(
        service.put_provisioned_concurrency_config,
        FunctionName="provisioned",
        Qualifier="1",
        ProvisionedConcurrentExecutions=2,
    )
    assert without_moment(put) == {
        "RequestedProvisionedConcurrentExecutions": 2,
        "AllocatedProvisionedConcurrentExecutions": 0,
        "AvailableProvisionedConcurrentExecutions": 0,
        "Status": "IN_PROGRESS",
        "HTTP": 202,
    }
    shown = ready(service, "provisioned", "1")
    shown.pop("ResponseMetadata")
    assert without_moment(shown) == {
        "RequestedProvisionedConcurrentExecutions": 2,
        "AllocatedProvisionedConcurrentExecutions": 2,
        "AvailableProvisionedConcurrentExecutions": 2,
        "Status": "READY",
    }
    asked_s = time.time()
    provisioned = invoked(stoker, "provisioned", Qualifier="1")
    assert provisioned["type"] == "provisioned-concurrency"
    assert provisioned["started"] < asked_s, "the sandbox was there before the call"
    assert invoked(stoker, "provisioned")["type"] == "on-demand"
    service.delete_provisioned_concurrency_config(FunctionName="provisioned", Qualifier="1")


def test_an_init_that_fails_is_told(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    python(stoker, "unprovisionable", "raise Exception('never')")
    service.put_provisioned_concurrency_config(
        FunctionName="unprovisionable", Qualifier="1", ProvisionedConcurrentExecutions=1
    )
    shown = ready(service, "unprovisionable", "1")
    assert shown["Status"] == "FAILED"
    assert "Init" in shown["StatusReason"]
    service.delete_function(FunctionName="unprovisionable")


def test_provisioning_survives_a_kill() -> None:
    stoker = RunningStoker(pool_memory_mb=0)
    try:
        stoker.start()
        service = stoker.client("lambda")
        python(stoker, "kept")
        service.put_provisioned_concurrency_config(
            FunctionName="kept", Qualifier="1", ProvisionedConcurrentExecutions=1
        )
        assert ready(service, "kept", "1")["Status"] == "READY"
        stoker.kill()
        stoker.start()
        assert ready(service, "kept", "1")["Status"] == "READY"
        assert invoked(stoker, "kept", Qualifier="1")["type"] == "provisioned-concurrency"
    finally:
        stoker.remove()


def test_what_is_provisioned_is_taken_from_what_is_reserved(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    python(stoker, "overlap")
    service.put_function_concurrency(FunctionName="overlap", ReservedConcurrentExecutions=2)
    service.put_provisioned_concurrency_config(
        FunctionName="overlap", Qualifier="1", ProvisionedConcurrentExecutions=2
    )
    assert ready(service, "overlap", "1")["Status"] == "READY"
    assert answer(service.invoke, FunctionName="overlap") == refusal(
        "TooManyRequestsException",
        "Rate Exceeded.",
        429,
        Reason="ReservedFunctionConcurrentInvocationLimitExceeded",
        Type="User",
        message="Rate Exceeded.",
    )
    assert invoked(stoker, "overlap", Qualifier="1")["type"] == "provisioned-concurrency"
    words = " ReservedConcurrentExecutions  1 should not be lower than function's total provisioned concurrency [2]."
    assert answer(
        service.put_function_concurrency, FunctionName="overlap", ReservedConcurrentExecutions=1
    ) == refusal("InvalidParameterValueException", words, message=words)
    service.delete_function(FunctionName="overlap")


def test_refusals_are_the_recorded_ones(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    created(stoker, "refusing", Publish=True)
    operations = {
        name: getattr(service, f"{name}_provisioned_concurrency_config") for name in ("get", "put", "delete")
    }

    def asked(name: str, function: str, qualifier: str) -> dict[str, Any]:
        more = {"ProvisionedConcurrentExecutions": 1} if name == "put" else {}
        return answer(operations[name], FunctionName=function, Qualifier=qualifier, **more)

    def missing(words: str) -> dict[str, Any]:
        return refusal("ResourceNotFoundException", words, 404, Message=words, Type="User")

    for name in operations:
        for function in ("refusing", "doesnotexist"):
            assert asked(name, function, "noalias") == missing(
                f"Cannot find alias arn: {arn(function)}:noalias"
            )
            assert asked(name, function, "10") == missing(f"Function not found: {arn(function)}:10")
    unpublished = "The function resource provided must be an alias or a published version."
    assert asked("get", "refusing", "$LATEST") == invalid(unpublished)
    assert asked("delete", "refusing", "$LATEST") == invalid(unpublished)
    assert asked("put", "refusing", "$LATEST") == invalid(
        "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
    )
    words = "No Provisioned Concurrency Config found for this function"
    assert asked("get", "refusing", "1") == refusal(
        "ProvisionedConcurrencyConfigNotFoundException", words, 404, Type="User", message=words
    )
    assert asked("delete", "refusing", "1") == {"HTTP": 204}
    listed = answer(service.list_provisioned_concurrency_configs, FunctionName="refusing")
    assert listed == {"ProvisionedConcurrencyConfigs": [], "HTTP": 200}
    assert answer(service.list_provisioned_concurrency_configs, FunctionName="doesnotexist") == missing(
        f"Function not found: {arn('doesnotexist')}"
    )
