"""From FunctionCode to stored code: an inline zip or an object of an S3-compatible store."""

from pathlib import Path

import msgspec

from stoker.control.messages import not_implemented, object_failed
from stoker.core.errors import ServiceError, invalid_parameter
from stoker.services.code import CodeArtifact, CodeStore
from stoker.services.lambda_types import FunctionCode, UpdateFunctionCodeRequest
from stoker.services.objects import ObjectError, ObjectSource, ObjectTooBig

INLINE_ZIP_MAX_BYTES = 52_428_800
REQUEST_MAX_BYTES = 70_167_211
UNZIPPED_MAX_BYTES = 262_144_000
"""A zip cannot be larger than what it may unpack to, so objects are fetched up to this."""


class CodeSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where the code is to come from; the same for creation and update."""

    zip_file: bytes | None
    s3_bucket: str | None
    s3_key: str | None
    s3_object_version: str | None


def code_source(request: FunctionCode | UpdateFunctionCodeRequest, operation: str) -> CodeSource:
    """The one source that a request gives.

    Raises:
        ServiceError: none, several, too big, or of a kind that is not built.
    """
    if request.s3_object_storage_mode == "REFERENCE":
        raise not_implemented("S3ObjectStorageMode REFERENCE")
    if request.source_kms_key_arn:
        raise not_implemented("SourceKMSKeyArn")
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
    )


async def admitted_code(source: CodeSource, code: CodeStore, objects: ObjectSource) -> CodeArtifact:
    """Fetch if need be, check and store.

    Awaits nothing after the code is stored: the caller can hold it at once.

    Raises:
        ServiceError: as AWS words it; nothing was stored.
    """
    if source.zip_file is not None:
        return await code.admit(source.zip_file)
    fetched = await _fetch(source, objects)
    try:
        return await code.admit(fetched)
    finally:
        fetched.unlink(missing_ok=True)


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
