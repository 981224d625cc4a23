"""The life of a function, driven by boto3 and compared with what AWS Lambda answers."""

import base64
import hashlib
import re
import urllib.request
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.running import PYTHON_RUNTIME, ROLE, RunningStoker, python_zip

ECHO = "def lambda_handler(event, context):\n    return event\n"
SECOND = "def lambda_handler(event, context):\n    return 'second'\n"


def error_of(call: Any, **arguments: Any) -> tuple[str, str, int]:
    """(code, message, status) of a call that must be refused."""
    with pytest.raises(ClientError) as refused:
        call(**arguments)
    answer = refused.value.response
    return answer["Error"]["Code"], answer["Error"]["Message"], answer["ResponseMetadata"]["HTTPStatusCode"]


def create_arguments(name: str, **changes: Any) -> dict[str, Any]:
    arguments = {
        "FunctionName": name,
        "Role": ROLE,
        "Runtime": PYTHON_RUNTIME,
        "Handler": "lambda_function.lambda_handler",
        "Code": {"ZipFile": python_zip(ECHO)},
    }
    return {**arguments, **changes}


def test_create_answers_as_lambda_does(stoker: RunningStoker) -> None:
    archive = python_zip(ECHO)
    answer = stoker.client("lambda").create_function(**create_arguments("shape", Code={"ZipFile": archive}))
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.pop("RevisionId"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000", answer.pop("LastModified"))
    assert answer.pop("RuntimeVersionConfig")["RuntimeVersionArn"].startswith(
        "arn:aws:lambda:us-east-1::runtime:"
    )
    del answer["ResponseMetadata"]
    assert answer == {
        "FunctionName": "shape",
        "FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:shape",
        "Runtime": PYTHON_RUNTIME,
        "Role": ROLE,
        "Handler": "lambda_function.lambda_handler",
        "CodeSize": len(archive),
        "Description": "",
        "Timeout": 3,
        "MemorySize": 128,
        "CodeSha256": base64.b64encode(hashlib.sha256(archive).digest()).decode(),
        "Version": "$LATEST",
        "TracingConfig": {"Mode": "PassThrough"},
        "State": "Pending",
        "StateReason": "The function is being created.",
        "StateReasonCode": "Creating",
        "PackageType": "Zip",
        "Architectures": ["x86_64"],
        "EphemeralStorage": {"Size": 512},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/shape"},
    }


def test_get_function_code_location_returns_the_uploaded_bytes(stoker: RunningStoker) -> None:
    archive = python_zip(ECHO)
    stoker.create("located", archive, Runtime=PYTHON_RUNTIME, Handler="lambda_function.lambda_handler")
    answer = stoker.client("lambda").get_function(FunctionName="located")
    assert answer["Code"]["RepositoryType"] == "S3"
    assert answer["Configuration"]["State"] == "Active"
    assert answer["Configuration"]["LastUpdateStatus"] == "Successful"
    location = answer["Code"]["Location"]
    with urllib.request.urlopen(location) as download:
        assert download.read() == archive
    broken = location[:-4] + ("aaaa" if not location.endswith("aaaa") else "bbbb")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(broken)
    assert refused.value.code == 403


def test_update_code_and_configuration_take_effect(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    created = stoker.create_python("updated", ECHO)
    assert stoker.invoke("updated", {"a": 1}) == {"a": 1}
    answer = service.update_function_code(FunctionName="updated", ZipFile=python_zip(SECOND))
    assert answer["LastUpdateStatus"] == "InProgress"
    assert answer["RevisionId"] != created["RevisionId"]
    service.get_waiter("function_updated_v2").wait(FunctionName="updated", WaiterConfig={"Delay": 1})
    assert stoker.invoke("updated") == "second"
    service.update_function_configuration(
        FunctionName="updated", Environment={"Variables": {"GREETING": "hello"}}, Timeout=7, MemorySize=256
    )
    service.get_waiter("function_updated_v2").wait(FunctionName="updated", WaiterConfig={"Delay": 1})
    shown = service.get_function_configuration(FunctionName="updated")
    assert (shown["Timeout"], shown["MemorySize"]) == (7, 256)
    assert shown["Environment"] == {"Variables": {"GREETING": "hello"}}


def test_dry_run_of_a_code_update_changes_nothing(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    stoker.create_python("dry", ECHO)
    before = service.get_function_configuration(FunctionName="dry")
    service.update_function_code(FunctionName="dry", ZipFile=python_zip(SECOND), DryRun=True)
    after = service.get_function_configuration(FunctionName="dry")
    assert (after["CodeSha256"], after["RevisionId"]) == (before["CodeSha256"], before["RevisionId"])


def test_a_wrong_revision_is_refused(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    stoker.create_python("revised", ECHO)
    code, message, status = error_of(
        service.update_function_code,
        FunctionName="revised",
        ZipFile=python_zip(SECOND),
        RevisionId="00000000-0000-4000-8000-000000000000",
    )
    assert (code, status) == ("PreconditionFailedException", 412)
    assert message.startswith("The Revision Id provided does not match the latest Revision Id.")


def test_listing_pages_through_every_function(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    names = [f"listed-{number:02d}" for number in range(5)]
    for name in names:
        service.create_function(**create_arguments(name))
    pages = list(service.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2}))
    found = [function["FunctionName"] for page in pages for function in page["Functions"]]
    assert [name for name in found if name.startswith("listed-")] == names
    assert all(len(page["Functions"]) <= 2 for page in pages)
    assert "State" not in pages[0]["Functions"][0]


def test_deletion(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    stoker.create_python("deleted", ECHO)
    assert service.delete_function(FunctionName="deleted")["ResponseMetadata"]["HTTPStatusCode"] == 204
    missing = "Function not found: arn:aws:lambda:us-east-1:000000000000:function:deleted"
    for call in (service.delete_function, service.get_function_configuration, service.get_function):
        assert error_of(call, FunctionName="deleted") == ("ResourceNotFoundException", missing, 404)
    assert error_of(service.invoke, FunctionName="deleted") == ("ResourceNotFoundException", missing, 404)


def test_a_second_function_of_the_same_name(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    stoker.create_python("taken", ECHO)
    code, message, status = error_of(service.create_function, **create_arguments("taken"))
    assert (code, status) == ("ResourceConflictException", 409)
    assert message == "Function already exist: taken"


ROLE_PATTERN = r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+"

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (
        {"Role": "r1"},
        "ValidationException",
        "1 validation error detected: Value 'r1' at 'role' failed to satisfy constraint: "
        f"Member must satisfy regular expression pattern: {ROLE_PATTERN}",
    ),
    (
        {"Code": {"ZipFile": b"this is not a zip"}},
        "InvalidParameterValueException",
        "Could not unzip uploaded file. Please check your file, then try to upload again.",
    ),
    (
        {"Architectures": ["x86_64", "arm64"]},
        "ValidationException",
        "1 validation error detected: Value '[x86_64, arm64]' at 'architectures' failed to satisfy constraint: "
        "Member must have length less than or equal to 1",
    ),
    (
        {"Architectures": ["X86_64"]},
        "ValidationException",
        "1 validation error detected: Value '[X86_64]' at 'architectures' failed to satisfy constraint: Member must "
        "satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]",
    ),
]


@pytest.mark.parametrize(("change", "code", "message"), REFUSED, ids=[str(row[0])[:40] for row in REFUSED])
def test_bad_input_is_refused_in_lambdas_words(
    stoker: RunningStoker, change: dict[str, Any], code: str, message: str
) -> None:
    service = stoker.client("lambda")
    assert error_of(service.create_function, **create_arguments("refused", **change)) == (code, message, 400)
    assert error_of(service.get_function, FunctionName="refused")[2] == 404


def test_an_unknown_runtime_is_refused(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    code, message, status = error_of(service.create_function, **create_arguments("odd", Runtime="cobol85"))
    assert (code, status) == ("InvalidParameterValueException", 400)
    assert message.startswith(
        "Value cobol85 at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: ["
    )
    assert message.endswith("] or be a valid ARN")


def test_an_environment_over_4_kb_is_refused(stoker: RunningStoker) -> None:
    variables = {"LARGE_VAR": "x" * 4096}
    code, message, status = error_of(
        stoker.client("lambda").create_function,
        **create_arguments("large-env", Environment={"Variables": variables}),
    )
    assert (code, status) == ("InvalidParameterValueException", 400)
    assert message.startswith(
        "Lambda was unable to configure your environment variables because the environment variables you have "
        'provided exceeded the 4KB limit. String measured: {"LARGE_VAR":"xxx'
    )


def test_what_is_not_built_yet_says_so(stoker: RunningStoker) -> None:
    code, message, status = error_of(
        stoker.client("lambda").list_durable_executions_by_function, FunctionName="any"
    )
    assert (code, status) == ("NotImplementedException", 501)
    assert "ListDurableExecutionsByFunction" in message


def test_reserved_concurrency_is_kept(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    stoker.create_python("reserved", ECHO)
    answer = service.put_function_concurrency(FunctionName="reserved", ReservedConcurrentExecutions=2)
    assert answer["ReservedConcurrentExecutions"] == 2
    assert service.get_function(FunctionName="reserved")["Concurrency"] == {"ReservedConcurrentExecutions": 2}
    service.delete_function_concurrency(FunctionName="reserved")
    assert "Concurrency" not in service.get_function(FunctionName="reserved")


@pytest.mark.parametrize(
    "identifier",
    [
        "named",
        "named:$LATEST",
        "function:named",
        "000000000000:named",
        "000000000000:function:named",
        "arn:aws:lambda:us-east-1:000000000000:function:named",
        "arn:aws:lambda:us-east-1:000000000000:function:named:$LATEST",
    ],
)
def test_every_form_of_a_name(stoker: RunningStoker, identifier: str) -> None:
    service = stoker.client("lambda")
    try:
        service.get_function(FunctionName="named")
    except ClientError:
        stoker.create_python("named", ECHO)
    assert service.get_function(FunctionName=identifier)["Configuration"]["FunctionName"] == "named"
    assert stoker.invoke(identifier, {"x": 1}) == {"x": 1}
