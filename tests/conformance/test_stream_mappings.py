"""Event source mappings over real servers of Kinesis and DynamoDB Streams, as far as moto has them.

moto closes no shard (its NextShardIterator is never null), expires no iterator, throttles no read and trims
nothing; its DynamoDB streams have one shard. Those are told in virtual time (``tests/simulation/events``).
"""

import base64
import json
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from tests.conformance.elsewhere import Elsewhere, waited
from tests.running import RunningStoker

SOURCE = """
import base64, json
def lambda_handler(event, context):
    records = event['Records']
    kind = 'kinesis' if 'kinesis' in records[0] else 'dynamodb'
    if kind == 'kinesis':
        shown = [base64.b64decode(record['kinesis']['data']).decode() for record in records]
    else:
        shown = [record['dynamodb']['Keys']['id']['S'] for record in records]
    print('batch', json.dumps(shown))
    failed = []
    for name, record in zip(shown, records):
        if 'poison' in name:
            failed.append({'itemIdentifier': record[kind].get('sequenceNumber') or record[kind]['SequenceNumber']})
        if 'explode' in name:
            raise Exception('intentional')
        if 'show' in name:
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


def seen(stoker: RunningStoker, name: str) -> list[str]:
    return [one for batch in printed(stoker, name, "batch") for one in batch]


def stream(elsewhere: Elsewhere, name: str, shards: int = 1) -> str:
    """The ARN of a new Kinesis stream."""
    service = elsewhere.client("kinesis")
    service.create_stream(StreamName=name, ShardCount=shards)
    return str(service.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"])


def put(elsewhere: Elsewhere, arn: str, *texts: str, key: str = "k") -> None:
    records = [{"Data": text.encode(), "PartitionKey": key} for text in texts]
    elsewhere.client("kinesis").put_records(StreamARN=arn, Records=records)


def table(elsewhere: Elsewhere, name: str) -> str:
    """The ARN of the stream of a new table."""
    shown = elsewhere.client("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    return str(shown["TableDescription"]["LatestStreamArn"])


def mapped(stoker: RunningStoker, name: str, arn: str, **options: Any) -> str:
    """A function and its mapping, enabled; the mapping's UUID."""
    stoker.create_python(name, SOURCE, Timeout=10)
    service = stoker.client("lambda")
    options = {"StartingPosition": "TRIM_HORIZON", **options}
    shown = service.create_event_source_mapping(FunctionName=name, EventSourceArn=arn, **options)
    assert shown["LastProcessingResult"] == "No records processed"
    settled(service, shown["UUID"], "Enabled")
    return str(shown["UUID"])


def settled(service: Any, uuid: str, state: str) -> None:
    assert waited(lambda: service.get_event_source_mapping(UUID=uuid)["State"] == state)


def test_kinesis_records_reach_the_function_as_aws_shows_them(
    polling: RunningStoker, elsewhere: Elsewhere
) -> None:
    arn = stream(elsewhere, "plain")
    put(elsewhere, arn, "show", *(f"r{number}" for number in range(20)))
    uuid = mapped(polling, "stream-plain", arn, BatchSize=8)
    assert waited(lambda: len(seen(polling, "stream-plain")) >= 21)
    assert seen(polling, "stream-plain") == ["show", *(f"r{number}" for number in range(20))]
    assert [len(batch) for batch in printed(polling, "stream-plain", "batch")] == [8, 8, 5]
    (record,) = printed(polling, "stream-plain", "record")
    number = record["kinesis"]["sequenceNumber"]
    assert isinstance(record["kinesis"].pop("approximateArrivalTimestamp"), float)
    assert record == {
        "awsRegion": "us-east-1",
        "eventID": f"shardId-000000000000:{number}",
        "eventName": "aws:kinesis:record",
        "eventSource": "aws:kinesis",
        "eventSourceARN": arn,
        "eventVersion": "1.0",
        "invokeIdentityArn": polling.client("lambda").get_function(FunctionName="stream-plain")[
            "Configuration"
        ]["Role"],
        "kinesis": {
            "data": base64.b64encode(b"show").decode(),
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "k",
            "sequenceNumber": number,
        },
    }
    service = polling.client("lambda")
    assert waited(lambda: service.get_event_source_mapping(UUID=uuid)["LastProcessingResult"] == "OK")


