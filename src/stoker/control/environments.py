"""Environments of functions that name a key of KMS: sealed before they are stored, opened to be shown."""

import asyncio
from collections.abc import Iterable

import msgspec

from stoker.services.environments import EnvironmentKeeper, opened, unusable
from stoker.services.functions import FunctionVersion
from stoker.services.keys import KeyRefused, KeyUnavailable
from stoker.services.lambda_types import EnvironmentError as ShownError
from stoker.services.lambda_types import EnvironmentResponse, FunctionCodeLocationError, FunctionConfiguration


class Environments:
    """Whatever a version stored is made from goes through here."""

    def __init__(self, keeper: EnvironmentKeeper) -> None:
        self._keeper = keeper

    async def created(self, version: FunctionVersion) -> FunctionVersion:
        """A new version as it is to be stored.

        Raises:
            ServiceError: its key cannot be used.
        """
        if version.kms_key_arn is None:
            return version
        return await self._sealed(version, version.kms_key_arn)

    async def reconfigured(
        self, stored: FunctionVersion, changed: FunctionVersion, *, key_given: bool
    ) -> FunctionVersion:
        """``changed`` as it is to be stored in the place of ``stored``: what did not change stays as sealed.

        Raises:
            ServiceError: a key that it needs cannot be used.
        """
        same_key = changed.kms_key_arn == stored.kms_key_arn
        if changed.environment is None and changed.environment_sealed is not None and not same_key:
            changed = await opened(self._keeper, changed)
        if changed.kms_key_arn is None:
            return changed
        if not key_given and changed.environment is None:
            return changed
        fresh = await self._sealed(changed, changed.kms_key_arn)
        kept = await self._same(stored, changed) if same_key else None
        return kept or fresh

    async def shown(
        self, configuration: FunctionConfiguration, version: FunctionVersion
    ) -> FunctionConfiguration:
        """The configuration of a version with its environment, or with why that cannot be read."""
        if version.environment_sealed is None:
            return configuration
        try:
            variables = await self._keeper.open(version.key.arn, version.environment_sealed)
        except (KeyRefused, KeyUnavailable) as problem:
            return msgspec.structs.replace(
                configuration, environment=EnvironmentResponse(error=_shown(problem))
            )
        return msgspec.structs.replace(configuration, environment=EnvironmentResponse(variables=variables))

    async def listed(
        self, shown: Iterable[tuple[FunctionConfiguration, FunctionVersion]]
    ) -> tuple[FunctionConfiguration, ...]:
        """As ``shown``, many at once; a task only for those that have something to open."""
        entries = list(shown)
        found = [configuration for configuration, _ in entries]
        sealed = [
            place for place, (_, version) in enumerate(entries) if version.environment_sealed is not None
        ]
        opened_ones = await asyncio.gather(*(self.shown(*entries[place]) for place in sealed))
        for place, configuration in zip(sealed, opened_ones, strict=True):
            found[place] = configuration
        return tuple(found)

    async def _sealed(self, version: FunctionVersion, kms_key_arn: str) -> FunctionVersion:
        """With nothing to seal, the key is tried all the same."""
        variables = version.environment
        try:
            sealed = await self._keeper.seal(version.key.arn, variables or {}, kms_key_arn)
        except (KeyRefused, KeyUnavailable) as problem:
            raise unusable(problem) from problem
        if variables is None:
            return version
        return msgspec.structs.replace(version, environment=None, environment_sealed=sealed)

    async def _same(self, stored: FunctionVersion, changed: FunctionVersion) -> FunctionVersion | None:
        """``changed`` with what is stored, if that says the same: whoever compares then sees no change."""
        if changed.environment is None:
            return changed
        if stored.environment_sealed is None:
            return None
        try:
            variables = await self._keeper.open(stored.key.arn, stored.environment_sealed)
        except (KeyRefused, KeyUnavailable):
            return None  # unreadable: what was given takes its place
        if variables != changed.environment:
            return None
        return msgspec.structs.replace(
            changed, environment=None, environment_sealed=stored.environment_sealed
        )


def shown_code_error(problem: KeyRefused | KeyUnavailable) -> FunctionCodeLocationError:
    """Why GetFunction gives no location."""
    error = _shown(problem, "deployment package")
    return FunctionCodeLocationError(error_code=error.error_code, message=error.message)


def _shown(problem: KeyRefused | KeyUnavailable, what: str = "environment variables") -> ShownError:
    if isinstance(problem, KeyUnavailable):
        code, message = "ServiceException", f"due to an internal service error. {problem}"
    else:
        code = problem.code
        message = (
            "because the KMS access was denied. Please check your KMS permissions. "
            f"KMS Exception: {code} KMS Message: {problem.message}"
        )
    return ShownError(error_code=code, message=f"Lambda was unable to decrypt your {what} {message}")
