"""Code of functions and layers as it lies on the disk of a running Stoker, and through kills: trees and images."""

import json
import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.running import PYTHON_RUNTIME, RunningStoker, python_zip, zip_of

SECRET = "known plaintext of a customer"
SOURCE = f"""
import os, time
SECRET = {SECRET!r}
def lambda_handler(event, context):
    time.sleep(event.get("wait", 0))
    return {{"secret": SECRET, "version": VERSION, "opt": open("/opt/data").read(),
             "file": open("/var/task/lambda_function.py").read()[:0]}}
VERSION = """


@pytest.fixture(params=["trees", "images"])
def stoker(request: pytest.FixtureRequest) -> Iterator[RunningStoker]:
    if request.param == "images" and os.geteuid() != 0:
        pytest.skip("images are mounted by root only")
    running = RunningStoker(code_mounts=request.param)
    running.start()
    yield running
    running.remove()


def plain_outside_the_cache(stoker: RunningStoker) -> list[str]:
    cache = stoker.data / "cache"
    return [
        str(file)
        for file in stoker.data.rglob("*")
        if file.is_file()
        and not file.is_relative_to(cache)
        and any(text in file.read_bytes() for text in (SECRET.encode(), b"lambda_function.py", b"bulk.bin"))
    ]


def layer(stoker: RunningStoker, name: str, files: dict[str, str | bytes]) -> str:
    published = stoker.client("lambda").publish_layer_version(
        LayerName=name, Content={"ZipFile": zip_of(files)}
    )
    return published["LayerVersionArn"]


def code(version: int) -> dict[str, Any]:
    return {"lambda_function.py": SOURCE + str(version), "bulk.bin": os.urandom(200_000)}


def test_code_lives_sealed_through_kills_changes_and_downloads(stoker: RunningStoker) -> None:
    layers = [layer(stoker, "one", {"data": "1", "x": "1"}), layer(stoker, "two", {"data": SECRET})]
    first = zip_of(code(1))
    stoker.create(
        "f",
        first,
        Runtime=PYTHON_RUNTIME,
        Handler="lambda_function.lambda_handler",
        Layers=layers,
        Timeout=60,
    )
    assert stoker.invoke("f") == {"secret": SECRET, "version": 1, "opt": SECRET, "file": ""}
    assert plain_outside_the_cache(stoker) == []
    assert (stoker.data / "cache" / "code").stat().st_mode & 0o777 == 0o700
    location = stoker.client("lambda").get_function(FunctionName="f")["Code"]["Location"]
    with urllib.request.urlopen(location) as answer:
        assert answer.read() == first
    for end in (stoker.kill, stoker.stop):
        end()
        assert plain_outside_the_cache(stoker) == []
        stoker.start()
        assert stoker.invoke("f")["version"] == 1
    service = stoker.client("lambda")
    service.update_function_code(FunctionName="f", ZipFile=zip_of(code(2)))
    service.get_waiter("function_updated_v2").wait(FunctionName="f", WaiterConfig={"Delay": 1})
    assert stoker.invoke("f")["version"] == 2
    assert plain_outside_the_cache(stoker) == []


def test_busy_code_outlives_its_function(stoker: RunningStoker) -> None:
    layers = [layer(stoker, "busy", {"data": "1"})]
    stoker.create(
        "f",
        python_zip(SOURCE + "1"),
        Runtime=PYTHON_RUNTIME,
        Handler="lambda_function.lambda_handler",
        Layers=layers,
        Timeout=30,
    )
    assert stoker.invoke("f")["version"] == 1
    answers: list[Any] = []
    busy = threading.Thread(target=lambda: answers.append(stoker.invoke("f", {"wait": 3})))
    busy.start()
    time.sleep(0.5)
    stoker.client("lambda").delete_function(FunctionName="f")
    busy.join()
    assert answers == [{"secret": SECRET, "version": 1, "opt": "1", "file": ""}], json.dumps(answers)
