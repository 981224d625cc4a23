"""What AWS refuses, in its words (recorded), and what is not built yet, said clearly."""

from typing import Any

import msgspec
import pytest

from stoker.control.runtimes import SUPPORTED
from tests.unit.control.desk import ACCOUNT, CONTEXT, REGION, ROLE, Desk, Runtimes, arn, zipped

INVALID, CONFLICT, MISSING, VALIDATION, UNBUILT, PRECONDITION = (
    "InvalidParameterValueException",
    "ResourceConflictException",
    "ResourceNotFoundException",
    "ValidationException",
    "NotImplementedException",
    "PreconditionFailedException",
)
ROLE_RULE = (
    "1 validation error detected: Value 'r1' at 'role' failed to satisfy constraint: Member must satisfy "
    r"regular expression pattern: arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+"
)
UNZIP = "Could not unzip uploaded file. Please check your file, then try to upload again."
BIG = {"LARGE_VAR": "x" * 4082}

NO_SUBNET = (
    "Error occurred while DescribeSubnets. EC2 Error Code: InvalidSubnetID.NotFound. "
    "EC2 Error Message: The subnet ID 'subnet-1' does not exist"
)

CREATE = {
    "snap start of a runtime without": (
        {"Runtime": "python3.11", "SnapStart": {"ApplyOn": "PublishedVersions"}},
        INVALID,
        "python3.11 is not supported for SnapStart enabled functions.",
    ),
    "a dead letter target that is no ARN": (
        {"DeadLetterConfig": {"TargetArn": "queue"}},
        INVALID,
        "Invalid dead letter ARN: ARNs must start with 'arn:'",
    ),
    "a dead letter target of another service": (
        {"DeadLetterConfig": {"TargetArn": f"arn:aws:s3:{REGION}:{ACCOUNT}:bucket"}},
        INVALID,
        f"Invalid dead letter ARN: arn:aws:s3:{REGION}:{ACCOUNT}:bucket is not the ARN of an SQS queue or an "
        "SNS topic",
    ),
    "a FIFO dead letter queue": (
        {"DeadLetterConfig": {"TargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:q.fifo"}},
        INVALID,
        f"Invalid dead letter ARN: arn:aws:sqs:{REGION}:{ACCOUNT}:q.fifo is a FIFO resource, which cannot take "
        "dead letters",
    ),
    "NUL in the handler": ({"Handler": "a\0.b"}, INVALID, "Handler must not hold NUL characters."),
    "a subnet": (
        {"VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}},
        INVALID,
        NO_SUBNET,
    ),
    "a subnet without a security group": (
        {"VpcConfig": {"SubnetIds": ["subnet-1"]}},
        INVALID,
        "SubnetIds and SecurityIds must coexist or be both empty list.",
    ),
    "role": ({"Role": "r1"}, VALIDATION, ROLE_RULE),
    "unknown runtime": (
        {"Runtime": "PYTHON3.9"},
        INVALID,
        "Value PYTHON3.9 at 'runtime' failed to satisfy constraint: "
        f"Member must satisfy enum value set: [{SUPPORTED}] or be a valid ARN",
    ),
    "retired runtime": (
        {"Runtime": "python2.7"},
        INVALID,
        "The runtime parameter of python2.7 is no longer supported for creating or updating AWS Lambda "
        "functions. We recommend you use the new runtime (python3.14) while creating or updating functions.",
    ),
    "runtime that is not here": (
        {"Runtime": "java21"},
        INVALID,
        "The runtime java21 (x86_64) is not available here: install a JDK",
    ),
    "architecture that is not here": (
        {"Architectures": ["arm64"]},
        INVALID,
        "The runtime python3.12 (arm64) is not available here: this host is x86_64",
    ),
    "no runtime": (
        {"Runtime": None},
        INVALID,
        "Runtime and Handler are mandatory parameters for functions created with deployment packages.",
    ),
    "no handler": (
        {"Handler": None},
        INVALID,
        "Runtime and Handler are mandatory parameters for functions created with deployment packages.",
    ),
    "not a zip": ({"Code": {"ZipFile": b"zipfile"}}, INVALID, UNZIP),
    "empty zip": ({"Code": {"ZipFile": b""}}, INVALID, "Uploaded file must be a non-empty zip"),
    "no code": ({"Code": {}}, INVALID, "Please provide a source for function code."),
    "bucket alone": ({"Code": {"S3Bucket": "abc"}}, INVALID, "Please provide a source for function code."),
    "two sources": (
        {"Code": {"ZipFile": zipped(), "S3Bucket": "abc", "S3Key": "k"}},
        INVALID,
        "Please do not provide other FunctionCode parameters when providing a ZipFile.",
    ),
    "no such bucket": (
        {"Code": {"S3Bucket": "nothing", "S3Key": "k"}},
        INVALID,
        "Error occurred while GetObject. S3 Error Code: NoSuchBucket. "
        "S3 Error Message: The specified bucket does not exist",
    ),
    "no such key": (
        {"Code": {"S3Bucket": "bucket", "S3Key": "nothing"}},
        INVALID,
        "Error occurred while GetObject. S3 Error Code: NoSuchKey. "
        "S3 Error Message: The specified key does not exist.",
    ),
    "zip over 50 MB": (
        {"Code": {"ZipFile": b"x" * 52_428_801}},
        "RequestEntityTooLargeException",
        "Request must be smaller than 70167211 bytes for the CreateFunction operation",
    ),
    "environment over 4 KB": (
        {"Environment": {"Variables": BIG}},
        INVALID,
        "Lambda was unable to configure your environment variables because the environment variables you have "
        f'provided exceeded the 4KB limit. String measured: {{"LARGE_VAR":"{"x" * 4082}"}}',
    ),
    "reserved variables": (
        {"Environment": {"Variables": {"AWS_REGION": "x", "OK": "y", "AWS_ACCESS_KEY_ID": "z"}}},
        INVALID,
        "Lambda was unable to configure your environment variables because the environment variables you have "
        "provided contains reserved keys that are currently not supported for modification. Reserved keys used "
        "in this request: AWS_ACCESS_KEY_ID, AWS_REGION",
    ),
    "timeout": (
        {"Timeout": 901},
        VALIDATION,
        "1 validation error detected: Value '901' at 'timeout' failed to satisfy constraint: "
        "Member must have value less than or equal to 900",
    ),
    "memory": (
        {"MemorySize": 10_241},
        INVALID,
        "'MemorySize' value failed to satisfy constraint: Member must have value less than or equal to 10240",
    ),
    "too many tags": (
        {"Tags": {f"k{number}": "v" for number in range(51)}},
        INVALID,
        "Number of tags exceeds resource tag limit.",
    ),
    "level with text logs": (
        {"LoggingConfig": {"ApplicationLogLevel": "DEBUG"}},
        INVALID,
        'LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or '
        'change the LogFormat to "JSON" and try again.',
    ),
    "long name": (
        {"FunctionName": "n" * 65},
        VALIDATION,
        f"1 validation error detected: Value '{'n' * 65}' at 'functionName' failed to satisfy constraint: "
        "Member must have length less than or equal to 64",
    ),
}

NOT_BUILT = {
    "durable": ({"DurableConfig": {"ExecutionTimeout": 60}}, "DurableConfig"),
    "tenancy": ({"TenancyConfig": {"TenantIsolationMode": "PER_TENANT"}}, "TenancyConfig"),
    "reference mode": (
        {"Code": {"S3Bucket": "bucket", "S3Key": "k", "S3ObjectStorageMode": "REFERENCE"}},
        "REFERENCE",
    ),
}


@pytest.mark.parametrize("name", CREATE)
async def test_creation_is_refused(desk: Desk, name: str) -> None:
    members, code, message = CREATE[name]
    desk.objects.objects["bucket", "k"] = zipped()
    given = {
        "FunctionName": "fn",
        "Role": ROLE,
        "Runtime": "python3.12",
        "Handler": "handler.handler",
        "Code": {"ZipFile": zipped()},
    }
    assert await desk.refusal("CreateFunction", **(given | members)) == (code, message)
    assert await desk.code.stored() == []
    assert (await desk.ask("ListFunctions"))["Functions"] == []


@pytest.mark.parametrize("name", NOT_BUILT)
async def test_what_is_not_built_says_so(desk: Desk, name: str) -> None:
    members, named = NOT_BUILT[name]
    given: dict[str, Any] = {
        "FunctionName": "fn",
        "Role": ROLE,
        "Runtime": "python3.12",
        "Handler": "handler.handler",
        "Code": {"ZipFile": zipped()},
    }
    code, message = await desk.refusal("CreateFunction", **(given | members))
    assert code == UNBUILT
    assert named in message
    assert message.endswith("is not implemented yet.")


async def test_an_environment_just_below_the_limit_is_taken(desk: Desk) -> None:
    variables = {"LARGE_VAR": "x" * (4096 - len('{"LARGE_VAR":""}'))}
    assert (await desk.create(Environment={"Variables": variables}))["Environment"]["Variables"] == variables


async def test_a_name_is_taken_once(desk: Desk) -> None:
    await desk.create()
    with_arn = {"FunctionName": arn("fn"), "Role": ROLE, "Runtime": "python3.12", "Handler": "h.h"}
    assert await desk.refusal("CreateFunction", **with_arn, Code={"ZipFile": zipped()}) == (
        CONFLICT,
        "Function already exist: fn",
    )


async def test_code_from_s3_is_taken(desk: Desk) -> None:
    desk.objects.objects["bucket", "k"] = zipped()
    created = await desk.create(Code={"S3Bucket": "bucket", "S3Key": "k"})
    assert created["CodeSize"] == len(zipped())


@pytest.mark.parametrize("operation", ["GetFunction", "GetFunctionConfiguration"])
@pytest.mark.parametrize("qualifier", ["1221", "alias"])
async def test_unknown_qualifiers_are_not_found(desk: Desk, operation: str, qualifier: str) -> None:
    await desk.active()
    assert await desk.refusal(operation, FunctionName="fn", Qualifier=qualifier) == (
        MISSING,
        f"Function not found: {arn('fn')}:{qualifier}",
    )


@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("GetFunction", {}),
        ("GetFunctionConfiguration", {}),
        ("DeleteFunction", {}),
        ("UpdateFunctionCode", {"ZipFile": zipped()}),
        ("UpdateFunctionConfiguration", {}),
        ("GetFunctionConcurrency", {}),
        ("PutFunctionConcurrency", {"ReservedConcurrentExecutions": 1}),
        ("DeleteFunctionConcurrency", {}),
    ],
)
async def test_unknown_functions_are_not_found_and_other_accounts_are_closed(
    desk: Desk, operation: str, members: dict[str, Any]
) -> None:
    assert await desk.refusal(operation, FunctionName="nothing", **members) == (
        MISSING,
        f"Function not found: {arn('nothing')}",
    )
    foreign = f"arn:aws:lambda:{REGION}:999999999999:function:fn"
    code, message = await desk.refusal(operation, FunctionName=foreign, **members)
    assert code == "AccessDeniedException"
    assert message.startswith(
        f"User: {CONTEXT.principal_arn} is not authorized to perform: lambda:{operation} on resource: {foreign}"
    )


