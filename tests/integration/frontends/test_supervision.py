"""The keeper of front-end processes by itself: real processes before a front end that only echoes. Needs no root."""

import asyncio
import http.client
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from stoker.app.frontends import FrontEnds
from stoker.app.frontends_listening import SharedAddress
from stoker.app.frontends_offer import Offer, make_front_ends
from stoker.app.unsigned import unsigned_pages
from stoker.core.clock import SystemClock
from stoker.core.configuration import Settings
from stoker.services.context import RequestContext
from stoker.services.credentials import Credential
from stoker.services.invocation import InvokeRequest, InvokeResponse
from stoker.services.lambda_types import GetAccountSettingsRequest, GetAccountSettingsResponse
from stoker.services.url_calls import UrlCall, UrlRoute
from stoker.store.key_ring import KeyRing

ROOT = Credential(
    access_key_id="AKIAROOT",
    secret="secret",
    account="000000000000",
    principal_arn="arn:aws:iam::000000000000:root",
)


class Echo:
    """A Frontend that tells who asked."""

    def __init__(self) -> None:
        self.seen: list[RequestContext] = []

    async def invoke(self, context: RequestContext, request: InvokeRequest) -> InvokeResponse:
        self.seen.append(context)
        return InvokeResponse(200, request.payload, executed_version="$LATEST")


class NoUrls:
    """A UrlFrontend that knows no URL."""

    async def route(self, url_id: str, region: str) -> UrlRoute | None:
        return None

    async def open_to_all(self, url_id: str, region: str, source_ip: str) -> bool:
        return False

    async def invoke(self, call: UrlCall) -> InvokeResponse:
        raise AssertionError(f"nobody has the URL {call}")


async def account_settings(
    _context: RequestContext, _request: GetAccountSettingsRequest
) -> GetAccountSettingsResponse:
    raise OSError("the disk is gone")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class World:
    """Settings and an offer, changeable before the next front end starts."""

    def __init__(self, folder: Path, count: int = 2) -> None:
        self.port = free_port()
        self.settings = Settings(listen=f"127.0.0.1:{self.port}", frontends=count)
        self.echo = Echo()
        self.keys = KeyRing([b"session key"], SystemClock(), [ROOT])
        self.offer = Offer(
            credentials=self.keys,
            frontend=self.echo,
            urls=NoUrls(),
            handlers={"lambda": {"GetAccountSettings": account_settings}},
            pages=unsigned_pages(lambda: "", lambda: b"numbers 1\n"),
            find_code=self._find_code,
            spool_directory=str(folder),
        )
        self.archive = folder / "archive.zip"

    async def _find_code(self, path: str, query: object) -> Path | None:
        return self.archive if path == "/_stoker/code/here" else None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FrontEnds]:
        front_ends = make_front_ends(self.offer, self.settings)
        try:
            await front_ends.start()
            yield front_ends
        finally:
            await front_ends.close(5.0)
            assert children() == []

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def signed(self, method: str, path: str, body: bytes, key: Credential) -> tuple[int, bytes]:
        request = AWSRequest(method, f"http://127.0.0.1:{self.port}{path}", data=body)
        credentials = Credentials(key.access_key_id, key.secret, key.session_token)
        SigV4Auth(credentials, "lambda", "us-east-1").add_auth(request)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, body, dict(request.headers.items()))
        answer = connection.getresponse()
        return answer.status, answer.read()

    def invoke(self, body: bytes, key: Credential = ROOT) -> tuple[int, bytes]:
        return self.signed("POST", "/2015-03-31/functions/f/invocations", body, key)


