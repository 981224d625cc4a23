"""Two front-end processes before one service: the same API, spread connections, deaths that stay small, an end
that leaves nothing. Real processes, real sandboxes.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.conformance.url_client import call, opened, signed_call
from tests.running import ACCESS_KEY_ID, REGION, ROLE, SECRET_ACCESS_KEY, RunningStoker, python_zip

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the service starts as root here")

ECHO = """
import os, time
def lambda_handler(event, context):
    if event.get("sleep"):
        time.sleep(event["sleep"])
    if event.get("raise"):
        raise ValueError("wanted")
    if event.get("size"):
        return "x" * event["size"]
    return event
"""


@pytest.fixture(scope="module")
def stoker() -> Iterator[RunningStoker]:
    running = RunningStoker(frontends=2)
    try:
        running.start()
        running.create_python("echo", ECHO, Timeout=30)
        yield running
    finally:
        running.remove()


def front_ends(stoker: RunningStoker) -> list[int]:
    """The front-end processes of one Stoker, found by its supervisor and their command."""
    assert stoker.process is not None
    found, waiting = [], [stoker.process.pid]
    while waiting:
        parent = waiting.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                waiting += map(int, task.read_text().split())
        with contextlib.suppress(OSError):
            if b"stoker.app.frontends_main" in Path(f"/proc/{parent}/cmdline").read_bytes():
                found.append(parent)
    return sorted(found)


def service_of(pid: int) -> int:
    """The parent of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))