async def test_deleting_with_a_qualifier(desk: Desk) -> None:
    await desk.active()
    for qualifier, message in (
        ("$LATEST", "$LATEST version cannot be deleted without deleting the function."),
        ("alias", "Deletion of aliases is not currently supported."),
    ):
        refused = await desk.refusal("DeleteFunction", FunctionName="fn", Qualifier=qualifier)
        assert refused == (INVALID, message)
    assert await desk.ask("DeleteFunction", FunctionName="fn", Qualifier="7") == {"StatusCode": 204}
    assert await desk.ask("GetFunction", FunctionName="fn")


@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("UpdateFunctionCode", {"ZipFile": zipped("x = 2")}),
        ("UpdateFunctionConfiguration", {"Timeout": 9}),
    ],
)
async def test_updates_are_guarded_by_revision_and_state(
    desk: Desk, operation: str, members: dict[str, Any]
) -> None:
    desk.code.gate.clear()
    await desk.create()
    assert await desk.refusal(operation, FunctionName="fn", **members) == (
        CONFLICT,
        "The operation cannot be performed at this time. "
        "The function is currently in the following state: Pending",
    )
    desk.code.gate.set()
    await desk.settled()
    desk.code.gate.clear()
    assert await desk.refusal(operation, FunctionName="fn", RevisionId="wrong", **members) == (
        PRECONDITION,
        "The Revision Id provided does not match the latest Revision Id. "
        "Call the GetFunction/GetAlias API to retrieve the latest Revision Id",
    )
    revision = (await desk.ask("GetFunction", FunctionName="fn"))["Configuration"]["RevisionId"]
    await desk.ask(operation, FunctionName="fn", RevisionId=revision, **members)
    assert await desk.refusal(operation, FunctionName="fn", **members) == (
        CONFLICT,
        f"The operation cannot be performed at this time. An update is in progress for resource: {arn('fn')}",
    )


