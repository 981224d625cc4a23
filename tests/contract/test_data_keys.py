"""One suite over every DataKeys: the master key, KMS (a moto server), the choice between them, the fake."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from stoker.aws.clients import AwsClients
from stoker.aws.kms import KmsDataKeys
from stoker.services.keys import DATA_KEY_BYTES, DataKeys, KeyRefused, KeyUnavailable
from stoker.store.data_keys import EitherDataKeys, MasterDataKeys
from stoker.store.memory_keys import MemoryDataKeys
from stoker.store.sealing import Sealer
from tests.kms import Kms, running_kms

OLD, NEW = b"o" * 32, b"n" * 32
CONTEXT = {"account": "000000000000", "artifact": "one"}


@pytest.fixture(scope="module")
def kms() -> Iterator[Kms]:
    with running_kms() as server:
        yield server


@pytest.fixture
def kms_keys(kms: Kms, monkeypatch: pytest.MonkeyPatch) -> KmsDataKeys:
    return connected(kms, monkeypatch)


def connected(kms: Kms, monkeypatch: pytest.MonkeyPatch, **options: Any) -> KmsDataKeys:
    for name, value in kms.environment().items():
        monkeypatch.setenv(name, value)
    return KmsDataKeys(AwsClients(kms.environment()), **{"kept_s": 0.0, **options})


@pytest.fixture(params=["master", "kms", "either-master", "either-kms", "memory"])
def made(request: pytest.FixtureRequest, kms: Kms, kms_keys: KmsDataKeys) -> tuple[DataKeys, str | None]:
    """The port, and the KMS key to ask it for."""
    master = MasterDataKeys(Sealer([NEW]))
    if request.param == "master":
        return master, None
    if request.param == "memory":
        return MemoryDataKeys(), None
    if request.param == "kms":
        return kms_keys, kms.key()
    return EitherDataKeys(master, kms_keys), kms.key() if request.param == "either-kms" else None


async def test_a_key_opens_with_its_own_context(made: tuple[DataKeys, str | None]) -> None:
    keys, arn = made
    plain, wrapped = await keys.generate(CONTEXT, arn)
    assert len(plain) == DATA_KEY_BYTES
    assert plain not in wrapped
    reordered = dict(reversed(CONTEXT.items()))
    assert await keys.unwrap(wrapped, reordered) == plain
    another, _ = await keys.generate(CONTEXT, arn)
    assert another != plain


@pytest.mark.parametrize(
    "context",
    [{}, {**CONTEXT, "artifact": "two"}, {**CONTEXT, "account": "111111111111"}, {**CONTEXT, "more": ""}],
)
async def test_it_opens_with_no_other_context(
    made: tuple[DataKeys, str | None], context: dict[str, str]
) -> None:
    keys, arn = made
    _, wrapped = await keys.generate(CONTEXT, arn)
    with pytest.raises(KeyRefused):
        await keys.unwrap(wrapped, context)


async def test_a_damaged_key_is_refused(made: tuple[DataKeys, str | None]) -> None:
    keys, arn = made
    _, wrapped = await keys.generate(CONTEXT, arn)
    flipped = [wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :] for at in (0, len(wrapped) - 1)]
    for damaged in (b"", wrapped[:1], wrapped[:-1], *flipped):
        with pytest.raises(KeyRefused):
            await keys.unwrap(damaged, CONTEXT)


async def test_what_is_wrapped_by_the_active_key_stays(made: tuple[DataKeys, str | None]) -> None:
    keys, arn = made
    _, wrapped = await keys.generate(CONTEXT, arn)
    assert await keys.rewrap(wrapped, CONTEXT) is None


async def test_the_fake_wraps_again_and_fails_on_demand() -> None:
    keys = MemoryDataKeys()
    plain, wrapped = await keys.generate(CONTEXT)
    keys.generation += 1
    again = await keys.rewrap(wrapped, CONTEXT)
    assert again is not None
    assert await keys.unwrap(again, CONTEXT) == plain
    assert await keys.rewrap(again, CONTEXT) is None
    keys.failure = KeyUnavailable("down")
    for call in (keys.generate(CONTEXT), keys.unwrap(again, CONTEXT), keys.rewrap(again, CONTEXT)):
        with pytest.raises(KeyUnavailable):
            await call


async def test_the_master_key_changes_and_the_data_key_does_not() -> None:
    plain, wrapped = await MasterDataKeys(Sealer([OLD])).generate(CONTEXT)
    rotated = MasterDataKeys(Sealer([NEW, OLD]))
    again = await rotated.rewrap(wrapped, CONTEXT)
    assert again is not None
    assert await MasterDataKeys(Sealer([NEW])).unwrap(again, CONTEXT) == plain
    with pytest.raises(KeyRefused):
        await MasterDataKeys(Sealer([NEW])).unwrap(wrapped, CONTEXT)


async def test_kms_refusals_keep_their_code(kms: Kms, kms_keys: KmsDataKeys) -> None:
    disabled, denied, deleted = kms.key(), kms.key(), kms.key()
    wrapped = {arn: (await kms_keys.generate(CONTEXT, arn))[1] for arn in (disabled, denied, deleted)}
    kms.disable(disabled)
    kms.deny(denied)
    kms.delete(deleted)
    codes = {
        disabled: "DisabledException",
        denied: "AccessDeniedException",
        deleted: "KMSInvalidStateException",
    }
    for arn, code in codes.items():
        for call in (kms_keys.unwrap(wrapped[arn], CONTEXT), kms_keys.generate(CONTEXT, arn)):
            with pytest.raises(KeyRefused) as caught:
                await call
            assert caught.value.code == code
    kms.enable(disabled)
    assert await kms_keys.unwrap(wrapped[disabled], CONTEXT)


@pytest.mark.parametrize(
    ("arn", "code"),
    [
        ("arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000", "NotFoundException"),
        ("arn:aws:kms:us-east-1:123456789012:alias/mine", "InvalidArnException"),
        ("arn:aws:sqs:us-east-1:123456789012:queue", "InvalidArnException"),
        ("arn:aws:kms:x.evil.example/:123456789012:key/a", "InvalidArnException"),
    ],
)
async def test_kms_does_not_take_every_arn(kms_keys: KmsDataKeys, arn: str, code: str) -> None:
    with pytest.raises(KeyRefused) as caught:
        await kms_keys.generate(CONTEXT, arn)
    assert caught.value.code == code


async def test_a_key_of_kms_is_kept_for_a_while_and_asked_for_once(
    kms: Kms, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    keys = connected(kms, monkeypatch, kept_s=60.0, monotonic_s=lambda: now[0])
    arn = kms.key()
    before = kms.calls["Decrypt"]
    plain, wrapped = await keys.generate(CONTEXT, arn)
    assert await keys.unwrap(wrapped, CONTEXT) == plain
    assert kms.calls["Decrypt"] == before
    with pytest.raises(KeyRefused):
        await keys.unwrap(wrapped, {**CONTEXT, "artifact": "two"})
    now[0] = 61.0
    before = kms.calls["Decrypt"]
    assert await asyncio.gather(*(keys.unwrap(wrapped, CONTEXT) for _ in range(20))) == [plain] * 20
    assert kms.calls["Decrypt"] == before + 1
    kms.disable(arn)
    assert await keys.unwrap(wrapped, CONTEXT) == plain
    now[0] = 122.0
    with pytest.raises(KeyRefused):
        await keys.unwrap(wrapped, CONTEXT)


async def test_kms_is_asked_again_when_it_fails_by_itself(kms: Kms, kms_keys: KmsDataKeys) -> None:
    arn = kms.key()
    kms.failures = 2
    _, wrapped = await kms_keys.generate(CONTEXT, arn)
    kms.failures = 3
    with pytest.raises(KeyUnavailable):
        await kms_keys.unwrap(wrapped, CONTEXT)
    assert kms.failures == 0
    assert await kms_keys.unwrap(wrapped, CONTEXT)


async def test_kms_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "AWS_ENDPOINT_URL_KMS": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    keys = KmsDataKeys(AwsClients(environment), kept_s=0.0)
    with pytest.raises(KeyUnavailable, match=r"127\.0\.0\.1:9"):
        await keys.generate(CONTEXT, "arn:aws:kms:us-east-1:123456789012:key/0")
