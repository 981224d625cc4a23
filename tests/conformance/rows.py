"""One good request of every operation that is served, what it stands on, and how a success is taken back."""

import base64
import json
from collections.abc import Callable
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from tests.conformance.recorded import ECHO, arn, created, creation
from tests.running import ACCOUNT, REGION, ROLE, RunningStoker

NAME = "mutated"
GROUP = "/mutated"
LAYER = "mutated-layer"
ENTITY = "mutated-entity"
LAYER_ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:{LAYER}"
POLICY_ARN = f"arn:aws:iam::{ACCOUNT}:policy/{ENTITY}"
BOUNDARY = POLICY_ARN
SIGNER = f"arn:aws:signer:{REGION}:{ACCOUNT}:/signing-profiles/test"
SIGNING = f"arn:aws:lambda:{REGION}:{ACCOUNT}:code-signing-config:csc-00000000000000000"
SOURCE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:q"
MAPPING = "00000000-0000-4000-8000-000000000000"
ZIP = base64.b64encode(ECHO).decode()
POLICY = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "lambda:*", "Resource": "*"}]}
)
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"},
        ],
    }
)
RESOURCE_POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "s",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
                "Action": "lambda:InvokeFunction",
                "Resource": arn(NAME),
            }
        ],
    }
)
PERMISSION = {
    "StatementId": "s",
    "Action": "lambda:InvokeFunction",
    "Principal": "s3.amazonaws.com",
    "SourceAccount": ACCOUNT,
}

Request = tuple[str, dict[str, Any]]
Undo = Callable[[dict[str, Any], Any], Request]
"""From the members that were sent and the answer to the request that takes it back."""


class Row(NamedTuple):
    """Members of a request, and the undoing of it."""

    members: dict[str, Any]
    undo: Undo | None = None


def back(operation: str, *kept: str, **shown: str) -> Undo:
    """Undo by an operation that takes ``kept`` as they were sent and ``shown`` as they were answered."""

    def undo(sent: dict[str, Any], answer: Any) -> Request:
        taken = {name: sent[name] for name in kept if name in sent}
        return operation, {**taken, **{name: _found(answer, member) for name, member in shown.items()}}

    return undo


def again(service: str, operation: str) -> Undo:
    """Undo of a deletion: the request of another row."""
    return lambda sent, answer: (operation, ROWS[service][operation].members)


def _found(answer: Any, member: str) -> Any:
    if isinstance(answer, Element):
        return next(each.text for each in answer.iter() if each.tag.endswith(f"}}{member}"))
    return answer[member]


_FUNCTION = {"FunctionName": NAME}
_ONE = {"FunctionName": NAME, "Qualifier": "1"}
_LAYER = {"LayerName": LAYER, "VersionNumber": 1}
_CONFIG = {"FunctionName": NAME, "MaximumRetryAttempts": 1, "MaximumEventAgeInSeconds": 60}
_PROVIDER = {"CapacityProviderName": NAME}

