"""The AWS CLI drives the whole life of a function: version 1 as PyPI has it, version 2 where it is installed."""

import base64
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.running import PYTHON_RUNTIME, ROLE, RunningStoker, python_zip

AWS = Path(sys.executable).parent / "aws"
AWS_2 = Path("/usr/bin/aws")
DEPLOYMENT = Path(__file__).with_name("deployment.sh")
BINARY = ("--cli-binary-format", "raw-in-base64-out")


def aws(stoker: RunningStoker, *arguments: str, program: Path = AWS) -> str:
    done = subprocess.run(
        [str(program), *arguments, "--output", "json", "--endpoint-url", stoker.endpoint],
        env=stoker.client_environment(),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_the_whole_life_of_a_function(stoker: RunningStoker, tmp_path: Path) -> None:
    code, output = tmp_path / "code.zip", tmp_path / "output.json"
    code.write_bytes(
        python_zip("def lambda_handler(event, context):\n    print('hi')\n    return event['n'] + 1\n")
    )
    created = json.loads(
        aws(
            stoker,
            *("lambda", "create-function", "--function-name", "by-cli", "--runtime", PYTHON_RUNTIME),
            *("--role", ROLE, "--handler", "lambda_function.lambda_handler", "--zip-file", f"fileb://{code}"),
        )
    )
    assert created["State"] == "Pending"
    aws(stoker, "lambda", "wait", "function-active-v2", "--function-name", "by-cli")
    answer = json.loads(
        aws(
            stoker,
            *("lambda", "invoke", "--function-name", "by-cli", "--log-type", "Tail"),
            *("--payload", '{"n": 41}', str(output)),
        )
    )
    assert answer["StatusCode"] == 200
    assert json.loads(output.read_text()) == 42
    log = base64.b64decode(answer["LogResult"]).decode()
    assert "hi\n" in log
    assert "REPORT RequestId:" in log
    code.write_bytes(python_zip("def lambda_handler(event, context):\n    return 'new'\n"))
    aws(
        stoker, "lambda", "update-function-code", "--function-name", "by-cli", "--zip-file", f"fileb://{code}"
    )
    aws(stoker, "lambda", "wait", "function-updated-v2", "--function-name", "by-cli")
    aws(stoker, "lambda", "invoke", "--function-name", "by-cli", str(output))
    assert json.loads(output.read_text()) == "new"
    aws(stoker, "lambda", "delete-function", "--function-name", "by-cli")
    names = json.loads(aws(stoker, "lambda", "list-functions", "--query", "Functions[].FunctionName"))
    assert "by-cli" not in names


@pytest.mark.skipif(not AWS_2.exists(), reason="no AWS CLI 2 on this host (Debian: apt-get install awscli)")
def test_version_2_invokes_and_reads_logs(stoker: RunningStoker, tmp_path: Path) -> None:
    stoker.create_python("by-cli-2", "def lambda_handler(event, context):\n    print('seen', event['n'])\n")
    invoke = ("lambda", "invoke", "--function-name", "by-cli-2", "--payload", '{"n": 7}', *BINARY)
    aws(stoker, *invoke, str(tmp_path / "output.json"), program=AWS_2)
    aws(stoker, "lambda", "wait", "function-active-v2", "--function-name", "by-cli-2", program=AWS_2)
    group = ("--log-group-name", "/aws/lambda/by-cli-2")
    deadline = time.monotonic() + 10
    while "seen 7" not in aws(stoker, "logs", "tail", "/aws/lambda/by-cli-2", program=AWS_2):
        assert time.monotonic() < deadline
    streams = json.loads(aws(stoker, "logs", "describe-log-streams", *group, program=AWS_2))["logStreams"]
    stream = ("--log-stream-name", streams[0]["logStreamName"])
    assert "seen 7" in aws(stoker, "logs", "get-log-events", *group, *stream, program=AWS_2)
    assert "seen 7" in aws(stoker, "logs", "filter-log-events", *group, program=AWS_2)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this host")
@pytest.mark.timeout(300)
def test_a_deployment_script(stoker: RunningStoker, tmp_path: Path) -> None:
    # Other tests of the same Stoker may have left functions that reserve some.
    limits = stoker.client("lambda").get_account_settings()["AccountLimit"]
    done = subprocess.run(
        [str(DEPLOYMENT), str(AWS), stoker.endpoint, PYTHON_RUNTIME],
        cwd=tmp_path,
        env=stoker.client_environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "published 2",
        "routing 0.5",
        "unrouted None",
        "log stage two END RequestId",
        'new "2 hello you layered"',
        'old "1 hello you bare"',
        "event 202",
        "url 2 hello caller layered 200",
        'page [ "1" ]',
        "versions $LATEST 1 2",
        "tags prod a None",
        f"unreserved {limits['UnreservedConcurrentExecutions'] - 5}",
        "streams True",
        "gone ResourceNotFoundException",
    ]
