"""Constraint violations in the words of the real service (recorded answers), and types."""

from typing import Any

import pytest

from stoker.api.model import compile_service
from stoker.api.validate import VIOLATIONS_MAX, check
from stoker.core.errors import ServiceError

LAMBDA = compile_service("lambda")
LOGS = compile_service("logs")
ROLE = "arn:aws:iam::000000000000:role/r"
CREATE = {"FunctionName": "f", "Role": ROLE, "Code": {}}
ONE = "1 validation error detected: "
NAME_PATTERN = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?"
    r"(function:)?([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
)
LAYER_PATTERN = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:layer:"
    r"[a-zA-Z0-9-_]+:[0-9]+)|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+)"
)
LENGTHS = (
    "Member must have length less than or equal to 1024, Member must have length greater than or equal to"
)


def complaint(operation: str, members: dict[str, Any]) -> str:
    with pytest.raises(ServiceError) as caught:
        check(members, LAMBDA.operations[operation].rule)
    assert caught.value.code == "ValidationException"
    return caught.value.message


@pytest.mark.parametrize(
    ("operation", "members", "message"),
    [
        (
            "CreateAlias",
            {"FunctionName": "f", "Name": "2024", "FunctionVersion": "1"},
            "Value '2024' at 'name' failed to satisfy constraint: Member must satisfy regular expression "
            "pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)",
        ),
        (
            "UpdateAlias",
            {"FunctionName": "f", "Name": "a", "RoutingConfig": {"AdditionalVersionWeights": {"2": -1.0}}},
            "Value '{2=-1.0}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value "
            "must satisfy constraint: [Member must have value less than or equal to 1.0, Member must have value "
            "greater than or equal to 0.0, Member must not be null]",
        ),
        (
            "UpdateAlias",
            {
                "FunctionName": "f",
                "Name": "a",
                "RoutingConfig": {"AdditionalVersionWeights": {"$LATEST": 0.5}},
            },
            "Value '{$LATEST=0.5}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map "
            f"keys must satisfy constraint: [{LENGTHS} 1, Member must satisfy regular expression pattern: [0-9]+]",
        ),
        (
            "CreateFunction",
            CREATE | {"Architectures": ["x86_64", "arm64"]},
            "Value '[x86_64, arm64]' at 'architectures' failed to satisfy constraint: Member must have length "
            "less than or equal to 1",
        ),
        (
            "CreateFunction",
            CREATE | {"Architectures": ["X86_64"]},
            "Value '[X86_64]' at 'architectures' failed to satisfy constraint: Member must satisfy constraint: "
            "[Member must satisfy enum value set: [x86_64, arm64], Member must not be null]",
        ),
        (
            "CreateFunction",
            CREATE | {"VpcConfig": {"SecurityGroupIds": ["x"]}},
            "Value '[x]' at 'vpcConfig.securityGroupIds' failed to satisfy constraint: Member must satisfy "
            f"constraint: [{LENGTHS} 0, Member must satisfy regular expression pattern: sg-[0-9a-zA-Z]*]",
        ),
        (
            "CreateFunction",
            CREATE | {"Layers": ["l"]},
            "Value '[l]' at 'layers' failed to satisfy constraint: Member must satisfy constraint: [Member must "
            "have length less than or equal to 2048, Member must have length greater than or equal to 1, Member "
            f"must satisfy regular expression pattern: {LAYER_PATTERN}, Member must not be null]",
        ),
        (
            "CreateFunction",
            CREATE | {"SnapStart": {"ApplyOn": "invalidOption"}},
            "Value 'invalidOption' at 'snapStart.applyOn' failed to satisfy constraint: Member must satisfy enum "
            "value set: [PublishedVersions, None]",
        ),
        (
            "CreateEventSourceMapping",
            {"FunctionName": "f", "StartingPosition": "invalid"},
            "Value 'invalid' at 'startingPosition' failed to satisfy constraint: Member must satisfy enum value "
            "set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]",
        ),
        (
            "Invoke",
            {"FunctionName": "arn:aws:lambda:us-east-1:123400000000@function:myfn"},
            "Value 'arn:aws:lambda:us-east-1:123400000000@function:myfn' at 'functionName' failed to satisfy "
            f"constraint: Member must satisfy regular expression pattern: {NAME_PATTERN}",
        ),
        (
            "PutProvisionedConcurrencyConfig",
            {"FunctionName": "f", "Qualifier": "1", "ProvisionedConcurrentExecutions": 0},
            "Value '0' at 'provisionedConcurrentExecutions' failed to satisfy constraint: Member must have value "
            "greater than or equal to 1",
        ),
        (
            "UntagResource",
            {"Resource": "arn:aws:lambda:us-east-1:000000000000:function:f"},
            "Value null at 'tagKeys' failed to satisfy constraint: Member must not be null",
        ),
        (
            "AddPermission",
            {
                "FunctionName": "f",
                "StatementId": "example.com",
                "Action": "lambda:InvokeFunction",
                "Principal": "*",
            },
            "Value 'example.com' at 'statementId' failed to satisfy constraint: Member must satisfy regular "
            "expression pattern: ([a-zA-Z0-9-_]+)",
        ),
        (
            "ListFunctions",
            {"FunctionVersion": "invalid"},
            "Value 'invalid' at 'functionVersion' failed to satisfy constraint: Member must satisfy enum value "
            "set: [ALL]",
        ),
        (
            "UpdateFunctionConfiguration",
            {"FunctionName": "f", "Timeout": 901},
            "Value '901' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to 900",
        ),
        (
            "UpdateFunctionConfiguration",
            {"FunctionName": "f", "Environment": {"Variables": {"1A": "secret"}}},
            "Value at 'environment.variables' failed to satisfy constraint: Map keys must satisfy constraint: "
            "[Member must satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+]",
        ),
    ],
)
def test_recorded_wording(operation: str, members: dict[str, Any], message: str) -> None:
    assert complaint(operation, members) == ONE + message


