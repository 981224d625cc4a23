"""The published evaluation order as a table: who asks, what the policies say, what comes of it."""

import json
from typing import Any

import pytest

from stoker.core.policy.documents import IDENTITY, RESOURCE, Policy, read_policy
from stoker.core.policy.evaluation import (
    ANONYMOUS,
    ROOT,
    SERVICE,
    SESSION,
    USER,
    Asked,
    Decision,
    Grants,
    Principal,
    Reason,
    decide,
)

A, B = "111111111111", "222222222222"
FUNCTION = f"arn:aws:lambda:us-east-1:{A}:function:f"
ACTION = "lambda:InvokeFunction"

ROOT_A = Principal(ROOT, f"arn:aws:iam::{A}:root", A)
ROOT_B = Principal(ROOT, f"arn:aws:iam::{B}:root", B)
USER_A = Principal(USER, f"arn:aws:iam::{A}:user/u", A)
USER_B = Principal(USER, f"arn:aws:iam::{B}:user/u", B)
SESSION_A = Principal(SESSION, f"arn:aws:sts::{A}:assumed-role/r/s", A, f"arn:aws:iam::{A}:role/r")
S3 = Principal(SERVICE, "s3.amazonaws.com", "")
NOBODY = Principal(ANONYMOUS, "*", "")


def statement(effect: str = "Allow", **members: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"Effect": effect}
    if "NotAction" not in members:
        defaults["Action"] = ACTION
    if "NotResource" not in members:
        defaults["Resource"] = FUNCTION
    return defaults | members


def document(*statements: dict[str, Any], kind: str = IDENTITY, version: str = "2012-10-17") -> Policy:
    return read_policy(json.dumps({"Version": version, "Statement": list(statements)}), kind)


def resource(principal: Any, effect: str = "Allow", **members: Any) -> Policy:
    return document(statement(effect, Principal=principal, **members), kind=RESOURCE)


def ask(principal: Principal, grants: Grants, *, resource: str = FUNCTION, **context: Any) -> Decision:
    keys = {name.replace("__", ":").lower(): value for name, value in context.items()}
    return decide(Asked(principal, ACTION, resource, A, keys), grants)


ALLOW, DENY = document(statement()), document(statement("Deny"))
OTHER = document(statement(Action="lambda:GetFunction"))

