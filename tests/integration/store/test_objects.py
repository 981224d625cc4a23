"""Fetching code from a real S3-compatible server over HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from stoker.services.objects import ObjectError, ObjectTooBig
from stoker.store.objects import S3ObjectSource, S3Settings

BUCKET, KEY = "code-bucket", "builds/fünction v1+2%.zip"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture(scope="module")
def versions(server: str) -> dict[str, str]:
    client: Any = boto3.client(
        "s3",
        endpoint_url=server,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    return {
        name: client.put_object(Bucket=BUCKET, Key=KEY, Body=name.encode())["VersionId"]
        for name in ("first", "second")
    }


@pytest.fixture
async def source(server: str, tmp_path: Path) -> S3ObjectSource:
    made = S3ObjectSource(
        tmp_path / "fetched",
        S3Settings(
            {
                "AWS_ENDPOINT_URL_S3": server,
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
            },
            "us-east-1",
        ),
    )
    await made.start()
    return made


async def test_the_latest_version_is_fetched(source: S3ObjectSource, versions: dict[str, str]) -> None:
    fetched = await source.fetch(BUCKET, KEY, None, limit_bytes=100)
    assert fetched.path.read_bytes() == b"second"
    assert fetched.version == versions["second"]
    assert fetched.path.stat().st_mode & 0o777 == 0o600


async def test_a_named_version_is_fetched(source: S3ObjectSource, versions: dict[str, str]) -> None:
    fetched = await source.fetch(BUCKET, KEY, versions["first"], limit_bytes=100)
    assert fetched.path.read_bytes() == b"first"


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize(
    ("bucket", "key", "version", "code", "message"),
    [
        (BUCKET, "nothing.zip", None, "NoSuchKey", "The specified key does not exist."),
        ("no-such-bucket", KEY, None, "NoSuchBucket", "The specified bucket does not exist"),
        (BUCKET, KEY, "bad-version", "NoSuchVersion", "The specified version does not exist."),
        (BUCKET, "a//b", None, "InvalidArgument", "Keys with empty path segments cannot be fetched."),
    ],
)
async def test_s3s_own_errors_come_through(
    source: S3ObjectSource,
    tmp_path: Path,
    bucket: str,
    key: str,
    version: str | None,
    code: str,
    message: str,
) -> None:
    with pytest.raises(ObjectError) as refused:
        await source.fetch(bucket, key, version, limit_bytes=100)
    assert (refused.value.code, refused.value.message) == (code, message)
    assert list((tmp_path / "fetched").iterdir()) == []


@pytest.mark.usefixtures("versions")
async def test_nothing_is_kept_of_what_is_too_big(source: S3ObjectSource, tmp_path: Path) -> None:
    with pytest.raises(ObjectTooBig):
        await source.fetch(BUCKET, KEY, None, limit_bytes=5)
    assert list((tmp_path / "fetched").iterdir()) == []


async def test_an_unreachable_server_is_an_error_of_its_own(tmp_path: Path) -> None:
    source = S3ObjectSource(tmp_path, S3Settings({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}, "us-east-1"))
    with pytest.raises(ObjectError) as refused:
        await source.fetch(BUCKET, KEY, None, limit_bytes=5)
    assert refused.value.code == "ServiceUnavailable"


async def test_leftovers_are_removed_at_start(source: S3ObjectSource, tmp_path: Path) -> None:
    (tmp_path / "fetched" / "leftover").write_bytes(b"x")
    await source.start()
    assert list((tmp_path / "fetched").iterdir()) == []
