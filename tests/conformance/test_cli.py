"""The command line as people use it: as a process, with its output, its exit code and its signals."""

import base64
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.url_client import call
from tests.running import ACCOUNT, PYTHON_RUNTIME, RunningStoker, python_zip

ECHO = """
import os

def lambda_handler(event, context):
    print("was asked", event)
    if event.get("fail"):
        raise ValueError("as told")
    return {"event": event, "word": os.environ.get("WORD")}
"""
RAW = """#!/bin/bash
while true; do
  id=$(curl -sS -D - -o /dev/null "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next" |
       grep -i request-id | tr -d '[:space:]' | cut -d: -f2)
  printf '\\xff\\xfe' | curl -sS --data-binary @- -o /dev/null \\
    "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/$id/response"
done
"""
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "STOKER_"))
} | {"COLUMNS": "80"}


def stoker_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "stoker.cli.main", *arguments]


class Cli:
    """``stoker ... --data DIR`` as a process."""

    def __init__(self, stoker: RunningStoker) -> None:
        self.stoker = stoker

    def command(self, *arguments: str) -> list[str]:
        return stoker_command(*arguments, "--data", str(self.stoker.data))

    def __call__(
        self, *arguments: str, code: int = 0, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments),
            env=ENVIRONMENT,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "stoker/cli/" not in done.stderr, "a traceback"
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)


@pytest.fixture(scope="module")
def cli(stoker: RunningStoker) -> Cli:
    return Cli(stoker)


