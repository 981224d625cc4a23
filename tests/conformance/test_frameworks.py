"""Tools that people deploy with: chalice, installed beside the tests, and the SAM CLI where it is installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import RunningStoker

CHALICE_VERSION = "1.34.0"
CHALICE_FOLDER = Path(__file__).parents[2] / "build" / "clients" / f"chalice-{CHALICE_VERSION}"
SAM = shutil.which("sam")

APP = """
import os

from chalice import Chalice

app = Chalice(app_name="greeter")


@app.lambda_function(name="greet")
def greet(event, context):
    print("greeting", event["name"])
    return {"WORD": event["name"], "stage": os.environ["STAGE"]}
"""
CONFIGURATION = {
    "version": "2.0",
    "app_name": "greeter",
    "stages": {"dev": {"autogen_policy": False, "environment_variables": {"STAGE": "dev"}}},
}
LOGS_ONLY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["logs:*"], "Resource": "arn:aws:logs:*:*:*"}],
}


def run(stoker: RunningStoker, program: Path | str, *arguments: str, cwd: Path, stdin: str = "") -> str:
    done = subprocess.run(
        [str(program), *arguments],
        cwd=cwd,
        env={**stoker.client_environment(), "SAM_CLI_TELEMETRY": "0", "HOME": str(cwd)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def chalice() -> Path:
    """Installed once a checkout, in an environment of its own: it pins other releases than Stoker."""
    program = CHALICE_FOLDER / "bin" / "chalice"
    if program.exists():
        return program
    scratch = CHALICE_FOLDER.with_name(f"{CHALICE_FOLDER.name}-{os.getpid()}")
    subprocess.run([sys.executable, "-m", "venv", str(scratch)], check=True)
    installed = subprocess.run(
        [str(scratch / "bin" / "pip"), "install", "-q", f"chalice=={CHALICE_VERSION}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode != 0:
        shutil.rmtree(scratch)
        pytest.skip(f"chalice {CHALICE_VERSION} cannot be installed: {installed.stderr[-300:]}")
    CHALICE_FOLDER.symlink_to(scratch.name)
    return program


@pytest.mark.timeout(300)
def test_chalice_deploys_changes_and_deletes(stoker: RunningStoker, chalice: Path, tmp_path: Path) -> None:
    (tmp_path / ".chalice").mkdir()
    (tmp_path / ".chalice" / "config.json").write_text(json.dumps(CONFIGURATION))
    (tmp_path / ".chalice" / "policy-dev.json").write_text(json.dumps(LOGS_ONLY))
    (tmp_path / "requirements.txt").write_text("")
    for word in ("hello", "bye"):
        (tmp_path / "app.py").write_text(APP.replace("WORD", word))
        assert ":function:greeter-dev-greet" in run(stoker, chalice, "deploy", cwd=tmp_path)
        answer = run(stoker, chalice, "invoke", "-n", "greet", cwd=tmp_path, stdin='{"name": "you"}')
        assert json.loads(answer) == {word: "you", "stage": "dev"}
    run(stoker, chalice, "delete", cwd=tmp_path)
    with pytest.raises(stoker.client("iam").exceptions.NoSuchEntityException):
        stoker.client("iam").get_role(RoleName="greeter-dev-greet")


@pytest.mark.skipif(SAM is None, reason="no AWS SAM CLI on this host (pip install aws-sam-cli)")
def test_the_sam_cli_invokes_and_reads_logs(stoker: RunningStoker, tmp_path: Path) -> None:
    assert SAM is not None
    source = "def lambda_handler(event, context):\n    print('seen', event['n'])\n    return event['n'] + 1\n"
    arn = stoker.create_python("by-sam", source)["FunctionArn"]
    answer = run(
        stoker, SAM, "remote", "invoke", arn, "--event", '{"n": 41}', "--output", "json", cwd=tmp_path
    )
    assert json.loads(answer[answer.index("{") :])["Payload"] == "42"
    assert "seen 41" in run(stoker, SAM, "logs", "--cw-log-group", "/aws/lambda/by-sam", cwd=tmp_path)