def children() -> list[int]:
    """This process' front ends, dead ones that were not reaped included."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in map(int, found) if b"frontends_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def wait_for(what: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def test_root_and_session_keys_are_good_in_every_front_end(tmp_path: Path) -> None:
    world = World(tmp_path)
    session = world.keys.issue_session(
        account="000000000000", role_arn="arn:aws:iam::000000000000:role/r", session_name="f"
    )
    forged = msgspec.structs.replace(session, secret="another")
    async with world.serving() as front_ends:
        for _ in range(6):
            assert await asyncio.to_thread(world.invoke, b'{"a":1}') == (200, b'{"a":1}')
            assert await asyncio.to_thread(world.invoke, b"2", session) == (200, b"2")
            status, body = await asyncio.to_thread(world.invoke, b"3", forged)
            assert (status, b"signature" in body) == (403, True)
        assert {each.principal_arn for each in world.echo.seen} == {ROOT.principal_arn, session.principal_arn}
        assert {each.source_ip.partition(":")[0] for each in world.echo.seen} == {"127.0.0.1"}
        assert len({each.request_id for each in world.echo.seen}) == 12
        statistics = front_ends.statistics()
        assert (statistics.processes, statistics.calls, statistics.in_flight) == (2, 12, 0)


async def test_pages_and_archives(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.archive.write_bytes(os.urandom(700_000))
    async with world.serving():
        assert await asyncio.to_thread(world.get, "/health") == (200, b"alive\n")
        assert await asyncio.to_thread(world.get, "/metrics") == (200, b"numbers 1\n")
        assert await asyncio.to_thread(world.get, "/_stoker/code/here") == (200, world.archive.read_bytes())
        assert (await asyncio.to_thread(world.get, "/_stoker/code/there"))[0] == 403


async def test_a_failure_behind_a_front_end_is_a_500_and_tells_the_caller_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, count=1)
    async with world.serving():
        path = "/2016-08-19/account-settings"
        status, body = await asyncio.to_thread(world.signed, "GET", path, b"", ROOT)
        assert (status, b"disk" in body) == (500, False)


async def test_a_front_end_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.settings = msgspec.structs.replace(
        world.settings, tls_certificate="/nowhere.pem", tls_key="/nowhere.pem"
    )
    with pytest.raises(Exception, match="tls_certificate"):
        async with world.serving():
            pass
    assert children() == []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", world.port))


async def test_an_address_that_is_taken(tmp_path: Path) -> None:
    world = World(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", world.port))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            async with world.serving():
                pass
    # Nor does one that would share it.
    first, second = SharedAddress("127.0.0.1", world.port), SharedAddress("127.0.0.1", world.port)
    first.reserve()
    with pytest.raises(OSError, match="in use"):
        second.reserve()
    first.close()


async def test_dead_front_ends_are_replaced_even_when_the_first_replacements_fail(tmp_path: Path) -> None:
    world = World(tmp_path)
    address = SharedAddress("127.0.0.1", world.port)
    made = make_front_ends(world.offer, world.settings)
    good = made._orders
    broken = 0

    def orders() -> object:
        nonlocal broken
        if broken:
            broken -= 1
            return msgspec.structs.replace(good(), log_level="nonsense")
        return good()

    front_ends = FrontEnds(2, address, orders, made._operations)  # type: ignore[arg-type]
    await front_ends.start()
    try:
        before = children()
        broken = 2
        os.kill(before[0], signal.SIGKILL)
        await wait_for(lambda: front_ends.statistics().restarts == 1)
        after = children()
        assert broken == 0
        assert before[1] in after
        assert len(after) == 2
        # Told to end by somebody else, it ends well and is replaced too.
        os.kill(before[1], signal.SIGTERM)
        await wait_for(lambda: front_ends.statistics().restarts == 2)
        assert await asyncio.to_thread(world.invoke, b"1") == (200, b"1")
    finally:
        await front_ends.close(5.0)
    assert children() == []


async def test_a_front_end_that_hangs_is_killed_when_the_service_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoker.app.frontends.END_AFTER_S", 0.5)
    world = World(tmp_path)
    front_ends = make_front_ends(world.offer, world.settings)
    await front_ends.start()
    stopped = children()[0]
    os.kill(stopped, signal.SIGSTOP)
    begun_s = time.monotonic()
    await front_ends.close(0.5)
    assert children() == []
    assert time.monotonic() - begun_s < 9
