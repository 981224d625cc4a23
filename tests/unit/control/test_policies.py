"""Resource policies of functions: statements, documents, revisions, refusals."""

import json
from typing import Any

import pytest

from stoker.services.aliases import Alias, alias_key, alias_record, alias_shelf
from stoker.services.functions import FunctionKey
from stoker.services.records import Put
from tests.unit.control.desk import ACCOUNT, REGION, Desk, arn

GIVEN: dict[str, Any] = {
    "FunctionName": "fn",
    "StatementId": "s3",
    "Action": "lambda:InvokeFunction",
    "Principal": "s3.amazonaws.com",
}

STATEMENTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"Principal": {"Service": "s3.amazonaws.com"}}),
    ({"Principal": "222222222222"}, {"Principal": {"AWS": "arn:aws:iam::222222222222:root"}}),
    (
        {"Principal": "arn:aws:iam::222222222222:role/r"},
        {"Principal": {"AWS": "arn:aws:iam::222222222222:role/r"}},
    ),
    ({"Principal": "*"}, {"Principal": "*"}),
    (
        {"SourceArn": "arn:aws:s3:::bucket", "SourceAccount": ACCOUNT},
        {
            "Condition": {
                "StringEquals": {"AWS:SourceAccount": ACCOUNT},
                "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::bucket"},
            }
        },
    ),
    (
        {"Principal": "*", "PrincipalOrgID": "o-abcdefghij"},
        {"Principal": "*", "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-abcdefghij"}}},
    ),
    (
        {"Principal": "alexa-appkit.amazon.com", "EventSourceToken": "token"},
        {
            "Principal": {"Service": "alexa-appkit.amazon.com"},
            "Condition": {"StringEquals": {"lambda:EventSourceToken": "token"}},
        },
    ),
    (
        {"Action": "lambda:InvokeFunctionUrl", "Principal": "*", "FunctionUrlAuthType": "NONE"},
        {
            "Action": "lambda:InvokeFunctionUrl",
            "Principal": "*",
            "Condition": {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}},
        },
    ),
    (
        {"Principal": "*", "InvokedViaFunctionUrl": True},
        {"Principal": "*", "Condition": {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}},
    ),
]


@pytest.mark.parametrize(("members", "shown"), STATEMENTS)
async def test_statements(desk: Desk, members: dict[str, Any], shown: dict[str, Any]) -> None:
    await desk.active()
    expected = {
        "Sid": "s3",
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "lambda:InvokeFunction",
        "Resource": arn("fn"),
    } | shown
    added = await desk.ask("AddPermission", **(GIVEN | members))
    assert json.loads(added["Statement"]) == expected
    policy = await desk.ask("GetPolicy", FunctionName="fn")
    assert json.loads(policy["Policy"]) == {
        "Version": "2012-10-17",
        "Id": "default",
        "Statement": [expected],
    }
    assert desk.published[-1].name == "fn"


async def test_adding_removing_and_revisions(desk: Desk) -> None:
    await desk.active()
    await desk.ask("AddPermission", **GIVEN)
    first = await desk.ask("GetPolicy", FunctionName="fn")
    await desk.ask("AddPermission", **(GIVEN | {"StatementId": "s3_2", "RevisionId": first["RevisionId"]}))
    second = await desk.ask("GetPolicy", FunctionName="fn")
    assert [each["Sid"] for each in json.loads(second["Policy"])["Statement"]] == ["s3", "s3_2"]
    stale = {"FunctionName": "fn", "StatementId": "s3", "RevisionId": first["RevisionId"]}
    code, message = await desk.refusal("RemovePermission", **stale)
    assert (code, message.split(". ")[1]) == (
        "PreconditionFailedException",
        "Call the GetPolicy API to retrieve the latest Revision Id",
    )
    await desk.ask("RemovePermission", **(stale | {"RevisionId": second["RevisionId"]}))
    await desk.ask("RemovePermission", FunctionName="fn", StatementId="s3_2")
    gone = ("ResourceNotFoundException", "The resource you requested does not exist.")
    assert await desk.refusal("GetPolicy", FunctionName="fn") == gone


async def test_aliases_have_policies_of_their_own(desk: Desk) -> None:
    await desk.active()
    shelf = alias_shelf(desk.records)
    key = alias_key(FunctionKey(ACCOUNT, REGION, "fn"), "prod")
    await shelf.write(Put(alias_record(shelf, key, Alias(version="1"), "alias-revision")))
    wrong = GIVEN | {"Qualifier": "prod", "RevisionId": "another"}
    assert (await desk.refusal("AddPermission", **wrong))[0] == "PreconditionFailedException"
    added = await desk.ask("AddPermission", **(wrong | {"RevisionId": "alias-revision"}))
    assert json.loads(added["Statement"])["Resource"] == f"{arn('fn')}:prod"
    assert await desk.refusal("GetPolicy", FunctionName="fn")
    assert await desk.ask("GetPolicy", FunctionName="fn:prod")


