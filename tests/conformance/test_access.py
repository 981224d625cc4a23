"""Who may: every operation denied through the wire; identity policies, resource policies, PassRole, sessions."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError

from stoker.api.generate import IAM_OPERATIONS, LOG_OPERATIONS, field_name
from stoker.control.access.lambda_actions import LAMBDA_ACTIONS, action_of
from tests.conformance.identities import Keys, allow, deny, document, role, user, user_arn
from tests.running import ACCOUNT, PYTHON_RUNTIME, REGION, RunningStoker, python_zip

ECHO = "def lambda_handler(event, context): return event"
LAMBDA = f"arn:aws:lambda:{REGION}:{ACCOUNT}"

# What the model's patterns leave no other way to guess.
VALUES: dict[str, Any] = {
    "FunctionName": "access-echo",
    "Resource": f"{LAMBDA}:function:access-echo",
    "ResourceArn": f"{LAMBDA}:function:access-echo",
    "CodeSigningConfigArn": f"{LAMBDA}:code-signing-config:csc-0123456789abcdef0",
    "Arn": f"{LAMBDA}:layer:l:1",
    "LayerName": "l",
    "CapacityProviderName": "c",
    "CapacityProviderOperatorRoleArn": f"arn:aws:iam::{ACCOUNT}:role/r",
    "DurableExecutionArn": f"{LAMBDA}:function:access-echo:$LATEST/durable-execution/e/i",
    "CallbackId": "Y2FsbGJhY2s=",
    "Role": f"arn:aws:iam::{ACCOUNT}:role/anything",
    "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/anything",
    "Action": "lambda:InvokeFunction",
    "Principal": "s3.amazonaws.com",
    "FunctionVersion": "1",
    "SubnetIds": ["subnet-0123456789abcdef0"],
    "SecurityGroupIds": ["sg-0123456789abcdef0"],
    "SigningProfileVersionArns": [f"arn:aws:signer:{REGION}:{ACCOUNT}:/signing-profiles/p/v"],
    "Qualifier": "prod",
    "AuthType": "NONE",
    "PolicyArn": "arn:aws:iam::aws:policy/AdministratorAccess",
    "PermissionsBoundary": "arn:aws:iam::aws:policy/AdministratorAccess",
    "AccessKeyId": "AKIAAAAAAAAAAAAAAAAA",
    "VersionId": "v1",
    "logGroupName": "g",
    "logStreamName": "s",
    "retentionInDays": 7,
}


def minimal(shape: Any, name: str = "") -> Any:
    """The smallest input that the model lets through."""
    if name in VALUES:
        return VALUES[name]
    smallest: dict[str, Callable[[], Any]] = {
        "structure": lambda: {name: minimal(shape.members[name], name) for name in shape.required_members},
        "list": lambda: [minimal(shape.member)],
        "map": lambda: {"k": minimal(shape.value)},
        "integer": lambda: max(1, int(shape.metadata.get("min", 1))),
        "boolean": lambda: True,
        "blob": lambda: b"{}",
        "timestamp": lambda: 1_700_000_000,
        "string": lambda: shape.enum[0] if shape.enum else "x" * max(1, int(shape.metadata.get("min", 1))),
    }
    return smallest["integer" if shape.type_name == "long" else shape.type_name]()


def every_operation() -> list[tuple[str, str]]:
    return [
        *(("lambda", name) for name in sorted(LAMBDA_ACTIONS)),
        *(("logs", name) for name in LOG_OPERATIONS),
        *(("iam", name) for name in IAM_OPERATIONS),
    ]


def ask(client: Any, service: str, operation: str) -> tuple[int, str]:
    """Status and message of an operation's answer to its smallest input."""
    model = botocore.session.get_session().get_service_model(service).operation_model(operation)
    members = minimal(model.input_shape) if model.input_shape else {}
    if operation == "AddLayerVersionPermission":
        members |= {"Action": "lambda:GetLayerVersion", "Principal": "*"}
    if operation.endswith("FunctionScalingConfig"):
        members["Qualifier"] = "$LATEST.PUBLISHED"
    if operation in ("GetUser", "ListAccessKeys", "CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey"):
        members["UserName"] = "x"
    try:
        answer = getattr(client, field_name(operation))(**members)
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Message"]
    return answer["ResponseMetadata"]["HTTPStatusCode"], ""


