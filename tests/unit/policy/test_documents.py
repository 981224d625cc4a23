"""Policy documents that IAM refuses, and its words for why."""

import json
from typing import Any

import pytest

from stoker.core.policy.documents import IDENTITY, RESOURCE, TRUST, MalformedPolicy, read_policy

GOOD: dict[str, Any] = {"Effect": "Allow", "Action": "lambda:*", "Resource": "*"}
TRUSTED: dict[str, Any] = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}

REFUSED: list[tuple[str, Any, str]] = [
    (IDENTITY, {}, "Syntax errors"),
    (IDENTITY, [GOOD], "Syntax errors"),
    (IDENTITY, {"Version": "2011-01-01", "Statement": GOOD}, "version 2012-10-17"),
    (IDENTITY, {"Version": "2012-10-17", "Statement": []}, "Syntax errors"),
    (IDENTITY, {"Statement": GOOD | {"Effect": "allow"}}, "Syntax errors"),
    (IDENTITY, {"Statement": GOOD | {"More": 1}}, "Syntax errors"),
    (IDENTITY, {"Statement": GOOD | {"Action": "invoke"}}, "prefaced by a vendor"),
    (IDENTITY, {"Statement": GOOD | {"Action": []}}, "contain actions"),
    (IDENTITY, {"Statement": GOOD | {"Action": 3}}, "Syntax errors"),
    (IDENTITY, {"Statement": GOOD | {"NotAction": "a:b"}}, "Syntax errors"),
    (IDENTITY, {"Statement": {"Effect": "Allow", "Resource": "*"}}, "contain actions"),
    (IDENTITY, {"Statement": {"Effect": "Allow", "Action": "a:b"}}, "contain resources"),
    (
        IDENTITY,
        {"Statement": GOOD | {"Resource": "my-function"}},
        "Resource my-function must be in ARN format",
    ),
    (IDENTITY, {"Statement": GOOD | {"Principal": "*"}}, "should not specify a principal"),
    (
        IDENTITY,
        {"Statement": GOOD | {"Condition": {"Same": {"aws:A": "1"}}}},
        "Invalid Condition type : Same.",
    ),
    (IDENTITY, {"Statement": GOOD | {"Condition": {"Bool": {"a": "1"}}}}, "prefaced by a vendor"),
    (IDENTITY, {"Statement": GOOD | {"Sid": "with-dash"}}, "alpha-numeric"),
    (IDENTITY, {"Statement": [GOOD | {"Sid": "a"}, GOOD | {"Sid": "a"}]}, "must be unique"),
    (TRUST, {"Statement": TRUSTED | {"Resource": "*"}}, "Has prohibited field Resource"),
    (
        TRUST,
        {"Statement": {"Effect": "Allow", "Action": "sts:AssumeRole"}},
        "Missing required field Principal",
    ),
    (TRUST, {"Statement": TRUSTED | {"Principal": {"Who": "me"}}}, "Syntax errors"),
    (RESOURCE, {"Statement": GOOD | {"Principal": {"AWS": "arn:aws:iam::1:user/*"}}}, "Invalid principal"),
]


@pytest.mark.parametrize(("kind", "document", "words"), REFUSED)
def test_refused(kind: str, document: Any, words: str) -> None:
    with pytest.raises(MalformedPolicy, match=words.replace("(", r"\(")):
        read_policy(json.dumps(document), kind)


@pytest.mark.parametrize("text", ["", "{", "null", '"x"', "[" * 100_000])
def test_no_json(text: str) -> None:
    with pytest.raises(MalformedPolicy):
        read_policy(text)


def test_read() -> None:
    assert read_policy(json.dumps({"Statement": GOOD})).statements[0].actions == ("lambda:*",)
    assert read_policy(json.dumps({"Statement": [TRUSTED]}), TRUST).statements[0].resources == ("*",)
