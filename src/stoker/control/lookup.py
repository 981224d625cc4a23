"""From what a caller wrote to the stored function: names, accounts, regions, qualifiers."""

import msgspec

from stoker.control.messages import constraint, function_not_found
from stoker.core.arn import (
    FUNCTION_NAME_MAX_LENGTH,
    FunctionReference,
    check_region,
    parse_function_reference,
)
from stoker.core.errors import ServiceError, invalid_parameter
from stoker.services.context import RequestContext
from stoker.services.functions import LATEST, FunctionKey, FunctionMetadata, FunctionVersion


class Target(msgspec.Struct, frozen=True):
    """The function a request is about, and the qualifier it gave, if any."""

    key: FunctionKey
    qualifier: str | None

    @property
    def arn(self) -> str:
        """As the caller qualified it."""
        return self.key.arn if self.qualifier is None else f"{self.key.arn}:{self.qualifier}"


def target(context: RequestContext, name: str, operation: str, qualifier: str | None = None) -> Target:
    """Read a FunctionName, with the Qualifier that came beside it.

    Raises:
        ServiceError: malformed, of another region, or of another account (403).
    """
    reference = parse_function_reference(name, qualifier)
    check_region(reference, context.region)
    key = FunctionKey(reference.account or context.account, context.region, reference.name)
    if key.account != context.account:
        raise ServiceError(
            "AccessDeniedException",
            f"User: {context.principal_arn} is not authorized to perform: lambda:{operation} "
            f"on resource: {key.arn} because no resource-based policy allows the lambda:{operation} action",
        )
    return Target(key, reference.qualifier)


def unqualified(context: RequestContext, name: str, operation: str) -> Target:
    """Read a FunctionName for an operation on whole functions.

    Raises:
        ServiceError: as ``target``; also for a name that carries a version or alias.
    """
    found = target(context, name, operation)
    if found.qualifier is not None:
        raise invalid_parameter(
            "This operation is permitted on Lambda functions only. Aliases and versions do not support this "
            "operation. Please specify either a function name or an unqualified function ARN."
        )
    return found


def new_key(context: RequestContext, name: str) -> FunctionKey:
    """The key for a function to be created.

    Raises:
        ServiceError: as ``target``; also for names that are too long or carry a version.
    """
    reference = parse_function_reference(name)
    _check_new_name(name, reference)
    found = target(context, name, "CreateFunction")
    return found.key


def check_latest(found: Target) -> FunctionKey:
    """The key of a target that must not be qualified, or by $LATEST alone.

    Raises:
        ServiceError: InvalidParameterValueException for a version or an alias.
    """
    if found.qualifier not in (None, LATEST):
        raise invalid_parameter(
            "Current operation does not support versions other than $LATEST. "
            "Please set the version to $LATEST or do not set a version in your request."
        )
    return found.key


async def latest_version(metadata: FunctionMetadata, found: Target) -> FunctionVersion:
    """$LATEST of the target, which must be unqualified or qualified so.

    Raises:
        ServiceError: 404; InvalidParameterValueException for another qualifier.
    """
    version = await metadata.version(check_latest(found), LATEST)
    if version is None:
        raise function_not_found(found.arn)
    return version


def _check_new_name(name: str, reference: FunctionReference) -> None:
    if len(reference.name) > FUNCTION_NAME_MAX_LENGTH:
        rule = f"Member must have length less than or equal to {FUNCTION_NAME_MAX_LENGTH}"
        raise constraint(name, "functionName", rule)
    if reference.qualifier not in (None, LATEST):
        raise invalid_parameter(
            "The derived qualifier from the function name does not match the specified qualifier."
        )