ORDER: list[tuple[str, Principal, Grants, Reason]] = [
    ("root needs no policy", ROOT_A, Grants(), Reason.ALLOWED),
    ("a user has nothing to begin with", USER_A, Grants(), Reason.IDENTITY_SILENT),
    ("an identity policy allows", USER_A, Grants((ALLOW,)), Reason.ALLOWED),
    ("of another action", USER_A, Grants((OTHER,)), Reason.IDENTITY_SILENT),
    ("deny wins over allow", USER_A, Grants((ALLOW, DENY)), Reason.DENIED_BY_IDENTITY),
    ("in any order", USER_A, Grants((DENY, ALLOW)), Reason.DENIED_BY_IDENTITY),
    (
        "deny wins over the resource's allow",
        USER_A,
        Grants((DENY,), resource=resource({"AWS": USER_A.arn})),
        Reason.DENIED_BY_IDENTITY,
    ),
    ("the resource names the user", USER_A, Grants(resource=resource({"AWS": USER_A.arn})), Reason.ALLOWED),
    ("the resource names everyone", USER_A, Grants(resource=resource("*")), Reason.ALLOWED),
    (
        "the resource names the account: the account decides",
        USER_A,
        Grants(resource=resource({"AWS": ROOT_A.arn})),
        Reason.IDENTITY_SILENT,
    ),
    (
        "and it did",
        USER_A,
        Grants((ALLOW,), resource=resource({"AWS": ROOT_A.arn})),
        Reason.ALLOWED,
    ),
    (
        "the resource denies",
        USER_A,
        Grants((ALLOW,), resource=resource({"AWS": USER_A.arn}, "Deny")),
        Reason.DENIED_BY_RESOURCE,
    ),
    (
        "the resource denies the account and so all in it",
        USER_A,
        Grants((ALLOW,), resource=resource({"AWS": A}, "Deny")),
        Reason.DENIED_BY_RESOURCE,
    ),
    ("the resource denies root", ROOT_A, Grants(resource=resource("*", "Deny")), Reason.DENIED_BY_RESOURCE),
    ("another account: identity alone is not enough", USER_B, Grants((ALLOW,)), Reason.RESOURCE_SILENT),
    (
        "nor is the resource's word alone",
        USER_B,
        Grants(resource=resource({"AWS": USER_B.arn})),
        Reason.IDENTITY_SILENT,
    ),
    (
        "nor to everyone",
        USER_B,
        Grants(resource=resource("*")),
        Reason.IDENTITY_SILENT,
    ),
    (
        "both sides allow",
        USER_B,
        Grants((ALLOW,), resource=resource({"AWS": f"arn:aws:iam::{B}:root"})),
        Reason.ALLOWED,
    ),
    ("by account id", USER_B, Grants((ALLOW,), resource=resource({"AWS": B})), Reason.ALLOWED),
    ("another account's root is no root here", ROOT_B, Grants(), Reason.RESOURCE_SILENT),
    ("unless it is let in", ROOT_B, Grants(resource=resource({"AWS": B})), Reason.ALLOWED),
    (
        "a session by its role",
        SESSION_A,
        Grants(resource=resource({"AWS": SESSION_A.role_arn})),
        Reason.ALLOWED,
    ),
    (
        "a session by its own name",
        SESSION_A,
        Grants(resource=resource({"AWS": SESSION_A.arn})),
        Reason.ALLOWED,
    ),
    (
        "a boundary that is silent",
        USER_A,
        Grants((ALLOW,), boundary=OTHER),
        Reason.BOUNDARY_SILENT,
    ),
    ("a boundary allows nothing by itself", USER_A, Grants(boundary=ALLOW), Reason.IDENTITY_SILENT),
    ("a boundary and an identity policy", USER_A, Grants((ALLOW,), boundary=ALLOW), Reason.ALLOWED),
    ("a boundary denies", USER_A, Grants((ALLOW,), boundary=DENY), Reason.DENIED_BY_BOUNDARY),
    (
        "a session policy narrows",
        SESSION_A,
        Grants((ALLOW,), session=OTHER),
        Reason.SESSION_SILENT,
    ),
    (
        "also what the resource grants the role",
        SESSION_A,
        Grants(session=OTHER, resource=resource({"AWS": SESSION_A.role_arn})),
        Reason.SESSION_SILENT,
    ),
    (
        "but not what it grants the session itself",
        SESSION_A,
        Grants(session=OTHER, resource=resource({"AWS": SESSION_A.arn})),
        Reason.ALLOWED,
    ),
    ("a service needs the resource's word", S3, Grants(), Reason.RESOURCE_SILENT),
    ("and gets it", S3, Grants(resource=resource({"Service": S3.arn})), Reason.ALLOWED),
    (
        "another service does not",
        S3,
        Grants(resource=resource({"Service": "sns.amazonaws.com"})),
        Reason.RESOURCE_SILENT,
    ),
    ("nobody in particular", NOBODY, Grants(resource=resource("*")), Reason.ALLOWED),
    ("nobody is no account", NOBODY, Grants(resource=resource({"AWS": A})), Reason.RESOURCE_SILENT),
    (
        "everyone but",
        USER_A,
        Grants(
            (ALLOW,),
            resource=document(statement("Deny", NotPrincipal={"AWS": USER_A.arn}), kind=RESOURCE),
        ),
        Reason.ALLOWED,
    ),
    (
        "everyone but somebody else",
        USER_A,
        Grants(
            (ALLOW,),
            resource=document(statement("Deny", NotPrincipal={"AWS": USER_B.arn}), kind=RESOURCE),
        ),
        Reason.DENIED_BY_RESOURCE,
    ),
]


@pytest.mark.parametrize(
    ("principal", "grants", "reason"), [row[1:] for row in ORDER], ids=[r[0] for r in ORDER]
)
def test_order(principal: Principal, grants: Grants, reason: Reason) -> None:
    assert ask(principal, grants).reason is reason