@pytest.fixture(scope="module")
def nobody(stoker: RunningStoker) -> Keys:
    return user(stoker, "access-nobody")


@pytest.fixture(scope="module")
def denied(stoker: RunningStoker) -> Keys:
    return user(stoker, "access-denied", allow("*"), deny("lambda:*", "logs:*", "iam:*"))


@pytest.fixture(scope="module")
def echo(stoker: RunningStoker) -> Iterator[str]:
    stoker.create_python("access-echo", ECHO)
    yield f"{LAMBDA}:function:access-echo"
    stoker.client("lambda").delete_function(FunctionName="access-echo")


@pytest.mark.parametrize(("service", "operation"), every_operation())
def test_every_operation_is_denied(
    stoker: RunningStoker, echo: str, nobody: Keys, denied: Keys, service: str, operation: str
) -> None:
    options = {"parameter_validation": False}
    action = action_of(operation) if service == "lambda" else f"{service}:{operation}"
    status, message = ask(stoker.client_of(service, nobody, **options), service, operation)
    if status == 501:
        assert ask(stoker.client(service, **options), service, operation)[0] == 501
        return
    assert status == (400 if service == "logs" else 403), message
    assert message.startswith(
        f"User: {user_arn('access-nobody')} is not authorized to perform: {action} on resource: "
    )
    assert message.endswith(f" because no identity-based policy allows the {action} action")
    status, message = ask(stoker.client_of(service, denied, **options), service, operation)
    assert status == (400 if service == "logs" else 403), message
    assert message.endswith(" with an explicit deny in an identity-based policy")


def invokes(stoker: RunningStoker, keys: Keys, name: str = "access-echo", **options: Any) -> str:
    """Empty when the invocation was allowed; otherwise AWS's words."""
    client = stoker.client_of("lambda", keys)
    try:
        client.invoke(FunctionName=name, Payload=b"1", **options)
    except client.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "AccessDeniedException":
            raise
        return error.response["Error"]["Message"]
    return ""


def test_an_identity_policy_allows_what_it_names(stoker: RunningStoker, echo: str) -> None:
    keys = user(stoker, "access-named", allow("lambda:InvokeFunction", resource=echo))
    assert invokes(stoker, keys) == ""
    assert "on resource: " + echo + ":$LATEST because" in invokes(stoker, keys, Qualifier="$LATEST")
    stoker.client("iam").delete_user_policy(UserName="access-named", PolicyName="p")
    assert "no identity-based policy" in invokes(stoker, keys), "what was allowed is not remembered"


def test_conditions(stoker: RunningStoker, echo: str) -> None:
    here = {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}, "StringEquals": {"aws:username": "access-here"}}
    there = {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}
    tagged = {"StringEquals": {"aws:ResourceTag/Team": "a"}}
    invoke = "lambda:InvokeFunction"
    assert invokes(stoker, user(stoker, "access-here", allow(invoke, Condition=here))) == ""
    assert invokes(stoker, user(stoker, "access-there", allow(invoke, Condition=there)))
    keys = user(stoker, "access-tagged", allow(invoke, Condition=tagged))
    assert invokes(stoker, keys)
    stoker.client("lambda").tag_resource(Resource=echo, Tags={"Team": "a"})
    assert invokes(stoker, keys) == ""