def test_dynamodb_records_reach_the_function_as_aws_shows_them(
    polling: RunningStoker, elsewhere: Elsewhere
) -> None:
    arn = table(elsewhere, "plain-table")
    service = elsewhere.client("dynamodb")
    service.put_item(TableName="plain-table", Item={"id": {"S": "show"}, "bytes": {"B": b"foobar"}})
    mapped(polling, "table-plain", arn)
    assert waited(lambda: printed(polling, "table-plain", "record"))
    (record,) = printed(polling, "table-plain", "record")
    change = record["dynamodb"]
    assert record["eventSourceARN"] == arn
    assert (record["eventName"], record["eventSource"], record["eventVersion"]) == (
        "INSERT",
        "aws:dynamodb",
        "1.1",
    )
    assert set(record) == {
        "awsRegion",
        "dynamodb",
        "eventID",
        "eventName",
        "eventSource",
        "eventSourceARN",
        "eventVersion",
    }
    assert change["NewImage"] == {"id": {"S": "show"}, "bytes": {"B": "Zm9vYmFy"}}
    assert isinstance(change["ApproximateCreationDateTime"], int | float)
    assert set(change) == {
        "ApproximateCreationDateTime",
        "Keys",
        "NewImage",
        "SequenceNumber",
        "SizeBytes",
        "StreamViewType",
    }
    service.delete_item(TableName="plain-table", Key={"id": {"S": "show"}})
    assert waited(lambda: len(printed(polling, "table-plain", "record")) == 2)
    assert printed(polling, "table-plain", "record")[1]["eventName"] == "REMOVE"


def test_a_batch_that_fails_is_told_to_a_queue_a_topic_and_a_bucket(
    polling: RunningStoker, elsewhere: Elsewhere
) -> None:
    url, queue = elsewhere.queue("discarded")
    topic_url, topic_queue = elsewhere.queue("discarded-topic")
    topic = elsewhere.client("sns").create_topic(Name="discarded")["TopicArn"]
    elsewhere.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=topic_queue)
    elsewhere.client("s3").create_bucket(Bucket="discarded")
    arn = stream(elsewhere, "failing")
    put(elsewhere, arn, "explode")
    uuids: dict[str, str] = {}
    for kind, destination in (("queue", queue), ("topic", topic), ("bucket", "arn:aws:s3:::discarded")):
        uuids[kind] = mapped(
            polling,
            f"failing-{kind}",
            arn,
            MaximumRetryAttempts=1,
            DestinationConfig={"OnFailure": {"Destination": destination}},
        )
    (message,) = elsewhere.received(url)
    document = json.loads(message["Body"])
    function_arn = polling.client("lambda").get_function(FunctionName="failing-queue")["Configuration"][
        "FunctionArn"
    ]
    info = document["KinesisBatchInfo"]
    assert document["requestContext"] == {
        "approximateInvokeCount": 2,
        "condition": "RetryAttemptsExhausted",
        "functionArn": function_arn,
        "requestId": document["requestContext"]["requestId"],
    }
    assert document["responseContext"] == {
        "executedVersion": "$LATEST",
        "functionError": "Unhandled",
        "statusCode": 200,
    }
    assert info.pop("approximateArrivalOfFirstRecord") == info.pop("approximateArrivalOfLastRecord")
    assert info == {
        "batchSize": 1,
        "endSequenceNumber": info["startSequenceNumber"],
        "shardId": "shardId-000000000000",
        "startSequenceNumber": info["startSequenceNumber"],
        "streamArn": arn,
    }
    assert set(document) == {"KinesisBatchInfo", "requestContext", "responseContext", "timestamp", "version"}
    (message,) = elsewhere.received(topic_url)
    assert "KinesisBatchInfo" in json.loads(json.loads(message["Body"])["Message"])
    store = elsewhere.client("s3")
    assert waited(lambda: store.list_objects_v2(Bucket="discarded").get("Contents"))
    (found,) = store.list_objects_v2(Bucket="discarded")["Contents"]
    assert found["Key"].startswith(f"aws/lambda/{uuids['bucket']}/shardId-000000000000/20")
    body = json.loads(store.get_object(Bucket="discarded", Key=found["Key"])["Body"].read())
    assert base64.b64decode(body["payload"]["Records"][0]["kinesis"]["data"]) == b"explode"
    service = polling.client("lambda")
    assert service.get_event_source_mapping(UUID=uuids["queue"])["LastProcessingResult"] == (
        "PROBLEM: Function call failed"
    )


