"""Functions from container images: what an ImageUri names, in AWS's words, and what a function overrides."""

import msgspec

from stoker.control.ports import Ports
from stoker.core.errors import ServiceError, StokerError, invalid_parameter
from stoker.services.functions import ImageOverrides, ImageUse
from stoker.services.images import ImageRefused, ResolvedImage
from stoker.services.keys import KeyRefused
from stoker.services.lambda_types import ImageConfig, ImageConfigResponse

IMAGE_CONFIG_MAX_BYTES = 16 * 1024
"""Of an ImageConfig as JSON ("container image settings", quotas of the developer guide)."""

_STATE_CODES = {
    "missing": "ImageDeleted",
    "denied": "ImageAccessDenied",
    "invalid": "InvalidImage",
    "too_big": "InvalidImage",
    "architecture": "InvalidImage",
    "media_type": "InvalidImage",
}
"""StateReasonCode by the kind of refusal; a registry that does not answer is an InternalError."""

_KEY_CODES = {
    "AccessDeniedException": "KMSKeyAccessDenied",
    "NotFoundException": "KMSKeyNotFound",
    "DisabledException": "DisabledKMSKey",
    "KMSInvalidStateException": "InvalidStateKMSKey",
}


class FunctionImages:
    """Asks the image store on behalf of requests and of creations under way."""

    def __init__(self, ports: Ports) -> None:
        self._images = ports.images
        self._unavailable = ports.images_unavailable
        self._runtimes = ports.runtimes

    async def resolve(self, uri: str, architecture: str) -> ImageUse:
        """What the image is now.

        Raises:
            ServiceError: as AWS words it; or this host can run no images, and what would bring that.
        """
        missing = self._unavailable() or self._runtimes.missing("provided.al2023", architecture)
        if missing is not None:
            raise invalid_parameter(f"Functions from container images cannot run here: {missing}")
        try:
            found = await self._images.resolve(uri, architecture)
        except ImageRefused as problem:
            raise _refused(uri, problem) from problem
        return ImageUse(uri=uri, resolved_uri=found.resolved_uri, digest=found.digest)

    async def admit(self, image: ImageUse, account: str, kms_key_arn: str | None) -> None:
        """Have the image stored for the account.

        Raises:
            StokerError: ``reason_code`` says what it is to AWS.
        """
        if await self._images.artifact(account, image.digest) is not None:
            return
        resolved = ResolvedImage(uri=image.uri, resolved_uri=image.resolved_uri, digest=image.digest)
        await self._images.admit(resolved, account, kms_key_arn=kms_key_arn)


def reason_code(problem: StokerError) -> str:
    """The StateReasonCode and LastUpdateStatusReasonCode of an admission that failed."""
    if isinstance(problem, ImageRefused):
        return _STATE_CODES.get(problem.kind, "InternalError")
    if isinstance(problem, KeyRefused):
        return _KEY_CODES.get(problem.code, "InternalError")
    return "InternalError"


def overrides(given: ImageConfig | None) -> ImageOverrides | None:
    """What an ImageConfig changes; empty members change nothing, and one of nothing else is none.

    Raises:
        ServiceError: it is too big, or nothing could be started with it.
    """
    if given is None:
        return None
    measured_bytes = len(msgspec.json.encode(given))
    if measured_bytes > IMAGE_CONFIG_MAX_BYTES:
        raise invalid_parameter(
            f"ImageConfig must be smaller than {IMAGE_CONFIG_MAX_BYTES} bytes. "
            f"Size measured: {measured_bytes} bytes."
        )
    texts = (*(given.entry_point or ()), *(given.command or ()), given.working_directory or "")
    if any("\0" in text for text in texts):
        raise invalid_parameter("ImageConfig must not hold NUL characters.")
    return ImageOverrides(
        entry_point=given.entry_point or None,
        command=given.command or None,
        working_directory=given.working_directory or None,
    )


def shown_overrides(kept: ImageOverrides | None) -> ImageConfigResponse | None:
    """As functions show them; None when nothing is overridden."""
    if kept is None or kept == ImageOverrides():
        return None
    return ImageConfigResponse(
        image_config=ImageConfig(
            entry_point=kept.entry_point, command=kept.command, working_directory=kept.working_directory
        )
    )


def _refused(uri: str, problem: ImageRefused) -> ServiceError:
    match problem.kind:
        case "missing":
            return invalid_parameter(f"Source image {uri} does not exist. Provide a valid source image.")
        case "denied":
            return ServiceError(
                "AccessDeniedException",
                "Lambda does not have permission to access the ECR image. Check the ECR permissions.",
                fields={"Type": "User"},
            )
        case "media_type":
            return invalid_parameter(
                f"The image manifest, config or layer media type for the source image {uri} is not supported."
            )
        case "unreachable":
            return ServiceError("ServiceException", f"The registry of {uri} cannot be reached: {problem}")
        case _:
            # AWS's words end here; what is wrong with it is worth saying.
            return invalid_parameter(
                f"Source image {uri} is not valid. Provide a valid source image. ({problem})"
            )
