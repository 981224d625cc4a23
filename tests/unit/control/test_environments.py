"""Environments under a key of KMS: what is stored, what is shown, what a failing KMS leaves as it was."""

from pathlib import Path

import pytest

from stoker.core.errors import ServiceError
from stoker.services.functions import FunctionVersion
from stoker.services.keys import KeyRefused, KeyUnavailable
from tests.unit.control.desk import ACCOUNT, REGION, Desk

ARN = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/one"
OTHER = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/two"
SECRET = {"Variables": {"SECRET": "value"}}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def stored(desk: Desk) -> FunctionVersion:
    found = await desk.metadata.version(desk.key("f"), "$LATEST")
    assert found is not None
    return found


async def test_only_the_sealed_environment_is_stored(desk: Desk) -> None:
    answer = await desk.create("f", KMSKeyArn=ARN, Environment=SECRET)
    assert (answer["KMSKeyArn"], answer["Environment"]) == (ARN, SECRET)
    version = await stored(desk)
    assert version.environment is None
    assert version.environment_sealed is not None
    assert b"value" not in version.environment_sealed.sealed
    await desk.settled()


async def test_what_is_unchanged_stays_as_it_was_sealed(desk: Desk) -> None:
    await desk.create("f", KMSKeyArn=ARN, Environment=SECRET)
    await desk.settled()
    before = await stored(desk)
    for members in ({"Environment": SECRET}, {"KMSKeyArn": ARN}, {"Description": "d"}):
        await desk.ask("UpdateFunctionConfiguration", FunctionName="f", **members)
        await desk.settled()
        after = await stored(desk)
        assert after.environment_sealed == before.environment_sealed
        assert after.deployment_id == before.deployment_id
    for members in ({"Environment": {"Variables": {"SECRET": "other"}}}, {"KMSKeyArn": OTHER}):
        await desk.ask("UpdateFunctionConfiguration", FunctionName="f", **members)
        await desk.settled()
        after = await stored(desk)
        assert after.environment_sealed != before.environment_sealed
        assert after.deployment_id != before.deployment_id
        before = after
    answer = await desk.ask("UpdateFunctionConfiguration", FunctionName="f", KMSKeyArn="")
    assert "KMSKeyArn" not in answer
    assert (await stored(desk)).environment == {"SECRET": "other"}
    await desk.settled()


async def test_without_variables_the_key_is_tried_all_the_same(desk: Desk) -> None:
    desk.data_keys.failure = KeyRefused("DisabledException", "it is disabled.")
    with pytest.raises(ServiceError) as caught:
        await desk.create("f", KMSKeyArn=ARN)
    assert caught.value.code == "InvalidParameterValueException"
    assert caught.value.message == (
        "Lambda was unable to configure access to your environment variables because the KMS key is invalid "
        "for CreateGrant. Please check your KMS key settings. KMS Exception: DisabledException KMS Message: "
        "it is disabled."
    )
    assert await desk.metadata.function(desk.key("f")) is None
    desk.data_keys.failure = None
    assert "Environment" not in await desk.create("f", KMSKeyArn=ARN)
    await desk.settled()


async def test_a_kms_that_is_down_changes_nothing(desk: Desk) -> None:
    await desk.create("f", KMSKeyArn=ARN, Environment=SECRET)
    await desk.settled()
    before = await stored(desk)
    desk.data_keys.failure = KeyUnavailable("KMS: no answer")
    for members in ({"Environment": SECRET}, {"KMSKeyArn": OTHER}, {"KMSKeyArn": ""}):
        with pytest.raises(ServiceError, match="KMS: no answer") as caught:
            await desk.ask("UpdateFunctionConfiguration", FunctionName="f", **members)
        assert caught.value.code == "ServiceException"
        assert await stored(desk) == before
    shown = await desk.ask("GetFunctionConfiguration", FunctionName="f")
    assert shown["Environment"]["Error"]["ErrorCode"] == "ServiceException"
    assert "Variables" not in shown["Environment"]
    await desk.ask("UpdateFunctionConfiguration", FunctionName="f", MemorySize=256)
    assert (await stored(desk)).environment_sealed == before.environment_sealed
    await desk.settled()
