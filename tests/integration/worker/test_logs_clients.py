"""Logs as real clients read them: boto3 and the AWS CLI over the API."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from stoker.core.clock import SystemClock
from stoker.worker.logs_operations import LogsOperations
from stoker.worker.logstore import FileLogStore
from tests.integration.api.serving import RunningApi, running_api
from tests.unit.api.signing import KEY

GROUP = "/aws/lambda/echo"
STREAM = "2026/01/31/[$LATEST]0123456789abcdef0123456789abcdef"


class Reading:
    def __init__(self, api: RunningApi, store: FileLogStore) -> None:
        self.api = api
        self.store = store
        self.logs = api.client("logs")

    def fill(self, *messages: str, stream: str = STREAM) -> None:
        def write() -> None:
            writer = self.store.writer(KEY.account, "us-east-1", GROUP, stream)
            for message in messages:
                writer.append(int(time.time() * 1000), message)
            writer.close()

        self.api.loop.call_soon_threadsafe(write)
        time.sleep(0.05)

    def cli(self, *arguments: str) -> object:
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_ACCESS_KEY_ID": KEY.access_key_id,
            "AWS_SECRET_ACCESS_KEY": KEY.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": self.api.url,
        }
        program = Path(sys.executable).with_name("aws")
        done = subprocess.run(
            [program, "logs", *arguments, "--output", "json"],
            env=environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout or b"null")


@pytest.fixture
def reading(tmp_path: Path) -> Iterator[Reading]:
    store = asyncio.run(FileLogStore.open(tmp_path, SystemClock()))
    with running_api({"logs": LogsOperations(store, SystemClock()).operations()}) as api:
        yield Reading(api, store)
    asyncio.run(store.close())


def test_the_aws_cli_reads_logs(reading: Reading) -> None:
    reading.fill("START\n", "one ERROR\n", "two\n", "END\n")
    found = reading.cli("filter-log-events", "--log-group-name", GROUP, "--filter-pattern", "ERROR")
    assert [event["message"] for event in found["events"]] == ["one ERROR\n"]
    everything = reading.cli("filter-log-events", "--log-group-name", GROUP, "--page-size", "2")
    assert [event["message"] for event in everything["events"]] == [
        "START\n",
        "one ERROR\n",
        "two\n",
        "END\n",
    ]
    streams = reading.cli(
        "describe-log-streams", "--log-group-name", GROUP, "--order-by", "LastEventTime", "--descending"
    )
    assert [stream["logStreamName"] for stream in streams["logStreams"]] == [STREAM]
    got = reading.cli(
        "get-log-events", "--log-group-name", GROUP, "--log-stream-name", STREAM, "--limit", "2"
    )
    assert [event["message"] for event in got["events"]] == ["two\n", "END\n"]
    groups = reading.cli("describe-log-groups", "--log-group-name-prefix", "/aws/lambda")
    assert [group["logGroupName"] for group in groups["logGroups"]] == [GROUP]


def test_boto3_follows_a_group_as_aws_logs_tail_does(reading: Reading) -> None:
    reading.fill("first")
    start_ms, seen = int(time.time() * 1000) - 60_000, dict[str, str]()
    for number in range(3):
        pages = reading.logs.get_paginator("filter_log_events").paginate(
            logGroupName=GROUP, startTime=start_ms, interleaved=True
        )
        for page in pages:
            for event in page["events"]:
                seen[event["eventId"]] = event["message"]
                start_ms = max(start_ms, event["timestamp"])
        reading.fill(f"later {number}", stream=f"other {number}")
    assert list(seen.values()) == ["first", "later 0", "later 1"]


def test_boto3_writes_and_deletes(reading: Reading) -> None:
    logs = reading.logs
    logs.create_log_group(logGroupName="/mine")
    logs.create_log_stream(logGroupName="/mine", logStreamName="s")
    now_ms = int(time.time() * 1000)
    logs.put_log_events(
        logGroupName="/mine", logStreamName="s", logEvents=[{"timestamp": now_ms, "message": "hello ü"}]
    )
    (event,) = logs.get_log_events(logGroupName="/mine", logStreamName="s")["events"]
    assert (event["timestamp"], event["message"]) == (now_ms, "hello ü")
    logs.put_retention_policy(logGroupName="/mine", retentionInDays=7)
    assert logs.describe_log_groups()["logGroups"][0]["retentionInDays"] == 7
    logs.delete_log_group(logGroupName="/mine")
    with pytest.raises(ClientError) as refused:
        logs.get_log_events(logGroupName="/mine", logStreamName="s")
    error = refused.value.response["Error"]
    assert (error["Code"], error["Message"]) == (
        "ResourceNotFoundException",
        "The specified log group does not exist.",
    )
