"""A bucket that does not answer: what is here runs on, the rest says why not and comes back by itself."""

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from tests.running import PYTHON_RUNTIME, ROLE, RunningStoker, python_zip

SOURCE = "def lambda_handler(event, context):\n    return 'here'\n"
BUCKET = "outages"


class Bucket:
    """moto's S3 on one port, stopped and started; what is in it stays."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    made = Bucket()
    client: Any = boto3.client(
        "s3",
        endpoint_url=made.environment["AWS_ENDPOINT_URL_S3"],
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket=BUCKET)
    yield made
    made.stop()


@pytest.fixture
def stoker(bucket: Bucket) -> Iterator[RunningStoker]:
    running = RunningStoker(object_store=f"s3://{BUCKET}", pool_memory_mb=0)
    running.environment = bucket.environment
    try:
        running.start()
        yield running
    finally:
        running.remove()


def refusal(call: Any, **members: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**members)
    answer: Any = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Message"]


def readiness(stoker: RunningStoker) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{stoker.endpoint}/ready", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as problem:
        return problem.code, problem.read().decode()


def test_an_outage_stops_what_needs_the_bucket_and_nothing_else(
    bucket: Bucket, stoker: RunningStoker
) -> None:
    service = stoker.client("lambda")
    stoker.create_python("outage", SOURCE)
    assert stoker.invoke("outage") == "here"
    bucket.stop()
    assert stoker.invoke("outage") == "here", "warm"
    service.update_function_configuration(FunctionName="outage", Timeout=7)
    service.get_waiter("function_updated_v2").wait(FunctionName="outage")
    assert stoker.invoke("outage") == "here", "cold, from the cache"
    new = {"Runtime": PYTHON_RUNTIME, "Handler": "lambda_function.lambda_handler", "Role": ROLE}
    status, message = refusal(
        service.create_function,
        FunctionName="never",
        Code={"ZipFile": python_zip(SOURCE + "# new")},
        **new,
    )
    assert status in (500, 503)
    assert "object store" in message
    # Killed and started without its bucket: it is there, says what is wrong, and goes on trying.
    stoker.kill()
    stoker.start("/health")
    assert readiness(stoker) == (503, "the object store does not answer since the start\n")
    assert service.get_function_configuration(FunctionName="outage")["Timeout"] == 7
    status, message = refusal(service.invoke, FunctionName="outage")
    assert status in (500, 502, 503)
    assert "object store" in message
    assert "starting without the object store" in stoker.log.read_text()
    bucket.start()
    deadline = time.monotonic() + 30
    while readiness(stoker)[0] != 200:
        assert time.monotonic() < deadline, stoker.tail()
        time.sleep(0.1)
    assert stoker.invoke("outage") == "here"
    stoker.create_python("after", SOURCE + "# after")
    assert stoker.invoke("after") == "here"
    assert refusal(service.get_function, FunctionName="never")[0] == 404
    assert stoker.stop() == 0