def test_only_what_failed_of_a_table_comes_again(polling: RunningStoker, elsewhere: Elsewhere) -> None:
    url, queue = elsewhere.queue("table-discarded")
    arn = table(elsewhere, "partial-table")
    for name in ("good", "poison", "later"):
        elsewhere.client("dynamodb").put_item(TableName="partial-table", Item={"id": {"S": name}})
    mapped(
        polling,
        "table-partial",
        arn,
        FunctionResponseTypes=["ReportBatchItemFailures"],
        MaximumRetryAttempts=1,
        DestinationConfig={"OnFailure": {"Destination": queue}},
    )
    (message,) = elsewhere.received(url)
    document = json.loads(message["Body"])
    assert document["responseContext"] == {
        "executedVersion": "$LATEST",
        "functionError": None,
        "statusCode": 200,
    }
    assert document["DDBStreamBatchInfo"]["batchSize"] == 2
    assert len(document["DDBStreamBatchInfo"]["approximateArrivalOfFirstRecord"]) == len(
        "2022-07-13T13:48:01Z"
    )
    assert printed(polling, "table-partial", "batch") == [["good", "poison", "later"], ["poison", "later"]]


def test_filters_see_decoded_data(polling: RunningStoker, elsewhere: Elsewhere) -> None:
    arn = stream(elsewhere, "filtered")
    criteria = {"Filters": [{"Pattern": json.dumps({"data": {"kind": ["wanted"]}})}]}
    mapped(polling, "stream-filtered", arn, FilterCriteria=criteria)
    put(elsewhere, arn, '{"kind": "other"}', '{"kind": "wanted"}', "text")
    assert waited(lambda: seen(polling, "stream-filtered"))
    time.sleep(1)
    assert seen(polling, "stream-filtered") == ['{"kind": "wanted"}']


def test_the_latest_begins_with_what_comes_then(polling: RunningStoker, elsewhere: Elsewhere) -> None:
    arn = stream(elsewhere, "latest", shards=2)
    put(elsewhere, arn, "old")
    mapped(polling, "stream-latest", arn, StartingPosition="LATEST")
    time.sleep(2)
    put(elsewhere, arn, "new")
    assert waited(lambda: seen(polling, "stream-latest"))
    assert seen(polling, "stream-latest") == ["new"]


def test_a_disabled_mapping_goes_on_where_it_stopped(polling: RunningStoker, elsewhere: Elsewhere) -> None:
    arn = stream(elsewhere, "changing")
    service, uuid = polling.client("lambda"), mapped(polling, "stream-changing", arn, ParallelizationFactor=2)
    put(elsewhere, arn, "first")
    assert waited(lambda: seen(polling, "stream-changing") == ["first"])
    service.update_event_source_mapping(UUID=uuid, Enabled=False)
    settled(service, uuid, "Disabled")
    put(elsewhere, arn, "second")
    time.sleep(2)
    assert seen(polling, "stream-changing") == ["first"]
    service.update_event_source_mapping(UUID=uuid, Enabled=True, ParallelizationFactor=1)
    assert waited(lambda: len(seen(polling, "stream-changing")) == 2)
    assert seen(polling, "stream-changing") == ["first", "second"]
    service.delete_event_source_mapping(UUID=uuid)
    time.sleep(1)
    put(elsewhere, arn, "third")
    time.sleep(2)
    assert seen(polling, "stream-changing") == ["first", "second"]


