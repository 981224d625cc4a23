"""Function names, partial and full ARNs, and qualifiers."""

import re

import pytest

from stoker.core.arn import (
    FUNCTION_NAME_PATTERN,
    FunctionReference,
    check_region,
    parse_function_reference,
)
from stoker.core.errors import ServiceError


@pytest.mark.parametrize(
    ("text", "qualifier", "expected"),
    [
        ("f", None, FunctionReference("f")),
        ("f", "live", FunctionReference("f", "live")),
        ("f:live", None, FunctionReference("f", "live")),
        ("f:live", "live", FunctionReference("f", "live")),
        ("f:$LATEST", None, FunctionReference("f", "$LATEST")),
        ("f:$LATEST.PUBLISHED", None, FunctionReference("f", "$LATEST.PUBLISHED")),
        ("function:f", None, FunctionReference("f")),
        ("111111111111:function:f", None, FunctionReference("f", None, "111111111111")),
        ("111111111111:function:f:7", None, FunctionReference("f", "7", "111111111111")),
        (
            "arn:aws:lambda:eu-west-1:111111111111:function:f:live",
            None,
            FunctionReference("f", "live", "111111111111", "eu-west-1"),
        ),
        (
            "arn:aws-us-gov:lambda:us-gov-west-1:111111111111:function:f",
            "1",
            FunctionReference("f", "1", "111111111111", "us-gov-west-1"),
        ),
    ],
)
def test_reference(text: str, qualifier: str | None, expected: FunctionReference) -> None:
    assert parse_function_reference(text, qualifier) == expected
    assert re.fullmatch(FUNCTION_NAME_PATTERN, text)


def test_differing_qualifiers_are_refused() -> None:
    with pytest.raises(ServiceError) as caught:
        parse_function_reference("f:one", "two")
    assert caught.value.code == "InvalidParameterValueException"
    assert caught.value.message == (
        "The derived qualifier from the function name does not match the specified qualifier."
    )


@pytest.mark.parametrize(
    "text", ["", "a b", "f:", "f\n", "arn:aws:lambda:us-east-1:12@function:f", "f:é", "f:1:2:3"]
)
def test_malformed_names_are_refused(text: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_function_reference(text)
    assert caught.value.code == "ValidationException"
    assert f"Value '{text}' at 'functionName' failed" in caught.value.message


def test_another_region_is_not_reachable() -> None:
    reference = parse_function_reference("arn:aws:lambda:eu-west-1:111111111111:function:f")
    check_region(reference, "eu-west-1")
    with pytest.raises(ServiceError, match="Functions from 'eu-west-1' are not reachable in this region"):
        check_region(reference, "us-east-1")