@pytest.fixture(scope="module")
def echo(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("source") / "cli-echo"
    folder.mkdir()
    (folder / "lambda_function.py").write_text(ECHO)
    assert cli("deploy", str(folder), "--env", "WORD=a=b").stdout.startswith("created cli-echo (")
    yield folder
    cli("delete", "cli-echo")


def test_deploy_again_changes_only_what_differs(cli: Cli, echo: Path) -> None:
    before = cli.json("deploy", str(echo))
    assert cli("deploy", str(echo)).stdout.startswith("unchanged: cli-echo (")
    (echo / "lambda_function.py").touch()
    assert cli.json("deploy", str(echo))["CodeSha256"] == before["CodeSha256"]
    assert cli("deploy", str(echo), "--memory", "256").stdout.startswith("updated cli-echo (")
    after = cli.json("list")
    function = next(each for each in after if each["FunctionName"] == "cli-echo")
    assert (function["MemorySize"], function["CodeSha256"]) == (256, before["CodeSha256"])
    assert function["Environment"]["Variables"] == {"WORD": "a=b"}
    assert function["Role"] == f"arn:aws:iam::{ACCOUNT}:role/stoker"


def test_deploy_with_a_url(cli: Cli, echo: Path, stoker: RunningStoker) -> None:
    url = cli.json("deploy", str(echo), "--url")["FunctionUrl"]
    assert cli("deploy", str(echo), "--url").stdout.splitlines()[-1] == url
    assert call(stoker, url).status == 200


def test_deploy_new_code(cli: Cli, echo: Path) -> None:
    before = cli.json("deploy", str(echo))["CodeSha256"]
    (echo / "lambda_function.py").write_text(ECHO + "# new\n")
    assert cli.json("deploy", str(echo))["CodeSha256"] != before


def test_deploy_a_zip(cli: Cli, tmp_path: Path) -> None:
    archive = tmp_path / "cli-zip.zip"
    archive.write_bytes(python_zip("def go(event, context):\n    return 7\n"))
    assert "--runtime and --handler" in cli("deploy", str(archive), code=1).stderr
    given = ("--runtime", PYTHON_RUNTIME, "--handler", "lambda_function.go")
    assert cli.json("deploy", str(archive), *given)["FunctionName"] == "cli-zip"
    assert cli("invoke", "cli-zip").stdout == "7\n"
    assert cli("delete", "cli-zip").stdout == "deleted cli-zip\n"
    assert "stoker list" in cli("invoke", "cli-zip", code=1).stderr


def test_deploy_refuses_before_it_sends(cli: Cli, tmp_path: Path) -> None:
    assert "does not exist" in cli("deploy", str(tmp_path / "none"), code=2).stderr
    assert "give --runtime and --handler" in cli("deploy", str(tmp_path), code=1).stderr
    (tmp_path / "index.py").write_text(ECHO)
    assert "not NAME=VALUE" in cli("deploy", str(tmp_path), "--env", "WORD", code=2).stderr
    assert "--name" in cli("deploy", str(tmp_path), "--name", "a b", code=1).stderr
    assert "128" in cli("deploy", str(tmp_path), "--memory", "5", code=2).stderr
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert "copy what it points to" in cli("deploy", str(tmp_path), "--name", "cli-link", code=1).stderr
    assert "cli-link" not in [function["FunctionName"] for function in cli.json("list")]


def test_deploy_says_how_to_get_a_runtime(cli: Cli, echo: Path) -> None:
    message = cli("deploy", str(echo), "--name", "cli-other", "--runtime", "python3.8", code=1).stderr
    assert "python3.8" in message
    assert "install" in message


def test_invoke(cli: Cli, echo: Path, tmp_path: Path) -> None:
    assert json.loads(cli("invoke", "cli-echo", '{"n": 1}').stdout) == {"event": {"n": 1}, "word": "a=b"}
    assert json.loads(cli("invoke", "cli-echo", "-", stdin='{"n": 2}').stdout)["event"] == {"n": 2}
    event = tmp_path / "event.json"
    event.write_text('{"n": 3}')
    assert json.loads(cli("invoke", "cli-echo", f"@{event}").stdout)["event"] == {"n": 3}
    assert f"{tmp_path}/none: No such file" in cli("invoke", "cli-echo", f"@{tmp_path}/none", code=1).stderr
    assert "must be JSON" in cli("invoke", "cli-echo", "hello", code=1).stderr


def test_invoke_tail_and_failure(cli: Cli, echo: Path) -> None:
    done = cli("invoke", "cli-echo", '{"fail": 1}', "--tail", code=1)
    assert json.loads(done.stdout)["errorMessage"] == "as told"
    assert "was asked {'fail': 1}" in done.stderr
    assert "REPORT RequestId:" in done.stderr
    assert "stoker: the function failed (Unhandled)" in done.stderr
    answer = cli.json("invoke", "cli-echo", '{"fail": 1}', code=1)
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert answer["Payload"]["errorType"] == "ValueError"


def test_invoke_asynchronously(cli: Cli, echo: Path) -> None:
    done = cli("invoke", "cli-echo", '{"late": 1}', "--event")
    assert (done.stdout, done.stderr) == ("", "accepted\n")
    assert cli.json("invoke", "cli-echo", "--event")["StatusCode"] == 202


def test_a_result_that_is_not_text(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bootstrap").write_text(RAW)
    (tmp_path / "bootstrap").chmod(0o755)
    cli("deploy", str(tmp_path), "--name", "cli-raw")
    done = subprocess.run(
        cli.command("invoke", "cli-raw"), env=ENVIRONMENT, capture_output=True, timeout=60, check=True
    )
    assert done.stdout == b"\xff\xfe\n"
    assert base64.b64decode(cli.json("invoke", "cli-raw")["PayloadBase64"]) == b"\xff\xfe"
    cli("delete", "cli-raw")


def test_errors_as_json(cli: Cli) -> None:
    for command in (("invoke", "cli-none"), ("delete", "cli-none"), ("logs", "cli-none")):
        done = cli(*command, "--json", code=1)
        assert done.stdout == ""
        error = json.loads(done.stderr)["error"]
        assert error["code"] == "ResourceNotFoundException"
        assert error["hint"]


def wait_for_log(cli: Cli, text: str) -> list[str]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lines = cli("logs", "cli-echo").stdout.splitlines()
        if any(text in line for line in lines):
            return lines
        time.sleep(0.2)
    raise AssertionError(f"{text!r} never came into the log")


def test_logs(cli: Cli, echo: Path) -> None:
    cli("invoke", "cli-echo", '{"find": "me"}')
    line = next(line for line in wait_for_log(cli, "'find': 'me'") if "'find': 'me'" in line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} was asked {'find': 'me'}", line)
    filtered = cli.json("logs", "cli-echo", "--filter", '"find"')
    assert [event["message"].strip() for event in filtered] == ["was asked {'find': 'me'}"]
    assert "--since" in cli("logs", "cli-echo", "--since", "1h", "--filter", "nosuchword").stderr
    assert "15m" in cli("logs", "cli-echo", "--since", "soon", code=2).stderr


def test_logs_of_what_is_not_there(cli: Cli) -> None:
    assert "stoker list" in cli("logs", "cli-none", code=1).stderr


def test_logs_follow_and_control_c(cli: Cli, echo: Path) -> None:
    follow = subprocess.Popen(
        cli.command("logs", "cli-echo", "-f", "--json", "--since", "1s"),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert follow.stdout is not None
        cli("invoke", "cli-echo", '{"follow": "this"}')
        found = next(
            event for event in map(json.loads, follow.stdout) if "'follow': 'this'" in event["message"]
        )
        assert found["timestamp"] > 0
        follow.send_signal(signal.SIGINT)
        assert follow.wait(10) == 130
        assert follow.stderr is not None
        assert follow.stderr.read() == ""
    finally:
        follow.kill()
        follow.communicate()


@pytest.mark.parametrize("command", [("logs", "cli-echo"), ("list",), ("ps", "--json"), ("env",)])
def test_a_reader_that_leaves(cli: Cli, echo: Path, command: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    cli("invoke", "cli-echo")
    done = subprocess.run(
        cli.command(*command),
        env=ENVIRONMENT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_list(cli: Cli, echo: Path) -> None:
    header, *rows = cli("list").stdout.splitlines()
    assert header.split() == ["NAME", "RUNTIME", "MEMORY", "TIMEOUT", "SIZE", "MODIFIED", "(UTC)", "STATE"]
    line = next(row for row in rows if row.startswith("cli-echo "))
    assert PYTHON_RUNTIME in line
    assert line.endswith("Active")


def test_ps(cli: Cli, echo: Path) -> None:
    cli("invoke", "cli-echo")
    header, *rows = cli("ps").stdout.splitlines()
    assert header.startswith("SANDBOX ")
    assert any(row.endswith("cli-echo") and re.search(r"\bidle\b", row) for row in rows)
    mine = [box for box in cli.json("ps") if box["function_arn"].endswith(":cli-echo")]
    assert mine[0]["memory_used_bytes"] > 0


def test_env_works_in_a_shell(cli: Cli, echo: Path) -> None:
    variables = cli.json("env")
    assert variables["AWS_ENDPOINT_URL_LAMBDA"] == cli.stoker.endpoint
    assert variables["AWS_ACCOUNT_ID"] == ACCOUNT
    script = (
        f'eval "$({" ".join(cli.command("env"))})"; echo "${{AWS_PROFILE-gone}}"; '
        f"{' '.join(stoker_command('invoke', 'cli-echo'))} && "
        f"{' '.join(stoker_command('deploy', str(echo), '--name', 'cli-env'))} && "
        f"{' '.join(stoker_command('delete', 'cli-env'))}"
    )
    done = subprocess.run(
        ["bash", "-c", script],
        env=ENVIRONMENT | {"AWS_PROFILE": "another"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "gone"
    assert json.loads(lines[1])["event"] == {}
    assert lines[2].startswith("created cli-env")


def test_keys_of_another_service(cli: Cli) -> None:
    foreign = {
        "AWS_ENDPOINT_URL_LAMBDA": cli.stoker.endpoint,
        "AWS_ACCESS_KEY_ID": "AKIAFOREIGN000000000",
        "AWS_SECRET_ACCESS_KEY": "foreign",
    }
    done = subprocess.run(
        stoker_command("list"), env=ENVIRONMENT | foreign, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert 'eval "$(stoker env)"' in done.stderr


def test_doctor(cli: Cli) -> None:
    findings = cli.json("doctor")
    assert {"kernel", "native programs", "cgroup limits", "runtimes"} <= {each["what"] for each in findings}
    assert PYTHON_RUNTIME in next(each["found"] for each in findings if each["what"] == "runtimes")
    assert "kernel" in cli("doctor").stdout


def test_doctor_says_what_is_missing(cli: Cli, tmp_path: Path) -> None:
    environment = ENVIRONMENT | {"STOKER_NATIVE_DIR": str(tmp_path)}
    done = subprocess.run(
        cli.command("doctor"), env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "make -C native" in done.stdout


def test_a_terminal_gets_colours_and_whole_words(cli: Cli) -> None:
    shown = in_terminal(cli.command("doctor"), ENVIRONMENT | {"TERM": "xterm", "COLUMNS": "60"})
    assert "\x1b[32mok\x1b[0m" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert max(map(len, plain.splitlines())) <= 60
    assert in_terminal(cli.command("doctor"), ENVIRONMENT | {"NO_COLOR": "1"}).count("\x1b") == 0


def in_terminal(command: list[str], environment: dict[str, str]) -> str:
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        command, env=environment, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(controller, 65_536):
            shown += chunk
    except OSError:  # how a terminal tells that its last program is gone
        pass
    finally:
        os.close(controller)
        process.wait(30)
    return shown.decode()


def test_nobody_there(tmp_path: Path) -> None:
    for command in (
        "env",
        "ps",
        "list",
        "logs x",
        "invoke x",
        "delete x",
        f"deploy {tmp_path} --runtime a --handler b",
    ):
        done = subprocess.run(
            stoker_command(*command.split(), "--data", str(tmp_path)),
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert f"stoker up --data {tmp_path}" in done.stderr, command
        assert "stoker/cli/" not in done.stderr, "a traceback"


def test_up_refuses_what_cannot_work(cli: Cli, tmp_path: Path) -> None:
    for arguments, words in (
        (["--listen", f"127.0.0.1:{cli.stoker.port}"], "choose another with --listen"),
        (["--listen", "nonsense"], "HOST:PORT"),
        (["--cpu-policy", "x"], "cpu_policy"),
        (["--config", str(tmp_path / "none.toml")], "none.toml"),
    ):
        done = subprocess.run(
            stoker_command("up", "--data", str(tmp_path), *arguments),
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 78, done.stderr
        assert words in done.stderr