def test_a_stream_that_is_made_later_is_read(polling: RunningStoker, elsewhere: Elsewhere) -> None:
    arn = stream(elsewhere, "exists").replace("exists", "later")
    service, uuid = polling.client("lambda"), mapped(polling, "stream-later", arn)
    told = f"PROBLEM: Stream not found: {arn}"
    assert waited(lambda: service.get_event_source_mapping(UUID=uuid)["LastProcessingResult"] == told)
    put(elsewhere, stream(elsewhere, "later"), "late")
    assert waited(lambda: seen(polling, "stream-later") == ["late"])
    assert waited(lambda: service.get_event_source_mapping(UUID=uuid)["LastProcessingResult"] == "OK")


def test_a_tumbling_window_ends_with_its_state(polling: RunningStoker, elsewhere: Elsewhere) -> None:
    source = (
        "import json\n"
        "def lambda_handler(event, context):\n"
        "    print('window', json.dumps([len(event['Records']), event['state'], event['isFinalInvokeForWindow']]))\n"
        "    return {'state': {'count': event['state'].get('count', 0) + len(event['Records'])}}\n"
    )
    arn = stream(elsewhere, "tumbling")
    polling.create_python("stream-tumbling", source, Timeout=10)
    polling.client("lambda").create_event_source_mapping(
        FunctionName="stream-tumbling",
        EventSourceArn=arn,
        StartingPosition="TRIM_HORIZON",
        TumblingWindowInSeconds=5,
    )
    put(elsewhere, arn, "one", "two")
    assert waited(lambda: len(printed(polling, "stream-tumbling", "window")) == 2)
    assert printed(polling, "stream-tumbling", "window") == [[2, {}, False], [0, {"count": 2}, True]]


KILLS = 4
KEYS = 40
COUNT = 3000


def test_kills_lose_no_record_and_keep_the_order_of_a_key(
    elsewhere: Elsewhere, capsys: pytest.CaptureFixture[str]
) -> None:
    arn, random = stream(elsewhere, "killed", shards=2), Random(5)
    for first in range(0, COUNT, 500):
        records = [
            {"Data": f"k{number % KEYS} {number}".encode(), "PartitionKey": f"k{number % KEYS}"}
            for number in range(first, first + 500)
        ]
        elsewhere.client("kinesis").put_records(StreamARN=arn, Records=records)
    stoker = RunningStoker()
    stoker.environment = elsewhere.environment()
    # What a function wrote in the last moment before a kill may be gone: it gives the lines time to be kept.
    slow = SOURCE.replace("    failed = []\n", "    time.sleep(0.25)\n    failed = []\n", 1)
    try:
        stoker.start()
        stoker.create_python("killed", f"import time\n{slow}", Timeout=10)
        stoker.client("lambda").create_event_source_mapping(
            FunctionName="killed",
            EventSourceArn=arn,
            StartingPosition="TRIM_HORIZON",
            BatchSize=40,
            ParallelizationFactor=4,
        )
        for _ in range(KILLS):
            time.sleep(1.5 + random.random())
            stoker.kill()
            stoker.start()
        everything = {f"k{number % KEYS} {number}" for number in range(COUNT)}
        waited(lambda: set(seen(stoker, "killed")) == everything)
        found = seen(stoker, "killed")
    finally:
        stoker.remove()
    assert set(found) == everything
    firsts = list(dict.fromkeys(found))
    for key in range(KEYS):
        mine = [int(one.split()[1]) for one in firsts if one.startswith(f"k{key} ")]
        assert mine == sorted(mine)
    with capsys.disabled():
        print(f"\n{COUNT} records of {KEYS} keys, {KILLS} kills: {len(found) - COUNT} came again")
    assert len(found) - COUNT <= KILLS * 2 * 4 * 40
