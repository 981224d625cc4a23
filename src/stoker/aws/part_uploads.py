"""Multipart uploads to S3 through botocore: the object store's own client can neither abort nor list them."""

import base64
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from stoker.aws.clients import AwsClients
from stoker.core.threads import CallThreads
from stoker.services.object_store import ObjectStoreUnavailable, OpenUpload

T = TypeVar("T")

THREADS_MAX = 4


class S3PartUploads:
    """The PartUploads port on one bucket."""

    def __init__(self, clients: AwsClients, bucket: str, region: str) -> None:
        self._clients = clients
        self._bucket = bucket
        self._region = region
        self._threads = CallThreads("object-parts", threads_max=THREADS_MAX)

    async def begin(self, key: str) -> str:
        begun = await self._call(
            key,
            lambda s3: s3.create_multipart_upload(Bucket=self._bucket, Key=key, ChecksumAlgorithm="SHA256"),
        )
        return begun["UploadId"]

    async def put_part(self, key: str, upload: str, number: int, content: bytes) -> str:
        def put(s3: Any) -> str:
            checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
            answer = s3.upload_part(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload,
                PartNumber=number,
                Body=content,
                ChecksumSHA256=checksum,
            )
            return f"{checksum} {answer['ETag']}"

        return await self._call(key, put)

    async def complete(self, key: str, upload: str, receipts: Sequence[str]) -> None:
        parts = [
            {"PartNumber": number, "ChecksumSHA256": checksum, "ETag": etag}
            for number, (checksum, _, etag) in enumerate((one.partition(" ") for one in receipts), start=1)
        ]
        await self._call(
            key,
            lambda s3: s3.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
            ),
        )

    async def abort(self, key: str, upload: str) -> None:
        def abort(s3: Any) -> None:
            try:
                s3.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)
            except ClientError as problem:
                if problem.response["Error"]["Code"] != "NoSuchUpload":
                    raise

        await self._call(key, abort)

    async def open_uploads(self, prefix: str) -> list[OpenUpload]:
        listed = await self._call(
            prefix, lambda s3: s3.list_multipart_uploads(Bucket=self._bucket, Prefix=prefix)
        )
        return [
            OpenUpload(one["Key"], one["UploadId"], one["Initiated"].timestamp())
            for one in listed.get("Uploads", [])
        ]

    async def _call(self, key: str, work: Callable[[Any], T]) -> T:
        try:
            return await self._threads.call(lambda: work(self._clients.client("s3", self._region)))
        except (BotoCoreError, ClientError) as problem:
            raise ObjectStoreUnavailable(f"s3://{self._bucket}/{key}: {problem}") from problem
