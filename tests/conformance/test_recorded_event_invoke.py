"""Event invoke config, every answer compared with what AWS answered (recorded); and that events obey it."""

import datetime
import time
from typing import Any

from tests.conformance.recorded import answer, arn, created, invalid, refusal
from tests.running import RunningStoker, python_zip

UNSENT = {"OnSuccess": {}, "OnFailure": {}}
DERIVED = invalid("The derived qualifier from the function name does not match the specified qualifier.")
NO_FUNCTION = refusal(
    "ResourceNotFoundException",
    "The function doesn't exist.",
    404,
    Type="User",
    Message="The function doesn't exist.",
)
DESTINATION = (
    r"$|kafka://([^.]([a-zA-Z0-9\-_.]{0,248}))|arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:"
    r"((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1})?:(\d{12})?:(.*)"
)


class Recently:
    """A moment of the last minute."""

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, datetime.datetime)
        return abs(time.time() - other.timestamp()) < 60

    __hash__ = None


def config(name: str, qualifier: str = "$LATEST", **members: Any) -> dict[str, Any]:
    return {
        "FunctionArn": f"{arn(name)}:{qualifier}",
        "LastModified": Recently(),
        "DestinationConfig": UNSENT,
        "HTTP": 200,
        **members,
    }


def no_config(name: str, qualifier: str = "$LATEST") -> dict[str, Any]:
    words = f"The function {arn(name)}:{qualifier} doesn't have an EventInvokeConfig"
    return refusal("ResourceNotFoundException", words, 404, Type="User", Message=words)


def test_from_the_first_put_to_the_deletion(stoker: RunningStoker) -> None:
    name, service = "event-invoke-life", stoker.client("lambda")
    created(stoker, name)
    listed = answer(service.list_function_event_invoke_configs, FunctionName=name)
    assert listed == {"FunctionEventInvokeConfigs": [], "HTTP": 200}
    put, update = service.put_function_event_invoke_config, service.update_function_event_invoke_config
    get, delete = service.get_function_event_invoke_config, service.delete_function_event_invoke_config
    assert answer(put, FunctionName=name, MaximumRetryAttempts=0) == config(name, MaximumRetryAttempts=0)
    aged = config(name, MaximumEventAgeInSeconds=60)
    assert answer(put, FunctionName=name, MaximumEventAgeInSeconds=60) == aged
    assert answer(update, FunctionName=name, MaximumEventAgeInSeconds=60) == aged
    both = config(name, MaximumEventAgeInSeconds=60, MaximumRetryAttempts=1)
    assert answer(update, FunctionName=name, MaximumRetryAttempts=1) == both
    assert answer(get, FunctionName=name) == both
    assert answer(get, FunctionName=name, Qualifier="$LATEST") == both
    listed = answer(service.list_function_event_invoke_configs, FunctionName=name)
    assert [{**one, "HTTP": 200} for one in listed["FunctionEventInvokeConfigs"]] == [both]
    assert answer(delete, FunctionName=name, Qualifier="$LATEST") == {"HTTP": 204}
    assert answer(delete, FunctionName=name) == no_config(name)
    assert answer(get, FunctionName=name) == no_config(name)


def test_what_is_refused(stoker: RunningStoker) -> None:
    name, service = "event-invoke-refused", stoker.client("lambda")
    created(stoker, name)

    def put(function: str = name, **members: Any) -> dict[str, Any]:
        return answer(service.put_function_event_invoke_config, FunctionName=function, **members)

    def update(function: str = name, **members: Any) -> dict[str, Any]:
        return answer(service.update_function_event_invoke_config, FunctionName=function, **members)

    nothing = invalid("You must specify at least one of error handling or destination setting.")
    assert put() == nothing
    assert put("doesnotexist", MaximumRetryAttempts=1) == NO_FUNCTION
    assert put(arn("doesnotexist"), MaximumRetryAttempts=1) == NO_FUNCTION
    assert put(Qualifier="doesnotexist", MaximumRetryAttempts=1) == NO_FUNCTION
    assert update("doesnotexist", MaximumRetryAttempts=1) == NO_FUNCTION
    assert update(MaximumRetryAttempts=1) == no_config(name)
    assert put(f"{name}:$LATEST", Qualifier="1", MaximumRetryAttempts=1) == DERIVED
    assert put(f"{name}:1", Qualifier="$LATEST", MaximumRetryAttempts=1) == DERIVED
    same = config(name, MaximumRetryAttempts=1)
    assert put(f"{name}:$LATEST", Qualifier="$LATEST", MaximumRetryAttempts=1) == same
    get = service.get_function_event_invoke_config
    assert answer(get, FunctionName="doesnotexist") == no_config("doesnotexist")
    assert answer(get, FunctionName=name, Qualifier="1221") == no_config(name, "1221")
    delete = service.delete_function_event_invoke_config
    assert answer(delete, FunctionName="doesnotexist") == no_config("doesnotexist")
    assert answer(service.list_function_event_invoke_configs, FunctionName="doesnotexist") == NO_FUNCTION