MATCHING: list[tuple[dict[str, Any], str, bool]] = [
    ({"Action": "*"}, FUNCTION, True),
    ({"Action": "lambda:*"}, FUNCTION, True),
    ({"Action": "lambda:Invoke*"}, FUNCTION, True),
    ({"Action": "LAMBDA:invokefunction"}, FUNCTION, True),
    ({"Action": "lambda:InvokeFunctio?"}, FUNCTION, True),
    ({"Action": "lambda:InvokeFunction?"}, FUNCTION, False),
    ({"Action": ["s3:*", "lambda:InvokeFunction"]}, FUNCTION, True),
    ({"NotAction": "lambda:InvokeFunction"}, FUNCTION, False),
    ({"NotAction": "s3:*"}, FUNCTION, True),
    ({"Resource": "*"}, FUNCTION, True),
    ({"Resource": "*"}, "*", True),
    ({"Resource": FUNCTION}, "*", False),
    ({"Resource": FUNCTION[:-1] + "F"}, FUNCTION, False),
    ({"Resource": f"arn:aws:lambda:*:{A}:function:f"}, FUNCTION, True),
    ({"Resource": "arn:aws:lambda:*:*:function:*"}, f"{FUNCTION}:prod", True),
    ({"Resource": FUNCTION}, f"{FUNCTION}:prod", False),
    ({"Resource": f"{FUNCTION}:*"}, FUNCTION, False),
    ({"Resource": f"{FUNCTION}:prod"}, f"{FUNCTION}:prod", True),
    ({"Resource": "arn:aws:lambda"}, FUNCTION, True),
    ({"Resource": "arn:aws:lambda:us-*"}, FUNCTION, True),
    ({"Resource": "arn:aws:s3:*"}, FUNCTION, False),
    ({"Resource": "arn:aws:lambda:*:function:f"}, FUNCTION, False),
    ({"NotResource": FUNCTION}, FUNCTION, False),
    ({"NotResource": f"{FUNCTION}2"}, FUNCTION, True),
    ({"Resource": "arn:aws:lambda:us-east-1:*:function:${aws:username}"}, FUNCTION, True),
    ({"Resource": "arn:aws:lambda:us-east-1:*:function:${aws:nothing}"}, FUNCTION, False),
    ({"Resource": "arn:aws:lambda:us-east-1:*:function:${aws:nothing, 'f'}"}, FUNCTION, True),
    ({"Resource": "arn:aws:lambda:us-east-1:*:function:${*}"}, FUNCTION, False),
    ({"Resource": "arn:aws:lambda:us-east-1:*:function:${wild}"}, FUNCTION, False),
]


@pytest.mark.parametrize(("members", "on", "allowed"), MATCHING)
def test_matching(members: dict[str, Any], on: str, allowed: bool) -> None:
    policy = document(statement(**members))
    found = ask(USER_A, Grants((policy,)), resource=on, aws__username="f", wild="*")
    assert found.allowed is allowed


def test_old_documents_know_no_variables() -> None:
    policy = document(statement(Resource="arn:aws:lambda:*:*:function:${aws:username}"), version="2008-10-17")
    assert not ask(USER_A, Grants((policy,)), aws__username="f").allowed


