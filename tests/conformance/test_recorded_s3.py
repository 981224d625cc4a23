"""Code from a real S3-compatible server, every answer compared with what AWS answered (recorded)."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.conformance.recorded import (
    ECHO,
    OTHER,
    PENDING,
    UPDATING,
    answer,
    configuration,
    created,
    creation,
    invalid,
    not_found,
    settled,
)
from tests.running import RunningStoker

BUCKET, KEY = "code-bucket", "builds/f\u00fcnction v1.zip"
KEYS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}

MISSING = {
    "NoSuchBucket. S3 Error Message: The specified bucket does not exist": {
        "S3Bucket": "not-a-bucket",
        "S3Key": KEY,
    },
    "NoSuchKey. S3 Error Message: The specified key does not exist.": {
        "S3Bucket": BUCKET,
        "S3Key": "nothing",
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    storage: Any = boto3.client("s3", endpoint_url=endpoint, **KEYS)
    storage.create_bucket(Bucket=BUCKET)
    storage.put_object(Bucket=BUCKET, Key=KEY, Body=ECHO)
    storage.put_object(Bucket=BUCKET, Key="second.zip", Body=OTHER)
    yield endpoint
    running.stop()


@pytest.fixture(scope="module")
def with_s3(server: str) -> Iterator[RunningStoker]:
    running = RunningStoker()
    running.environment = {
        "AWS_ENDPOINT_URL_S3": server,
        "AWS_ACCESS_KEY_ID": KEYS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": KEYS["aws_secret_access_key"],
    }
    try:
        running.start()
        yield running
    finally:
        running.remove()


def test_code_from_a_bucket(with_s3: RunningStoker) -> None:
    service, name = with_s3.client("lambda"), "recorded-s3"
    code = {"S3Bucket": BUCKET, "S3Key": KEY}
    assert answer(service.create_function, **creation(name, Code=code, Timeout=10)) == {
        **configuration(name, PENDING, Timeout=10),
        "HTTP": 201,
    }
    settled(with_s3, name)
    assert with_s3.invoke(name, {"foo": "bar"}) == {"foo": "bar"}
    assert answer(service.update_function_code, FunctionName=name, S3Bucket=BUCKET, S3Key="second.zip") == {
        **configuration(name, UPDATING, Timeout=10, CodeSize=len(OTHER)),
        "HTTP": 200,
    }
    settled(with_s3, name)
    assert with_s3.invoke(name) == "other"


@pytest.mark.parametrize("error", MISSING)
def test_code_that_is_not_there(with_s3: RunningStoker, error: str) -> None:
    service, expected = (
        with_s3.client("lambda"),
        invalid(f"Error occurred while GetObject. S3 Error Code: {error}"),
    )
    assert answer(service.create_function, **creation("recorded-s3-none", Code=MISSING[error])) == expected
    assert answer(service.get_function, FunctionName="recorded-s3-none") == not_found("recorded-s3-none")
    name = f"recorded-s3-{error[:8]}"
    created(with_s3, name)
    before = settled(with_s3, name)["RevisionId"]
    assert answer(service.update_function_code, FunctionName=name, **MISSING[error]) == expected
    assert settled(with_s3, name)["RevisionId"] == before
