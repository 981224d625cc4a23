"""Fetches objects from S3 or anything compatible, at the endpoint that botocore's own settings name."""

import asyncio
import html
import os
import re
import secrets
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from stoker.services.objects import FetchedObject, ObjectError, ObjectTooBig

if TYPE_CHECKING:
    from obstore.store import S3Config

CHUNK_BYTES = 1024 * 1024
CONNECT_TIMEOUT_S = 5
TIMEOUT_S = 300
RETRIES = 3
RETRY_FOR_S = 30

_ERROR = re.compile(r"<Code>([^<]*)</Code>.*?<Message>([^<]*)</Message>", re.DOTALL)
_REDIRECT_MESSAGE = (
    "The bucket you are attempting to access must be addressed using the specified endpoint. "
    "Please send all future requests to this endpoint."
)


class S3Settings:
    """Where S3 is and who we are there, from the environment as every AWS SDK reads it."""

    def __init__(self, environment: Mapping[str, str], default_region: str) -> None:
        self._environment = environment
        self._default_region = default_region

    def config(self) -> "S3Config":
        """As the client library takes it; requests are unsigned when there are no keys."""
        environment = self._environment
        config: S3Config = {
            "region": environment.get("AWS_REGION")
            or environment.get("AWS_DEFAULT_REGION")
            or self._default_region,
            "virtual_hosted_style_request": False,
            "skip_signature": "AWS_ACCESS_KEY_ID" not in environment,
        }
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        if endpoint:
            config["endpoint"] = endpoint
        if "AWS_ACCESS_KEY_ID" in environment:
            config["access_key_id"] = environment["AWS_ACCESS_KEY_ID"]
            config["secret_access_key"] = environment.get("AWS_SECRET_ACCESS_KEY", "")
        if "AWS_SESSION_TOKEN" in environment:
            config["session_token"] = environment["AWS_SESSION_TOKEN"]
        return config


class S3ObjectSource:
    """The ObjectSource port; files go to ``folder``, which is emptied at start."""

    def __init__(self, folder: Path, settings: S3Settings) -> None:
        self._folder = folder
        self._settings = settings

    async def start(self) -> None:
        """Make the folder and remove what a killed process left in it."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in self._folder.iterdir():
            leftover.unlink()

    async def fetch(self, bucket: str, key: str, version: str | None, *, limit_bytes: int) -> FetchedObject:
        file = self._folder / secrets.token_hex(8)
        try:
            fetched = await self._download(bucket, key, version, file, limit_bytes)
        except BaseException as problem:
            file.unlink(missing_ok=True)
            if isinstance(problem, BaseError | OSError | ValueError):
                raise object_error(problem) from problem
            raise
        return FetchedObject(file, fetched)

    async def _download(
        self, bucket: str, key: str, version: str | None, file: Path, limit_bytes: int
    ) -> str | None:
        result = await obstore.get_async(
            self._store(bucket), key, options={"version": version} if version is not None else None
        )
        size_bytes = 0
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            async for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                size_bytes += len(chunk)
                if size_bytes > limit_bytes:
                    raise ObjectTooBig(f"s3://{bucket}/{key} has more than {limit_bytes} bytes")
                await asyncio.to_thread(stream.write, chunk)
        return result.meta["version"]

    def _store(self, bucket: str) -> S3Store:
        return S3Store(
            bucket,
            config=self._settings.config(),
            client_options={
                "allow_http": True,
                "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
                "timeout": f"{TIMEOUT_S}s",
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_FOR_S)},
        )


def object_error(problem: BaseException) -> ObjectError:
    """S3's own code and message, which the client library keeps in its text."""
    text = str(problem)
    answer = _ERROR.search(text)
    if answer is not None:
        return ObjectError(html.unescape(answer[1]), html.unescape(answer[2]))
    if "redirect" in text.lower():
        return ObjectError("PermanentRedirect", _REDIRECT_MESSAGE)
    if isinstance(problem, ValueError):
        return ObjectError("InvalidArgument", "Keys with empty path segments cannot be fetched.")
    return ObjectError("ServiceUnavailable", text.partition("\n")[0][:500])
