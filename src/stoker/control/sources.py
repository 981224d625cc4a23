"""From FunctionCode to stored code: an inline zip or an object of an S3-compatible store."""

from pathlib import Path

import msgspec

from stoker.control.messages import not_implemented, object_failed
from stoker.core.errors import ServiceError, invalid_parameter
from stoker.services.code import CodeArtifact, CodeKey, CodeStore, code_name
from stoker.services.environments import unusable
from stoker.services.functions import ImageUse
from stoker.services.images import image_code
from stoker.services.keys import KeyRefused, KeyUnavailable
from stoker.services.lambda_types import FunctionCode, UpdateFunctionCodeRequest
from stoker.services.objects import ObjectError, ObjectSource, ObjectTooBig

INLINE_ZIP_MAX_BYTES = 52_428_800
REQUEST_MAX_BYTES = 70_167_211
UNZIPPED_MAX_BYTES = 262_144_000
"""A zip cannot be larger than what it may unpack to, so objects are fetched up to this."""


class CodeSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where the code is to come from; the same for creation and update."""

    zip_file: bytes | None
    image_uri: str | None = None
    s3_bucket: str | None
    s3_key: str | None
    s3_object_version: str | None
    kms_key_arn: str | None = None
    """The key of KMS to seal an archive under."""


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """What a function is to run: an archive that was admitted, or an image that is going to be."""

    code: CodeArtifact
    name: str
    """Among all code: what ``code_name`` or ``image_code`` says."""
    image: ImageUse | None = None
    kms_key_arn: str | None = None


def archive_package(code: CodeArtifact, key: CodeKey | None) -> Package:
    return Package(
        code=code,
        name=code_name(code.code_sha256, key),
        kms_key_arn=None if key is None else key.kms_key_arn,
    )


def image_package(image: ImageUse, account: str) -> Package:
    """AWS shows an image's digest as CodeSha256, and 0 as CodeSize."""
    code = CodeArtifact(image.digest.removeprefix("sha256:"), 0, 0)
    return Package(code=code, name=image_code(account, image.digest), image=image)


def code_source(request: FunctionCode | UpdateFunctionCodeRequest, operation: str) -> CodeSource:
    """The one source that a request gives.

    Raises:
        ServiceError: none, several, too big, or of a kind that is not built.
    """
    if request.s3_object_storage_mode == "REFERENCE":
        raise not_implemented("S3ObjectStorageMode REFERENCE")
    kms_key_arn = request.source_kms_key_arn or None
    if request.image_uri is not None:
        if kms_key_arn is not None:
            raise invalid_parameter("SourceKMSKeyArn is not supported for functions with PackageType Image.")
        return CodeSource(
            zip_file=None, image_uri=request.image_uri, s3_bucket=None, s3_key=None, s3_object_version=None
        )
    inline, stored = request.zip_file is not None, bool(request.s3_bucket or request.s3_key)
    if inline and stored:
        raise invalid_parameter(
            "Please do not provide other FunctionCode parameters when providing a ZipFile."
        )
    if not inline and not (request.s3_bucket and request.s3_key):
        raise invalid_parameter("Please provide a source for function code.")
    if request.zip_file is not None and len(request.zip_file) > INLINE_ZIP_MAX_BYTES:
        raise ServiceError(
            "RequestEntityTooLargeException",
            f"Request must be smaller than {REQUEST_MAX_BYTES} bytes for the {operation} operation",
        )
    return CodeSource(
        zip_file=request.zip_file,
        s3_bucket=request.s3_bucket,
        s3_key=request.s3_key,
        s3_object_version=request.s3_object_version,
        kms_key_arn=kms_key_arn,
    )


async def admitted_code(
    source: CodeSource, code: CodeStore, objects: ObjectSource, key: CodeKey | None
) -> CodeArtifact:
    """Fetch if need be, check and store.

    Awaits nothing after the code is stored: the caller can hold it at once.

    Raises:
        ServiceError: as AWS words it; nothing was stored.
    """
    if source.zip_file is not None:
        return await _admitted(source.zip_file, code, key)
    fetched = await _fetch(source, objects)
    try:
        return await _admitted(fetched, code, key)
    finally:
        fetched.unlink(missing_ok=True)


async def _admitted(archive: bytes | Path, code: CodeStore, key: CodeKey | None) -> CodeArtifact:
    try:
        return await code.admit(archive, key)
    except (KeyRefused, KeyUnavailable) as problem:
        if key is None:
            raise
        raise unusable(problem, "your deployment package", "GenerateDataKey") from problem


async def _fetch(source: CodeSource, objects: ObjectSource) -> Path:
    try:
        fetched = await objects.fetch(
            source.s3_bucket or "",
            source.s3_key or "",
            source.s3_object_version,
            limit_bytes=UNZIPPED_MAX_BYTES,
        )
    except ObjectTooBig as problem:
        raise invalid_parameter(f"Unzipped size must be smaller than {UNZIPPED_MAX_BYTES} bytes") from problem
    except ObjectError as problem:
        raise object_failed(problem.code, problem.message) from problem
    return fetched.path