@pytest.mark.parametrize(
    ("operation", "members", "code", "message"),
    [
        ("UpdateFunctionConfiguration", {"Role": "r1"}, VALIDATION, ROLE_RULE),
        ("UpdateFunctionConfiguration", {"Runtime": "java21"}, INVALID, None),
        ("UpdateFunctionConfiguration", {"Environment": {"Variables": BIG}}, INVALID, None),
        ("UpdateFunctionCode", {"ZipFile": b"zip"}, INVALID, UNZIP),
        (
            "UpdateFunctionCode",
            {"ImageUri": "x"},
            INVALID,
            "Please don't provide ImageUri when updating a function with packageType Zip.",
        ),
        ("UpdateFunctionCode", {}, INVALID, "Please provide a source for function code."),
        ("UpdateFunctionCode", {"ZipFile": zipped(), "Architectures": ["arm64"]}, INVALID, None),
    ],
)
async def test_a_refused_update_changes_nothing(
    desk: Desk, operation: str, members: dict[str, Any], code: str, message: str | None
) -> None:
    await desk.active()
    before = await desk.ask("GetFunctionConfiguration", FunctionName="fn")
    refused = await desk.refusal(operation, FunctionName="fn", **members)
    assert refused == (code, message or refused[1])
    assert await desk.ask("GetFunctionConfiguration", FunctionName="fn") == before


async def test_code_storage_is_bounded(tmp_path: Any) -> None:
    desk = Desk(tmp_path, code_storage_max_bytes=len(zipped()) + 10)
    await desk.active("one")
    given = {"Role": ROLE, "Runtime": "python3.12", "Handler": "h.h", "Code": {"ZipFile": zipped("x = 2")}}
    assert await desk.refusal("CreateFunction", FunctionName="two", **given) == (
        "CodeStorageExceededException",
        "Code storage limit exceeded.",
    )
    assert len(await desk.code.stored()) == 1
    big = zipped("x = 2" * 10)
    assert await desk.refusal("UpdateFunctionCode", FunctionName="one", ZipFile=big) == (
        "CodeStorageExceededException",
        "Code storage limit exceeded.",
    )
    assert len(await desk.code.stored()) == 1
    await desk.ask("DeleteFunction", FunctionName="one")
    assert (await desk.ask("CreateFunction", FunctionName="two", **given))["State"] == "Pending"
    await desk.settled()


def test_the_fake_of_runtime_support_says_what_the_tests_rely_on() -> None:
    assert Runtimes().missing("python3.12", "x86_64") is None
    assert msgspec.structs.asdict(CONTEXT)["account"] == ACCOUNT
