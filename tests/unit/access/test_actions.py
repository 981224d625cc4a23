"""Every operation that is routed has its row: action, resource, condition keys."""

from typing import Any

import msgspec
import pytest

from stoker.api.generate import IAM_OPERATIONS, LOG_OPERATIONS, STS_OPERATIONS
from stoker.control.access.lambda_actions import LAMBDA_ACTIONS, action_of
from stoker.control.access.other_actions import IAM_ACTIONS, LOGS_ACTIONS, STS_UNCHECKED
from stoker.services import lambda_types
from stoker.services.context import RequestContext

ACCOUNT, OTHER, REGION = "111111111111", "222222222222", "us-east-1"
LAMBDA = f"arn:aws:lambda:{REGION}:{ACCOUNT}"
CONTEXT = RequestContext(
    request_id="r",
    account=ACCOUNT,
    region=REGION,
    access_key_id="AKIA",
    principal_arn=f"arn:aws:iam::{ACCOUNT}:user/u",
    source_ip="127.0.0.1",
    endpoint="http://127.0.0.1:9797",
)


def test_no_operation_is_without_a_row() -> None:
    assert LAMBDA_ACTIONS.keys() == lambda_types.INPUT.keys()
    assert LOGS_ACTIONS.keys() == set(LOG_OPERATIONS)
    assert IAM_ACTIONS.keys() == set(IAM_OPERATIONS)
    assert set(STS_OPERATIONS) == STS_UNCHECKED


ROWS: list[tuple[str, dict[str, Any], str, str]] = [
    ("GetFunction", {"FunctionName": "f"}, "lambda:GetFunction", f"{LAMBDA}:function:f"),
    ("GetFunction", {"FunctionName": "f:prod"}, "lambda:GetFunction", f"{LAMBDA}:function:f:prod"),
    (
        "GetFunction",
        {"FunctionName": "f", "Qualifier": "3"},
        "lambda:GetFunction",
        f"{LAMBDA}:function:f:3",
    ),
    (
        "GetFunction",
        {"FunctionName": f"arn:aws:lambda:{REGION}:{OTHER}:function:f"},
        "lambda:GetFunction",
        f"arn:aws:lambda:{REGION}:{OTHER}:function:f",
    ),
    ("ListFunctions", {}, "lambda:ListFunctions", "*"),
    ("Invoke", {"FunctionName": "f"}, "lambda:InvokeFunction", f"{LAMBDA}:function:f"),
    (
        "ListTags",
        {"Resource": f"{LAMBDA}:function:f"},
        "lambda:ListTags",
        f"{LAMBDA}:function:f",
    ),
    (
        "GetLayerVersion",
        {"LayerName": "l", "VersionNumber": 2},
        "lambda:GetLayerVersion",
        f"{LAMBDA}:layer:l:2",
    ),
    ("GetLayerVersionByArn", {"Arn": f"{LAMBDA}:layer:l:2"}, "lambda:GetLayerVersion", f"{LAMBDA}:layer:l:2"),
    (
        "PublishLayerVersion",
        {"LayerName": "l", "Content": {}},
        "lambda:PublishLayerVersion",
        f"{LAMBDA}:layer:l",
    ),
    (
        "DeleteEventSourceMapping",
        {"UUID": "u-u"},
        "lambda:DeleteEventSourceMapping",
        f"{LAMBDA}:event-source-mapping:u-u",
    ),
    ("CreateEventSourceMapping", {"FunctionName": "f"}, "lambda:CreateEventSourceMapping", "*"),
    (
        "GetCodeSigningConfig",
        {"CodeSigningConfigArn": f"{LAMBDA}:code-signing-config:csc-1"},
        "lambda:GetCodeSigningConfig",
        f"{LAMBDA}:code-signing-config:csc-1",
    ),
]


@pytest.mark.parametrize(("operation", "members", "action", "resource"), ROWS)
def test_rows(operation: str, members: dict[str, Any], action: str, resource: str) -> None:
    request_type = lambda_types.INPUT.get(operation)
    assert request_type is not None
    # Invoke's body is no member of a JSON object, and not what this is about.
    request = msgspec.convert(members, request_type)
    question = LAMBDA_ACTIONS[operation](CONTEXT, request, action_of(operation))
    assert (question.action, question.resource) == (action, resource)
    assert question.account == (OTHER if OTHER in resource else ACCOUNT)


KEYS: list[tuple[str, dict[str, Any], str, Any]] = [
    (
        "UpdateEventSourceMapping",
        {"UUID": "u", "FunctionName": "f"},
        "lambda:functionarn",
        f"{LAMBDA}:function:f",
    ),
    (
        "AddPermission",
        {"FunctionName": "f", "StatementId": "s", "Action": "lambda:*", "Principal": "s3.amazonaws.com"},
        "lambda:principal",
        "s3.amazonaws.com",
    ),
    (
        "UpdateFunctionConfiguration",
        {"FunctionName": "f", "Layers": [f"{LAMBDA}:layer:l:2"]},
        "lambda:layer",
        (f"{LAMBDA}:layer:l:2",),
    ),
    (
        "UpdateFunctionConfiguration",
        {"FunctionName": "f", "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}},
        "lambda:subnetids",
        ("subnet-1",),
    ),
    ("TagResource", {"Resource": f"{LAMBDA}:function:f", "Tags": {"Team": "a"}}, "aws:requesttag/team", "a"),
    ("TagResource", {"Resource": f"{LAMBDA}:function:f", "Tags": {"Team": "a"}}, "aws:tagkeys", ("Team",)),
    (
        "CreateFunctionUrlConfig",
        {"FunctionName": "f", "AuthType": "NONE"},
        "lambda:functionurlauthtype",
        "NONE",
    ),
]


@pytest.mark.parametrize(("operation", "members", "name", "value"), KEYS)
def test_condition_keys(operation: str, members: dict[str, Any], name: str, value: Any) -> None:
    request_type = lambda_types.INPUT.get(operation)
    assert request_type is not None
    question = LAMBDA_ACTIONS[operation](CONTEXT, msgspec.convert(members, request_type), "lambda:X")
    assert question.keys[name] == value