def metric(stoker: RunningStoker, name: str) -> float:
    with urllib.request.urlopen(f"{stoker.endpoint}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith(f"{name} "))


def accepted_by(pid: int, port: int) -> int:
    """How many established connections to ``port`` a process holds."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(descriptor))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    local = f":{port:04X}"
    return sum(r[1].endswith(local) and r[3] == "01" and f"socket:[{r[9]}]" in inodes for r in rows)


def wait_for(what: object, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_the_life_of_a_function(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    stoker.create_python("life", ECHO)
    assert service.get_function_configuration(FunctionName="life")["State"] == "Active"
    assert stoker.invoke("life", {"a": [1, "ü"]}) == {"a": [1, "ü"]}
    service.update_function_configuration(FunctionName="life", Environment={"Variables": {"KEY": "v"}})
    service.get_waiter("function_updated_v2").wait(FunctionName="life", WaiterConfig={"Delay": 1})
    changed = python_zip("def lambda_handler(event, context):\n    return 'changed'\n")
    service.update_function_code(FunctionName="life", ZipFile=changed)
    service.get_waiter("function_updated_v2").wait(FunctionName="life", WaiterConfig={"Delay": 1})
    # Every front end sees the change: there is one authority, and each client has its own connection.
    assert {stoker.invoke("life") for _ in range(12)} == {"changed"}
    found = service.get_function(FunctionName="life")
    with urllib.request.urlopen(found["Code"]["Location"], timeout=10) as answer:
        assert answer.read() == changed
    with pytest.raises(urllib.error.HTTPError) as forged:
        urllib.request.urlopen(found["Code"]["Location"] + "0", timeout=10)
    assert forged.value.code == 403
    service.delete_function(FunctionName="life")
    assert "life" not in [each["FunctionName"] for each in service.list_functions()["Functions"]]


def test_errors_cross_as_themselves(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    with pytest.raises(ClientError) as missing:
        service.invoke(FunctionName="nobody")
    assert missing.value.response["Error"]["Code"] == "ResourceNotFoundException"
    assert missing.value.response["Type"] == "User"
    with pytest.raises(ClientError) as conflict:
        service.create_function(
            FunctionName="echo",
            Role=ROLE,
            Runtime="python3.11",
            Handler="a.b",
            Code={"ZipFile": python_zip(ECHO)},
        )
    assert conflict.value.response["ResponseMetadata"]["HTTPStatusCode"] == 409
    stranger = boto3.client(
        "lambda",
        endpoint_url=stoker.endpoint,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY + "?",
        config=Config(retries={"max_attempts": 0}),
    )
    with pytest.raises(ClientError, match="signature"):
        stranger.list_functions()
    answer = service.invoke(FunctionName="echo", Payload=b'{"raise": true}', LogType="Tail")
    assert answer["FunctionError"] == "Unhandled"
    assert json.loads(answer["Payload"].read())["errorType"] == "ValueError"
    assert "LogResult" in answer
    service.put_function_concurrency(FunctionName="echo", ReservedConcurrentExecutions=0)
    try:
        with pytest.raises(ClientError) as throttled:
            service.invoke(FunctionName="echo")
        assert throttled.value.response["Error"]["Code"] == "TooManyRequestsException"
        assert throttled.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    finally:
        service.delete_function_concurrency(FunctionName="echo")


def test_large_payloads(stoker: RunningStoker) -> None:
    event = {"text": "x" * 5_900_000}
    assert stoker.invoke("echo", event) == event
    assert len(stoker.invoke("echo", {"size": 6_000_000})) == 6_000_000
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: stoker.invoke("echo", event) == event, range(8))) == [True] * 8
    archive = python_zip(ECHO + "#" + os.urandom(9_000_000).hex())
    assert len(archive) > 9_000_000
    stoker.create("large", archive, Runtime="python3.11", Handler="lambda_function.lambda_handler")
    assert stoker.invoke("large", {"a": 1}) == {"a": 1}


def test_events_and_logs(stoker: RunningStoker) -> None:
    answer = stoker.client("lambda").invoke(FunctionName="echo", InvocationType="Event", Payload=b'{"e": 1}')
    assert answer["StatusCode"] == 202
    request_id = answer["ResponseMetadata"]["RequestId"]
    logs = stoker.client("logs")

    def reported() -> bool:
        found = logs.filter_log_events(logGroupName="/aws/lambda/echo", filterPattern=f'"{request_id}"')
        return any("REPORT" in each["message"] for each in found["events"])

    wait_for(reported)


def test_connections_spread_and_the_metrics_are_of_all(stoker: RunningStoker) -> None:
    both = front_ends(stoker)
    assert len(both) == 2
    before = metric(stoker, "stoker_front_ends_calls_total")
    connections = [socket.create_connection(("127.0.0.1", stoker.port)) for _ in range(64)]
    try:
        for each in connections:
            each.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        for each in connections:
            assert b"200" in each.recv(4096)
        shares = [accepted_by(pid, stoker.port) for pid in both]
        # Each gets about half; a fair coin gives one of them fewer than 12 of 64 once in ten million times.
        assert min(shares) >= 12
        assert sum(shares) >= 64
        # The service itself accepts nothing.
        assert accepted_by(service_of(both[0]), stoker.port) == 0
    finally:
        for each in connections:
            each.close()
    assert metric(stoker, "stoker_front_ends_calls_total") >= before + 64
    assert metric(stoker, "stoker_front_ends_processes") == 2


def test_a_client_that_vanishes_frees_its_call_and_the_function_runs_on(stoker: RunningStoker) -> None:
    signed = signed_invoke(stoker, b'{"sleep": 3}')
    cancelled = metric(stoker, "stoker_front_ends_cancelled_total")
    with socket.create_connection(("127.0.0.1", stoker.port)) as client:
        client.sendall(signed)
        wait_for(lambda: metric(stoker, "stoker_admission_in_flight") >= 1)
    wait_for(lambda: metric(stoker, "stoker_front_ends_cancelled_total") == cancelled + 1, 2)
    # It still runs, and ends.
    assert metric(stoker, "stoker_pool_busy") >= 1
    wait_for(lambda: metric(stoker, "stoker_pool_busy") == 0)


def signed_invoke(stoker: RunningStoker, body: bytes) -> bytes:
    """An Invoke request as it stands on the wire."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    path = "/2015-03-31/functions/echo/invocations"
    request = AWSRequest("POST", stoker.endpoint + path, data=body)
    SigV4Auth(Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY), "lambda", REGION).add_auth(request)
    head = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{stoker.port}", f"Content-Length: {len(body)}"]
    head += [f"{name}: {value}" for name, value in request.headers.items()]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def test_no_secret_is_seen_from_outside(stoker: RunningStoker) -> None:
    for pid in front_ends(stoker):
        seen = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
        assert SECRET_ACCESS_KEY.encode() not in seen
        assert b"STOKER_" not in seen


class Load(threading.Thread):
    """Invokes without pause over one connection at a time, and counts how it went."""

    def __init__(self, stoker: RunningStoker) -> None:
        super().__init__()
        self._stoker = stoker
        self.done = self.broken = 0
        self.wrong: list[object] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        body = b'{"n": 1}'
        while not self.stopping.is_set():
            raw = signed_invoke(self._stoker, body)
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self._stoker.port, timeout=20)
                    connection.connect()
                connection.sock.sendall(raw)
                answer = http.client.HTTPResponse(connection.sock)
                answer.begin()
                if (answer.status, answer.read()) != (200, body):
                    self.wrong.append(answer.status)
                self.done += 1
            except (OSError, http.client.HTTPException):
                self.broken += 1
                if connection is not None:
                    connection.close()
                connection = None


