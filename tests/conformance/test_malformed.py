"""Requests that no client writes: bodies that are none, paths, queries and forms full of tricks."""

import pytest

from tests.conformance.raw import Wanted, written
from tests.conformance.rows import LAMBDA_ROWS, NAME
from tests.conformance.world import World, judge

BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "a word": b"null",
    "a number": b"1" * 5000,
    "a list": b"[]",
    "a text": b'"x"',
    "not UTF-8": b'{"Description": "\xff\xfe"}',
    "UTF-16": '{"Description": "a"}'.encode("utf-16"),
    "a BOM": b'\xef\xbb\xbf{"Description": "a"}',
    "deep": b"[" * 100_000,
    "deep members": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "twice": b'{"Description": "a", "Description": ["b"]}',
    "more behind": b'{"Description": "a"} {}',
    "NaN": b'{"Timeout": NaN}',
    "a huge number": b'{"Timeout": 1e999}',
    "a long number": b'{"Timeout": ' + b"9" * 5000 + b"}",
    "a comment": b'{/* */"Description": "a"}',
    "a form": b"Action=GetUser&Version=2010-05-08",
    "other case": b'{"description": "a", "TIMEOUT": "x"}',
    "a bare NUL": b'{"Description": "a\0b"}',
    "lone surrogate": b'{"Description": "\\udfff"}',
}
REST_BODIES = ("CreateFunction", "UpdateFunctionConfiguration", "TagResource", "PutFunctionConcurrency")


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize(
    "content_type", [b"application/json", b"text/xml", b"", b"\xff", b"multipart/form-data"]
)
def test_malformed_bodies(world: World, body: bytes, content_type: bytes) -> None:
    headers = {"content-type": content_type}
    for operation in REST_BODIES:
        base = written("lambda", operation, LAMBDA_ROWS[operation].members)
        sent = base._replace(body=body, headers={**base.headers, **headers})
        judge(world, "lambda", operation, sent)
    target = written("logs", "PutRetentionPolicy", {}).headers["x-amz-target"]
    judge(
        world,
        "logs",
        "PutRetentionPolicy",
        Wanted("POST", "/", "", {**headers, "x-amz-target": target}, body),
    )
    for service, operation in (("iam", "PutRolePolicy"), ("sts", "AssumeRole")):
        judge(world, service, operation, Wanted("POST", "/", "", headers, body))


