"""Functions that name a key of KMS, against a KMS that can be told to refuse; and rotation of the master key."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.kms import Kms, running_kms
from tests.running import ACCOUNT, PYTHON_RUNTIME, REGION, ROLE, RunningStoker, python_zip

SECRET = "plain-environment-value-that-must-not-be-found"
SOURCE = """
import os

def lambda_handler(event, context):
    return os.environ.get("WORD")
"""
UNABLE = "Lambda was unable to configure access to your environment variables"


@pytest.fixture(scope="module")
def kms() -> Iterator[Kms]:
    with running_kms() as server:
        yield server


@pytest.fixture(scope="module")
def stoker(kms: Kms) -> Iterator[RunningStoker]:
    running = RunningStoker(kms_keep_s=0, pool_memory_mb=0)
    running.environment = kms.environment()
    try:
        running.start()
        yield running
    finally:
        running.remove()


def created(stoker: RunningStoker, name: str, arn: str, **more: Any) -> dict[str, Any]:
    variables = {"Variables": {"WORD": SECRET}}
    return stoker.create_python(name, SOURCE, KMSKeyArn=arn, **{"Environment": variables, **more})


def shown(stoker: RunningStoker, name: str) -> dict[str, Any]:
    return stoker.client("lambda").get_function_configuration(FunctionName=name)


def refused(call: Any, **members: Any) -> tuple[int, str, str]:
    with pytest.raises(ClientError) as caught:
        call(**members)
    answer: Any = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


def grown_cold(stoker: RunningStoker, name: str) -> None:
    """No sandbox of it is left."""
    stoker.client("lambda").update_function_configuration(
        FunctionName=name, Timeout=int(time.time()) % 800 + 5
    )
    stoker.client("lambda").get_waiter("function_updated_v2").wait(FunctionName=name)


def test_the_environment_is_sealed_by_the_key_and_the_function_runs(kms: Kms, stoker: RunningStoker) -> None:
    arn = kms.key()
    answer = created(stoker, "sealed", arn)
    assert answer["KMSKeyArn"] == arn
    assert answer["Environment"] == {"Variables": {"WORD": SECRET}}
    assert stoker.invoke("sealed") == SECRET
    configuration = shown(stoker, "sealed")
    assert (configuration["KMSKeyArn"], configuration["Environment"]) == (arn, answer["Environment"])
    listed = stoker.client("lambda").list_functions()["Functions"]
    assert (
        next(each for each in listed if each["FunctionName"] == "sealed")["Environment"]
        == answer["Environment"]
    )


@pytest.mark.parametrize(
    ("refuse", "code", "start"),
    [
        ("disable", "KMSDisabledException", "the KMS key used is disabled"),
        ("deny", "KMSAccessDeniedException", "KMS access was denied"),
        ("delete", "KMSInvalidStateException", "the state of the KMS key used is not valid for Decrypt"),
    ],
)
def test_a_key_that_refuses_stops_cold_starts_alone(
    kms: Kms, stoker: RunningStoker, refuse: str, code: str, start: str
) -> None:
    arn, name = kms.key(), f"refused-{refuse}"
    created(stoker, name, arn)
    assert stoker.invoke(name) == SECRET
    getattr(kms, refuse)(arn)
    assert stoker.invoke(name) == SECRET, "a warm sandbox needs no key"
    grown_cold(stoker, name)
    status, given, message = refused(stoker.client("lambda").invoke, FunctionName=name)
    assert (status, given) == (502, code)
    assert message.startswith(f"Lambda was unable to decrypt the environment variables because {start}. ")
    assert "KMS Exception: " in message
    error = shown(stoker, name)["Environment"]["Error"]
    assert error["Message"].startswith("Lambda was unable to decrypt your environment variables")
    assert "Variables" not in shown(stoker, name)["Environment"]
    if refuse == "disable":
        assert error["ErrorCode"] == "DisabledException"
        kms.enable(arn)
        assert stoker.invoke(name) == SECRET


def test_a_key_that_cannot_be_used_is_refused_at_once(kms: Kms, stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    denied = kms.key()
    kms.deny(denied)
    codes = {
        denied: "AccessDeniedException",
        f"arn:aws:kms:{REGION}:{ACCOUNT}:key/00000000-0000-0000-0000-000000000000": "NotFoundException",
        f"arn:aws:kms:{REGION}:{ACCOUNT}:alias/mine": "InvalidArnException",
    }
    made = {
        "Runtime": PYTHON_RUNTIME,
        "Handler": "lambda_function.lambda_handler",
        "Role": ROLE,
        "Code": {"ZipFile": python_zip(SOURCE)},
    }
    good = kms.key()
    created(stoker, "keeps", good)
    before = shown(stoker, "keeps")
    for arn, code in codes.items():
        for call, members in (
            (service.create_function, {"FunctionName": "never", "KMSKeyArn": arn, **made}),
            (service.update_function_configuration, {"FunctionName": "keeps", "KMSKeyArn": arn}),
        ):
            status, given, message = refused(call, **members)
            assert (status, given) == (400, "InvalidParameterValueException")
            assert message.startswith(f"{UNABLE} because the KMS key is invalid for CreateGrant. ")
            assert f"KMS Exception: {code} KMS Message: " in message
    after = shown(stoker, "keeps")
    for answer in (before, after):
        del answer["ResponseMetadata"]
    assert after == before
    assert refused(service.get_function, FunctionName="never")[0] == 404


def test_the_key_changes_goes_and_comes(kms: Kms, stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    first, second = kms.key(), kms.key()
    created(stoker, "moving", first)

    def change(**members: Any) -> dict[str, Any]:
        answer = service.update_function_configuration(FunctionName="moving", **members)
        service.get_waiter("function_updated_v2").wait(FunctionName="moving")
        return answer

    published = service.publish_version(FunctionName="moving")["Version"]
    same = change(Environment={"Variables": {"WORD": SECRET}})
    assert same["Environment"] == {"Variables": {"WORD": SECRET}}
    assert service.publish_version(FunctionName="moving")["Version"] == published, "nothing has changed"
    change(KMSKeyArn=second)
    kms.disable(first)
    assert stoker.invoke("moving") == SECRET
    assert refused(service.invoke, FunctionName="moving", Qualifier=published)[1] == "KMSDisabledException"
    change(KMSKeyArn="")
    kms.disable(second)
    assert "KMSKeyArn" not in shown(stoker, "moving")
    assert stoker.invoke("moving") == SECRET
    assert service.publish_version(FunctionName="moving")["Version"] != published


def test_nothing_plain_is_stored_and_nothing_secret_logged(kms: Kms, stoker: RunningStoker) -> None:
    created(stoker, "hidden", kms.key())
    stoker.create_python("hidden-too", SOURCE, Environment={"Variables": {"WORD": SECRET}})
    keys = [word for word in (stoker.data / "master.key").read_text().split() if word]
    assert_hidden(stoker, SECRET, *keys)


def test_the_master_key_rotates_under_a_running_stoker(kms: Kms, stoker: RunningStoker) -> None:
    stoker.create_python("rotated", SOURCE, Environment={"Variables": {"WORD": SECRET}})
    user = stoker.client("iam").create_user(UserName="rotated")["User"]["UserName"]
    key = stoker.client("iam").create_access_key(UserName=user)["AccessKey"]
    keys = (key["AccessKeyId"], key["SecretAccessKey"], None)
    assert stoker.invoke("rotated") == SECRET
    old = keys_command(stoker, "list")["keys"][0]
    rotated = keys_command(stoker, "rotate")["keys"]
    assert [each["active"] for each in rotated] == [True, False]
    assert rotated[1]["key_id"] == old["key_id"]
    stoker.kill()
    stoker.start()
    deadline = time.monotonic() + 20
    while (now := keys_command(stoker, "list"))["keys"][1]["sealed"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert now["keys"][1]["sealed"] == {}
    assert now["missing"] == {}
    refusal = keys_command(stoker, "retire", code=1)
    assert "writes of before the rotation" in refusal["error"]["message"]
    words = (stoker.data / "master.key").read_text().split()
    assert len(words) == 2
    assert stoker.stop() == 0
    (stoker.data / "master.key").write_text(words[0])  # as if the old one had been retired
    stoker.start()
    assert stoker.invoke("rotated") == SECRET
    assert stoker.client_of("sts", keys).get_caller_identity()["Arn"].endswith(":user/rotated")
    assert keys_command(stoker, "list")["missing"] == {}
    assert_hidden(stoker, SECRET, key["SecretAccessKey"], *words)


def keys_command(stoker: RunningStoker, *words: str, code: int = 0) -> Any:
    command = [sys.executable, "-m", "stoker.cli.main", "keys", *words, "--json", "--data", str(stoker.data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stderr if code else done.stdout)


def assert_hidden(stoker: RunningStoker, *secrets: str) -> None:
    files = [file for file in stoker.data.rglob("*") if file.is_file() and file.name != "master.key"]
    for file in (*files, stoker.log):
        content = read(file)
        for secret in secrets:
            assert secret.encode() not in content, file


def read(file: Path) -> bytes:
    """What there is of it; the image of every /tmp is sparse and bigger than memory."""
    return b"" if file.stat().st_size > 2**30 else file.read_bytes()


def coded(stoker: RunningStoker, name: str, arn: str, source: str = SOURCE, **more: Any) -> dict[str, Any]:
    """A function whose package is sealed under a key of KMS; as GetFunction shows its code."""
    code = {"ZipFile": python_zip(source), "SourceKMSKeyArn": arn}
    service = stoker.client("lambda")
    service.create_function(
        FunctionName=name,
        Runtime=PYTHON_RUNTIME,
        Handler="lambda_function.lambda_handler",
        Role=ROLE,
        Code=code,
        Environment={"Variables": {"WORD": "x"}},
        **more,
    )
    service.get_waiter("function_active_v2").wait(FunctionName=name)
    return service.get_function(FunctionName=name)["Code"]


def test_a_package_is_sealed_by_the_key_that_its_function_names(kms: Kms, stoker: RunningStoker) -> None:
    service, arn = stoker.client("lambda"), kms.key()
    plain = stoker.create_python("coded-plain", SOURCE)
    shown_code = coded(stoker, "coded", arn)
    assert shown_code["SourceKMSKeyArn"] == arn
    with urllib.request.urlopen(shown_code["Location"]) as answer:
        downloaded = answer.read()
    assert downloaded == python_zip(SOURCE)
    assert shown(stoker, "coded")["CodeSha256"] == plain["CodeSha256"]
    assert "SourceKMSKeyArn" not in service.get_function(FunctionName="coded-plain")["Code"]
    assert stoker.invoke("coded") == "x"
    calls = kms.calls["Decrypt"]
    grown_cold(stoker, "coded")
    assert stoker.invoke("coded") == "x"
    assert kms.calls["Decrypt"] > calls
    published = service.publish_version(FunctionName="coded")["Version"]
    versioned = service.get_function(FunctionName="coded", Qualifier=published)["Code"]
    assert versioned["SourceKMSKeyArn"] == arn


@pytest.mark.parametrize(
    ("refuse", "code"),
    [
        ("disable", "KMSDisabledException"),
        ("deny", "KMSAccessDeniedException"),
        ("delete", "KMSInvalidStateException"),
    ],
)
def test_code_whose_key_refuses_neither_starts_nor_shows(
    kms: Kms, stoker: RunningStoker, refuse: str, code: str
) -> None:
    arn, name = kms.key(), f"coded-{refuse}"
    coded(stoker, name, arn)
    assert stoker.invoke(name) == "x"
    getattr(kms, refuse)(arn)
    assert stoker.invoke(name) == "x", "a warm sandbox needs no key"
    grown_cold(stoker, name)
    status, given, message = refused(stoker.client("lambda").invoke, FunctionName=name)
    assert (status, given) == (502, code)
    assert message.startswith("Lambda was unable to decrypt the code because ")
    where = stoker.client("lambda").get_function(FunctionName=name)["Code"]
    assert "Location" not in where
    assert where["SourceKMSKeyArn"] == arn
    assert where["Error"]["ErrorCode"]
    assert where["Error"]["Message"].startswith("Lambda was unable to decrypt your deployment package")
    # Whoever brings the code again, without the key, has a function that works.
    service = stoker.client("lambda")
    service.update_function_code(FunctionName=name, ZipFile=python_zip(SOURCE))
    service.get_waiter("function_updated_v2").wait(FunctionName=name)
    assert stoker.invoke(name) == "x"
    assert "SourceKMSKeyArn" not in service.get_function(FunctionName=name)["Code"]


def test_code_under_a_key_that_cannot_be_used_is_refused(kms: Kms, stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    denied = kms.key()
    kms.deny(denied)
    coded(stoker, "coded-keeps", kms.key())
    before = shown(stoker, "coded-keeps")["RevisionId"]
    for arn in (denied, f"arn:aws:kms:{REGION}:{ACCOUNT}:alias/mine"):
        status, given, message = refused(
            service.update_function_code,
            FunctionName="coded-keeps",
            ZipFile=python_zip(SOURCE),
            SourceKMSKeyArn=arn,
        )
        assert (status, given) == (400, "InvalidParameterValueException")
        assert "unable to configure access to your deployment package" in message
        with pytest.raises(ClientError, match="unable to configure access to your deployment package"):
            coded(stoker, "coded-never", arn)
    assert shown(stoker, "coded-keeps")["RevisionId"] == before
    assert refused(service.get_function, FunctionName="coded-never")[0] == 404


def test_equal_code_of_two_functions_is_sealed_twice_and_goes_with_each(
    kms: Kms, stoker: RunningStoker
) -> None:
    first, second = kms.key(), kms.key()
    marked = SOURCE + "\n# sealed twice\n"
    coded(stoker, "coded-one", first, marked)
    coded(stoker, "coded-two", second, marked)
    kms.disable(first)
    stoker.client("lambda").delete_function(FunctionName="coded-one")
    assert stoker.invoke("coded-two") == "x"
    stoker.kill()
    stoker.start()
    assert stoker.invoke("coded-two") == "x", "found again after a kill"
