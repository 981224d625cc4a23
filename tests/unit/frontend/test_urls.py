"""Function URLs on the data plane: what is remembered of ids, for how long, and who is let through."""

import asyncio

import pytest

from stoker.core.errors import ServiceError
from stoker.frontend import urls
from stoker.frontend.urls import LOOKUPS_MAX, FunctionUrlFrontend, UrlDirectory
from stoker.services.context import RequestContext
from stoker.services.functions import FunctionKey
from stoker.services.invocation import InvokeRequest, InvokeResponse
from stoker.services.records import ANY_REVISION, Put, Record, Remove
from stoker.services.url_calls import UrlCall
from stoker.services.urls import FORBIDDEN, FunctionUrl, new_url_id, url_key, url_shelf
from stoker.store.coordination import LocalInvalidation
from stoker.store.memory import MemoryFunctionMetadata
from stoker.store.memory_records import MemoryRecords

ACCOUNT, REGION = "123456789012", "eu-west-1"
KEY = FunctionKey(ACCOUNT, REGION, "f")
CALLER = RequestContext("r", ACCOUNT, REGION, "AKIA", f"arn:aws:iam::{ACCOUNT}:user/u", "", "")


class CountedRecords(MemoryRecords):
    """Counts reads, and holds them back while told to."""

    def __init__(self) -> None:
        super().__init__(MemoryFunctionMetadata())
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def referring(self, *arguments: str, **options: object) -> list[Record]:
        self.reads += 1
        found = await super().referring(*arguments, **options)  # type: ignore[arg-type]
        await self.gate.wait()
        return found


class Authoriser:
    """Lets in whom it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.allows = True
        self.asked: list[tuple[RequestContext | None, str | None, str]] = []

    async def allows_url(
        self,
        context: RequestContext | None,
        function: FunctionKey,
        qualifier: str | None,
        *,
        auth_type: str,
        source_ip: str,
    ) -> bool:
        self.asked.append((context, qualifier, auth_type))
        return self.allows


class Invoked:
    """The door for invocations: one answer, or the error it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[InvokeRequest, FunctionKey]] = []
        self.error: ServiceError | None = None

    async def invoke_allowed(
        self, context: RequestContext, request: InvokeRequest, key: FunctionKey
    ) -> InvokeResponse:
        self.asked.append((request, key))
        if self.error is not None:
            raise self.error
        return InvokeResponse(200, request.payload)


class World:
    def __init__(self) -> None:
        self.records = CountedRecords()
        self.invalidation = LocalInvalidation()
        self.directory = UrlDirectory(self.records, self.invalidation)
        self.authoriser, self.invoked = Authoriser(), Invoked()
        self.frontend = FunctionUrlFrontend(self.directory, self.authoriser, self.invoked)  # type: ignore[arg-type]

    async def write(self, url_id: str, auth_type: str = "NONE", qualifier: str | None = None) -> None:
        shelf = url_shelf(self.records)
        url = FunctionUrl(url_id=url_id, auth_type=auth_type, created_at_s=0, modified_at_s=0)
        record = shelf.record(url_key(KEY, qualifier), url, "1", lookups=(url_id,))
        await shelf.write(Put(record, ANY_REVISION))
        self.invalidation.publish(KEY)

    async def call(self, url_id: str, caller: RequestContext | None = None) -> InvokeResponse:
        return await self.frontend.invoke(UrlCall("r", url_id, REGION, b"{}", "1.2.3.4", None, caller))

    async def refusal(self, url_id: str, caller: RequestContext | None = None) -> tuple[str, str]:
        with pytest.raises(ServiceError) as refused:
            await self.call(url_id, caller)
        return refused.value.code, refused.value.message


DENIED = ("AccessDeniedException", FORBIDDEN)
ID = new_url_id(ACCOUNT, "seed")


async def test_a_url_is_read_once_until_its_function_changes() -> None:
    world = World()
    await world.write(ID)
    for _ in range(3):
        route = await world.frontend.route(ID, REGION)
        assert route is not None
        assert (route.account, route.auth_type) == (ACCOUNT, "NONE")
    assert world.records.reads == 1
    await world.write(ID, "AWS_IAM")
    route = await world.frontend.route(ID, REGION)
    assert route is not None
    assert route.auth_type == "AWS_IAM"


