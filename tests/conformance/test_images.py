"""Functions from container images through boto3 and the AWS CLI: settings, versions, updates, what is refused."""

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from tests.images.layers import File
from tests.images.layout import write_image
from tests.images.programs import BOOTSTRAP
from tests.images.roots import PYTHON, host_python_root
from tests.running import ROLE, RunningStoker

CONFIG = {
    "Entrypoint": ["/bootstrap"],
    "Cmd": ["app.handler"],
    "Env": ["PATH=/usr/bin:/bin", "EXTRA=one"],
    "WorkingDir": "/var/task",
}


@pytest.fixture(scope="module")
def stoker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStoker]:
    running = RunningStoker()
    try:
        running.start()
        folder = tmp_path_factory.mktemp("images")
        take_in(running, folder / "one", "app:1", CONFIG)
        take_in(running, folder / "two", "app:2", {**CONFIG, "Env": ["PATH=/usr/bin:/bin", "EXTRA=two"]})
        take_in(running, folder / "user", "app:user", {**CONFIG, "User": "1000:1000"})
        yield running
    finally:
        running.remove()


def take_in(stoker: RunningStoker, layout: Path, name: str, config: dict[str, Any]) -> None:
    layout.mkdir()
    program = BOOTSTRAP.replace("/usr/bin/python3", str(PYTHON))
    added = {"bootstrap": File(program.encode(), mode=0o755), "var/task/x": "in the image"}
    write_image(layout, [host_python_root(), added], config)
    command = [sys.executable, "-m", "stoker.cli.main", "image", "import", str(layout), name]
    done = subprocess.run(
        [*command, "--data", str(stoker.data)], capture_output=True, text=True, check=False, timeout=100
    )
    if "cannot run" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr + stoker.tail()


def created(stoker: RunningStoker, name: str, tag: str = "1", **members: Any) -> dict[str, Any]:
    service = stoker.client("lambda")
    made = service.create_function(
        FunctionName=name,
        Role=ROLE,
        PackageType="Image",
        Code={"ImageUri": f"local/app:{tag}"},
        MemorySize=256,
        Timeout=20,
        **members,
    )
    settle(stoker, name)
    return made


def settle(stoker: RunningStoker, name: str) -> None:
    service, often = stoker.client("lambda"), {"Delay": 1, "MaxAttempts": 60}
    service.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig=often)
    service.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig=often)


def test_entry_point_command_folder_and_environment(stoker: RunningStoker) -> None:
    created(stoker, "plain", Environment={"Variables": {"OWN": "yes"}})
    found = stoker.invoke("plain", {"read": "/var/task/x"})
    assert (found["argv"], found["cwd"]) == (["/bootstrap", "app.handler"], "/var/task")
    assert (found["uid"], found["gid"], found["tmp"]) == (993, 990, 1)
    assert found["read"] == "in the image"
    environment = found["environment"]
    assert (environment["EXTRA"], environment["OWN"]) == ("one", "yes")
    assert environment["_HANDLER"] == "app.handler"
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == "plain"
    assert "AWS_EXECUTION_ENV" not in environment


def test_the_root_is_read_only_and_the_hosts_is_not_there(stoker: RunningStoker) -> None:
    created(stoker, "root")
    for path in ("/x", "/var/task/x", "/etc/x"):
        assert stoker.invoke("root", {"write": path})["write"] in (
            "Read-only file system",
            "Permission denied",
        )
    assert stoker.invoke("root", {"read": "/usr/bin/env"})["read"] == "No such file or directory"


def test_image_config_overrides_and_is_shown(stoker: RunningStoker) -> None:
    config = {"Command": ["other.handler"], "WorkingDirectory": "/tmp"}
    assert created(stoker, "config", ImageConfig=config)["ImageConfigResponse"] == {"ImageConfig": config}
    found = stoker.invoke("config")
    assert (found["argv"], found["cwd"]) == (["/bootstrap", "other.handler"], "/tmp")
    stoker.client("lambda").update_function_configuration(FunctionName="config", ImageConfig={})
    settle(stoker, "config")
    assert stoker.invoke("config")["argv"] == ["/bootstrap", "app.handler"]


