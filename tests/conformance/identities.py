"""Users and roles for tests, with the policies they are to have."""

import json
from typing import Any

from tests.running import ACCOUNT, RunningStoker

Keys = tuple[str, str, str | None]

LAMBDA_TRUST = {
    "Effect": "Allow",
    "Principal": {"Service": "lambda.amazonaws.com"},
    "Action": "sts:AssumeRole",
}


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(*actions: str, resource: Any = "*", **members: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource, **members}


def deny(*actions: str, resource: Any = "*", **members: Any) -> dict[str, Any]:
    return allow(*actions, resource=resource, **members) | {"Effect": "Deny"}


def user(stoker: RunningStoker, name: str, *statements: dict[str, Any]) -> Keys:
    """Make a user with a policy of these statements; returns its keys."""
    iam = stoker.client("iam")
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    if statements:
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document(*statements))
    return key["AccessKeyId"], key["SecretAccessKey"], None


def user_arn(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:user/{name}"


def role(stoker: RunningStoker, name: str, *statements: dict[str, Any], trust: Any = None) -> str:
    """Make a role that Lambda may assume, or whoever ``trust`` says; returns its ARN."""
    iam = stoker.client("iam")
    made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document(trust or LAMBDA_TRUST))
    if statements:
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document(*statements))
    return made["Role"]["Arn"]
