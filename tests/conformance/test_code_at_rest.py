"""Code of functions and layers on the disk of a running Stoker, and through kills: trees and images."""

import hashlib
import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
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


MANY = """
import importlib, os
def lambda_handler(event, context):
    return [importlib.import_module("m1").NUMBER, os.path.exists(importlib.import_module("m1").__cached__)]
"""


def within(seconds_s: float, is_so: Callable[[], object]) -> None:
    ends_s = time.monotonic() + seconds_s
    while not is_so():
        assert time.monotonic() < ends_s, "not in time"
        time.sleep(0.02)


def is_compiled(stoker: RunningStoker) -> bool:
    """Whether nothing is made in the background and something was."""
    with urllib.request.urlopen(f"{stoker.endpoint}/metrics") as answer:
        lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
    compiling = stoker.data / "cache" / "code" / "compiling"
    return float(lines["stoker_code_jobs_waiting"]) == 0 and not any(compiling.iterdir())


def anew(stoker: RunningStoker, name: str, number: int) -> Any:
    """The answer of a sandbox that was made for it."""
    service = stoker.client("lambda")
    service.update_function_configuration(
        FunctionName=name, Environment={"Variables": {"NUMBER": str(number)}}
    )
    service.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
    return stoker.invoke(name)


@pytest.mark.parametrize("stoker", ["images"], indirect=True)
def test_a_kill_while_byte_code_is_made_leaves_nothing_half_there(stoker: RunningStoker) -> None:
    objects, compiling = stoker.data / "objects", stoker.data / "cache" / "code" / "compiling"
    bulk = "".join(
        f"def f{n}(a, b=({n}, 'text')):\n    return [a, b, a or b] if a else None\n" for n in range(300)
    )
    modules = {f"m{n}.py": f"NUMBER = {n}\n{bulk}" for n in range(300)}
    archive = zip_of({"lambda_function.py": MANY, **modules})
    digest = hashlib.sha256(archive).hexdigest()
    stoker.create("f", archive, Runtime=PYTHON_RUNTIME, Handler="lambda_function.lambda_handler", Timeout=60)
    assert stoker.invoke("f") == [1, False]
    within(20, lambda: any(compiling.iterdir()))
    stoker.kill()
    assert not [file for file in objects.rglob(f"{digest}.python*") if file.is_file()]
    stoker.start()
    assert stoker.invoke("f")[0] == 1
    within(60, lambda: is_compiled(stoker))
    assert anew(stoker, "f", 1) == [1, True]
    assert plain_outside_the_cache(stoker) == []
    stoker.kill()
    stoker.start()
    within(60, lambda: is_compiled(stoker))
    assert anew(stoker, "f", 2) == [1, True]
    assert len([file for file in objects.rglob(f"{digest}.python*") if file.is_file()]) == 1