def test_killing_one_front_end_under_load_loses_its_own_connections_only(stoker: RunningStoker) -> None:
    load = [Load(stoker) for _ in range(8)]
    before = front_ends(stoker)
    restarts = metric(stoker, "stoker_front_ends_restarts_total")
    for each in load:
        each.start()
    try:
        wait_for(lambda: sum(each.done for each in load) > 200)
        held = {pid: accepted_by(pid, stoker.port) for pid in before}
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: len(set(front_ends(stoker)) - set(before)) == 1)
        wait_for(lambda: metric(stoker, "stoker_front_ends_restarts_total") == restarts + 1)
        done = sum(each.done for each in load)
        wait_for(lambda: sum(each.done for each in load) > done + 200)
    finally:
        for each in load:
            each.stopping.set()
        for each in load:
            each.join()
    assert before[1] in front_ends(stoker)
    assert [each.wrong for each in load] == [[]] * 8
    # A connection is lost with the process that held it, or while it waited to be accepted by it.
    assert sum(each.broken for each in load) <= held[before[0]] + 2
    # What had been under way ended where the authority is; nothing stays admitted.
    wait_for(lambda: metric(stoker, "stoker_admission_in_flight") == 0)


def test_the_death_of_the_service_ends_every_front_end_and_all_come_back(stoker: RunningStoker) -> None:
    before = front_ends(stoker)
    os.kill(service_of(before[0]), signal.SIGKILL)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before), 5)
    wait_for(lambda: len(front_ends(stoker)) == 2, 60)
    wait_for(lambda: stoker.answers("/ready"), 60)
    assert stoker.invoke("echo", {"back": True}) == {"back": True}


def test_stopping_finishes_what_is_under_way_and_leaves_nothing() -> None:
    running = RunningStoker(frontends=2, pool_memory_mb=0)
    try:
        running.start()
        running.create_python("echo", ECHO, Timeout=30)
        running.invoke("echo")
        pids = front_ends(running)
        with ThreadPoolExecutor(3) as pool:
            late = [pool.submit(running.invoke, "echo", {"sleep": 2, "n": n}) for n in range(3)]
            wait_for(lambda: metric(running, "stoker_admission_in_flight") == 3)
            assert running.stop() == 0
            assert [each.result()["n"] for each in late] == [0, 1, 2]
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", running.port))
    finally:
        running.remove()


@pytest.fixture
def certificate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A certificate for 127.0.0.1 and its key in one file that the service's user can read; trusted here."""
    folder = Path(tempfile.mkdtemp(prefix="stoker-test-tls-", dir="/var/tmp"))
    folder.chmod(0o755)
    pem = folder / "tls.pem"
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/stdout"]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-days", "2", *new_key, *name]
    pem.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    pem.chmod(0o644)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    yield pem
    shutil.rmtree(folder)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_tls(certificate: Path) -> None:
    running = RunningStoker(frontends=2, pool_memory_mb=0, tls_certificate=certificate, tls_key=certificate)
    running.endpoint = f"https://127.0.0.1:{running.port}"
    try:
        running.start()
        trusting = ssl.create_default_context(cafile=str(certificate))
        with urllib.request.urlopen(f"{running.endpoint}/ready", context=trusting, timeout=10) as answer:
            assert answer.read() == b"ready\n"
        client = boto3.client(
            "lambda",
            endpoint_url=running.endpoint,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET_ACCESS_KEY,
            verify=str(certificate),
        )
        assert client.list_functions()["Functions"] == []
    finally:
        running.remove()


def test_an_address_that_another_service_shares_is_taken(stoker: RunningStoker) -> None:
    from stoker.app.frontends_listening import SharedAddress

    other = SharedAddress("127.0.0.1", stoker.port)
    with pytest.raises(OSError, match="in use"):
        other.reserve()


def test_function_urls(stoker: RunningStoker) -> None:
    stoker.create_python("url", "def lambda_handler(event, context):\n    return event\n")
    url = opened(stoker, "url")
    stranger = call(stoker, url, "/a?b=c", "POST", {"Content-Type": "text/plain"}, b"x" * 1_500_000)
    assert (stranger.status, len(stranger.json()["body"])) == (200, 1_500_000)
    url_id = url.removeprefix("http://").partition(".")[0]
    assert call(stoker, stoker.endpoint, f"/_stoker/url/{url_id}/a").json()["rawPath"] == "/a"
    stoker.client("lambda").update_function_url_config(FunctionName="url", AuthType="AWS_IAM")
    # Whoever accepts the connection, the service decides.
    assert {call(stoker, url).status for _ in range(8)} == {403}
    shown = signed_call(stoker, url).json()["requestContext"]["authorizer"]["iam"]
    assert shown["userArn"].endswith(":root")
    stoker.client("lambda").delete_function_url_config(FunctionName="url")
    assert {call(stoker, url).body for _ in range(8)} == {b'{"Message":null}'}
