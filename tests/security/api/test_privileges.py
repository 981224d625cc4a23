"""Callers of limited rights try to get more: by sessions, roles, other names of things, and policies' corners."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conformance.identities import Keys, allow, deny, document, role, user, user_arn
from tests.integration.sandbox.running_jail import missing
from tests.running import ACCOUNT, RunningStoker

GROUP = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:"
ASK = """
import datetime, hashlib, hmac, os, urllib.request

def lambda_handler(event, context):
    # ListFunctions, signed with the keys of the function's role.
    now = datetime.datetime.now(datetime.UTC)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    host = os.environ["AWS_ENDPOINT_URL_LAMBDA"].partition("//")[2]
    path, token = "/2015-03-31/functions/", os.environ["AWS_SESSION_TOKEN"]
    names = "host;x-amz-date;x-amz-security-token"
    headers = f"host:{host}\\nx-amz-date:{stamp}\\nx-amz-security-token:{token}\\n"
    empty = hashlib.sha256(b"").hexdigest()
    canonical = "\\n".join(("GET", path, "", headers, names, empty))
    scope = f"{day}/us-east-1/lambda/aws4_request"
    text = "\\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = ("AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    who = f"Credential={os.environ['AWS_ACCESS_KEY_ID']}/{scope}"
    request = urllib.request.Request(f"http://{host}{path}", headers={
        "X-Amz-Date": stamp, "X-Amz-Security-Token": token,
        "Authorization": f"AWS4-HMAC-SHA256 {who}, SignedHeaders={names}, Signature={key.hex()}"})
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]
"""


@pytest.fixture(scope="module")
def stoker() -> Iterator[RunningStoker]:
    if missing():
        pytest.skip(missing())
    running = RunningStoker()
    running.start()
    yield running
    running.remove()


def refused(call: Any, **members: Any) -> str:
    with pytest.raises(ClientError) as problem:
        call(**members)
    return problem.value.response["Error"]["Code"]


def keys_of(credentials: dict[str, Any]) -> Keys:
    return credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"]


def test_a_group_that_is_denied_is_denied_by_every_name(stoker: RunningStoker) -> None:
    logs = stoker.client("logs")
    logs.create_log_group(logGroupName="/secret")
    logs.create_log_stream(logGroupName="/secret", logStreamName="s")
    limited = stoker.client_of(
        "logs", user(stoker, "reader", allow("logs:*"), deny("logs:*", resource=f"{GROUP}/secret*"))
    )
    for name in ("/secret", f"{GROUP}/secret", "arn:x:log-group:/secret"):
        assert refused(limited.describe_log_streams, logGroupIdentifier=name) == "AccessDeniedException"
        assert (
            refused(limited.get_log_events, logGroupIdentifier=name, logStreamName="s")
            == "AccessDeniedException"
        )
        assert refused(limited.filter_log_events, logGroupIdentifier=name) == "AccessDeniedException"


def test_a_session_cannot_renew_itself(stoker: RunningStoker) -> None:
    keys = user(stoker, "renewing", allow("lambda:ListFunctions"))
    first = stoker.client_of("sts", keys).get_session_token(DurationSeconds=900)["Credentials"]
    session = stoker.client_of("sts", keys_of(first))
    assert session.get_caller_identity()["Arn"] == user_arn("renewing")
    assert refused(session.get_session_token, DurationSeconds=129_600) == "AccessDenied"


def test_a_session_does_not_pass_to_the_next_of_its_name(stoker: RunningStoker) -> None:
    iam = stoker.client("iam")
    trust = {"Effect": "Allow", "Principal": {"AWS": user_arn("heir")}, "Action": "sts:AssumeRole"}
    heir = user(stoker, "heir", allow("sts:*"))
    arn = role(stoker, "Reborn", allow("lambda:ListFunctions"), trust=trust)
    session = keys_of(
        stoker.client_of("sts", heir).assume_role(RoleArn=arn, RoleSessionName="old")["Credentials"]
    )
    own = keys_of(stoker.client_of("sts", heir).get_session_token()["Credentials"])
    assert stoker.client_of("lambda", session).list_functions()["Functions"] == []
    iam.delete_role_policy(RoleName="Reborn", PolicyName="p")
    iam.delete_role(RoleName="Reborn")
    iam.delete_access_key(UserName="heir", AccessKeyId=heir[0])
    iam.delete_user_policy(UserName="heir", PolicyName="p")
    iam.delete_user(UserName="heir")
    role(stoker, "Reborn", allow("lambda:*"), trust=trust)
    user(stoker, "heir", allow("lambda:*"))
    for old in (session, own):
        assert refused(stoker.client_of("lambda", old).list_functions) == "AccessDeniedException"


def test_a_function_is_not_given_a_role_of_another_path(stoker: RunningStoker) -> None:
    """Who may pass ``role/dev/*`` names one that is not there yet; its namesake elsewhere is another role."""
    stoker.create_python("early", ASK, Role=f"arn:aws:iam::{ACCOUNT}:role/dev/Late")
    role(stoker, "Late", allow("lambda:*"))
    status, body = stoker.invoke("early")
    assert (status, "is not authorized" in body) == (403, True)
    stoker.create_python("right", ASK, Role=f"arn:aws:iam::{ACCOUNT}:role/Late")
    assert stoker.invoke("right") == 200


def test_what_is_tagged_or_bounded_can_be_protected(stoker: RunningStoker) -> None:
    iam = stoker.client("iam")
    tagged = role(stoker, "Tagged", allow("lambda:ListFunctions"))
    iam.tag_role(RoleName="Tagged", Tags=[{"Key": "protected", "Value": "yes"}])
    boundary = iam.create_policy(PolicyName="Bound", PolicyDocument=document(allow("lambda:*")))["Policy"][
        "Arn"
    ]
    iam.create_user(UserName="bounded", PermissionsBoundary=boundary)
    iam.create_user(UserName="unbounded")
    limited = stoker.client_of(
        "iam",
        user(
            stoker,
            "admin",
            allow("iam:PutRolePolicy", "iam:DeleteRolePolicy"),
            deny("iam:*", Condition={"StringEquals": {"aws:ResourceTag/protected": "yes"}}),
            allow("iam:PutUserPolicy", Condition={"StringEquals": {"iam:PermissionsBoundary": boundary}}),
        ),
    )
    assert tagged.endswith("/Tagged")
    assert refused(limited.delete_role_policy, RoleName="Tagged", PolicyName="p") == "AccessDenied"
    policy = {"PolicyName": "q", "PolicyDocument": document(allow("lambda:*"))}
    assert refused(limited.put_user_policy, UserName="unbounded", **policy) == "AccessDenied"
    limited.put_user_policy(UserName="bounded", **policy)


def test_another_accounts_role_is_nobodys_to_pass(stoker: RunningStoker) -> None:
    limited = stoker.client_of("lambda", user(stoker, "maker", allow("lambda:*", "iam:PassRole")))
    code = refused(
        limited.create_function,
        FunctionName="foreign",
        Role="arn:aws:iam::123456789012:role/Admin",
        Runtime="python3.11",
        Handler="a.b",
        Code={"ZipFile": b"x"},
    )
    assert code == "AccessDeniedException"


def test_a_refusal_does_not_tell_what_is_there(stoker: RunningStoker) -> None:
    stoker.create_python("there", "def lambda_handler(event, context): pass")
    stranger = stoker.client_of("lambda", user(stoker, "stranger"))
    answers = set[str]()
    for name in ("there", "gone"):
        for call in (stranger.get_function, stranger.invoke, stranger.delete_function, stranger.get_policy):
            with pytest.raises(ClientError) as problem:
                call(FunctionName=name)
            answers.add(json.dumps(problem.value.response["Error"]).replace(name, "NAME"))
    assert all("AccessDeniedException" in answer for answer in answers)
    assert len(answers) == 4


def test_secrets_reach_no_log(stoker: RunningStoker) -> None:
    keys = user(stoker, "hushed", allow("lambda:*"))
    token = keys_of(stoker.client_of("sts", keys).get_session_token()["Credentials"])
    refused(stoker.client_of("iam", keys).list_users)
    refused(stoker.client_of("lambda", (*token[:2], token[2][:-4] + "AAAA")).list_functions)
    log = stoker.log.read_text()
    assert not any(secret in log for secret in (keys[1], token[1], token[2]))
