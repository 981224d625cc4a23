"""Code signing configurations, every answer compared with what AWS answered (recorded)."""

from typing import Any

from tests.conformance.recorded import (
    ECHO,
    MOMENT,
    OTHER,
    Like,
    answer,
    arn,
    created,
    creation,
    invalid,
    not_found,
    refusal,
)
from tests.running import ACCOUNT, REGION, RunningStoker

SIGNER = f"arn:aws:signer:{REGION}:{ACCOUNT}:/signing-profiles/test"
CONFIG_ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:code-signing-config:"
ABSENT = f"{CONFIG_ARN}csc-00000000000000000"
PUBLISHERS = {"SigningProfileVersionArns": [SIGNER]}
GONE = (
    "The code signing configuration cannot be found. Check that the provided configuration is not deleted: "
)
CANNOT_USE = refusal(
    "CodeSigningConfigNotFoundException", f"{GONE}{ABSENT}.", 404, Type="User", Message=f"{GONE}{ABSENT}."
)
ABSENT_WORDS = f"The Lambda code signing configuration {ABSENT} can not be found."
NOT_THERE = refusal("ResourceNotFoundException", ABSENT_WORDS, 404, Message=ABSENT_WORDS)


def shown(policy: str = "Enforce", **members: Any) -> dict[str, Any]:
    return {
        "AllowedPublishers": PUBLISHERS,
        "CodeSigningConfigArn": Like(rf"{CONFIG_ARN}csc-[a-z0-9]{{17}}"),
        "CodeSigningConfigId": Like("csc-[a-z0-9]{17}"),
        "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": policy},
        "Description": "Testing CodeSigning Config",
        "LastModified": MOMENT,
        **members,
    }


def create(stoker: RunningStoker, policy: str = "Enforce") -> str:
    made = answer(
        stoker.client("lambda").create_code_signing_config,
        Description="Testing CodeSigning Config",
        AllowedPublishers=PUBLISHERS,
        CodeSigningPolicies={"UntrustedArtifactOnDeployment": policy},
    )
    assert made == {"CodeSigningConfig": shown(policy), "HTTP": 201}
    return made["CodeSigningConfig"]["CodeSigningConfigArn"]


def test_a_configuration_and_its_function(stoker: RunningStoker) -> None:
    name, service = "signed", stoker.client("lambda")
    created(stoker, name)
    config = create(stoker)
    updated = answer(
        service.update_code_signing_config,
        CodeSigningConfigArn=config,
        CodeSigningPolicies={"UntrustedArtifactOnDeployment": "Warn"},
    )
    warns = {"CodeSigningConfig": shown("Warn", CodeSigningConfigArn=config), "HTTP": 200}
    assert updated == warns
    assert answer(service.get_code_signing_config, CodeSigningConfigArn=config) == warns
    used = {"CodeSigningConfigArn": config, "FunctionName": name, "HTTP": 200}
    put = service.put_function_code_signing_config
    assert answer(put, FunctionName=name, CodeSigningConfigArn=config) == used
    assert answer(service.get_function_code_signing_config, FunctionName=name) == used
    listed = answer(service.list_functions_by_code_signing_config, CodeSigningConfigArn=config)
    assert listed == {"FunctionArns": [arn(name)], "HTTP": 200}
    assert warns["CodeSigningConfig"] in service.list_code_signing_configs()["CodeSigningConfigs"]
    refused = answer(service.delete_code_signing_config, CodeSigningConfigArn=config)
    assert (refused["HTTP"], refused["Error"]["Code"]) == (409, "ResourceConflictException")
    assert answer(service.delete_function_code_signing_config, FunctionName=name) == {"HTTP": 204}
    assert answer(service.delete_code_signing_config, CodeSigningConfigArn=config) == {"HTTP": 204}


def test_what_is_not_there(stoker: RunningStoker) -> None:
    name, absent, service = "unsigned", "unsigned-absent", stoker.client("lambda")
    created(stoker, name)
    config = create(stoker)
    assert answer(service.update_code_signing_config, CodeSigningConfigArn=config) == {
        "CodeSigningConfig": shown(CodeSigningConfigArn=config),
        "HTTP": 200,
    }
    for call in (
        service.update_code_signing_config,
        service.delete_code_signing_config,
        service.get_code_signing_config,
        service.list_functions_by_code_signing_config,
    ):
        assert answer(call, CodeSigningConfigArn=ABSENT) == NOT_THERE
    listed = answer(service.list_functions_by_code_signing_config, CodeSigningConfigArn=config)
    assert listed == {"FunctionArns": [], "HTTP": 200}
    put = service.put_function_code_signing_config
    assert answer(put, FunctionName=name, CodeSigningConfigArn=ABSENT) == CANNOT_USE
    assert answer(put, FunctionName=absent, CodeSigningConfigArn=ABSENT) == CANNOT_USE
    assert answer(put, FunctionName=absent, CodeSigningConfigArn=config) == not_found(absent)
    assert answer(service.get_function_code_signing_config, FunctionName=absent) == not_found(absent)
    assert answer(service.delete_function_code_signing_config, FunctionName=absent) == not_found(absent)
    assert answer(service.get_function_code_signing_config, FunctionName=name) == {"HTTP": 200}
    assert answer(service.delete_function_code_signing_config, FunctionName=name) == {"HTTP": 204}
    assert answer(service.delete_code_signing_config, CodeSigningConfigArn=config) == {"HTTP": 204}


def test_enforce_refuses_unsigned_code_and_warn_lets_it_pass(stoker: RunningStoker) -> None:
    name, service = "signing-enforced", stoker.client("lambda")
    enforces, warns = create(stoker), create(stoker, "Warn")
    unverified = (
        "Lambda cannot deploy the function. The function or layer might be signed using a signature that the "
        f"client is not configured to accept. Check the provided signature for {name}."
    )
    refused = refusal("CodeVerificationFailedException", unverified, 400, Type="User", Message=unverified)
    make = service.create_function
    assert answer(make, **creation(name, CodeSigningConfigArn=enforces)) == refused
    assert answer(make, **creation(name, CodeSigningConfigArn=ABSENT)) == CANNOT_USE
    assert answer(service.get_function, FunctionName=name)["HTTP"] == 404
    created(stoker, name, CodeSigningConfigArn=warns)
    assert service.get_function_code_signing_config(FunctionName=name)["CodeSigningConfigArn"] == warns
    service.put_function_code_signing_config(FunctionName=name, CodeSigningConfigArn=enforces)
    before = service.get_function_configuration(FunctionName=name)["RevisionId"]
    assert answer(service.update_function_code, FunctionName=name, ZipFile=OTHER) == refused
    assert service.get_function_configuration(FunctionName=name)["RevisionId"] == before
    service.delete_function_code_signing_config(FunctionName=name)
    assert answer(service.update_function_code, FunctionName=name, ZipFile=ECHO)["HTTP"] == 200


def test_versions_have_no_configuration_of_their_own(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    refused = answer(service.get_function_code_signing_config, FunctionName="unsigned:$LATEST")
    assert refused == invalid(
        "This operation is permitted on Lambda functions only. Aliases and versions do not support this "
        "operation. Please specify either a function name or an unqualified function ARN."
    )
