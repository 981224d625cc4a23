"""How asynchronous events end: destinations and dead-letter queues on a real server, over kills and outages."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.elsewhere import Elsewhere, waited
from tests.running import ACCOUNT, REGION, RunningStoker

SOURCE = """
def lambda_handler(event, context):
    print('ran', event)
    if isinstance(event, dict) and event.get('fail'):
        raise Exception('intentional')
    return {'saw': event}
"""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    running = Elsewhere()
    yield running
    running.server.stop()


@pytest.fixture(scope="module")
def sending(elsewhere: Elsewhere) -> Iterator[RunningStoker]:
    running = RunningStoker(retry_scale=0.002)
    running.environment = elsewhere.environment()
    try:
        running.start()
        yield running
    finally:
        running.remove()


def make(stoker: RunningStoker, name: str, **config: Any) -> Any:
    stoker.create_python(name, SOURCE, Timeout=10)
    service = stoker.client("lambda")
    if config:
        shown = {key: {"Destination": arn} for key, arn in config.items()}
        service.put_function_event_invoke_config(FunctionName=name, DestinationConfig=shown)
    return service


def send(service: Any, name: str, event: object) -> str:
    answer = service.invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps(event))
    return str(answer["ResponseMetadata"]["RequestId"])


def arn_of(name: str) -> str:
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


def test_failure_and_success_reach_queues(sending: RunningStoker, elsewhere: Elsewhere) -> None:
    url, arn = elsewhere.queue("ends")
    name = "destined-queue"
    service = make(sending, name, OnFailure=arn, OnSuccess=arn)
    failed, succeeded = send(service, name, {"fail": 1}), send(service, name, {"fail": 0})
    records = {
        record["requestContext"]["requestId"]: record for record in map(body, elsewhere.received(url, 2))
    }
    failure, success = records[failed], records[succeeded]
    assert failure["requestContext"] == {
        "requestId": failed,
        "functionArn": arn_of(name) + ":$LATEST",
        "condition": "RetriesExhausted",
        "approximateInvokeCount": 3,
    }
    assert failure["requestPayload"] == {"fail": 1}
    assert failure["responseContext"] == {
        "statusCode": 200,
        "executedVersion": "$LATEST",
        "functionError": "Unhandled",
    }
    assert failure["responsePayload"]["errorMessage"] == "intentional"
    assert success["requestContext"]["condition"] == "Success"
    assert success["requestContext"]["approximateInvokeCount"] == 1
    assert success["responsePayload"] == {"saw": {"fail": 0}}
    assert set(success) == set(failure)


def body(message: dict[str, Any]) -> Any:
    return json.loads(message["Body"])


def test_a_topic_a_bucket_and_a_function(sending: RunningStoker, elsewhere: Elsewhere) -> None:
    topic = elsewhere.client("sns").create_topic(Name="ends")["TopicArn"]
    url, arn = elsewhere.queue("subscribed")
    elsewhere.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    elsewhere.client("s3").create_bucket(Bucket="ends")
    make(sending, "destined-other")
    name = "destined-topic"
    service = make(sending, name, OnFailure="arn:aws:s3:::ends", OnSuccess=topic)
    request_id = send(service, name, 1)
    (message,) = elsewhere.received(url)
    assert json.loads(body(message)["Message"])["requestContext"]["requestId"] == request_id
    failed = send(service, name, {"fail": 1})
    storage = elsewhere.client("s3")
    (found,) = waited(lambda: storage.list_objects_v2(Bucket="ends").get("Contents"))
    assert found["Key"].startswith(f"aws/lambda/async/{name}/")
    record = json.loads(storage.get_object(Bucket="ends", Key=found["Key"])["Body"].read())
    assert record["requestContext"]["requestId"] == failed
    again = make(sending, "destined-function", OnSuccess=arn_of("destined-other"))
    send(again, "destined-function", 2)
    (line,) = waited(lambda: printed(sending, "destined-other"))
    assert "'requestPayload': 2" in line


def printed(stoker: RunningStoker, name: str) -> list[str]:
    service = stoker.client("logs")
    try:
        events = service.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    except service.exceptions.ResourceNotFoundException:
        return []
    return [event["message"] for event in events if event["message"].startswith("ran")]


def test_an_event_bus(sending: RunningStoker, elsewhere: Elsewhere) -> None:
    events = elsewhere.client("events")
    bus = events.create_event_bus(Name="ends")["EventBusArn"]
    url, arn = elsewhere.queue("ruled")
    pattern = {"source": ["lambda"], "detail-type": ["Lambda Function Invocation Result - Success"]}
    events.put_rule(Name="all", EventBusName="ends", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="all", EventBusName="ends", Targets=[{"Id": "1", "Arn": arn}])
    name = "destined-bus"
    service = make(sending, name, OnSuccess=bus)
    request_id = send(service, name, 1)
    (message,) = elsewhere.received(url)
    seen = body(message)
    assert seen["detail"]["requestContext"]["requestId"] == request_id
    assert arn_of(name) + ":$LATEST" in seen["resources"]


def test_dead_letters_and_no_concurrency(sending: RunningStoker, elsewhere: Elsewhere) -> None:
    url, arn = elsewhere.queue("dead")
    name = "destined-dead"
    sending.create_python(name, SOURCE, Timeout=10, DeadLetterConfig={"TargetArn": arn})
    service = sending.client("lambda")
    failed = send(service, name, {"fail": 1})
    (message,) = elsewhere.received(url)
    assert body(message) == {"fail": 1}
    attributes = {key: value["StringValue"] for key, value in message["MessageAttributes"].items()}
    assert attributes == {"RequestID": failed, "ErrorCode": "200", "ErrorMessage": "intentional"}
    service.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    refused = send(service, name, {"fail": 2})
    (message,) = elsewhere.received(url)
    assert message["MessageAttributes"]["RequestID"]["StringValue"] == refused
    assert message["MessageAttributes"]["ErrorCode"]["StringValue"] == "429"


def test_a_record_outlives_an_outage_and_a_kill(elsewhere: Elsewhere) -> None:
    stoker = RunningStoker(retry_scale=0.002)
    stoker.environment = {
        "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    url, arn = elsewhere.queue("outage")
    try:
        stoker.start()
        service = make(stoker, "outlives", OnSuccess=arn)
        sent = {send(service, "outlives", number) for number in range(10)}
        assert waited(lambda: "did not take a record" in stoker.log.read_text())
        assert waited(lambda: len(printed(stoker, "outlives")) == 10), "events run while records wait"
        stoker.kill()
        stoker.environment["AWS_ENDPOINT_URL_SQS"] = elsewhere.endpoint
        stoker.start()
        records = [body(message) for message in elsewhere.received(url, 10)]
        assert {record["requestContext"]["requestId"] for record in records} == sent
    finally:
        stoker.remove()
