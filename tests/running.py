"""A Stoker of its own for a test: started by the real command, reached by real clients, killed on demand."""

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

ACCESS_KEY_ID = "AKIASTOKERTEST000001"
SECRET_ACCESS_KEY = "stoker-test-secret-access-key-00000000001"
ACCOUNT = "000000000000"
REGION = "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/test-role"
READY_WITHIN_S = 60.0

PYTHON_RUNTIME = "python3.11" if Path("/usr/bin/python3.11").exists() else f"python3.{sys.version_info.minor}"
NODE = shutil.which("node", path="/usr/bin:/usr/local/bin")


def node_runtime() -> str | None:
    """The host's Node as Lambda names it, or None without one."""
    if NODE is None:
        return None
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout
    return f"nodejs{version.lstrip('v').partition('.')[0]}.x"


def zip_of(files: dict[str, str | bytes]) -> bytes:
    """A zip archive of these files, every one executable."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            member.external_attr = 0o100755 << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, content)
    return buffer.getvalue()


def python_zip(source: str) -> bytes:
    """One lambda_function.py."""
    return zip_of({"lambda_function.py": source})


class RunningStoker:
    """Starts ``stoker up`` on a free port with a data folder that the service's user can reach."""

    def __init__(self, **settings: object) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="stoker-test-", dir="/var/tmp"))
        self.data.chmod(0o755)
        self.log = self.data.with_suffix(".log")
        self.port = _free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}
        """Further variables of the service, of which it would otherwise see neither STOKER_ nor AWS_ ones."""
        self._settings = settings

    def start(self, page: str = "/ready") -> None:
        """Start and wait until ``page`` answers 200; raises with the service's own log when it does not."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("STOKER_", "AWS_"))},
            "STOKER_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "STOKER_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
            "STOKER_ACCOUNT": ACCOUNT,
            "STOKER_TMP_CAPACITY_MB": "4096",
            **{f"STOKER_{name.upper()}": str(value) for name, value in self._settings.items()},
            **self.environment,
        }
        command = [sys.executable, "-m", "stoker.cli.main", "up"]
        command += ["--listen", f"127.0.0.1:{self.port}", "--data", str(self.data)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._wait_ready(page)

    def stop(self) -> int:
        """SIGTERM and the exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(45)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise

    def kill(self) -> None:
        """SIGKILL to the supervisor; its children die with it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def remove(self) -> None:
        """Stop if need be and delete all it kept."""
        with contextlib.suppress(Exception):
            if self.process is not None and self.process.poll() is None:
                self.stop()
        shutil.rmtree(self.data, ignore_errors=True)
        self.log.unlink(missing_ok=True)

    def client(self, service: str, **config: Any) -> Any:
        """A boto3 client of the account's root, without retries."""
        return self.client_of(service, (ACCESS_KEY_ID, SECRET_ACCESS_KEY, None), **config)

    def client_of(self, service: str, keys: tuple[str, str, str | None], **config: Any) -> Any:
        """The same of whoever has the keys (id, secret, session token)."""
        options = {"retries": {"max_attempts": 0}, "read_timeout": 120, "connect_timeout": 10, **config}
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=keys[0],
            aws_secret_access_key=keys[1],
            aws_session_token=keys[2],
            config=Config(**options),
        )

    def client_environment(self) -> dict[str, str]:
        """What the AWS CLI and other SDKs need to reach it."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return {
            **clean,
            "AWS_ENDPOINT_URL_LAMBDA": self.endpoint,
            "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": self.endpoint,
            "AWS_ENDPOINT_URL_IAM": self.endpoint,
            "AWS_ENDPOINT_URL_STS": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_PAGER": "",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }

    def create_python(self, name: str, source: str, **settings: Any) -> dict[str, Any]:
        """Create a Python function and wait until it is active."""
        return self.create(
            name,
            python_zip(source),
            Runtime=PYTHON_RUNTIME,
            Handler="lambda_function.lambda_handler",
            **settings,
        )

    def create(self, name: str, archive: bytes, **settings: Any) -> dict[str, Any]:
        """Create a function and wait until it is active."""
        service = self.client("lambda")
        answer = service.create_function(
            FunctionName=name, Code={"ZipFile": archive}, **{"Role": ROLE, **settings}
        )
        service.get_waiter("function_active_v2").wait(
            FunctionName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
        return answer

    def invoke(self, name: str, event: Any = None, **options: Any) -> Any:
        """Invoke and decode the result."""
        answer = self.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event or {}), **options)
        return json.loads(answer["Payload"].read() or b"null")

    def _wait_ready(self, page: str) -> None:
        assert self.process is not None
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"stoker ended with {self.process.returncode}:\n{self.tail()}")
            if self.answers(page):
                return
            time.sleep(0.05)
        raise AssertionError(f"stoker was not ready within {READY_WITHIN_S} s:\n{self.tail()}")

    def answers(self, page: str) -> bool:
        """Whether a page of it is there and says 200."""
        try:
            with urllib.request.urlopen(f"{self.endpoint}{page}", timeout=2) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def tail(self) -> str:
        """The end of the service's own log."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
