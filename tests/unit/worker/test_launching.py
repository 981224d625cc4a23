"""What a function version becomes for a driver."""

import re
from pathlib import Path

import msgspec
import pytest

from stoker.runtimes.catalog import RuntimePlan
from stoker.sandbox.driver import MountPoint
from stoker.services.credentials import Credential
from stoker.services.functions import FunctionKey, FunctionVersion, LogSettings, Status
from stoker.worker.launching import (
    CodeFolders,
    assignment_of,
    extensions_in,
    is_poolable,
    launch_of,
    limits_of,
    log_stream_of,
    mounts_of,
    runtime_version_of,
)

FUNCTION = FunctionVersion(
    key=FunctionKey("000000000000", "eu-west-1", "f"),
    version="7",
    deployment_id="d",
    revision_id="r",
    last_modified="",
    role="role",
    runtime="python3.11",
    handler="m.h",
    memory_mb=1769,
    tmp_mb=1024,
    environment={"A": "1"},
    code_sha256="s",
    code_size_bytes=1,
    logging=LogSettings(log_group="/aws/lambda/f", log_format="JSON"),
    state=Status(value="Active"),
)
PLAN = RuntimePlan("python3.11", ("/usr/bin/python3.11", "x"), {"BASE": "b"}, {"/var/runtime": Path("/boot")})


def test_init_is_unthrottled_and_the_rest_is_a_share() -> None:
    assert limits_of(FUNCTION, "quota", initialising=True).cpu_quota <= 0
    limits = limits_of(FUNCTION, "weight", initialising=False)
    assert (limits.cpu_quota, limits.memory_mb, limits.tmp_mb, limits.cpu_policy) == (
        1.0,
        1769,
        1024,
        "weight",
    )


def test_mounts() -> None:
    expected = {MountPoint.RUNTIME: Path("/boot"), MountPoint.TASK: Path("/code")}
    assert mounts_of(PLAN, CodeFolders(Path("/code"))) == expected
    layered = mounts_of(PLAN, CodeFolders(Path("/code"), opt=Path("/layers")))
    assert layered == {**expected, MountPoint.OPT: Path("/layers")}


def test_extensions_are_what_could_be_executed(tmp_path: Path) -> None:
    assert extensions_in(tmp_path) == ()
    folder = tmp_path / "extensions"
    folder.mkdir()
    for name, mode in {"z": 0o755, "a": 0o755, "readme": 0o644}.items():
        (folder / name).touch(mode)
    (folder / "link").symlink_to("/anything")
    (folder / "folder").mkdir()
    assert extensions_in(tmp_path) == ("a", "link", "z")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "extensions").symlink_to(folder)
    assert extensions_in(linked) == ()


def test_the_process() -> None:
    credential = Credential(
        access_key_id="AK", secret="SK", session_token="T", account="000000000000", principal_arn="role"
    )
    launch = launch_of(PLAN, FUNCTION, credential, log_stream="stream", telemetry_fd=5)
    assert launch.argv == PLAN.argv
    expected = {
        "BASE": "b",
        "A": "1",
        "AWS_ACCESS_KEY_ID": "AK",
        "AWS_SECRET_ACCESS_KEY": "SK",
        "AWS_SESSION_TOKEN": "T",
        "AWS_REGION": "eu-west-1",
        "AWS_LAMBDA_FUNCTION_NAME": "f",
        "AWS_LAMBDA_FUNCTION_VERSION": "7",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/f",
        "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
        "_LAMBDA_TELEMETRY_LOG_FD": "5",
        "_HANDLER": "m.h",
        "AWS_ENDPOINT_URL_LAMBDA": "http://127.0.0.1:9797",
        "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": "http://127.0.0.1:9797",
        "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:9797",
    }
    assert expected.items() <= launch.environment.items()


def test_the_log_stream() -> None:
    assert log_stream_of(FUNCTION, 1_718_000_000, "a" * 32) == "2024/06/10/[7]" + "a" * 32


@pytest.mark.parametrize(
    ("runtime", "version"),
    [
        ("python3.11", "python:3.11:stoker"),
        ("nodejs20.x", "nodejs:20:stoker"),
        ("provided.al2023", "provided:al2023:stoker"),
        ("provided", "provided:stoker"),
        (None, "provided:stoker"),
    ],
)
def test_the_runtime_version(runtime: str | None, version: str) -> None:
    text, arn = runtime_version_of(msgspec.structs.replace(FUNCTION, runtime=runtime))
    assert text == version
    assert re.fullmatch(r"arn:aws:lambda:eu-west-1::runtime:[0-9a-f]{64}", arn)


def test_the_assignment_says_what_a_launch_would() -> None:
    credential = Credential(
        access_key_id="AK", secret="SK", session_token="T", account="000000000000", principal_arn="role"
    )
    launch = launch_of(PLAN, FUNCTION, credential, log_stream="stream", telemetry_fd=5)
    told = msgspec.json.decode(assignment_of(launch))
    assert told == {"environment": dict(launch.environment), "working_directory": "/var/task"}
    assert list(told["environment"]) == list(launch.environment)


@pytest.mark.parametrize(
    ("runtime", "environment", "poolable"),
    [
        ("python3.11", None, True),
        ("python3.11", {"A": "line\nbreak", "NODE_ENV": "x"}, True),
        ("python3.11", {"LD_PRELOAD": "/var/task/x.so"}, False),
        ("python3.11", {"A": "nul\0"}, False),
        ("python3.11", {"A": "\ud800"}, False),
        ("nodejs20.x", {"NODE_OPTIONS": "--enable-source-maps"}, False),
        ("provided.al2023", None, False),
    ],
)
def test_what_a_pooled_runtime_can_become(
    runtime: str, environment: dict[str, str] | None, poolable: bool
) -> None:
    plan = msgspec.structs.replace(PLAN, runtime=runtime)
    assert is_poolable(plan, msgspec.structs.replace(FUNCTION, environment=environment)) is poolable
