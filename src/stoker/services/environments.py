"""Environment variables sealed under a key of KMS, and how Lambda words what KMS refuses."""

from typing import Final, Protocol

from stoker.core.errors import ServiceError, invalid_parameter
from stoker.services.functions import FunctionVersion, SealedEnvironment
from stoker.services.keys import KeyRefused, KeyUnavailable

_CHECK: Final = "Please check the function's KMS key settings."
_UNREADABLE: Final = {
    "DisabledException": ("KMSDisabledException", "the KMS key used is disabled"),
    "KMSInvalidStateException": (
        "KMSInvalidStateException",
        "the state of the KMS key used is not valid for Decrypt",
    ),
    "NotFoundException": ("KMSNotFoundException", "the KMS key was not found"),
}
"""By KMS's code: Lambda's, and why."""
_DENIED: Final = ("KMSAccessDeniedException", "KMS access was denied")
_BROKEN: Final = "due to an internal service error."


class EnvironmentKeeper(Protocol):
    """Seals and opens. KMS is told the function's ARN as the encryption context, as Lambda does."""

    async def seal(self, function_arn: str, variables: dict[str, str], kms_key_arn: str) -> SealedEnvironment:
        """For the function of that (unqualified) ARN and no other.

        Raises:
            KeyRefused, KeyUnavailable
        """
        ...

    async def open(self, function_arn: str, sealed: SealedEnvironment) -> dict[str, str]:
        """What was sealed.

        Raises:
            KeyRefused, KeyUnavailable
        """
        ...


async def opened(keeper: EnvironmentKeeper, version: FunctionVersion) -> FunctionVersion:
    """The version with its environment plain, for running it.

    Raises:
        ServiceError: as an invocation is answered; 502, or 500 when KMS does not answer.
    """
    if version.environment_sealed is None:
        return version
    try:
        variables = await keeper.open(version.key.arn, version.environment_sealed)
    except (KeyRefused, KeyUnavailable) as problem:
        raise unreadable(problem) from problem
    return version.with_environment(variables)


def unreadable(problem: KeyRefused | KeyUnavailable, what: str = "the environment variables") -> ServiceError:
    """As Invoke is answered (wording: recorded in bug reports; codes: the API's model)."""
    start = f"Lambda was unable to decrypt {what}"
    if isinstance(problem, KeyUnavailable):
        return ServiceError("ServiceException", f"{start} {_BROKEN} {problem}", fields={"Type": "Service"})
    code, why = _UNREADABLE.get(problem.code, _DENIED)
    # Between the two Lambda itself leaves no space.
    message = f"{start} because {why}. {_CHECK} KMS Exception: {problem.code}KMS Message: {problem.message}"
    return ServiceError(code, message, fields={"Type": "User"})


def unusable(
    problem: KeyRefused | KeyUnavailable,
    what: str = "your environment variables",
    operation: str = "CreateGrant",
) -> ServiceError:
    """As creations and updates are answered for a key that cannot be used."""
    start = f"Lambda was unable to configure access to {what}"
    if isinstance(problem, KeyUnavailable):
        return ServiceError("ServiceException", f"{start} {_BROKEN} {problem}", fields={"Type": "Service"})
    return invalid_parameter(
        f"{start} because the KMS key is invalid for {operation}. Please check your KMS key settings. "
        f"KMS Exception: {problem.code} KMS Message: {problem.message}"
    )
