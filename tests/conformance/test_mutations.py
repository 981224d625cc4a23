"""Every built operation, each of its members made strange: never a failure of the server, never a write refused
and yet made."""

import json
import time
from typing import Any
from urllib.parse import quote

import botocore.loaders
import pytest
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.recorded import ECHO, SETTLED_WITHIN_S, arn, created, creation
from tests.running import ACCESS_KEY_ID, ACCOUNT, REGION, ROLE, SECRET_ACCESS_KEY, RunningStoker

NAME = "mutated"
EXAMPLES = 250

SIGNER = f"arn:aws:signer:{REGION}:{ACCOUNT}:/signing-profiles/test"
SIGNING = f"arn:aws:lambda:{REGION}:{ACCOUNT}:code-signing-config:csc-00000000000000000"
SOURCE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:q"
MAPPING = "00000000-0000-4000-8000-000000000000"

BASES: dict[str, dict[str, Any]] = {
    "CreateFunction": creation(NAME, Code={"ZipFile": "UEsDBA=="}),
    "GetFunction": {"FunctionName": NAME},
    "GetFunctionConfiguration": {"FunctionName": NAME},
    "ListFunctions": {},
    "UpdateFunctionCode": {"FunctionName": NAME, "DryRun": True},
    "UpdateFunctionConfiguration": {"FunctionName": NAME},
    "DeleteFunction": {"FunctionName": "mutated-never-there"},
    "PutFunctionConcurrency": {"FunctionName": NAME, "ReservedConcurrentExecutions": 1},
    "GetFunctionConcurrency": {"FunctionName": NAME},
    "DeleteFunctionConcurrency": {"FunctionName": NAME},
    "GetAccountSettings": {},
    "ListTags": {"Resource": arn(NAME)},
    "TagResource": {"Resource": arn(NAME), "Tags": {"a": "b"}},
    "UntagResource": {"Resource": arn(NAME), "TagKeys": ["a"]},
    "PutFunctionEventInvokeConfig": {"FunctionName": NAME, "MaximumRetryAttempts": 1},
    "UpdateFunctionEventInvokeConfig": {"FunctionName": NAME, "MaximumEventAgeInSeconds": 60},
    "GetFunctionEventInvokeConfig": {"FunctionName": NAME},
    "DeleteFunctionEventInvokeConfig": {"FunctionName": NAME},
    "ListFunctionEventInvokeConfigs": {"FunctionName": NAME},
    "CreateCodeSigningConfig": {"AllowedPublishers": {"SigningProfileVersionArns": [SIGNER]}},
    "GetCodeSigningConfig": {"CodeSigningConfigArn": SIGNING},
    "UpdateCodeSigningConfig": {"CodeSigningConfigArn": SIGNING},
    "DeleteCodeSigningConfig": {"CodeSigningConfigArn": SIGNING},
    "ListCodeSigningConfigs": {},
    "ListFunctionsByCodeSigningConfig": {"CodeSigningConfigArn": SIGNING},
    "PutFunctionCodeSigningConfig": {"FunctionName": NAME, "CodeSigningConfigArn": SIGNING},
    "GetFunctionCodeSigningConfig": {"FunctionName": NAME},
    "DeleteFunctionCodeSigningConfig": {"FunctionName": NAME},
    "CreateEventSourceMapping": {"FunctionName": "mutated-never-there", "EventSourceArn": SOURCE},
    "GetEventSourceMapping": {"UUID": MAPPING},
    "UpdateEventSourceMapping": {"UUID": MAPPING, "BatchSize": 1},
    "DeleteEventSourceMapping": {"UUID": MAPPING},
    "ListEventSourceMappings": {"FunctionName": NAME, "EventSourceArn": SOURCE},
    "PutFunctionRecursionConfig": {"FunctionName": NAME, "RecursiveLoop": "Allow"},
    "GetFunctionRecursionConfig": {"FunctionName": NAME},
    "PutRuntimeManagementConfig": {"FunctionName": NAME, "UpdateRuntimeOn": "Auto"},
    "GetRuntimeManagementConfig": {"FunctionName": NAME},
    "PutFunctionScalingConfig": {"FunctionName": NAME, "Qualifier": "1"},
    "GetFunctionScalingConfig": {"FunctionName": NAME, "Qualifier": "1"},
    "CreateCapacityProvider": {
        "CapacityProviderName": NAME,
        "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": []},
        "PermissionsConfig": {"CapacityProviderOperatorRoleArn": ROLE},
    },
    "GetCapacityProvider": {"CapacityProviderName": NAME},
    "UpdateCapacityProvider": {"CapacityProviderName": NAME},
    "DeleteCapacityProvider": {"CapacityProviderName": "mutated-never-there"},
    "ListCapacityProviders": {},
    "ListFunctionVersionsByCapacityProvider": {"CapacityProviderName": NAME},
    "CreateFunctionUrlConfig": {"FunctionName": NAME, "AuthType": "AWS_IAM"},
    "GetFunctionUrlConfig": {"FunctionName": NAME},
    "UpdateFunctionUrlConfig": {"FunctionName": NAME, "Cors": {"AllowOrigins": ["*"]}},
    "DeleteFunctionUrlConfig": {"FunctionName": NAME},
    "ListFunctionUrlConfigs": {"FunctionName": NAME},
    "Invoke": {"FunctionName": NAME, "InvocationType": "DryRun"},
}