REFUSED: list[tuple[str, dict[str, Any], tuple[str, str]]] = [
    (
        "AddPermission",
        {"FunctionName": "nothing"},
        ("ResourceNotFoundException", f"Function not found: {arn('nothing')}"),
    ),
    (
        "AddPermission",
        {"Qualifier": "42"},
        ("ResourceNotFoundException", f"Function not found: {arn('fn')}:42"),
    ),
    (
        "AddPermission",
        {"Qualifier": "prod"},
        ("ResourceNotFoundException", f"Cannot find alias arn: {arn('fn')}:prod"),
    ),
    (
        "AddPermission",
        {"Qualifier": "valid-with-$-but-doesnotexist"},
        ("ResourceNotFoundException", f"Function not found: {arn('fn')}:valid-with-$-but-doesnotexist"),
    ),
    (
        "AddPermission",
        {"Qualifier": "$LATEST"},
        ("InvalidParameterValueException", "We currently do not support adding policies for $LATEST."),
    ),
    (
        "AddPermission",
        {"Principal": "invalid.nonaws.com"},
        (
            "InvalidParameterValueException",
            "The provided principal was invalid. Please check the principal and try again.",
        ),
    ),
    (
        "AddPermission",
        {"StatementId": "there"},
        (
            "ResourceConflictException",
            "The statement id (there) provided already exists. Please provide a new statement id, or remove "
            "the existing statement.",
        ),
    ),
    (
        "RemovePermission",
        {"FunctionName": "nothing"},
        ("ResourceNotFoundException", f"No policy found for: {arn('nothing')}"),
    ),
    (
        "RemovePermission",
        {"Qualifier": "prod"},
        ("ResourceNotFoundException", f"Cannot find alias arn: {arn('fn')}:prod"),
    ),
    (
        "RemovePermission",
        {"FunctionName": "other"},
        ("ResourceNotFoundException", "No policy is associated with the given resource."),
    ),
    (
        "RemovePermission",
        {"StatementId": "nothing"},
        ("ResourceNotFoundException", "Statement nothing is not found in resource policy."),
    ),
    (
        "GetPolicy",
        {"FunctionName": "nothing"},
        ("ResourceNotFoundException", "The resource you requested does not exist."),
    ),
]


@pytest.mark.parametrize(("operation", "members", "refusal"), REFUSED)
async def test_refused(desk: Desk, operation: str, members: dict[str, Any], refusal: tuple[str, str]) -> None:
    await desk.active()
    await desk.active("other")
    await desk.ask("AddPermission", **(GIVEN | {"StatementId": "there"}))
    before = await desk.ask("GetPolicy", FunctionName="fn")
    assert await desk.refusal(operation, **(GIVEN | members)) == refusal
    assert await desk.ask("GetPolicy", FunctionName="fn") == before


async def test_a_policy_has_a_size(desk: Desk) -> None:
    await desk.active()
    refused = None
    for number in range(200):
        members = GIVEN | {"StatementId": f"{number:0100}"}
        try:
            await desk.ask("AddPermission", **members)
        except Exception:
            refused = await desk.refusal("AddPermission", **members)
            break
    assert refused is not None
    assert refused[0] == "PolicyLengthExceededException"
    assert refused[1].endswith("is bigger than the limit (20480).")
    assert len((await desk.ask("GetPolicy", FunctionName="fn"))["Policy"]) <= 20_480


async def test_a_policy_goes_with_its_function(desk: Desk) -> None:
    await desk.active()
    await desk.ask("AddPermission", **GIVEN)
    await desk.ask("DeleteFunction", FunctionName="fn")
    await desk.active()
    assert (await desk.refusal("GetPolicy", FunctionName="fn"))[0] == "ResourceNotFoundException"


async def test_whole_documents(desk: Desk) -> None:
    await desk.active()
    await desk.ask("AddPermission", **GIVEN)
    statement = {"Effect": "Deny", "Principal": "*", "Action": "lambda:*", "Resource": arn("fn")}
    document = json.dumps({"Version": "2012-10-17", "Statement": statement})
    put = await desk.ask("PutResourcePolicy", ResourceArn=arn("fn"), Policy=document)
    assert json.loads(put["Policy"]) == {"Version": "2012-10-17", "Statement": [statement]}
    assert await desk.ask("GetResourcePolicy", ResourceArn=arn("fn")) == put
    assert (await desk.ask("GetPolicy", FunctionName="fn"))["RevisionId"] == put["RevisionId"]
    for wrong in ("{", document.replace(arn("fn"), arn("g")), document.replace("Deny", "Maybe")):
        refused = await desk.refusal("PutResourcePolicy", ResourceArn=arn("fn"), Policy=wrong)
        assert refused[0] == "InvalidParameterValueException"
    assert await desk.ask("GetResourcePolicy", ResourceArn=arn("fn")) == put
    await desk.ask("DeleteResourcePolicy", ResourceArn=arn("fn"), RevisionId=put["RevisionId"])
    assert (await desk.refusal("GetPolicy", FunctionName="fn"))[0] == "ResourceNotFoundException"