def test_a_resource_policy_lets_in_and_keeps_out(stoker: RunningStoker, echo: str, nobody: Keys) -> None:
    root = stoker.client("lambda")
    root.add_permission(
        FunctionName="access-echo",
        StatementId="nobody",
        Action="lambda:InvokeFunction",
        Principal=user_arn("access-nobody"),
    )
    assert invokes(stoker, nobody) == ""
    root.remove_permission(FunctionName="access-echo", StatementId="nobody")
    assert invokes(stoker, nobody)
    keys = user(stoker, "access-kept-out", allow("lambda:*"))
    assert invokes(stoker, keys) == ""
    keep_out = {
        "Effect": "Deny",
        "Principal": {"AWS": user_arn("access-kept-out")},
        "Action": "lambda:InvokeFunction",
        "Resource": echo,
    }
    root.put_resource_policy(ResourceArn=echo, Policy=document(keep_out))
    assert invokes(stoker, keys).endswith("with an explicit deny in a resource-based policy")
    root.delete_resource_policy(ResourceArn=echo)
    assert invokes(stoker, keys) == ""


def test_a_role_must_be_passed(stoker: RunningStoker) -> None:
    arn = role(stoker, "access-passed")
    keys = user(stoker, "access-maker", allow("lambda:*"))
    client = stoker.client_of("lambda", keys)
    members = {
        "FunctionName": "access-made",
        "Role": arn,
        "Runtime": PYTHON_RUNTIME,
        "Handler": "lambda_function.lambda_handler",
        "Code": {"ZipFile": python_zip(ECHO)},
    }
    with pytest.raises(ClientError) as refused:
        client.create_function(**members)
    assert refused.value.response["Error"]["Code"] == "AccessDeniedException"
    assert refused.value.response["Error"]["Message"] == (
        f"User: {user_arn('access-maker')} is not authorized to perform: iam:PassRole on resource: {arn} "
        "because no identity-based policy allows the iam:PassRole action"
    )
    to_lambda = {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}
    stoker.client("iam").put_user_policy(
        UserName="access-maker",
        PolicyName="pass",
        PolicyDocument=document(allow("iam:PassRole", resource=arn, Condition=to_lambda)),
    )
    with pytest.raises(ClientError) as unpassed:
        client.create_function(**{**members, "Role": f"{arn}-2"})
    assert "iam:PassRole" in str(unpassed.value)
    assert client.create_function(**members)["Role"] == arn


def test_tags_at_creation_need_their_own_permission(stoker: RunningStoker) -> None:
    keys = user(stoker, "access-tagger", allow("lambda:CreateFunction", "iam:PassRole"))
    client = stoker.client_of("lambda", keys)
    members = {
        "FunctionName": "access-tagged",
        "Role": role(stoker, "access-tagged"),
        "Runtime": PYTHON_RUNTIME,
        "Handler": "lambda_function.lambda_handler",
        "Code": {"ZipFile": python_zip(ECHO)},
        "Tags": {"team": "a"},
    }
    with pytest.raises(ClientError) as refused:
        client.create_function(**members)
    assert refused.value.response["Error"]["Message"] == (
        f"User: {user_arn('access-tagger')} is not authorized to perform: lambda:TagResource on resource: "
        f"{LAMBDA}:function:access-tagged because no identity-based policy allows the lambda:TagResource action"
    )
    only_a = {"StringEquals": {"aws:RequestTag/team": "a"}}
    stoker.client("iam").put_user_policy(
        UserName="access-tagger",
        PolicyName="tag",
        PolicyDocument=document(allow("lambda:TagResource", Condition=only_a)),
    )
    with pytest.raises(ClientError, match="TagResource"):
        client.create_function(**{**members, "Tags": {"team": "b"}})
    client.create_function(**members)


def test_a_role_must_trust_lambda(stoker: RunningStoker) -> None:
    trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    arn = role(stoker, "access-of-ec2", trust=trust)
    with pytest.raises(ClientError) as refused:
        stoker.create_python("access-untrusted", ECHO, Role=arn)
    assert refused.value.response["Error"] == {
        "Code": "InvalidParameterValueException",
        "Message": "The role defined for the function cannot be assumed by Lambda.",
    }


