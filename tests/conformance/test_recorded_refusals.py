"""What AWS refuses, in its recorded words: nothing may be written when it does."""

import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import pytest

from tests.conformance.recorded import (
    PENDING,
    answer,
    configuration,
    created,
    creation,
    invalid,
    not_found,
    refusal,
    settled,
    violates,
)
from tests.running import REGION, RunningStoker

RUNTIMES = (
    "nodejs20.x, python3.14, provided.al2023, python3.12, python3.13, nodejs24.x, nodejs22.x, java25, python3.10, "
    "python3.11, java21, ruby3.3, ruby3.4, ruby3.2, python3.8, python3.9, java17, nodejs16.x, dotnet10, dotnet8, "
    "java11, dotnet6, nodejs18.x, provided.al2, java8.al2"
)
NO_ROLE = violates(
    "'r1'",
    "role",
    "Member must satisfy regular expression pattern: "
    r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+",
)
NOT_A_SUBNET = (
    "Member must satisfy constraint: [Member must have length less than or equal to 1024, Member must have length "
    "greater than or equal to 0, Member must satisfy regular expression pattern: subnet-[0-9a-z]*]"
)
NOT_A_GROUP = (
    "Member must satisfy constraint: [Member must have length less than or equal to 1024, Member must have length "
    "greater than or equal to 0, Member must satisfy regular expression pattern: sg-[0-9a-zA-Z]*]"
)
NO_SUBNET = (
    "Error occurred while DescribeSubnets. EC2 Error Code: InvalidSubnetID.NotFound. "
    "EC2 Error Message: The subnet ID 'subnet-1234' does not exist"
)


def unknown_runtime(runtime: str) -> dict[str, Any]:
    return invalid(
        f"Value {runtime} at 'runtime' failed to satisfy constraint: "
        f"Member must satisfy enum value set: [{RUNTIMES}] or be a valid ARN"
    )


CONFIGURATION: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "role": ({"Role": "r1"}, NO_ROLE),
    "unknown runtime": ({"Runtime": "non-existent-runtime"}, unknown_runtime("non-existent-runtime")),
    "upper case": ({"Runtime": "PYTHON3.9"}, unknown_runtime("PYTHON3.9")),
    "snap start": (
        {"SnapStart": {"ApplyOn": "invalidOption"}},
        violates(
            "'invalidOption'",
            "snapStart.applyOn",
            "Member must satisfy enum value set: [PublishedVersions, None]",
        ),
    ),
    "no subnet": (
        {"VpcConfig": {"SubnetIds": ["bad-format"], "SecurityGroupIds": ["sg-1"]}},
        violates("'[bad-format]'", "vpcConfig.subnetIds", NOT_A_SUBNET),
    ),
    "no security group": (
        {"VpcConfig": {"SubnetIds": ["subnet-1234"], "SecurityGroupIds": ["bad-format"]}},
        violates("'[bad-format]'", "vpcConfig.securityGroupIds", NOT_A_GROUP),
    ),
    "a subnet that does not exist": (
        {"VpcConfig": {"SubnetIds": ["subnet-1234"], "SecurityGroupIds": ["sg-1"]}},
        invalid(NO_SUBNET),
    ),
}
CREATION: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "two architectures": (
        {"Architectures": ["x86_64", "arm64"]},
        violates("'[x86_64, arm64]'", "architectures", "Member must have length less than or equal to 1"),
    ),
    "an architecture in upper case": (
        {"Architectures": ["X86_64"]},
        violates(
            "'[X86_64]'",
            "architectures",
            "Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], "
            "Member must not be null]",
        ),
    ),
    "no zip": (
        {"Code": {"ZipFile": b"this is not a zipfile, just a random string"}},
        invalid("Could not unzip uploaded file. Please check your file, then try to upload again."),
    ),
    "too many tags": (
        {"Tags": {f"{number}_key": f"{number}_value" for number in range(51)}},
        invalid("Number of tags exceeds resource tag limit."),
    ),
}


@pytest.mark.parametrize("name", [*CONFIGURATION, *CREATION])
def test_a_creation_is_refused(stoker: RunningStoker, name: str) -> None:
    change, expected = (CONFIGURATION | CREATION)[name]
    service = stoker.client("lambda")
    assert answer(service.create_function, **creation("recorded-refused", **change)) == expected
    assert answer(service.get_function, FunctionName="recorded-refused") == not_found("recorded-refused")