LAMBDA_ROWS: dict[str, Row] = {
    "CreateFunction": Row(
        creation("mutated-new", Code={"ZipFile": ZIP}),
        back("DeleteFunction", FunctionName="FunctionName"),
    ),
    "GetFunction": Row(_FUNCTION),
    "GetFunctionConfiguration": Row(_FUNCTION),
    "ListFunctions": Row({}),
    "UpdateFunctionCode": Row({"FunctionName": NAME, "ZipFile": ZIP}),
    "UpdateFunctionConfiguration": Row(_FUNCTION),
    "DeleteFunction": Row({"FunctionName": "mutated-never-there"}),
    "PublishVersion": Row(_FUNCTION),
    "ListVersionsByFunction": Row(_FUNCTION),
    "CreateAlias": Row(
        {"FunctionName": NAME, "Name": "new", "FunctionVersion": "1"},
        back("DeleteAlias", "FunctionName", Name="Name"),
    ),
    "GetAlias": Row({"FunctionName": NAME, "Name": "live"}),
    "UpdateAlias": Row({"FunctionName": NAME, "Name": "live"}),
    "DeleteAlias": Row({"FunctionName": NAME, "Name": "new"}),
    "ListAliases": Row(_FUNCTION),
    "PutFunctionConcurrency": Row({"FunctionName": NAME, "ReservedConcurrentExecutions": 1}),
    "GetFunctionConcurrency": Row(_FUNCTION),
    "DeleteFunctionConcurrency": Row(_FUNCTION),
    "PublishLayerVersion": Row({"LayerName": f"{LAYER}-new", "Content": {"ZipFile": ZIP}}),
    "GetLayerVersion": Row(_LAYER),
    "GetLayerVersionByArn": Row({"Arn": f"{LAYER_ARN}:1"}),
    "ListLayerVersions": Row({"LayerName": LAYER}),
    "ListLayers": Row({}),
    "DeleteLayerVersion": Row({"LayerName": LAYER, "VersionNumber": 2}),
    "AddLayerVersionPermission": Row(
        {**_LAYER, "StatementId": "s", "Action": "lambda:GetLayerVersion", "Principal": "*"},
        back("RemoveLayerVersionPermission", "LayerName", "VersionNumber", "StatementId"),
    ),
    "RemoveLayerVersionPermission": Row({**_LAYER, "StatementId": "s"}),
    "GetLayerVersionPolicy": Row(_LAYER),
    "GetAccountSettings": Row({}),
    "AddPermission": Row(
        {"FunctionName": NAME, **PERMISSION},
        back("RemovePermission", "FunctionName", "StatementId", "Qualifier"),
    ),
    "RemovePermission": Row({"FunctionName": NAME, "StatementId": "s"}),
    "GetPolicy": Row(_FUNCTION),
    "PutResourcePolicy": Row({"ResourceArn": arn(NAME), "Policy": RESOURCE_POLICY}),
    "GetResourcePolicy": Row({"ResourceArn": arn(NAME)}),
    "DeleteResourcePolicy": Row({"ResourceArn": arn(NAME)}, again("lambda", "PutResourcePolicy")),
    "ListTags": Row({"Resource": arn(NAME)}),
    "TagResource": Row({"Resource": arn(NAME), "Tags": {"a": "b"}}),
    "UntagResource": Row({"Resource": arn(NAME), "TagKeys": ["a"]}),
    "PutFunctionEventInvokeConfig": Row(_CONFIG),
    "UpdateFunctionEventInvokeConfig": Row(_CONFIG),
    "GetFunctionEventInvokeConfig": Row(_FUNCTION),
    "DeleteFunctionEventInvokeConfig": Row(_FUNCTION, again("lambda", "PutFunctionEventInvokeConfig")),
    "ListFunctionEventInvokeConfigs": Row(_FUNCTION),
    "CreateFunctionUrlConfig": Row(
        {"FunctionName": NAME, "Qualifier": "live", "AuthType": "NONE"},
        back("DeleteFunctionUrlConfig", "FunctionName", "Qualifier"),
    ),
    "GetFunctionUrlConfig": Row(_FUNCTION),
    "UpdateFunctionUrlConfig": Row({"FunctionName": NAME, "AuthType": "AWS_IAM"}),
    "DeleteFunctionUrlConfig": Row({"FunctionName": NAME, "Qualifier": "live"}),
    "ListFunctionUrlConfigs": Row(_FUNCTION),
    "PutProvisionedConcurrencyConfig": Row(
        {"FunctionName": NAME, "Qualifier": "live", "ProvisionedConcurrentExecutions": 1},
        back("DeleteProvisionedConcurrencyConfig", "FunctionName", "Qualifier"),
    ),
    "GetProvisionedConcurrencyConfig": Row({"FunctionName": NAME, "Qualifier": "live"}),
    "DeleteProvisionedConcurrencyConfig": Row({"FunctionName": NAME, "Qualifier": "live"}),
    "ListProvisionedConcurrencyConfigs": Row(_FUNCTION),
    "CreateCodeSigningConfig": Row(
        {"AllowedPublishers": {"SigningProfileVersionArns": [SIGNER]}},
        lambda sent, answer: (
            "DeleteCodeSigningConfig",
            {"CodeSigningConfigArn": answer["CodeSigningConfig"]["CodeSigningConfigArn"]},
        ),
    ),
    "GetCodeSigningConfig": Row({"CodeSigningConfigArn": SIGNING}),
    "UpdateCodeSigningConfig": Row({"CodeSigningConfigArn": SIGNING}),
    "DeleteCodeSigningConfig": Row({"CodeSigningConfigArn": SIGNING.replace("csc-0", "csc-f")}),
    "ListCodeSigningConfigs": Row({}),
    "ListFunctionsByCodeSigningConfig": Row({"CodeSigningConfigArn": SIGNING}),
    "PutFunctionCodeSigningConfig": Row({"FunctionName": NAME, "CodeSigningConfigArn": SIGNING}),
    "GetFunctionCodeSigningConfig": Row(_FUNCTION),
    "DeleteFunctionCodeSigningConfig": Row(_FUNCTION),
    "CreateEventSourceMapping": Row(
        {"FunctionName": NAME, "EventSourceArn": SOURCE}, back("DeleteEventSourceMapping", UUID="UUID")
    ),
    "GetEventSourceMapping": Row({"UUID": MAPPING}),
    "UpdateEventSourceMapping": Row({"UUID": MAPPING, "BatchSize": 1}),
    "DeleteEventSourceMapping": Row({"UUID": MAPPING}),
    "ListEventSourceMappings": Row({"FunctionName": NAME, "EventSourceArn": SOURCE}),
    "PutFunctionRecursionConfig": Row({"FunctionName": NAME, "RecursiveLoop": "Allow"}),
    "GetFunctionRecursionConfig": Row(_FUNCTION),
    "PutRuntimeManagementConfig": Row({"FunctionName": NAME, "UpdateRuntimeOn": "Auto"}),
    "GetRuntimeManagementConfig": Row(_FUNCTION),
    "PutFunctionScalingConfig": Row(_ONE),
    "GetFunctionScalingConfig": Row(_ONE),
    "CreateCapacityProvider": Row(
        {
            "CapacityProviderName": f"{NAME}-new",
            "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": []},
            "PermissionsConfig": {"CapacityProviderOperatorRoleArn": ROLE},
        },
        lambda sent, answer: (
            "DeleteCapacityProvider",
            {"CapacityProviderName": answer["CapacityProvider"]["CapacityProviderArn"]},
        ),
    ),
    "GetCapacityProvider": Row(_PROVIDER),
    "UpdateCapacityProvider": Row(_PROVIDER),
    "DeleteCapacityProvider": Row({"CapacityProviderName": "mutated-never-there"}),
    "ListCapacityProviders": Row({}),
    "ListFunctionVersionsByCapacityProvider": Row(_PROVIDER),
    "Invoke": Row({"FunctionName": NAME, "InvocationType": "DryRun"}),
    "InvokeAsync": Row({"FunctionName": "mutated-never-there", "InvokeArgs": "{}"}),
}