def test_sessions_of_a_role(stoker: RunningStoker, echo: str) -> None:
    trust = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": "known"}},
    }
    arn = role(stoker, "access-assumed", allow("lambda:*"), trust=trust)
    keys = user(stoker, "access-assumer", allow("sts:AssumeRole", resource=arn))
    sts = stoker.client_of("sts", keys)
    with pytest.raises(ClientError) as refused:
        sts.assume_role(RoleArn=arn, RoleSessionName="session", ExternalId="unknown")
    assert refused.value.response["Error"] == {
        "Type": "Sender",
        "Code": "AccessDenied",
        "Message": f"User: {user_arn('access-assumer')} is not authorized to perform: sts:AssumeRole "
        f"on resource: {arn}",
    }
    assumed = sts.assume_role(RoleArn=arn, RoleSessionName="session", ExternalId="known")
    session = session_keys(assumed)
    assert invokes(stoker, session) == ""
    who = stoker.client_of("sts", session).get_caller_identity()
    assert who["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/access-assumed/session"
    assert who["UserId"] == assumed["AssumedRoleUser"]["AssumedRoleId"]
    narrowed = sts.assume_role(
        RoleArn=arn,
        RoleSessionName="session",
        ExternalId="known",
        Policy=document(allow("lambda:ListFunctions")),
    )
    assert invokes(stoker, session_keys(narrowed)).endswith(
        "because no session policy allows the lambda:InvokeFunction action"
    )
    stoker.client_of("lambda", session_keys(narrowed)).list_functions()
    without_token = (session[0], session[1], None)
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        stoker.client_of("sts", without_token).get_caller_identity()


def session_keys(answer: dict[str, Any]) -> Keys:
    keys = answer["Credentials"]
    return keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"]


def test_a_boundary(stoker: RunningStoker, echo: str) -> None:
    iam = stoker.client("iam")
    bound = iam.create_policy(
        PolicyName="access-bound", PolicyDocument=document(allow("lambda:ListFunctions"))
    )["Policy"]["Arn"]
    keys = user(stoker, "access-bounded", allow("lambda:*"))
    assert invokes(stoker, keys) == ""
    iam.put_user_permissions_boundary(UserName="access-bounded", PermissionsBoundary=bound)
    assert "no permissions boundary allows" in invokes(stoker, keys)
    with pytest.raises(ClientError, match="DeleteConflict"):
        iam.delete_policy(PolicyArn=bound)


def test_keys_can_be_turned_off(stoker: RunningStoker) -> None:
    keys = user(stoker, "access-keys")
    iam = stoker.client("iam")
    sts = stoker.client_of("sts", keys)
    assert sts.get_caller_identity()["Arn"] == user_arn("access-keys")
    iam.update_access_key(UserName="access-keys", AccessKeyId=keys[0], Status="Inactive")
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        sts.get_caller_identity()
    iam.update_access_key(UserName="access-keys", AccessKeyId=keys[0], Status="Active")
    sts.get_caller_identity()
    with pytest.raises(ClientError, match="must delete access keys first"):
        iam.delete_user(UserName="access-keys")
    iam.delete_access_key(UserName="access-keys", AccessKeyId=keys[0])
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        sts.get_caller_identity()
    assert iam.list_access_keys(UserName="access-keys")["AccessKeyMetadata"] == []
    iam.delete_user(UserName="access-keys")


def test_a_user_shows_up_in_logs_only_where_allowed(stoker: RunningStoker) -> None:
    group = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:access-group"
    keys = user(stoker, "access-logs", allow("logs:*", resource=[group, f"{group}:*"]))
    logs = stoker.client_of("logs", keys)
    logs.create_log_group(logGroupName="access-group")
    logs.create_log_stream(logGroupName="access-group", logStreamName="s")
    with pytest.raises(ClientError, match="AccessDeniedException"):
        logs.create_log_group(logGroupName="another")
    assert json.dumps(logs.describe_log_streams(logGroupName="access-group")["logStreams"][0])
