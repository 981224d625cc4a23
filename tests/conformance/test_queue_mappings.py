"""Event source mappings over a real SQS server: batches, partial failures, filters, changes, kills, FIFO."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conformance.elsewhere import Elsewhere, waited
from tests.running import RunningStoker

SOURCE = """
import json
def lambda_handler(event, context):
    records = event['Records']
    print('batch', json.dumps([record['body'] for record in records]))
    failed = []
    for record in records:
        if 'poison' in record['body']:
            failed.append({'itemIdentifier': record['messageId']})
        if 'explode' in record['body']:
            raise Exception('intentional')
        if 'show' in record['body']:
            print('record', json.dumps(record))
    return {'batchItemFailures': failed}
"""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    running = Elsewhere()
    yield running
    running.server.stop()


@pytest.fixture(scope="module")
def polling(elsewhere: Elsewhere) -> Iterator[RunningStoker]:
    running = RunningStoker()
    running.environment = elsewhere.environment()
    try:
        running.start()
        yield running
    finally:
        running.remove()


def printed(stoker: RunningStoker, name: str, beginning: str) -> list[Any]:
    """The JSON behind ``beginning`` in a function's lines."""
    service = stoker.client("logs")
    try:
        pages = list(service.get_paginator("filter_log_events").paginate(logGroupName=f"/aws/lambda/{name}"))
    except service.exceptions.ResourceNotFoundException:
        return []
    lines = [event["message"] for page in pages for event in page["events"]]
    return [json.loads(line.removeprefix(beginning)) for line in lines if line.startswith(f"{beginning} ")]


def bodies(stoker: RunningStoker, name: str) -> list[str]:
    return [body for batch in printed(stoker, name, "batch") for body in batch]


def mapped(stoker: RunningStoker, name: str, arn: str, **options: Any) -> str:
    """A function and its mapping, enabled; the mapping's UUID."""
    stoker.create_python(name, SOURCE, Timeout=10)
    service = stoker.client("lambda")
    shown = service.create_event_source_mapping(FunctionName=name, EventSourceArn=arn, **options)
    settled(service, shown["UUID"], "Enabled")
    return str(shown["UUID"])


def settled(service: Any, uuid: str, state: str) -> None:
    assert waited(lambda: service.get_event_source_mapping(UUID=uuid)["State"] == state)


def put(elsewhere: Elsewhere, url: str, *texts: str, **options: Any) -> None:
    for text in texts:
        elsewhere.client("sqs").send_message(QueueUrl=url, MessageBody=text, **options)


def left(elsewhere: Elsewhere, url: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    shown = elsewhere.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(value) for value in shown.values())


def empty(elsewhere: Elsewhere, url: str) -> Callable[[], bool]:
    return lambda: left(elsewhere, url) == 0


def test_messages_reach_the_function_once_and_are_deleted(
    polling: RunningStoker, elsewhere: Elsewhere
) -> None:
    url, arn = elsewhere.queue("plain")
    mapped(polling, "mapped-plain", arn)
    attribute = {"Author": {"DataType": "String", "StringValue": "John"}}
    put(elsewhere, url, "show", MessageAttributes=attribute)
    put(elsewhere, url, *(f"m{number}" for number in range(20)))
    assert waited(lambda: len(bodies(polling, "mapped-plain")) >= 21)
    assert sorted(bodies(polling, "mapped-plain")) == sorted(["show", *(f"m{n}" for n in range(20))])
    assert waited(empty(elsewhere, url))
    (record,) = printed(polling, "mapped-plain", "record")
    assert set(record) == {
        "messageId",
        "receiptHandle",
        "body",
        "attributes",
        "messageAttributes",
        "md5OfBody",
        "md5OfMessageAttributes",
        "eventSource",
        "eventSourceARN",
        "awsRegion",
    }
    assert record["eventSourceARN"] == arn
    assert record["messageAttributes"]["Author"]["stringValue"] == "John"
    assert {"ApproximateReceiveCount", "SentTimestamp", "SenderId"} <= set(record["attributes"])


def test_a_window_gathers_a_batch(polling: RunningStoker, elsewhere: Elsewhere) -> None:
    url, arn = elsewhere.queue("window")
    put(elsewhere, url, *(f"m{number}" for number in range(15)))
    mapped(polling, "mapped-window", arn, BatchSize=15, MaximumBatchingWindowInSeconds=5)
    assert waited(lambda: printed(polling, "mapped-window", "batch"))
    (batch,) = printed(polling, "mapped-window", "batch")
    assert sorted(batch) == sorted(f"m{number}" for number in range(15))