_STREAM = {"logGroupName": GROUP, "logStreamName": "stream"}

LOGS_ROWS: dict[str, Row] = {
    "CreateLogGroup": Row({"logGroupName": f"{GROUP}/new"}, back("DeleteLogGroup", "logGroupName")),
    "CreateLogStream": Row(
        {"logGroupName": GROUP, "logStreamName": "new"},
        back("DeleteLogStream", "logGroupName", "logStreamName"),
    ),
    "DeleteLogGroup": Row({"logGroupName": f"{GROUP}/never-there"}),
    "DeleteLogStream": Row({"logGroupName": GROUP, "logStreamName": "never-there"}),
    "DeleteRetentionPolicy": Row({"logGroupName": GROUP}),
    "DescribeLogGroups": Row({}),
    "DescribeLogStreams": Row({"logGroupName": GROUP}),
    "FilterLogEvents": Row({"logGroupName": GROUP}),
    "GetLogEvents": Row(_STREAM),
    "PutLogEvents": Row({**_STREAM, "logEvents": [{"timestamp": 1_790_000_000_000, "message": "m"}]}),
    "PutRetentionPolicy": Row({"logGroupName": GROUP, "retentionInDays": 7}),
}

_ROLE = {"RoleName": ENTITY}
_USER = {"UserName": ENTITY}
_ARN = {"PolicyArn": POLICY_ARN}
_TAGS = {"Tags": [{"Key": "a", "Value": "b"}]}

