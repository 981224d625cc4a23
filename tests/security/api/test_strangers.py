"""What somebody without the secret may try at the API's door, over a real socket."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from stoker.api.errors import http_error_body
from stoker.http.messages import Request
from stoker.services import lambda_types as lt
from stoker.services.context import RequestContext
from tests.integration.api.serving import RunningApi, running_api
from tests.unit.api.signing import KEY, sign

PATH = "/2015-03-31/functions/f/invocations"
CREATED: list[str] = []


async def create_function(
    context: RequestContext, request: lt.CreateFunctionRequest
) -> lt.FunctionConfiguration:
    CREATED.append(request.function_name)
    return lt.FunctionConfiguration(function_name=request.function_name)


@pytest.fixture(scope="module")
def api() -> Iterator[RunningApi]:
    with running_api({"lambda": {"CreateFunction": create_function}}) as running:
        yield running


def wire(request: Request, body: bytes | None = None, *, declared: int | None = None) -> bytes:
    """The request as bytes; ``declared`` overrides content-length."""
    body = request.body if body is None else body
    head = request.method + b" " + request.target + b" HTTP/1.1\r\n"
    head += b"".join(n + b": " + v + b"\r\n" for n, v in request.headers if n != b"content-length")
    length = len(body) if declared is None else declared
    return head + b"content-length: %d\r\n\r\n" % length + body


def exchange(api: RunningApi, data: bytes, *, timeout_s: float = 5) -> tuple[int, bytes]:
    """Status and everything that came back until the first response was complete or the server closed."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=timeout_s) as connection:
        connection.sendall(data)
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = connection.recv(65536)
            if not piece:
                break
            answer += piece
        return int(answer.split(b" ", 2)[1]), answer


def unasked(api: RunningApi, data: bytes, statuses: tuple[int, ...] = (403,)) -> bytes:
    """Send; nothing behind the door may learn of it."""
    before = len(api.frontend.asked)
    status, answer = exchange(api, data)
    assert status in statuses, answer
    assert len(api.frontend.asked) == before
    return answer


def test_a_good_request_passes(api: RunningApi) -> None:
    """So that the refusals below prove something."""
    assert exchange(api, wire(sign(time.time())))[0] == 200


def test_tampered_signature_and_body(api: RunningApi) -> None:
    request = sign(time.time())
    good = wire(request)
    unasked(api, good.replace(b"Signature=", b"Signature=0")[:-1] + b"}")
    flipped = bytearray(request.header(b"authorization") or b"")
    flipped[-1] = ord("0") if flipped[-1] != ord("0") else ord("1")
    request.headers = [(n, bytes(flipped) if n == b"authorization" else v) for n, v in request.headers]
    unasked(api, wire(request))
    unasked(api, wire(sign(time.time()), b"[]"))


def test_replay_outside_the_window(api: RunningApi) -> None:
    for offset_s in (-301, 302):
        answer = unasked(api, wire(sign(time.time() + offset_s)))
        assert b"InvalidSignatureException" in answer
    # Within the window a replay is served, as on AWS: the same bytes are the same request.
    data = wire(sign(time.time() - 200))
    assert [exchange(api, data)[0] for _ in range(2)] == [200, 200]


def test_a_signature_is_good_for_one_target_only(api: RunningApi) -> None:
    data = wire(sign(time.time()))
    for other in (b"/functions/g/", b"/functions/f%2Fg/", b"/functions/f/../g/", b"/functions/./f/"):
        unasked(api, data.replace(b"/functions/f/", other))
    unasked(api, data.replace(b"POST", b"PUT", 1))
    unasked(api, data.replace(b"/invocations ", b"/invocations?Qualifier=1 "))


@pytest.mark.parametrize("name", [b"authorization", b"x-amz-date"])
def test_doubled_headers(api: RunningApi, name: bytes) -> None:
    request = sign(time.time())
    request.headers.append((name, request.header(name) or b""))
    answer = unasked(api, wire(request), (400, 403))
    assert b"IncompleteSignatureException" in answer or b"given twice" in answer


@pytest.mark.parametrize(
    "header",
    [b"x-amz-invocation-type: Event", b"X-Amz-Log-Type: Tail", b"x-amz-target: Logs_20140328.GetLogEvents"],
)
def test_added_amz_headers(api: RunningApi, header: bytes) -> None:
    data = wire(sign(time.time()))
    answer = unasked(api, data.replace(b"\r\n\r\n", b"\r\n" + header + b"\r\n\r\n", 1))
    assert b"not signed" in answer


def test_another_value_beside_a_signed_header(api: RunningApi) -> None:
    request = sign(time.time(), headers={"X-Amz-Invocation-Type": "DryRun"})
    request.headers.insert(0, (b"x-amz-invocation-type", b"Event"))
    unasked(api, wire(request))


