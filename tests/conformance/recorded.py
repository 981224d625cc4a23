"""What the tests that compare with AWS's recorded answers share: whole answers, and values that vary."""

import re
import time
from typing import Any

from botocore.exceptions import ClientError

from tests.running import ACCOUNT, PYTHON_RUNTIME, REGION, ROLE, RunningStoker, python_zip

ECHO = python_zip("def lambda_handler(event, context):\n    return event\n")
OTHER = python_zip("def lambda_handler(event, context):\n    return 'other'\n")

SETTLED_WITHIN_S = 30.0


class Like(str):
    """A string that equals every string that its pattern matches whole."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and re.fullmatch(str(self), other) is not None

    __hash__ = str.__hash__


UUID = Like(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
MOMENT = Like(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000")
SHA256 = Like(r"[0-9A-Za-z+/]{43}=")
RUNTIME_VERSION = {"RuntimeVersionArn": Like(rf"arn:aws:lambda:{REGION}::runtime:[0-9a-f]{{64}}")}

PENDING = {
    "State": "Pending",
    "StateReason": "The function is being created.",
    "StateReasonCode": "Creating",
}
ACTIVE = {"State": "Active", "LastUpdateStatus": "Successful"}
UPDATING = {
    "State": "Active",
    "LastUpdateStatus": "InProgress",
    "LastUpdateStatusReason": "The function is being created.",
    "LastUpdateStatusReasonCode": "Creating",
}


def answer(call: Any, **arguments: Any) -> dict[str, Any]:
    """All members of an answer or an error as boto3 shows them, with the HTTP status as ``HTTP``."""
    try:
        shown = dict(call(**arguments))
    except ClientError as refused:
        shown = dict(refused.response)
    status = shown.pop("ResponseMetadata")["HTTPStatusCode"]
    return {**shown, "HTTP": status}


def refusal(code: str, words: str, status: int = 400, /, **members: str) -> dict[str, Any]:
    """An error whose members are only its code and message."""
    return {"Error": {"Code": code, "Message": words}, "HTTP": status, **members}


def invalid(message: str) -> dict[str, Any]:
    """InvalidParameterValueException with the members that AWS gives it."""
    return refusal("InvalidParameterValueException", message, Type="User", message=message)


def violates(value: str, member: str, rule: str) -> dict[str, Any]:
    """ValidationException for one member."""
    words = f"Value {value} at '{member}' failed to satisfy constraint: {rule}"
    return refusal("ValidationException", f"1 validation error detected: {words}")


def not_found(name: str) -> dict[str, Any]:
    """ResourceNotFoundException for a function, or a version of one."""
    message = f"Function not found: {arn(name)}"
    return refusal("ResourceNotFoundException", message, 404, Type="User", Message=message)


def arn(name: str) -> str:
    """The ARN of a function of the tests' account."""
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


def configuration(name: str, *changes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A function's configuration with AWS's defaults; members set to None are absent."""
    shown: dict[str, Any] = {
        "Architectures": ["x86_64"],
        "CodeSha256": SHA256,
        "CodeSize": len(ECHO),
        "Description": "",
        "EphemeralStorage": {"Size": 512},
        "FunctionArn": arn(name),
        "FunctionName": name,
        "Handler": "lambda_function.lambda_handler",
        "LastModified": MOMENT,
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{name}"},
        "MemorySize": 128,
        "PackageType": "Zip",
        "RevisionId": UUID,
        "Role": ROLE,
        "Runtime": PYTHON_RUNTIME,
        "RuntimeVersionConfig": RUNTIME_VERSION,
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "Timeout": 3,
        "TracingConfig": {"Mode": "PassThrough"},
        "Version": "$LATEST",
    }
    for change in (*changes, more):
        shown |= change
    return {member: value for member, value in shown.items() if value is not None}


def creation(name: str, **changes: Any) -> dict[str, Any]:
    """The arguments of CreateFunction."""
    return {
        "FunctionName": name,
        "Role": ROLE,
        "Runtime": PYTHON_RUNTIME,
        "Handler": "lambda_function.lambda_handler",
        "Code": {"ZipFile": ECHO},
        **changes,
    }


def settled(stoker: RunningStoker, name: str) -> dict[str, Any]:
    """Wait for a creation or an update to end, as boto3's waiters do; the configuration then."""
    service = stoker.client("lambda")
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while time.monotonic() < deadline:
        shown = service.get_function_configuration(FunctionName=name)
        if shown["State"] != "Pending" and shown.get("LastUpdateStatus") != "InProgress":
            return shown
        time.sleep(0.02)
    raise AssertionError(f"{name} is still being created or updated")


def created(stoker: RunningStoker, name: str, **changes: Any) -> dict[str, Any]:
    """Create a function and wait for it; what CreateFunction answered."""
    shown = answer(stoker.client("lambda").create_function, **creation(name, **changes))
    assert shown["HTTP"] == 201, shown
    assert settled(stoker, name)["State"] == "Active"
    return shown
