"""Images as people have them run unmodified: awslambdaric, aws-lambda-ric, a static bootstrap; pulled or imported."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from tests.images.functions import bootstrap_image, node_image, python_image
from tests.images.registries import Registry, running_registry
from tests.running import ROLE, RunningStoker


@pytest.fixture(scope="module")
def stoker() -> Iterator[RunningStoker]:
    running = RunningStoker()
    try:
        running.start()
        yield running
    finally:
        running.remove()


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with running_registry() as running:
        yield running


def create(stoker: RunningStoker, name: str, uri: str, **settings: Any) -> dict[str, Any]:
    """Create and wait; skips where this host runs no images."""
    service = stoker.client("lambda")
    try:
        made = service.create_function(
            FunctionName=name,
            PackageType="Image",
            Code={"ImageUri": uri},
            Role=ROLE,
            Timeout=30,
            MemorySize=512,
            **settings,
        )
    except botocore.exceptions.ClientError as problem:
        message = problem.response["Error"]["Message"]
        if "cannot run here" in message:
            pytest.skip(message)
        raise
    try:
        service.get_waiter("function_active_v2").wait(
            FunctionName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 90}
        )
    except botocore.exceptions.WaiterError as problem:
        state = service.get_function(FunctionName=name)["Configuration"]
        raise AssertionError(f"{state.get('StateReason')}\n{stoker.tail()}") from problem
    return made


def imported(stoker: RunningStoker, layout: Path, name: str) -> str:
    command = [
        sys.executable,
        "-m",
        "stoker.cli.main",
        "image",
        "import",
        str(layout),
        name,
        "--data",
        str(stoker.data),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    if "cannot run" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr + stoker.tail()
    return f"local/{name}"


def test_awslambdaric_from_a_registry(stoker: RunningStoker, registry: Registry, tmp_path: Path) -> None:
    python_image(tmp_path)
    digest = registry.push(tmp_path, "team/python", "latest")
    uri = f"{registry.host}/team/python:latest"
    create(stoker, "python", uri, Environment={"Variables": {"FROM_FUNCTION": "yes"}})
    answer = stoker.invoke("python", {"n": 1})
    assert "event" in answer, f"{answer}\n{stoker.tail()}"
    assert answer["event"] == {"n": 1}
    assert answer["remaining"] is True
    assert answer["folder"] == "/var/task"
    assert (answer["from_image"], answer["from_function"]) == ("yes", "yes")
    assert answer["uid"] != 0
    got = stoker.client("lambda").get_function(FunctionName="python")
    assert got["Code"]["ImageUri"] == uri
    assert got["Code"]["ResolvedImageUri"] == f"{registry.host}/team/python@{digest}"
    assert got["Configuration"]["PackageType"] == "Image"
    assert got["Configuration"]["CodeSha256"] == digest.removeprefix("sha256:")
    failed = stoker.client("lambda").invoke(FunctionName="python", Payload=b'{"fail": true}')
    assert failed["FunctionError"] == "Unhandled"
    assert json.loads(failed["Payload"].read())["errorType"] == "ValueError"


def test_image_config_overrides_the_command(
    stoker: RunningStoker, registry: Registry, tmp_path: Path
) -> None:
    python_image(tmp_path)
    registry.push(tmp_path, "team/other", "latest")
    create(stoker, "other", f"{registry.host}/team/other", ImageConfig={"Command": ["app.other"]})
    assert stoker.invoke("other") == "other"


@pytest.mark.timeout(1500)
def test_aws_lambda_ric_on_node(stoker: RunningStoker, tmp_path: Path) -> None:
    node_image(tmp_path)
    create(stoker, "node", imported(stoker, tmp_path, "node:1"))
    answer = stoker.invoke("node", {"n": 2})
    assert answer["event"] == {"n": 2}
    assert answer["folder"] == "/var/task"
    failed = stoker.client("lambda").invoke(FunctionName="node", Payload=b'{"fail": true}')
    assert failed["FunctionError"] == "Unhandled"


def test_an_image_of_one_static_program(stoker: RunningStoker, tmp_path: Path) -> None:
    bootstrap_image(tmp_path)
    create(stoker, "static", imported(stoker, tmp_path, "static"))
    assert stoker.invoke("static", {"n": 3}) == {"bootstrap": "C", "event": {"n": 3}}


def test_a_removed_name_takes_nothing_from_functions(stoker: RunningStoker, tmp_path: Path) -> None:
    bootstrap_image(tmp_path)
    create(stoker, "kept", imported(stoker, tmp_path, "kept:1"))
    command = [
        sys.executable,
        "-m",
        "stoker.cli.main",
        "image",
        "remove",
        "kept:1",
        "--data",
        str(stoker.data),
    ]
    assert subprocess.run(command, check=False, timeout=60, env=dict(os.environ)).returncode == 0
    assert stoker.invoke("kept", {"n": 4}) == {"bootstrap": "C", "event": {"n": 4}}
    with pytest.raises(botocore.exceptions.ClientError, match="does not exist"):
        create(stoker, "late", "local/kept:1")