def test_only_what_failed_comes_back(polling: RunningStoker, elsewhere: Elsewhere) -> None:
    url, arn = elsewhere.queue("partial", VisibilityTimeout="2")
    put(elsewhere, url, "good", "poison")
    mapped(polling, "mapped-partial", arn, FunctionResponseTypes=["ReportBatchItemFailures"])
    assert waited(lambda: bodies(polling, "mapped-partial").count("poison") >= 3)
    assert bodies(polling, "mapped-partial").count("good") == 1
    assert left(elsewhere, url) == 1


def test_a_failed_batch_comes_back_and_goes_to_the_dead_letter_queue(
    polling: RunningStoker, elsewhere: Elsewhere
) -> None:
    dead_url, dead = elsewhere.queue("partial-dead")
    policy = json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": 2})
    url, arn = elsewhere.queue("exploding", VisibilityTimeout="1", RedrivePolicy=policy)
    put(elsewhere, url, "explode")
    mapped(polling, "mapped-exploding", arn)
    (message,) = elsewhere.received(dead_url)
    assert message["Body"] == "explode"
    assert bodies(polling, "mapped-exploding") == ["explode"] * 2


def test_filtered_messages_are_deleted_unseen(polling: RunningStoker, elsewhere: Elsewhere) -> None:
    url, arn = elsewhere.queue("filtered")
    criteria = {"Filters": [{"Pattern": json.dumps({"body": {"kind": ["wanted"]}})}]}
    mapped(polling, "mapped-filtered", arn, FilterCriteria=criteria)
    put(elsewhere, url, '{"kind": "other"}', '{"kind": "wanted"}', "text")
    assert waited(empty(elsewhere, url))
    assert bodies(polling, "mapped-filtered") == ['{"kind": "wanted"}']


def test_disabling_and_deleting_take_effect_at_once(polling: RunningStoker, elsewhere: Elsewhere) -> None:
    url, arn = elsewhere.queue("changing")
    service, uuid = polling.client("lambda"), mapped(polling, "mapped-changing", arn)
    put(elsewhere, url, "first")
    assert waited(empty(elsewhere, url))
    service.update_event_source_mapping(UUID=uuid, Enabled=False)
    put(elsewhere, url, "second")
    settled(service, uuid, "Disabled")
    time.sleep(1)
    assert bodies(polling, "mapped-changing") == ["first"]
    service.update_event_source_mapping(UUID=uuid, Enabled=True)
    assert waited(empty(elsewhere, url))
    assert bodies(polling, "mapped-changing") == ["first", "second"]
    service.delete_event_source_mapping(UUID=uuid)
    put(elsewhere, url, "third")
    time.sleep(2)
    assert bodies(polling, "mapped-changing") == ["first", "second"]
    assert left(elsewhere, url) == 1


def test_a_queue_that_is_made_later_is_read(polling: RunningStoker, elsewhere: Elsewhere) -> None:
    _, arn = elsewhere.queue("exists")
    mapped(polling, "mapped-later", arn.replace("exists", "later"))
    assert waited(lambda: "could not be read" in polling.log.read_text())
    url, _ = elsewhere.queue("later")
    put(elsewhere, url, "late")
    assert waited(lambda: bodies(polling, "mapped-later") == ["late"])


def test_fifo_keeps_the_order_of_a_group(polling: RunningStoker, elsewhere: Elsewhere) -> None:
    # One batch: moto's long polls do not see that a group which was in flight when they began is free again.
    url, arn = elsewhere.queue("ordered.fifo", FifoQueue="true", ContentBasedDeduplication="true")
    for number in range(9):
        put(elsewhere, url, str(number), MessageGroupId="one")
    put(elsewhere, url, "show", MessageGroupId="one")
    mapped(polling, "mapped-fifo", arn)
    assert waited(empty(elsewhere, url))
    assert waited(lambda: printed(polling, "mapped-fifo", "record"))
    assert bodies(polling, "mapped-fifo") == [*map(str, range(9)), "show"]
    (record,) = printed(polling, "mapped-fifo", "record")
    assert record["attributes"]["MessageGroupId"] == "one"
    assert "MessageDeduplicationId" in record["attributes"]  # moto leaves SequenceNumber out


def test_a_kill_loses_no_message(elsewhere: Elsewhere) -> None:
    url, arn = elsewhere.queue("killed", VisibilityTimeout="5")
    stoker, count = RunningStoker(), 60
    stoker.environment = elsewhere.environment()
    try:
        stoker.start()
        mapped(stoker, "mapped-killed", arn, BatchSize=2)
        put(elsewhere, url, *(f"m{number}" for number in range(count)))
        time.sleep(0.3)
        stoker.kill()
        stoker.start()
        assert waited(lambda: len(set(bodies(stoker, "mapped-killed"))) == count)
        assert waited(empty(elsewhere, url))
    finally:
        stoker.remove()
