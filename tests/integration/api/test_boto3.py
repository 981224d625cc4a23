"""A real boto3 against a real server: what it sends arrives as typed records, what is answered it understands."""

import base64
import io
import socket
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import urllib3
from botocore.exceptions import ClientError

from stoker.api.model import compile_service
from stoker.core.arn import FunctionReference
from stoker.core.errors import ServiceError, not_found, too_many_requests
from stoker.services import lambda_types as lt
from stoker.services import logs_types
from stoker.services.context import RequestContext
from tests.integration.api.serving import RunningApi, running_api
from tests.unit.api.signing import KEY, sign

SEEN: list[Any] = []


def configuration(name: str) -> lt.FunctionConfiguration:
    return lt.FunctionConfiguration(function_name=name, timeout=3, layers=(lt.Layer(arn="a", code_size=1),))


async def create_function(
    context: RequestContext, request: lt.CreateFunctionRequest
) -> lt.FunctionConfiguration:
    SEEN.append(request)
    return configuration(request.function_name)


async def get_function(context: RequestContext, request: lt.GetFunctionRequest) -> lt.GetFunctionResponse:
    if request.function_name == "missing":
        raise not_found("Function not found: arn:aws:lambda:us-east-1:000000000000:function:missing")
    if request.function_name == "busy":
        raise too_many_requests("Rate Exceeded.", "ReservedFunctionConcurrentInvocationLimitExceeded")
    if request.function_name == "broken":
        raise RuntimeError("a secret of the inside")
    return lt.GetFunctionResponse(
        configuration=configuration(request.function_name),
        code=lt.FunctionCodeLocation(location=context.endpoint),
        tags={"q": request.qualifier or ""},
    )


async def delete_function(
    context: RequestContext, request: lt.DeleteFunctionRequest
) -> lt.DeleteFunctionResponse:
    return lt.DeleteFunctionResponse(status_code=204)


async def create_mapping(
    context: RequestContext, request: lt.CreateEventSourceMappingRequest
) -> lt.EventSourceMappingConfiguration:
    SEEN.append(request)
    return lt.EventSourceMappingConfiguration(
        uuid="u",
        last_modified=1_700_000_000.25,
        starting_position_timestamp=request.starting_position_timestamp,
    )


async def untag(context: RequestContext, request: lt.UntagResourceRequest) -> None:
    SEEN.append(request)


async def list_functions(
    context: RequestContext, request: lt.ListFunctionsRequest
) -> lt.FunctionConfiguration:
    return configuration("of the wrong kind")


async def get_log_events(
    context: RequestContext, request: logs_types.GetLogEventsRequest
) -> logs_types.GetLogEventsResponse:
    SEEN.append(request)
    return logs_types.GetLogEventsResponse(
        events=(logs_types.OutputLogEvent(timestamp=1_700_000_000_123, message="line"),),
        next_forward_token="f/1",
    )


async def describe_log_groups(context: RequestContext, request: logs_types.DescribeLogGroupsRequest) -> None:
    raise ServiceError("ResourceNotFoundException", "The specified log group does not exist.")


HANDLERS = {
    "lambda": {
        "CreateFunction": create_function,
        "GetFunction": get_function,
        "DeleteFunction": delete_function,
        "CreateEventSourceMapping": create_mapping,
        "UntagResource": untag,
        "ListFunctions": list_functions,
    },
    "logs": {"GetLogEvents": get_log_events, "DescribeLogGroups": describe_log_groups},
}


@pytest.fixture(scope="module")
def api() -> Iterator[RunningApi]:
    unsigned = {
        b"/health": lambda request, reply: reply.send(200, [], b"live"),
        b"/_stoker/code/": lambda request, reply: reply.send(200, [], request.path),
    }
    with running_api(HANDLERS, unsigned) as running:
        yield running


def failure(call: Any, **parameters: Any) -> tuple[str, str, int, dict[str, Any]]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response = caught.value.response
    assert response["ResponseMetadata"]["RequestId"]
    return (
        response["Error"]["Code"],
        response["Error"]["Message"],
        response["ResponseMetadata"]["HTTPStatusCode"],
        {k: v for k, v in response.items() if k not in ("Error", "ResponseMetadata")},
    )


