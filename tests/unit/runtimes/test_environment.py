"""The function's environment against the one recorded inside a real function."""

import pytest

from stoker.core.reserved_environment import reserved_among
from stoker.runtimes import Credentials, FunctionIdentity, RuntimeCatalog, function_environment
from stoker.runtimes.environment import POOLED, needs_fresh_process, pooled_environment

FUNCTION = FunctionIdentity(
    name="f",
    version="$LATEST",
    handler="handler.handler",
    memory_mb=128,
    region="us-east-1",
    log_group="/aws/lambda/f",
    log_stream="2026/01/01/[$LATEST]0",
)
CREDENTIALS = Credentials("ASIA", "secret", "token")

RECORDED = [
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_XRAY_CONTEXT_MISSING",
    "AWS_XRAY_DAEMON_ADDRESS",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
    "LANG",
    "LD_LIBRARY_PATH",
    "PATH",
    "PWD",
    "TZ",
    "_AWS_XRAY_DAEMON_ADDRESS",
    "_AWS_XRAY_DAEMON_PORT",
    "_HANDLER",
]
"""Recorded, less what the runtime itself sets (PYTHONPATH, LC_CTYPE, trace id) and the shell (SHLVL)."""


def base() -> dict[str, str]:
    return dict(RuntimeCatalog().plan("provided.al2023").environment)


def test_has_every_recorded_variable():
    environment = function_environment(base(), FUNCTION, {}, CREDENTIALS)
    assert sorted(environment) == sorted(RECORDED)
    assert environment["AWS_LAMBDA_RUNTIME_API"] == "127.0.0.1:9001"
    assert environment["PATH"] == "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin"
    assert environment["TZ"] == ":UTC"


def test_own_variables_override_defaults_but_nothing_reserved():
    variables = {"PATH": "/mine", "TZ": "CET", "AWS_REGION": "mars", "LAMBDA_TASK_ROOT": "/", "X": "1"}
    environment = function_environment(base(), FUNCTION, variables, CREDENTIALS, telemetry_fd=5)
    assert (environment["PATH"], environment["TZ"], environment["X"]) == ("/mine", "CET", "1")
    assert (environment["AWS_REGION"], environment["LAMBDA_TASK_ROOT"]) == ("us-east-1", "/var/task")
    assert environment["_LAMBDA_TELEMETRY_LOG_FD"] == "5"
    assert reserved_among(variables) == ["AWS_REGION", "LAMBDA_TASK_ROOT"]


@pytest.mark.parametrize(
    ("log_format", "level", "expected"),
    [("Text", None, (None, None)), ("JSON", None, ("JSON", "INFO")), ("JSON", "DEBUG", ("JSON", "DEBUG"))],
)
def test_log_settings(log_format, level, expected):
    function = FunctionIdentity(
        **{
            **{name: getattr(FUNCTION, name) for name in FUNCTION.__struct_fields__},
            "log_format": log_format,
            "application_log_level": level,
        }
    )
    environment = function_environment(base(), function, {}, CREDENTIALS)
    assert (environment.get("AWS_LAMBDA_LOG_FORMAT"), environment.get("AWS_LAMBDA_LOG_LEVEL")) == expected


def test_variables_that_only_a_fresh_process_sees():
    for key in (
        "LD_PRELOAD",
        "PYTHONPATH",
        "NODE_OPTIONS",
        "TZ",
        "AWS_LAMBDA_EXEC_WRAPPER",
        "LC_ALL",
        "UV_X",
    ):
        assert needs_fresh_process([key])
    assert not needs_fresh_process(["PATH", "HOME", "MY_LD_THING", "NODE_ENV"])


def test_only_python_can_be_told_of_a_time_zone_later():
    assert not needs_fresh_process(["TZ"], "python3.11")
    assert needs_fresh_process(["TZ"], "nodejs20.x")


def test_a_pooled_process_knows_no_function_and_keeps_the_order():
    pooled = pooled_environment(base())
    assert list(pooled)[: len(base())] == list(base())
    assert set(pooled) - set(base()) == {"AWS_LAMBDA_RUNTIME_API", POOLED}