FUNCTION = f"/2015-03-31/functions/{NAME}"
TARGETS = (
    *("/", "//", "/.", "/..", "/%", "/%zz", "/%00", "/%2e%2e", "/2015-03-31", "/2015-03-31/functions/"),
    *(f"{FUNCTION}/", f"/{FUNCTION}", f"{FUNCTION}%2Fconfiguration", f"{FUNCTION}/./configuration"),
    *(f"{FUNCTION}/../{NAME}", f"{FUNCTION}%00", f"{FUNCTION}%ff", f"{FUNCTION}%", f"{FUNCTION}%u0041"),
    *(
        f"{FUNCTION}%252Fpolicy",
        f"{FUNCTION}%0d%0a",
        f"{FUNCTION};a=b",
        f"{FUNCTION}:%24LATEST",
        f"{FUNCTION}:",
    ),
    *("/2015-03-31/functions/%6dutated", "/2015-03-31/functions/mutated%20", "/2015-03-31/functions/*"),
    *("/2017-03-31/tags/arn", "/2017-03-31/tags/%", "/2015-03-31/event-source-mappings/%2e%2e"),
    *(
        "/2018-10-31/layers/l/versions/0",
        "/2018-10-31/layers/l/versions/%2B1",
        "/2018-10-31/layers/l/versions/1e3",
    ),
)
QUERIES = (
    *(
        "",
        "&",
        "=",
        "&&=&",
        "Qualifier",
        "Qualifier=",
        "Qualifier=1&Qualifier=live",
        "qualifier=1",
        "Qualifier=%",
    ),
    *("Qualifier=%00", "Qualifier=%ff", "Qualifier=+1", "Qualifier=%2B1", "Qualifier%3D1", "Qualifier=1;2"),
    *("MaxItems=1&MaxItems=2", "MaxItems=0", "MaxItems=-1", "MaxItems=1.0", "MaxItems=1e1", "MaxItems=+5"),
    *(
        "MaxItems=99999999999999999999999",
        "MaxItems=%D9%A1",
        "MaxItems=0x10",
        "MaxItems=1_0",
        "MaxItems=%201",
    ),
    *(
        "Marker=%00",
        "Marker=AAAA",
        "Marker=%ff",
        "Marker=W10=",
        "Marker=WyIiLCIiXQ%3D%3D",
        "Marker=bnVsbA%3D%3D",
    ),
    *(
        "Marker=bXV0YXRlZDox",
        "Marker=bXV0YXRlZDotMQ%3D%3D",
        "FunctionVersion=ALL&FunctionVersion=ALL",
        "List=ALL",
    ),
    *(
        "tagKeys=",
        "tagKeys",
        "tagKeys=a&tagKeys=a",
        "tagKeys=%00",
        "find=LayerVersion",
        "find=LayerVersion&Arn=",
    ),
    *("&".join(f"tagKeys=k{n}" for n in range(60)), "&".join(f"x{n}=" for n in range(900))),
)
LISTS = (
    *(
        "/2015-03-31/functions/",
        f"{FUNCTION}/versions",
        f"{FUNCTION}/aliases",
        "/2015-03-31/event-source-mappings",
    ),
    *(
        "/2018-10-31/layers",
        "/2018-10-31/layers/mutated-layer/versions",
        f"/2021-10-31/functions/{NAME}/urls",
    ),
    *("/2020-04-22/code-signing-configs", "/2025-11-30/capacity-providers"),
    *(f"/2019-09-25/functions/{NAME}/event-invoke-config/list", FUNCTION, f"{FUNCTION}/policy"),
    f"/2019-09-30/functions/{NAME}/provisioned-concurrency",
)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_tricks_of_the_path(world: World, method: str) -> None:
    for target in TARGETS:
        if method != "DELETE" or not target.lower().rstrip("/").endswith(("/mutated", "%6dutated")):
            judge(world, "lambda", "", Wanted(method, target, "", {}, b""))


@pytest.mark.parametrize("path", LISTS)
def test_tricks_of_the_query(world: World, path: str) -> None:
    for query in QUERIES:
        judge(world, "lambda", "", Wanted("GET", path, query, {}, b""))


FORMS = (
    *(
        "",
        "Action",
        "Action=",
        "Action=GetUser&Action=ListUsers",
        "Action=%00",
        "Action=%ff",
        "Action=getuser",
    ),
    *("Action=CreateRole", "Action=ListUsers&MaxItems=1&MaxItems=x", "Action=ListUsers&Version=1900-01-01"),
    *(
        "Action=TagRole&RoleName=mutated-entity&Tags=x",
        "Action=TagRole&RoleName=mutated-entity&Tags.member=x",
    ),
    "Action=TagRole&RoleName=mutated-entity&Tags.member.0.Key=a&Tags.member.0.Value=b",
    "Action=TagRole&RoleName=mutated-entity&Tags.member.99999.Key=a&Tags.member.99999.Value=b",
    "Action=TagRole&RoleName=mutated-entity&Tags.member.-1.Key=a",
    "Action=TagRole&RoleName=mutated-entity&Tags.member.1=x&Tags.member.1.Key=a",
    "Action=TagRole&RoleName.x=mutated-entity",
    "Action=UntagRole&RoleName=mutated-entity&TagKeys.member.1.x=a",
    "Action=UpdateRole&RoleName=mutated-entity&MaxSessionDuration=%20",
    f"Action=GetUser&{'.'.join('a' * 5000)}=1",
    "&".join(f"a{n}=1" for n in range(10_001)),
)


@pytest.mark.parametrize("form", FORMS, ids=range(len(FORMS)))
def test_tricks_of_forms(world: World, form: str) -> None:
    for service in ("iam", "sts"):
        judge(world, service, "", Wanted("POST", "/", "", {}, form.encode()))
        if len(form) < 2000:
            judge(world, service, "", Wanted("GET", "/", form, {}, b""))
