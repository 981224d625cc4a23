"""CloudWatch Logs operations over the real store."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stoker.core.clock import ManualClock
from stoker.core.errors import ServiceError
from stoker.services import logs_types as types
from stoker.services.context import RequestContext
from stoker.worker import logs_operations
from stoker.worker.logs_operations import LogsOperations
from stoker.worker.logstore import FileLogStore

CONTEXT = RequestContext("id", "000000000000", "us-east-1", "AK", "arn", "127.0.0.1", "http://127.0.0.1:9797")
GROUP = "/aws/lambda/echo"
NOW_MS = 1_700_000_000_000


class Bench:
    def __init__(self, store: FileLogStore) -> None:
        self.store = store
        self.logs = LogsOperations(store, ManualClock())

    async def call(self, request: object) -> object:
        name = type(request).__name__.removesuffix("Request")
        return await self.logs.operations()[name](CONTEXT, request)

    async def fails(self, request: object, code: str, message: str) -> None:
        with pytest.raises(ServiceError) as caught:
            await self.call(request)
        assert (caught.value.code, message in caught.value.message) == (code, True), caught.value.message

    def fill(self, stream: str, messages: list[str], start_ms: int = NOW_MS, group: str = GROUP) -> None:
        writer = self.store.writer(CONTEXT.account, CONTEXT.region, group, stream)
        for at, message in enumerate(messages):
            writer.append(start_ms + at, message)
        writer.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = await FileLogStore.open(tmp_path, ManualClock())
    yield Bench(store)
    await store.close()


def test_every_modelled_operation_has_a_handler() -> None:
    assert set(LogsOperations(None, ManualClock()).operations()) == set(types.INPUT)  # pyright: ignore


NO_GROUP = ("ResourceNotFoundException", "The specified log group does not exist.")


@pytest.mark.parametrize(
    "request_",
    [
        types.DescribeLogStreamsRequest(log_group_name="no"),
        types.GetLogEventsRequest(log_group_name="no", log_stream_name="s"),
        types.FilterLogEventsRequest(log_group_name="no"),
        types.DeleteLogGroupRequest(log_group_name="no"),
        types.DeleteLogStreamRequest(log_group_name="no", log_stream_name="s"),
        types.CreateLogStreamRequest(log_group_name="no", log_stream_name="s"),
        types.PutRetentionPolicyRequest(log_group_name="no", retention_in_days=1),
        types.DeleteRetentionPolicyRequest(log_group_name="no"),
        types.PutLogEventsRequest(log_group_name="no", log_stream_name="s", log_events=()),
    ],
    ids=lambda request: type(request).__name__,
)
async def test_a_group_that_does_not_exist(bench: Bench, request_: object) -> None:
    await bench.fails(request_, *NO_GROUP)


async def test_a_stream_that_does_not_exist(bench: Bench) -> None:
    bench.fill("s", ["x"])
    for request in (
        types.GetLogEventsRequest(log_group_name=GROUP, log_stream_name="no"),
        types.FilterLogEventsRequest(log_group_name=GROUP, log_stream_names=("no",)),
        types.DeleteLogStreamRequest(log_group_name=GROUP, log_stream_name="no"),
        types.PutLogEventsRequest(log_group_name=GROUP, log_stream_name="no", log_events=()),
    ):
        await bench.fails(request, "ResourceNotFoundException", "The specified log stream does not exist.")


async def test_groups_are_listed_in_pages(bench: Bench) -> None:
    for number in range(7):
        bench.fill("s", ["x"], group=f"/aws/lambda/f{number}")
    bench.fill("s", ["x"], group="/other")
    names, token = [], None
    while True:
        answer = await bench.call(
            types.DescribeLogGroupsRequest(log_group_name_prefix="/aws/lambda/", limit=3, next_token=token)
        )
        names += [group.log_group_name for group in answer.log_groups]
        token = answer.next_token
        if token is None:
            break
    assert names == [f"/aws/lambda/f{number}" for number in range(7)]
    answer = await bench.call(types.DescribeLogGroupsRequest(log_group_name_pattern="f3"))
    (group,) = answer.log_groups
    assert group.arn == "arn:aws:logs:us-east-1:000000000000:log-group:/aws/lambda/f3:*"
    assert group.creation_time == NOW_MS
    assert group.stored_bytes > 0
    assert group.retention_in_days is None
    await bench.fails(
        types.DescribeLogGroupsRequest(next_token="%%"), "InvalidParameterException", "nextToken"
    )


async def test_streams_are_listed_by_name_and_by_last_event(bench: Bench) -> None:
    for at, name in enumerate(["b", "c", "a"]):
        bench.fill(name, ["x"], NOW_MS + at * 1000)

    async def names(**more: object) -> list[str]:
        seen, token = [], None
        while True:
            request = types.DescribeLogStreamsRequest(log_group_name=GROUP, limit=2, next_token=token, **more)
            answer = await bench.call(request)
            seen += [stream.log_stream_name for stream in answer.log_streams]
            token = answer.next_token
            if token is None:
                return seen

    assert await names() == ["a", "b", "c"]
    assert await names(descending=True) == ["c", "b", "a"]
    assert await names(order_by="LastEventTime", descending=True) == ["a", "c", "b"]
    assert await names(log_stream_name_prefix="b") == ["b"]
    await bench.fails(
        types.DescribeLogStreamsRequest(
            log_group_name=GROUP, order_by="LastEventTime", log_stream_name_prefix="b"
        ),
        "InvalidParameterException",
        "Cannot order by LastEventTime with a logStreamNamePrefix.",
    )
    arn = f"arn:aws:logs:us-east-1:000000000000:log-group:{GROUP}:*"
    answer = await bench.call(types.DescribeLogStreamsRequest(log_group_identifier=arn))
    first = answer.log_streams[0]
    assert (first.first_event_timestamp, first.last_event_timestamp) == (NOW_MS + 2000, NOW_MS + 2000)


async def test_get_log_events_pages_to_a_token_that_repeats(bench: Bench) -> None:
    bench.fill("s", [f"m{at}" for at in range(5)])
    token, seen = None, []
    for _ in range(10):
        answer = await bench.call(
            types.GetLogEventsRequest(
                log_group_name=GROUP, log_stream_name="s", start_from_head=True, limit=2, next_token=token
            )
        )
        seen += [event.message for event in answer.events]
        if answer.next_forward_token == token:
            break
        token = answer.next_forward_token
    assert seen == [f"m{at}" for at in range(5)]
    newest = await bench.call(types.GetLogEventsRequest(log_group_name=GROUP, log_stream_name="s", limit=2))
    assert [event.message for event in newest.events] == ["m3", "m4"]
    # The end is not included.
    some = await bench.call(
        types.GetLogEventsRequest(
            log_group_name=GROUP, log_stream_name="s", start_time=NOW_MS + 1, end_time=NOW_MS + 3
        )
    )
    assert [event.message for event in some.events] == ["m1", "m2"]


async def test_filtering_over_streams_with_pages(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_operations, "FILTER_PAGE_EVENTS", 7)
    bench.fill("a", [f"{'ERROR' if at % 3 == 0 else 'INFO'} a{at}" for at in range(30)])
    bench.fill("b", [f"{'ERROR' if at % 5 == 0 else 'INFO'} b{at}" for at in range(30)])

    async def search(**more: object) -> list[str]:
        seen, token = [], None
        for _ in range(50):
            request = types.FilterLogEventsRequest(log_group_name=GROUP, next_token=token, **more)
            answer = await bench.call(request)
            seen += [event.message for event in answer.events]
            token = answer.next_token
            if token is None:
                return seen
        raise AssertionError("never ends")

    expected = [
        f"ERROR {name}{at}" for at in range(30) for name, every in (("a", 3), ("b", 5)) if at % every == 0
    ]
    found = await search(filter_pattern="ERROR")
    assert sorted(found) == sorted(expected)
    assert [int(text[7:]) for text in found] == sorted(int(text[7:]) for text in found)
    assert await search(filter_pattern="ERROR", limit=4) == found
    assert await search(filter_pattern="ERROR", log_stream_names=("b",)) == [
        f"ERROR b{at}" for at in range(0, 30, 5)
    ]
    assert len(await search(log_stream_name_prefix="a")) == 30
    # Unlike elsewhere, the end is included.
    assert await search(start_time=NOW_MS + 28, end_time=NOW_MS + 28, log_stream_names=("a",)) == ["INFO a28"]
    await bench.fails(
        types.FilterLogEventsRequest(log_group_name=GROUP, filter_pattern="[a, b]"),
        "InvalidParameterException",
        "not supported",
    )
    await bench.fails(
        types.FilterLogEventsRequest(log_group_name=GROUP, next_token="made up"),
        "InvalidParameterException",
        "The specified nextToken is invalid.",
    )


async def test_a_search_without_hits_says_where_to_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_operations, "FILTER_PAGE_EVENTS", 2)
    bench.fill("a", ["INFO"] * 100 + ["ERROR"])
    first = await bench.call(types.FilterLogEventsRequest(log_group_name=GROUP, filter_pattern="ERROR"))
    assert (first.events, first.next_token is None) == ((), False)


async def test_following_sees_what_came_since(bench: Bench) -> None:
    bench.fill("a", ["one"])
    answer = await bench.call(types.FilterLogEventsRequest(log_group_name=GROUP, start_time=NOW_MS))
    last = answer.events[-1]
    bench.fill("b", ["two"], NOW_MS + 5)
    again = await bench.call(types.FilterLogEventsRequest(log_group_name=GROUP, start_time=last.timestamp))
    assert [event.message for event in again.events] == ["one", "two"]
    assert again.events[0].event_id == last.event_id


async def test_put_log_events(bench: Bench) -> None:
    await bench.call(types.CreateLogGroupRequest(log_group_name=GROUP))
    await bench.fails(
        types.CreateLogGroupRequest(log_group_name=GROUP),
        "ResourceAlreadyExistsException",
        "The specified log group already exists",
    )
    await bench.call(types.CreateLogStreamRequest(log_group_name=GROUP, log_stream_name="s"))
    await bench.fails(
        types.CreateLogStreamRequest(log_group_name=GROUP, log_stream_name="s"),
        "ResourceAlreadyExistsException",
        "The specified log stream already exists",
    )

    def put(*times: int) -> types.PutLogEventsRequest:
        events = tuple(types.InputLogEvent(timestamp=time, message=str(time)) for time in times)
        return types.PutLogEventsRequest(log_group_name=GROUP, log_stream_name="s", log_events=events)

    await bench.fails(put(NOW_MS, NOW_MS - 1), "InvalidParameterException", "chronological order")
    day_ms = 86_400_000
    answer = await bench.call(put(NOW_MS - 15 * day_ms, NOW_MS - 1, NOW_MS, NOW_MS + day_ms))
    assert answer.rejected_log_events_info == types.RejectedLogEventsInfo(
        too_old_log_event_end_index=1, too_new_log_event_start_index=3
    )
    stored = await bench.call(types.FilterLogEventsRequest(log_group_name=GROUP))
    assert [event.message for event in stored.events] == [str(NOW_MS - 1), str(NOW_MS)]


async def test_retention(bench: Bench) -> None:
    bench.fill("s", ["x"])
    await bench.call(types.PutRetentionPolicyRequest(log_group_name=GROUP, retention_in_days=14))
    (group,) = (await bench.call(types.DescribeLogGroupsRequest())).log_groups
    assert group.retention_in_days == 14
    await bench.call(types.DeleteRetentionPolicyRequest(log_group_name=GROUP))
    (group,) = (await bench.call(types.DescribeLogGroupsRequest())).log_groups
    assert group.retention_in_days is None
    await bench.fails(
        types.PutRetentionPolicyRequest(log_group_name=GROUP, retention_in_days=2),
        "InvalidParameterException",
        "retentionInDays",
    )


async def test_another_account_sees_nothing(bench: Bench) -> None:
    import msgspec

    bench.fill("s", ["x"])
    stranger = msgspec.structs.replace(CONTEXT, account="111111111111")
    answer = await bench.logs.describe_log_groups(stranger, types.DescribeLogGroupsRequest())
    assert answer.log_groups == ()
    with pytest.raises(ServiceError, match="log group does not exist"):
        await bench.logs.filter_log_events(stranger, types.FilterLogEventsRequest(log_group_name=GROUP))