def test_create_function(api: RunningApi) -> None:
    answer = api.client().create_function(
        FunctionName="f",
        Role="arn:aws:iam::000000000000:role/r",
        Runtime="python3.11",
        Handler="a.b",
        Code={"ZipFile": b"PK\x03\x04"},
        Environment={"Variables": {"KEY": "väl"}},
        Layers=["arn:aws:lambda:us-east-1:000000000000:layer:l:1"],
        MemorySize=256,
    )
    request = SEEN[-1]
    assert request == lt.CreateFunctionRequest(
        function_name="f",
        role="arn:aws:iam::000000000000:role/r",
        runtime="python3.11",
        handler="a.b",
        code=lt.FunctionCode(zip_file=b"PK\x03\x04"),
        environment=lt.Environment(variables={"KEY": "väl"}),
        layers=("arn:aws:lambda:us-east-1:000000000000:layer:l:1",),
        memory_size=256,
    )
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert answer["FunctionName"] == "f"
    assert answer["Layers"] == [{"Arn": "a", "CodeSize": 1}]
    assert "Runtime" not in answer


def test_a_large_zip_is_spooled(api: RunningApi) -> None:
    code = bytes(range(256)) * 20_000
    api.client().create_function(
        FunctionName="large", Role="arn:aws:iam::000000000000:role/r", Code={"ZipFile": code}
    )
    assert SEEN[-1].code.zip_file == code
    assert api.api._bodies.held_bytes == 0


def test_arn_and_qualifier_in_uri_and_query(api: RunningApi) -> None:
    answer = api.client().get_function(
        FunctionName="arn:aws:lambda:us-east-1:000000000000:function:f", Qualifier="$LATEST"
    )
    assert answer["Configuration"]["FunctionName"] == "arn:aws:lambda:us-east-1:000000000000:function:f"
    assert answer["Tags"] == {"q": "$LATEST"}
    assert answer["Code"]["Location"] == api.url


