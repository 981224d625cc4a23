"""The handler as a whole, on whatever a peer may send: it answers once and never with a 500."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.api.dispatch import Api
from stoker.core.clock import ManualClock
from stoker.http.messages import Headers, Request
from stoker.services.context import RequestContext
from stoker.services.invocation import InvokeRequest, InvokeResponse
from tests.unit.api.signing import KEY, KnownKeys, sign

NOW_S = 1_790_000_000.0


class Recorder:
    """A reply that keeps what was sent."""

    closed = False

    def __init__(self) -> None:
        self.answers: list[tuple[int, Headers, bytes]] = []
        self.callbacks: list[Callable[[], None]] = []

    @property
    def started(self) -> bool:
        return bool(self.answers)

    def send(self, status: int, headers: Headers, body: bytes = b"") -> None:
        self.answers.append((status, headers, body))

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)


class Echo:
    async def invoke(self, context: RequestContext, request: InvokeRequest) -> InvokeResponse:
        return InvokeResponse(200, request.payload)


def make_api() -> Api:
    return Api(
        credentials=KnownKeys(KEY), clock=ManualClock(NOW_S), frontend=Echo(), handlers={}, unsigned={}
    )


API = make_api()


def answer(request: Request) -> tuple[int, Headers, bytes]:
    async def serve() -> tuple[int, Headers, bytes]:
        reply = Recorder()
        API(request, reply)  # type: ignore[arg-type]
        for _ in range(5):
            if not reply.answers:
                await asyncio.sleep(0)
        assert len(reply.answers) == 1
        return reply.answers[0]

    return asyncio.run(serve())


NAME = st.sampled_from(
    [
        b"authorization",
        b"host",
        b"x-amz-date",
        b"date",
        b"x-amz-security-token",
        b"x-amz-content-sha256",
        b"x-amz-target",
        b"x-amz-invocation-type",
        b"content-type",
    ]
)
VALUE = st.binary(max_size=30) | st.sampled_from(
    [
        b"AWS4-HMAC-SHA256 ",
        b"AWS4-HMAC-SHA256 Credential=a/20260921/us-east-1/lambda/aws4_request, "
        b"SignedHeaders=host, Signature=" + b"0" * 64,
        b"UNSIGNED-PAYLOAD",
        b"20260921T141320Z",
    ]
)
TARGET = st.binary(max_size=40).map(lambda b: b"/" + b) | st.sampled_from(
    [
        b"/",
        b"*",
        b"",
        b"http://h/2015-03-31/functions?X-Amz-Signature=1",
        b"/?X-Amz-Algorithm=AWS4-HMAC-SHA256",
        b"/x?X-Amz-Credential=a/b/c/d/e&X-Amz-Signature=0&X-Amz-Date=1&X-Amz-Expires=1&X-Amz-SignedHeaders=host"
        b"&X-Amz-Algorithm=AWS4-HMAC-SHA256",
    ]
)


@given(
    method=st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"BREW"]),
    target=TARGET,
    headers=st.lists(st.tuples(NAME, VALUE), max_size=6),
    body=st.binary(max_size=10),
)
def test_strangers(method: bytes, target: bytes, headers: Headers, body: bytes) -> None:
    status, _, _ = answer(Request(method, target, headers, "127.0.0.1", False, body))
    assert status in (400, 403)


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]),
    path=st.lists(
        st.sampled_from(
            [
                "2015-03-31",
                "2014-11-13",
                "functions",
                "invocations",
                "invoke-async",
                "f",
                "%FF",
                "a%2Fb",
                "f:1",
                "..",
                "",
                "%00",
            ]
        ),
        max_size=5,
    ).map(lambda parts: "/" + "/".join(parts)),
    query=st.sampled_from(
        ["", "?Qualifier=1", "?Qualifier=%FF", "?Qualifier=a&Qualifier=b", "?Qualifier", "?=&&"]
    ),
    headers=st.dictionaries(
        st.sampled_from(
            [
                "X-Amz-Invocation-Type",
                "X-Amz-Log-Type",
                "X-Amz-Client-Context",
                "X-Amz-Target",
                "X-Amzn-Trace-Id",
            ]
        ),
        st.sampled_from(["Event", "Tail", "x", "e30=", "bnVsbA==", "Logs_20140328.GetLogEvents", "."]),
        max_size=3,
    ),
    body=st.sampled_from([b"", b"{}", b"[", b"\xff", b'"\xc3\xa4"']),
)
def test_signed_junk(method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> None:
    service = "logs" if path == "/" and "X-Amz-Target" in headers else "lambda"
    request = sign(NOW_S, method=method, path=path + query, headers=headers, body=body, service=service)
    status, sent, _ = answer(request)
    assert status in (200, 400, 403, 501)
    assert any(name == b"x-amzn-requestid" for name, _ in sent)


def test_starting_with_handlers_of_unknown_operations_fails() -> None:
    with pytest.raises(ValueError, match="lambda has no operations MakeCoffee"):
        Api(
            credentials=KnownKeys(KEY),
            clock=ManualClock(NOW_S),
            frontend=Echo(),
            handlers={"lambda": {"MakeCoffee": Echo().invoke}},
            unsigned={},
        )