def test_destinations(stoker: RunningStoker) -> None:
    name, other, service = "event-invoke-sends", "event-invoke-gets", stoker.client("lambda")
    created(stoker, name)
    created(stoker, other)

    def put(**destinations: dict[str, str]) -> dict[str, Any]:
        put_it = service.put_function_event_invoke_config
        return answer(put_it, FunctionName=name, DestinationConfig=destinations)

    assert put(OnSuccess={}) == config(name)
    assert put(OnFailure={}) == config(name)
    sent = {**UNSENT, "OnSuccess": {"Destination": arn(other)}}
    assert put(OnSuccess={"Destination": arn(other)}) == config(name, DestinationConfig=sent)
    itself = invalid("You can't specify the function as a destination for itself.")
    assert put(OnSuccess={"Destination": arn(name)}) == itself
    absent = arn("doesnotexist")
    assert put(OnSuccess={"Destination": absent}) == invalid(f"The destination ARN {absent} is invalid.")
    role = arn(name).replace(":lambda:", ":iam:")
    assert put(OnSuccess={"Destination": role}) == invalid(
        "The provided destination config DestinationConfig("
        f"onSuccess=OnSuccess(destination={role}), onFailure=null) is invalid."
    )
    strange = arn(name).replace(":lambda:", ":_-/!lambda:")
    assert put(OnFailure={"Destination": strange}) == refusal(
        "ValidationException",
        f"1 validation error detected: Value '{strange}' at 'destinationConfig.onFailure.destination' failed to "
        f"satisfy constraint: Member must satisfy regular expression pattern: {DESTINATION}",
    )


def test_events_are_retried_as_often_as_it_says(stoker: RunningStoker) -> None:
    name, service = "event-invoke-obeyed", stoker.client("lambda")
    fails = python_zip(
        "def lambda_handler(event, context):\n    print('tried')\n    raise ValueError(event)\n"
    )
    created(stoker, name, Code={"ZipFile": fails})
    service.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=0)
    assert service.invoke(FunctionName=name, InvocationType="Event", Payload=b"1")["StatusCode"] == 202
    time.sleep(3)  # with the tests' scale the first retry would come after 1.2 s
    logs = stoker.client("logs")
    events = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    assert len([event for event in events if event["message"].strip() == "tried"]) == 1


def test_versions_and_aliases(stoker: RunningStoker) -> None:
    name, alias, service = "event-invoke-qualified", "eventinvokealias", stoker.client("lambda")
    created(stoker, name)
    service.publish_version(FunctionName=name)
    service.create_alias(FunctionName=name, Name=alias, FunctionVersion="1")

    def put(function: str, retries: int = 1, **members: str) -> dict[str, Any]:
        call = service.put_function_event_invoke_config
        return answer(call, FunctionName=function, MaximumRetryAttempts=retries, **members)

    of_alias, of_version = (
        config(name, alias, MaximumRetryAttempts=1),
        config(name, "1", MaximumRetryAttempts=1),
    )
    get, update = service.get_function_event_invoke_config, service.update_function_event_invoke_config
    assert answer(get, FunctionName=name, Qualifier=alias) == no_config(name, alias)
    changed = answer(update, FunctionName=name, Qualifier=alias, MaximumRetryAttempts=1)
    assert changed == no_config(name, alias)
    for function in (name, f"{name}:{alias}", f"{arn(name)}:{alias}"):
        assert put(function, Qualifier=alias) == of_alias
        assert put(function if ":" in function else f"{name}:{alias}") == of_alias
    assert put(f"{name}:{alias}", Qualifier="1") == put(f"{arn(name)}:1", Qualifier=alias) == DERIVED
    assert put(name, Qualifier=f"{alias}doesnotexist") == NO_FUNCTION
    assert put(name, Qualifier="1") == of_version
    assert put(f"{name}:1") == of_version
    assert put(name, 0) == config(name, MaximumRetryAttempts=0)
    listed = service.list_function_event_invoke_configs(FunctionName=name)["FunctionEventInvokeConfigs"]
    expected = [config(name, MaximumRetryAttempts=0), of_version, of_alias]
    assert [{**one, "HTTP": 200} for one in listed] == expected
    pages = service.get_paginator("list_function_event_invoke_configs").paginate(
        FunctionName=name, PaginationConfig={"PageSize": 1}
    )
    assert [page["FunctionEventInvokeConfigs"] for page in pages] == [[one] for one in listed]
    delete = service.delete_function_event_invoke_config
    for qualifier in ("1", "$LATEST", alias):
        assert answer(delete, FunctionName=name, Qualifier=qualifier) == {"HTTP": 204}
    assert service.list_function_event_invoke_configs(FunctionName=name)["FunctionEventInvokeConfigs"] == []
