"""What strangers may try at the door of function URLs, over a real socket: nothing of the API is reached."""

import socket
from collections.abc import Iterator

import pytest

from stoker.api.urls import UrlCalls
from stoker.core.errors import ServiceError
from stoker.services import lambda_types as lt
from stoker.services.context import RequestContext
from stoker.services.invocation import InvokeResponse
from stoker.services.url_calls import UrlCall, UrlRoute
from tests.integration.api.serving import RunningApi, running_api

ID = "abcdefghijklmnopqrstuvwxyz234567"
CLOSED = "cccccccccccccccccccccccccccccccc"
IAM = "iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii"
CREATED: list[str] = []


class Urls:
    """One open URL, one that nobody may call, one for signers."""

    def __init__(self) -> None:
        self.routed: list[str] = []
        self.invoked: list[UrlCall] = []

    async def route(self, url_id: str, region: str) -> UrlRoute | None:
        self.routed.append(url_id)
        kinds = {ID: "NONE", CLOSED: "NONE", IAM: "AWS_IAM"}
        return UrlRoute("000000000000", kinds[url_id]) if url_id in kinds else None

    async def open_to_all(self, url_id: str, region: str, source_ip: str) -> bool:
        return url_id == ID

    async def invoke(self, call: UrlCall) -> InvokeResponse:
        self.invoked.append(call)
        if call.url_id == CLOSED:
            raise ServiceError("AccessDeniedException", "Forbidden.")
        return InvokeResponse(200, call.payload)


URLS = Urls()


async def create_function(
    context: RequestContext, request: lt.CreateFunctionRequest
) -> lt.FunctionConfiguration:
    CREATED.append(request.function_name)
    return lt.FunctionConfiguration(function_name=request.function_name)


@pytest.fixture(scope="module")
def api() -> Iterator[RunningApi]:
    calls = UrlCalls(frontend=URLS, domain="localhost", region="us-east-1")
    with running_api({"lambda": {"CreateFunction": create_function}}, urls=calls) as running:
        yield running


def host(url_id: str = ID) -> str:
    return f"{url_id}.lambda-url.us-east-1.localhost"


def exchange(api: RunningApi, head: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and all that came back until the server closed or was silent."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=3) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body)
        connection.settimeout(0.5)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except TimeoutError:
            pass
    return int(answer.split(b" ", 2)[1]), answer


@pytest.mark.parametrize(
    "path",
    [
        "/2015-03-31/functions",
        "/2015-03-31/functions/f/invocations",
        "/_stoker/code/x",
        "/health",
        "/metrics",
        "//2015-03-31/functions",
        "/../2015-03-31/functions",
    ],
)
def test_a_urls_host_never_reaches_the_api(api: RunningApi, path: str) -> None:
    before = len(URLS.invoked)
    status, _ = exchange(api, f"POST {path} HTTP/1.1\nHost: {host()}\nContent-Length: 2", b"{}")
    assert (status, len(URLS.invoked) - before, CREATED) == (200, 1, [])
    assert api.frontend.asked == []


@pytest.mark.parametrize(
    "named",
    [
        f"{ID}.lambda-url.us-east-1.localhost.evil.test",
        f"evil.test/{ID}.lambda-url.us-east-1.localhost",
        f"{ID}.lambda-url.us-east-1.evil.test",
        f"127.0.0.1 {ID}.lambda-url.us-east-1.localhost",
    ],
)
def test_hosts_that_only_look_like_a_urls(api: RunningApi, named: str) -> None:
    before = len(URLS.invoked)
    status, _ = exchange(api, f"GET /2015-03-31/functions HTTP/1.1\nHost: {named}")
    assert status in (400, 403)
    assert len(URLS.invoked) == before


def test_two_hosts_are_no_way_around(api: RunningApi) -> None:
    before = len(URLS.invoked)
    for first, second in ((host(), "127.0.0.1"), ("127.0.0.1", host())):
        status, _ = exchange(
            api, f"POST /2015-03-31/functions HTTP/1.1\nHost: {first}\nHost: {second}\nContent-Length: 0"
        )
        assert status in (200, 400, 403)
    assert CREATED == []
    assert len(URLS.invoked) - before <= 1


def test_an_absolute_target_does_not_change_whose_host_it_is(api: RunningApi) -> None:
    before = len(URLS.invoked)
    status, _ = exchange(api, f"GET http://{host()}/2015-03-31/functions HTTP/1.1\nHost: 127.0.0.1")
    assert status in (400, 403)
    assert len(URLS.invoked) == before


def test_the_path_form_stays_below_its_prefix(api: RunningApi) -> None:
    for rest in ("/../../2015-03-31/functions", "/%2e%2e/%2e%2e/2015-03-31/functions", "/\\..\\x"):
        before = len(URLS.invoked)
        status, _ = exchange(api, f"POST /_stoker/url/{ID}{rest} HTTP/1.1\nHost: h\nContent-Length: 0")
        assert (status, len(URLS.invoked) - before) in ((200, 1), (400, 0))
    for target in ("/_stoker/url/../../2015-03-31/functions", "/_stoker/url/%2e%2e/", "/_stoker/url/"):
        status, answer = exchange(api, f"GET {target} HTTP/1.1\nHost: h")
        assert (status, answer.endswith(b'{"Message":null}')) == (403, True)
    assert CREATED == []
    assert api.frontend.asked == []


def test_unknown_urls_are_told_nothing(api: RunningApi) -> None:
    bodies = {
        exchange(api, f"GET / HTTP/1.1\nHost: {host(url_id)}")[1].rpartition(b"\r\n\r\n")[2]
        for url_id in ("d" * 32, "short", "", "UPPER" * 6, "..%2f..")
    }
    assert bodies == {b'{"Message":null}'}


def test_a_large_body_is_not_read_of_whom_the_policy_refuses(api: RunningApi) -> None:
    for url_id in (CLOSED, IAM, "d" * 32):
        before = len(URLS.invoked)
        status, _ = exchange(
            api, f"POST / HTTP/1.1\nHost: {host(url_id)}\nContent-Length: 5000000", b"x" * 65536
        )
        assert (status, len(URLS.invoked) - before) == (403, 0)


def test_a_declared_body_above_the_limit_is_refused_unread(api: RunningApi) -> None:
    status, _ = exchange(api, f"POST / HTTP/1.1\nHost: {host()}\nContent-Length: 7000000")
    assert status == 413


@pytest.mark.parametrize(
    "extra",
    [
        "X-A: " + "a" * 40_000,
        "\n".join(f"X-{number}: a" for number in range(200)),
        "Cookie: " + ";" * 20_000,
    ],
)
def test_huge_headers_end_at_the_door(api: RunningApi, extra: str) -> None:
    status, _ = exchange(api, f"GET / HTTP/1.1\nHost: {host()}\n{extra}")
    assert status in (200, 400, 431)


def test_a_huge_path_and_query_end_at_the_door(api: RunningApi) -> None:
    status, _ = exchange(api, f"GET /{'a' * 20_000} HTTP/1.1\nHost: {host()}")
    assert status in (400, 414)
    many = "&".join("a=" for _ in range(7000))
    assert exchange(api, f"GET /?{many} HTTP/1.1\nHost: {host()}")[0] in (200, 414)


def test_a_signature_for_a_url_is_none_for_the_api(api: RunningApi) -> None:
    """The host is signed: what was signed for a URL's host opens nothing on another one."""
    head = f"GET /2015-03-31/functions HTTP/1.1\nHost: 127.0.0.1\nX-Forwarded-Host: {host()}"
    assert exchange(api, head)[0] == 403
    assert api.frontend.asked == []