def test_the_images_user(stoker: RunningStoker) -> None:
    created(stoker, "user", "user")
    found = stoker.invoke("user")
    assert (found["uid"], found["gid"], found["tmp"]) == (1000, 1000, 1)


def test_versions_and_aliases_keep_their_image(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    created(stoker, "versioned", Publish=True)
    service.create_alias(FunctionName="versioned", Name="live", FunctionVersion="1")
    shown = service.update_function_code(FunctionName="versioned", ImageUri="local/app:2", Publish=True)
    assert shown["Version"] == "2"
    settle(stoker, "versioned")
    for qualifier, extra in (("1", "one"), ("live", "one"), ("$LATEST", "two")):
        answer = service.invoke(FunctionName="versioned", Qualifier=qualifier)
        assert json.loads(answer["Payload"].read())["environment"]["EXTRA"] == extra, qualifier
    got = service.get_function(FunctionName="versioned", Qualifier="live")
    assert got["Code"]["ImageUri"] == "local/app:1"
    assert got["Code"]["RepositoryType"] == "ECR"
    assert got["Code"]["ResolvedImageUri"].endswith(got["Configuration"]["CodeSha256"])


def test_an_update_while_it_is_invoked_fails_nobody(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    created(stoker, "moving")
    seen: list[str] = []
    stop = threading.Event()

    def invoke() -> None:
        while not stop.is_set():
            seen.append(stoker.invoke("moving")["environment"]["EXTRA"])

    caller = threading.Thread(target=invoke)
    caller.start()
    try:
        service.update_function_code(FunctionName="moving", ImageUri="local/app:2")
        settle(stoker, "moving")
    finally:
        stop.set()
        caller.join()
    assert stoker.invoke("moving")["environment"]["EXTRA"] == "two"
    assert seen == sorted(seen)  # never back from "two" to "one"


def test_what_cannot_be_started_says_so(stoker: RunningStoker) -> None:
    created(stoker, "broken", ImageConfig={"EntryPoint": ["/nowhere"]})
    answer = stoker.invoke("broken")
    assert answer["errorType"] == "Runtime.InvalidEntrypoint"
    assert answer["errorMessage"].endswith("Error: fork/exec /nowhere: no such file or directory")
    created(stoker, "misplaced", ImageConfig={"WorkingDirectory": "/nowhere"})
    answer = stoker.invoke("misplaced")
    assert answer["errorType"] == "Runtime.InvalidWorkingDir"
    assert answer["errorMessage"].endswith("Error: chdir /nowhere: no such file or directory")


def test_what_is_refused(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    common = {"FunctionName": "refused", "Role": ROLE, "PackageType": "Image"}
    cases = {
        "Source image local/nothing:1 does not exist": {"Code": {"ImageUri": "local/nothing:1"}},
        "is not valid. Provide a valid source image": {"Code": {"ImageUri": "Not An Image"}},
        "Please don't provide Handler or Runtime or Layer": {
            "Code": {"ImageUri": "local/app:1"},
            "Handler": "a.b",
        },
    }
    for message, members in cases.items():
        with pytest.raises(
            botocore.exceptions.ClientError, match="InvalidParameterValueException"
        ) as refused:
            service.create_function(**common, **members)
        assert message in str(refused.value)
    with pytest.raises(service.exceptions.ResourceNotFoundException):
        service.get_function(FunctionName="refused")


def test_the_aws_cli_creates_updates_and_waits(stoker: RunningStoker) -> None:
    def aws(*arguments: str) -> Any:
        command = [str(Path(sys.executable).with_name("aws")), "lambda", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, env=stoker.client_environment()
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else None

    made = aws(
        *("create-function", "--function-name", "cli", "--role", ROLE, "--package-type", "Image"),
        *("--code", "ImageUri=local/app:1", "--image-config", "Command=cli.handler"),
    )
    assert made["PackageType"] == "Image"
    aws("wait", "function-active-v2", "--function-name", "cli")
    aws("update-function-code", "--function-name", "cli", "--image-uri", "local/app:2")
    aws("wait", "function-updated-v2", "--function-name", "cli")
    found = stoker.invoke("cli")
    assert (found["argv"][-1], found["environment"]["EXTRA"]) == ("cli.handler", "two")


def deploy(stoker: RunningStoker, *words: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "stoker.cli.main", "deploy", *words, "--data", str(stoker.data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == code, done.stderr + stoker.tail()
    return done.stderr if code else done.stdout


def test_deploying_an_image_by_name_or_archive(stoker: RunningStoker, tmp_path: Path) -> None:
    assert deploy(stoker, "local/app:1", "--name", "deployed", "--memory", "256") == (
        "created deployed (local/app:1, 256 MB)\n"
    )
    assert stoker.invoke("deployed")["environment"]["EXTRA"] == "one"
    assert deploy(stoker, "local/app:1", "--name", "deployed").startswith("unchanged: deployed (")
    assert deploy(stoker, "local/app:2", "--name", "deployed").startswith("updated deployed (local/app:2,")
    assert stoker.invoke("deployed")["environment"]["EXTRA"] == "two"
    layout = tmp_path / "Taken-in"
    layout.mkdir()
    program = BOOTSTRAP.replace("/usr/bin/python3", str(PYTHON))
    write_image(layout, [host_python_root(), {"bootstrap": File(program.encode(), mode=0o755)}], CONFIG)
    assert deploy(stoker, str(layout), "--timeout", "20") == (
        "created Taken-in (local/taken-in:latest, 128 MB)\n"
    )
    assert stoker.invoke("Taken-in")["argv"] == ["/bootstrap", "app.handler"]


def test_deploying_what_is_no_image_says_so(stoker: RunningStoker, tmp_path: Path) -> None:
    assert "not the name of an image" in deploy(stoker, str(tmp_path / "none"), code=2)
    assert "no --runtime" in deploy(stoker, "local/app:1", "--runtime", "python3.11", code=2)
    assert "local/none:1" in deploy(stoker, "local/none:1", "--name", "none", code=1)
    (tmp_path / "broken.tar").write_bytes(b"\0" * 257 + b"ustar" + b"\0" * 1000)
    assert deploy(stoker, str(tmp_path / "broken.tar"), code=1)


CACHE_METRICS = {
    *("stoker_volumes_hits_total", "stoker_volumes_misses_total", "stoker_volumes_joined_total"),
    *(
        "stoker_volumes_prefetched_total",
        "stoker_volumes_fetched_bytes_total",
        "stoker_volumes_evicted_total",
    ),
    *("stoker_volumes_cache_bytes", "stoker_volumes_volumes", "stoker_volumes_restarts_total"),
    *("stoker_volumes_damaged_total", "stoker_volumes_failed_reads_total"),
    *("stoker_chunks_disk_hits_total", "stoker_chunks_disk_misses_total", "stoker_chunks_disk_evicted_total"),
    *("stoker_chunks_disk_bytes", "stoker_chunks_disk_failures_total", "stoker_chunks_store_reads_total"),
    *("stoker_chunks_store_bytes_total", "stoker_chunks_store_failures_total"),
    "stoker_image_alarms_expired_reads_total",
}


def test_the_caches_of_images_have_metrics(stoker: RunningStoker) -> None:
    created(stoker, "measured")
    stoker.invoke("measured")
    with urllib.request.urlopen(f"{stoker.endpoint}/metrics") as answer:
        lines = [line.split(" ") for line in answer.read().decode().splitlines() if not line.startswith("#")]
    values = {line[0]: float(line[1]) for line in lines if line[0] in CACHE_METRICS}
    assert values.keys() == CACHE_METRICS
    for used in (
        "stoker_volumes_misses_total",
        "stoker_volumes_cache_bytes",
        "stoker_chunks_store_reads_total",
    ):
        assert values[used] > 0
    for wrong in ("damaged_total", "failed_reads_total", "restarts_total"):
        assert values[f"stoker_volumes_{wrong}"] == 0
