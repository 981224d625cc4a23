"""Function names as callers write them: plain, partial ARN or full ARN, with or without a qualifier. Pure."""

import re
from functools import lru_cache
from typing import Final

import msgspec

from stoker.core.errors import ServiceError, invalid_parameter

FUNCTION_NAME_MAX_LENGTH: Final = 64
"""Of the bare name; ARNs may be longer."""
REFERENCE_CACHE_SIZE: Final = 4096

FUNCTION_NAME_PATTERN: Final = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?"
    r"(function:)?([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
)
"""NamespacedFunctionName of the API's model, as its validation messages quote it."""

_REFERENCE: Final = re.compile(
    r"(?:arn:(?:aws[a-zA-Z-]*)?:lambda:)?"
    r"(?:(?P<region>(?:eusc-)?[a-z]{2}(?:-gov|-iso[a-z]?)?-[a-z]+-\d):)?"
    r"(?:(?P<account>\d{12}):)?(?:function:)?(?P<name>[a-zA-Z0-9_.-]+)"
    r"(?::(?P<qualifier>\$LATEST(?:\.PUBLISHED)?|[a-zA-Z0-9_-]+))?",
    re.ASCII,
)


class FunctionReference(msgspec.Struct, frozen=True):
    """What a caller called a function. None: left open, so the caller's account and region, no qualifier."""

    name: str
    qualifier: str | None = None
    account: str | None = None
    region: str | None = None


@lru_cache(maxsize=REFERENCE_CACHE_SIZE)
def parse_function_reference(text: str, qualifier: str | None = None) -> FunctionReference:
    """Read ``text`` (a FunctionName) together with the request's Qualifier.

    Raises:
        ServiceError: ValidationException for what is no name or ARN, InvalidParameterValueException when both
            carry a qualifier and they differ (both worded as AWS words them).
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise ServiceError(
            "ValidationException",
            f"1 validation error detected: Value '{text}' at 'functionName' failed to satisfy constraint: "
            f"Member must satisfy regular expression pattern: {FUNCTION_NAME_PATTERN}",
        )
    derived = match["qualifier"]
    if qualifier and derived and derived != qualifier:
        raise invalid_parameter(
            "The derived qualifier from the function name does not match the specified qualifier."
        )
    return FunctionReference(match["name"], qualifier or derived, match["account"], match["region"])


def check_region(reference: FunctionReference, region: str) -> None:
    """Refuse an ARN of another region than the request's.

    Raises:
        ServiceError: ResourceNotFoundException, as AWS answers.
    """
    if reference.region is not None and reference.region != region:
        raise ServiceError(
            "ResourceNotFoundException",
            f"Functions from '{reference.region}' are not reachable in this region ('{region}')",
            fields={"Type": "User"},
        )
