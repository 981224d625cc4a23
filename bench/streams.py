"""Streams: records a second through a function from Kinesis, and what a thousand idle mappings cost.

The source is a moto server in a process of its own, on the same CPUs. It is slow, and shows as the yardstick: the
same records read by a bare botocore loop.
"""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3

from bench.figures import Figure, Missing, Options
from bench.functions import metrics, serving
from bench.machine import cpu_s, cpu_spent_s, descendants
from tests.running import REGION, RunningStoker

RECORDS = 20_000
RECORD = b'{"text": "' + b"x" * 88 + b'"}'
BATCH = 500
IDLE_MAPPINGS = 1000
IDLE_SETTLES_S = 75
"""Every shard must have been found and have had nothing for half a minute."""
IDLE_MEASURED_S = 30
READY_WITHIN_S = 60
DONE_WITHIN_S = 300
FUNCTION = "def lambda_handler(event, context):\n    return None\n"


def measure(options: Options) -> list[Figure]:
    """Through a function, then idle."""
    del options
    with moto() as endpoint:
        return [*through(endpoint), *idle(endpoint)]


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """A moto server of its own; its endpoint."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        until_s = time.monotonic() + READY_WITHIN_S
        while not _answers(endpoint):
            if server.poll() is not None or time.monotonic() > until_s:
                raise Missing("moto's server did not start")
            time.sleep(0.2)
        yield endpoint
    finally:
        server.terminate()
        server.wait()


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextlib.contextmanager
def polling(endpoint: str) -> Iterator[RunningStoker]:
    """A Stoker that reads from there."""
    with serving() as stoker:
        stoker.stop()
        stoker.environment = {
            "AWS_ENDPOINT_URL_KINESIS": endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        stoker.start()
        stoker.create_python("taken", FUNCTION, Timeout=30, MemorySize=1769)
        yield stoker


def kinesis(endpoint: str) -> Any:
    """A client."""
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    return boto3.client("kinesis", endpoint_url=endpoint, region_name=REGION, **keys)


def stream(service: Any, name: str) -> str:
    """The ARN of a new stream with one shard."""
    service.create_stream(StreamName=name, ShardCount=1)
    return str(service.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"])


def through(endpoint: str) -> list[Figure]:
    """One shard, its backlog read and processed from the oldest record on."""
    service = kinesis(endpoint)
    arn = stream(service, "busy")
    for _ in range(RECORDS // BATCH):
        service.put_records(StreamARN=arn, Records=[{"Data": RECORD, "PartitionKey": "k"}] * BATCH)
    bare_s = _read_bare(service, arn)
    with polling(endpoint) as stoker:
        begun_s = time.monotonic()
        stoker.client("lambda").create_event_source_mapping(
            FunctionName="taken", EventSourceArn=arn, StartingPosition="TRIM_HORIZON", BatchSize=BATCH
        )
        while metrics(stoker).get("stoker_streams_processed_total", 0) < RECORDS:
            if time.monotonic() - begun_s > DONE_WITHIN_S:
                raise Missing(f"{RECORDS} records were not processed within {DONE_WITHIN_S} s")
            time.sleep(0.05)
        took_s = time.monotonic() - begun_s
    return [
        Figure(
            name="streams.kinesis.rate",
            value=RECORDS / took_s,
            unit="1/s",
            n=RECORDS,
            yardstick=RECORDS / bare_s,
            yardstick_name="botocore alone",
            higher_is_better=True,
        )
    ]


def _read_bare(service: Any, arn: str) -> float:
    """How long reading all of it takes without anything else."""
    shard = service.list_shards(StreamARN=arn)["Shards"][0]["ShardId"]
    begun_s = time.monotonic()
    iterator = service.get_shard_iterator(StreamARN=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    iterator, read = iterator["ShardIterator"], 0
    while read < RECORDS:
        answer = service.get_records(StreamARN=arn, ShardIterator=iterator, Limit=10_000)
        iterator, read = answer["NextShardIterator"], read + len(answer["Records"])
    return time.monotonic() - begun_s


def idle(endpoint: str) -> list[Figure]:
    """CPU of the service with a thousand mappings whose streams get nothing, less what it takes with none."""
    service = kinesis(endpoint)
    with polling(endpoint) as stoker:
        before = _cpu_share(stoker)
        client = stoker.client("lambda")
        for number in range(IDLE_MAPPINGS):
            client.create_event_source_mapping(
                FunctionName="taken",
                EventSourceArn=stream(service, f"idle-{number}"),
                StartingPosition="TRIM_HORIZON",
            )
        time.sleep(IDLE_SETTLES_S)
        reads = metrics(stoker)["stoker_streams_reads_total"]
        during = _cpu_share(stoker)
        reads = metrics(stoker)["stoker_streams_reads_total"] - reads
    return [
        Figure(
            name="streams.idle.cpu",
            value=100 * (during - before),
            unit="% of a core",
            n=IDLE_MAPPINGS,
            tolerance=None,
            goal="under 5 %",
        ),
        Figure(
            name="streams.idle.reads",
            value=reads / IDLE_MEASURED_S,
            unit="1/s",
            n=IDLE_MAPPINGS,
            tolerance=None,
        ),
    ]


def _cpu_share(stoker: RunningStoker) -> float:
    """Of one core, all processes of the service together."""
    assert stoker.process is not None
    pids = [stoker.process.pid, *descendants(stoker.process.pid)]
    begun_s, before = time.monotonic(), cpu_s(pids)
    time.sleep(IDLE_MEASURED_S)
    return cpu_spent_s(before, cpu_s(pids)) / (time.monotonic() - begun_s)