MODEL: dict[str, Any] = botocore.loaders.Loader().load_service_model("lambda", "service-2")
SHAPES: dict[str, Any] = MODEL["shapes"]

STRANGE_TEXTS = st.one_of(
    st.sampled_from(
        [
            *("", " ", "\0", "a\0b", "\n", "ü", "\U0001f600", "\u202e", "a" * 65, "a" * 5000, "../..", "%00"),
            *("$LATEST", "1", "-1", "null", "true", "arn:aws:lambda", f"{NAME}:1", ROLE, "x86_64", "Active"),
            *(f"{arn(NAME)}:7", arn(NAME).replace(REGION, "eu-west-1"), arn(NAME).replace("0000", "1234")),
        ]
    ),
    st.text(max_size=12),
)
STRANGE_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2**31, 2**63, -(2**63) - 1, 1e308, 0.5, 10_241, 901]),
    STRANGE_TEXTS,
)
STRANGE = st.recursive(
    STRANGE_SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRANGE_TEXTS, inner, max_size=3),
    max_leaves=4,
)


@st.composite
def shaped(draw: st.DrawFn, name: str, depth: int = 0) -> Any:
    """A value of a shape: mostly of its kind, now and then anything."""
    shape = SHAPES[name]
    if depth > 4 or draw(st.integers(0, 4)) == 0:
        return draw(STRANGE)
    match shape["type"]:
        case "structure":
            members: dict[str, Any] = shape["members"]
            chosen = draw(st.lists(st.sampled_from(sorted(members)), max_size=2, unique=True))
            value: Any = {member: draw(shaped(members[member]["shape"], depth + 1)) for member in chosen}
        case "list":
            value = draw(st.lists(shaped(shape["member"]["shape"], depth + 1), max_size=3))
        case "map":
            value = draw(
                st.dictionaries(STRANGE_TEXTS, shaped(shape["value"]["shape"], depth + 1), max_size=3)
            )
        case "integer" | "long":
            value = draw(st.integers(-(2**33), 2**33) | st.integers(0, 1024))
        case "boolean":
            value = draw(st.booleans())
        case _:
            value = draw(st.sampled_from(shape.get("enum", ["x"])) | STRANGE_TEXTS)
    return value


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """An operation and its members, one or two of them strange."""
    operation = draw(st.sampled_from(sorted(BASES)))
    members = dict(BASES[operation])
    known = SHAPES[MODEL["operations"][operation]["input"]["shape"]]["members"]
    for member in draw(st.lists(st.sampled_from(sorted(known) or ["None"]), min_size=1, max_size=2)):
        if member in known:
            members[member] = draw(shaped(known[member]["shape"]))
    return operation, members


class Wire:
    """Requests as a careless client would write them, correctly signed."""

    def __init__(self, stoker: RunningStoker) -> None:
        self._endpoint = stoker.endpoint
        self._pool = urllib3.PoolManager(retries=False)
        self._credentials = Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY)

    def send(self, operation: str, members: dict[str, Any]) -> tuple[int, dict[str, Any], bytes]:
        """Status, headers and body of the answer."""
        described = MODEL["operations"][operation]
        shape = SHAPES[described["input"]["shape"]]
        path, query, headers, body = described["http"]["requestUri"], [], {}, {}
        for name, value in members.items():
            reference = shape["members"][name]
            place, wire = reference.get("location"), reference.get("locationName", name)
            if place == "uri":
                path = path.replace(f"{{{wire}}}", quote(_text(value), safe=""))
            elif place == "querystring":
                values = value if isinstance(value, list) else [value]
                query += [f"{wire}={quote(_text(item), safe='')}" for item in values]
            elif place == "header":
                headers[wire] = quote(_text(value))
            else:
                body[name] = value
        url = self._endpoint + path + ("?" + "&".join(query) if query else "")
        data = json.dumps(body).encode() if body else b""
        request = AWSRequest(method=described["http"]["method"], url=url, data=data, headers=headers)
        SigV4Auth(self._credentials, "lambda", REGION).add_auth(request)
        answer = self._pool.request(request.method, url, body=data, headers=dict(request.headers), timeout=30)
        return answer.status, dict(answer.headers), answer.data


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@pytest.fixture(scope="module")
def wire(stoker: RunningStoker) -> Wire:
    created(stoker, NAME, Code={"ZipFile": ECHO})
    return Wire(stoker)


def state(service: Any) -> dict[str, Any]:
    """All that a request could have changed, once what is under way has ended."""
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while time.monotonic() < deadline:
        found = service.get_function(FunctionName=NAME)["Configuration"]
        if found["State"] != "Pending" and found["LastUpdateStatus"] != "InProgress":
            break
    shown = service.get_function(FunctionName=NAME)
    pages = service.get_paginator("list_functions").paginate()
    del shown["ResponseMetadata"], shown["Code"]
    return {"names": [f["FunctionName"] for page in pages for f in page["Functions"]], **shown}


def test_strange_members(stoker: RunningStoker, wire: Wire) -> None:
    service = stoker.client("lambda")
    last: list[dict[str, Any]] = [state(service)]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests())
    def check(request: tuple[str, dict[str, Any]]) -> None:
        operation, members = request
        status, headers, body = wire.send(operation, members)
        assert status < 500 or status == 501, body
        if status >= 400:
            assert headers.get("x-amzn-ErrorType") or headers.get("x-amzn-errortype"), headers
            assert state(service) == last[0], "refused, and yet it wrote"
        else:
            last[0] = state(service)

    check()
