"""Permissions of layer versions."""

import json
from typing import Any

from tests.unit.control.desk import ACCOUNT, REGION, Desk, zipped

ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:l:1"
GIVEN: dict[str, Any] = {
    "LayerName": "l",
    "VersionNumber": 1,
    "StatementId": "all",
    "Action": "lambda:GetLayerVersion",
    "Principal": "*",
    "OrganizationId": "o-abcdefghij",
}


async def test_the_life_of_a_policy(desk: Desk) -> None:
    missing = await desk.refusal("AddLayerVersionPermission", **GIVEN)
    assert missing == ("ResourceNotFoundException", f"Layer version {ARN} does not exist.")
    await desk.ask("PublishLayerVersion", LayerName="l", Content={"ZipFile": zipped()})
    none = ("ResourceNotFoundException", "No policy is associated with the given resource.")
    assert await desk.refusal("GetLayerVersionPolicy", LayerName="l", VersionNumber=1) == none
    added = await desk.ask("AddLayerVersionPermission", **GIVEN)
    statement = {
        "Sid": "all",
        "Effect": "Allow",
        "Principal": "*",
        "Action": "lambda:GetLayerVersion",
        "Resource": ARN,
        "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-abcdefghij"}},
    }
    assert json.loads(added["Statement"]) == statement
    shown = await desk.ask("GetLayerVersionPolicy", LayerName="l", VersionNumber=1)
    assert json.loads(shown["Policy"])["Statement"] == [statement]
    assert shown["RevisionId"] == added["RevisionId"]
    assert (await desk.refusal("AddLayerVersionPermission", **GIVEN))[0] == "ResourceConflictException"
    gone = {"LayerName": "l", "VersionNumber": 1, "StatementId": "all"}
    stale = await desk.refusal("RemoveLayerVersionPermission", **gone, RevisionId="another")
    assert stale[0] == "PreconditionFailedException"
    await desk.ask("RemoveLayerVersionPermission", **gone, RevisionId=shown["RevisionId"])
    assert await desk.refusal("GetLayerVersionPolicy", LayerName="l", VersionNumber=1) == none