CONDITIONS: list[tuple[str, Any, Any, bool]] = [
    ("StringEquals", "a", "a", True),
    ("StringEquals", "a", "A", False),
    ("StringEquals", ["b", "a"], "a", True),
    ("StringEquals", "a*", "ab", False),
    ("StringEquals", "a", None, False),
    ("StringNotEquals", "a", "b", True),
    ("StringNotEquals", ["a", "b"], "b", False),
    ("StringNotEquals", "a", None, True),
    ("StringEqualsIgnoreCase", "a", "A", True),
    ("StringNotEqualsIgnoreCase", "a", "A", False),
    ("StringLike", "a*c?", "abbcd", True),
    ("StringNotLike", "a*", "ab", False),
    ("StringEqualsIfExists", "a", None, True),
    ("StringEqualsIfExists", "a", "b", False),
    ("ForAnyValue:StringEquals", "a", ("x", "a"), True),
    ("ForAnyValue:StringEquals", "a", ("x", "y"), False),
    ("ForAnyValue:StringEquals", "a", None, False),
    ("ForAllValues:StringEquals", ["a", "b"], ("a", "b"), True),
    ("ForAllValues:StringEquals", ["a", "b"], ("a", "c"), False),
    ("ForAllValues:StringEquals", "a", None, True),
    ("ForAnyValue:StringNotEquals", "a", ("a", "b"), True),
    ("ForAnyValue:StringNotEquals", "a", None, False),
    ("IpAddress", "192.0.2.0/24", "::ffff:192.0.2.7", True),
    ("NotIpAddress", "192.0.2.0/24", "::ffff:192.0.2.7", False),
    ("ForAllValues:StringNotEquals", "a", ("a", "b"), False),
    ("StringEquals", "a", ("x", "a"), True),
    ("NumericEquals", "3", "3.0", True),
    ("NumericNotEquals", "3", "4", True),
    ("NumericLessThan", 10, "9", True),
    ("NumericLessThanEquals", "9", "9", True),
    ("NumericGreaterThan", "9", "9", False),
    ("NumericGreaterThanEquals", "9", "nine", False),
    ("DateLessThan", "2030-01-01T00:00:00Z", "2026-01-01T00:00:00Z", True),
    ("DateGreaterThan", "1800000000", "2026-01-01T00:00:00Z", False),
    ("DateGreaterThanEquals", "2026-01-01", "2026-01-01T00:00:00Z", True),
    ("DateEquals", "never", "2026-01-01T00:00:00Z", False),
    ("Bool", "true", "true", True),
    ("Bool", True, "false", False),
    ("Bool", "true", None, False),
    ("BoolIfExists", "true", None, True),
    ("IpAddress", "10.0.0.0/8", "10.1.2.3", True),
    ("IpAddress", "10.0.0.0/8", "11.1.2.3", False),
    ("IpAddress", "2001:db8::/32", "2001:db8::1", True),
    ("IpAddress", "10.0.0.0/8", "2001:db8::1", False),
    ("NotIpAddress", "10.0.0.0/8", "10.1.2.3", False),
    ("NotIpAddress", ["10.0.0.0/8", "11.0.0.0/8"], "11.1.2.3", False),
    ("ArnLike", "arn:aws:s3:::b*", "arn:aws:s3:::bucket", True),
    ("ArnEquals", "arn:aws:s3:::b*", "arn:aws:s3:::bucket", True),
    ("ArnLike", "arn:aws:s3:*", "arn:aws:sqs:us-east-1:1:q", False),
    ("ArnNotLike", "arn:aws:s3:::b*", "arn:aws:s3:::bucket", False),
    ("ArnLike", "arn:aws:sqs:*:111111111111:q", "arn:aws:sqs:a:222222222222:x:111111111111:q", False),
    ("BinaryEquals", "YQ==", "YQ==", True),
    ("Null", "true", None, True),
    ("Null", "true", "a", False),
    ("Null", "false", "a", True),
    ("Null", False, None, False),
]


@pytest.mark.parametrize(("operator", "wanted", "given", "allowed"), CONDITIONS)
def test_conditions(operator: str, wanted: Any, given: Any, allowed: bool) -> None:
    policy = document(statement(Condition={operator: {"aws:Key": wanted}}))
    context = {} if given is None else {"aws__key": given}
    found = ask(USER_A, Grants((policy,)), **context)
    assert found.allowed is allowed
    assert not found.lasting


def test_all_conditions_must_hold() -> None:
    condition = {"StringEquals": {"aws:A": "1", "aws:B": "2"}, "Bool": {"aws:C": "true"}}
    grants = Grants((document(statement(Condition=condition)),))
    assert ask(USER_A, grants, aws__a="1", aws__b="2", aws__c="true").allowed
    assert not ask(USER_A, grants, aws__a="1", aws__b="3", aws__c="true").allowed
    assert not ask(USER_A, grants, aws__a="1", aws__b="2", aws__c="false").allowed


def test_a_variable_in_a_condition() -> None:
    grants = Grants((document(statement(Condition={"StringEquals": {"aws:Key": "${aws:username}"}})),))
    assert ask(USER_A, grants, aws__key="u", aws__username="u").allowed
    assert not ask(USER_A, grants, aws__key="u", aws__username="v").allowed
    assert not ask(USER_A, grants, aws__key="u").allowed


def test_what_lasts() -> None:
    assert ask(USER_A, Grants((ALLOW,))).lasting
    elsewhere = document(statement(Resource="arn:aws:s3:::b", Condition={"Bool": {"aws:C": "true"}}))
    assert ask(USER_A, Grants((ALLOW, elsewhere))).lasting, "a condition of a statement about something else"


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    pattern = "arn:aws:lambda:*:*:function:" + "*a" * 2000 + "b"
    name = "a" * 4000
    assert not ask(
        USER_A, Grants((document(statement(Resource=pattern)),)), resource=f"{FUNCTION}{name}"
    ).allowed