@pytest.fixture(scope="module")
def victim(stoker: RunningStoker) -> str:
    created(stoker, "recorded-victim")
    return "recorded-victim"


@pytest.mark.parametrize("name", CONFIGURATION)
def test_an_update_is_refused(stoker: RunningStoker, victim: str, name: str) -> None:
    change, expected = CONFIGURATION[name]
    service = stoker.client("lambda")
    before = settled(stoker, victim)
    assert answer(service.update_function_configuration, FunctionName=victim, **change) == expected
    after = service.get_function_configuration(FunctionName=victim)
    assert {**after, "ResponseMetadata": None} == {**before, "ResponseMetadata": None}


def test_a_name_that_is_none(stoker: RunningStoker) -> None:
    name = f"arn:aws:lambda:{REGION}:123400000000@function:myfn"
    pattern = (
        r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?"
        r"(function:)?([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
    )
    assert answer(stoker.client("lambda").invoke, FunctionName=name, Payload=b"{}") == violates(
        f"'{name}'", "functionName", f"Member must satisfy regular expression pattern: {pattern}"
    )


def test_a_list_of_other_versions(stoker: RunningStoker) -> None:
    assert answer(stoker.client("lambda").list_functions, FunctionVersion="invalid") == violates(
        "'invalid'", "functionVersion", "Member must satisfy enum value set: [ALL]"
    )


@pytest.mark.parametrize("variables", [{"LARGE_VAR": 4_064}, {"SMALL_VAR": 2, "LARGE_VAR": 4_061}])
def test_an_environment_over_4_kilobytes(stoker: RunningStoker, variables: dict[str, int]) -> None:
    """Measured as JSON without white space: the names, the quotation marks and the brackets count."""
    overhead = len("{" + ",".join(f'"{name}":""' for name in variables) + "}")
    *small, large = variables
    room = 4096 - overhead - sum(variables[name] for name in small)
    values = {name: "x" * variables[name] for name in small}
    service = stoker.client("lambda")
    measured = "{" + ",".join(f'"{k}":"{v}"' for k, v in {**values, large: "x" * (room + 1)}.items()) + "}"
    tight = {**values, large: "x" * room}
    assert answer(
        service.create_function,
        **creation("recorded-env", Environment={"Variables": {**values, large: "x" * (room + 1)}}),
    ) == invalid(
        "Lambda was unable to configure your environment variables because the environment variables you have "
        f"provided exceeded the 4KB limit. String measured: {measured}"
    )
    name = f"recorded-env-{len(variables)}"
    environment = {"Variables": tight}
    assert answer(service.create_function, **creation(name, Environment=environment)) == {
        **configuration(name, PENDING, Environment=environment),
        "HTTP": 201,
    }


def test_code_that_unzips_to_too_much(stoker: RunningStoker) -> None:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("zeros", bytes(262_144_001))
    change = {"Code": {"ZipFile": buffer.getvalue()}}
    service = stoker.client("lambda")
    assert answer(service.create_function, **creation("recorded-bomb", **change)) == invalid(
        "Unzipped size must be smaller than 262144000 bytes"
    )
    assert answer(service.get_function, FunctionName="recorded-bomb") == not_found("recorded-bomb")


def test_updates_of_a_function_that_is_being_updated(stoker: RunningStoker) -> None:
    """Whoever comes while an update is under way is told so; how long it takes is Stoker's affair."""
    name = "recorded-busy"
    created(stoker, name)
    message = (
        "The operation cannot be performed at this time. An update is in progress for resource: "
        f"{settled(stoker, name)['FunctionArn']}"
    )
    conflict = refusal("ResourceConflictException", message, 409, Type="User", message=message)
    services = [stoker.client("lambda") for _ in range(4)]
    seen: list[dict[str, Any]] = []
    with ThreadPoolExecutor(len(services)) as pool:
        for number in range(20):
            calls = [
                pool.submit(
                    answer,
                    service.update_function_configuration,
                    FunctionName=name,
                    Description=str(number),
                )
                for service in services
            ]
            seen += [call.result() for call in calls]
    refused = [shown for shown in seen if shown["HTTP"] != 200]
    assert refused
    assert all(shown == conflict for shown in refused)
    assert len(refused) < len(seen)
