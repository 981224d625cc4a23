"""Control plane, real stores and the API together, driven by boto3 over HTTP."""

import asyncio
import base64
import hashlib
import io
import threading
import time
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from stoker.api.dispatch import Api
from stoker.app.unsigned import Downloads
from stoker.control.plane import ControlPlane
from stoker.control.ports import Ports
from stoker.core.clock import SystemClock
from stoker.http.server import HttpServer, ServerLimits
from stoker.packaging.memory_images import MemoryImageStore
from stoker.store.coordination import LocalInvalidation
from stoker.store.credentials import StoredCredentials
from stoker.store.environments import KeptEnvironments
from stoker.store.master_keys import load_master_keys
from stoker.store.memory_keys import MemoryDataKeys
from stoker.store.metadata import SqlFunctionMetadata
from stoker.store.objects import S3ObjectSource, S3Settings
from stoker.store.opening import open_metadata_database
from stoker.store.records import SqlRecords
from stoker.store.sealing import Sealer
from tests.code_stores import opened
from tests.unit.control.provisioner import PretendProvisioner

ACCOUNT = "000000000000"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"


class Everything:
    """Runs any supported runtime."""

    def missing(self, _runtime: str, _architecture: str) -> str | None:
        return None


class NoFrontend:
    """Nothing is invoked here."""

    async def invoke(self, _context: object, _request: object) -> Any:
        raise AssertionError("invoked")


class Running:
    """One control plane behind HTTP in a thread of its own."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._call(self._start())

    def client(self) -> Any:
        return boto3.client(
            "lambda",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=self.root.access_key_id,
            aws_secret_access_key=self.root.secret,
            config=Config(retries={"total_max_attempts": 1}, max_pool_connections=20),
        )

    def close(self) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _start(self) -> None:
        sealer = Sealer(load_master_keys(self._data / "master.key"))
        clock = SystemClock()
        self._database = await open_metadata_database(self._data)
        credentials = StoredCredentials(self._database, sealer, clock)
        await credentials.start(ACCOUNT)
        self.root = credentials.root
        self._code = await opened(self._data)
        await self._code.packers.start()
        objects = S3ObjectSource(self._data / "downloads", S3Settings({}, "us-east-1"))
        await objects.start()
        self._plane = ControlPlane(
            Ports(
                metadata=SqlFunctionMetadata(self._database, sealer),
                records=SqlRecords(self._database),
                provisioner=PretendProvisioner(),
                code=self._code,
                images=MemoryImageStore(),
                objects=objects,
                invalidation=LocalInvalidation(),
                runtimes=Everything(),
                clock=clock,
                new_id=lambda: str(uuid.uuid4()),
                environments=KeptEnvironments(MemoryDataKeys()),
                location_keys=lambda: sealer.derive("locations"),
            )
        )
        await self._plane.start()
        self._downloads = Downloads(self._plane.code_download)
        self._api = Api(
            credentials=credentials,
            clock=clock,
            frontend=NoFrontend(),
            handlers={"lambda": self._plane.operations()},
            unsigned={b"/_stoker/code/": self._downloads.answer},
        )
        self._server = HttpServer(self._api, ServerLimits())
        await self._server.start_tcp("127.0.0.1", 0)
        self.port = int(self._server.addresses[0].rpartition(":")[2])

    async def _close(self) -> None:
        await self._server.close(0.2)
        await self._api.close()
        await self._downloads.close()
        await self._plane.close()
        await self._code.end()
        await self._database.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    yield made
    made.close()


def zipped(content: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        opened.writestr("handler.py", content)
    return stream.getvalue()


def function(name: str, content: str = "x = 1") -> dict[str, Any]:
    return {
        "FunctionName": name,
        "Role": ROLE,
        "Runtime": "python3.12",
        "Handler": "handler.handler",
        "Code": {"ZipFile": zipped(content)},
    }


def test_the_life_of_a_function(running: Running) -> None:
    client = running.client()
    created = client.create_function(
        **function("fn"), Tags={"a": "b"}, Environment={"Variables": {"KEY": "v"}}
    )
    assert created["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert created["State"] == "Pending"
    client.get_waiter("function_active_v2").wait(FunctionName="fn")
    found = client.get_function(FunctionName="fn")
    with urllib.request.urlopen(found["Code"]["Location"]) as answer:
        content = answer.read()
    assert base64.b64encode(hashlib.sha256(content).digest()).decode() == created["CodeSha256"]
    assert found["Tags"] == {"a": "b"}
    client.update_function_configuration(FunctionName="fn", Timeout=30)
    client.get_waiter("function_updated_v2").wait(FunctionName="fn")
    client.update_function_code(FunctionName="fn", ZipFile=zipped("x = 2"))
    client.get_waiter("function_updated_v2").wait(FunctionName="fn")
    client.put_function_concurrency(FunctionName="fn", ReservedConcurrentExecutions=7)
    assert client.get_function(FunctionName="fn")["Concurrency"] == {"ReservedConcurrentExecutions": 7}
    assert client.get_account_settings()["AccountUsage"]["FunctionCount"] == 1
    assert client.delete_function(FunctionName="fn")["StatusCode"] == 204
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_function(FunctionName="fn")


def test_errors_arrive_typed(running: Running) -> None:
    client = running.client()
    client.create_function(**function("fn"))
    with pytest.raises(client.exceptions.ResourceConflictException, match="Function already exist: fn"):
        client.create_function(**function("fn"))
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="Value nope at 'runtime'"):
        client.create_function(**(function("other") | {"Runtime": "nope"}))
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="Could not unzip"):
        client.create_function(**(function("other") | {"Code": {"ZipFile": b"no zip"}}))
    with pytest.raises(client.exceptions.PreconditionFailedException):
        client.update_function_configuration(FunctionName="fn", RevisionId="x", Timeout=4)
    with pytest.raises(ClientError, match="Please provide ImageUri"):
        client.create_function(**function("imaged"), PackageType="Image")


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    first = Running(tmp_path)
    first.client().create_function(**function("fn"), Environment={"Variables": {"KEY": "value"}})
    first.close()
    second = Running(tmp_path)
    try:
        found = second.client().get_function_configuration(FunctionName="fn")
        assert found["Environment"] == {"Variables": {"KEY": "value"}}
        assert second.root == first.root
    finally:
        second.close()


def test_functions_are_created_quickly(running: Running) -> None:
    """A floor far below what it reaches, so that only a lost batch or a packer a creation fails it."""
    client = running.client()
    started_s = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        for answer in [
            threads.submit(client.create_function, **function(f"f{n}", f"x = {n}")) for n in range(80)
        ]:
            answer.result()
    assert 80 / (time.monotonic() - started_s) > 20
    pages = client.get_paginator("list_functions").paginate()
    assert sum(len(page["Functions"]) for page in pages) == 80