def test_delete_answers_the_status_the_handler_says(api: RunningApi) -> None:
    assert api.client().delete_function(FunctionName="f")["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_timestamps_both_ways(api: RunningApi) -> None:
    moment = 1_600_000_000.0
    answer = api.client().create_event_source_mapping(FunctionName="f", StartingPositionTimestamp=moment)
    assert SEEN[-1].starting_position_timestamp == moment
    assert answer["StartingPositionTimestamp"].timestamp() == moment
    assert answer["LastModified"].timestamp() == 1_700_000_000.25


def test_lists_in_the_query(api: RunningApi) -> None:
    arn = "arn:aws:lambda:us-east-1:000000000000:function:f"
    api.client().untag_resource(Resource=arn, TagKeys=["b/1", "a 2+"])
    assert lt.UntagResourceRequest(resource=arn, tag_keys=("b/1", "a 2+")) == SEEN[-1]


def test_errors_as_modelled(api: RunningApi) -> None:
    client = api.client()
    message = "Function not found: arn:aws:lambda:us-east-1:000000000000:function:missing"
    assert failure(client.get_function, FunctionName="missing") == (
        "ResourceNotFoundException",
        message,
        404,
        {"Type": "User", "Message": message},
    )
    assert failure(client.get_function, FunctionName="busy") == (
        "TooManyRequestsException",
        "Rate Exceeded.",
        429,
        {
            "Type": "User",
            "Reason": "ReservedFunctionConcurrentInvocationLimitExceeded",
            "message": "Rate Exceeded.",
        },
    )


def test_validation_as_recorded(api: RunningApi) -> None:
    assert failure(
        api.client(parameter_validation=False).create_function,
        FunctionName="f",
        Role="r1",
        Code={"ZipFile": b""},
    ) == (
        "ValidationException",
        r"1 validation error detected: Value 'r1' at 'role' failed to satisfy constraint: Member must satisfy "
        r"regular expression pattern: arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+",
        400,
        {},
    )


def test_what_is_not_built_says_so(api: RunningApi) -> None:
    code, message, status, rest = failure(api.client().publish_version, FunctionName="f")
    assert (code, status, rest) == ("NotImplementedException", 501, {})
    assert message == "Stoker does not implement lambda:PublishVersion yet."


def test_every_operation_without_a_handler_is_501(api: RunningApi) -> None:
    """Built from the model: 91 operations, each reached by its own method and path."""
    service = compile_service("lambda")
    assert len(service.operations) == 91
    http = urllib3.PoolManager()
    for operation in service.operations.values():
        if operation.name in HANDLERS["lambda"] or operation.name in ("Invoke", "InvokeAsync"):
            continue
        path = operation.uri
        for parameter in operation.uri_parameters:
            path = path.replace(f"{{{parameter.wire}}}", "1")
        request = sign(time.time(), method=operation.method.decode(), path=path, body=b"{}")
        answer = http.request(
            operation.method.decode(),
            api.url + path,
            body=b"{}",
            headers={n.decode(): v.decode() for n, v in request.headers},
        )
        assert answer.status == 501, (operation.name, answer.data)
        assert f"lambda:{operation.name} yet" in answer.data.decode()
        assert answer.headers["x-amzn-errortype"] == "NotImplementedException"


def test_unexpected_errors_tell_nothing(api: RunningApi) -> None:
    for call in (api.client().get_function, api.client().invoke):
        code, message, status, _ = failure(call, FunctionName="broken")
        assert (code, status) == ("ServiceException", 500)
        assert "secret" not in message


def test_a_record_of_the_wrong_kind_is_an_internal_failure(api: RunningApi) -> None:
    assert failure(api.client().list_functions)[:3:2] == ("ServiceException", 500)


def test_invoke(api: RunningApi) -> None:
    context = base64.b64encode(b'{"custom":{"a":"b"}}').decode()
    answer = api.client().invoke(
        FunctionName="f:live", Payload=b'{"key": "value"}', LogType="Tail", ClientContext=context
    )
    assert answer["StatusCode"] == 200
    assert answer["Payload"].read() == b'{"key": "value"}'
    assert answer["ExecutedVersion"] == "$LATEST"
    assert base64.b64decode(answer["LogResult"]) == b"START\nEND\n"
    assert "FunctionError" not in answer
    seen_context, request = api.frontend.asked[-1]
    assert request.function == FunctionReference("f", "live")
    assert request.client_context == context
    assert request.log_tail
    assert seen_context.account == KEY.account
    assert seen_context.region == "us-east-1"
    assert seen_context.endpoint == api.url
    assert seen_context.request_id == answer["ResponseMetadata"]["RequestId"]


def test_invocation_types_and_function_errors(api: RunningApi) -> None:
    client = api.client()
    assert client.invoke(FunctionName="f", InvocationType="Event", Payload=b"{}")["StatusCode"] == 202
    assert client.invoke(FunctionName="f", InvocationType="DryRun")["StatusCode"] == 204
    assert client.invoke(FunctionName="failing", Payload=b"1")["FunctionError"] == "Unhandled"
    client.invoke(FunctionName="f", Qualifier="7")
    assert api.frontend.asked[-1][1].function == FunctionReference("f", "7")
    assert api.frontend.asked[-1][1].payload == b"{}"
    assert client.invoke_async(FunctionName="f", InvokeArgs=io.BytesIO(b"{}"))["Status"] == 202
    assert api.frontend.asked[-1][1].invocation_type == "Event"


def test_invoke_refusals(api: RunningApi) -> None:
    client = api.client()
    assert failure(client.invoke, FunctionName="f", Payload=b"n\x87r") == (
        "InvalidRequestContentException",
        "Could not parse request body into json: Could not parse payload into json: Invalid UTF-8 start byte 0x87\n"
        " at [Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: 1, column: 3]",
        400,
        {
            "Type": "User",
            "message": "Could not parse request body into json: Could not parse payload into json: Invalid UTF-8 "
            "start byte 0x87\n at [Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); "
            "line: 1, column: 3]",
        },
    )
    assert failure(client.invoke, FunctionName="f", InvocationType="Now")[1] == (
        "1 validation error detected: Value 'Now' at 'invocationType' failed to satisfy constraint: "
        "Member must satisfy enum value set: [Event, RequestResponse, DryRun]"
    )
    assert failure(client.invoke, FunctionName="f:1", Qualifier="2")[1] == (
        "The derived qualifier from the function name does not match the specified qualifier."
    )
    assert failure(client.invoke, FunctionName="f", ClientContext="*")[0] == "InvalidRequestContentException"
    assert failure(client.invoke, FunctionName="f", TenantId="t")[0] == "NotImplementedException"


@pytest.mark.parametrize(
    ("kind", "limit", "words"),
    [
        (
            "RequestResponse",
            6_291_456,
            "Request must be smaller than 6291456 bytes for the InvokeFunction operation",
        ),
        (
            "Event",
            1_048_576,
            "1048577 byte payload is too large for the Event invocation type (limit 1048576 bytes)",
        ),
    ],
)
def test_payload_limits(api: RunningApi, kind: str, limit: int, words: str) -> None:
    client = api.client()
    client.invoke(FunctionName="f", InvocationType=kind, Payload=b'"' + b"x" * (limit - 2) + b'"')
    assert len(api.frontend.asked[-1][1].payload) == limit
    assert failure(
        client.invoke, FunctionName="f", InvocationType=kind, Payload=b'"' + b"x" * (limit - 1) + b'"'
    )[:3] == (
        "RequestEntityTooLargeException",
        words,
        413,
    )


def test_a_client_that_vanishes_frees_its_invocation(api: RunningApi) -> None:
    request = sign(time.time(), path="/2015-03-31/functions/slow/invocations")
    head = b"POST " + request.target + b" HTTP/1.1\r\n"
    head += b"".join(n + b": " + v + b"\r\n" for n, v in request.headers if n != b"content-length")
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        connection.sendall(head + b"content-length: 2\r\n\r\n{}")
        assert api.frontend.entered.wait(5)
        assert not api.frontend.cancelled.is_set()
    assert api.frontend.cancelled.wait(5)


def test_logs_over_the_same_endpoint(api: RunningApi) -> None:
    client = api.client("logs")
    answer = client.get_log_events(
        logGroupName="/aws/lambda/f", logStreamName="s", limit=5, startFromHead=True
    )
    assert answer["events"] == [{"timestamp": 1_700_000_000_123, "message": "line"}]
    assert answer["nextForwardToken"] == "f/1"
    assert (
        logs_types.GetLogEventsRequest(
            log_group_name="/aws/lambda/f", log_stream_name="s", limit=5, start_from_head=True
        )
        == SEEN[-1]
    )
    assert failure(client.describe_log_groups)[:3] == (
        "ResourceNotFoundException",
        "The specified log group does not exist.",
        400,
    )
    assert failure(client.describe_queries)[:3] == (
        "NotImplementedException",
        "Stoker does not implement logs:DescribeQueries yet.",
        501,
    )
    assert failure(client.get_log_events, logGroupName="a b", logStreamName="s")[:3] == (
        "InvalidParameterException",
        "1 validation error detected: Value 'a b' at 'logGroupName' failed to satisfy constraint: Member must "
        r"satisfy regular expression pattern: [\.\-_/#A-Za-z0-9]+",
        400,
    )


def test_wrong_keys(api: RunningApi) -> None:
    assert failure(api.client(secret="x").list_functions)[:3:2] == ("InvalidSignatureException", 403)
    assert failure(api.client(access_key_id="AKIAX").list_functions)[:3] == (
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
        403,
    )
    assert failure(api.client("logs", access_key_id="AKIAX").describe_log_groups)[:3:2] == (
        "UnrecognizedClientException",
        400,
    )


def test_presigned_url(api: RunningApi) -> None:
    http = urllib3.PoolManager()
    url = api.client().generate_presigned_url("get_function", {"FunctionName": "f"}, ExpiresIn=60)
    answer = http.request("GET", url)
    assert answer.status == 200
    assert msgspec.json.decode(answer.data)["Configuration"]["FunctionName"] == "f"
    assert http.request("GET", url.replace("/f?", "/g?")).status == 403


def test_unsigned_routes_and_strangers(api: RunningApi) -> None:
    http = urllib3.PoolManager()
    assert http.request("GET", api.url + "/health").data == b"live"
    assert http.request("GET", api.url + "/_stoker/code/a?b").data == b"/_stoker/code/a"
    for method, path in (
        ("POST", "/health"),
        ("GET", "/"),
        ("GET", "/2015-03-31/functions"),
        ("GET", "/nowhere"),
    ):
        answer = http.request(method, api.url + path)
        assert answer.status == 403
        assert msgspec.json.decode(answer.data) == {"message": "Missing Authentication Token"}
        assert answer.headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"


def test_unknown_paths(api: RunningApi) -> None:
    http = urllib3.PoolManager()
    for path in ("/2015-03-31/nothing", "//2015-03-31/functions", "/2015-03-31/functions//policy"):
        request = sign(time.time(), method="GET", path=path, body=b"")
        answer = http.urlopen(
            "GET", api.url + path, headers={n.decode(): v.decode() for n, v in request.headers}
        )
        assert (answer.status, msgspec.json.decode(answer.data)) == (
            403,
            {"Message": "Unable to determine service/operation name to be authorized"},
        )