async def test_what_changes_while_it_is_read_is_not_remembered() -> None:
    world = World()
    await world.write(ID)
    world.records.gate.clear()
    reading = asyncio.create_task(world.frontend.route(ID, REGION))
    await asyncio.sleep(0)
    await world.write(ID, "AWS_IAM")
    world.records.gate.set()
    await reading
    route = await world.frontend.route(ID, REGION)
    assert route is not None
    assert route.auth_type == "AWS_IAM"


async def test_unknown_ids_cost_one_read_or_none() -> None:
    world = World()
    for _ in range(3):
        assert await world.frontend.route(ID, REGION) is None
    assert world.records.reads == 1
    for nonsense in ("", "x" * 32, "A" * 32, "../../../../etc/passwd", "0" * 32):
        await world.frontend.route(nonsense, REGION)
    assert world.records.reads == 1, "none of these carries an account"


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "UNKNOWN_KEPT", 3)
    monkeypatch.setattr(urls, "URLS_KEPT", 2)
    world = World()
    for number in range(5):
        await world.frontend.route(new_url_id(ACCOUNT, f"unknown{number}"), REGION)
        await world.write(new_url_id(ACCOUNT, f"known{number}"), qualifier=f"q{number}")
    for number in range(5):
        assert await world.frontend.route(new_url_id(ACCOUNT, f"known{number}"), REGION)
    directory = world.directory
    assert (len(directory._unknown), len(directory._known)) == (3, 2)
    assert sum(map(len, directory._ids.values())) == 2


async def test_strangers_cannot_make_the_store_busy() -> None:
    world = World()
    world.records.gate.clear()
    many = [
        asyncio.create_task(world.frontend.route(new_url_id(ACCOUNT, str(number)), REGION))
        for number in range(LOOKUPS_MAX + 5)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    world.records.gate.set()
    results = await asyncio.gather(*many, return_exceptions=True)
    refused = [each for each in results if isinstance(each, ServiceError)]
    assert [each.code for each in refused] == ["ServiceUnavailableException"] * 5
    assert world.records.reads == LOOKUPS_MAX


async def test_the_qualifier_of_the_url_is_invoked() -> None:
    world = World()
    await world.write(ID, qualifier="live")
    assert (await world.call(ID, CALLER)).payload == b"{}"
    request, key = world.invoked.asked[0]
    assert (request.function.name, request.function.qualifier, key) == ("f", "live", KEY)
    assert world.authoriser.asked == [(None, "live", "NONE")], "who signed does not matter to NONE"


async def test_who_is_refused() -> None:
    world = World()
    assert await world.refusal(ID) == DENIED
    assert not await world.frontend.open_to_all(ID, REGION, "1.2.3.4")
    other = new_url_id(ACCOUNT, "other")
    await world.write(other, "AWS_IAM")
    assert await world.refusal(other) == DENIED
    assert not await world.frontend.open_to_all(other, REGION, "1.2.3.4")
    assert world.authoriser.asked == [], "nobody without a signature gets as far as a policy"
    assert (await world.call(other, CALLER)).status == 200
    world.authoriser.allows = False
    assert await world.refusal(other, CALLER) == DENIED


async def test_an_alias_that_is_gone_looks_like_a_refusal() -> None:
    world = World()
    await world.write(ID, qualifier="gone")
    world.invoked.error = ServiceError("ResourceNotFoundException", "Function not found: x:gone")
    assert await world.refusal(ID) == DENIED
    world.invoked.error = ServiceError("TooManyRequestsException", "Rate Exceeded.")
    assert await world.refusal(ID) == ("TooManyRequestsException", "Rate Exceeded.")


async def test_a_deleted_url_is_gone_at_once() -> None:
    world = World()
    await world.write(ID)
    assert await world.frontend.route(ID, REGION) is not None
    await world.records.write([Remove(url_key(KEY, None))])
    world.invalidation.publish(KEY)
    assert await world.frontend.route(ID, REGION) is None