IAM_ROWS: dict[str, Row] = {
    "AttachRolePolicy": Row({**_ROLE, **_ARN}),
    "AttachUserPolicy": Row({**_USER, **_ARN}),
    "CreateAccessKey": Row(_USER, back("DeleteAccessKey", "UserName", AccessKeyId="AccessKeyId")),
    "CreatePolicy": Row(
        {"PolicyName": f"{ENTITY}-new", "PolicyDocument": POLICY}, back("DeletePolicy", PolicyArn="Arn")
    ),
    "CreatePolicyVersion": Row(
        {**_ARN, "PolicyDocument": POLICY}, back("DeletePolicyVersion", "PolicyArn", VersionId="VersionId")
    ),
    "CreateRole": Row(
        {"RoleName": f"{ENTITY}-new", "AssumeRolePolicyDocument": TRUST},
        back("DeleteRole", RoleName="RoleName"),
    ),
    "CreateUser": Row({"UserName": f"{ENTITY}-new"}, back("DeleteUser", UserName="UserName")),
    "DeleteAccessKey": Row({**_USER, "AccessKeyId": "AKIANEVERTHERE000000"}),
    "DeletePolicy": Row({"PolicyArn": f"{POLICY_ARN}-never-there"}),
    "DeletePolicyVersion": Row({**_ARN, "VersionId": "v1"}),
    "DeleteRole": Row({"RoleName": "never-there"}),
    "DeleteRolePermissionsBoundary": Row(_ROLE),
    "DeleteRolePolicy": Row({**_ROLE, "PolicyName": "p"}, again("iam", "PutRolePolicy")),
    "DeleteUser": Row({"UserName": "never-there"}),
    "DeleteUserPermissionsBoundary": Row(_USER),
    "DeleteUserPolicy": Row({**_USER, "PolicyName": "p"}, again("iam", "PutUserPolicy")),
    "DetachRolePolicy": Row({**_ROLE, **_ARN}, again("iam", "AttachRolePolicy")),
    "DetachUserPolicy": Row({**_USER, **_ARN}, again("iam", "AttachUserPolicy")),
    "GetPolicy": Row(_ARN),
    "GetPolicyVersion": Row({**_ARN, "VersionId": "v1"}),
    "GetRole": Row(_ROLE),
    "GetRolePolicy": Row({**_ROLE, "PolicyName": "p"}),
    "GetUser": Row(_USER),
    "GetUserPolicy": Row({**_USER, "PolicyName": "p"}),
    "ListAccessKeys": Row(_USER),
    "ListAttachedRolePolicies": Row(_ROLE),
    "ListAttachedUserPolicies": Row(_USER),
    "ListEntitiesForPolicy": Row(_ARN),
    "ListGroupsForUser": Row(_USER),
    "ListInstanceProfilesForRole": Row(_ROLE),
    "ListPolicies": Row({}),
    "ListPolicyTags": Row(_ARN),
    "ListPolicyVersions": Row(_ARN),
    "ListRolePolicies": Row(_ROLE),
    "ListRoleTags": Row(_ROLE),
    "ListRoles": Row({}),
    "ListUserPolicies": Row(_USER),
    "ListUserTags": Row(_USER),
    "ListUsers": Row({}),
    "PutRolePermissionsBoundary": Row({**_ROLE, "PermissionsBoundary": BOUNDARY}),
    "PutRolePolicy": Row({**_ROLE, "PolicyName": "p", "PolicyDocument": POLICY}),
    "PutUserPermissionsBoundary": Row({**_USER, "PermissionsBoundary": BOUNDARY}),
    "PutUserPolicy": Row({**_USER, "PolicyName": "p", "PolicyDocument": POLICY}),
    "SetDefaultPolicyVersion": Row({**_ARN, "VersionId": "v1"}),
    "TagPolicy": Row({**_ARN, **_TAGS}),
    "TagRole": Row({**_ROLE, **_TAGS}),
    "TagUser": Row({**_USER, **_TAGS}),
    "UntagPolicy": Row({**_ARN, "TagKeys": ["a"]}),
    "UntagRole": Row({**_ROLE, "TagKeys": ["a"]}),
    "UntagUser": Row({**_USER, "TagKeys": ["a"]}),
    "UpdateAccessKey": Row({**_USER, "AccessKeyId": "AKIANEVERTHERE000000", "Status": "Active"}),
    "UpdateAssumeRolePolicy": Row({**_ROLE, "PolicyDocument": TRUST}),
    "UpdateRole": Row(_ROLE),
    "UpdateRoleDescription": Row({**_ROLE, "Description": "d"}),
}

STS_ROWS: dict[str, Row] = {
    "AssumeRole": Row({"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/{ENTITY}", "RoleSessionName": "session"}),
    "GetCallerIdentity": Row({}),
    "GetSessionToken": Row({}),
}

ROWS = {"lambda": LAMBDA_ROWS, "logs": LOGS_ROWS, "iam": IAM_ROWS, "sts": STS_ROWS}

MADE_FIRST: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("lambda", "PublishVersion", _FUNCTION),
    ("lambda", "CreateAlias", {"FunctionName": NAME, "Name": "live", "FunctionVersion": "1"}),
    ("lambda", "PublishLayerVersion", {"LayerName": LAYER, "Content": {"ZipFile": ZIP}}),
    ("lambda", "CreateFunctionUrlConfig", {"FunctionName": NAME, "AuthType": "NONE"}),
    ("lambda", "CreateCapacityProvider", {**LAMBDA_ROWS["CreateCapacityProvider"].members, **_PROVIDER}),
    ("lambda", "PutFunctionEventInvokeConfig", _CONFIG),
    ("lambda", "AddPermission", {**_FUNCTION, **PERMISSION, "StatementId": "kept"}),
    ("logs", "CreateLogGroup", {"logGroupName": GROUP}),
    ("logs", "CreateLogStream", _STREAM),
    ("iam", "CreatePolicy", {"PolicyName": ENTITY, "PolicyDocument": POLICY}),
    ("iam", "CreateRole", {**_ROLE, "AssumeRolePolicyDocument": TRUST}),
    ("iam", "CreateUser", _USER),
    *(("iam", name, IAM_ROWS[name].members) for name in ("PutRolePolicy", "PutUserPolicy")),
)
"""Requests that make what the rows name, after the function."""


def make_function(stoker: RunningStoker) -> None:
    """The function that the rows are about."""
    created(stoker, NAME, Code={"ZipFile": ECHO})