def test_several_violations() -> None:
    assert complaint("CreateFunction", {"FunctionName": "", "Role": "r", "MemorySize": 1}).startswith(
        "5 validation errors detected: Value '' at 'functionName' failed to satisfy constraint: Member must have "
        "length greater than or equal to 1; Value '' at 'functionName' failed to satisfy constraint: Member must "
        "satisfy regular expression pattern: "
    )


def test_violations_are_bounded() -> None:
    tags = [{"Pattern": "x" * 5000} for _ in range(1000)]
    message = complaint(
        "CreateEventSourceMapping", {"FunctionName": "f", "FilterCriteria": {"Filters": tags}}
    )
    assert message.startswith(f"{VIOLATIONS_MAX} validation errors detected: ")


def test_known_runtimes_are_the_operations_business() -> None:
    check(CREATE | {"Runtime": "fortran77"}, LAMBDA.operations["CreateFunction"].rule)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Timeout": "3"}, "STRING_VALUE can not be converted to an Integer"),
        ({"Timeout": 3.5}, "DECIMAL_VALUE can not be converted to an Integer"),
        ({"Timeout": True}, "TRUE_VALUE can not be converted to an Integer"),
        ({"Description": 3}, "NUMBER_VALUE can not be converted to a String"),
        ({"Description": []}, "Start of list found where not expected"),
        ({"Description": {}}, "Start of structure or map found where not expected."),
        ({"Layers": {}}, "Start of structure or map found where not expected."),
        ({"Code": []}, "Start of list found where not expected"),
        ({"Layers": [1]}, "NUMBER_VALUE can not be converted to a String"),
        ({"Timeout": 2**40}, "Value 1099511627776 is out of range for an Integer"),
        ({"Publish": "true"}, "STRING_VALUE can not be converted to a Boolean"),
        ({"Code": 1}, "Unexpected NUMBER_VALUE where a structure, map or list is expected"),
    ],
)
def test_wrong_types(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ServiceError) as caught:
        check(CREATE | change, LAMBDA.operations["CreateFunction"].rule)
    assert (caught.value.code, caught.value.message) == ("SerializationException", message)


def test_null_is_absent() -> None:
    check(CREATE | {"Timeout": None, "Layers": None}, LAMBDA.operations["CreateFunction"].rule)
    assert "Member must not be null" in complaint("CreateFunction", CREATE | {"Layers": [None]})


def test_logs_have_their_own_code() -> None:
    with pytest.raises(ServiceError) as caught:
        check({}, LOGS.operations["CreateLogGroup"].rule, "InvalidParameterException")
    assert caught.value.code == "InvalidParameterException"


def test_letters_of_other_scripts_in_tags() -> None:
    check(CREATE | {"Tags": {"größe": "大 1"}}, LAMBDA.operations["CreateFunction"].rule)
    assert "Map keys" in complaint("CreateFunction", CREATE | {"Tags": {"a!": "b"}})