def test_unsigned_payload_cannot_be_claimed_afterwards(api: RunningApi) -> None:
    request = sign(time.time())
    request.headers.append((b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD"))
    unasked(api, wire(request, b'{"another":1}'))


def test_smuggled_requests(api: RunningApi) -> None:
    """Framing that two parsers could read in two ways ends the connection; what hides behind is not served."""
    hidden = wire(sign(time.time()))
    request = wire(sign(time.time()))
    both = request.replace(b"content-length: 2", b"content-length: 2\r\ntransfer-encoding: chunked")
    unasked(api, both + hidden, (400, 403, 501))
    twice = request.replace(b"content-length: 2", b"content-length: 2\r\ncontent-length: 99")
    unasked(api, twice + hidden, (400,))
    folded = request.replace(b"content-length: 2", b"x-a: b\r\n c: d\r\ncontent-length: 2")
    unasked(api, folded + hidden, (400, 403))


def test_unknown_keys_send_no_body(api: RunningApi) -> None:
    """60 MB are announced and never sent: the refusal comes from the head alone."""
    request = sign(time.time(), path="/2015-03-31/functions", body=b"x" * 10)
    bad = [(n, v.replace(KEY.access_key_id.encode(), b"AKIANOBODY")) for n, v in request.headers]
    stale = sign(time.time() - 4000, path="/2015-03-31/functions", body=b"x" * 10)
    for headers in (bad, stale.headers):
        request.headers = headers
        started = time.monotonic()
        status, _ = exchange(api, wire(request, b"", declared=60_000_000))
        assert status == 403
        assert time.monotonic() - started < 2
    assert api.api._bodies.held_bytes == 0


@pytest.mark.parametrize(
    ("path", "size_bytes", "code"),
    [
        (PATH, 6_291_457, b"RequestEntityTooLargeException"),
        ("/2015-03-31/functions", 70_167_212, b"RequestEntityTooLargeException"),
        ("/2015-03-31/functions/f/policy", 6_291_457, b"RequestEntityTooLargeException"),
    ],
)
def test_oversize_is_refused_before_it_is_read(
    api: RunningApi, path: str, size_bytes: int, code: bytes
) -> None:
    status, answer = exchange(api, wire(sign(time.time(), path=path), b"", declared=size_bytes))
    assert status == 413
    assert code in answer


def test_a_large_body_that_does_not_fit_its_signature(api: RunningApi) -> None:
    """Read and hashed, but nothing is created of it."""
    body = (
        b'{"FunctionName":"evil","Role":"arn:aws:iam::000000000000:role/r","Code":{"ZipFile":"'
        + b"A" * 2_000_000
    )
    body += b'"}}'
    request = sign(time.time(), path="/2015-03-31/functions", body=body)
    assert exchange(api, wire(request, body.replace(b"evil", b"fine")))[0] == 403
    assert not CREATED
    assert exchange(api, wire(request, body))[0] == 201
    assert CREATED == ["evil"]


def test_unverified_bytes_are_capped(api: RunningApi) -> None:
    """Bodies of strangers who know a key id: together they get no more than the cap."""
    reader: Any = api.api._bodies
    cap_bytes, reader._cap_bytes = reader._cap_bytes, 3_000_000
    request = sign(time.time(), path="/2015-03-31/functions", body=b"x")
    waiting = [socket.create_connection(("127.0.0.1", api.port), timeout=5) for _ in range(3)]
    try:
        for connection in waiting:
            connection.sendall(wire(request, b"x" * 1_500_000, declared=5_000_000))
        waiting[0].settimeout(5)
        refused = 0
        for connection in waiting:
            connection.settimeout(1)
            try:
                refused += b"503" in connection.recv(65536)[:12]
            except TimeoutError:
                continue
        assert refused >= 1
        assert reader.held_bytes <= 3_000_000
    finally:
        for connection in waiting:
            connection.close()
        reader._cap_bytes = cap_bytes
    deadline = time.monotonic() + 5
    while reader.held_bytes and time.monotonic() < deadline:
        time.sleep(0.01)
    assert reader.held_bytes == 0


def test_nothing_is_started_before_the_signature_is_good(api: RunningApi) -> None:
    counted: list[int] = []
    done = threading.Event()

    def count() -> None:
        counted.append(len([t for t in asyncio.all_tasks(api.loop) if "_guarded" in repr(t)]))
        done.set()

    request = sign(time.time(), region="eu-west-9")
    bad = [(n, v.replace(b"Signature=", b"Signature=f")) for n, v in request.headers]
    request.headers = bad
    for _ in range(20):
        unasked(api, wire(request))
    api.loop.call_soon_threadsafe(count)
    assert done.wait(5)
    assert counted == [0]


def test_error_answers_cannot_be_split() -> None:
    headers, body = http_error_body(400, "bad\r\nx: y")
    assert all(b"\r" not in value for _, value in headers)
    assert b"\r" not in body


def test_names_in_messages_do_not_reach_headers(api: RunningApi) -> None:
    request = sign(time.time(), path="/2015-03-31/functions/a%0D%0Ax:%20y/invocations")
    answer = exchange(api, wire(request))[1]
    head = answer.partition(b"\r\n\r\n")[0]
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"x: y" not in head
