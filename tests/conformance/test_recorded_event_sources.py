"""Event source mappings, every answer compared with what AWS answered (recorded)."""

import json
import time
from typing import Any

import pytest

from tests.conformance.recorded import UUID, answer, arn, created, invalid, refusal, violates
from tests.conformance.test_recorded_event_invoke import Recently
from tests.running import ACCOUNT, REGION, RunningStoker

MAPPED = "mapped"
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:"
TABLE = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/t/stream/2025-02-22T03:03:25.49"
STREAM = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/"
SECRET = [{"Type": "BASIC_AUTH", "URI": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:s"}]
NO_MAPPING = "The resource you requested does not exist."
NOT_THERE = refusal("ResourceNotFoundException", NO_MAPPING, 404, Type="User", Message=NO_MAPPING)
IN_USE = "because it is in use."


@pytest.fixture(scope="module")
def mapped(stoker: RunningStoker) -> str:
    created(stoker, MAPPED)
    return MAPPED


def create(stoker: RunningStoker, **members: Any) -> dict[str, Any]:
    return answer(stoker.client("lambda").create_event_source_mapping, FunctionName=MAPPED, **members)


def mapping(shown: dict[str, Any], **members: Any) -> dict[str, Any]:
    """What an answer must be, with the UUID it has."""
    uuid = shown["UUID"]
    assert uuid == UUID
    return {
        "EventSourceMappingArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:event-source-mapping:{uuid}",
        "FunctionArn": arn(MAPPED),
        "LastModified": Recently(),
        "UUID": uuid,
        **members,
    }


def queue_mapping(shown: dict[str, Any], **members: Any) -> dict[str, Any]:
    return mapping(
        shown,
        **{
            "BatchSize": 10,
            "FunctionResponseTypes": [],
            "MaximumBatchingWindowInSeconds": 0,
            "StateTransitionReason": "USER_INITIATED",
            **members,
        },
    )


def stream_mapping(shown: dict[str, Any], **members: Any) -> dict[str, Any]:
    return mapping(
        shown,
        **{
            "BatchSize": 100,
            "BisectBatchOnFunctionError": False,
            "DestinationConfig": {"OnFailure": {}},
            "FunctionResponseTypes": [],
            "LastProcessingResult": "No records processed",
            "MaximumBatchingWindowInSeconds": 0,
            "MaximumRecordAgeInSeconds": -1,
            "MaximumRetryAttempts": -1,
            "ParallelizationFactor": 1,
            "StateTransitionReason": "User action",
            "TumblingWindowInSeconds": 0,
            **members,
        },
    )


def at_rest(stoker: RunningStoker, uuid: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        shown = answer(stoker.client("lambda").get_event_source_mapping, UUID=uuid)
        if shown.get("State") in ("Enabled", "Disabled", None):
            return shown
        time.sleep(0.05)
    raise AssertionError("still on its way")


def test_the_life_of_a_mapping(stoker: RunningStoker, mapped: str) -> None:
    service = stoker.client("lambda")
    given = {
        "EventSourceArn": TABLE,
        "BatchSize": 1,
        "MaximumBatchingWindowInSeconds": 1,
        "MaximumRetryAttempts": 1,
        "StartingPosition": "TRIM_HORIZON",
        "DestinationConfig": {"OnFailure": {"Destination": f"{QUEUE}failed"}},
    }
    shown = create(stoker, **given)
    assert shown == stream_mapping(shown, **given, State="Creating", HTTP=202)
    uuid = shown["UUID"]
    refused = answer(service.update_event_source_mapping, UUID=uuid, BatchSize=2)
    assert refused == refusal(
        "ResourceInUseException",
        f"Cannot update the event source mapping {IN_USE}",
        400,
        Type="User",
        Message=f"Cannot update the event source mapping {IN_USE}",
    )
    assert at_rest(stoker, uuid) == stream_mapping(shown, **given, State="Enabled", HTTP=200)
    gone = answer(service.delete_event_source_mapping, UUID=uuid)
    assert gone == stream_mapping(shown, **given, State="Deleting", HTTP=202)
    assert at_rest(stoker, uuid) == NOT_THERE
    assert answer(service.delete_event_source_mapping, UUID=uuid) == NOT_THERE
    assert answer(service.update_event_source_mapping, UUID=uuid, BatchSize=1) == NOT_THERE


def test_a_mapping_outlives_its_function(stoker: RunningStoker) -> None:
    name, service = "mapped-briefly", stoker.client("lambda")
    created(stoker, name)
    shown = answer(service.create_event_source_mapping, FunctionName=name, EventSourceArn=f"{QUEUE}orphan")
    uuid = shown["UUID"]
    before = at_rest(stoker, uuid)
    service.delete_function(FunctionName=name)
    assert answer(service.get_event_source_mapping, UUID=uuid) == before
    assert service.delete_event_source_mapping(UUID=uuid)["State"] == "Deleting"


def test_queues(stoker: RunningStoker, mapped: str) -> None:
    source, service = f"{QUEUE}q", stoker.client("lambda")
    shown = create(stoker, EventSourceArn=source)
    assert shown == queue_mapping(shown, EventSourceArn=source, State="Creating", HTTP=202)
    uuid = shown["UUID"]
    taken = (
        f'An event source mapping with SQS arn (" {source} ") and function (" {mapped} ") already exists. '
        f"Please update or delete the existing mapping with UUID {uuid}"
    )
    duplicate = refusal("ResourceConflictException", taken, 409, Type="User", message=taken)
    assert create(stoker, EventSourceArn=source) == duplicate
    at_rest(stoker, uuid)
    scaled = {"EventSourceArn": source, "ScalingConfig": {"MaximumConcurrency": 2}, "BatchSize": 20}
    updated = answer(
        service.update_event_source_mapping,
        UUID=uuid,
        BatchSize=20,
        MaximumBatchingWindowInSeconds=1,
        ScalingConfig={"MaximumConcurrency": 2},
    )
    window = {"MaximumBatchingWindowInSeconds": 1}
    assert updated == queue_mapping(shown, **scaled, **window, State="Updating", HTTP=202)
    assert at_rest(stoker, uuid) == queue_mapping(shown, **scaled, **window, State="Enabled", HTTP=200)
    stopping = answer(service.update_event_source_mapping, UUID=uuid, Enabled=False, ScalingConfig={})
    assert stopping["State"] == "Disabling"
    stopped = at_rest(stoker, uuid)
    assert stopped["State"] == "Disabled"
    assert "ScalingConfig" not in stopped


def test_streams(stoker: RunningStoker, mapped: str) -> None:
    source = f"{STREAM}s"
    shown = create(stoker, EventSourceArn=source, StartingPosition="LATEST")
    expected = stream_mapping(shown, EventSourceArn=source, StartingPosition="LATEST", State="Creating")
    assert shown == {**expected, "HTTP": 202}
    uuid = shown["UUID"]
    taken = (
        f'The event source arn (" {source} ") and function (" {mapped} ") provided mapping already exists. '
        f"Please update or delete the existing mapping with UUID {uuid}"
    )
    again = create(stoker, EventSourceArn=source, StartingPosition="LATEST")
    assert again == refusal("ResourceConflictException", taken, 409, Type="User", message=taken)
    null = "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: "
    assert create(stoker, EventSourceArn=source) == invalid(f"{null}Member must not be null.")
    strange = create(stoker, EventSourceArn=source, StartingPosition="invalid")
    values = "Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]"
    assert strange == violates("'invalid'", "startingPosition", values)
    at = create(stoker, EventSourceArn=TABLE, StartingPosition="AT_TIMESTAMP")
    assert at == invalid(f"Unsupported starting position for arn type: {TABLE}")


def test_filters(stoker: RunningStoker, mapped: str) -> None:
    none = create(
        stoker, EventSourceArn=f"{STREAM}f", StartingPosition="LATEST", FilterCriteria={"Filters": []}
    )
    assert none["HTTP"] == 202
    assert "FilterCriteria" not in none
    wrong = invalid("Invalid filter pattern definition.")
    for pattern in (
        "null",
        "simple string",
        '"simple string"',
        '{"eventSource": "aws:sqs"}',
        '{"a": []}',
        "",
    ):
        filters = {"Filters": [{"Pattern": pattern}]}
        assert create(stoker, EventSourceArn=f"{QUEUE}f", FilterCriteria=filters) == wrong
    filters = {"Filters": [{"Pattern": json.dumps({"body": {"a": [{"prefix": "x"}]}})}]}
    assert create(stoker, EventSourceArn=f"{QUEUE}f", FilterCriteria=filters)["FilterCriteria"] == filters


def test_self_managed_kafka(stoker: RunningStoker, mapped: str) -> None:
    def kafka(*servers: str, **members: Any) -> dict[str, Any]:
        source = {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": list(servers)}}
        return create(stoker, SelfManagedEventSource=source, **members)

    missing = invalid("Required 'sourceAccessConfigurations' parameter is missing.")
    assert kafka("kafka:1000", Topics=["topic"]) == missing
    shown = kafka("kafka:1000", Topics=["topic"], SourceAccessConfigurations=SECRET)
    assert shown == mapping(
        shown,
        BatchSize=100,
        LastProcessingResult="No records processed",
        SelfManagedEventSource={"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["kafka:1000"]}},
        SelfManagedKafkaEventSourceConfig={"ConsumerGroupId": shown["UUID"]},
        SourceAccessConfigurations=SECRET,
        StartingPosition="TRIM_HORIZON",
        State="Creating",
        StateTransitionReason="USER_INITIATED",
        Topics=["topic"],
        HTTP=202,
    )
    for servers in (("kafka:1000",), ("kafka:1000", "kafka:2000")):
        taken = (
            f'An event source mapping with event source ("{",".join(servers)}"), function '
            f'("{arn(mapped)}"), topics ("topic") already exists. Please update or delete the existing '
            f"mapping with UUID {shown['UUID']}"
        )
        again = kafka(*servers, Topics=["topic"], SourceAccessConfigurations=SECRET)
        assert again == refusal("ResourceConflictException", taken, 409, Type="User", message=taken)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "Unrecognized event source."),
        ({"EventSourceArn": "arn:aws:s3:::b"}, "Unrecognized event source."),
        (
            {"EventSourceArn": f"{QUEUE}r", "BatchSize": 11},
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10",
        ),
        (
            {"EventSourceArn": f"{QUEUE}r.fifo", "BatchSize": 11},
            "Maximum batch size must be between 1 and 10 inclusive",
        ),
        (
            {"EventSourceArn": f"{QUEUE}r", "DestinationConfig": {"OnSuccess": {"Destination": f"{QUEUE}d"}}},
            "Unsupported DestinationConfig parameter for given event source mapping type.",
        ),
        (
            {"EventSourceArn": f"{QUEUE}r", "ParallelizationFactor": 2},
            "Unsupported ParallelizationFactor parameter for given event source mapping type.",
        ),
    ],
)
def test_what_a_source_does_not_take(
    stoker: RunningStoker, mapped: str, members: dict[str, Any], words: str
) -> None:
    assert create(stoker, **members) == invalid(words)


def test_the_function_must_be_there(stoker: RunningStoker, mapped: str) -> None:
    service = stoker.client("lambda")
    for name in ("doesnotexist", f"{mapped}:absent", f"{mapped}:7"):
        call = service.create_event_source_mapping
        refused = answer(call, FunctionName=name, EventSourceArn=f"{QUEUE}nobody")
        assert refused == invalid("Function does not exist")


def test_lists(stoker: RunningStoker) -> None:
    name, service = "mapped-often", stoker.client("lambda")
    created(stoker, name)
    made = [
        service.create_event_source_mapping(FunctionName=name, EventSourceArn=f"{QUEUE}list{number}")["UUID"]
        for number in range(3)
    ]
    service.publish_version(FunctionName=name)
    version = service.create_event_source_mapping(FunctionName=f"{name}:1", EventSourceArn=f"{QUEUE}list0")
    assert version["FunctionArn"] == f"{arn(name)}:1"
    pages = service.get_paginator("list_event_source_mappings").paginate(
        FunctionName=name, PaginationConfig={"PageSize": 2}
    )
    found = [[one["UUID"] for one in page["EventSourceMappings"]] for page in pages]
    assert sorted(map(len, found)) == [1, 2]
    assert sorted(uuid for page in found for uuid in page) == sorted(made)

    def uuids(**members: str) -> list[str]:
        return [one["UUID"] for one in service.list_event_source_mappings(**members)["EventSourceMappings"]]

    assert uuids(EventSourceArn=f"{QUEUE}list1") == [made[1]]
    assert sorted(uuids(EventSourceArn=f"{QUEUE}list0")) == sorted([made[0], version["UUID"]])
    assert uuids(EventSourceArn=f"{QUEUE}list0", FunctionName=f"{name}:1") == [version["UUID"]]
    assert uuids(FunctionName="doesnotexist") == []


def test_mappings_survive_a_restart_on_their_way(stoker: RunningStoker, mapped: str) -> None:
    shown = create(stoker, EventSourceArn=f"{QUEUE}survivor", Enabled=False)
    stoker.kill()
    stoker.start()
    assert at_rest(stoker, shown["UUID"])["State"] == "Disabled"
