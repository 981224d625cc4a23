"""Function logs through the CloudWatch Logs operations."""

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.running import RunningStoker

TALKER = """
def lambda_handler(event, context):
    for word in event["words"]:
        print(word)
"""


def events(stoker: RunningStoker, **request: Any) -> list[dict[str, Any]]:
    pages = stoker.client("logs").get_paginator("filter_log_events").paginate(**request)
    return [event for page in pages for event in page["events"]]


def test_output_is_found_and_filtered(stoker: RunningStoker) -> None:
    stoker.create_python("talker", TALKER)
    stoker.invoke("talker", {"words": ["first line", "second ERROR line", "third line"]})
    group = "/aws/lambda/talker"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and len(events(stoker, logGroupName=group)) < 6:
        time.sleep(0.2)
    texts = [event["message"].rstrip("\n") for event in events(stoker, logGroupName=group)]
    inside = [text for text in texts if not text.startswith(("START", "END", "REPORT", "INIT_START"))]
    assert inside == ["first line", "second ERROR line", "third line"]
    found = events(stoker, logGroupName=group, filterPattern="ERROR")
    assert [event["message"].rstrip("\n") for event in found] == ["second ERROR line"]
    service = stoker.client("logs")
    streams = service.describe_log_streams(logGroupName=group)["logStreams"]
    assert len(streams) == 1
    read = service.get_log_events(
        logGroupName=group, logStreamName=streams[0]["logStreamName"], startFromHead=True
    )
    assert [event["message"].rstrip("\n") for event in read["events"]] == texts
    groups = service.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert [found["logGroupName"] for found in groups] == [group]


def test_a_group_that_does_not_exist(stoker: RunningStoker) -> None:
    with pytest.raises(ClientError) as refused:
        stoker.client("logs").filter_log_events(logGroupName="/aws/lambda/no-such-function")
    assert refused.value.response["Error"]["Code"] == "ResourceNotFoundException"
    assert refused.value.response["Error"]["Message"] == "The specified log group does not exist."
